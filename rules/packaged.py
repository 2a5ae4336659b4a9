"""The protocols that come with the package, by id, version or alias."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources

from rules.protocol import Choice, MonitoringProtocol, ProtocolError
from rules.protocol_file import parse

__all__ = ["check_together", "find_protocol", "find_selectable", "packaged"]


@lru_cache(maxsize=1)
def packaged() -> tuple[MonitoringProtocol, ...]:
    """All packaged protocols, by id and date. Raises ProtocolError if one of them must not be used."""
    return check_together(parse(text) for text in _texts())


def find_protocol(name: str, choices: Mapping[str, Choice] | None = None) -> MonitoringProtocol:
    """The packaged protocol called ``name``: an id (its newest version), ``id@version`` or an alias.

    ``choices`` sets switchable readings. Raises ProtocolError for an unknown name.
    """
    known = packaged()
    if choices:
        # The names are checked on the protocols as packaged; a switch need not exist in every one of them.
        wanted = _find(known, name)
        return next(p for text in _texts() if (p := _with_choices(text, wanted.name, choices)) is not None)
    return _find(known, name)


def find_selectable(name: str) -> MonitoringProtocol:
    """As ``find_protocol``, for a live course: a protocol that is a reference only is refused by name."""
    found = find_protocol(name)
    if not found.selectable:
        raise ProtocolError(f"protocol {name!r}", f"{found.name} is a reference for comparison, not for a live course")
    return found


def check_together(protocols: Iterable[MonitoringProtocol]) -> tuple[MonitoringProtocol, ...]:
    """Refuse two protocols of one id with overlapping dates, or one name for two. Sorted by id and date."""
    ordered = tuple(sorted(protocols, key=lambda p: (p.id, p.effective_from)))
    for earlier, later in itertools.pairwise(ordered):
        if earlier.id == later.id and (
            earlier.effective_until is None or earlier.effective_until >= later.effective_from
        ):
            raise ProtocolError(f"protocol {later.name}", f"its dates overlap those of {earlier.name}")
    seen: dict[str, str] = {}
    for found in ordered:
        for alias in (found.name, *found.aliases):
            if seen.setdefault(alias.casefold(), found.name) != found.name:
                raise ProtocolError(f"protocol {found.name}", f"alias {alias!r} already means {seen[alias.casefold()]}")
    return ordered


def _find(known: tuple[MonitoringProtocol, ...], name: str) -> MonitoringProtocol:
    wanted = name.casefold()
    for found in reversed(known):
        if wanted in (found.id.casefold(), found.name.casefold(), *(alias.casefold() for alias in found.aliases)):
            return found
    names = ", ".join(alias for found in known for alias in (found.name, *found.aliases))
    raise ProtocolError(f"protocol {name!r}", f"unknown; known are {names}")


def _texts() -> list[str]:
    folder = resources.files("rules").joinpath("protocols")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return [file.read_text(encoding="utf-8") for file in files]


def _with_choices(text: str, name: str, choices: Mapping[str, Choice]) -> MonitoringProtocol | None:
    return parse(text, choices) if parse(text).name == name else None
