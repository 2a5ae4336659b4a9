"""The outbox of normalised results: each version that was filed, until the topic has it exactly once.

A batch gets its number here before it is written there, and leaves with what the topic says of that number: whoever stops in
between finds the same batch again, and asks the topic whether it has it (emitters.kafka_results).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from rules.model import LabResult
from store.port import Work
from store.statement import Prepared
from store.tables import publication, result
from store.values import decode_result, new_uuid

__all__ = ["Publication", "backlog", "batch", "file", "published"]


class Publication(NamedTuple):
    """One version of one result. ``current``: it was its measurement's current version when it was filed."""

    result_id: int
    patient_id: str
    version: int
    current: bool
    result: LabResult


_insert = Prepared(insert(publication))
_free = Prepared(
    select(publication.c.result_id)
    .where(publication.c.destination == bindparam("of"), publication.c.batch.is_(None))
    .order_by(publication.c.result_id)
    .limit(bindparam("most"))
)
_number = Prepared(
    update(publication)
    .where(publication.c.destination == bindparam("of"), publication.c.result_id == bindparam("wanted"))
    .values(batch=bindparam("new_batch"))
)


def file(connection: Connection, work: Work, at_ms: int) -> None:
    """In the transaction that files the results: of patients on the register, and never of a test message (MSH-11 T or D)."""
    if not work.publish_to:
        return
    versions = [(item, True) for item in work.results] + [(item, False) for item in work.late]
    _insert.many(
        connection,
        [
            {
                "destination": destination,
                "result_id": item.id,
                "current": current,
                "created_at": at_ms,
                "batch": None,
            }
            for item, current in versions
            if (of := work.patients.get(item.patient_id)) is not None
            and of.enrolled
            and "test-message" not in item.result.doubts
            for destination in work.publish_to
        ],
    )


def batch(connection: Connection, destination: str, limit: int) -> tuple[str, list[Publication]]:
    """The batch that was numbered and is not known to be published, else the ``limit`` oldest as a new one; or ("", [])."""
    number = connection.scalar(
        select(publication.c.batch)
        .where(publication.c.destination == destination, publication.c.batch.is_not(None))
        .limit(1)
    )
    if number is None:
        free = _free.rows(connection, {"of": destination, "most": limit})
        if not free:
            return "", []
        number = new_uuid()
        _number.many(connection, [{"of": destination, "wanted": row[0], "new_batch": number} for row in free])
    rows = connection.execute(
        select(result.c.id, result.c.patient_id, result.c.version, publication.c.current, result.c.body)
        .select_from(publication.join(result, result.c.id == publication.c.result_id))
        .where(publication.c.destination == destination, publication.c.batch == number)
        .order_by(result.c.id)
    )
    return number, [Publication(*row[:4], decode_result(row[4])) for row in rows]


def published(connection: Connection, destination: str, number: str) -> None:
    """The topic has this batch."""
    connection.execute(
        delete(publication).where(publication.c.destination == destination, publication.c.batch == number)
    )


def backlog(connection: Connection) -> list[tuple[str, str, int, int]]:
    """(destination, "waiting", how many, oldest created), as for notifications; the name says that these are results."""
    rows: Sequence[tuple[str, int, int]] = connection.execute(
        select(publication.c.destination, func.count(), func.min(publication.c.created_at)).group_by(
            publication.c.destination
        )
    ).all()
    return [(f"{row[0]}/results", "waiting", row[1], row[2]) for row in rows]
