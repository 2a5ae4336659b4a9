"""Which emission level a server's CapabilityStatement allows: a proposal, which an operator confirms in the settings.

A statement may be silent: a type without its interactions is believed to take them, and a statement that lists no types at
all proposes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from emitters.fhir_terms import Level, Resource

__all__ = ["TYPES", "may_choose_ids", "missing", "proposed", "takes_documents_only"]

TYPES: Final = {
    Level.L0: ("Communication",),
    Level.L1: ("CommunicationRequest",),
    Level.L2: ("Device", "Flag", "Observation", "Provenance", "Task"),
    Level.L3: (
        "CommunicationRequest",
        "DetectedIssue",
        "Device",
        "Flag",
        "Observation",
        "Provenance",
        "ServiceRequest",
        "Task",
    ),
}
"""What is written at each level. At L0 a DocumentReference does where there is no Communication."""

_OWNED: Final = frozenset({"DetectedIssue", "Device", "Flag", "Observation", "Provenance"})
"""Written over by an id of ours. The others are made once and belong to people afterwards."""


def proposed(statement: Resource) -> Level | None:
    """The highest level all of whose types can be created; None when there is none, or the statement lists no types."""
    for level in reversed(Level):
        if not missing(statement, level):
            return level
    return None


def missing(statement: Resource, level: Level) -> list[str]:
    """The types of this level that the server does not say it creates; ``transaction`` when it takes none of those."""
    able = {str(one.get("type")) for one in _resources(statement) if _creates(one)}
    wanted = TYPES[level]
    if level is Level.L0 and "DocumentReference" in able:
        wanted = ("DocumentReference",)
    absent = [kind for kind in wanted if kind not in able]
    return absent if _transacts(statement) else [*absent, "transaction"]


def takes_documents_only(statement: Resource) -> bool:
    able = {str(one.get("type")) for one in _resources(statement) if _creates(one)}
    return "DocumentReference" in able and "Communication" not in able


def may_choose_ids(statement: Resource, level: Level) -> bool:
    """``updateCreate`` for every type that we write over; one rule for the whole transaction."""
    allowed = {one.get("type") for one in _resources(statement) if one.get("updateCreate") is True}
    return allowed.issuperset(_OWNED.intersection(TYPES[level]))


def _creates(resource: Resource) -> bool:
    codes = _interactions(resource)
    return not codes or "create" in codes


def _transacts(statement: Resource) -> bool:
    said = [code for rest in _rests(statement) for code in _interactions(rest)]
    return not said or "transaction" in said


def _interactions(part: Resource) -> list[str]:
    return [str(one.get("code")) for one in part.get("interaction") or () if isinstance(one, dict)]


def _resources(statement: Resource) -> Iterator[Resource]:
    for rest in _rests(statement):
        yield from (one for one in rest.get("resource") or () if isinstance(one, dict))


def _rests(statement: Resource) -> list[Resource]:
    return [one for one in statement.get("rest") or () if isinstance(one, dict) and one.get("mode") != "client"]
