"""Caches of what feeds repeat all day, bounded by number and by length: a stranger's long text is read anew, never kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

__all__ = ["LONGEST", "memo", "memo_of_parts", "weight"]

LONGEST = 256
"""Characters of what is kept under one key: more than any code, unit, name or time of a real feed."""
P = ParamSpec("P")
T = TypeVar("T")


def memo(maxsize: int) -> Callable[[Callable[Concatenate[str, P], T]], Callable[Concatenate[str, P], T]]:
    """As ``lru_cache``, of a function whose first argument is the text that its caller does not choose."""

    def decorate(function: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
        kept = lru_cache(maxsize)(function)

        @wraps(function)
        def call(text: str, /, *rest: P.args, **named: P.kwargs) -> T:
            return (kept if len(text) <= LONGEST else function)(text, *rest, **named)  # type: ignore[arg-type]

        return call

    return decorate


def memo_of_parts(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """As ``memo``, of a function whose arguments are texts, or tuples of them, which count together."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kept = lru_cache(maxsize)(function)

        @wraps(function)
        def call(*parts: P.args, **named: P.kwargs) -> T:
            return (kept if weight(parts) <= LONGEST else function)(*parts, **named)  # type: ignore[arg-type]

        return call

    return decorate


def weight(parts: object) -> int:
    """The characters of a text, or of all texts in nested tuples."""
    if isinstance(parts, str):
        return len(parts)
    return sum(map(weight, parts)) if isinstance(parts, tuple) else 0
