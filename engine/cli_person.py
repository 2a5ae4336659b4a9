"""``neutroflag patients export|erase`` and ``db scrub``: what is held about one person, given out or removed."""

from __future__ import annotations

import base64
import json as jsonlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from engine.cli import FAILURE, OK, USAGE
from engine.cli_again import _who
from engine.cli_state import _database, _guarded, _one_patient, _progress, _settings, _Stop

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.config import Settings
    from engine.person import Found, Who
    from store.person import Removed

__all__ = ["db_scrub_command", "patients_erase_command", "patients_export_command"]

# Numbers of messages may be committed out of order on a server: these are looked at once more before anything goes.
_AGAIN = 5000
_LONGEST = 2000


@_guarded
def patients_export_command(
    config: Path | None, key: str, to: Path | None, by: str, *, stdout: TextIO, stderr: TextIO
) -> int:
    """The export is itself an act on the person's data: it stands in the audit."""
    from engine import person
    from store import trail
    from store.values import encode, to_ms

    settings, now = _settings(config), datetime.now(UTC)
    with ExitStack() as stack:
        connection = stack.enter_context(_database(config))
        whom = person.who(connection, _one_patient(connection, key))
        found = _searched(connection, settings, whom, stack, stderr)
        whole = _export(connection, settings, whom, found, by=_who(by), now=now)
    text = jsonlib.dumps(whole, ensure_ascii=False, indent=2, default=str) + "\n"
    with _database(config, write=True) as connection:
        detail = encode({"messages": len(found.messages), "withheld": len(found.shared)})
        entry = trail.Entry(
            at_ms=to_ms(now), actor=_who(by), action="patient-exported", patient_id=whom.record.id, detail=detail
        )
        trail.append(connection, [entry])
    if to is None:
        stdout.write(text)
        return OK
    try:
        with os.fdopen(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise _Stop(FAILURE, f"{to}: exists already") from None
    except OSError as error:
        raise _Stop(FAILURE, f"{to}: {error.strerror}") from None
    print(f"{to}: {len(found.messages)} messages, {len(whole['counts'])} versions of counts", file=stdout)
    return OK


def _searched(
    connection: Connection, settings: Settings, whom: Who, stack: ExitStack, stderr: TextIO, after: int = 0
) -> Found:
    from sqlalchemy import func, select

    from engine import person
    from engine.sites import load_sites
    from store.tables import body

    total = connection.scalar(select(func.count()).select_from(body).where(body.c.message_id > after)) or 0
    show: Callable[[int, int], None] = stack.enter_context(_progress(stderr))
    return person.search(
        connection,
        whom,
        zone=settings.zone,
        sites=load_sites(settings.sites.files),
        after=after,
        progress=lambda done: show(done, total),
    )


def _export(
    connection: Connection, settings: Settings, whom: Who, found: Found, *, by: str, now: datetime
) -> dict[str, Any]:
    import msgspec

    from emitters.fhir_person import Version, collection
    from rules.model import LabResult
    from store import person

    rows = person.rows(connection, whom.ids)
    versions = [
        Version(msgspec.convert(row["body"], LabResult, strict=False), bool(row["current"])) for row in rows["counts"]
    ]
    record = whom.record
    return {
        "format": "neutroflag.person",
        "version": 1,
        "made_at": now.isoformat(timespec="seconds"),
        "made_by": by,
        "register_ids": list(whom.ids),
        "fhir": jsonlib.loads(
            msgspec.json.Encoder(decimal_format="number").encode(
                collection(record.id, record.person, whom.identifiers, record.course, versions, now)
            )
        ),
        **rows,
        "messages": [
            row | _bytes(found, int(row["id"]))
            for row in person.message_rows(connection, {*found.messages, *person.linked(connection, whom.ids)})
        ],
        "sent": person.sent(connection, whom.ids),
        "elsewhere": _elsewhere(settings),
    }


def _bytes(found: Found, number: int) -> dict[str, Any]:
    claim = found.messages.get(number)
    if claim is None:
        return {"raw": None, "raw_is": "removed"}
    if claim.unopened:
        return {"raw": None, "raw_is": claim.unopened}
    if number in found.shared:
        return {"raw": None, "raw_is": "withheld: it speaks of others too, or cannot be read"}
    try:
        return {"raw": claim.raw.decode("utf-8"), "raw_is": "utf-8"}
    except UnicodeDecodeError:
        return {"raw": base64.b64encode(claim.raw).decode(), "raw_is": "base64"}


def _elsewhere(settings: Settings) -> list[str]:
    """Where data of patients are that no command of ours reaches."""
    found = [f"destination {item.name}: what it was sent" for item in settings.destination]
    if settings.kafka.bootstrap:
        found += [
            f"topic {name} of Kafka: messages as they came, while the broker keeps them"
            for name in settings.kafka.topics
        ]
    found += [f"folder {path}: files as they came, under done/ and refused/" for path in settings.files.folder]
    found.append(
        "backups of the database, its disk's free blocks and snapshots, and on PostgreSQL its WAL, statistics and archive"
    )
    return found


@_guarded
def patients_erase_command(
    config: Path | None, key: str, by: str, reason: str, force: bool, yes: bool, *, stdout: TextIO, stderr: TextIO
) -> int:
    from engine import person
    from store import person as rows

    by, reason = " ".join(by.split()), " ".join(reason.split())
    if not by or not reason:
        raise _Stop(USAGE, "--by and --reason: who erases, and why; both stay in the audit")
    if max(len(by), len(reason)) > _LONGEST:
        raise _Stop(USAGE, f"--by, --reason: at most {_LONGEST} characters")
    settings = _settings(config)
    with ExitStack() as stack:
        connection = stack.enter_context(_database(config))
        whom = person.who(connection, _one_patient(connection, key))
        if person.quoted(whom, by, reason):
            raise _Stop(USAGE, "--by or --reason names the patient, and would stay for ever: write them otherwise")
        against = person.obstacles(connection, whom)
        found = _searched(connection, settings, whom, stack, stderr)
        shared = _also_of(connection, whom, found)
        sent = rows.sent(connection, whom.ids)
    for words in against:
        print(f"{'in spite of' if force else 'refused'}: {words}", file=stderr)
    if against and not force:
        print("settle these first, or say --force", file=stderr)
        return FAILURE
    _pending(found)
    if not yes:
        print(
            f"would erase {len(whom.ids)} records, the bytes of {len(found.messages)} messages, and all that was made "
            f"of them; {shared}; say --yes to do it",
            file=stdout,
        )
        _tell(stdout, settings, sent)
        return OK
    removed = _erase(config, settings, whom, found, by=by, reason=reason, force=bool(against), stderr=stderr)
    print(
        f"erased: {removed.counts} versions of counts, {removed.verdicts} verdicts, {removed.alerts} alerts, "
        f"{removed.deliveries} notifications, {removed.audit_entries} audit entries, the bytes of {removed.bodies} messages; "
        f"{shared}",
        file=stdout,
    )
    _tell(stdout, settings, sent)
    return _scrubbed(settings, stdout, stderr)


def _also_of(connection: Connection, whom: Who, found: Found) -> str:
    """How many others lose the bytes of a message; what was read of them stays."""
    from sqlalchemy import select

    from store.tables import result

    others = connection.scalars(
        select(result.c.patient_id)
        .where(result.c.message_id.in_(found.shared), result.c.patient_id.not_in(whom.ids))
        .distinct()
    ).all()
    return f"{len(found.shared)} of these speak of others too, whose own counts stay ({len(others)} patients on file)"


def _pending(found: Found) -> None:
    if found.pending:
        numbers = ", ".join(str(one) for one in sorted(found.pending)[:20])
        raise _Stop(
            FAILURE, f"messages that wait to be judged speak of this person: {numbers}; let the engine end them first"
        )


def _erase(
    config: Path | None,
    settings: Settings,
    whom: Who,
    found: Found,
    *,
    by: str,
    reason: str,
    force: bool,
    stderr: TextIO,
) -> Removed:
    from engine import person
    from store import person as rows
    from store import trail
    from store.values import encode, to_ms

    now = datetime.now(UTC)
    with ExitStack() as stack:
        connection = stack.enter_context(_database(config, write=True))
        rows.hold(connection, whom.ids)
        # What came while the messages were read.
        if not _same(person.who(connection, whom.record.id), whom):
            raise _Stop(FAILURE, "the record changed just now; say it again")
        if not force and person.obstacles(connection, whom):
            raise _Stop(FAILURE, "an alert was raised just now; say it again")
        late = _searched(connection, settings, whom, stack, stderr, after=max(0, found.last - _AGAIN))
        _pending(late)
        numbers = {*found.messages, *late.messages, *rows.linked(connection, whom.ids)}
        removed = rows.erase(connection, whom.ids, numbers, whom.words)
        # The register's id stays as a pseudonym that nothing leads from any more: destinations' Flags are named after it.
        detail = {
            "record": whom.ids[0],
            "reason": reason,
            "forced": force,
            "messages": sorted(numbers),
            "counts": removed.counts,
            "alerts": removed.alerts,
            "audit_entries": removed.audit_entries,
        }
        trail.append(
            connection, [trail.Entry(at_ms=to_ms(now), actor=by, action="patient-erased", detail=encode(detail))]
        )
    return removed


def _same(one: Who, other: Who) -> bool:
    return one.ids == other.ids and set(one.identifiers) == set(other.identifiers)


def _tell(stdout: TextIO, settings: Settings, sent: list[dict[str, Any]]) -> None:
    print(
        "stays here: that each message came, when, from whom, its control id, its size and how it ended, so that in = out; "
        "the places of audit entries, so that the chain holds; who erased, when and why",
        file=stdout,
    )
    print("stays elsewhere, to be seen to by a person:", file=stdout)
    for row in sent:
        words = (
            f"{row['destination']}: alert {row['alert_id']}, revision {row['revision']}, sent as {row['control_id']}"
        )
        print(f"  {words} ({row['state']})", file=stdout)
    for line in _elsewhere(settings):
        print(f"  {line}", file=stdout)


@_guarded
def db_scrub_command(config: Path | None, yes: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    """``patients erase`` does it by itself; here for what retention removed, or where it could not be done then."""
    with _database(config):
        pass
    if not yes:
        print("would rewrite the whole database, and keep senders waiting for as long; say --yes to do it", file=stdout)
        return OK
    return _scrubbed(_settings(config), stdout, stderr)


def _scrubbed(settings: Settings, stdout: TextIO, stderr: TextIO) -> int:
    import sqlite3

    from sqlalchemy.exc import SQLAlchemyError

    from store import faults
    from store.scrub import scrub

    try:
        left = scrub(settings.store.url)
    except (SQLAlchemyError, sqlite3.Error) as error:
        left = faults.why(error) or str(getattr(error, "orig", error))
    if left:
        print(
            f"what was removed may still lie in the database's files: {left}; `neutroflag db scrub --yes`", file=stderr
        )
        return FAILURE
    print("the database's files were rewritten without it", file=stdout)
    return OK
