"""A database as a hospital has it after years: a million messages, ten thousand patients; written past the doors.

Patients, counts, verdicts and alerts go through the store's own functions, so that the tables hold what an engine writes.
Messages, which are many, are inserted as rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.simulate import LABORATORIES, blood_count
from rules import alerts_for, assess, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    Alert,
    AlertKind,
    AlertLevel,
    Assessment,
    LabResult,
    PatientIdentifier,
    Person,
    PriorNeutropenia,
    ResultStatus,
    Subject,
    TreatmentCourse,
)
from store import database, feeds, inbox, register, schema
from store.port import AlertRecord, Delivery, FeedRecord, PatientRecord, ResultRecord, Work
from store.values import message_name, new_id, to_ms

__all__ = ["COUNTS", "Sizes", "fill", "identifier_of", "people", "queue"]

COUNTS = 12
"""Of each patient, 28 days apart."""
_DAYS = 900
_AUTHORITY = "urn:oid:2.999.1"
_REASONS = tuple(
    f"{code}: OBX[{place}]" for code in ("bad-encoding", "no-segments", "msh-missing") for place in range(4)
)
_VARIANTS = (3200, 1300, 800, 400)
"""Newest counts per mm3: no alert, amber, red, critical."""


@dataclass(frozen=True, slots=True)
class Sizes:
    messages: int = 1_000_000
    patients: int = 10_000
    dead: int = 2_000


def identifier_of(number: int) -> str:
    return f"FULL{number:06d}"


def fill(path: Path, sizes: Sizes, now: datetime) -> None:
    """``path`` must not exist yet. Durability is left off while it is written; the engine turns it on."""
    with database.writer(f"sqlite:///{path}").connect() as connection, connection.begin():
        schema.upgrade(connection)
    with sqlite3.connect(path, isolation_level=None) as raw:
        raw.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-400000")
        indexes = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        for name, _ in indexes:
            raw.execute(f'DROP INDEX "{name}"')
        ends = _messages(raw, sizes, now)
    writing = database.writer(f"sqlite:///{path}")
    with writing.connect() as connection, connection.begin():
        people(connection, sizes, now)
        inbox.count(connection, [("received", "", sizes.messages), *(("disposition", k, n) for k, n in ends.items())])
        feeds.write(
            connection,
            Work(
                feeds=[
                    FeedRecord(
                        channel="mllp",
                        sender=f"{lab.application}|{lab.facility}",
                        first_at=now - timedelta(days=_DAYS),
                        last_at=now,
                        messages=sizes.messages // len(LABORATORIES),
                    )
                    for lab in LABORATORIES
                ],
                marks={"message": sizes.messages, "seen_at": to_ms(now)},
            ),
        )
        connection.exec_driver_sql(
            "UPDATE delivery SET state = 'delivered', attempts = 1, code = 'AA', words = 'MSA-1 AA'"
        )
        connection.exec_driver_sql(
            "UPDATE delivery SET state = 'dead', code = CASE id % 3 WHEN 0 THEN 'patient-not-found' ELSE 'http-422' END "
            "WHERE id IN (SELECT id FROM delivery ORDER BY id LIMIT ?)",
            (sizes.dead,),
        )
    writing.dispose()
    with sqlite3.connect(path, isolation_level=None) as raw:
        raw.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-400000; PRAGMA temp_store=FILE")
        for _, sql in indexes:
            raw.execute(sql)
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def queue(path: Path, alerts: int, destination: str, now: datetime) -> None:
    """A new database with so many critical alerts, each of another patient, that wait for one destination."""
    history = _history(now.date(), 0)
    result, verdict = history.newest[3]
    engine = database.writer(f"sqlite:///{path}")
    with engine.connect() as connection, connection.begin():
        schema.upgrade(connection)
        for first in range(0, alerts, 2000):
            work = Work()
            for number in range(first, min(first + 2000, alerts)):
                record = PatientRecord(
                    id=f"{number:032x}", identifiers=[PatientIdentifier(identifier_of(number), _AUTHORITY, "PI")]
                )
                behind = ResultRecord(
                    id=number + 1, patient_id=record.id, message_id=0, key=result.key, version=1, result=result
                )
                _alert(record, behind, verdict, now, work, (destination,))
            register.write(connection, work, to_ms(now))
    engine.dispose()


# Messages


def _messages(raw: sqlite3.Connection, sizes: Sizes, now: datetime) -> Counter[str]:
    """Each tenth judges nothing: every kind of end is among them, the newest of each at the end of the table."""
    ends: Counter[str] = Counter()
    names = (
        "id received_at channel format peer sender control_id message_type dedupe_key content_hash duplicate_of "
        "disposition reason judged_at size kept"
    ).split()
    marks = ", ".join("?" * len(names))
    insert = f"INSERT INTO message ({', '.join(names)}) VALUES ({marks})"  # noqa: S608  # our own names
    raw.execute("BEGIN")
    for *row, ledger, body in _rows(sizes, now, ends):
        raw.execute(insert, row)
        if body is not None:
            raw.execute("INSERT INTO body (message_id, raw) VALUES (?, ?)", (row[0], body))
        if ledger is not None:
            raw.execute("INSERT INTO ledger (message_id, entries) VALUES (?, ?)", (row[0], ledger))
    raw.execute("COMMIT")
    return ends


def judged_number(message_id: int, sizes: Sizes) -> int | None:
    """Which of all judged counts this message holds; None for another message. The newest messages hold the newest."""
    step = max(sizes.messages // (sizes.patients * COUNTS), 1)
    number, rest = divmod(message_id, step)
    return number if rest == 0 and number < sizes.patients * COUNTS else None


def message_of(count: int, sizes: Sizes) -> int:
    return count * max(sizes.messages // (sizes.patients * COUNTS), 1)


def _rows(sizes: Sizes, now: datetime, ends: Counter[str]) -> Iterator[tuple[Any, ...]]:
    bodies = [
        blood_count(
            control_id="@ID@", filler="@ID@F", patient_id="@PATIENT@", anc_per_mm3=3200, collected=now, laboratory=lab
        )
        for lab in LABORATORIES
    ]
    ledger = (
        "["
        + ",".join(
            f'{{"where":"OBX[{place}]","outcome":"{"judged" if place == 7 else "not_relevant"}","reason":""}}'
            for place in range(1, 26)
        )
        + "]"
    )
    start, span = to_ms(now - timedelta(days=_DAYS)), _DAYS * 86_400_000
    for number in range(1, sizes.messages + 1):
        lab = number % len(LABORATORIES)
        sender = f"{LABORATORIES[lab].application}|{LABORATORIES[lab].facility}"
        control, at = f"C{number}", start + span * number // sizes.messages
        end, reason, duplicate_of, body = _end(number, sizes)
        ends[end] += 1
        raw = None
        if body:
            count = judged_number(number, sizes) or 0
            patient = identifier_of(count % sizes.patients).encode()
            raw = bodies[lab].replace(b"@ID@", control.encode()).replace(b"@PATIENT@", patient)
        name = message_name("hl7v2", sender, control)
        kept = None if end in ("duplicate", "set_aside", "not_relevant") else ledger
        yield (
            number, at, "mllp", "hl7v2", "192.0.2.1:4711", sender, control, "ORU^R01", name, name, duplicate_of,
            end, reason, at, 5700, raw is not None, kept, raw,
        )  # fmt: skip


def _end(number: int, sizes: Sizes) -> tuple[str, str, int | None, bool]:
    if judged_number(number, sizes) is not None:
        return "judged", "", None, True
    if number % 100 == 1:
        return "set_aside", _REASONS[number // 100 % len(_REASONS)], None, True
    if number % 200 == 3:
        return "unassessable", "unit-missing" if number % 400 == 3 else "value-unreadable", None, True
    if number % 50 == 7:
        return "duplicate", "", number - 1, False
    if number % 5 == 2:
        return "not_relevant", "", None, False
    # Nobody on the register: the bodies were removed after their time.
    return "unenrolled", "", None, False


# Patients, with their counts, verdicts and alerts


def people(connection: Any, sizes: Sizes, now: datetime) -> None:
    """Patients with their counts, verdicts and alerts, in the caller's transaction."""
    histories = [_history(now.date(), offset) for offset in range(28)]
    for first in range(0, sizes.patients, 500):
        work = Work()
        for number in range(first, min(first + 500, sizes.patients)):
            _person(number, histories[number % 28], sizes, now, work)
        register.write(connection, work, to_ms(now))


@dataclass(frozen=True, slots=True)
class _History:
    course: TreatmentCourse
    results: list[LabResult]
    verdicts: list[Assessment]
    newest: list[tuple[LabResult, Assessment]]
    """By variant."""


def _history(today: date, offset: int) -> _History:
    """The same counts for every patient whose newest one is ``offset`` days old."""
    course = TreatmentCourse(
        start=today - timedelta(days=_DAYS), start_confirmed_by="Dr Bench", prior_neutropenia=PriorNeutropenia.NONE
    )
    days = [today - timedelta(days=offset + 28 * back) for back in reversed(range(COUNTS))]
    results = [_result(day, 2400 + 137 * place % 1900) for place, day in enumerate(days[:-1])]
    verdicts = [_verdict(course, results[:place], item) for place, item in enumerate(results)]
    newest = []
    for count in _VARIANTS:
        item = _result(days[-1], count)
        newest.append((item, _verdict(course, results, item)))
    return _History(course, results, verdicts, newest)


_keys = itertools.count(1)


def _result(day: date, count: int) -> LabResult:
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(count), reporting_unit=Decimal(10)),
        collected_at=datetime(day.year, day.month, day.day, 8, 5, tzinfo=UTC),
        key=f"bench|{next(_keys)}",
        code="751-8",
        code_system="http://loinc.org",
        display="Neutrophils",
        value_as_sent=str(Decimal(count) / 1000),
        unit_as_sent="10*9/L",
        where="OBX[7]",
        id=next(_keys),
    )


def _verdict(course: TreatmentCourse, history: list[LabResult], result: LabResult) -> Assessment:
    if result.collected_at is None:
        raise ValueError("a count of the benchmark has its time")
    found = assess(find_protocol("ansm"), course, history, result, result.collected_at.date())
    if not isinstance(found, Assessment):
        raise TypeError("a count of the benchmark cannot be judged")
    return found


def _person(number: int, history: _History, sizes: Sizes, now: datetime, work: Work) -> None:
    variant = 3 if number % 100 == 1 else 2 if number % 50 == 3 else 1 if number % 10 == 5 else 0
    last, present = history.newest[variant]
    record = PatientRecord(
        id=f"{number:032x}",
        enrolled=True,
        person=Person(family=f"EXEMPLE{number % 900:03d}", given="Camille", birth_date=date(1980, 1, 1), sex="F"),
        course=history.course,
        identifiers=[PatientIdentifier(identifier_of(number), _AUTHORITY, "PI")],
        present=present,
        new=True,
    )
    work.patients[record.id] = record
    work.identifiers.append((record.id, record.identifiers[0]))
    whole = [*zip(history.results, history.verdicts, strict=True), (last, present)]
    for place, (result, verdict) in enumerate(whole):
        filed = ResultRecord(
            id=new_id(),
            patient_id=record.id,
            message_id=message_of(place * sizes.patients + number, sizes),
            key=f"{result.key}|{number}",
            version=1,
            result=result,
        )
        filed.result = dataclasses.replace(result, id=filed.id, key=filed.key)
        work.results.append(filed)
        work.assessments.append((record.id, filed.id, filed.message_id, verdict))
    if present.alert is not AlertLevel.NONE:
        _alert(record, work.results[-1], present, now, work)


def _alert(
    record: PatientRecord,
    behind: ResultRecord,
    verdict: Assessment,
    now: datetime,
    work: Work,
    destinations: tuple[str, ...] = ("ehr", "ehr-v2"),
) -> None:
    draft = alerts_for(verdict, register_id=record.id, language="fr", result=behind.result)
    if draft is None:
        return
    at = now - timedelta(minutes=len(work.alerts) % 500)
    alert = Alert(
        id=draft.id,
        revision=1,
        kind=AlertKind.RAISED,
        family=draft.family,
        level=draft.level,
        title=draft.title,
        text=draft.text,
        subject=Subject(register_id=record.id, identifiers=tuple(record.identifiers), person=record.person),
        raised_at=at,
        updated_at=at,
        assessment=verdict,
        result=behind.result,
        source="LABO|BENCH",
    )
    state = "open" if draft.level.rank > 1 else "answered"
    work.alerts.append(
        AlertRecord(alert=alert, patient_id=record.id, state=state, result_id=behind.id, result_key=behind.key)
    )
    for name in destinations:
        control = f"{new_id():020x}"[-20:]
        work.deliveries.append(
            Delivery(id=new_id(), destination=name, control_id=control, alert=alert, patient_id=record.id)
        )
