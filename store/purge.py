"""Forgetting: counts of people who are not on the register, once they are of no use for an enrolment."""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, select, update

from store.tables import message, patient, result

__all__ = ["unenrolled"]


def unenrolled(connection: Connection, before_ms: int, limit: int) -> int:
    """Removes at most ``limit`` such people, and the raw bytes of messages in which nobody else was judged."""
    people = connection.scalars(
        select(patient.c.id)
        .where(~patient.c.enrolled, patient.c.updated_at < before_ms)
        .order_by(patient.c.updated_at)
        .limit(limit)
    ).all()
    if not people:
        return 0
    messages = connection.scalars(select(result.c.message_id).where(result.c.patient_id.in_(people)).distinct()).all()
    connection.execute(delete(patient).where(patient.c.id.in_(people)))
    if messages:
        still_used = exists().where(result.c.message_id == message.c.id)
        connection.execute(update(message).where(message.c.id.in_(messages), ~still_used).values(raw=None))
    return len(people)
