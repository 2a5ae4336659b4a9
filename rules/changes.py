"""What a named person may change in a patient's course of treatment, and what is refused.

Pure: ``change(course, what, today=...)`` gives the new course or raises ``CourseError`` naming the field. Dates are the
site's local dates; nothing may lie in the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from rules.model import Attestation, PriorNeutropenia, StopReason

__all__ = [
    "AttestHistory",
    "ConfirmBen",
    "CourseChange",
    "CourseError",
    "Deceased",
    "InfectionSigns",
    "Interrupted",
    "Lost",
    "Overridden",
    "Restarted",
    "Resumed",
    "Started",
    "Stopped",
    "Transferred",
]


class CourseError(Exception):
    """``field`` is the change's field, ``code`` names the words: ``future``, ``restart-before-stop`` ..."""

    def __init__(self, field: str, code: str) -> None:
        super().__init__(f"{field}: {code}")
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class Started:
    on: date


@dataclass(frozen=True, slots=True)
class Interrupted:
    last_dose: datetime


@dataclass(frozen=True, slots=True)
class Restarted:
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
    """clinical.md B-27: shorter intervals, one borderline value as no history (A-1), lifting A-15; never longer, never R5."""

    kind: str
    """``shorter-interval``, ``borderline-not-history`` or ``lift-a15``."""
    reason: str
    expires: date
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
    """Back from transfer or loss: monitored here again."""

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
