"""What people ask to see: messages, dead letters, patients. Read-only, in pages by key, newest or oldest by id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from store import seal, steps
from store.ledgers import unpacked
from store.port import Step
from store.tables import alert, answer, assessment, audit, body, delivery, identifier, ledger, message, patient, result
from store.values import from_ms

__all__ = [
    "alert_rows",
    "alert_whole",
    "alerts",
    "dead_letters",
    "deliveries",
    "message_whole",
    "messages",
    "oldest_open",
    "open_alerts",
    "patient_keys",
    "timeline",
]

_MESSAGE = (
    message.c.id,
    message.c.received_at,
    message.c.channel,
    message.c.format,
    message.c.peer,
    message.c.sender,
    message.c.control_id,
    message.c.message_type,
    message.c.disposition,
    message.c.reason,
    message.c.duplicate_of,
    message.c.conflicts_with,
    message.c.replay_of,
    message.c.judged_at,
    message.c.size,
)
_PAGE = 1000


def messages(
    connection: Connection, *, disposition: str = "", sender: str = "", control_id: str = "", limit: int = 0
) -> Iterator[dict[str, Any]]:
    """Oldest first, without bodies; ``limit`` 0: all."""
    after, left = 0, limit or None
    while True:
        query = select(*_MESSAGE).where(message.c.id > after).order_by(message.c.id).limit(min(_PAGE, left or _PAGE))
        if disposition:
            wanted = None if disposition == "pending" else disposition
            query = query.where(message.c.disposition.is_(None) if wanted is None else message.c.disposition == wanted)
        if sender:
            query = query.where(message.c.sender == sender)
        if control_id:
            query = query.where(message.c.control_id == control_id)
        page = connection.execute(query).mappings().all()
        for row in page:
            yield _message(dict(row))
        if left is not None:
            left -= len(page)
        if len(page) < _PAGE or left == 0:
            return
        after = page[-1]["id"]


def _message(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("received_at", "judged_at"):
        if row.get(name) is not None:
            row[name] = from_ms(row[name]).isoformat(timespec="milliseconds")
    row["disposition"] = row["disposition"] or "pending"
    return row


def message_whole(connection: Connection, number: int) -> dict[str, Any] | None:
    """One message with its ledger, verdicts and bytes (as text where they are text)."""
    row = (
        connection.execute(
            select(*_MESSAGE, message.c.kept, ledger.c.entries.label("ledger"), body.c.key_id, body.c.raw)
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
    whole = _message(dict(row))
    whole["ledger"] = unpacked(whole["ledger"])
    raw, unopened = seal.of(connection).look(whole.pop("raw"), whole.pop("key_id"), number)
    kept = whole.pop("kept")
    whole["unopened"] = unopened if kept else ""
    whole["raw"] = None if unopened else raw.decode("utf-8", errors="backslashreplace")
    verdicts = connection.scalars(
        select(assessment.c.body).where(assessment.c.message_id == number).order_by(assessment.c.id)
    )
    whole["assessments"] = [json.loads(body) for body in verdicts]
    return whole


def dead_letters(connection: Connection) -> Iterator[dict[str, Any]]:
    yield from deliveries(connection, state="dead")


def deliveries(connection: Connection, *, state: str = "", alert_id: str = "") -> Iterator[dict[str, Any]]:
    query = select(
        delivery.c.id,
        delivery.c.destination,
        delivery.c.state,
        delivery.c.alert_id,
        delivery.c.revision,
        delivery.c.control_id,
        delivery.c.attempts,
        delivery.c.created_at,
        delivery.c.ended_at,
        delivery.c.code,
        delivery.c.words,
    ).order_by(delivery.c.id)
    if state:
        query = query.where(delivery.c.state == state)
    if alert_id:
        query = query.where(delivery.c.alert_id == alert_id)
    for found in connection.execute(query).mappings():
        row = dict(found)
        for name in ("created_at", "ended_at"):
            row[name] = from_ms(row[name]).isoformat(timespec="milliseconds") if row[name] is not None else None
        yield row


def patient_keys(connection: Connection, value: str) -> list[str]:
    """Register ids that ``value`` names: an identifier, ``authority|value``, or the register id itself."""
    wanted_authority, _, wanted = value.rpartition("|")
    query = select(identifier.c.patient_id).where(identifier.c.value == (wanted or value))
    if wanted_authority:
        query = query.where(identifier.c.authority == wanted_authority)
    found = list(connection.scalars(query.distinct()))
    return found or list(connection.scalars(select(patient.c.id).where(patient.c.id == value)))


def alerts(connection: Connection, patient_id: str) -> list[dict[str, Any]]:
    query = select(alert.c.body, alert.c.state).where(alert.c.patient_id == patient_id).order_by(alert.c.raised_at)
    return [{"state": state, **json.loads(body)} for body, state in connection.execute(query)]


def oldest_open(connection: Connection) -> datetime | None:
    """When the longest open alert was raised; None: nobody waits for an answer."""
    found = connection.scalar(select(func.min(alert.c.raised_at)).where(alert.c.state == "open"))
    return from_ms(found) if found is not None else None


def open_alerts(connection: Connection, after: str, limit: int) -> list[str]:
    """Ids of open alerts beyond ``after``, by id."""
    query = select(alert.c.id).where(alert.c.state == "open", alert.c.id > after).order_by(alert.c.id).limit(limit)
    return list(connection.scalars(query))


def alert_rows(connection: Connection, *, state: str = "", level: str = "", limit: int = 0) -> Iterator[dict[str, Any]]:
    """Alerts without their words, oldest first: who is asked, how often it passed on, and by when an answer is awaited."""
    query = select(alert).order_by(alert.c.raised_at, alert.c.id)
    if state:
        query = query.where(alert.c.state == state)
    if level:
        query = query.where(alert.c.level == level)
    for row in connection.execute(query.limit(limit) if limit else query):
        body = json.loads(row.body)
        yield {
            "id": row.id,
            "patient": row.patient_id,
            "family": row.family,
            "level": row.level,
            "state": row.state,
            "revision": row.revision,
            "raised_at": _moment(row.raised_at),
            "seen_at": _moment(row.seen_at),
            "asked": (body.get("asked") or [""])[-1] or body["subject"].get("owner", ""),
            "escalation": row.escalation,
            "answer_by": _moment(row.answer_by),
        }


def alert_whole(connection: Connection, alert_id: str) -> dict[str, Any] | None:
    """One alert as it stands, with every step of its way, its answers and its notifications."""
    row = connection.execute(select(alert.c.body, alert.c.state).where(alert.c.id == alert_id)).first()
    if row is None:
        return None
    given = connection.execute(select(answer).where(answer.c.alert_id == alert_id).order_by(answer.c.id)).mappings()
    return {
        "state": row.state,
        **json.loads(row.body),
        "steps": way(connection, alert_id),
        "answers": [
            {"at": _moment(one["at"]), **{name: one[name] for name in ("revision", "by", "decision", "reason")}}
            for one in given
        ],
        "deliveries": list(deliveries(connection, alert_id=alert_id)),
    }


def way(connection: Connection, alert_id: str) -> list[dict[str, Any]]:
    """The steps of an alert to its answer, in the order in which they were recorded."""
    return [_step(item) for item in steps.of(connection, alert_id)]


def _step(item: Step) -> dict[str, Any]:
    said = {name: getattr(item, name) for name in ("revision", "state", "destination", "who", "evidence")}
    return {"at": item.at.isoformat(timespec="milliseconds"), **said}


def _moment(at_ms: int | None) -> str | None:
    return from_ms(at_ms).isoformat(timespec="milliseconds") if at_ms is not None else None


def timeline(connection: Connection, patient_id: str) -> list[dict[str, Any]]:
    """Everything known of one patient by time: versions of counts, verdicts, alerts, changes of the register."""
    rows: list[dict[str, Any]] = []
    for row in connection.execute(select(result).where(result.c.patient_id == patient_id)).mappings():
        body = json.loads(row["body"])
        rows.append(
            {
                "at": body["collected_at"],
                "kind": "count",
                "current": bool(row["current"]),
                "version": row["version"],
                "status": body["status"],
                "trust": body["trust"],
                "anc_per_mm3": (body["anc"] or {}).get("per_mm3"),
                "message": row["message_id"],
                "result": row["id"],
            }
        )
    for row in connection.execute(select(assessment).where(assessment.c.patient_id == patient_id)).mappings():
        body = json.loads(row["body"])
        rows.append(
            {
                "at": from_ms(row["made_at"]).isoformat(timespec="milliseconds"),
                "kind": "verdict",
                "result": row["result_id"],
                **{
                    name: body[name]
                    for name in ("category", "action", "alert", "rule", "next_due", "as_of", "protocol")
                },
            }
        )
    for body in alerts(connection, patient_id):
        rows.append(
            {
                "at": body["updated_at"],
                "kind": "alert",
                **{name: body[name] for name in ("id", "family", "level", "state", "revision", "title")},
            }
        )
    for row in connection.execute(select(audit).where(audit.c.patient_id == patient_id)).mappings():
        rows.append(
            {
                "at": from_ms(row["at"]).isoformat(timespec="milliseconds"),
                "kind": "register",
                "who": row["actor"],
                "what": row["action"],
            }
        )
    return sorted(rows, key=lambda item: (item["at"] or "", item["kind"]))
