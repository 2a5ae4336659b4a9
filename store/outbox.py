"""The outbox's SQL: what is due, what came of it, dead letters and their replay."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, or_, select, update

from store import steps
from store.port import DeliveryOutcome, Waiting
from store.statement import Prepared
from store.tables import delivery
from store.values import to_ms

__all__ = ["backlog", "drop", "due", "replay", "settle"]

_settle = Prepared(
    update(delivery)
    .where(delivery.c.id == bindparam("delivery_id"), delivery.c.state == "waiting")
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("new_attempts"),
        next_at=bindparam("new_next_at"),
        ended_at=bindparam("new_ended_at"),
        code=bindparam("new_code"),
        words=bindparam("new_words"),
    )
)
_earlier = delivery.alias("earlier")
_held = exists().where(
    and_(
        _earlier.c.patient_id == delivery.c.patient_id,
        _earlier.c.destination == delivery.c.destination,
        _earlier.c.state == "waiting",
        _earlier.c.id < delivery.c.id,
        _earlier.c.next_at > bindparam("now"),
    )
)
_former = exists().where(
    and_(
        _earlier.c.alert_id == delivery.c.alert_id,
        _earlier.c.destination == delivery.c.destination,
        _earlier.c.recipient == delivery.c.recipient,
        _earlier.c.state == "waiting",
        _earlier.c.revision < delivery.c.revision,
        # In a sum, so that no index of ids is walked for it: an alert has few notifications, a destination may have 100,000.
        _earlier.c.id + 0 > delivery.c.id,
    )
)
_due = Prepared(
    select(
        delivery.c.id,
        delivery.c.control_id,
        delivery.c.patient_id,
        delivery.c.attempts,
        delivery.c.body,
        delivery.c.created_at,
    )
    .where(
        delivery.c.destination == bindparam("destination"),
        delivery.c.state == "waiting",
        delivery.c.next_at <= bindparam("now"),
        or_(delivery.c.patient_id.is_(None), ~_held),
        # Ids come by the clock, and that may have been set back between two revisions.
        ~_former,
    )
    .order_by(delivery.c.id)
    .limit(bindparam("most"))
)


def due(connection: Connection, destination: str, now_ms: int, limit: int) -> list[Waiting]:
    """Oldest first. A patient's later notification waits while an earlier one of the same patient waits for its time."""
    rows = _due.rows(connection, {"destination": destination, "now": now_ms, "most": limit})
    return [
        Waiting(number, destination, control, patient, attempts, body, since_ms)
        for number, control, patient, attempts, body, since_ms in rows
    ]


def settle(connection: Connection, outcomes: Sequence[DeliveryOutcome]) -> None:
    """Records what came of attempts. A row that somebody dropped meanwhile stays dropped."""
    steps.of_attempts(connection, outcomes)
    _settle.many(
        connection,
        [
            {
                "delivery_id": item.id,
                "new_state": item.state,
                "new_attempts": item.attempts,
                "new_next_at": to_ms(item.next_at or item.at),
                "new_ended_at": None if item.state == "waiting" else to_ms(item.at),
                "new_code": item.code or None,
                "new_words": item.words or None,
            }
            for item in outcomes
        ],
    )


def replay(connection: Connection, ids: Sequence[int], now_ms: int) -> list[int]:
    """Puts dead letters back to wait, under the ids they had: the destination can tell that it is the same.

    One that a newer notification of its alert has overtaken stays dead: sent now, it would undo what is newer.
    """
    newer = delivery.alias("newer")
    overtaken = exists().where(
        and_(
            newer.c.alert_id == delivery.c.alert_id,
            newer.c.destination == delivery.c.destination,
            newer.c.recipient == delivery.c.recipient,
            newer.c.revision > delivery.c.revision,
            newer.c.state.in_(("waiting", "delivered")),
        )
    )
    dead = connection.scalars(
        select(delivery.c.id).where(delivery.c.id.in_(ids), delivery.c.state == "dead", ~overtaken)
    ).all()
    if dead:
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_(dead))
            # As new: its time to be taken begins again.
            .values(
                state="waiting", attempts=0, next_at=now_ms, created_at=now_ms, ended_at=None, code=None, words=None
            )
        )
    return list(dead)


def drop(connection: Connection, ids: Sequence[int]) -> list[int]:
    dead = connection.scalars(select(delivery.c.id).where(delivery.c.id.in_(ids), delivery.c.state == "dead")).all()
    if dead:
        connection.execute(delete(delivery).where(delivery.c.id.in_(dead)))
    return list(dead)


def backlog(connection: Connection) -> list[tuple[str, str, int, int]]:
    """(destination, state, how many, oldest created) of what is waiting or dead."""
    rows = connection.execute(
        select(delivery.c.destination, delivery.c.state, func.count(), func.min(delivery.c.created_at))
        .where(delivery.c.state.in_(("waiting", "dead")))
        .group_by(delivery.c.destination, delivery.c.state)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
