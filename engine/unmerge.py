"""Taking a merge of two records back, for the command and the console alike: the last one that stands, by a named person."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from engine.identity import Patients
from engine.merge import Moved, last_merge, undo
from engine.present import Present, Turn
from store import register
from store.port import PatientRecord, Stale, Work
from store.store import record

__all__ = ["take_back"]


def take_back(
    connection: Connection, moved: Moved, present: Present, *, by: str, reason: str, now: datetime
) -> Stale | None:
    """In the caller's write transaction. Stale, and nothing written: somebody else changed one of the two, or it is not the
    last merge that stands."""
    if last_merge(connection, moved.survivor) != moved:
        return Stale((moved.survivor,))
    # Nothing is left of a record that was off the register for long: it begins anew, under its own number.
    (survivor,) = register.by_id(connection, [moved.survivor])
    (prior,) = register.by_id(connection, [moved.prior]) or [PatientRecord(id=moved.prior, new=True)]
    patients, work = Patients(), Work()
    for one in (survivor, prior):
        patients.add(one)
    undo(moved, prior, survivor, patients, present, Turn(work, now), by, reason)
    return record(work, connection)
