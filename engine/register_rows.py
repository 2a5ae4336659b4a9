"""A register's CSV file as rows: every cell understood, or a complaint that names its line and column.

Columns are those of the contract. UTF-8 (with or without a mark), UTF-16 with a mark, or cp1252 as a French spreadsheet
writes it; commas, semicolons or tabs. A complaint never repeats what stands in the cell: it may be a patient's.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal

from engine.identity import usable
from rules import ProtocolError, find_selectable
from rules.model import (
    Attestation,
    CompleteStop,
    Interruption,
    PatientIdentifier,
    Person,
    PriorNeutropenia,
    StopReason,
    TreatmentCourse,
)

__all__ = ["COLUMNS", "Complaint", "Row", "authority", "inconsistencies", "parse"]

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
_EARLIEST = date(1900, 1, 1)
# A start further ahead than this is a slip of the pen, not a plan.
_PLANNED_DAYS = 366
_SEXES = {
    "": "", "f": "F", "female": "F", "femme": "F", "féminin": "F", "m": "M", "male": "M", "homme": "M", "h": "M",
    "masculin": "M", "o": "O", "other": "O", "autre": "O", "u": "U", "unknown": "U", "inconnu": "U", "a": "A", "n": "N",
}  # fmt: skip


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
    """``course.protocol`` is "" where the cell is empty."""

    line: int
    identifier: PatientIdentifier
    person: Person
    course: TreatmentCourse
    owner: str
    last_anc: tuple[date, Decimal] | None
    notes: tuple[Complaint, ...] = ()
    """What is imported otherwise than it was written, or should be looked at; nothing is refused for it."""


@dataclass(slots=True)
class _Cells:
    """One line's cells, and what is wrong with them so far."""

    line: int
    given: dict[str, str]
    today: date
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[Complaint] = field(default_factory=list)

    def get(self, column: str) -> str:
        return self.given.get(column, "")

    def wrong(self, column: str, text: str) -> None:
        self.complaints.append(Complaint(self.line, column, text))

    def note(self, column: str, text: str) -> None:
        self.notes.append(Complaint(self.line, column, text))

    def day(self, column: str, *, past: bool = False) -> date | None:
        """The day in a cell; None where it is empty or, with a complaint, no day."""
        return self.as_day(column, self.get(column), past=past)

    def as_day(self, column: str, text: str, *, past: bool = False) -> date | None:
        if not text:
            return None
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            slashed = re.fullmatch(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}", text)
            why = ", year first: which of 03/04 is the month cannot be known" if slashed else ""
            self.wrong(column, f"write the date as 2026-11-22{why}")
            return None
        try:
            found = date.fromisoformat(text)
        except ValueError:
            self.wrong(column, "no such day in the calendar")
            return None
        if found < _EARLIEST:
            self.wrong(column, "lies before 1900")
        elif past and found > self.today:
            self.wrong(column, "lies in the future")
        else:
            return found
        return None


def parse(raw: bytes, today: date) -> tuple[list[Row], list[Complaint]]:
    """All rows that can be understood, and all complaints. A file with a complaint is not to be imported."""
    text, complaint = _text(raw)
    if complaint is not None:
        return [], [complaint]
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().lower().startswith("sep="):  # a spreadsheet's own line about its separator
        text, skipped = rest, 1
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    complaints: list[Complaint] = []
    seen: dict[tuple[str, str], int] = {}
    header: list[str] | None = None
    for line, values in _lines(reader, skipped, complaints):
        if header is None:
            header = [name.strip().lower() for name in values]
            complaints += _about_header(header, line)
            if complaints:
                return [], complaints
            continue
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            complaints.append(Complaint(line, "row", f"{len(values)} fields where the header has {len(header)}"))
            continue
        given = {name: value.strip() for name, value in zip(header, values, strict=True)}
        row = _row(_Cells(line, given, today), seen, complaints)
        if row is not None:
            rows.append(row)
    if header is None and not complaints:
        complaints.append(Complaint(1, "patient_id", "the file is empty: the first line must name the columns"))
    return rows, complaints


def _text(raw: bytes) -> tuple[str, Complaint | None]:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return raw.decode("utf-16"), None
        except UnicodeDecodeError:
            return "", Complaint(1, "file", "begins as UTF-16 and is not; save it as CSV UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        undefined = any(byte in raw for byte in b"\x81\x8d\x8f\x90\x9d")
        text = raw.decode("latin-1" if undefined else "cp1252")
    if "\0" in text or text.startswith(("PK\x03\x04", "ÐÏ\x11à")):
        return "", Complaint(1, "file", "this is no text; save the sheet as CSV UTF-8")
    # A file from an old Macintosh ends its lines with a carriage return alone.
    return (text if "\n" in text else text.replace("\r", "\n")), None


def _lines(reader: Iterator[list[str]], skipped: int, complaints: list[Complaint]) -> Iterator[tuple[int, list[str]]]:
    """(line on which the record begins, its cells). What is no CSV any more ends the file with a complaint."""
    while True:
        line = getattr(reader, "line_num", 0) + skipped + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end" in str(error)
            said = "a quotation mark that is never closed" if unclosed else f"not readable as CSV: {error}"
            complaints.append(Complaint(line, "row", f"{said}; nothing after it was read"))
            return


def _about_header(header: list[str], line: int) -> Iterator[Complaint]:
    missing = [name for name in COLUMNS if name not in header]
    for name in _REQUIRED:
        if name not in header:
            yield Complaint(line, name, "this column is missing")
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            nearest = difflib.get_close_matches(name, missing, n=1, cutoff=0.6)
            meant = f"; did you mean {nearest[0]}?" if nearest else ""
            # A cell of a file without header may be a patient's: it is named only where it looks like a column.
            shown = name if nearest or re.fullmatch(r"[a-z_]{1,40}", name) else f"column {header.index(name) + 1}"
            yield Complaint(line, shown if name else f"column {header.index(name) + 1}", f"unknown column{meant}")
        elif header.count(name) > 1:
            yield Complaint(line, name, "the column stands there twice")


def _row(cells: _Cells, seen: dict[tuple[str, str], int], complaints: list[Complaint]) -> Row | None:
    value = cells.get("patient_id")
    if not value:
        cells.wrong("patient_id", "missing")
    course = _course(cells)
    person = Person(family=cells.get("family"), given=cells.get("given"), birth_date=course.birth_date, sex=_sex(cells))
    last_anc = _last_anc(cells)
    for column, text in inconsistencies(course, today=cells.today):
        cells.wrong(column, text)
    named = authority(cells.get("authority"))
    if value:
        if (value, named) in seen:
            cells.wrong("patient_id", f"the same patient as on line {seen[value, named]}")
        seen.setdefault((value, named), cells.line)
    identifier = PatientIdentifier(value, named, cells.get("id_type") or "PI")
    if value and not usable([identifier]):
        cells.wrong("id_type", "names an account, a visit or an insured person, who need not be the patient")
    complaints += cells.complaints
    if cells.complaints:
        return None
    return Row(
        line=cells.line,
        identifier=identifier,
        person=person,
        course=course,
        owner=cells.get("owner"),
        last_anc=last_anc,
        notes=tuple(cells.notes),
    )


def _course(cells: _Cells) -> TreatmentCourse:
    attested = _attestation(cells, "history_confirmed_by", "history_confirmed_on")
    history = _history(cells)
    if history is PriorNeutropenia.NONE and attested is None:
        # Nobody answers for it: the longer intervals that it would allow are not given (clinical.md B-26).
        history = PriorNeutropenia.UNKNOWN
        cells.note("neutropenia_history", "'none' without who confirmed it and when counts as unknown")
    start = cells.day("treatment_start")
    if start is not None and start > cells.today:
        if (start - cells.today).days > _PLANNED_DAYS:
            cells.wrong("treatment_start", "lies more than a year in the future")
        else:
            cells.note("treatment_start", "lies in the future: taken as a planned start")
    return TreatmentCourse(
        start=start,
        start_confirmed_by=cells.get("start_confirmed_by"),
        interruptions=_interruptions(cells),
        stop=_stop(cells),
        ben=_attestation(cells, "ben_confirmed_by", "ben_confirmed_on"),
        prior_neutropenia=history,
        prior_attested=attested,
        birth_date=cells.day("birth_date", past=True),
        protocol=_protocol(cells),
    )


def _sex(cells: _Cells) -> str:
    found = _SEXES.get(cells.get("sex").lower())
    if found is None:
        cells.wrong("sex", "one of F, M, O (other), U (unknown)")
    return found or ""


_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+\Z")


def authority(given: str) -> str:
    """``1.2.3``, ``urn:oid:1.2.3`` and ``CHX&1.2.3&ISO`` are one authority; a bare name stays as it is."""
    parts = given.strip().split("&")
    if len(parts) >= 2 and _OID.match(parts[1]):
        return f"urn:oid:{parts[1]}"
    name = parts[0].strip()
    return f"urn:oid:{name}" if _OID.match(name) else name


def _attestation(cells: _Cells, by: str, on: str) -> Attestation | None:
    name, day = cells.get(by), cells.day(on, past=True)
    if bool(name) != bool(cells.get(on)):
        cells.wrong(on if name else by, "who confirmed it and when belong together")
    return Attestation(name, day) if name and day is not None else None


def _history(cells: _Cells) -> PriorNeutropenia:
    text = cells.get("neutropenia_history").lower()
    if not text:
        return PriorNeutropenia.UNKNOWN
    try:
        return PriorNeutropenia(text)
    except ValueError:
        cells.wrong("neutropenia_history", f"one of {', '.join(item.value for item in PriorNeutropenia)}")
        return PriorNeutropenia.UNKNOWN


def _protocol(cells: _Cells) -> str:
    text = cells.get("protocol")
    if text:
        try:
            find_selectable(text)
        except ProtocolError as error:
            why = "no such protocol" if error.reason.startswith("unknown") else error.reason
            cells.wrong("protocol", f"{why}; `neutroflag rules list` names them")
    return text


def _stop(cells: _Cells) -> CompleteStop | None:
    day, reason = cells.day("stopped_on", past=True), cells.get("stop_reason")
    if not reason and not cells.get("stopped_on"):
        return None
    if not cells.get("stopped_on"):
        cells.wrong("stopped_on", "a stop reason without the day of the stop")
    if reason not in set(StopReason):
        cells.wrong("stop_reason", f"one of {', '.join(item.value for item in StopReason)}")
        return None
    return CompleteStop(day, StopReason(reason)) if day is not None else None


def _interruptions(cells: _Cells) -> tuple[Interruption, ...]:
    found: list[Interruption] = []
    for pair in filter(None, (part.strip() for part in cells.get("interruptions").split(";"))):
        last, _, restart = (part.strip() for part in pair.partition("/"))
        first, second = cells.as_day("interruptions", last), cells.as_day("interruptions", restart)
        if not last:
            cells.wrong("interruptions", "write last dose/restart, pairs separated by ;")
        if first is None:
            return ()
        found.append(
            Interruption(
                datetime.combine(first, time()), datetime.combine(second, time()) if second is not None else None
            )
        )
    return tuple(found)


def _last_anc(cells: _Cells) -> tuple[date, Decimal] | None:
    day, text = cells.day("last_anc_on", past=True), cells.get("last_anc_per_mm3")
    if bool(text) != bool(cells.get("last_anc_on")):
        cells.wrong("last_anc_per_mm3" if not text else "last_anc_on", "count and day belong together")
        return None
    if not text:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text):
        cells.wrong("last_anc_per_mm3", "cells per mm3, such as 2400")
        return None
    count = Decimal(text)
    if count > 100_000:
        cells.wrong("last_anc_per_mm3", "beyond what blood can hold")
    elif "." in text and count < 100:
        # 2.4 is a count in G/L far more often than two cells and a half; which one is not ours to guess.
        cells.wrong("last_anc_per_mm3", "looks like G/L; write cells per mm3, such as 2400")
    elif day is not None:
        return day, count
    return None


def inconsistencies(course: TreatmentCourse, *, today: date) -> Iterator[tuple[str, str]]:
    """(column, what is wrong) of a course whose parts contradict each other."""
    start, stop = course.start, course.stop
    if start is not None and course.birth_date is not None and start < course.birth_date:
        yield "treatment_start", "before the date of birth"
    if stop is not None and start is not None and stop.on < start:
        yield "stopped_on", "before the first dose"
    before: date | None = None
    for pause in course.interruptions:
        if pause.last_dose.date() > today or (pause.restart is not None and pause.restart.date() > today):
            yield "interruptions", "lies in the future"
        if pause.restart is not None and pause.restart < pause.last_dose:
            yield "interruptions", "a restart before its last dose"
        if before is not None and pause.last_dose.date() < before:
            yield "interruptions", "interruptions overlap or are not in order"
        if start is not None and pause.last_dose.date() < start:
            yield "interruptions", "before the first dose"
        if stop is not None and pause.last_dose.date() > stop.on:
            yield "interruptions", "after the complete stop"
        before = pause.restart.date() if pause.restart is not None else date.max
