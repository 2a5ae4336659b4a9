"""When a missing count must be looked for, and the words of what the clock says: of a reminder that ends, of a sender or a
destination that has gone quiet.

Pure: a day on which to look is a hint for the clock, never a verdict; the verdict on a missing count is ``assess``.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from rules.alerts import AlertDraft, alert_id
from rules.model import AlertFamily, AlertLevel, Assessment, CourseState, TreatmentCourse
from rules.wording import moment_words

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


_ENDED_TITLE = {"fr": "CLOS : {title}", "en": "CLOSED: {title}"}
_ARRIVED = {
    "fr": "La numération qui manquait est arrivée : ce rappel est clos. Son résultat est jugé à part.",
    "en": "The count that was missing has arrived: this reminder is closed. Its result is judged by itself.",
}
_NOT_EXPECTED = {
    "fr": "Le dossier a changé : la numération n'est plus attendue comme annoncé. Ce rappel est clos.",
    "en": "The record has changed: the count is no longer expected as announced. This reminder is closed.",
}


_ELSEWHERE = {
    "fr": "La question est posée de nouveau par une autre alerte de ce patient : celle-ci est close.",
    "en": "The question is asked anew by another alert of this patient: this one is closed.",
}


def ended_elsewhere_words(title: str, *, language: str) -> tuple[str, str]:
    return _ENDED_TITLE[language].format(title=title), _ELSEWHERE[language]


def ended_words(title: str, *, arrived: bool, language: str) -> tuple[str, str]:
    """Title and text for the end of a reminder that was called ``title``."""
    return _ENDED_TITLE[language].format(title=title), (_ARRIVED if arrived else _NOT_EXPECTED)[language]


_SYSTEM_TITLE = {
    FEED_SILENT: {"fr": "Plus de messages de {name}", "en": "No more messages from {name}"},
    DESTINATION_DOWN: {
        "fr": "La destination {name} ne reçoit plus les alertes",
        "en": "The destination {name} takes no alerts",
    },
}
_SYSTEM_TEXT = {
    FEED_SILENT: {
        "fr": "Surveillance technique, aucun patient en particulier. Aucun message de {name} depuis le {since}, plus "
        "longtemps que d'habitude. Des résultats peuvent manquer sans que rien d'autre ne le montre : vérifier la "
        "liaison avec le laboratoire.",
        "en": "Technical watch, no patient in particular. No message from {name} since {since}, longer than is usual. "
        "Results may be missing with nothing else to show it: check the connection with the laboratory.",
    },
    DESTINATION_DOWN: {
        "fr": "Surveillance technique, aucun patient en particulier. Des alertes attendent d'être reçues par {name} "
        "depuis le {since}. Elles ne sont pas perdues ; tant que dure la panne, les consulter dans NeutroFlag.",
        "en": "Technical watch, no patient in particular. Alerts for {name} have been waiting to be taken since {since}. "
        "They are not lost; while this lasts, read them in NeutroFlag.",
    },
}
_SYSTEM_ENDED = {
    FEED_SILENT: {
        "fr": "Des messages de {name} arrivent de nouveau.",
        "en": "Messages from {name} arrive again.",
    },
    DESTINATION_DOWN: {
        "fr": "La destination {name} reçoit de nouveau les alertes.",
        "en": "The destination {name} takes alerts again.",
    },
}


def system_alert(reason: str, *, name: str, key: str, since: datetime, language: str) -> AlertDraft:
    """A connection that is quiet, as a task for a person. ``since``: local time; ``key`` names the occurrence."""
    return AlertDraft(
        id=alert_id("", AlertFamily.REVIEW, key),
        family=AlertFamily.REVIEW,
        level=AlertLevel.AMBER,
        title=_SYSTEM_TITLE[reason][language].format(name=name),
        text=_SYSTEM_TEXT[reason][language].format(name=name, since=moment_words(since, language)),
    )


def system_ended_words(reason: str, title: str, *, name: str, language: str) -> tuple[str, str]:
    return _ENDED_TITLE[language].format(title=title), _SYSTEM_ENDED[reason][language].format(name=name)
