"""Worked cases: a JSON array of patients with one observation each, and the verdict line that answers one.

An empty ``history`` means that no neutropenia is known (clinical.md B-26). Counts are in cells per mm3, dates ISO 8601.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from rules.assess import assess
from rules.faults import course_faults
from rules.model import (
    AbsoluteNeutrophilCount,
    Assessment,
    Attestation,
    Comparator,
    CompleteStop,
    Interruption,
    LabResult,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
    Unassessable,
)
from rules.protocol import MonitoringProtocol

__all__ = ["Case", "CaseError", "case_verdict", "read_case", "read_cases", "verdict_line"]

# What a case says beside the patient: read past, never judged.
_NOTES = frozenset(
    {
        "description",
        "expected",
        "expected_if_upper_bound_exclusive",
        "rule_citation",
        "interpretation",
        "note",
        "elapsed_treatment_days_calendar",
        "treatment_day",
        "source",
    }
)
_FIELDS = frozenset(
    {
        "id",
        "protocol",
        "ben_confirmed",
        "treatment_start",
        "interruptions",
        "history",
        "observation",
        "treatment_stop",
        "stop_reason",
        "clinical_flags",
    }
)
_COUNT_FIELDS = frozenset({"date", "anc_per_mm3", "wbc_per_mm3", "comparator"})
_GAP_FIELDS = frozenset({"last_dose", "restart", "gap_days", "reason"})
_COMPARATORS: dict[str, Comparator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_SIGNED = re.compile(r"\s*[<>]=?")
# Flags are free words of a clinician; what begins or contains these is understood, anything else is an error.
_FLAGS = (
    ("infection", ("infect", "fever", "throat", "flu")),
    ("valproate", ("valpro",)),
    ("elderly", ("elder", "age", "geriat")),
)
_BY = "case file"
_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)


class CaseError(ValueError):
    """A case that cannot be read: which one, which field, why."""

    def __init__(self, case: str, field: str, reason: str) -> None:
        super().__init__(f"case {case}: {field}: {reason}")
        self.case = case
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    id: str
    protocol: str
    course: TreatmentCourse
    history: tuple[LabResult, ...]
    result: LabResult | None
    as_of: date


def read_cases(text: str) -> list[Case | CaseError]:
    """All cases of a JSON array, in order; one that cannot be read is its own error. Raises CaseError for no array."""
    try:
        rows = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CaseError("-", "file", f"not JSON: {error}") from None
    if not isinstance(rows, list):
        raise CaseError("-", "file", "must be a JSON array of cases")
    found: list[Case | CaseError] = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(read_case(row, f"#{number}"))
        except CaseError as error:
            found.append(error)
    return found


def read_case(row: object, name: str = "-") -> Case:
    """One case. Raises CaseError, naming case and field."""
    if not isinstance(row, dict):
        raise CaseError(name, "case", "must be an object")
    case = _Row(row, str(row.get("id", name)))
    case.only(_FIELDS | _NOTES)
    observation = case.child(row.get("observation"), "observation", _COUNT_FIELDS)
    as_of = observation.day("date")
    start = case.day_or_none("treatment_start")
    flags = _flags(case)
    course = TreatmentCourse(
        start=start,
        start_confirmed_by=_BY,
        interruptions=tuple(
            _interruption(case, gap, f"interruptions[{n}]") for n, gap in enumerate(case.rows("interruptions"), start=1)
        ),
        stop=_stop(case),
        ben=Attestation(_BY, date.min) if case.flag("ben_confirmed") else None,
        prior_neutropenia=PriorNeutropenia.NONE,
        prior_attested=Attestation(_BY, as_of),
        birth_date=date(as_of.year - 80, 1, 1) if "elderly" in flags else None,
        valproate="valproate" in flags,
        infection_signs_on=as_of if "infection" in flags else None,
    )
    for field, reason in course_faults(course, as_of):
        raise case.error(field, reason)
    history = [
        _result(case.child(item, f"history[{n}]", _COUNT_FIELDS))
        for n, item in enumerate(case.rows("history"), start=1)
    ]
    return Case(
        id=case.name,
        protocol=case.text("protocol"),
        course=course,
        history=tuple(item for item in history if item is not None),
        result=_result(observation),
        as_of=as_of,
    )


def case_verdict(protocol: MonitoringProtocol, case: Case) -> dict[str, Any]:
    """Judge the case and give its line."""
    return verdict_line(case.id, assess(protocol, case.course, case.history, case.result, case.as_of))


def verdict_line(case_id: str, found: Assessment | Unassessable) -> dict[str, Any]:
    """The JSON object of ``neutroflag assess``; one that could not be judged has ``error`` and ``code``."""
    if isinstance(found, Unassessable):
        return {"id": case_id, "error": found.text, "code": found.code}
    return {
        "id": case_id,
        "protocol": found.protocol,
        "category": found.category,
        "action": found.action,
        "next_due": _iso(found.next_due),
        "recommended_recheck_by": _iso(found.recommended_recheck_by),
        "weekly_until": _iso(found.weekly_until),
        "alert": found.alert.value,
        "rule": found.rule,
        "citations": [{"source": c.source, "locator": c.locator, "quote": c.quote} for c in found.citations],
        "readings": list(found.readings),
        "no_reexposure": found.no_reexposure,
        "retitrate": found.retitrate,
        "remarks": list(found.remarks),
    }


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day is not None else None


def _no_constant(name: str) -> Decimal:
    raise ValueError(f"{name} is not a number")


class _Row:
    """One JSON object of a case, with the words for what is wrong in it."""

    def __init__(self, table: Mapping[str, Any], name: str, path: str = "") -> None:
        self.table = table
        self.name = name
        self.path = path

    def error(self, field: str, reason: str) -> CaseError:
        return CaseError(self.name, f"{self.path}{field}", reason)

    def only(self, known: frozenset[str]) -> None:
        for field in self.table:
            if field not in known:
                raise self.error(str(field), "unknown field")

    def child(self, value: object, field: str, known: frozenset[str]) -> _Row:
        if not isinstance(value, dict):
            raise self.error(field, "must be an object")
        row = _Row(value, self.name, f"{self.path}{field}.")
        row.only(known)
        return row

    def rows(self, field: str) -> list[Any]:
        value = self.table.get(field) or []
        if not isinstance(value, list):
            raise self.error(field, "must be an array")
        return value

    def text(self, field: str) -> str:
        value = self.table.get(field)
        if not isinstance(value, str) or not value:
            raise self.error(field, "must be a text")
        return value

    def flag(self, field: str) -> bool:
        value = self.table.get(field, False)
        if not isinstance(value, bool):
            raise self.error(field, "must be true or false")
        return value

    def day(self, field: str) -> date:
        return self.moment(field).date()

    def day_or_none(self, field: str) -> date | None:
        return None if self.table.get(field) is None else self.day(field)

    def moment(self, field: str) -> datetime:
        """A date (midnight) or a naive date and time."""
        value = self.text(field)
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise self.error(field, f"not a date: {value!r}") from None
        return found.replace(tzinfo=None)

    def signed(self, field: str) -> tuple[Comparator | None, Decimal | None]:
        """A count with or without its sign: ``1250``, ``"1250"``, ``"<500"``; the sign may stand in ``comparator``."""
        sign = self.table.get("comparator")
        if sign is not None and sign not in _COMPARATORS:
            raise self.error("comparator", f"none of < <= > >=: {sign!r}")
        value = self.table.get(field)
        if not isinstance(value, str) or (match := _SIGNED.match(value)) is None:
            return sign, self.number(field)
        if sign is not None:
            raise self.error("comparator", f"beside the sign of {value!r}")
        return _COMPARATORS[match[0].strip()], self._number(field, value[match.end() :])

    def number(self, field: str) -> Decimal | None:
        return self._number(field, self.table.get(field))

    def _number(self, field: str, value: object) -> Decimal | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            raise self.error(field, f"not a number: {value!r}")
        try:
            found = Decimal(value)
        except InvalidOperation:
            raise self.error(field, f"not a number: {value!r}") from None
        # An exponent beyond any count would cost memory to print.
        if not found.is_finite() or found.adjusted() > 9 or (found and found.adjusted() < -9):
            raise self.error(field, f"not a cell count: {value!r}")
        return found


def _flags(case: _Row) -> frozenset[str]:
    found: set[str] = set()
    for flag in case.rows("clinical_flags"):
        names = [name for name, words in _FLAGS if any(word in str(flag).casefold() for word in words)]
        if not names:
            raise case.error("clinical_flags", f"unknown flag {flag!r}")
        found.update(names)
    return frozenset(found)


def _interruption(case: _Row, value: object, place: str) -> Interruption:
    row = case.child(value, place, _GAP_FIELDS)
    last_dose = row.moment("last_dose")
    restart = None if row.table.get("restart") is None else row.moment("restart")
    said = row.number("gap_days")
    # Part days may be rounded either way; more is a contradiction.
    if said is not None and restart is not None and abs(said - _days(restart - last_dose)) >= 1:
        raise row.error("gap_days", f"{said} is not the time from the last dose to the restart")
    return Interruption(last_dose, restart)


def _days(length: timedelta) -> Decimal:
    return Decimal(length // _SECOND) / (_DAY // _SECOND)


def _stop(case: _Row) -> CompleteStop | None:
    on = case.day_or_none("treatment_stop")
    reason = case.table.get("stop_reason")
    if on is None:
        if reason is not None:
            raise case.error("stop_reason", "without treatment_stop")
        return None
    try:
        return CompleteStop(on, StopReason(str(reason)))
    except ValueError:
        raise case.error("stop_reason", f"none of {', '.join(r.value for r in StopReason)}: {reason!r}") from None


def _result(row: _Row) -> LabResult | None:
    sign, value = row.signed("anc_per_mm3")
    on = row.moment("date")
    if value is None:
        return None
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=value, comparator=sign),
        collected_at=datetime.combine(on.date(), time()),
        time_known=False,
        wbc_per_mm3=row.number("wbc_per_mm3"),
    )
