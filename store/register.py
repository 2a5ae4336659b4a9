"""The register's SQL: patients with their identifiers, counts and open alerts, whole and by identifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from rules.model import PatientIdentifier
from store.port import AlertRecord, PatientRecord, ResultRecord, Work
from store.tables import alert, assessment, audit, delivery, identifier, patient, result
from store.values import (
    decode_alert,
    decode_assessment,
    decode_course,
    decode_person,
    decode_result,
    encode,
    from_ms,
    new_id,
    to_ms,
)

__all__ = ["by_id", "by_identifier", "moved", "settling", "taken", "write"]

_update_patient = (
    update(patient)
    .where(patient.c.id == bindparam("patient_id"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "enrolled",
                "rev",
                "person",
                "owner",
                "course",
                "present",
                "next_due",
                "recheck_by",
                "settle_at",
                "updated_at",
            )
        }
    )
)


def by_identifier(connection: Connection, identifiers: Iterable[PatientIdentifier]) -> list[PatientRecord]:
    """Records that carry one of the identifiers. With no authority on one side, the value alone is enough to be found:
    whether it is enough to be believed is the caller's question."""
    values = sorted({item.value for item in identifiers})
    if not values:
        return []
    wanted = {(item.value, item.authority) for item in identifiers}
    bare = {value for value, authority in wanted if not authority}
    rows = connection.execute(
        select(identifier.c.value, identifier.c.authority, identifier.c.patient_id).where(
            identifier.c.value.in_(values)
        )
    )
    found = {
        row.patient_id for row in rows if (row.value, row.authority) in wanted or row.value in bare or not row.authority
    }
    return by_id(connection, sorted(found))


def by_id(connection: Connection, ids: Sequence[str]) -> list[PatientRecord]:
    if not ids:
        return []
    records: dict[str, PatientRecord] = {}
    for row in connection.execute(select(patient).where(patient.c.id.in_(ids))):
        records[row.id] = PatientRecord(
            id=row.id,
            enrolled=row.enrolled,
            rev=row.rev,
            person=decode_person(row.person),
            owner=row.owner,
            course=decode_course(row.course),
            present=decode_assessment(row.present) if row.present else None,
            settle_at=from_ms(row.settle_at) if row.settle_at is not None else None,
        )
    for row in connection.execute(select(identifier).where(identifier.c.patient_id.in_(ids))):
        records[row.patient_id].identifiers.append(PatientIdentifier(row.value, row.authority, row.type))
    columns = (result.c.id, result.c.patient_id, result.c.message_id, result.c.key, result.c.version, result.c.body)
    for row in connection.execute(select(*columns).where(result.c.patient_id.in_(ids), result.c.current)):
        records[row.patient_id].results[row.key] = ResultRecord(
            id=row.id,
            patient_id=row.patient_id,
            message_id=row.message_id,
            key=row.key,
            version=row.version,
            result=decode_result(row.body),
        )
    for row in connection.execute(select(alert).where(alert.c.patient_id.in_(ids))):
        records[row.patient_id].alerts[row.id] = AlertRecord(
            alert=decode_alert(row.body),
            patient_id=row.patient_id,
            state=row.state,
            result_id=row.result_id,
            result_key=row.result_key,
        )
    return list(records.values())


def settling(connection: Connection, now_ms: int, limit: int) -> list[str]:
    """Patients whose present state is to be looked at now (loaded history has come to rest; the register changed)."""
    rows = connection.execute(
        select(patient.c.id)
        .where(patient.c.settle_at.is_not(None), patient.c.settle_at <= now_ms)
        .order_by(patient.c.settle_at)
        .limit(limit)
    )
    return [row.id for row in rows]


def moved(connection: Connection, records: Iterable[PatientRecord]) -> tuple[str, ...]:
    """Of these working copies, the patients that somebody else has changed since they were loaded."""
    expected = {record.id: record.rev for record in records if not record.new}
    if not expected:
        return ()
    rows = connection.execute(select(patient.c.id, patient.c.rev).where(patient.c.id.in_(list(expected))))
    present = {row.id: row.rev for row in rows}
    return tuple(sorted(number for number, rev in expected.items() if present.get(number) != rev))


def taken(connection: Connection, work: Work) -> tuple[str, ...]:
    """New patients whose identifier another writer has filed meanwhile."""
    fresh = {(item.value, item.authority): number for number, item in work.identifiers}
    if not fresh:
        return ()
    rows = connection.execute(
        select(identifier.c.value, identifier.c.authority, identifier.c.patient_id).where(
            tuple_(identifier.c.value, identifier.c.authority).in_(list(fresh))
        )
    )
    return tuple(sorted(fresh[row.value, row.authority] for row in rows))


def write(connection: Connection, work: Work, at_ms: int) -> None:
    """Everything that a batch changed about patients, one statement a table."""
    _patients(connection, work, at_ms)
    _insert(
        connection,
        identifier,
        [
            {"value": item.value, "authority": item.authority, "type": item.type, "patient_id": number}
            for number, item in work.identifiers
        ],
    )
    if work.superseded:
        connection.execute(
            update(result).where(result.c.id == bindparam("result_id")).values(current=False),
            [{"result_id": number} for number in work.superseded],
        )
    _insert(
        connection,
        result,
        [_result_row(item, current=True) for item in work.results]
        + [_result_row(item, current=False) for item in work.late],
    )
    _insert(connection, assessment, [_assessment_row(entry, at_ms) for entry in work.assessments])
    _upsert_alerts(connection, work.alerts)
    _insert(
        connection,
        delivery,
        [
            {
                "id": item.id,
                "alert_id": item.alert.id,
                "revision": item.alert.revision,
                "patient_id": item.patient_id,
                "destination": item.destination,
                "control_id": item.control_id,
                "state": "waiting",
                "attempts": 0,
                "next_at": at_ms,
                "created_at": at_ms,
                "body": encode(item.alert),
            }
            for item in work.deliveries
        ],
    )
    _insert(
        connection,
        audit,
        [
            {
                "id": new_id(),
                "at": to_ms(item.at),
                "actor": item.actor,
                "action": item.action,
                "patient_id": item.patient_id,
                "detail": item.detail.decode(),
            }
            for item in work.audits
        ],
    )


def _insert(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _patients(connection: Connection, work: Work, at_ms: int) -> None:
    fresh, changed = [], []
    for record in work.patients.values():
        fields = {
            "enrolled": record.enrolled,
            "rev": record.rev + 1,
            "person": encode(record.person),
            "owner": record.owner,
            "course": encode(record.course),
            "present": encode(record.present) if record.present else None,
            "next_due": _iso(record.present.next_due if record.present else None),
            "recheck_by": _iso(record.present.recommended_recheck_by if record.present else None),
            "settle_at": to_ms(record.settle_at) if record.settle_at else None,
            "updated_at": at_ms,
        }
        if record.new:
            fresh.append({"id": record.id, "created_at": at_ms, **fields})
        else:
            changed.append({"patient_id": record.id, **{f"new_{name}": value for name, value in fields.items()}})
    _insert(connection, patient, fresh)
    if changed:
        connection.execute(_update_patient, changed)


def _iso(day: Any) -> str | None:
    return day.isoformat() if day is not None else None


def _result_row(item: ResultRecord, *, current: bool) -> dict[str, Any]:
    collected = item.result.collected_at
    return {
        "id": item.id,
        "patient_id": item.patient_id,
        "message_id": item.message_id,
        "key": item.key,
        "version": item.version,
        "current": current,
        "collected_at": to_ms(collected) if collected is not None else None,
        "body": encode(item.result),
    }


def _assessment_row(entry: tuple[str, int | None, int | None, Any], at_ms: int) -> dict[str, Any]:
    patient_id, result_id, message_id, verdict = entry
    return {
        "id": new_id(),
        "patient_id": patient_id,
        "result_id": result_id,
        "message_id": message_id,
        "made_at": at_ms,
        "protocol": verdict.protocol,
        "category": verdict.category,
        "action": verdict.action,
        "level": verdict.alert.value,
        "body": encode(verdict),
    }


def _upsert_alerts(connection: Connection, alerts: list[AlertRecord]) -> None:
    if not alerts:
        return
    rows = [
        {
            "id": item.alert.id,
            "patient_id": item.patient_id,
            "family": item.alert.family.value,
            "level": item.alert.level.value,
            "state": item.state,
            "revision": item.alert.revision,
            "result_id": item.result_id,
            "result_key": item.result_key,
            "raised_at": to_ms(item.alert.raised_at),
            "updated_at": to_ms(item.alert.updated_at),
            "body": encode(item.alert),
        }
        for item in alerts
    ]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(alert)
    changing = ("level", "state", "revision", "result_id", "result_key", "updated_at", "body")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["id"], set_={name: getattr(statement.excluded, name) for name in changing}
        ),
        rows,
    )
