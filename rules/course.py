"""Where a patient stands on a day: before the first dose, under treatment or after a complete stop; gaps and treated time.

A ``Chart`` is opened once for a judgement; everything else reads it.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from rules.counts import Count, Counts
from rules.model import LabResult, Override, OverrideKind, Population, PriorNeutropenia, StopReason, TreatmentCourse
from rules.protocol import InterruptionRule, MonitoringProtocol
from rules.record import Record, band, population_on, read_record, with_first_day
from rules.span import Span, anniversary

__all__ = ["Chart", "Clock", "Gap", "Place", "Stopped", "Window", "chart_at", "open_chart"]

_DAY = timedelta(days=1)


class Place(enum.Enum):
    BEFORE = "before the first dose"
    UNDER = "under treatment"
    AFTER = "after a complete stop"


@dataclass(frozen=True, slots=True)
class Clock:
    """Treated time (A-4): days since ``start`` less ``lost_days``. ``start`` moves to a restart as a new patient (B-20)."""

    start: date
    lost_days: int = 0

    def treated_days(self, day: date) -> int:
        return (day - self.start).days - self.lost_days


@dataclass(frozen=True, slots=True)
class Gap:
    """A closed interruption, judged. ``rule`` None: it triggers no rule of the count (B-6)."""

    last_dose: date
    restart: date
    length: timedelta
    rule: InterruptionRule | None
    summed: bool
    until: date | None
    """End of its window of closer counts, itself outside (B-3)."""
    after: Clock


@dataclass(frozen=True, slots=True)
class Window:
    """The closer counts in force: the rule of the last restart, and the latest end of all that are open."""

    rule: InterruptionRule
    restart: date
    until: date


@dataclass(frozen=True, slots=True)
class Stopped:
    """A complete stop. ``banned``: never to be re-exposed, beyond doubt (R5, B-25)."""

    on: date
    haematological: bool
    banned: bool
    episode_on: date
    """Day of the stop-level count, else of the stop."""
    recorded: bool
    """By the register; otherwise it follows from a count on file (B-17) or from an open gap (B-23)."""


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a judgement reads. ``counts`` lie strictly before ``as_of`` when a result of that day is judged."""

    protocol: MonitoringProtocol
    course: TreatmentCourse
    as_of: date
    population: Population
    counts: Counts
    treated_counts: Counts
    """Those under treatment, its interruptions included: after the day of the first dose (B-18)."""
    doubtful: tuple[Count, ...]
    first_neutropenia: date | None
    gaps: tuple[Gap, ...]
    clocks: tuple[Clock, ...]
    """One before the first gap, one after each."""
    stop: Stopped | None
    place: Place
    banned_by_count: bool
    """A final stop-level count of an earlier course is on file (R5, A-14)."""
    exposed: bool
    """Given clozapine again after a stop for the count, on record (R5)."""
    overrides: tuple[Override, ...]
    """Those in force that made a difference to the above (B-27)."""
    shorter: Override | None
    """The shortest interval that a clinician has set."""

    @property
    def lifted(self) -> bool:
        """A-15: the ban after a stop under the former thresholds; the count that led to it was low all the same."""
        return any(override.kind is OverrideKind.LIFT_A15 for override in self.overrides)

    @property
    def has_neutropenia(self) -> bool:
        """A-14, B-26: ever in the mild band or lower under treatment, or so attested; where that changes the schedule."""
        return self.protocol.after_mild.throughout and self._ever_low

    @property
    def _ever_low(self) -> bool:
        return (
            self.first_neutropenia is not None
            or self.lifted
            or self.course.prior_neutropenia in (PriorNeutropenia.MILD, PriorNeutropenia.STOP_LEVEL)
        )

    @property
    def past_unknown(self) -> bool:
        return self.course.prior_neutropenia is PriorNeutropenia.UNKNOWN

    @property
    def banned_before(self) -> bool:
        """R5 on file from before this treatment: an earlier stop for the count, or an attested stop-level neutropenia."""
        if not self.protocol.after_stop.permanent:
            return False
        stop = self.course.stop
        if self.exposed or self.banned_by_count:
            return True
        earlier = stop is not None and stop.reason.haematological and not self._covers(stop.on) and not self.lifted
        return (earlier and stop is not None and stop.on <= self.as_of) or (
            self.course.prior_neutropenia is PriorNeutropenia.STOP_LEVEL
        )

    def _covers(self, day: date) -> bool:
        return self.course.start is not None and day >= self.course.start

    @property
    def clock(self) -> Clock:
        return self.clocks[-1]

    def clock_on(self, day: date) -> Clock:
        """Treated time as it stood on ``day``."""
        return self.clocks[sum(1 for gap in self.gaps if gap.restart <= day)]

    @property
    def restart(self) -> Gap | None:
        """The last restart after a gap that matters to the counts."""
        return next((gap for gap in reversed(self.gaps) if gap.rule is not None), None)

    @property
    def window(self) -> Window | None:
        """Windows are half-open (B-3); the last restart names the action, the latest end closes it."""
        open_now = [gap for gap in self.gaps if gap.until is not None and self.as_of < gap.until]
        if not open_now or open_now[-1].rule is None:
            return None
        return Window(open_now[-1].rule, open_now[-1].restart, max(gap.until for gap in open_now if gap.until))


def open_chart(
    protocol: MonitoringProtocol,
    course: TreatmentCourse,
    history: Sequence[LabResult],
    as_of: date,
) -> Chart:
    """The chart as of a day, with the counts of that day."""
    record = with_first_day(read_record(history, as_of), course, history)
    return chart_of(protocol, course, record, as_of, before_only=False)


def chart_of(
    protocol: MonitoringProtocol, course: TreatmentCourse, record: Record, as_of: date, *, before_only: bool
) -> Chart:
    counts = record.counts
    if before_only and counts and counts[-1].on == as_of:
        counts = counts[:-1]
    population = population_on(course, as_of)
    treated = _under_treatment(course, counts)
    first_day = record.after_dose
    # B-18: taken after the first dose, a stop-level count of that day is a stop; any other stays a pre-dose count.
    if (
        first_day is not None
        and (first_day.on < as_of or (first_day.on == as_of and not before_only))
        and band(protocol, population_on(course, first_day.on), first_day).kind == "stop"
    ):
        treated = Counts.of(sorted((first_day, *treated)))
    lowest = treated.lowest()
    first_neutropenia = _first_neutropenia(protocol, population, treated, lowest)
    overrides: tuple[Override, ...] = ()
    if course.overrides:
        first_neutropenia, overrides = _overridden(protocol, population, course, treated, first_neutropenia, as_of)
    lifted = any(override.kind is OverrideKind.LIFT_A15 for override in overrides)
    gaps, clocks, open_since = _gaps(protocol, course, as_of, first_neutropenia, lifted=lifted)
    low = _stop_counts(protocol, course, treated, lowest)
    of_this = [c for c in low if course.start is not None and c.on >= course.start]
    stop = _stop(protocol, course, of_this, gaps, as_of, open_since, lifted=lifted)
    again = course.reexposed_on
    exposed = again is not None and stop is not None and stop.haematological and stop.on <= again <= as_of
    if course.start is None or as_of < course.start or (as_of == course.start and stop is None):
        place = Place.BEFORE
    else:
        place = Place.UNDER if stop is None or exposed else Place.AFTER
    found = Chart(
        protocol,
        course,
        as_of,
        population,
        counts,
        treated,
        record.doubtful,
        first_neutropenia,
        gaps,
        clocks,
        stop,
        place,
        len(of_this) < len(low) and any(c.absolute for c in low if c not in of_this),
        exposed,
        overrides,
        _shortest(course, as_of) if course.overrides else None,
    )
    if stop is None or not found.banned_before:
        return found
    if not stop.recorded and not stop.haematological:
        return replace(found, place=Place.UNDER)  # a pause takes nothing from R5 (N-11)
    return replace(found, stop=replace(stop, banned=True))


def _shortest(course: TreatmentCourse, as_of: date) -> Override | None:
    set_ = [o for o in course.overrides if o.kind is OverrideKind.SHORTER_INTERVAL and o.days and o.in_force(as_of)]
    return min(set_, key=lambda o: o.days or 0, default=None)


def _overridden(
    protocol: MonitoringProtocol,
    population: Population,
    course: TreatmentCourse,
    treated: Counts,
    first: date | None,
    as_of: date,
) -> tuple[date | None, tuple[Override, ...]]:
    """The first neutropenia without the borderline values that a clinician took out, and the overrides that mattered."""
    used: list[Override] = []
    stop = course.stop
    if stop is not None and stop.reason is StopReason.LEGACY_RED and stop.on <= as_of:
        used += [o for o in course.overrides if o.kind is OverrideKind.LIFT_A15 and o.in_force(as_of)]
    out = {
        o.value_on: o for o in course.overrides if o.kind is OverrideKind.BORDERLINE_NOT_HISTORY and o.in_force(as_of)
    }
    if out and first is not None:
        kept = Counts.of(c for c in treated if not (c.on in out and is_borderline(protocol, population, c)))
        if len(kept) < len(treated):
            first = _first_neutropenia(protocol, population, kept, kept.lowest())
            on_file = {c.on for c in treated} - {c.on for c in kept}
            used += [override for day, override in out.items() if day in on_file]
    return first, tuple(used)


def shortened(chart: Chart, since: date, next_due: date) -> tuple[date, Override | None]:
    """``next_due`` of a count taken ``since``, or the earlier day that a clinician's shorter interval asks for, with it.

    No count is asked for before the day on which the interval was set.
    """
    shorter = chart.shorter
    if shorter is None or shorter.days is None:
        return next_due, None
    asked = max(since + timedelta(days=shorter.days), shorter.on)
    return (asked, shorter) if asked < next_due else (next_due, None)


def is_borderline(protocol: MonitoringProtocol, population: Population, count: Count) -> bool:
    """Exactly at the upper end of the mild band, where reading A-1 makes it mild."""
    found = band(protocol, population, count)
    return found.kind == "mild" and count.per_mm3 == found.high and not count.just_below


def chart_at(chart: Chart, day: date) -> Chart:
    """The same patient as known on an earlier ``day``, whose own count is being followed up."""
    number = bisect_right(chart.gaps, day, key=_restarted)
    first = chart.first_neutropenia
    return replace(
        chart,
        as_of=day,
        population=population_on(chart.course, day),
        treated_counts=chart.treated_counts.until(day),
        gaps=chart.gaps[:number],
        clocks=chart.clocks[: number + 1],
        first_neutropenia=first if first is not None and first < day else None,
    )


def _restarted(gap: Gap) -> date:
    return gap.restart


def _first_neutropenia(
    protocol: MonitoringProtocol, population: Population, treated: Counts, lowest: Count | None
) -> date | None:
    if lowest is None or band(protocol, population, lowest).kind == "normal":
        return None
    return next((c.on for c in treated if band(protocol, population, c).kind != "normal"), None)


def _stop_counts(
    protocol: MonitoringProtocol, course: TreatmentCourse, treated: Counts, lowest: Count | None
) -> list[Count]:
    """Counts under treatment below the stop threshold of their own day: a later record of benign ethnic neutropenia
    lifts no stop (N-7)."""
    if lowest is None or not protocol.after_stop.permanent:
        return []
    if band(protocol, Population.GENERAL, lowest).kind != "stop":
        return []
    return [c for c in treated if band(protocol, population_on(course, c.on), c).kind == "stop"]


def _under_treatment(course: TreatmentCourse, counts: Counts) -> Counts:
    """After the day of the first dose; and those of an earlier course that ended before it (A-14, B-20)."""
    start = course.start
    earlier_stop = course.stop.on if course.stop is not None and (start is None or course.stop.on < start) else None
    if earlier_stop is None and start is not None:
        return counts.after(start)
    return Counts.of(
        c for c in counts if (start is not None and c.on > start) or (earlier_stop is not None and c.on <= earlier_stop)
    )


def _gaps(
    protocol: MonitoringProtocol, course: TreatmentCourse, as_of: date, first_neutropenia: date | None, *, lifted: bool
) -> tuple[tuple[Gap, ...], tuple[Clock, ...], date | None]:
    """Closed gaps in order with the clock after each, and the last dose of a gap still open (B-23)."""
    start = course.start if course.start is not None else as_of
    clock = Clock(start)
    if not course.interruptions:
        return (), (clock,), None
    policy = protocol.gaps
    gaps: list[Gap] = []
    clocks = [clock]
    open_since: date | None = None
    for interruption in sorted(course.interruptions, key=lambda i: i.last_dose):
        last_dose = interruption.last_dose.date()
        if last_dose < start or last_dose > as_of:
            continue
        restart = interruption.restart
        if restart is None or restart.date() > as_of:
            if (as_of - last_dose).days >= policy.counted_from.days:
                open_since = last_dose
            continue
        length = restart - interruption.last_dose
        if length <= timedelta(0):
            continue
        counted = length >= policy.counted_from.length
        judged = length if counted else _sum_of_short(protocol, gaps, last_dose, restart.date(), length)
        rule = None
        if judged >= policy.counted_from.length:
            past = course.prior_neutropenia is not PriorNeutropenia.NONE or lifted
            history = past or (first_neutropenia is not None and first_neutropenia <= last_dose)
            rule = _rule_for(protocol, judged, clock, last_dose, history=history)
        if counted:
            # Part days round toward the younger patient.
            clock = Clock(clock.start, clock.lost_days - (-length // _DAY))
        if rule is not None and rule.new_patient:
            clock = Clock(restart.date())
        until = _window_end(rule, clock, restart.date())
        gaps.append(Gap(last_dose, restart.date(), length, rule, rule is not None and not counted, until, clock))
        clocks.append(clock)
        open_since = None
    return tuple(gaps), tuple(clocks), open_since


def _sum_of_short(
    protocol: MonitoringProtocol, gaps: list[Gap], last_dose: date, restart: date, length: timedelta
) -> timedelta:
    """B-22: gaps under the limit are summed within the window that ends with this restart."""
    since = restart - timedelta(days=protocol.gaps.summed_within.days)
    short = protocol.gaps.counted_from.length
    return length + sum((g.length for g in gaps if g.length < short and g.restart > since), timedelta(0))


def _rule_for(
    protocol: MonitoringProtocol, gap: timedelta, clock: Clock, last_dose: date, *, history: bool
) -> InterruptionRule | None:
    def treated(span: Span) -> bool:
        return last_dose >= anniversary(clock.start, span, clock.lost_days)

    for rule in protocol.interruptions:
        if (
            gap >= rule.gap_at_least.length
            and (rule.gap_below is None or gap < rule.gap_below.length)
            and (rule.treated_at_least is None or treated(rule.treated_at_least))
            and (rule.treated_below is None or not treated(rule.treated_below))
            and not (rule.without_neutropenia and history)
        ):
            return rule
    return None


def _window_end(rule: InterruptionRule | None, clock: Clock, restart: date) -> date | None:
    if rule is None or rule.window is None:
        return None
    end = restart + timedelta(days=rule.window.days)
    if rule.window_until_treated is not None:
        end = max(end, anniversary(clock.start, rule.window_until_treated, clock.lost_days))
    return end


def _stop(
    protocol: MonitoringProtocol,
    course: TreatmentCourse,
    low: list[Count],
    gaps: tuple[Gap, ...],
    as_of: date,
    open_since: date | None,
    *,
    lifted: bool,
) -> Stopped | None:
    """The complete stop in force. A count below the threshold is one by itself (A-12, B-17); nothing later undoes it."""
    recorded = course.stop
    if recorded is not None and (recorded.on > as_of or course.start is None or recorded.on < course.start):
        recorded = None
    ends = recorded is not None and (lifted or not recorded.reason.haematological)
    if recorded is not None and ends and any(g.restart > recorded.on for g in gaps):
        recorded = None  # B-23: a recorded restart ends a stop for another reason, and one that was lifted.
    sure = next((c.on for c in low if c.absolute), None)
    if recorded is not None:
        haematological = recorded.reason.haematological or bool(low)
        on = recorded.on
        if low and not recorded.reason.haematological:
            on = max(on, low[0].on)
        for_ever = recorded.reason.haematological and not lifted
        banned = protocol.after_stop.permanent and (for_ever or sure is not None)
        return Stopped(on, haematological, banned, min(low[0].on, on) if low else on, recorded=True)
    if low:
        return Stopped(low[0].on, True, sure is not None, low[0].on, recorded=False)
    if open_since is not None:
        return Stopped(open_since, False, False, open_since, recorded=False)
    return None
