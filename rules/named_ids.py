"""Ids from names (uuid5, RFC 9562), for the few namespaces that name everything: the namespace is hashed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import UUID

__all__ = ["namer"]

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def namer(namespace: UUID) -> Callable[[str], str]:
    """A function that does what ``str(uuid.uuid5(namespace, name))`` does."""
    seed = hashlib.sha1(namespace.bytes, usedforsecurity=False)

    def named(name: str) -> str:
        digest = seed.copy()
        digest.update(name.encode())
        text = digest.hexdigest()
        return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"

    return named
