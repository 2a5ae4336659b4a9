"""What a person may answer to an alert, and the codes by which other systems say it."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from rules.english import ENGLISH
from rules.french import FRENCH
from rules.model import AlertFamily, AlertLevel

__all__ = ["DECISION_WORDS", "UNDECIDED", "Decision", "decision_of", "decisions_for", "needs_reason"]


UNDECIDED: Final = "decision-not-stated"
"""Reason of the REVIEW alert on a stop that somebody closed without saying what was decided."""


class Decision(enum.StrEnum):
    """A person's answer to an alert."""

    STOPPED = "stopped"
    PATIENT_REACHED = "patient-reached"
    COUNT_ORDERED = "count-ordered"
    CONTINUED = "continued"
    """With a reason, always."""
    DISPUTED = "disputed"
    """The result is doubted; with a reason."""
    NOT_MY_PATIENT = "not-my-patient"
    """Hands the alert back: the next owner is asked at once."""
    NOTED = "noted"


DECISION_WORDS: Final[Mapping[Decision, tuple[str, str]]] = {
    decision: (FRENCH.decisions[decision.value], ENGLISH.decisions[decision.value]) for decision in Decision
}
"""French and English."""

_OF_A_COUNT = (
    Decision.STOPPED,
    Decision.PATIENT_REACHED,
    Decision.COUNT_ORDERED,
    Decision.CONTINUED,
    Decision.DISPUTED,
    Decision.NOT_MY_PATIENT,
)
_DECISIONS: dict[AlertFamily, tuple[Decision, ...]] = {
    AlertFamily.STOP: _OF_A_COUNT,
    AlertFamily.MILD: _OF_A_COUNT,
    # Nothing runs yet that could be stopped or go on.
    AlertFamily.START: (
        Decision.PATIENT_REACHED,
        Decision.COUNT_ORDERED,
        Decision.DISPUTED,
        Decision.NOT_MY_PATIENT,
    ),
    AlertFamily.SCHEDULE: _OF_A_COUNT,
    # No count stands behind these two that could be disputed; one that cannot be read is disputed with the laboratory.
    AlertFamily.OVERDUE: tuple(item for item in _OF_A_COUNT if item is not Decision.DISPUTED),
    AlertFamily.REVIEW: (
        Decision.PATIENT_REACHED,
        Decision.COUNT_ORDERED,
        Decision.DISPUTED,
        Decision.NOT_MY_PATIENT,
    ),
}
_WITH_REASON = frozenset({Decision.CONTINUED, Decision.DISPUTED, Decision.NOT_MY_PATIENT})


def decisions_for(family: AlertFamily, level: AlertLevel, reason: str = "") -> tuple[Decision, ...]:
    """What a person may answer to such an alert. Red and critical ask for something done: to note them is no answer."""
    if reason == UNDECIDED:
        family = AlertFamily.STOP  # it asks what the stop asked
    noted = () if level.rank >= AlertLevel.RED.rank else (Decision.NOTED,)
    return (*_DECISIONS[family], *noted)


def needs_reason(decision: Decision) -> bool:
    return decision in _WITH_REASON


# The Task's output ``decision`` and the v2 answer's code (docs/answers.md), without case, blanks and hyphens.
_CODES: Final[Mapping[str, Decision]] = {
    "ALREADYSTOPPED": Decision.STOPPED,
    "CONTINUEDJUSTIFIED": Decision.CONTINUED,
    "DISPUTEDRESULT": Decision.DISPUTED,
    "RESULTDISPUTED": Decision.DISPUTED,
    "TRANSFERRED": Decision.NOT_MY_PATIENT,
    **{re.sub("[^A-Z]", "", decision.value.upper()): decision for decision in Decision},
}


def decision_of(code: str) -> Decision | None:
    """The decision that a code names, however it is written; None for one that is not known.

    >>> decision_of("CONTINUED-JUSTIFIED"), decision_of("patient_reached"), decision_of("maybe")
    (<Decision.CONTINUED: 'continued'>, <Decision.PATIENT_REACHED: 'patient-reached'>, None)
    """
    return _CODES.get(re.sub("[^A-Z]", "", code.upper()))
