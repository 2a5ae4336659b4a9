"""When a missing count must be looked for, and the words of what the clock says: of a reminder that ends, of a sender or a
destination that has gone quiet.

Pure: a day on which to look is a hint for the clock, never a verdict; the verdict on a missing count is ``assess``.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from rules.alerts import AlertDraft, alert_id
from rules.model import AlertFamily, AlertLevel, Assessment, CourseState, TreatmentCourse
from rules.words import Words

__all__ = [
    "AT_ONCE",
    "DESTINATION_DOWN",
    "ENDED",
    "FEED_SILENT",
    "SYSTEM_REASONS",
    "about_system",
    "ended_elsewhere_words",
    "ended_words",
    "look_on",
    "next_look",
    "system_alert",
    "system_ended_words",
]

AT_ONCE = date.min
"""Sorts before every day."""
FEED_SILENT = "feed-silent"
DESTINATION_DOWN = "destination-down"
SYSTEM_REASONS = frozenset({FEED_SILENT, DESTINATION_DOWN})
"""Reasons of a REVIEW alert that is about no patient and no result: a connection is quiet."""
ENDED = "ended"
"""Reason of a withdrawal that takes nothing back: what was missing has come, or is not expected any more."""

_DAY = timedelta(days=1)
# However sure a date looks, it is looked at again within this: a protocol or a clock may have changed meanwhile.
_AT_MOST = timedelta(days=28)


def about_system(family: AlertFamily, reason: str) -> bool:
    """Whether an alert is about a connection, not about a patient or a result."""
    return family is AlertFamily.REVIEW and reason in SYSTEM_REASONS


def look_on(course: TreatmentCourse, present: Assessment | None, *, doubtful: bool) -> date:
    """The first day on which silence about a patient would be news, as far as the verdict on the last count tells.

    ``AT_ONCE`` wherever more than that verdict decides it: a gap, a stop, signs of infection, a count in doubt
    (``doubtful``: one is on file), a start that is still ahead.
    """
    start = course.start
    if present is None or present.as_of is None or start is None or start >= present.as_of or doubtful:
        return AT_ONCE
    if course.interruptions or course.stop is not None or course.infection_signs_on is not None:
        return AT_ONCE
    if course.overrides or course.reexposed_on is not None:
        return AT_ONCE
    due = _earlier(present)
    return AT_ONCE if due is None else due + _DAY


def next_look(course: TreatmentCourse, verdict: Assessment, today: date, *, baseline_days: int) -> date | None:
    """When to look again, given what holds ``today`` without a count; None: only a change of the record brings news.

    ``baseline_days``: how long before a planned start a count holds for it; earlier there is nothing to miss.
    """
    if course.state in (CourseState.DECEASED, CourseState.TRANSFERRED):
        return None
    tomorrow = today + _DAY
    start = course.start
    if start is not None and start >= today:
        return max(tomorrow, start - timedelta(days=baseline_days))
    if verdict.alert.rank >= AlertLevel.RED.rank:
        return today + _AT_MOST
    if verdict.alert is not AlertLevel.NONE or _moves_by_itself(course, today):
        return tomorrow
    due = _earlier(verdict)
    return None if due is None else min(max(due + _DAY, tomorrow), today + _AT_MOST)


def _moves_by_itself(course: TreatmentCourse, today: date) -> bool:
    """A gap that grows (B-23), a restart, a stop or signs of infection that still lie ahead, an override that will expire:
    each day may be another."""
    if any(override.in_force(today) for override in course.overrides):
        return True
    gaps = any(gap.restart is None or gap.restart.date() >= today for gap in course.interruptions)
    ahead = [day for day in (course.stop.on if course.stop else None, course.infection_signs_on) if day is not None]
    return gaps or any(day >= today for day in ahead)


def _earlier(verdict: Assessment) -> date | None:
    return min((day for day in (verdict.next_due, verdict.recommended_recheck_by) if day is not None), default=None)


def ended_elsewhere_words(title: str, words: Words) -> tuple[str, str]:
    return words.ended_title.format(title=title), words.elsewhere


def ended_words(title: str, words: Words, *, arrived: bool) -> tuple[str, str]:
    """Title and text for the end of a reminder that was called ``title``."""
    return words.ended_title.format(title=title), words.arrived if arrived else words.not_expected


def system_alert(reason: str, words: Words, *, name: str, key: str, since: datetime) -> AlertDraft:
    """A connection that is quiet, as a task for a person. ``since``: local time; ``key`` names the occurrence."""
    return AlertDraft(
        id=alert_id("", AlertFamily.REVIEW, key),
        family=AlertFamily.REVIEW,
        level=AlertLevel.AMBER,
        title=words.system_titles[reason].format(name=name),
        text=words.system[reason].format(name=name, since=words.moment(since)),
    )


def system_ended_words(reason: str, title: str, words: Words, *, name: str) -> tuple[str, str]:
    return words.ended_title.format(title=title), words.system_ended[reason].format(name=name)
