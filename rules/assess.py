"""The verdict on one neutrophil count, or on its absence, for one patient on one day (clinical.md 1.6).

Pure: what is not in the arguments does not exist. Doubt may raise a verdict and never lowers one (promise 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import assert_never

from rules.absent import infection_pending, judge_absence
from rules.counts import Count
from rules.course import Chart, Place, chart_of
from rules.model import AlertFamily, AlertLevel, Assessment, CourseState, LabResult, TreatmentCourse, Unassessable
from rules.protocol import Grounds, InterruptionRule, MonitoringProtocol, Range
from rules.record import band, count_of, is_after_first_dose, is_provisional, read_record, with_first_day, worse
from rules.schedule import FollowUp, follow_up, may_start, meets, phase_of
from rules.span import anniversary, due_after
from rules.verdict import contraindicated, count_remarks, earliest, highest, merged, risk_applies, risk_remarks, verdict

__all__ = ["assess"]


def assess(
    protocol: MonitoringProtocol,
    course: TreatmentCourse,
    history: Sequence[LabResult],
    result: LabResult | None,
    as_of: date,
) -> Assessment | Unassessable:
    """Judge ``result`` (None: no count came) of the day ``as_of`` against the patient's course and other results.

    ``as_of`` is the day of evaluation; for a result the local day of its collection. ``history`` holds other results in
    any order; later, withdrawn and superseded ones are not used, provisional ones only to raise.
    """
    if result is not None and (problem := _problem(result)) is not None:
        return problem
    record = with_first_day(read_record(history, as_of, result), course, history, result)
    if result is None:
        chart = chart_of(protocol, course, record, as_of, before_only=False)
        return _silenced(judge_absence(chart), course, came=False)
    assert result.anc is not None  # noqa: S101 - _problem
    own = count_of(result.anc, as_of, result.wbc_per_mm3)
    chart = chart_of(protocol, course, record, as_of, before_only=True)
    same_day = [c for c in record.counts[-1:] if c.on == as_of]
    if is_provisional(result) or _upper_limit_only(chart, own):
        dosed = _dosed(chart, own, course, result, record.after_dose)
        without = chart_of(protocol, course, record, as_of, before_only=False)
        found = _judge(dosed, own, result)
        if same_day and worse(same_day[0], own) == same_day[0]:
            found = replace(found, alert=AlertLevel.NONE)  # an established count of the day is no higher
        found = _doubtful(judge_absence(without), found, protocol)
    else:
        count = worse(same_day[0], own) if same_day else own
        chart = _dosed(chart, count, course, result, record.after_dose)
        found = _judge(chart, count, result if count is own else None)
        if same_day:
            found = merged(found, ("several-counts",), protocol.conventions.several_counts)
    return _silenced(_with_ban(chart, found), course, came=True)


def _dosed(chart: Chart, count: Count, course: TreatmentCourse, result: LabResult, after_dose: Count | None) -> Chart:
    """B-18: on the day of the first dose a stop-level count is a stop, if it was taken after an administration."""
    dosed = is_after_first_dose(course, result) or (after_dose is not None and after_dose.on == chart.as_of)
    if chart.place is Place.BEFORE and dosed and band(chart.protocol, chart.population, count).kind == "stop":
        return replace(chart, place=Place.UNDER)
    return chart


def _problem(result: LabResult) -> Unassessable | None:
    if result.status.withdrawn:
        return Unassessable("withdrawn", f"the laboratory has taken this result back ({result.status})", result.where)
    if result.anc is None:
        return Unassessable("no-value", "the result holds no neutrophil count", result.where)
    values = [result.anc.per_mm3, *([result.anc.lower_bound] if result.anc.lower_bound is not None else [])]
    if not all(value.is_finite() and value >= 0 for value in values):
        return Unassessable("impossible-value", f"{result.anc.per_mm3} is not a cell count", result.where)
    return None


def _silenced(found: Assessment, course: TreatmentCourse, *, came: bool) -> Assessment:
    """B-30: death silences; the verdict stays readable. A count that comes after a transfer is judged all the same; only
    what does not come is the receiver's, once he has accepted."""
    match course.state:
        case CourseState.DECEASED:
            remark = "deceased"
        case CourseState.TRANSFERRED:
            remark = "transferred"
        case CourseState.ACTIVE | CourseState.LOST:
            return found
        case _:
            assert_never(course.state)
    if came and course.state is CourseState.TRANSFERRED:
        return merged(found, (remark,))
    return merged(replace(found, alert=AlertLevel.NONE, next_due=None, recommended_recheck_by=None), (remark,))


def _with_ban(chart: Chart, found: Assessment) -> Assessment:
    """R5 on file is a remark on every later verdict, not a category that hides the others."""
    banned = chart.banned_before or (chart.stop is not None and chart.stop.banned)
    if (banned or found.no_reexposure) and "no-reexposure" not in found.remarks:
        return merged(replace(found, no_reexposure=True), ("no-reexposure",))
    return found


def _upper_limit_only(chart: Chart, count: Count) -> bool:
    """N-8: "<x" far above every threshold says nothing that could reassure."""
    return count.just_below and band(chart.protocol, chart.population, count).kind == "normal"


def _doubtful(without: Assessment, found: Assessment, protocol: MonitoringProtocol) -> Assessment:
    """Promise 3: the count raises what would hold without it, or changes nothing but the record that it came."""
    remarks = ("provisional",)
    if found.alert.rank >= AlertLevel.AMBER.rank and found.alert.rank >= without.alert.rank:
        raised = replace(
            found,
            provisional=True,
            no_reexposure=without.no_reexposure,
            next_due=earliest(found.next_due, without.next_due),
            recommended_recheck_by=earliest(found.recommended_recheck_by, without.recommended_recheck_by),
        )
        return merged(raised, remarks, protocol.conventions.doubt)
    kept = replace(without, provisional=True, category=found.category, explanation=found.explanation)
    return merged(kept, (*found.remarks, *remarks), protocol.conventions.doubt)


def _judge(chart: Chart, count: Count, result: LabResult | None) -> Assessment:
    match chart.place:
        case Place.BEFORE:
            found = _before_start(chart, count)
        case Place.UNDER:
            found = _under_treatment(chart, count)
        case Place.AFTER:
            found = _after_stop(chart, count)
        case _:
            assert_never(chart.place)
    return count_remarks(chart, count, result, found)


def _before_start(chart: Chart, count: Count) -> Assessment:
    rule = chart.protocol.initiation_of(chart.population)
    start = chart.course.start
    if chart.banned_before:
        return contraindicated(chart, count)
    low_before = any(band(chart.protocol, chart.population, c).kind != "normal" for c in chart.counts)
    remarks = ("earlier-low-count",) if low_before else ()
    if not may_start(count, rule):
        return _below_initiation(chart, count, remarks)
    if start is not None and due_after(chart.as_of, chart.protocol.baseline.valid_for) < start:
        baseline = chart.protocol.baseline
        return verdict(
            chart,
            count,
            "eligible",
            baseline.obtain_action,
            baseline.alert_when_planned,
            (rule.grounds,),
            readings=baseline.readings,
            next_due=start,
            family=AlertFamily.START,
            episode_on=start,
            provisional=True,
            remarks=(*remarks, "baseline-too-old"),
            threshold=rule.at_least,
        )
    first = chart.protocol.phases[0]
    grounds: tuple[Grounds, ...] = (rule.grounds,) if start is None else (rule.grounds, first.grounds)
    signs = infection_pending(chart)
    return verdict(
        chart,
        count,
        "eligible",
        rule.action,
        chart.protocol.infection.normal_alert if signs else AlertLevel.NONE,
        (*grounds, chart.protocol.infection.grounds) if signs else grounds,
        next_due=None if start is None else due_after(start, first.interval),
        family=AlertFamily.START,
        episode_on=chart.as_of,
        remarks=(*remarks, "infection-signs") if signs else remarks,
        threshold=rule.at_least,
    )


def _below_initiation(chart: Chart, count: Count, remarks: tuple[str, ...] = ()) -> Assessment:
    rule = chart.protocol.initiation_of(chart.population)
    return verdict(
        chart,
        count,
        "below_initiation_threshold",
        rule.refused_action,
        rule.refused_alert,
        (rule.grounds,),
        family=AlertFamily.START,
        episode_on=chart.as_of,
        remarks=remarks,
        threshold=rule.at_least,
    )


def _under_treatment(chart: Chart, count: Count) -> Assessment:
    found = band(chart.protocol, chart.population, count)
    if found.kind == "stop":
        return _stop_now(chart, count, found)
    if chart.banned_before:
        return contraindicated(chart, count)
    gap = chart.restart
    # B-21: on the day of a restart as a new patient the count is a pre-dose count.
    if gap is not None and gap.rule is not None and gap.rule.initiation_threshold and gap.restart == chart.as_of:
        rule = chart.protocol.initiation_of(chart.population)
        if not may_start(count, rule):
            return merged(_below_initiation(chart, count), (), gap.rule.grounds.readings)
    return _continue(chart, count, found)


def _stop_now(chart: Chart, count: Count, found: Range) -> Assessment:
    rule = chart.protocol.after_stop
    signs = infection_pending(chart)
    alert = highest(found.alert, chart.protocol.infection.stop_alert) if signs else found.alert
    if chart.banned_before:
        alert = highest(alert, rule.reexposure_alert)  # treated in spite of a ban (N-11): a low count is no better news
    grounds = [found.grounds, rule.follow_up]
    return verdict(
        chart,
        count,
        found.id,
        found.action,
        alert,
        (*grounds, chart.protocol.infection.grounds) if signs else tuple(grounds),
        readings=chart.protocol.conventions.stop,
        next_due=due_after(chart.as_of, rule.low_interval),
        recheck_by=_recheck(chart),
        family=AlertFamily.STOP,
        episode_on=chart.stop.episode_on if chart.stop is not None else chart.as_of,
        no_reexposure=rule.permanent and count.absolute,
        threshold=_stop_threshold(chart),
        remarks=() if count.absolute or not rule.permanent else ("ban-unconfirmed",),
    )


def _recheck(chart: Chart) -> date | None:
    soon = chart.protocol.after_stop.recheck
    return due_after(chart.as_of, soon) if soon is not None else None


def _stop_threshold(chart: Chart) -> object:
    return next(r.low for r in chart.protocol.bands_of(chart.population) if r.kind != "stop")


def _continue(chart: Chart, count: Count, found: Range) -> Assessment:
    protocol = chart.protocol
    asked = follow_up(chart, count)
    mild = found.kind == "mild"
    history = (mild and protocol.after_mild.throughout) or chart.has_neutropenia
    signs = infection_pending(chart)
    gap = chart.restart
    first_since = gap is not None and not any(c.on >= gap.restart for c in chart.treated_counts[-1:])
    resumed = gap.rule if gap is not None and gap.rule is not None and gap.rule.window is None and first_since else None
    action, grounds = _action(chart, found, asked, resumed, history=history)
    remarks: list[str] = []
    levels = [AlertLevel.NONE]
    family, episode = AlertFamily.SCHEDULE, _phase_began(chart, asked)
    readings: list[str] = []
    if asked.window is not None:
        family, episode = AlertFamily.SCHEDULE, asked.window.restart
    if resumed is not None and gap is not None:
        episode = gap.restart
    if mild:
        family, episode = AlertFamily.MILD, _episode_began(chart, found)
        calm = not asked.opens_or_falls and asked.window is None
        levels.append(protocol.after_mild.stable_alert if calm else protocol.after_mild.new_alert)
    else:
        if (
            first_since
            and gap is not None
            and gap.rule is not None
            and (asked.window is not None or resumed is not None)
        ):
            levels.append(gap.rule.alert)
        if asked.window is None and _phase_changes(chart, asked, history=history):
            levels.append(AlertLevel.INFO)
            readings += protocol.conventions.phase_change
    if _dose_question(chart):
        levels.append(protocol.gaps.dose_question_alert)
        remarks.append("dose-question")
        readings += list(protocol.gaps.readings)
    if protocol.risk is not None and risk_applies(chart):
        levels.append(protocol.risk.alert)
        grounds = (*grounds, protocol.risk.grounds)
    remarks += risk_remarks(chart)
    if signs:
        remarks.append("infection-signs")
        levels.append(protocol.infection.mild_alert if mild else protocol.infection.normal_alert)
        grounds = (*grounds, protocol.infection.grounds)
        if not mild:
            family, episode = AlertFamily.OVERDUE, chart.course.infection_signs_on or chart.as_of
    if chart.past_unknown:
        readings += list(protocol.unknown_past.readings)
    if gap is not None and gap.summed:
        readings += list(protocol.gaps.sum_readings)
    if asked.window is not None and asked.window.rule.retitrate:
        remarks.append("retitrate")
    return verdict(
        chart,
        count,
        found.id,
        action,
        highest(*levels),
        grounds,
        readings=tuple(readings),
        next_due=asked.next_due,
        recheck_by=asked.recheck_by,
        weekly_until=asked.window.until if asked.window is not None else None,
        retitrate=asked.window is not None and asked.window.rule.retitrate,
        family=family,
        episode_on=episode,
        threshold=found.high if mild else None,
        remarks=tuple(remarks),
        interval=asked.interval,
    )


def _action(
    chart: Chart, found: Range, asked: FollowUp, resumed: InterruptionRule | None, *, history: bool
) -> tuple[str, tuple[Grounds, ...]]:
    """A window speaks before the history (B-7, B-8), the history before the phase (R4); a mild count that asks for closer
    counts than the window speaks before it."""
    mild = chart.protocol.after_mild
    own = (found.grounds,) if found.kind == "mild" else ()
    if asked.window is not None:
        closer = asked.window.rule.interval
        if own and closer is not None and due_after(chart.as_of, mild.interval) < due_after(chart.as_of, closer):
            return found.action, (*own, asked.window.rule.grounds)
        after = (mild.grounds,) if history else ()
        return asked.window.rule.action, (*own, asked.window.rule.grounds, *after)
    if resumed is not None and found.kind == "normal":
        return resumed.action, (resumed.grounds, asked.phase.grounds)
    if history:
        weekly = asked.interval != mild.interval
        return (mild.action_while_weekly if weekly else mild.action), (*own, mild.grounds, asked.phase.grounds)
    lately = (asked.lately.grounds,) if asked.lately is not None else ()
    return found.action, (*own, asked.phase.grounds, *lately)


def _phase_changes(chart: Chart, asked: FollowUp, *, history: bool) -> bool:
    """B-1: the first count on or after a change of phase. With no earlier count, within an interval of it (N-10)."""
    phases = chart.protocol.phases
    number = phases.index(asked.phase)
    if number == 0:
        return False
    if chart.counts:
        before = chart.counts[-1].on
    else:
        before = max(
            chart.as_of - (due_after(chart.as_of, phases[number - 1].interval) - chart.as_of), chart.clock.start
        )
    return phases.index(phase_of(chart, before, neutropenia=history)) < number


def _phase_began(chart: Chart, asked: FollowUp) -> date:
    return anniversary(chart.clock.start, asked.phase.since, chart.clock.lost_days)


def _episode_began(chart: Chart, mild: Range) -> date:
    """The first of the unbroken row of mild counts that ends with today's (B-10)."""
    began = chart.as_of
    for earlier in reversed(chart.treated_counts):
        if not mild.holds(earlier.per_mm3, earlier.just_below):
            break
        began = earlier.on
    return began


def _dose_question(chart: Chart) -> bool:
    """B-6: a gap of more than two days puts the dose in question for everyone, on the first count after it."""
    if not chart.gaps:
        return False
    gap = chart.gaps[-1]
    first = not any(c.on >= gap.restart for c in chart.treated_counts[-1:])
    return first and gap.length > chart.protocol.gaps.dose_question_over.length


def _after_stop(chart: Chart, count: Count) -> Assessment:
    rule = chart.protocol.after_stop
    stop = chart.stop
    assert stop is not None  # noqa: S101 - Place.AFTER
    found = band(chart.protocol, chart.population, count)
    low = found.kind == "stop"
    if low and stop.recorded and stop.on == chart.as_of:
        return _stop_now(chart, count, found)  # the count of the day of the stop is what it was stopped for
    over = chart.as_of >= due_after(stop.on, rule.period)
    banned = stop.banned or (low and count.absolute and rule.permanent)
    grounds: tuple[Grounds, ...] = (rule.follow_up,)
    readings, remarks = rule.other_readings, []
    next_due, recheck, weekly_until = due_after(chart.as_of, rule.interval), None, None
    family, episode = AlertFamily.SCHEDULE, stop.on
    if low:
        next_due, recheck = due_after(chart.as_of, rule.low_interval), _recheck(chart)
    if stop.haematological:
        grounds, readings, family, episode = (
            (rule.stop, rule.follow_up),
            rule.recovery_readings,
            AlertFamily.STOP,
            stop.episode_on,
        )
        ended = over and stop.recorded and meets(count, rule.recovery(chart.population))
        alert = found.alert if low else rule.banned_alert
        remarks += [] if stop.recorded else ["stop-not-recorded"]
        remarks += [] if banned or chart.lifted or not rule.permanent else ["ban-unconfirmed"]
    elif low:
        ended, alert = False, found.alert
        grounds, family, episode = (rule.stop, rule.follow_up), AlertFamily.STOP, chart.as_of
        remarks += [] if count.absolute or not rule.permanent else ["ban-unconfirmed"]
    else:
        ended = over
        alert = rule.complete_alert if ended else rule.mild_alert if found.kind == "mild" else rule.alert
        weekly_until = None if ended else due_after(stop.on, rule.period)
    if low and not stop.haematological:
        action = rule.reexposure_action
    elif ended:
        action = rule.complete_banned_action if banned else rule.complete_action
    else:
        action = rule.banned_action if banned else rule.action
    if not stop.recorded and not stop.haematological:
        readings = (*readings, *chart.protocol.gaps.open_readings)
        remarks.append("restart-not-recorded")
    if infection_pending(chart) and not ended:
        signs = chart.protocol.infection
        bump = {"stop": signs.stop_alert, "mild": signs.mild_alert, "normal": signs.normal_alert}[found.kind]
        alert, grounds = highest(alert, bump), (*grounds, signs.grounds)
    return verdict(
        chart,
        count,
        "post_stop",
        action,
        alert,
        grounds,
        readings=readings,
        next_due=None if ended else next_due,
        recheck_by=recheck,
        weekly_until=weekly_until,
        family=family,
        episode_on=episode,
        no_reexposure=banned,
        threshold=_stop_threshold(chart) if low else rule.recovery(chart.population) if stop.haematological else None,
        remarks=tuple(remarks),
    )
