"""Whether a verdict says something to whoever knows the standing alert, and on which count it stands.

Rule of the file: the same thing said again is no news; what is worse always is.
"""

from __future__ import annotations

from decimal import Decimal

from rules import AlertDraft
from rules.model import Alert, AlertFamily, AlertLevel, Assessment, LabResult, Trust
from store.port import AlertRecord, PatientRecord

__all__ = ["deciding_of", "is_news", "is_worse", "lowers_a_stop"]

_NONE = Decimal("Infinity")
"""Higher than any count: what has no value decides nothing."""


def lowers_a_stop(standing: AlertRecord, draft: AlertDraft) -> bool:
    """A follow-up count after a stop is milder than the stop; said under the stop's id it would lower an alert that
    nobody has answered, or the words that somebody has. It is told beside it, and the stop stays as it was (promise 6)."""
    return (
        draft.family is AlertFamily.STOP
        and standing.state in ("open", "answered")
        and draft.level.rank < standing.alert.level.rank
    )


def is_news(before: Alert, verdict: Assessment, result: LabResult | None, draft: AlertDraft) -> bool:
    """Does this verdict say something that the reader of the standing alert does not know?"""
    old = before.assessment
    if old is None:
        return True
    if verdict.provisional and draft.level.rank <= before.level.rank:
        return False
    if draft.level is not before.level or verdict.action != old.action or verdict.category != old.category:
        return True
    if verdict.next_due != old.next_due:
        return True  # a date that is over must not stand in the prescriber's system
    return draft.level.rank > AlertLevel.INFO.rank and _count(result) != _count(before.result)


def is_worse(before: Alert, verdict: Assessment, result: LabResult | None, draft: AlertDraft) -> bool:
    """Does this verdict call for another answer than the one that was given? A higher level or another category does, and
    each further red or critical count; a milder one, or another date, does not."""
    old = before.assessment
    if old is None or draft.level.rank != before.level.rank:
        return draft.level.rank >= before.level.rank
    if verdict.category != old.category or verdict.action != old.action:
        return True
    return result is not None and draft.level.rank >= AlertLevel.RED.rank and _count(result) != _count(before.result)


def _count(result: LabResult | None) -> object:
    return (result.key, result.anc, result.collected_at) if result is not None else None


def deciding_of(record: PatientRecord, verdict: Assessment, result: LabResult | None) -> LabResult | None:
    """The count that the verdict stands on: of several of one day the lowest (A-23), not the one that came last."""
    if result is None or result.collected_at is None or "several-counts" not in verdict.remarks:
        return result
    day = result.collected_at.date()
    same_day = [
        item.result
        for item in record.results.values()
        if item.result.trust is Trust.ESTABLISHED
        and not item.result.status.withdrawn
        and item.result.collected_at is not None
        and item.result.collected_at.date() == day
    ]
    return min((result, *same_day), key=_worst)


def _worst(result: LabResult) -> Decimal:
    if result.anc is None:
        return _NONE
    return result.anc.per_mm3 if result.anc.lower_bound is None else min(result.anc.per_mm3, result.anc.lower_bound)
