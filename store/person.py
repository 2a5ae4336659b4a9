"""All rows of one person: what is on file under some register ids, and their removal.

Rule of the file: what is removed is content about a person. That a message came, from whom, and how it ended stays, so that
in = out still holds (store.check); so do the places of audit entries, so that the chain does (store.trail).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, text, update

from store import purge, seal, trail
from store.ledgers import unpacked
from store.port import Claim
from store.tables import (
    alert,
    answer,
    assessment,
    audit,
    body,
    delivery,
    finding,
    identifier,
    ledger,
    message,
    patient,
    result,
    step,
)
from store.values import from_ms

__all__ = ["Removed", "alerts_open", "audits", "claims", "erase", "hold", "linked", "message_rows", "rows", "sent"]

_PAGE = 500
ERASED = "(erased)"
"""In the place of a control id that named the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many rows of each kind are gone."""

    counts: int
    verdicts: int
    alerts: int
    deliveries: int
    audit_entries: int
    bodies: int


def claims(connection: Connection, after: int) -> Iterator[tuple[Claim, str | None]]:
    """Every message beyond ``after`` whose bytes are on file, as the judge would get it, with its disposition."""
    ring = seal.of(connection)
    while True:
        found = connection.execute(
            select(message, body.c.key_id, body.c.raw)
            .join(body, body.c.message_id == message.c.id)
            .where(message.c.id > after)
            .order_by(message.c.id)
            .limit(_PAGE)
        ).all()
        for row in found:
            raw, unopened = ring.look(row.raw, row.key_id, row.id)
            claim = Claim(
                message_id=row.id,
                format=row.format,
                channel=row.channel,
                sender=row.sender,
                control_id=row.control_id,
                received_at=from_ms(row.received_at),
                raw=raw,
                peer=row.peer,
                unopened=unopened,
            )
            yield claim, row.disposition
        if len(found) < _PAGE:
            return
        after = found[-1].id


def linked(connection: Connection, ids: Collection[str]) -> set[int]:
    """The messages that counts and verdicts of these patients were read from."""
    found: set[int] = set()
    for table in (result, assessment):
        found.update(connection.scalars(select(table.c.message_id).where(table.c.patient_id.in_(ids))))
    return found - {None, 0}


def hold(connection: Connection, ids: Collection[str]) -> None:
    """Until the transaction ends nobody else changes these patients."""
    connection.execute(select(patient.c.id).where(patient.c.id.in_(ids)).with_for_update())


def alerts_open(connection: Connection, ids: Collection[str]) -> int:
    return len(connection.scalars(select(alert.c.id).where(alert.c.patient_id.in_(ids), purge.open_alert)).all())


def rows(connection: Connection, ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """By table, oldest first; JSON columns decoded, times as ISO 8601 with their offset."""
    told = _alerts_of(connection, ids)
    return {
        "patient": _rows(connection, patient, patient.c.id.in_(ids)),
        "identifiers": _rows(connection, identifier, identifier.c.patient_id.in_(ids)),
        "counts": _rows(connection, result, result.c.patient_id.in_(ids)),
        "verdicts": _rows(connection, assessment, assessment.c.patient_id.in_(ids)),
        "alerts": _rows(connection, alert, alert.c.id.in_(told)),
        "steps": _rows(connection, step, or_(step.c.alert_id.in_(told), step.c.patient_id.in_(ids))),
        "answers": _rows(connection, answer, or_(answer.c.alert_id.in_(told), answer.c.patient_id.in_(ids))),
        "deliveries": _rows(connection, delivery, or_(delivery.c.alert_id.in_(told), delivery.c.patient_id.in_(ids))),
        "findings": _rows(connection, finding, _finding_of(ids, told)),
        "audit": audits(connection, ids),
    }


def audits(connection: Connection, ids: Collection[str]) -> list[dict[str, Any]]:
    found = _rows(connection, audit, _audit_of(ids))
    return [{name: value for name, value in row.items() if name not in ("content", "link")} for row in found]


def message_rows(connection: Connection, numbers: Collection[int]) -> list[dict[str, Any]]:
    """Without bytes and hashes, with the ledger of what became of each observation."""
    found = []
    for number in sorted(numbers):
        row = connection.execute(
            select(message, ledger.c.entries)
            .outerjoin(ledger, ledger.c.message_id == message.c.id)
            .where(message.c.id == number)
        ).mappings()
        for one in row:
            plain = _plain(dict(one))
            plain["ledger"] = unpacked(plain.pop("entries"))
            found.append({name: value for name, value in plain.items() if name not in ("dedupe_key", "content_hash")})
    return found


def sent(connection: Connection, ids: Collection[str]) -> list[dict[str, Any]]:
    """What destinations have taken, or may have: it stands there whatever is removed here."""
    told = _alerts_of(connection, ids)
    query = (
        select(
            delivery.c.destination, delivery.c.alert_id, delivery.c.revision, delivery.c.control_id, delivery.c.state
        )
        .where(delivery.c.alert_id.in_(told), delivery.c.attempts > 0)
        .order_by(delivery.c.destination, delivery.c.id)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def erase(connection: Connection, ids: Sequence[str], numbers: Collection[int], names: Collection[str]) -> Removed:
    """In the caller's transaction. ``numbers``: the messages whose bytes go; ``names``: words that no control id may keep."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))
    told = _alerts_of(connection, ids)
    gone = {
        table.name: connection.execute(delete(table).where(table.c.patient_id.in_(ids))).rowcount
        for table in (result, assessment)
    }
    entries = connection.scalars(select(audit.c.id).where(_audit_of(ids), audit.c.action != trail.REMOVED)).all()
    trail.remove(connection, entries)
    deliveries = delete(delivery).where(or_(delivery.c.alert_id.in_(told), delivery.c.patient_id.in_(ids)))
    gone["delivery"] = connection.execute(deliveries).rowcount
    for table in (step, answer):
        connection.execute(delete(table).where(or_(table.c.alert_id.in_(told), table.c.patient_id.in_(ids))))
    connection.execute(delete(finding).where(_finding_of(ids, told)))
    connection.execute(delete(alert).where(alert.c.id.in_(told)))
    connection.execute(delete(identifier).where(identifier.c.patient_id.in_(ids)))
    connection.execute(delete(patient).where(patient.c.id.in_(ids)))
    bodies = _erase_bodies(connection, sorted(numbers), names)
    return Removed(
        counts=gone["result"],
        verdicts=gone["assessment"],
        alerts=len(told),
        deliveries=gone["delivery"],
        audit_entries=len(entries),
        bodies=bodies,
    )


def _erase_bodies(connection: Connection, numbers: Sequence[int], names: Collection[str]) -> int:
    purge.remove_bodies(connection, numbers)
    for number in numbers:
        control_id = connection.scalar(select(message.c.control_id).where(message.c.id == number)) or ""
        if any(name in control_id for name in names):
            connection.execute(update(message).where(message.c.id == number).values(control_id=ERASED))
    return len(numbers)


def _alerts_of(connection: Connection, ids: Collection[str]) -> list[str]:
    return list(connection.scalars(select(alert.c.id).where(alert.c.patient_id.in_(ids)).order_by(alert.c.id)))


def _finding_of(ids: Collection[str], told: Collection[str]) -> ColumnElement[bool]:
    return or_(finding.c.patient_id.in_(ids), finding.c.alert_id.in_(told), finding.c.subject.in_([*ids, *told]))


def _audit_of(ids: Collection[str]) -> ColumnElement[bool]:
    """Those about the person, and those that name the person's register id in passing."""
    return or_(audit.c.patient_id.in_(ids), *(audit.c.detail.contains(one, autoescape=True) for one in ids))


def _rows(connection: Connection, table: Table, of: ColumnElement[bool]) -> list[dict[str, Any]]:
    key = list(table.primary_key.columns)
    return [_plain(dict(row)) for row in connection.execute(select(table).where(of).order_by(*key)).mappings()]


_JSON = ("body", "person", "course", "present", "detail", "entries")
_TIMES = ("_at", "answer_by")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if name in _JSON and isinstance(value, str) and name != "entries":
            row[name] = json.loads(value)
        elif isinstance(value, int) and not isinstance(value, bool) and (name == "at" or name.endswith(_TIMES)):
            row[name] = _moment(from_ms(value))
    return row


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
