"""What named persons answered to alerts: written beside the alert's state, in one transaction with its audit row.

Functions over a connection in the caller's transaction, which ends with what they raise.
An answer is never changed: a later decision is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from store import steps, trail
from store.port import Answer, Step
from store.tables import alert, answer, patient
from store.values import encode, from_ms, new_id, to_ms

__all__ = ["Overtaken", "answers_to", "file", "write"]


class Overtaken(Exception):
    """The alert has changed since it was read, or was taken back: nothing was written."""


def write(connection: Connection, given: Answer) -> None:
    """Files the answer. Raises Overtaken when the alert is no longer at its revision, or withdrawn.

    The patient's ``rev`` moves with it: a judgement that was made on the alert as it stood before is made anew.
    """
    # The patient before the alert, as a judgement holds them: neither waits for the other.
    if given.patient_id is not None:
        connection.execute(update(patient).where(patient.c.id == given.patient_id).values(rev=patient.c.rev + 1))
    standing = select(alert.c.revision, alert.c.state).where(alert.c.id == given.alert_id).with_for_update()
    row = connection.execute(standing).first()
    if row is None or row.revision != given.revision or row.state == "withdrawn":
        raise Overtaken(given.alert_id)
    file(connection, [given])
    if given.closes:
        connection.execute(update(alert).where(alert.c.id == given.alert_id).values(state="answered", answer_by=None))


def file(connection: Connection, answers: Sequence[Answer]) -> None:
    """The rows of answers and their audit, whatever else the caller's transaction changes."""
    if not answers:
        return
    connection.execute(
        insert(answer),
        [
            {
                "id": new_id(),
                "alert_id": item.alert_id,
                "revision": item.revision,
                "patient_id": item.patient_id,
                "at": to_ms(item.at),
                "by": item.by,
                "decision": item.decision,
                "reason": item.reason,
            }
            for item in answers
        ],
    )
    steps.add(connection, (step for item in answers for step in _steps(item)))
    trail.append(
        connection,
        (
            trail.Entry(
                at_ms=to_ms(item.at),
                actor=item.by,
                action="answer",
                patient_id=item.patient_id,
                detail=encode(
                    {
                        "alert": item.alert_id,
                        "revision": item.revision,
                        "decision": item.decision,
                        "reason": item.reason,
                        **({"destination": item.destination, "evidence": item.evidence} if item.destination else {}),
                    }
                ),
            )
            for item in answers
        ),
    )


def _steps(given: Answer) -> list[Step]:
    states = ("answered", "closed") if given.closes else ("handed-back",)
    return [
        Step(
            alert_id=given.alert_id,
            revision=given.revision,
            patient_id=given.patient_id,
            at=given.at,
            state=state,
            destination=given.destination,
            who=given.by,
            evidence=(given.evidence or given.decision) if state != "closed" else "",
        )
        for state in states
    ]


def answers_to(connection: Connection, alert_id: str) -> list[Answer]:
    """Oldest first."""
    rows = connection.execute(select(answer).where(answer.c.alert_id == alert_id).order_by(answer.c.id))
    return [
        Answer(
            alert_id=row.alert_id,
            revision=row.revision,
            patient_id=row.patient_id,
            at=from_ms(row.at),
            by=row.by,
            decision=row.decision,
            reason=row.reason,
        )
        for row in rows
    ]
