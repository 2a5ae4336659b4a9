"""Forgetting: counts of people who are not on the register, once they are of no use for an enrolment."""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, select, update

from store.tables import message, patient, result

__all__ = ["unenrolled"]


def unenrolled(connection: Connection, before_ms: int, limit: int) -> int:
    """Removes at most ``limit`` such people, and as many bodies of messages in which nobody else was judged."""
    people = connection.scalars(
        select(patient.c.id)
        .where(~patient.c.enrolled, patient.c.updated_at < before_ms)
        .order_by(patient.c.updated_at)
        .limit(limit)
    ).all()
    in_use = exists().where(result.c.message_id == message.c.id)
    if people:
        theirs = connection.scalars(select(result.c.message_id).where(result.c.patient_id.in_(people)).distinct()).all()
        connection.execute(delete(patient).where(patient.c.id.in_(people)))
        connection.execute(update(message).where(message.c.id.in_(theirs), ~in_use).values(raw=None))
    # What only said again what was known of them has no result of its own.
    bodies = connection.scalars(
        select(message.c.id)
        .where(
            message.c.disposition == "unenrolled",
            message.c.raw.is_not(None),
            message.c.received_at < before_ms,
            ~in_use,
        )
        .order_by(message.c.received_at)
        .limit(limit)
    ).all()
    if bodies:
        connection.execute(update(message).where(message.c.id.in_(bodies)).values(raw=None))
    return len(people) + len(bodies)
