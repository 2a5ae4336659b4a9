"""``neutroflag audit``: who did what, listed, and exported as FHIR AuditEvents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.cli import OK, USAGE
from engine.cli_state import _database, _guarded, _rows, _settings, _Stop

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

__all__ = ["audit_export_command", "audit_list_command"]

_PAGE = 1000


@_guarded
def audit_list_command(
    config: Path | None, json: bool, patient: str, since: str, limit: int, *, stdout: TextIO, stderr: TextIO
) -> int:
    with _database(config) as connection:
        found = [
            {
                "seq": row.seq,
                "at": datetime.fromtimestamp(row.at / 1000, UTC).isoformat(timespec="seconds"),
                "actor": row.actor,
                "action": row.action,
                "patient": row.patient_id,
                "detail": row.detail,
            }
            for row, _ in zip(_newest_last(connection, patient, _day(since)), range(limit), strict=False)
        ]
    _rows(found, json, ("seq", "at", "actor", "action", "patient", "detail"), stdout)
    return OK


@_guarded
def audit_export_command(config: Path | None, since: str, *, stdout: TextIO, stderr: TextIO) -> int:
    import msgspec

    from emitters.audit_event import AuditEntry, audit_event

    engine_id = _settings(config).engine.name
    with _database(config) as connection:
        for row in _newest_last(connection, "", _day(since)):
            entry = AuditEntry(
                seq=row.seq,
                at_ms=row.at,
                actor=row.actor,
                action=row.action,
                patient_id=row.patient_id,
                detail=row.detail,
                link=bytes(row.link).hex(),
            )
            print(msgspec.json.encode(audit_event(entry, engine_id=engine_id)).decode(), file=stdout)
    return OK


def _newest_last(connection: Connection, patient: str, since_ms: int) -> Iterator[Row[tuple[object, ...]]]:
    from sqlalchemy import select

    from store.tables import audit

    after = 0
    while True:
        query = select(audit).where(audit.c.seq > after, audit.c.at >= since_ms)
        if patient:
            query = query.where(audit.c.patient_id == patient)
        rows = connection.execute(query.order_by(audit.c.seq).limit(_PAGE)).all()
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].seq


def _day(text: str) -> int:
    if not text:
        return 0
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise _Stop(USAGE, f"--since {text}: a day, as 2026-11-22") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
