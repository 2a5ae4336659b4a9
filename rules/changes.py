"""What a named person may change in a patient's course of treatment, and what is refused.

Pure: ``change(course, what, today=...)`` gives the new course or raises ``CourseError`` naming the field. Dates are the
site's local dates; nothing may lie in the future. A fact that is wrong clinically (a restart after a stop for the count) is
recorded, because only a recorded one can alarm; what contradicts the record or the calendar is refused.

Refusals, by change. Every change: ``("", "deceased")`` (only ``Resumed`` is taken then), and ``future`` on each of its days.

=================  ================  ==================================================================================
change             field             codes
=================  ================  ==================================================================================
Started            on                future, already-stopped (record a restart), after-interruption
Started            first_dose_at     other-day
Interrupted        last_dose         future, not-started, before-start, already-interrupted, already-stopped, overlap
Restarted          at                future, no-open-interruption, restart-before-stop, overlap
Stopped            on                future, not-started, before-start, already-stopped, before-interruption, before-restart
InfectionSigns     on                future, no-signs (nothing to end)
ConfirmBen         first             missing, too-long
ConfirmBen         second            missing, too-long, same-person
ConfirmBen         on                future
ConfirmBen         (whole)           already-confirmed
AttestHistory      by                missing, too-long
AttestHistory      on                future
AttestHistory      history           would-lower
Overridden         kind              unknown, nothing-to-lift, never-r5
Overridden         by                missing, too-long
Overridden         on                future
Overridden         reason            missing, too-long
Overridden         expires           missing, past
Overridden         days              missing, below-one, longer-than-protocol
Overridden         value_on          missing, future, not-borderline
Transferred        on                future, before-start
Transferred        to                missing, too-long
Transferred        (whole)           already-transferred
Lost               on                future, before-start
Lost               (whole)           already-lost
Deceased           on                future, before-start
Resumed            on                future, before-leaving
Resumed            (whole)           not-away
=================  ================  ==================================================================================
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import assert_never

from rules.model import (
    Attestation,
    CompleteStop,
    CourseState,
    Interruption,
    Override,
    OverrideKind,
    PriorNeutropenia,
    StopReason,
    Transfer,
    TreatmentCourse,
)

__all__ = [
    "AttestHistory",
    "ConfirmBen",
    "CourseChange",
    "CourseError",
    "Deceased",
    "InfectionSigns",
    "Interrupted",
    "Limits",
    "Lost",
    "Overridden",
    "Restarted",
    "Resumed",
    "Started",
    "Stopped",
    "Transferred",
    "change",
    "same_person",
]

_LONGEST_NAME = 200
_LONGEST_REASON = 2000


class CourseError(Exception):
    """``field`` is the change's field, ``code`` names the words: ``future``, ``restart-before-stop`` ..."""

    def __init__(self, field: str, code: str) -> None:
        super().__init__(f"{field}: {code}")
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class Started:
    """The first dose, or a correction of its day."""

    on: date
    first_dose_at: datetime | None = None
    """Naive local time of the first administration, so that a count of the same day can be told to be after it (B-18)."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    last_dose: datetime


@dataclass(frozen=True, slots=True)
class Restarted:
    """After an interruption, or after a complete stop; after one for the count it is recorded and alarms (R5)."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Stopped:
    on: date
    reason: StopReason


@dataclass(frozen=True, slots=True)
class InfectionSigns:
    on: date | None
    """None: the signs are over."""


@dataclass(frozen=True, slots=True)
class ConfirmBen:
    """Two persons, because it lowers the thresholds. ``first`` and ``second`` must differ."""

    first: Attestation
    second: str


@dataclass(frozen=True, slots=True)
class AttestHistory:
    history: PriorNeutropenia
    attested: Attestation


@dataclass(frozen=True, slots=True)
class Overridden:
    """clinical.md B-27: shorter intervals, one borderline value as no history (A-1), lifting A-15; never longer, never R5.

    A later one of the same kind (and, for a borderline value, the same day) takes the place of the earlier.
    """

    kind: str
    """``shorter-interval``, ``borderline-not-history`` or ``lift-a15``."""
    reason: str
    expires: date | None
    """The first day without it."""
    by: Attestation
    days: int | None = None
    """For ``shorter-interval``: the interval in days."""
    value_on: date | None = None
    """For ``borderline-not-history``: the day of the value."""


@dataclass(frozen=True, slots=True)
class Transferred:
    on: date
    to: str
    accepted: bool
    """Until the receiver has accepted, every alert stays here (B-30)."""


@dataclass(frozen=True, slots=True)
class Lost:
    on: date


@dataclass(frozen=True, slots=True)
class Deceased:
    on: date


@dataclass(frozen=True, slots=True)
class Resumed:
    """Monitored here again: back from transfer or loss, or a death recorded by mistake."""

    on: date


CourseChange = (
    Started
    | Interrupted
    | Restarted
    | Stopped
    | InfectionSigns
    | ConfirmBen
    | AttestHistory
    | Overridden
    | Transferred
    | Lost
    | Deceased
    | Resumed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the protocol and the counts allow an override to say; None: not known here, and not checked."""

    longest_days: int | None = None
    """The interval, in days, that the protocol asks for at present."""
    borderline_on: frozenset[date] | None = None
    """Days with a count exactly at the upper end of the mild band."""
    below_stop_on_file: bool = False
    """A count below the stop threshold is on record: R5, whatever the reason of the stop says."""


def change(
    course: TreatmentCourse, what: CourseChange, *, today: date, limits: Limits | None = None
) -> TreatmentCourse:
    """The course with ``what`` in it. Raises CourseError."""
    if course.state is CourseState.DECEASED and not isinstance(what, Resumed):
        raise CourseError("", "deceased")
    match what:
        case Started():
            return _started(course, what, today)
        case Interrupted():
            return _interrupted(course, what, today)
        case Restarted():
            return _restarted(course, what, today, limits or Limits())
        case Stopped():
            return _stopped(course, what, today)
        case InfectionSigns():
            return _signs(course, what, today)
        case ConfirmBen():
            return _ben(course, what, today)
        case AttestHistory():
            return _history(course, what, today)
        case Overridden():
            return _overridden(course, what, today, limits or Limits())
        case Transferred():
            return _transferred(course, what, today)
        case Lost():
            if course.state is CourseState.LOST:
                raise CourseError("", "already-lost")
            _day(course, "on", what.on, today)
            return replace(course, state=CourseState.LOST, state_on=what.on)
        case Deceased():
            _day(course, "on", what.on, today)
            return replace(course, state=CourseState.DECEASED, state_on=what.on)
        case Resumed():
            return _resumed(course, what, today)
        case _:
            assert_never(what)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one, whatever the case, spaces, hyphens, dots and accents."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    bare = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", bare) if c.isalnum())


def stop_in_force(course: TreatmentCourse) -> CompleteStop | None:
    """The recorded stop of this treatment that no later restart has ended or broken."""
    stop = course.stop
    if stop is None or course.start is None or stop.on < course.start:
        return None
    after = (pause.restart is not None and pause.restart.date() > stop.on for pause in course.interruptions)
    return None if any(after) else stop


def _started(course: TreatmentCourse, what: Started, today: date) -> TreatmentCourse:
    _not_future("on", what.on, today)
    stop = course.stop
    if stop is not None and course.start is not None and stop.on >= course.start:
        raise CourseError("on", "already-stopped")
    if any(pause.last_dose.date() < what.on for pause in _of_this_treatment(course)):
        raise CourseError("on", "after-interruption")
    dose = what.first_dose_at
    if dose is not None and dose.date() != what.on:
        raise CourseError("first_dose_at", "other-day")
    at = dose.replace(tzinfo=None) if dose is not None else None
    return replace(course, start=what.on, first_dose_at=at)


def _of_this_treatment(course: TreatmentCourse) -> list[Interruption]:
    return [p for p in course.interruptions if course.start is not None and p.last_dose.date() >= course.start]


def _interrupted(course: TreatmentCourse, what: Interrupted, today: date) -> TreatmentCourse:
    last_dose = what.last_dose.replace(tzinfo=None)
    _under(course, "last_dose", last_dose.date(), today)
    if any(pause.restart is None for pause in _of_this_treatment(course)):
        raise CourseError("last_dose", "already-interrupted")
    if stop_in_force(course) is not None:
        raise CourseError("last_dose", "already-stopped")
    # An open one before a restart that is on record would contradict it.
    if any(pause.restart is not None and last_dose < pause.restart for pause in course.interruptions):
        raise CourseError("last_dose", "overlap")
    return replace(course, interruptions=_sorted(*course.interruptions, Interruption(last_dose)))


def _restarted(course: TreatmentCourse, what: Restarted, today: date, limits: Limits) -> TreatmentCourse:
    at = what.at.replace(tzinfo=None)
    _not_future("at", at.date(), today)
    stop = stop_in_force(course)
    paused = next((pause for pause in _of_this_treatment(course) if pause.restart is None), None)
    if paused is None:
        if stop is None:
            raise CourseError("at", "no-open-interruption")
        # Of a stop only the day is known; a restart earlier on that day shows that a dose was taken after it.
        ended = (pause.restart for pause in course.interruptions if pause.restart is not None)
        paused = Interruption(max((datetime.combine(stop.on, time()), *ended)))
    if at <= paused.last_dose or (stop is not None and at.date() <= stop.on):
        raise CourseError("at", "restart-before-stop")
    others = [pause for pause in course.interruptions if pause != paused]
    if any(paused.last_dose <= other.last_dose < at for other in others):
        raise CourseError("at", "overlap")
    against = limits.below_stop_on_file or (stop is not None and stop.reason.haematological)
    return replace(
        course,
        interruptions=_sorted(*others, Interruption(paused.last_dose, at)),
        reexposed_on=at.date() if against else course.reexposed_on,
    )


def _sorted(*pauses: Interruption) -> tuple[Interruption, ...]:
    return tuple(sorted(pauses, key=lambda pause: pause.last_dose))


_WEIGHT = {
    StopReason.OTHER: 0,
    StopReason.LEGACY_RED: 1,
    StopReason.ANC_BELOW_1000: 2,
    StopReason.ANC_BELOW_500: 3,
}


def _stopped(course: TreatmentCourse, what: Stopped, today: date) -> TreatmentCourse:
    _under(course, "on", what.on, today)
    if stop_in_force(course) is not None:
        raise CourseError("on", "already-stopped")
    for pause in _of_this_treatment(course):
        if pause.restart is None and what.on < pause.last_dose.date():
            raise CourseError("on", "before-interruption")
        if pause.restart is not None and what.on < pause.restart.date():
            raise CourseError("on", "before-restart")
    # A stop for the count is never forgotten for a later one of another kind (R5, A-15).
    earlier = [course.stop.reason] if course.stop is not None else []
    reason = max(what.reason, *earlier, key=_WEIGHT.__getitem__) if earlier else what.reason
    return replace(course, stop=CompleteStop(what.on, reason))


def _signs(course: TreatmentCourse, what: InfectionSigns, today: date) -> TreatmentCourse:
    if what.on is None:
        if course.infection_signs_on is None:
            raise CourseError("on", "no-signs")
        return replace(course, infection_signs_on=None)
    _not_future("on", what.on, today)
    return replace(course, infection_signs_on=what.on)


def _ben(course: TreatmentCourse, what: ConfirmBen, today: date) -> TreatmentCourse:
    first, second = _name("first", what.first.by), _name("second", what.second)
    if same_person(first, second):
        raise CourseError("second", "same-person")
    _not_future("on", what.first.on, today)
    if course.ben is not None:
        raise CourseError("", "already-confirmed")
    return replace(course, ben=Attestation(first, what.first.on), ben_second_by=second)


_SEVERITY = {
    PriorNeutropenia.UNKNOWN: 0,
    PriorNeutropenia.NONE: 1,
    PriorNeutropenia.MILD: 2,
    PriorNeutropenia.STOP_LEVEL: 3,
}


def _history(course: TreatmentCourse, what: AttestHistory, today: date) -> TreatmentCourse:
    by = _name("by", what.attested.by)
    _not_future("on", what.attested.on, today)
    # Not among what B-27 lets a person override: a known neutropenia stays known.
    if _SEVERITY[what.history] < _SEVERITY[course.prior_neutropenia]:
        raise CourseError("history", "would-lower")
    return replace(course, prior_neutropenia=what.history, prior_attested=Attestation(by, what.attested.on))


def _overridden(course: TreatmentCourse, what: Overridden, today: date, limits: Limits) -> TreatmentCourse:
    try:
        kind = OverrideKind(what.kind)
    except ValueError:
        raise CourseError("kind", "unknown") from None
    by = _name("by", what.by.by)
    _not_future("on", what.by.on, today)
    reason = _words("reason", what.reason, _LONGEST_REASON)
    if what.expires is None:
        raise CourseError("expires", "missing")
    if what.expires <= today:
        raise CourseError("expires", "past")
    days, value_on = None, None
    match kind:
        case OverrideKind.SHORTER_INTERVAL:
            days = _days(what.days, limits)
        case OverrideKind.BORDERLINE_NOT_HISTORY:
            value_on = _borderline(what.value_on, today, limits)
        case OverrideKind.LIFT_A15:
            _liftable(course, limits)
        case _:
            assert_never(kind)
    new = Override(kind=kind, by=by, on=what.by.on, reason=reason, expires=what.expires, days=days, value_on=value_on)
    kept = (old for old in course.overrides if (old.kind, old.value_on) != (kind, value_on))
    return replace(course, overrides=(*kept, new))


def _days(days: int | None, limits: Limits) -> int:
    if days is None:
        raise CourseError("days", "missing")
    if days < 1:
        raise CourseError("days", "below-one")
    if limits.longest_days is not None and days > limits.longest_days:
        raise CourseError("days", "longer-than-protocol")
    return days


def _borderline(value_on: date | None, today: date, limits: Limits) -> date:
    if value_on is None:
        raise CourseError("value_on", "missing")
    _not_future("value_on", value_on, today)
    if limits.borderline_on is not None and value_on not in limits.borderline_on:
        raise CourseError("value_on", "not-borderline")
    return value_on


def _liftable(course: TreatmentCourse, limits: Limits) -> None:
    """A-15 can be lifted, R5 never: neither a stop below today's threshold nor one that is only attested."""
    stop = course.stop
    if course.prior_neutropenia is PriorNeutropenia.STOP_LEVEL or limits.below_stop_on_file:
        raise CourseError("kind", "never-r5")
    if stop is None or not stop.reason.haematological:
        raise CourseError("kind", "nothing-to-lift")
    if stop.reason is not StopReason.LEGACY_RED:
        raise CourseError("kind", "never-r5")


def _transferred(course: TreatmentCourse, what: Transferred, today: date) -> TreatmentCourse:
    if course.state is CourseState.TRANSFERRED:
        raise CourseError("", "already-transferred")
    _day(course, "on", what.on, today)
    transfer = Transfer(what.on, _name("to", what.to), what.accepted)
    if not what.accepted:
        return replace(course, transfer=transfer)
    return replace(course, transfer=transfer, state=CourseState.TRANSFERRED, state_on=what.on)


def _resumed(course: TreatmentCourse, what: Resumed, today: date) -> TreatmentCourse:
    if course.state is CourseState.ACTIVE and course.transfer is None:
        raise CourseError("", "not-away")
    _not_future("on", what.on, today)
    left = course.state_on or (course.transfer.on if course.transfer is not None else None)
    if left is not None and what.on < left:
        raise CourseError("on", "before-leaving")
    return replace(course, state=CourseState.ACTIVE, state_on=what.on, transfer=None)


def _not_future(field: str, day: date, today: date) -> None:
    if day > today:
        raise CourseError(field, "future")


def _day(course: TreatmentCourse, field: str, day: date, today: date) -> None:
    _not_future(field, day, today)
    if course.start is not None and course.start <= today and day < course.start:
        raise CourseError(field, "before-start")


def _under(course: TreatmentCourse, field: str, day: date, today: date) -> None:
    """A day of treatment: there must be a first dose, and it must lie before."""
    _not_future(field, day, today)
    if course.start is None:
        raise CourseError(field, "not-started")
    if day < course.start:
        raise CourseError(field, "before-start")


def _name(field: str, given: str) -> str:
    return _words(field, given, _LONGEST_NAME)


def _words(field: str, given: str, longest: int) -> str:
    text = " ".join(given.split())
    if not any(c.isalnum() for c in text):
        raise CourseError(field, "missing")
    if len(text) > longest:
        raise CourseError(field, "too-long")
    return text
