"""Puts a verdict together: citations, readings, remarks and the arithmetic in words."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from decimal import Decimal
from operator import attrgetter

from rules.counts import UNCOUNTED, Count
from rules.course import Chart, Place, shortened
from rules.explain import explain
from rules.model import AlertFamily, AlertLevel, Assessment, LabResult, Override
from rules.protocol import Grounds
from rules.record import band
from rules.span import Span, anniversary, due_after

__all__ = [
    "contraindicated",
    "count_remarks",
    "earliest",
    "highest",
    "merged",
    "risk_applies",
    "risk_remarks",
    "verdict",
]


_FIELDS = tuple(one.name for one in fields(Assessment))
_values = attrgetter(*_FIELDS)
_rank = attrgetter("rank")


def verdict(
    chart: Chart,
    count: Count | None,
    category: str,
    action: str,
    alert: AlertLevel,
    grounds: tuple[Grounds, ...],
    *,
    readings: tuple[str, ...] = (),
    next_due: date | None = None,
    recheck_by: date | None = None,
    weekly_until: date | None = None,
    retitrate: bool = False,
    no_reexposure: bool = False,
    provisional: bool = False,
    family: AlertFamily | None = None,
    episode_on: date | None = None,
    threshold: object = None,
    remarks: tuple[str, ...] = (),
    interval: Span | None = None,
    late_days: int = 0,
    shorter: Override | None = None,
) -> Assessment:
    """One Assessment; the first of ``grounds`` names the rule, all of them are cited."""
    limit = threshold if isinstance(threshold, Decimal) else None
    overrides = chart.overrides
    if count is not None and next_due is not None and chart.place is not Place.BEFORE:
        next_due, shorter = shortened(chart, chart.as_of, next_due)
    if shorter is not None:
        overrides = (*overrides, shorter)
        interval = None
    if overrides:
        readings = (*readings, *(reading.id for reading in chart.protocol.readings if reading.id == "B-27"))
        remarks = (*remarks, *dict.fromkeys(f"override-{override.kind.value}" for override in overrides))
    named = [reading for ground in grounds for reading in ground.readings]
    return Assessment(
        protocol=chart.protocol.name,
        category=category,
        action=action,
        alert=alert,
        rule=grounds[0].rule,
        citations=tuple(dict.fromkeys(ground.cite for ground in grounds)),
        readings=tuple(dict.fromkeys((*named, *readings))),
        next_due=next_due,
        recommended_recheck_by=recheck_by,
        weekly_until=weekly_until,
        no_reexposure=no_reexposure,
        retitrate=retitrate,
        provisional=provisional,
        remarks=remarks,
        family=family if family is not None and alert is not AlertLevel.NONE else None,
        episode_on=episode_on if alert is not AlertLevel.NONE else None,
        as_of=chart.as_of,
        threshold_per_mm3=limit,
        explanation=explain(chart, count, limit, next_due, recheck_by, interval, late_days, overrides),
    )


def contraindicated(chart: Chart, count: Count | None) -> Assessment:
    """R5 on file: no new start; and a treatment that runs in spite of it is counted weekly (N-11)."""
    rule = chart.protocol.after_stop
    exposed = chart.place is Place.UNDER
    stop = chart.course.stop
    attested = chart.course.prior_attested
    since = stop.on if stop is not None else attested.on if attested is not None else chart.as_of
    if chart.exposed and chart.course.reexposed_on is not None:
        since = chart.course.reexposed_on  # an alert of its own: that of the stop was answered
    return verdict(
        chart,
        count,
        "contraindicated",
        rule.reexposure_action,
        rule.reexposure_alert,
        (rule.stop,),
        readings=chart.protocol.conventions.exposed if exposed else (),
        next_due=due_after(chart.as_of, rule.interval) if exposed else None,
        family=AlertFamily.STOP,
        episode_on=since,
        no_reexposure=True,
    )


def merged(found: Assessment, remarks: tuple[str, ...] = (), readings: tuple[str, ...] = ()) -> Assessment:
    """``found`` with more remarks and readings, each once."""
    # What dataclasses.replace does, at half its price.
    changed = dict(zip(_FIELDS, _values(found), strict=True))
    changed["remarks"] = tuple(dict.fromkeys((*found.remarks, *remarks)))
    changed["readings"] = tuple(dict.fromkeys((*found.readings, *readings)))
    changed["no_reexposure"] = found.no_reexposure or "no-reexposure" in remarks
    return Assessment(**changed)


def highest(*levels: AlertLevel) -> AlertLevel:
    return max(levels, key=_rank)


def earliest(*days: date | None) -> date | None:
    return min((day for day in days if day is not None), default=None)


def count_remarks(chart: Chart, count: Count, result: LabResult | None, found: Assessment) -> Assessment:
    """A-22 and 4.3: what the reader of the count should know of the number itself."""
    anc = result.anc if result is not None else None
    remarks: list[str] = []
    if chart.protocol.leukocyte_bands and count.leukocytes == UNCOUNTED:
        remarks.append("leukocytes-missing")
    if anc is None:
        return merged(found, tuple(remarks)) if remarks else found
    if anc.comparator is not None:
        remarks.append("censored")
    if anc.derived:
        remarks.append("derived")
        bands = chart.protocol.bands_of(chart.population)
        point = next((r for r in bands if r.holds(anc.per_mm3)), None)
        if point is not None and point is not band(chart.protocol, chart.population, count):
            remarks.append("derived-across-threshold")
    unit = anc.reporting_unit
    if unit is not None and any(abs(anc.per_mm3 - limit) <= unit for limit in _thresholds(chart)):
        remarks.append("precision")
    return merged(found, tuple(remarks), chart.protocol.conventions.number) if remarks else found


def _thresholds(chart: Chart) -> list[Decimal]:
    limits = [r.low for r in chart.protocol.bands_of(chart.population) if r.low > 0]
    return [*limits, chart.protocol.initiation_of(chart.population).at_least]


def risk_remarks(chart: Chart) -> tuple[str, ...]:
    """R9: said, never counted (A-18)."""
    course, rule = chart.course, chart.protocol.risk
    if rule is None:
        return ()
    elderly = course.birth_date is not None and chart.as_of >= anniversary(course.birth_date, rule.elderly_from)
    return (*(("elderly",) if elderly else ()), *(("valproate",) if course.valproate else ()))


def risk_applies(chart: Chart) -> bool:
    """N-4: the note makes every count under treatment information, at the start and later."""
    return bool(risk_remarks(chart))
