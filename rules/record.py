"""What the file says of a patient's counts on a given day: established values, one a day, oldest first.

Provisional, withdrawn, undated and later results are left out: they never reassure. Provisional low values after the
last established count are kept apart, because doubt may alarm (clinical.md, promise 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from rules.counts import UNCOUNTED, Count, Counts
from rules.model import AbsoluteNeutrophilCount, LabResult, Population, ResultStatus, TreatmentCourse, Trust
from rules.protocol import MonitoringProtocol, Range, band_of, worse_band

__all__ = [
    "Record",
    "count_of",
    "is_after_first_dose",
    "is_provisional",
    "population_on",
    "read_record",
    "with_first_day",
]

# Looked up once: reading ten years of counts is the hot path.
_FINAL, _CORRECTED, _PRELIMINARY = ResultStatus.FINAL, ResultStatus.CORRECTED, ResultStatus.PRELIMINARY
_PROVISIONAL = Trust.PROVISIONAL


@dataclass(frozen=True, slots=True)
class Record:
    counts: Counts
    doubtful: tuple[Count, ...]
    """Provisional counts, oldest first; only ever read to raise."""
    after_dose: Count | None = None
    """The lowest count of the day of the first dose that was taken after it (B-18), where that is on record."""


def population_on(course: TreatmentCourse, day: date) -> Population:
    """Benign ethnic neutropenia from the day of its record on (A-13); the general thresholds before."""
    confirmed = course.ben is not None and course.ben.on <= day
    return Population.BENIGN_ETHNIC_NEUTROPENIA if confirmed else Population.GENERAL


def is_provisional(result: LabResult) -> bool:
    return result.trust is Trust.PROVISIONAL or result.status is ResultStatus.PRELIMINARY or result.collected_at is None


def count_of(anc: AbsoluteNeutrophilCount, on: date, leukocytes: Decimal | None = None) -> Count:
    """The count as the rules compare it: exact, never rounded up (A-22)."""
    value, sign, bound = anc.per_mm3, anc.comparator, anc.lower_bound
    lowest = value if bound is None else min(value, bound)
    absolute = not anc.derived and bound is None and sign != ">" and sign != ">="
    counted = UNCOUNTED if leukocytes is None or leukocytes.is_nan() else leukocytes
    return Count(on, lowest, sign == "<", absolute, value + value - lowest, counted)


def read_record(history: Sequence[LabResult], as_of: date, judged: LabResult | None = None) -> Record:
    """Current knowledge up to and including ``as_of``; of several versions of one measurement the last counts.

    Versions share a ``key``; the store's ``id`` orders them, else their place in ``history``. ``judged`` is the newest
    version of its own key, whatever history says of it.
    """
    days: list[date] = []
    values: list[Decimal] = []
    whole: dict[date, Count] = {}
    doubtful: list[Count] = []
    latest = date.min
    add_day, add_value = days.append, values.append
    for result in _current(history, judged):
        collected, anc, status = result.collected_at, result.anc, result.status
        if collected is None or anc is None:
            continue
        value = anc.per_mm3
        on = collected.date()
        if on > as_of or not value.is_finite():
            continue
        if (status is _FINAL or status is _CORRECTED) and result.trust is not _PROVISIONAL:
            if on <= latest:  # not in order, or several of a day
                return _sorted(history, as_of, judged)
            latest = on
            bare = anc.comparator is None and anc.lower_bound is None and not anc.derived
            if not bare or result.wbc_per_mm3 is not None:
                count = whole[on] = count_of(anc, on, result.wbc_per_mm3)
                value = count.per_mm3
            add_day(on)
            add_value(value)
        elif not status.withdrawn:
            doubtful.append(count_of(anc, on, result.wbc_per_mm3))
    doubtful.sort()
    return Record(Counts(days, values, whole), tuple(doubtful))


def _sorted(history: Sequence[LabResult], as_of: date, judged: LabResult | None) -> Record:
    """The same of a history in any order."""
    counts: list[Count] = []
    doubtful: list[Count] = []
    for result in _current(history, judged):
        if result.collected_at is None or result.anc is None or result.status.withdrawn:
            continue
        on = result.collected_at.date()
        if on > as_of or not result.anc.per_mm3.is_finite():
            continue
        count = count_of(result.anc, on, result.wbc_per_mm3)
        (doubtful if is_provisional(result) else counts).append(count)
    counts.sort()
    doubtful.sort()
    return Record(Counts.of(_one_a_day(counts)), tuple(doubtful))


def with_first_day(
    record: Record, course: TreatmentCourse, history: Sequence[LabResult], judged: LabResult | None = None
) -> Record:
    """``record`` with the count that was taken on the first day of treatment after the first dose."""
    if course.first_dose_at is None or course.start is None:
        return record
    found: Count | None = None
    for result in _current(history, judged):
        if (
            result.anc is None
            or not result.anc.per_mm3.is_finite()
            or result.status.withdrawn
            or is_provisional(result)
        ):
            continue
        if is_after_first_dose(course, result):
            count = count_of(result.anc, course.start, result.wbc_per_mm3)
            found = count if found is None else worse(found, count)
    return record if found is None else replace(record, after_dose=found)


def is_after_first_dose(course: TreatmentCourse, result: LabResult) -> bool:
    """Drawn on the day of the first dose, and after an administration that is on record with its time (B-18)."""
    dose, drawn = course.first_dose_at, result.collected_at
    if dose is None or drawn is None or not result.time_known or not dose.date() == drawn.date() == course.start:
        return False
    return drawn.replace(tzinfo=None) > dose


def _current(history: Sequence[LabResult], judged: LabResult | None) -> Sequence[LabResult]:
    keys = {result.key for result in history}
    if len(keys) == len(history) and "" not in keys and (judged is None or judged.key not in keys):
        return history
    latest: dict[str, LabResult] = {}
    loose: list[LabResult] = []
    for result in history:
        key = result.key
        if not key:
            loose.append(result)
            continue
        other = latest.setdefault(key, result)
        if other is not result and (result.id or 0) >= (other.id or 0):
            latest[key] = result
    if judged is not None and judged.key:
        latest.pop(judged.key, None)
    loose.extend(latest.values())
    return loose


def _one_a_day(counts: list[Count]) -> list[Count]:
    kept: list[Count] = []
    for count in counts:
        if kept and kept[-1].on == count.on:
            kept[-1] = worse(kept[-1], count)
        else:
            kept.append(count)
    return kept


def worse(one: Count, other: Count) -> Count:
    """Of two counts of a day the lower (A-23); an absolute one wins over a derived one that agrees within rounding."""
    leukocytes = min(one.leukocytes, other.leukocytes)
    found = one if (one.per_mm3, not one.just_below) <= (other.per_mm3, not other.just_below) else other
    if one.absolute != other.absolute:
        absolute, derived = (one, other) if one.absolute else (other, one)
        if not absolute.just_below and derived.per_mm3 <= absolute.per_mm3 <= derived.upper:
            found = absolute
    return found if found.leukocytes == leukocytes else found._replace(leukocytes=leukocytes)


def band(protocol: MonitoringProtocol, population: Population, count: Count) -> Range:
    found = band_of(protocol.bands_of(population), count.per_mm3, count.just_below)
    if protocol.leukocyte_bands:
        found = worse_band(found, band_of(protocol.leukocyte_bands_of(population), count.leukocytes))
    return found
