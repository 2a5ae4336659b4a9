"""One message through its stages: as it came, was understood, was judged, what went out for it, what came back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from rules.model import Alert, Assessment, LabResult
from store import seal
from store.ledgers import unpacked
from store.tables import alert, assessment, body, delivery, ledger, message, result
from store.values import decode_alert, decode_assessment, decode_result, first_id

__all__ = ["MessageStages", "ReadCount", "Sent", "message_stages"]

# A notification's row is written in the commit that judges its message, and its number tells when: see values.new_id.
_AROUND_MS = (15_000, 2_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCount:
    """One count of this message. ``current``: it still is the version that counts."""

    patient_id: str
    version: int
    current: bool
    result: LabResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One notification of this message for one destination, and what came of it."""

    id: int
    destination: str
    state: str
    control_id: str
    attempts: int
    created_at: int
    next_at: int
    ended_at: int | None
    code: str
    words: str
    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStages:
    """``row``: the message's columns with ``raw`` as bytes, None when the body is not kept here."""

    row: Mapping[str, Any]
    ledger: list[dict[str, Any]]
    counts: list[ReadCount]
    verdicts: list[tuple[str, Assessment]]
    """(patient, verdict)"""
    sent: list[Sent]
    alerts: list[tuple[str, Alert]]
    """(state, alert) of alerts that this message stands behind."""
    replays: list[int]


def message_stages(connection: Connection, number: int) -> MessageStages | None:
    row = (
        connection.execute(
            select(message, ledger.c.entries.label("ledger"), body.c.key_id, body.c.raw)
            .select_from(message)
            .outerjoin(ledger, ledger.c.message_id == message.c.id)
            .outerjoin(body, body.c.message_id == message.c.id)
            .where(message.c.id == number)
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    counts = _counts(connection, number)
    verdicts = [
        (patient_id, decode_assessment(body))
        for patient_id, body in connection.execute(
            select(assessment.c.patient_id, assessment.c.body)
            .where(assessment.c.message_id == number)
            .order_by(assessment.c.id)
        )
    ]
    source = " ".join(part for part in (row["sender"], row["control_id"]) if part)
    numbers = {count.result.id for count in counts}
    people = sorted({count.patient_id for count in counts} | {patient_id for patient_id, _ in verdicts})

    def is_ours(item: Alert) -> bool:
        if item.result is not None and item.result.id is not None:
            return item.result.id in numbers
        return bool(source) and item.source == source

    return MessageStages(
        row={**row, "raw": seal.opened(connection, row["raw"], row["key_id"], number)},
        ledger=unpacked(row["ledger"]),
        counts=counts,
        verdicts=verdicts,
        sent=[item for item in _sent(connection, row, people) if is_ours(item.alert)],
        alerts=[(state, item) for state, item in _alerts(connection, people) if is_ours(item)],
        replays=list(
            connection.scalars(select(message.c.id).where(message.c.replay_of == number).order_by(message.c.id))
        ),
    )


def _counts(connection: Connection, number: int) -> list[ReadCount]:
    rows = connection.execute(
        select(result.c.patient_id, result.c.version, result.c.current, result.c.body)
        .where(result.c.message_id == number)
        .order_by(result.c.id)
    )
    return [
        ReadCount(patient_id=row.patient_id, version=row.version, current=row.current, result=decode_result(row.body))
        for row in rows
    ]


def _alerts(connection: Connection, people: Sequence[str]) -> list[tuple[str, Alert]]:
    rows = connection.execute(select(alert.c.state, alert.c.body).where(alert.c.patient_id.in_(people)))
    return [(row.state, decode_alert(row.body)) for row in rows]


def _sent(connection: Connection, row: RowMapping, people: Sequence[str]) -> list[Sent]:
    """The notifications of these patients' alerts; for a message that named nobody, those made when it was judged."""
    if people:
        theirs = select(alert.c.id).where(alert.c.patient_id.in_(people))
        query = select(delivery).where(delivery.c.alert_id.in_(theirs))
    elif row["judged_at"] is not None:
        early, late = (row["judged_at"] - _AROUND_MS[0], row["judged_at"] + _AROUND_MS[1])
        query = select(delivery).where(
            delivery.c.id.between(first_id(early), first_id(late)),
            delivery.c.body.contains(json.dumps(row["control_id"], ensure_ascii=False)[1:-1], autoescape=True),
        )
    else:
        return []
    return [_one_sent(item) for item in connection.execute(query.order_by(delivery.c.id)).mappings()]


def _one_sent(row: RowMapping) -> Sent:
    kept: Iterable[str] = (
        "id",
        "destination",
        "state",
        "control_id",
        "attempts",
        "created_at",
        "next_at",
        "ended_at",
    )
    return Sent(
        **{name: row[name] for name in kept},
        code=row["code"] or "",
        words=row["words"] or "",
        alert=decode_alert(row["body"]),
    )
