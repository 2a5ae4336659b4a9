"""When the next count is due: treated time, gaps, windows, phases, and how late a missing count is.

Days are dates; ``day 0`` is the day of the first dose. Intervals are maxima (A-24), fixed on the day of the count (B-2).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from operator import itemgetter

from rules.counts import UNCOUNTED, Count
from rules.course import Chart, Place, Window, chart_at, open_chart, shortened
from rules.model import AlertLevel, LabResult, Override, TreatmentCourse
from rules.protocol import Initiation, MonitoringProtocol, Phase, Range
from rules.record import band
from rules.span import Span, anniversary, due_after

__all__ = ["Due", "FollowUp", "Why", "due", "due_of", "follow_up", "phase_of"]


class Why(enum.StrEnum):
    """Why a date is what it is."""

    NO_SCHEDULE = "no-schedule"
    BEFORE_START = "before-start"
    FIRST_COUNT = "first-count"
    AFTER_COUNT = "after-count"
    AFTER_RESTART = "after-restart"
    AFTER_STOP = "after-stop"
    DOUBTFUL_LOW = "doubtful-low-count"


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What one count asks for next. ``interval`` is the one that gave ``next_due``."""

    next_due: date
    interval: Span
    recheck_by: date | None
    phase: Phase
    window: Window | None
    opens_or_falls: bool
    """A mild count that opens an episode or is not yet stable (B-10)."""
    lately: Range | None = None
    """The low band whose aftermath asks for closer counts still."""


@dataclass(frozen=True, slots=True)
class Due:
    """The next count of a patient. ``level`` none: not late; ``counted_from``: the date that lateness counts from (B-11)."""

    next_due: date | None
    recheck_by: date | None
    level: AlertLevel
    counted_from: date | None
    late_days: int
    reason: Why
    shortened_by: Override | None = None
    """The clinician's shorter interval, where it gave ``next_due`` (B-27)."""


def due(protocol: MonitoringProtocol, course: TreatmentCourse, history: Sequence[LabResult], as_of: date) -> Due:
    """When the next count is due as things stand on ``as_of``, and how late it is."""
    return due_of(open_chart(protocol, course, history, as_of))


def due_of(chart: Chart) -> Due:
    match chart.place:
        case Place.BEFORE:
            return _due_before(chart)
        case Place.UNDER:
            return _due_under(chart)
        case Place.AFTER:
            return _due_after_stop(chart)


def phase_of(chart: Chart, day: date, *, neutropenia: bool) -> Phase:
    """The phase of treated time on ``day``; phases for a clean history are closed to the others (R3c, R3d, R4)."""
    clock = chart.clock_on(day)
    closed = neutropenia or chart.past_unknown
    for phase in reversed(chart.protocol.phases):
        if phase.without_neutropenia and closed:
            continue
        if day >= anniversary(clock.start, phase.since, clock.lost_days):
            return phase
    return chart.protocol.phases[0]


def follow_up(chart: Chart, count: Count) -> FollowUp:
    """What ``count``, taken on ``chart.as_of`` under treatment, asks for: the earliest of all that apply."""
    protocol = chart.protocol
    mild = protocol.after_mild
    kind = band(protocol, chart.population, count).kind
    is_mild = kind == "mild"
    history = is_mild or chart.has_neutropenia
    phase = phase_of(chart, chart.as_of, neutropenia=history)
    spans = [phase.interval]
    if history:
        spans.append(mild.interval)
    elif chart.past_unknown:
        spans.append(protocol.unknown_past.interval)
    if kind == "stop":
        spans.append(protocol.after_stop.low_interval)
    lately = _lately(chart) if protocol.aftermath and kind == "normal" else None
    if lately is not None and lately.after is not None:
        spans.append(lately.after.interval)
    window = chart.window
    if window is not None and window.rule.interval is not None:
        spans.append(window.rule.interval)
    next_due, interval = min(((due_after(chart.as_of, span), span) for span in spans), key=itemgetter(0))
    unsettled = is_mild and not _settled(chart, count)
    recheck = due_after(chart.as_of, mild.recheck) if unsettled and mild.recheck is not None else None
    return FollowUp(next_due, interval, recheck, phase, window, unsettled, lately)


def _lately(chart: Chart) -> Range | None:
    """The band of the last low counts whose aftermath is not over on a day with a normal count."""
    normal_since = chart.as_of
    low = False
    for earlier in reversed(chart.treated_counts):
        found = band(chart.protocol, chart.population, earlier)
        if found.kind != "normal":
            low = True
            if found.after is not None:
                return found if chart.as_of < due_after(normal_since, found.after.period) else None
        elif low:
            return None
        else:
            normal_since = earlier.on
    return None


def _settled(chart: Chart, count: Count) -> bool:
    """B-10: known and stable. An episode settles once a value is not lower than the mild one before it, and is
    unsettled again by a fall of more than ``fall_percent`` against the previous count."""
    mild = band(chart.protocol, chart.population, count)
    keeps = 100 - chart.protocol.after_mild.fall_percent
    after = count
    # Backwards: the last pair that says anything decides.
    for before in reversed(chart.treated_counts):
        if not mild.holds(before.per_mm3, before.just_below):
            return False
        if (after.per_mm3, not after.just_below) >= (before.per_mm3, not before.just_below):
            return True
        if after.per_mm3 * 100 < before.per_mm3 * keeps:
            return False
        after = before
    return False


def _due_before(chart: Chart) -> Due:
    """R2 asks for a count before the first dose; with a valid one, the first count under treatment comes next."""
    start = chart.course.start
    if start is None:
        return _on_time(None, Why.NO_SCHEDULE)
    if valid_baseline(chart, start):
        return _on_time(due_after(start, chart.protocol.phases[0].interval), Why.FIRST_COUNT)
    return _on_time(start, Why.BEFORE_START)


def valid_baseline(chart: Chart, start: date) -> bool:
    """A count that meets R2, taken no longer before ``start`` than a baseline holds (B-18); the last one decides."""
    if not chart.counts:
        return False
    last = chart.counts[-1]
    rule = chart.protocol.initiation_of(chart.population)
    fresh = due_after(last.on, chart.protocol.baseline.valid_for) >= start
    return fresh and may_start(last, rule)


def may_start(count: Count, rule: Initiation) -> bool:
    """R2. Where leukocytes are a criterion too, a count without them permits nothing."""
    least = rule.leukocytes_at_least
    return meets(count, rule.at_least) and (least is None or least <= count.leukocytes < UNCOUNTED)


def meets(count: Count, at_least: Decimal) -> bool:
    """Whether the count is at or above a threshold; "<x" is not at x (A-22)."""
    return count.per_mm3 > at_least or (count.per_mm3 == at_least and not count.just_below)


def _due_under(chart: Chart) -> Due:
    protocol = chart.protocol
    start = chart.course.start
    assert start is not None  # noqa: S101 - Place.UNDER
    since_restart = chart.restart
    last = chart.treated_counts[-1] if chart.treated_counts else None
    if last is None:
        first = protocol.phases[0].interval
        next_due, interval, recheck, why = due_after(start, first), first, None, Why.FIRST_COUNT
    else:
        asked = follow_up(chart_at(chart, last.on), last)
        next_due, interval, recheck, why = asked.next_due, asked.interval, asked.recheck_by, Why.AFTER_COUNT
    if since_restart is not None and (last is None or last.on <= since_restart.last_dose):
        # a count is asked for on the day of the restart; R8: one interval later it is due.
        recheck = since_restart.restart if recheck is None else min(recheck, since_restart.restart)
        window_interval = since_restart.rule.interval if since_restart.rule else None
        if window_interval is not None and due_after(since_restart.restart, window_interval) <= next_due:
            next_due, interval, why = (
                due_after(since_restart.restart, window_interval),
                window_interval,
                Why.AFTER_RESTART,
            )
    elif since_restart is not None and last is not None and last.on < since_restart.restart and since_restart.rule:
        # A count of the gap answers A-20 for one interval of the window, which begins with the restart.
        window_interval = since_restart.rule.interval
        if window_interval is not None:
            asked_for = max(since_restart.restart, due_after(last.on, window_interval))
            if asked_for <= next_due:
                next_due, interval, why = asked_for, window_interval, Why.AFTER_RESTART
    since = start if last is None else last.on
    return _late(chart, since, next_due, interval, _with_doubt(chart, last, recheck), why)


def _with_doubt(chart: Chart, last: Count | None, recheck: date | None) -> date | None:
    """A doubtful low count that nothing has answered asks for a repeat, and never for less than is due anyway."""
    protocol = chart.protocol
    for doubt in chart.doubtful:
        if (last is not None and doubt.on <= last.on) or doubt.on <= (chart.course.start or doubt.on):
            continue
        kind = band(protocol, chart.population, doubt).kind
        if kind != "normal":
            asked = protocol.after_stop if kind == "stop" else protocol.after_mild
            repeat = due_after(doubt.on, asked.recheck or asked.interval)
            recheck = repeat if recheck is None else min(recheck, repeat)
    return recheck


def _due_after_stop(chart: Chart) -> Due:
    rule = chart.protocol.after_stop
    stop = chart.stop
    assert stop is not None  # noqa: S101 - Place.AFTER
    last = chart.counts[-1] if chart.counts else None
    over = chart.as_of >= due_after(stop.on, rule.period)
    recovered = last is not None and last.on >= stop.on and meets(last, rule.recovery(chart.population))
    low = last is not None and band(chart.protocol, chart.population, last).kind == "stop"
    # Until someone has recorded a stop for the count, the drug may run on: nothing ends (B-17).
    recovered = recovered and stop.recorded
    if over and (recovered or not stop.haematological) and not (low and last is not None and last.on >= stop.on):
        return _on_time(None, Why.NO_SCHEDULE)
    since = max(last.on, stop.on) if last is not None else stop.on
    unknown = last is None or last.on < stop.on
    asked = rule.recheck is not None and (low or (unknown and stop.haematological))
    recheck = due_after(since, rule.recheck) if asked and rule.recheck is not None else None
    interval = rule.low_interval if low else rule.interval
    return _late(chart, since, due_after(since, interval), interval, _with_doubt(chart, last, recheck), Why.AFTER_STOP)


def _on_time(next_due: date | None, why: Why) -> Due:
    return Due(next_due, None, AlertLevel.NONE, None, 0, why)


def _late(chart: Chart, since: date, next_due: date, interval: Span, recheck: date | None, why: Why) -> Due:
    """B-11: late from the earlier of the two dates; sooner red in a weekly phase or on a recheck."""
    rule = chart.protocol.overdue
    next_due, shorter = shortened(chart, since, next_due)
    if shorter is not None and shorter.days is not None:
        interval = Span(shorter.days, "day")
    counted_from = next_due if recheck is None else min(next_due, recheck)
    late = (chart.as_of - counted_from).days
    if late <= 0:
        return Due(next_due, recheck, AlertLevel.NONE, counted_from, 0, why, shorter)
    on_recheck = recheck is not None and recheck <= next_due
    weekly = interval.unit != "year" and interval.days <= rule.weekly_is.days
    tolerance = rule.late_after_weekly if on_recheck or weekly else rule.late_after
    level = rule.late_alert if late > tolerance.days else rule.alert
    return Due(next_due, recheck, level, counted_from, late, why, shorter)
