"""The verdict when no count came: signs of infection, lateness, or nothing to do yet."""

from __future__ import annotations

from datetime import date
from typing import assert_never

from rules.course import Chart, Place
from rules.model import AlertFamily, AlertLevel, Assessment
from rules.protocol import Grounds
from rules.schedule import due_of, valid_baseline
from rules.verdict import contraindicated, merged, risk_remarks, verdict

__all__ = ["infection_pending", "judge_absence"]

CATEGORY = "no_result"


def infection_pending(chart: Chart) -> bool:
    """R7: signs are on record, and no established count of their day or later answers them (N-6)."""
    signs = chart.course.infection_signs_on
    return signs is not None and signs <= chart.as_of and not any(c.on >= signs for c in chart.counts[-1:])


def judge_absence(chart: Chart) -> Assessment:
    """``chart.as_of`` without a count: what is to be done, and how urgently."""
    match chart.place:
        case Place.BEFORE:
            return _before_start(chart)
        case Place.UNDER:
            return _exposed_again(chart) if chart.banned_before else _signs(chart) or _scheduled(chart)
        case Place.AFTER:
            return _after_stop(chart)
        case _:
            assert_never(chart.place)


def _before_start(chart: Chart) -> Assessment:
    if chart.banned_before:
        return _exposed_again(chart)
    rule, start = chart.protocol.initiation_of(chart.population), chart.course.start
    baseline = chart.protocol.baseline
    signs = infection_pending(chart)
    if signs and start == chart.as_of:
        return _asked_by_signs(chart)  # the first dose may have been given: R7 holds at any time
    # A count from before the signs of infection says nothing of the patient who is to be started.
    if start is not None and not signs and valid_baseline(chart, start):
        return _scheduled(chart)
    return verdict(
        chart,
        None,
        CATEGORY,
        baseline.obtain_action,
        AlertLevel.NONE if start is None else baseline.alert_when_planned,
        (rule.grounds,),
        readings=baseline.readings,
        next_due=start,
        family=AlertFamily.START,
        episode_on=start or chart.as_of,
    )


def _exposed_again(chart: Chart) -> Assessment:
    return merged(contraindicated(chart, None), ("no-reexposure",))


def _signs(chart: Chart) -> Assessment | None:
    return _asked_by_signs(chart) if infection_pending(chart) else None


def _asked_by_signs(chart: Chart) -> Assessment:
    rule = chart.protocol.infection
    return verdict(
        chart,
        None,
        CATEGORY,
        rule.action,
        rule.alert,
        (rule.grounds,),
        next_due=chart.as_of,
        family=AlertFamily.OVERDUE,
        episode_on=chart.course.infection_signs_on,
        remarks=risk_remarks(chart),
    )


def _scheduled(chart: Chart, grounds: Grounds | None = None) -> Assessment:
    """B-11, B-12."""
    rule, found = chart.protocol.overdue, due_of(chart)
    late = found.level is not AlertLevel.NONE
    episode: date | None = found.counted_from or found.next_due
    return verdict(
        chart,
        None,
        CATEGORY,
        rule.action if late else rule.await_action,
        found.level,
        (rule.grounds,) if grounds is None else (grounds, rule.grounds),
        next_due=found.next_due,
        recheck_by=found.recheck_by,
        family=AlertFamily.OVERDUE,
        episode_on=episode,
        late_days=found.late_days,
        shorter=found.shortened_by,
        remarks=risk_remarks(chart),
    )


def _after_stop(chart: Chart) -> Assessment:
    rule, stop = chart.protocol.after_stop, chart.stop
    assert stop is not None  # noqa: S101 - Place.AFTER
    found = due_of(chart)
    remarks = () if stop.recorded else ("stop-not-recorded" if stop.haematological else "restart-not-recorded",)
    if found.next_due is None:
        ended = verdict(
            chart,
            None,
            CATEGORY,
            rule.complete_banned_action if stop.banned else rule.complete_action,
            AlertLevel.NONE,
            (rule.follow_up,),
            readings=rule.recovery_readings if stop.haematological else rule.other_readings,
        )
        return merged(ended, (*remarks, *_ban(stop.banned)))
    asked = _signs(chart) or _scheduled(chart, rule.follow_up)
    return merged(asked, (*remarks, *_ban(stop.banned)), rule.recovery_readings if stop.haematological else ())


def _ban(banned: bool) -> tuple[str, ...]:
    return ("no-reexposure",) if banned else ()
