"""Judging a stored message again: what it would change, and doing it, by a named person, with other bytes perhaps.

Rule of the file: the original stays as it is; its copy says whose copy it is, the audit says whose doing. A look ahead uses
the engine's own reading and judging on what is on file now, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from engine.config import Settings
from engine.duty import present_of
from engine.identity import Patients
from engine.judge import Judge
from engine.sites import load_sites
from engine.worker import identifiers_in, understood
from ingest import envelope
from rules.model import AlertFamily
from store import Envelope, inbox, register
from store.port import Audit, Claim, Work
from store.tables import message
from store.values import encode, from_ms, to_ms

__all__ = ["Preview", "again", "edited", "preview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """``before`` and ``after``: the disposition with its reason. ``alerts`` and ``tasks``: what would be told."""

    message: int
    before: str
    after: str
    counts: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    connection: Connection, settings: Settings, numbers: Sequence[int], bytes_instead: bytes | None = None
) -> list[Preview]:
    """Each message by itself; one whose body is gone says so."""
    judge = Judge(present=present_of(settings), zone=settings.zone)
    sites, now = load_sites(settings.sites.files), datetime.now(UTC)
    found = []
    for number in numbers:
        row = connection.execute(select(message).where(message.c.id == number)).mappings().first()
        if row is None:
            found.append(Preview(message=number, before="no such message", after=""))
            continue
        before = _words(row["disposition"] or "pending", row["reason"])
        raw = bytes_instead if bytes_instead is not None else inbox.bytes_of(connection, number)
        if raw is None:
            found.append(Preview(message=number, before=before, after="the body is gone"))
            continue
        item = edited(row, raw, now)
        claim = Claim(
            message_id=number,
            format=item.format,
            channel=item.channel,
            sender=item.sender,
            control_id=item.control_id,
            received_at=now if bytes_instead is not None else from_ms(row["received_at"]),
            raw=raw,
            peer=item.peer,
        )
        reading = understood(claim, settings.zone, sites)
        patients = Patients()
        for record in register.by_identifier(connection, identifiers_in(reading, claim)):
            patients.add(record)
        work = Work()
        judge.message(claim, reading, patients, work, now)
        found.append(_preview(number, before, work))
    return found


def _preview(number: int, before: str, work: Work) -> Preview:
    (done,) = work.done
    told = [entry.alert for entry in work.alerts]
    alerts = {f"{one.kind.value} {one.level.value}: {one.family.value}" for one in told}
    counts = [f"{one.result.anc.per_mm3.normalize():f}" for one in work.results if one.result.anc is not None]
    return Preview(
        message=number,
        before=before,
        after=_words(done.disposition.value, done.reason),
        counts=tuple(f"count {one}/mm3" for one in counts),
        alerts=tuple(sorted(alerts)),
        tasks=tuple(sorted({one.title for one in told if one.family is AlertFamily.REVIEW})),
    )


def again(
    connection: Connection,
    numbers: Sequence[int],
    *,
    by: str,
    bytes_instead: bytes | None = None,
    now: datetime | None = None,
) -> dict[int, int | None]:
    """The number of each copy; None: no such message, or no body. The audit names who, of what, and whether edited."""
    now = now or datetime.now(UTC)
    copies: dict[int, int | None] = {}
    for number in numbers:
        item = None
        if bytes_instead is not None:
            row = connection.execute(select(message).where(message.c.id == number)).mappings().first()
            item = edited(row, bytes_instead, now) if row is not None else None
        copied = inbox.replay(connection, number, to_ms(now), item)
        copies[number] = copied
        if copied is not None:
            detail = {"message": number, "copy": copied} | ({"edited": True} if item is not None else {})
            work = Work(audits=[Audit(at=now, actor=by, action="replay-message", detail=encode(detail).encode())])
            register.write(connection, work, to_ms(now))
    return copies


def edited(row: Any, raw: bytes, now: datetime) -> Envelope:
    """The envelope that these bytes would have had at the door of the original."""
    if row["format"] == "hl7v2":
        return envelope.hl7v2(raw, channel=row["channel"], peer=row["peer"], now=now)[1]
    return envelope.fhir(
        raw,
        channel=row["channel"],
        peer=row["peer"],
        now=now,
        sender=row["sender"],
        control_id=row["control_id"],
        message_type=row["message_type"],
    )


def _words(disposition: str, reason: str | None) -> str:
    return f"{disposition} ({reason})" if reason else disposition
