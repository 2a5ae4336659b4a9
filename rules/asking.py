"""The words around an alert that say who is asked, why again, and what the second recipients are to do.

Never here: what the alert itself says; its words stand below these, unchanged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rules.alerts import AlertDraft, alert_id
from rules.decisions import Decision
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel
from rules.words import Words

__all__ = [
    "DISPENSED",
    "answered_words",
    "copy_words",
    "dispensed_alert",
    "handed_back_words",
    "unanswered_words",
    "undecided_words",
]

DISPENSED: Final = "dispensed-after-stop"
"""Reason of the REVIEW alert on clozapine that was dispensed although a stop is on record."""


def unanswered_words(alert: Alert, words: Words, *, since: datetime, hours: str, owner: str) -> tuple[str, str]:
    """Title and text of an alert that nobody answered in time. ``since``: local time; ``hours``: the time allowed;
    ``owner``: who is asked now, "" where nobody is named."""
    first = words.again.format(since=words.moment(since), hours=hours)
    return _said(words.again_title, first, alert, words, since, owner)


def handed_back_words(alert: Alert, words: Words, *, since: datetime, owner: str) -> tuple[str, str]:
    """The same for one that a person said is not theirs."""
    return _said(words.back_title, words.back.format(since=words.moment(since)), alert, words, since, owner)


def _said(heading: str, first: str, alert: Alert, words: Words, since: datetime, owner: str) -> tuple[str, str]:
    title, text = alert.bare_words
    # A reference is a machine's name: it helps no reader.
    asked = f" {words.asked_now.format(owner=owner)}" if owner and "/" not in owner else ""
    return heading.format(since=words.moment(since), title=title), f"{first}{asked}\n{text}"


def answered_words(alert: Alert, words: Words, *, at: datetime, by: str, decision: Decision) -> tuple[str, str]:
    """Title and text for those who have an alert before them that somebody has answered. ``at``: local time."""
    title, text = alert.bare_words
    first = words.answered.format(at=words.moment(at), by=by, decision=words.decisions[decision.value])
    return words.answered_title.format(title=title), f"{first}\n{text}"


def undecided_words(alert: Alert, words: Words, *, by: str) -> tuple[str, str]:
    """Title and text of the question that is left when a stop was closed without a decision."""
    title, text = alert.bare_words
    return words.undecided_title.format(title=title), f"{words.undecided.format(by=by)}\n{text}"


def copy_words(alert: Alert, words: Words, recipient: str) -> tuple[str, str]:
    """Title and text of the copy for a second recipient."""
    first = words.copy_withdrawn if alert.kind is AlertKind.WITHDRAWN else words.copies[recipient]
    return words.copy_titles[recipient].format(title=alert.title), f"{first}\n{alert.text}"


def dispensed_alert(register_id: str, words: Words, *, on: str, stop: str, key: str, for_ever: bool) -> AlertDraft:
    """Clozapine handed over after the stop. ``key`` names the dispensing: told again, it is the same alert."""
    more = f" {words.never_again}" if for_ever else ""
    return AlertDraft(
        id=alert_id(register_id, AlertFamily.REVIEW, f"{DISPENSED}|{key}"),
        family=AlertFamily.REVIEW,
        level=AlertLevel.CRITICAL if for_ever else AlertLevel.RED,
        title=words.dispensed_title,
        text=f"{words.dispensed.format(on=on, stop=stop)}{more}\n{words.infection}",
    )
