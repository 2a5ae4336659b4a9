"""What the protocol and the counts on file allow an override to say (clinical.md B-27): never longer, never R5."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from rules.changes import Limits
from rules.course import Chart, Place, is_borderline, open_chart
from rules.model import LabResult, TreatmentCourse
from rules.protocol import MonitoringProtocol
from rules.record import band, population_on
from rules.schedule import phase_of
from rules.span import Span, due_after

__all__ = ["limits_of"]


def limits_of(
    protocol: MonitoringProtocol, course: TreatmentCourse, history: Sequence[LabResult], today: date
) -> Limits:
    """As things stand today; ``history`` holds the current versions of all counts."""
    chart = open_chart(protocol, course, history, today)
    bands = [(count, band(protocol, population_on(course, count.on), count)) for count in chart.counts]
    return Limits(
        longest_days=min((due_after(today, span) - today).days for span in _intervals(chart)),
        borderline_on=frozenset(count.on for count in chart.counts if is_borderline(protocol, chart.population, count)),
        below_stop_on_file=any(found.kind == "stop" for _, found in bands),
    )


def _intervals(chart: Chart) -> list[Span]:
    """Those that apply to a sound count of today, overrides aside; the shortest is the longest permitted."""
    protocol = chart.protocol
    match chart.place:
        case Place.BEFORE:
            return [protocol.phases[0].interval]
        case Place.AFTER:
            return [protocol.after_stop.interval]
        case Place.UNDER:
            pass
    spans = [phase_of(chart, chart.as_of, neutropenia=chart.has_neutropenia).interval]
    if chart.has_neutropenia:
        spans.append(protocol.after_mild.interval)
    elif chart.past_unknown:
        spans.append(protocol.unknown_past.interval)
    window = chart.window
    if window is not None and window.rule.interval is not None:
        spans.append(window.rule.interval)
    return spans
