"""Merges of two records and their undoing, as the audit has them: read only, newest first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rules.model import Person
from store.tables import audit, patient
from store.values import decode_person

__all__ = ["MERGED", "UNDONE", "Merge", "merges"]

MERGED, UNDONE = "patients-merged", "patients-unmerged"
_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """``last``: the latest of its survivor that stands, the one that can be taken back. ``undone``: by whom, when, why."""

    seq: int
    at: int
    by: str
    survivor: str
    person: Person | None
    prior: str
    identifiers: tuple[str, ...]
    counts: int
    course_moved: bool
    last: bool
    undone: dict[str, Any] | None


def merges(connection: Connection) -> list[Merge]:
    """At most the newest thousand; a person who was erased is not among them."""
    rows = connection.execute(
        select(audit.c.seq, audit.c.at, audit.c.actor, audit.c.action, audit.c.detail)
        .where(audit.c.action.in_((MERGED, UNDONE)))
        .order_by(audit.c.seq.desc())
        .limit(_MOST)
    ).all()
    undone: dict[tuple[str, str], dict[str, Any]] = {}
    standing: set[str] = set()
    found = []
    for row in rows:
        moved = json.loads(row.detail)
        pair = (moved["survivor"], moved["prior"])
        if row.action == UNDONE:
            undone[pair] = {"at": row.at, "by": row.actor, "reason": moved.get("reason", "")}
            continue
        taken_back = undone.pop(pair, None)
        last = taken_back is None and moved["survivor"] not in standing
        if last:
            standing.add(moved["survivor"])
        found.append(
            Merge(
                seq=row.seq,
                at=row.at,
                by=row.actor,
                survivor=moved["survivor"],
                person=None,
                prior=moved["prior"],
                identifiers=tuple(one["value"] for one in moved["identifiers"]),
                counts=len(moved["keys"]),
                course_moved=moved["course_moved"],
                last=last,
                undone=taken_back,
            )
        )
    return _named(connection, found)


def _named(connection: Connection, found: list[Merge]) -> list[Merge]:
    from dataclasses import replace

    ids = {one.survivor for one in found}
    people = {
        number: decode_person(person)
        for number, person in connection.execute(select(patient.c.id, patient.c.person).where(patient.c.id.in_(ids)))
    }
    return [replace(one, person=people.get(one.survivor)) for one in found]
