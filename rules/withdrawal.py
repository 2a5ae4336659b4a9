"""The words that take an alert back: as visible as the alert was, and never a reassurance beyond what the laboratory said."""

from __future__ import annotations

from rules.explain import plain
from rules.model import Alert, LabResult, ResultStatus
from rules.words import Words

__all__ = ["ANSWERED_WITHDRAWN", "acted_on", "lowered_words", "moved", "withdrawal"]

ANSWERED_WITHDRAWN = "answered-alert-withdrawn"
"""Reason of the REVIEW alert that ``acted_on`` words."""


def moved(before: Alert, words: Words) -> tuple[str, str]:
    """Title and text of an alert that goes on under another patient's record."""
    return words.withdrawn_title.format(title=before.title), f"{words.moved}\n{words.never_alone}"


def acted_on(before: Alert, words: Words, *, answered: bool = True) -> tuple[str, str]:
    """Title and text of the task that is left when an alert is taken back that somebody has, or may have, acted on."""
    bare, _ = before.bare_words
    title, text = (words.acted_title, words.acted) if answered else (words.unsure_title, words.unsure)
    return title.format(title=bare), f"{text}\n{words.never_alone}"


def lowered_words(before: Alert, title: str, text: str, words: Words) -> tuple[str, str]:
    """What still stands (``title``, ``text``) once the count behind a higher level is corrected, below what was told."""
    bare, _ = before.bare_words
    told = words.lowered.format(title=bare, level=words.levels[before.level.value])
    return words.lowered_title.format(title=title), f"{told}\n{text}"


def withdrawal(before: Alert, replaced_by: LabResult, words: Words) -> tuple[str, str]:
    """Title and text for the withdrawal of ``before``, whose count is now ``replaced_by``."""
    if replaced_by.anc is None or replaced_by.status.withdrawn:
        status = words.in_error if replaced_by.status is ResultStatus.ENTERED_IN_ERROR else words.cancelled
        said = words.taken_back.format(status=status)
    else:
        giga = plain(replaced_by.anc.per_mm3 / 1000).replace(".", words.decimal_mark)
        value = f"{replaced_by.anc.comparator or ''}{giga} G/L ({plain(replaced_by.anc.per_mm3)}/mm3)"
        said = words.corrected.format(value=value)
    bare, _ = before.bare_words
    return words.withdrawn_title.format(title=bare), f"{said}\n{words.never_alone}"
