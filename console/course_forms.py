"""The forms that change a course of treatment: which fields each has, and what a filled one says.

Pure. ``read_change`` gives the change that a form means or raises NotTaken with every field that cannot be read; what is
clinically impossible (a date to come, a restart before its stop) is the rules' to refuse, under the same names.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from rules.changes import (
    AttestHistory,
    ConfirmBen,
    CourseChange,
    Deceased,
    InfectionSigns,
    Interrupted,
    Lost,
    Overridden,
    Restarted,
    Resumed,
    Started,
    Stopped,
    Transferred,
    same_person,
)
from rules.model import Attestation, PriorNeutropenia, StopReason

__all__ = [
    "FORMS",
    "CourseForm",
    "Field",
    "FormKind",
    "NotTaken",
    "Values",
    "by_of",
    "field_of",
    "read_change",
    "read_text",
]

_LONGEST = 2000
# What the rules and the engine call a field, and what the form calls it.
_SAME = {"by": "who", "first": "who"}

Values = Mapping[str, str]
"""A form as it came: field -> text."""


class NotTaken(Exception):
    """Why a form cannot be taken: form field -> code of the words."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{field}: {code}" for field, code in errors.items()))
        self.errors = dict(errors)


class FormKind(enum.StrEnum):
    """What the input looks like."""

    DATE = "date"
    MOMENT = "datetime-local"
    TEXT = "text"
    LONG = "long"
    NUMBER = "number"
    CHOICE = "choice"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Field:
    """``options``: the values of a choice. ``hint``: there are words that help."""

    name: str
    kind: FormKind
    required: bool = True
    options: tuple[str, ...] = ()
    hint: bool = False


@dataclass(frozen=True, slots=True)
class CourseForm:
    """``group``: treatment, findings or whereabouts. ``grave``: its button warns. ``second``: a second person confirms."""

    kind: str
    group: str
    fields: tuple[Field, ...]
    grave: bool = False
    second: bool = False


_OVERRIDES = ("shorter-interval", "borderline-not-history", "lift-a15")
_ON = Field("on", FormKind.DATE)

_ALL = (
    CourseForm(
        "start",
        "treatment",
        (
            Field("on", FormKind.DATE, hint=True),
            Field("first_dose_at", FormKind.MOMENT, required=False, hint=True),
        ),
    ),
    CourseForm("interruption", "treatment", (Field("last_dose", FormKind.MOMENT, hint=True),)),
    CourseForm("restart", "treatment", (Field("at", FormKind.MOMENT, hint=True),)),
    CourseForm(
        "stop",
        "treatment",
        (_ON, Field("reason", FormKind.CHOICE, options=tuple(StopReason), hint=True)),
        grave=True,
    ),
    CourseForm("infection", "findings", (Field("on", FormKind.DATE, hint=True),)),
    CourseForm("ben", "findings", (Field("on", FormKind.DATE, hint=True),), grave=True, second=True),
    CourseForm(
        "history", "findings", (Field("history", FormKind.CHOICE, options=tuple(PriorNeutropenia), hint=True), _ON)
    ),
    CourseForm(
        "override",
        "findings",
        (
            Field("kind", FormKind.CHOICE, options=_OVERRIDES, hint=True),
            Field("days", FormKind.NUMBER, required=False, hint=True),
            Field("value_on", FormKind.DATE, required=False, hint=True),
            Field("reason", FormKind.LONG),
            Field("expires", FormKind.DATE, hint=True),
        ),
        grave=True,
    ),
    CourseForm(
        "transfer",
        "whereabouts",
        (_ON, Field("to", FormKind.TEXT, hint=True), Field("accepted", FormKind.CHECK, required=False, hint=True)),
    ),
    CourseForm("lost", "whereabouts", (_ON,)),
    CourseForm("resume", "whereabouts", (Field("on", FormKind.DATE, hint=True),)),
    CourseForm("death", "whereabouts", (Field("on", FormKind.DATE, hint=True),), grave=True),
)

FORMS: dict[str, CourseForm] = {form.kind: form for form in _ALL}


class _Reading:
    """Takes fields one by one and keeps what is wrong with each."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.errors: dict[str, str] = {}

    def text(self, name: str, *, required: bool = True) -> str:
        value = self.values.get(name, "").strip()
        if required and not value:
            self.errors[name] = "missing"
        elif len(value) > _LONGEST:
            self.errors[name] = "too-long"
        return value

    def day(self, name: str, *, required: bool = True) -> date | None:
        value = self.text(name, required=required)
        try:
            return date.fromisoformat(value) if value else None
        except ValueError:
            self.errors[name] = "bad-date"
            return None

    def moment(self, name: str, *, required: bool = True) -> datetime | None:
        """A wall-clock time of the site, without offset; a date alone is midnight."""
        value = self.text(name, required=required)
        try:
            found = datetime.fromisoformat(value) if value else None
        except ValueError:
            found = None
        if value and (found is None or found.tzinfo is not None):
            self.errors[name] = "bad-time"
            return None
        return found

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        value = self.text(name)
        if value and value not in options:
            self.errors[name] = "bad-choice"
        return value

    def number(self, name: str) -> int | None:
        value = self.text(name, required=False)
        if value and not (value.isascii() and value.isdigit() and len(value) <= 4):
            self.errors[name] = "bad-number"
            return None
        return int(value) if value else None


def field_of(name: str) -> str:
    """The form's field for one that a refusal names."""
    return _SAME.get(name, name)


def by_of(values: Values, account: str) -> str:
    """Who acts: the account, or without accounts the name in the form. Raises NotTaken."""
    return account or read_text(values, "who")


def read_text(values: Values, name: str) -> str:
    """One field that must not be empty. Raises NotTaken."""
    reading = _Reading(values)
    value = reading.text(name)
    if reading.errors:
        raise NotTaken(reading.errors)
    return value


def read_change(kind: str, values: Values, *, account: str, today: date) -> CourseChange:
    """What a filled form says. ``account``: the visitor's name, "" where there are no accounts. Raises NotTaken, and
    KeyError for a kind without a form."""
    form = FORMS[kind]
    reading = _Reading(values)
    by = account or reading.text("who")
    change = _CHANGES[kind](reading, by, today)
    if form.second:
        second = reading.text("second")
        if second and same_person(second, by):
            reading.errors["second"] = "same-person"
    if reading.errors or change is None:
        raise NotTaken(reading.errors)
    return change


# Each gives None where a field is missing; the reading then knows which.


def _start(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on, dose = reading.day("on"), reading.moment("first_dose_at", required=False)
    return Started(on, dose) if on else None


def _interruption(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    last_dose = reading.moment("last_dose")
    return Interrupted(last_dose) if last_dose else None


def _restart(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    at = reading.moment("at")
    return Restarted(at) if at else None


def _stop(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on, reason = reading.day("on"), reading.choice("reason", tuple(StopReason))
    return Stopped(on, StopReason(reason)) if on and not reading.errors else None


def _infection(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    if reading.values.get("over"):
        return InfectionSigns(None)
    on = reading.day("on")
    return InfectionSigns(on) if on else None


def _ben(reading: _Reading, by: str, _today: date) -> CourseChange | None:
    on, second = reading.day("on"), reading.text("second")
    return ConfirmBen(Attestation(by, on), second) if on and second else None


def _history(reading: _Reading, by: str, _today: date) -> CourseChange | None:
    on, history = reading.day("on"), reading.choice("history", tuple(PriorNeutropenia))
    return AttestHistory(PriorNeutropenia(history), Attestation(by, on)) if on and not reading.errors else None


def _override(reading: _Reading, by: str, today: date) -> CourseChange | None:
    kind = reading.choice("kind", _OVERRIDES)
    reason, expires = reading.text("reason"), reading.day("expires")
    days, value_on = reading.number("days"), reading.day("value_on", required=False)
    if kind == "shorter-interval" and days is None:
        reading.errors.setdefault("days", "missing")
    if kind == "borderline-not-history" and value_on is None:
        reading.errors.setdefault("value_on", "missing")
    if expires is None or reading.errors:
        return None
    return Overridden(
        kind,
        reason,
        expires,
        Attestation(by, today),
        days=days if kind == "shorter-interval" else None,
        value_on=value_on if kind == "borderline-not-history" else None,
    )


def _transfer(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on, to = reading.day("on"), reading.text("to")
    return Transferred(on, to, bool(reading.values.get("accepted"))) if on and to else None


def _lost(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on = reading.day("on")
    return Lost(on) if on else None


def _death(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on = reading.day("on")
    return Deceased(on) if on else None


def _resume(reading: _Reading, _by: str, _today: date) -> CourseChange | None:
    on = reading.day("on")
    return Resumed(on) if on else None


_CHANGES: dict[str, Callable[[_Reading, str, date], CourseChange | None]] = {
    "start": _start,
    "interruption": _interruption,
    "restart": _restart,
    "stop": _stop,
    "infection": _infection,
    "ben": _ben,
    "history": _history,
    "override": _override,
    "transfer": _transfer,
    "lost": _lost,
    "death": _death,
    "resume": _resume,
}
