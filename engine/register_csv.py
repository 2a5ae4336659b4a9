"""The register by CSV: every row understood before anything is written; all rows in one transaction, or none.

Columns are those of the contract. Each complaint names line and column. UTF-8 (with or without a mark) with commas, or
semicolons as a French spreadsheet writes them; cp1252 where it is not UTF-8.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from zoneinfo import ZoneInfo

from engine.enrol import enrol
from engine.identity import Ambiguous, Known, Patients
from rules import ProtocolError, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    Attestation,
    CompleteStop,
    Interruption,
    LabResult,
    PatientIdentifier,
    Person,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
)
from store import database, register
from store.port import ResultRecord, Work
from store.store import record as record_work
from store.values import new_id

__all__ = ["COLUMNS", "Complaint", "ImportReport", "import_csv", "parse"]

COLUMNS = (
    "patient_id",
    "authority",
    "id_type",
    "family",
    "given",
    "birth_date",
    "sex",
    "treatment_start",
    "start_confirmed_by",
    "neutropenia_history",
    "history_confirmed_by",
    "history_confirmed_on",
    "last_anc_on",
    "last_anc_per_mm3",
    "ben_confirmed_on",
    "ben_confirmed_by",
    "interruptions",
    "stopped_on",
    "stop_reason",
    "protocol",
    "owner",
)
_REQUIRED = ("patient_id",)


@dataclass(frozen=True, slots=True)
class Complaint:
    """``line`` as an editor counts it; the value itself is not repeated, it may be a patient's."""

    line: int
    column: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.column}: {self.text}"


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    identifier: PatientIdentifier
    person: Person
    course: TreatmentCourse
    owner: str
    last_anc: tuple[date, Decimal] | None
    note: str = ""


@dataclass(slots=True)
class ImportReport:
    rows: int = 0
    enrolled: int = 0
    updated: int = 0
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[Complaint] = field(default_factory=list)
    """What was imported otherwise than it was written; nothing is refused for it."""

    @property
    def written(self) -> bool:
        return not self.complaints


class _Wrong(ValueError):
    def __init__(self, column: str, text: str) -> None:
        super().__init__(text)
        self.column = column


def parse(raw: bytes, today: date, default_protocol: str = "ansm") -> tuple[list[Row], list[Complaint]]:
    """All rows, and all complaints. A file with a complaint is not to be imported."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="strict") if not _undefined_in_cp1252(raw) else raw.decode("latin-1")
    head = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    lines = iter(reader)
    header = [name.strip().lower() for name in next(lines, [])]
    complaints = list(_about_header(header))
    if complaints:
        return [], complaints
    rows: list[Row] = []
    seen: dict[tuple[str, str], int] = {}
    for values in lines:
        line = reader.line_num
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            complaints.append(Complaint(line, "row", f"{len(values)} fields where the header has {len(header)}"))
            continue
        given = {name: value.strip() for name, value in zip(header, values, strict=True)}
        try:
            row = _row(line, given, today, default_protocol)
        except _Wrong as wrong:
            complaints.append(Complaint(line, wrong.column, str(wrong)))
            continue
        key = (row.identifier.value, row.identifier.authority)
        if key in seen:
            complaints.append(Complaint(line, "patient_id", f"the same patient as on line {seen[key]}"))
            continue
        seen[key] = line
        rows.append(row)
    return rows, complaints


def _undefined_in_cp1252(raw: bytes) -> bool:
    return any(byte in raw for byte in b"\x81\x8d\x8f\x90\x9d")


def _about_header(header: list[str]) -> Iterator[Complaint]:
    for name in _REQUIRED:
        if name not in header:
            yield Complaint(1, name, "this column is missing")
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            yield Complaint(1, name or "(empty)", "unknown column")
        elif header.count(name) > 1:
            yield Complaint(1, name, "the column stands there twice")


def _row(line: int, given: dict[str, str], today: date, default_protocol: str) -> Row:
    value = given["patient_id"]
    if not value:
        raise _Wrong("patient_id", "missing")
    birth = _date(given, "birth_date", latest=today)
    protocol = given.get("protocol", "") or default_protocol
    try:
        find_protocol(protocol)
    except ProtocolError:
        raise _Wrong("protocol", "no such protocol; `neutroflag rules list` names them") from None
    attested = _attestation(given, "history_confirmed_by", "history_confirmed_on", today)
    history, note = _history(given), ""
    if history is PriorNeutropenia.NONE and attested is None:
        # Nobody answers for it: the longer intervals that it would allow are not given (clinical.md B-26).
        history, note = PriorNeutropenia.UNKNOWN, "'none' without who confirmed it and when counts as unknown"
    course = TreatmentCourse(
        start=_date(given, "treatment_start"),
        start_confirmed_by=given.get("start_confirmed_by", ""),
        interruptions=tuple(_interruptions(given, today)),
        stop=_stop(given, today),
        ben=_attestation(given, "ben_confirmed_by", "ben_confirmed_on", today),
        prior_neutropenia=history,
        prior_attested=attested,
        birth_date=birth,
        protocol=protocol,
    )
    _consistent(course)
    return Row(
        line=line,
        identifier=PatientIdentifier(value, authority(given.get("authority", "")), given.get("id_type", "") or "PI"),
        person=Person(
            family=given.get("family", ""),
            given=given.get("given", ""),
            birth_date=birth,
            sex=given.get("sex", "").upper()[:1],
        ),
        course=course,
        owner=given.get("owner", ""),
        last_anc=_last_anc(given, today),
        note=note,
    )


_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+\Z")


def authority(given: str) -> str:
    """``1.2.3``, ``urn:oid:1.2.3`` and ``CHX&1.2.3&ISO`` are one authority; a bare name stays as it is."""
    parts = given.strip().split("&")
    if len(parts) >= 2 and _OID.match(parts[1]):
        return f"urn:oid:{parts[1]}"
    name = parts[0].strip()
    return f"urn:oid:{name}" if _OID.match(name) else name


def _date(given: dict[str, str], column: str, *, latest: date | None = None) -> date | None:
    text = given.get(column, "")
    if not text:
        return None
    try:
        found = datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  # a calendar day has no zone
    except ValueError:
        raise _Wrong(column, "write the date as 2026-11-22") from None
    if latest is not None and found > latest:
        raise _Wrong(column, "lies in the future")
    return found


def _attestation(given: dict[str, str], by: str, on: str, today: date) -> Attestation | None:
    name, day = given.get(by, ""), _date(given, on, latest=today)
    if not name and day is None:
        return None
    if not name or day is None:
        raise _Wrong(by if not name else on, "who confirmed it and when belong together")
    return Attestation(name, day)


def _history(given: dict[str, str]) -> PriorNeutropenia:
    text = given.get("neutropenia_history", "").lower()
    if not text:
        return PriorNeutropenia.UNKNOWN
    try:
        return PriorNeutropenia(text)
    except ValueError:
        known = ", ".join(item.value for item in PriorNeutropenia)
        raise _Wrong("neutropenia_history", f"one of {known}") from None


def _stop(given: dict[str, str], today: date) -> CompleteStop | None:
    day, reason = _date(given, "stopped_on", latest=today), given.get("stop_reason", "")
    if day is None and not reason:
        return None
    if day is None:
        raise _Wrong("stopped_on", "a stop reason without the day of the stop")
    try:
        return CompleteStop(day, StopReason(reason))
    except ValueError:
        raise _Wrong("stop_reason", f"one of {', '.join(item.value for item in StopReason)}") from None


def _interruptions(given: dict[str, str], today: date) -> Iterator[Interruption]:
    before: date | None = None
    for pair in filter(None, (part.strip() for part in given.get("interruptions", "").split(";"))):
        last, _, restart = pair.partition("/")
        days = []
        for text in (last.strip(), restart.strip()):
            day = _date({"interruptions": text}, "interruptions")
            days.append(day)
        first, second = days
        if first is None:
            raise _Wrong("interruptions", "write last dose/restart, pairs separated by ;")
        if second is not None and second < first:
            raise _Wrong("interruptions", "a restart before its last dose")
        if before is not None and first < before:
            raise _Wrong("interruptions", "interruptions overlap or are not in order")
        if first > today:
            raise _Wrong("interruptions", "lies in the future")
        before = second or date.max
        yield Interruption(
            datetime.combine(first, time()), datetime.combine(second, time()) if second is not None else None
        )


def _last_anc(given: dict[str, str], today: date) -> tuple[date, Decimal] | None:
    day, text = _date(given, "last_anc_on", latest=today), given.get("last_anc_per_mm3", "")
    if day is None and not text:
        return None
    if day is None or not text:
        raise _Wrong("last_anc_on" if day is None else "last_anc_per_mm3", "count and day belong together")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text):
        raise _Wrong("last_anc_per_mm3", "cells per mm3, such as 2400")
    try:
        count = Decimal(text)
    except InvalidOperation:
        raise _Wrong("last_anc_per_mm3", "not a number") from None
    if count > 100_000:
        raise _Wrong("last_anc_per_mm3", "beyond what blood can hold")
    return day, count


def _consistent(course: TreatmentCourse) -> None:
    for pause in course.interruptions:
        if course.start is not None and pause.last_dose.date() < course.start:
            raise _Wrong("interruptions", "before the first dose")
    if course.stop is not None and course.start is not None and course.stop.on < course.start:
        raise _Wrong("stopped_on", "before the first dose")


def import_csv(
    path: Path, url: str, *, actor: str, zone: ZoneInfo, default_protocol: str = "ansm", dry_run: bool = False
) -> ImportReport:
    """Reads, checks and, unless ``dry_run``, writes. An engine that runs on the same database notices by itself."""
    now = datetime.now(UTC)
    rows, complaints = parse(path.read_bytes(), now.astimezone(zone).date(), default_protocol)
    report = ImportReport(rows=len(rows), complaints=complaints)
    report.notes = [Complaint(row.line, "neutropenia_history", row.note) for row in rows if row.note]
    if complaints or not rows:
        return report
    with database.writer(url).connect() as connection, connection.begin() as transaction:
        patients = Patients()
        for start in range(0, len(rows), 500):
            for found in register.by_identifier(connection, [row.identifier for row in rows[start : start + 500]]):
                patients.add(found)
        work = Work()
        for row in rows:
            _enrol(row, patients, work, report, now, actor, zone)
        work.identifiers = list(patients.fresh)
        if report.complaints or dry_run:
            transaction.rollback()
            return report
        record_work(work, connection)
    return report


def _enrol(
    row: Row, patients: Patients, work: Work, report: ImportReport, now: datetime, actor: str, zone: ZoneInfo
) -> None:
    match patients.find([row.identifier]):
        case Known(record, ""):
            pass
        case Known() | Ambiguous():
            report.complaints.append(Complaint(row.line, "patient_id", "on file under another authority"))
            return
        case _:
            record = patients.new([row.identifier])
    if record.enrolled:
        report.updated += 1
    else:
        report.enrolled += 1
    record.person, record.owner = _merged_person(record.person, row.person), row.owner or record.owner
    course = _merged(record.course, row.course) if record.enrolled else row.course
    enrol(record, course, work, now=now, actor=actor, why="csv")
    if row.last_anc is not None:
        day, count = row.last_anc
        key = f"register|{day.isoformat()}"
        if key not in record.results and not _on_file(record.results.values(), day, count):
            number = new_id()
            result = LabResult(
                id=number,
                status=ResultStatus.FINAL,
                anc=AbsoluteNeutrophilCount(per_mm3=count),
                collected_at=datetime.combine(day, time(), tzinfo=zone),
                time_known=False,
                identifiers=(row.identifier,),
                key=key,
                value_as_sent=str(count),
                unit_as_sent="/mm3",
                where=f"register line {row.line}",
            )
            filed = ResultRecord(id=number, patient_id=record.id, message_id=0, key=key, version=1, result=result)
            record.results[key] = filed
            work.results.append(filed)


def _merged(before: TreatmentCourse, row: TreatmentCourse) -> TreatmentCourse:
    """An empty cell says nothing: it takes back no stop, no interruption and no attestation that is on file."""
    return dataclasses.replace(
        row,
        start=row.start or before.start,
        start_confirmed_by=row.start_confirmed_by or before.start_confirmed_by,
        interruptions=row.interruptions or before.interruptions,
        stop=row.stop or before.stop,
        ben=row.ben or before.ben,
        prior_neutropenia=before.prior_neutropenia
        if row.prior_neutropenia is PriorNeutropenia.UNKNOWN
        else row.prior_neutropenia,
        prior_attested=row.prior_attested or before.prior_attested,
        birth_date=row.birth_date or before.birth_date,
        valproate=before.valproate,
        infection_signs_on=before.infection_signs_on,
        state=before.state,
    )


def _merged_person(before: Person, row: Person) -> Person:
    return Person(
        family=row.family or before.family,
        given=row.given or before.given,
        birth_date=row.birth_date or before.birth_date,
        sex=row.sex or before.sex,
    )


def _on_file(results: Iterable[ResultRecord], day: date, count: Decimal) -> bool:
    return any(
        item.result.anc is not None
        and item.result.anc.per_mm3 == count
        and item.result.collected_at is not None
        and item.result.collected_at.date() == day
        for item in results
    )
