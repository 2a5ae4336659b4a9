"""The register by CSV: every row understood before anything is written; all rows in one transaction, or none.

What a row says is laid over what is on file: an empty cell takes nothing back, and no row lowers a warning that is on file.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from engine.enrol import enrol
from engine.identity import Ambiguous, Known, Patients
from engine.register_rows import COLUMNS, Complaint, Row, authority, inconsistencies, parse
from rules.model import (
    AbsoluteNeutrophilCount,
    LabResult,
    Person,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
)
from store import database, register
from store.port import PatientRecord, ResultRecord, Work
from store.store import record as record_work
from store.values import new_id

__all__ = ["COLUMNS", "Change", "Complaint", "ImportReport", "authority", "import_csv", "parse", "write_report"]

_TRIES = 5
_MILDER = {
    PriorNeutropenia.MILD: {PriorNeutropenia.NONE},
    PriorNeutropenia.STOP_LEVEL: {PriorNeutropenia.NONE, PriorNeutropenia.MILD},
}

Progress = Callable[[int, int], None]
"""Told (rows done, rows in all)."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a row does to the register: ``new`` or ``changed``, and the columns that differ from what is on file."""

    line: int
    kind: str
    columns: tuple[str, ...]


@dataclass(slots=True)
class ImportReport:
    rows: int = 0
    enrolled: int = 0
    updated: int = 0
    unchanged: int = 0
    changes: list[Change] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[Complaint] = field(default_factory=list)
    """What was imported otherwise than it was written; nothing is refused for it."""

    @property
    def written(self) -> bool:
        return not self.complaints


def import_csv(
    path: Path,
    url: str,
    *,
    actor: str,
    zone: ZoneInfo,
    default_protocol: str = "ansm",
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> ImportReport:
    """Reads, checks and, unless ``dry_run``, writes. An engine that runs on the same database notices by itself.

    The database is held for the writing alone; when somebody changed one of the patients meanwhile, all is done again.
    """
    now = datetime.now(UTC)
    rows, complaints = parse(path.read_bytes(), now.astimezone(zone).date())
    for _ in range(_TRIES):
        report = ImportReport(rows=len(rows), complaints=list(complaints))
        report.notes = [note for row in rows for note in row.notes]
        if complaints or not rows:
            return report
        importing = _Import(report, now, actor, zone, default_protocol)
        work = importing.work_of(rows, url, progress)
        if report.complaints or dry_run or not work.patients:
            return report
        with database.writer(url).connect() as connection, connection.begin() as transaction:
            if record_work(work, connection) is None:
                return report
            transaction.rollback()
    report.complaints.append(Complaint(0, "file", "the register kept changing meanwhile; try again"))
    return report


def write_report(path: Path, report: ImportReport) -> None:
    """Each refusal and each note, by line and column. Raises FileExistsError rather than write over anything."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out)
        writer.writerow(("kind", "line", "column", "text"))
        said = [("refused", item) for item in report.complaints] + [("note", item) for item in report.notes]
        for kind, item in sorted(said, key=lambda entry: entry[1].line):
            writer.writerow((kind, item.line, item.column, item.text))


@dataclass(frozen=True, slots=True)
class _Import:
    report: ImportReport
    now: datetime
    actor: str
    zone: ZoneInfo
    default_protocol: str
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each patient, by register id."""

    def work_of(self, rows: list[Row], url: str, progress: Progress) -> Work:
        """Everything that the rows change, as of one snapshot of the register."""
        patients, work = Patients(), Work()
        reader = database.reader(url)
        with reader.connect() as connection, connection.begin():
            for start in range(0, len(rows), 500):
                part = rows[start : start + 500]
                for found in register.by_identifier(connection, [row.identifier for row in part]):
                    patients.add(found)
                for row in part:
                    self._row(row, patients, work)
                progress(start + len(part), len(rows))
        reader.dispose()
        work.identifiers = [(number, item) for number, item in patients.fresh if number in work.patients]
        return work

    def _row(self, row: Row, patients: Patients, work: Work) -> None:
        match patients.find([row.identifier]):
            case Known(record, ""):
                pass
            case Known() | Ambiguous():
                self.report.complaints.append(Complaint(row.line, "patient_id", "on file under another authority"))
                return
            case _:
                record = patients.new([row.identifier])
        if (line := self.lines.setdefault(record.id, row.line)) != row.line:
            self.report.complaints.append(Complaint(row.line, "patient_id", f"the same patient as on line {line}"))
            return
        person, owner = _merged_person(record.person, row.person), row.owner or record.owner
        course = self._course(record, row)
        wrong = list(_against(record, row)) + list(inconsistencies(course, today=self._today))
        if record.enrolled and wrong:
            self.report.complaints += [Complaint(row.line, column, text) for column, text in wrong]
            return
        filed = self._count(record, row)
        columns = tuple(_differences(record, person, owner, course, filed))
        if record.enrolled and not columns:
            self.report.unchanged += 1
            return
        kind = "changed" if record.enrolled else "new"
        self.report.changes.append(Change(row.line, kind, columns))
        if record.enrolled:
            self.report.updated += 1
        else:
            self.report.enrolled += 1
        record.person, record.owner = person, owner
        enrol(record, course, work, now=self.now, actor=self.actor, why="csv")
        if filed is not None:
            record.results[filed.key] = filed
            work.results.append(filed)

    @property
    def _today(self) -> date:
        return self.now.astimezone(self.zone).date()

    def _course(self, record: PatientRecord, row: Row) -> TreatmentCourse:
        if record.enrolled:
            return _merged(record.course, row.course)
        return dataclasses.replace(row.course, protocol=row.course.protocol or self.default_protocol)

    def _count(self, record: PatientRecord, row: Row) -> ResultRecord | None:
        if row.last_anc is None:
            return None
        day, count = row.last_anc
        key = f"register|{day.isoformat()}"
        if key in record.results or _on_file(record.results.values(), day, count):
            return None
        number = new_id()
        result = LabResult(
            id=number,
            status=ResultStatus.FINAL,
            anc=AbsoluteNeutrophilCount(per_mm3=count),
            collected_at=datetime.combine(day, time(), tzinfo=self.zone),
            time_known=False,
            identifiers=(row.identifier,),
            key=key,
            value_as_sent=str(count),
            unit_as_sent="/mm3",
            where=f"register line {row.line}",
        )
        return ResultRecord(id=number, patient_id=record.id, message_id=0, key=key, version=1, result=result)


def _against(record: PatientRecord, row: Row) -> Iterator[tuple[str, str]]:
    """What a row would take back of a warning that is on file: a person does that, with a reason, and never a file."""
    before, after = record.course, row.course
    stops = [stop.reason is StopReason.OTHER for stop in (before.stop, after.stop) if stop is not None]
    if stops == [False, True]:
        yield "stop_reason", "on file is a stop for the count; a file does not take it back"
    if after.prior_neutropenia in _MILDER.get(before.prior_neutropenia, ()):
        yield "neutropenia_history", "milder than what is on file; a file does not take it back"


_COLUMN_OF = {
    "start": "treatment_start",
    "prior_neutropenia": "neutropenia_history",
    "prior_attested": "history_confirmed_on",
    "ben": "ben_confirmed_on",
    "stop": "stopped_on",
}


def _differences(
    record: PatientRecord, person: Person, owner: str, course: TreatmentCourse, filed: ResultRecord | None
) -> Iterator[str]:
    for before, after in ((record.person, person), (record.course, course)):
        for item in dataclasses.fields(after):
            if item.name == "birth_date" and after is course:
                continue
            if getattr(before, item.name) != getattr(after, item.name):
                yield _COLUMN_OF.get(item.name, item.name)
    if owner != record.owner:
        yield "owner"
    if filed is not None:
        yield "last_anc_per_mm3"


def _merged(before: TreatmentCourse, row: TreatmentCourse) -> TreatmentCourse:
    """An empty cell says nothing: it takes back no stop, no interruption and no attestation that is on file."""
    ben = row.ben or before.ben
    return dataclasses.replace(
        before,
        start=row.start or before.start,
        start_confirmed_by=row.start_confirmed_by or before.start_confirmed_by,
        interruptions=row.interruptions or before.interruptions,
        stop=row.stop or before.stop,
        ben=ben,
        ben_second_by=before.ben_second_by if ben == before.ben else "",
        prior_neutropenia=before.prior_neutropenia
        if row.prior_neutropenia is PriorNeutropenia.UNKNOWN
        else row.prior_neutropenia,
        prior_attested=row.prior_attested or before.prior_attested,
        birth_date=row.birth_date or before.birth_date,
        protocol=row.protocol or before.protocol,
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
