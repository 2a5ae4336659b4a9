"""The way of an alert to its answer, step by step; rows are only ever added (promise 6).

``made``       an alert, or a revision of it, was recorded here
``sent``       it left for a destination for the first time
``stored``     the destination says that it has it; nobody has read it yet
``refused``    the destination did not take it, or it was given up: a dead letter
``seen``       a person has it before them, says the destination
``handed-back``  a person says that it is not theirs
``answered``   a person has decided
``escalated``  nobody answered in time, or it was handed back: the next owner was asked
``withdrawn``  what it rested on is taken back, or what was missing has come
``closed``     a person's answer ended it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, or_, select

from store.port import DeliveryOutcome, Step
from store.statement import Prepared, inserting
from store.tables import delivery, step
from store.values import from_ms, new_id, to_ms

__all__ = ["STATES", "add", "of", "of_attempts", "seen_before"]

STATES = (
    *("made", "sent", "stored", "refused", "seen", "handed-back"),
    *("answered", "escalated", "withdrawn", "closed"),
)
_insert = inserting(step)


def _of_delivery(*conditions: Any) -> Prepared:
    """A step of the delivery that is still waiting: what somebody dropped meanwhile takes no step."""
    source = select(
        bindparam("step_id", type_=delivery.c.id.type),
        delivery.c.alert_id,
        delivery.c.revision,
        delivery.c.patient_id,
        bindparam("step_at", type_=delivery.c.next_at.type),
        bindparam("step_state", type_=delivery.c.state.type),
        delivery.c.destination,
        delivery.c.recipient,
        bindparam("step_evidence", type_=delivery.c.body.type),
    ).where(delivery.c.id == bindparam("delivery_id"), delivery.c.state == "waiting", *conditions)
    return Prepared(insert(step).from_select([column.name for column in step.columns], source))


_left_before = exists().where(
    step.c.alert_id == delivery.c.alert_id,
    step.c.revision == delivery.c.revision,
    step.c.destination == delivery.c.destination,
    step.c.who == delivery.c.recipient,
    step.c.state == "sent",
)
_attempted = _of_delivery()
_attempted_again = _of_delivery(~_left_before)


def add(connection: Connection, steps: Iterable[Step]) -> None:
    _insert.many(
        connection,
        [
            {
                "id": new_id(),
                "alert_id": item.alert_id,
                "revision": item.revision,
                "patient_id": item.patient_id,
                "at": to_ms(item.at),
                "state": item.state,
                "destination": item.destination,
                "who": item.who,
                "evidence": item.evidence,
            }
            for item in steps
        ],
    )


def of_attempts(connection: Connection, outcomes: Sequence[DeliveryOutcome]) -> None:
    """What attempts at delivery add; to be called before their rows are settled."""
    first: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for item in outcomes:
        if item.reached:
            (first if item.attempts == 1 else again).append(_row(item, "sent", ""))
        if item.state == "delivered":
            first.append(_row(item, "stored", item.words))
        elif item.state == "dead":
            first.append(_row(item, "refused", item.code))
    # In the order in which they happened: a step's id tells it, where two have one time.
    _attempted_again.many(connection, again)
    _attempted.many(connection, first)


def _row(item: DeliveryOutcome, state: str, evidence: str) -> dict[str, Any]:
    return {
        "delivery_id": item.id,
        "step_id": new_id(),
        "step_at": to_ms(item.at),
        "step_state": state,
        "step_evidence": evidence,
    }


def of(connection: Connection, alert_id: str) -> list[Step]:
    """In the order in which they were recorded."""
    rows = connection.execute(select(step).where(step.c.alert_id == alert_id).order_by(step.c.at, step.c.id))
    return [
        Step(
            alert_id=row.alert_id,
            revision=row.revision,
            patient_id=row.patient_id,
            at=from_ms(row.at),
            state=row.state,
            destination=row.destination,
            who=row.who,
            evidence=row.evidence,
        )
        for row in rows
    ]


def seen_before(connection: Connection, alert_id: str, evidence: str) -> bool:
    """Was this very reply taken already, perhaps by another way?"""
    query = select(step.c.id).where(
        step.c.alert_id == alert_id,
        or_(step.c.evidence == evidence, step.c.evidence.startswith(f"{evidence}: ", autoescape=True)),
    )
    return connection.execute(query.limit(1)).first() is not None
