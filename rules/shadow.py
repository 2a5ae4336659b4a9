"""What another protocol would have asked for over a patient's history: the counts at which treatment would have differed.

As long as nothing has happened to a patient, only the phase of treated time speaks, and no verdict is written out
(``_Calm``); from the first low count, doubt or gap on every count is judged whole under both protocols.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from rules.actions import gives_clozapine
from rules.assess import assess
from rules.model import Assessment, LabResult, Population, PriorNeutropenia, ResultStatus, TreatmentCourse, Trust
from rules.protocol import MonitoringProtocol
from rules.span import Span, anniversary, due_after

__all__ = ["Difference", "Shadow", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first count after which the two protocols part: clozapine under one, none under the other."""

    on: date
    per_mm3: Decimal
    old: Assessment
    new: Assessment

    @property
    def stops(self) -> str:
        """``old`` or ``new``: the protocol under which clozapine ends or is not begun."""
        return "new" if gives_clozapine(self.old.action) else "old"


@dataclass(frozen=True, slots=True)
class Shadow:
    """One patient under two protocols. ``intervals``: counts after which the next one is due on another day."""

    counts: int
    intervals: int
    first_interval_on: date | None
    treatment: Difference | None


def compare(
    old: MonitoringProtocol, new: MonitoringProtocol, course: TreatmentCourse, results: Sequence[LabResult]
) -> Shadow:
    """``results``: current versions with a collection time, oldest first; doubtful ones are history, never judged.

    Ends at the first difference of treatment: what would have followed it is in no history. The verdicts are those of
    the course as it is known today.
    """
    before, after = _Calm(old, course), _Calm(new, course)
    start, above = before.start, max(before.above, after.above)
    counts, intervals, first_on, quiet = 0, 0, None, True
    for number, result in enumerate(results):
        if not _established(result) or result.collected_at is None or result.anc is None:
            quiet = False
            continue
        counts += 1
        on = result.collected_at.date()
        if quiet and result.anc.per_mm3 > above and before.holds(result, on) and after.holds(result, on):
            if on > start and _apart(before.spans_on(on), after.spans_on(on), on):
                intervals += 1
                first_on = first_on or on
            continue
        quiet = False
        if _leukocytes_asked(old, new, course, on) and result.wbc_per_mm3 is None:
            continue  # no criterion can be compared that was not counted
        verdicts = [assess(protocol, course, results[:number], result, on) for protocol in (old, new)]
        one, other = verdicts
        if not isinstance(one, Assessment) or not isinstance(other, Assessment):
            continue
        if gives_clozapine(one.action) is not gives_clozapine(other.action):
            return Shadow(counts, intervals, first_on, Difference(on, result.anc.per_mm3, one, other))
        if one.next_due != other.next_due:
            intervals += 1
            first_on = first_on or on
        if one.no_reexposure and other.no_reexposure:
            break
    return Shadow(counts, intervals, first_on, None)


def _established(result: LabResult) -> bool:
    final = result.status is ResultStatus.FINAL or result.status is ResultStatus.CORRECTED
    return final and result.trust is Trust.ESTABLISHED


def _leukocytes_asked(old: MonitoringProtocol, new: MonitoringProtocol, course: TreatmentCourse, on: date) -> bool:
    """Before the first dose, where one protocol wants leukocytes too."""
    if course.start is not None and on > course.start:
        return False
    return any(rule.leukocytes_at_least is not None for one in (old, new) for rule in one.initiations)


class _Calm:
    """One protocol's schedule for one patient while nothing has happened: from which day which intervals hold."""

    def __init__(self, protocol: MonitoringProtocol, course: TreatmentCourse) -> None:
        prior, mild = course.prior_neutropenia, protocol.after_mild
        self.start = course.start or date.max
        self.until = _until(course)
        sound = [_sound_from(protocol, population) for population in Population]
        self.above = max(limit for limit, _ in sound)
        self.leukocytes = max(limit for _, limit in sound)
        history = mild.throughout and prior is PriorNeutropenia.MILD
        unknown = prior is PriorNeutropenia.UNKNOWN
        at_least = (mild.interval,) if history else (protocol.unknown_past.interval,) if unknown else ()
        self.since: list[date] = []
        self.spans: list[tuple[Span, ...]] = []
        for phase in protocol.phases if course.start is not None else ():
            if not (phase.without_neutropenia and (history or unknown)):
                self.since.append(anniversary(self.start, phase.since))
                self.spans.append((phase.interval, *at_least))

    def holds(self, result: LabResult, on: date) -> bool:
        """Nothing has happened up to this count, and it is sound in every population, before the first dose too."""
        anc = result.anc
        if on >= self.until or anc is None or anc.comparator is not None or anc.lower_bound is not None:
            return False
        leukocytes = result.wbc_per_mm3
        counted = leukocytes > self.leukocytes if leukocytes is not None else on > self.start or not self.leukocytes
        return anc.per_mm3 > self.above and counted

    def spans_on(self, on: date) -> tuple[Span, ...]:
        return self.spans[bisect_right(self.since, on) - 1]


def _apart(one: tuple[Span, ...], other: tuple[Span, ...], on: date) -> bool:
    """Whether the next counts are due on different days."""
    if one == other:
        return False
    return min(due_after(on, span) for span in one) != min(due_after(on, span) for span in other)


def _until(course: TreatmentCourse) -> date:
    """The first day on which more than the phase speaks."""
    if course.start is None or course.overrides or course.prior_neutropenia is PriorNeutropenia.STOP_LEVEL:
        return date.min
    days = [gap.last_dose.date() for gap in course.interruptions]
    days += [course.stop.on] if course.stop is not None else []
    days += [course.infection_signs_on] if course.infection_signs_on is not None else []
    return min(days, default=date.max)


def _sound_from(protocol: MonitoringProtocol, population: Population) -> tuple[Decimal, Decimal]:
    """Neutrophils and leukocytes above which a count is normal, and permits a first dose."""
    rule = protocol.initiation_of(population)
    leukocytes = [band.low for band in protocol.leukocyte_bands_of(population)]
    leukocytes += [rule.leukocytes_at_least] if rule.leukocytes_at_least is not None else []
    return (
        max(rule.at_least, *(band.low for band in protocol.bands_of(population))),
        max(leukocytes, default=Decimal(0)),
    )
