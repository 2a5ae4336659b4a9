"""Results are versions: what a new reading of a measurement does to the ones before it (standards.md 2.4, 2.5).

Rule of the file: an older statement never replaces a newer one, and the same fact twice is one fact.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from rules.model import LabResult, ResultStatus, Trust
from store.port import PatientRecord, ResultRecord

__all__ = ["Change", "Effect", "compare"]


class Effect(enum.StrEnum):
    NEW = "new"
    """Never seen: enters the history."""
    REPLACES = "replaces"
    """A correction, a confirmation or a withdrawal of what stands."""
    UNCHANGED = "unchanged"
    """Says what is known."""
    LATE = "late"
    """Older than what stands: kept for the record only."""
    DOUBTED = "doubted"
    """Provisional, where what stands is established: it may alarm, and replaces nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    effect: Effect
    standing: ResultRecord | None = None
    """The version that is replaced, repeated or was newer."""


def compare(record: PatientRecord, result: LabResult) -> Change:
    standing = record.results.get(result.key)
    if standing is None:
        standing = _known_as(record, result)
    if standing is None:
        twin = _same_fact(record, result)
        if twin is None:
            return Change(Effect.NEW)
        if twin.result.trust is Trust.ESTABLISHED or result.trust is Trust.PROVISIONAL:
            return Change(Effect.UNCHANGED, twin)
        return Change(Effect.REPLACES, twin)
    before = standing.result
    if _says_the_same(before, result):
        return Change(Effect.UNCHANGED, standing)
    if _older(result, before):
        return Change(Effect.LATE, standing)
    if result.trust is Trust.PROVISIONAL and before.trust is Trust.ESTABLISHED and not before.status.withdrawn:
        return Change(Effect.DOUBTED, standing)
    return Change(Effect.REPLACES, standing)


def _known_as(record: PatientRecord, result: LabResult) -> ResultRecord | None:
    """What stands under another channel's key, where this channel repeats, corrects or withdraws it.

    So does what it said before: late, it must not stand beside the correction that came first. A plain value that differs
    and is no older does none of these: both are kept, and the lower acts.
    """
    for standing in record.results.values():
        if result.key in standing.result.also:
            corrects = result.status is ResultStatus.CORRECTED or result.status.withdrawn
            known = corrects or _says_the_same(standing.result, result) or _older(result, standing.result)
            return standing if known else None
    return None


def _same_fact(record: PatientRecord, result: LabResult) -> ResultRecord | None:
    """By whichever channel: one patient, one collection time, one value (architecture.md, Identity)."""
    if result.anc is None or result.collected_at is None:
        return None
    for standing in record.results.values():
        other = standing.result
        if (
            other.anc is not None
            and other.anc.per_mm3 == result.anc.per_mm3
            and other.anc.comparator == result.anc.comparator
            and other.time_known == result.time_known
            and _minute(other.collected_at) == _minute(result.collected_at)
        ):
            return standing
    return None


def _minute(moment: datetime | None) -> datetime | None:
    return moment.replace(second=0, microsecond=0) if moment is not None else None


def _says_the_same(before: LabResult, now: LabResult) -> bool:
    return (
        before.anc == now.anc
        and before.status is now.status
        and before.collected_at == now.collected_at
        and before.trust is now.trust
    )


def _older(now: LabResult, before: LabResult) -> bool:
    if now.issued_at is not None and before.issued_at is not None and now.issued_at != before.issued_at:
        return now.issued_at < before.issued_at
    # Without a time to go by, a preliminary value cannot undo a final one; anything else is news.
    return now.status is ResultStatus.PRELIMINARY and before.status is not ResultStatus.PRELIMINARY
