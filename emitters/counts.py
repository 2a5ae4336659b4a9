"""How a count is written for others: exact 10*9/L, and the laboratory's letters for low.

Both shapes, FHIR and HL7 v2, take these from here, so that they cannot disagree.
"""

from __future__ import annotations

import functools
import re
from decimal import Decimal
from typing import Final, Literal

from rules.model import AbsoluteNeutrophilCount, Alert, AlertFamily, AlertLevel

__all__ = ["UCUM_UNIT", "giga_per_litre", "is_reference", "letter", "plain"]

UCUM_UNIT: Final = "10*9/L"
"""Never ``G/L``: to UCUM that is gauss per litre."""

_LOW_CATEGORIES: Final = frozenset({"mild", "moderate", "severe", "below_initiation_threshold"})
_SOUND_CATEGORIES: Final = frozenset({"normal", "eligible"})

_REFERENCE: Final = re.compile(
    r"(https?://[^\s|]+/)?(Practitioner|PractitionerRole|Organization|CareTeam|HealthcareService|RelatedPerson|Device)"
    r"/[A-Za-z0-9.\-]{1,64}"
)


@functools.lru_cache(maxsize=1024)
def is_reference(owner: str) -> bool:
    """``PractitionerRole/psy1`` is a FHIR reference that may own a Task; ``duty-psychiatrist`` is a role's name."""
    return _REFERENCE.fullmatch(owner) is not None


def plain(value: Decimal) -> Decimal:
    """The same number without exponent or trailing zeros. Raises ValueError beyond what a count can be.

    >>> plain(Decimal("0.840")), plain(Decimal("1E+1"))
    (Decimal('0.84'), Decimal('10'))
    """
    # An unbounded exponent prints as megabytes; no count has more than 20 digits on either side.
    if not value.is_finite() or abs(value.adjusted()) > 20 or len(value.as_tuple().digits) > 20:
        raise ValueError("a count outside of what can be written exactly")
    text = f"{value:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def giga_per_litre(per_mm3: Decimal) -> Decimal:
    """Cells per mm3 as 10*9/L, exactly: one thousandth.

    >>> giga_per_litre(Decimal("840"))
    Decimal('0.84')
    """
    # By its digits, not by its value: one with too many of them is refused, whatever it equals.
    return _thousandth(str(per_mm3))


@functools.lru_cache(maxsize=1024)
def _thousandth(number: str) -> Decimal:
    # Scaling moves the exponent only, but works in the context's precision: bound the digits first.
    return plain(plain(Decimal(number)).scaleb(-3))


def letter(alert: Alert, anc: AbsoluteNeutrophilCount) -> Literal["LL", "L", "N"] | None:
    """Observation.interpretation / OBX-8 of the judged count; None where no threshold speaks.

    The letter follows the count, not the alert: a normal count beside an overdue test is not low.
    """
    assessment = alert.assessment
    if assessment is None:
        return None
    if assessment.category in _LOW_CATEGORIES or (
        assessment.threshold_per_mm3 is not None and anc.per_mm3 <= assessment.threshold_per_mm3
    ):
        return "LL" if alert.level is AlertLevel.CRITICAL or alert.family is AlertFamily.STOP else "L"
    return "N" if assessment.category in _SOUND_CATEGORIES else None
