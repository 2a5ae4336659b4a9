"""What the clock noticed: whom to look at now, which alerts wait for an answer, and the findings that began and ended.

Rule of the file: every query of a sweep is a range of an index. One open row at most stands for a thing, so that nothing is
raised twice, also after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, literal_column, select, tuple_, update

from store.port import Work
from store.statement import Prepared, inserting
from store.tables import alert, delivery, finding, message, patient
from store.values import from_ms, to_ms

__all__ = [
    "answered",
    "is_open",
    "moved_on",
    "oldest_pending",
    "oldest_waiting",
    "open_findings",
    "open_of",
    "overdue_count",
    "to_look_at",
    "unanswered",
    "write",
]

_COLUMNS = (
    finding.c.id,
    finding.c.kind,
    finding.c.subject,
    finding.c.patient_id,
    finding.c.alert_id,
    finding.c.began_at,
    finding.c.ended_at,
    finding.c.body,
)
_open_of = Prepared(select(*_COLUMNS).where(finding.c.patient_id == bindparam("wanted"), finding.c.ended_at.is_(None)))
_look = Prepared(
    select(patient.c.watch_on, patient.c.id)
    .where(
        patient.c.watch_on <= bindparam("today"),
        patient.c.settle_at.is_(None),
        tuple_(patient.c.watch_on, patient.c.id) > tuple_(bindparam("after"), bindparam("after_id")),
    )
    .order_by(patient.c.watch_on, patient.c.id)
    .limit(bindparam("most"))
)
_looked = Prepared(
    update(patient)
    .where(patient.c.id == bindparam("patient_id"))
    .values(
        rev=patient.c.rev + bindparam("moved"),
        watch_on=bindparam("new_watch_on"),
        next_due=bindparam("new_next_due"),
        recheck_by=bindparam("new_recheck_by"),
    )
)
_standing = Prepared(
    select(alert.c.id)
    .where(alert.c.id == bindparam("alert_id"), alert.c.state == "open", alert.c.revision == bindparam("revision"))
    .with_for_update()
)
_unanswered = Prepared(
    select(alert.c.id, alert.c.patient_id, alert.c.answer_by)
    .where(
        # Written out: a parameter would not tell the planner that the index of open alerts may be used.
        alert.c.state == literal_column("'open'"),
        alert.c.answer_by <= bindparam("now"),
        tuple_(alert.c.answer_by, alert.c.id) > tuple_(bindparam("after"), bindparam("after_id")),
    )
    .order_by(alert.c.answer_by, alert.c.id)
    .limit(bindparam("most"))
)
_insert = inserting(finding)
_end = Prepared(
    update(finding)
    .where(finding.c.id == bindparam("finding_id"), finding.c.ended_at.is_(None))
    .values(ended_at=bindparam("new_ended_at"), body=bindparam("new_body"))
)


def open_findings(connection: Connection, kind: str | None = None, *, limit: int = 1000) -> list[dict[str, Any]]:
    """What has not ended, oldest first: kind, subject, patient_id, alert_id, began_at (aware datetime), body (dict)."""
    query = select(*_COLUMNS).where(finding.c.ended_at.is_(None)).order_by(finding.c.began_at).limit(limit)
    if kind is not None:
        query = query.where(finding.c.kind == kind)
    return [_row(tuple(row)) for row in connection.execute(query)]


def is_open(connection: Connection, kind: str, subject: str) -> bool:
    query = select(finding.c.id).where(
        finding.c.kind == kind, finding.c.subject == subject, finding.c.ended_at.is_(None)
    )
    return connection.execute(query).first() is not None


def open_of(connection: Connection, patient_id: str) -> list[dict[str, Any]]:
    return [_row(row) for row in _open_of.rows(connection, {"wanted": patient_id})]


def _row(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    found["began_at"] = from_ms(found["began_at"])
    found["ended_at"] = from_ms(found["ended_at"]) if found["ended_at"] is not None else None
    found["body"] = json.loads(found["body"])
    return found


def to_look_at(connection: Connection, today: str, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
    """(day, patient) whose day to be looked at has come, the longest due first. ``today``: ISO; ``after``: the last one seen.

    Those whose history still arrives, or who are about to be looked at for a change of the register, wait for that.
    """
    rows = _look.rows(connection, {"today": today, "after": after[0], "after_id": after[1], "most": limit})
    return [(row[0], row[1]) for row in rows]


def unanswered(
    connection: Connection, now_ms: int, after: tuple[int, str], limit: int
) -> list[tuple[str, str | None, int]]:
    """(alert, patient, answer by) of open alerts whose time to be answered is over; the longest over first.

    ``after``: (answer by, alert) of the last one seen.
    """
    given = {"now": now_ms, "after": after[0], "after_id": after[1], "most": limit}
    return [(row[0], row[1], row[2]) for row in _unanswered.rows(connection, given)]


def answered(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Open findings of unanswered alerts whose alert is answered or withdrawn, or asks something new since."""
    query = (
        select(*_COLUMNS)
        .outerjoin(alert, alert.c.id == finding.c.alert_id)
        .where(
            finding.c.kind == "unanswered",
            finding.c.ended_at.is_(None),
            (alert.c.state.is_(None)) | (alert.c.state != "open") | (alert.c.escalation == 0),
        )
        .limit(limit)
    )
    return [_row(tuple(row)) for row in connection.execute(query)]


def oldest_waiting(connection: Connection, destination: str) -> int | None:
    """When the oldest notification that waits for ``destination`` was made, in milliseconds."""
    return connection.scalar(
        select(delivery.c.created_at)
        .where(delivery.c.destination == destination, delivery.c.state == "waiting")
        .order_by(delivery.c.id)
        .limit(1)
    )


def oldest_pending(connection: Connection) -> int | None:
    """When the oldest message that is not judged yet arrived, in milliseconds."""
    return connection.scalar(
        select(message.c.received_at).where(message.c.disposition.is_(None)).order_by(message.c.id).limit(1)
    )


def overdue_count(connection: Connection) -> int:
    return (
        connection.scalar(
            select(func.count()).select_from(finding).where(finding.c.kind == "overdue", finding.c.ended_at.is_(None))
        )
        or 0
    )


def moved_on(connection: Connection, work: Work) -> Callable[[], tuple[str, ...]]:
    """Of the alerts that are called unanswered, those that were answered or changed meanwhile."""
    asked = sorted(work.unanswered)
    standing = _standing.ask(connection, [{"alert_id": number, "revision": revision} for number, revision in asked])
    return lambda: tuple(number for (number, _), rows in zip(asked, standing(), strict=True) if not rows)


def write(connection: Connection, work: Work) -> None:
    """The findings of a batch, ends first: a thing that ended may begin anew."""
    _end.many(
        connection,
        [
            {"finding_id": item.id, "new_ended_at": to_ms(item.at), "new_body": json.dumps(item.body)}
            for item in work.ended
        ],
    )
    _insert.many(
        connection,
        [
            {
                "id": item.id,
                "kind": item.kind,
                "subject": item.subject,
                "patient_id": item.patient_id,
                "alert_id": item.alert_id,
                "began_at": to_ms(item.began_at),
                "ended_at": None,
                "body": json.dumps(item.body),
            }
            for item in work.begun
        ],
    )
    _looked.many(
        connection,
        [
            {
                "patient_id": item.record.id,
                "moved": int(item.alerts_changed),
                "new_watch_on": item.watch_on,
                "new_next_due": item.next_due,
                "new_recheck_by": item.recheck_by,
            }
            for item in work.looked
        ],
    )
