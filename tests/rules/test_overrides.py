"""What a named clinician may override (B-27), each on both sides of its boundary; re-exposure, transfer and death."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest

from rules import alerts_for, assess, due, find_protocol
from rules.limits import limits_of
from rules.model import (
    AbsoluteNeutrophilCount,
    AlertLevel,
    Assessment,
    Attestation,
    CompleteStop,
    CourseState,
    Interruption,
    LabResult,
    Override,
    OverrideKind,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
)

ANSM = find_protocol("ansm")
START = date(2023, 1, 9)
COURSE = TreatmentCourse(start=START, prior_neutropenia=PriorNeutropenia.NONE)
DAY = date(2026, 8, 3)
EXPIRES = date(2027, 1, 1)


def count(on: date, per_mm3: int | str, *, comparator: str | None = None) -> LabResult:
    anc = AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3), comparator=comparator)  # type: ignore[arg-type]
    at = datetime(on.year, on.month, on.day, 8, tzinfo=UTC)
    return LabResult(status=ResultStatus.FINAL, anc=anc, collected_at=at, key=f"{on}|{per_mm3}")


def judge(result: LabResult | None, *history: LabResult, course: TreatmentCourse, as_of: date = DAY) -> Assessment:
    found = assess(ANSM, course, history, result, as_of)
    assert isinstance(found, Assessment)
    return found


def override(kind: OverrideKind, *, expires: date = EXPIRES, on: date = DAY, **more: object) -> Override:
    return Override(kind=kind, by="Dr Hoda", on=on, reason="asked for", expires=expires, **more)  # type: ignore[arg-type]


def shorter(days: int, **more: date) -> TreatmentCourse:
    return replace(COURSE, overrides=(override(OverrideKind.SHORTER_INTERVAL, days=days, **more),))


def days(number: int) -> timedelta:
    return timedelta(days=number)


# A shorter interval


def test_a_shorter_interval_brings_the_next_count_forward_and_says_whose_it_is() -> None:
    found = judge(count(DAY, 2500), course=shorter(14))
    assert found.next_due == DAY + days(14)
    assert "B-27" in found.readings
    assert "override-shorter-interval" in found.remarks
    said = dict(found.explanation)
    assert "Dr Hoda" in said["fr"]
    assert "14 jours" in said["fr"]
    assert "Dr Hoda" in said["en"]
    assert "14 days" in said["en"]


def test_an_interval_that_is_not_shorter_changes_nothing_and_is_not_named() -> None:
    plain = judge(count(DAY, 2500), course=COURSE)
    assert plain.next_due is not None
    same = judge(count(DAY, 2500), course=shorter((plain.next_due - DAY).days))
    assert same == plain
    assert judge(count(DAY, 2500), course=shorter(4000)) == plain


def test_a_shorter_interval_holds_to_the_day_before_it_expires() -> None:
    plain = judge(count(DAY, 2500), course=COURSE)
    assert judge(count(DAY, 2500), course=shorter(14, expires=DAY + days(1))).next_due == DAY + days(14)
    assert judge(count(DAY, 2500), course=shorter(14, expires=DAY)) == plain


def test_an_interval_set_after_the_last_count_asks_for_nothing_before_the_day_it_was_set() -> None:
    course = shorter(7, on=DAY)
    found = due(ANSM, course, [count(DAY - days(20), 2500)], DAY)
    assert (found.next_due, found.level) == (DAY, AlertLevel.NONE)
    assert found.shortened_by == course.overrides[0]
    later = due(ANSM, course, [count(DAY - days(20), 2500)], DAY + days(1))
    assert later.level is AlertLevel.AMBER
    assert due(ANSM, course, [count(DAY - days(5), 2500)], DAY).next_due == DAY + days(2)


def test_a_missing_count_names_the_interval_that_asked_for_it() -> None:
    found = judge(None, count(DAY - days(9), 2500), course=shorter(7, on=DAY - days(30)))
    assert found.action == "OBTAIN_ANC_OVERDUE"
    assert found.next_due == DAY - days(2)
    assert "override-shorter-interval" in found.remarks
    assert judge(None, count(DAY - days(9), 2500), course=COURSE).action == "AWAIT_SCHEDULED_ANC"


def test_a_shorter_interval_holds_after_a_stop_and_before_any_count_too() -> None:
    stopped = replace(shorter(3), stop=CompleteStop(DAY - days(2), StopReason.OTHER))
    assert judge(count(DAY, 2500), course=stopped).next_due == DAY + days(3)
    young = replace(shorter(2, on=DAY - days(1)), start=DAY - days(1))
    assert due(ANSM, young, [], DAY).next_due == DAY + days(1)


def test_the_shortest_of_several_intervals_counts() -> None:
    both = replace(COURSE, overrides=(*shorter(14).overrides, *shorter(10).overrides))
    assert judge(count(DAY, 2500), course=both).next_due == DAY + days(10)


@pytest.mark.parametrize("days_set", [1, 7, 13, 27, 28, 84, 365, 4000])
@pytest.mark.parametrize("anc", [400, 999, 1000, 1499, 1500, 1501, 4000])
def test_no_interval_ever_lengthens_or_softens_anything(days_set: int, anc: int) -> None:
    history = [count(DAY - days(40), 1400), count(DAY - days(20), 2500)]
    plain = judge(count(DAY, anc), *history, course=COURSE)
    with_it = judge(count(DAY, anc), *history, course=shorter(days_set))
    assert with_it.alert is plain.alert
    assert with_it.action == plain.action
    assert with_it.category == plain.category
    assert plain.next_due is not None
    assert with_it.next_due is not None
    assert with_it.next_due <= plain.next_due


# A borderline value

VALUE_ON = date(2025, 3, 3)


def not_history(value_on: date = VALUE_ON, **more: date) -> TreatmentCourse:
    return replace(COURSE, overrides=(override(OverrideKind.BORDERLINE_NOT_HISTORY, value_on=value_on, **more),))


def test_a_borderline_value_that_was_taken_out_makes_no_history() -> None:
    history = count(VALUE_ON, 1500)
    assert judge(count(DAY, 2500), history, course=COURSE).action == "CONTINUE_MONTHLY_THROUGHOUT"
    found = judge(count(DAY, 2500), history, course=not_history())
    assert found.action == "CONTINUE"
    assert found.next_due == date(2027, 8, 3)
    assert "override-borderline-not-history" in found.remarks
    assert "2025-03-03" in dict(found.explanation)["fr"]


@pytest.mark.parametrize(("per_mm3", "comparator"), [("1499", None), ("1499.9", None), ("1500", "<")])
def test_a_value_below_the_border_is_history_whatever_a_clinician_says(per_mm3: str, comparator: str | None) -> None:
    history = count(VALUE_ON, per_mm3, comparator=comparator)
    found = judge(count(DAY, 2500), history, course=not_history())
    assert found == judge(count(DAY, 2500), history, course=COURSE)


def test_another_low_value_or_another_day_is_history_all_the_same() -> None:
    values = [count(VALUE_ON, 1500), count(VALUE_ON + days(7), 1500)]
    assert judge(count(DAY, 2500), *values, course=not_history()).action == "CONTINUE_MONTHLY_THROUGHOUT"
    other = not_history(VALUE_ON + days(1))
    assert judge(count(DAY, 2500), values[0], course=other).action == "CONTINUE_MONTHLY_THROUGHOUT"


def test_the_borderline_value_itself_keeps_its_own_verdict() -> None:
    found = judge(count(VALUE_ON, 1500), course=not_history(), as_of=VALUE_ON)
    assert (found.category, found.alert) == ("mild", AlertLevel.AMBER)


def test_a_borderline_value_is_history_again_once_the_override_expires() -> None:
    course = not_history(expires=DAY)
    assert judge(count(DAY, 2500), count(VALUE_ON, 1500), course=course).action == "CONTINUE_MONTHLY_THROUGHOUT"
    assert (
        judge(count(DAY - days(1), 2500), count(VALUE_ON, 1500), course=course, as_of=DAY - days(1)).action
        == "CONTINUE"
    )


def test_confirmed_benign_ethnic_neutropenia_has_its_own_border() -> None:
    ben = replace(not_history(), ben=Attestation("Dr A", START))
    assert judge(count(DAY, 2500), count(VALUE_ON, 1000), course=ben).action == "CONTINUE"
    assert judge(count(DAY, 2500), count(VALUE_ON, 999), course=ben).action == "CONTINUE_MONTHLY_THROUGHOUT"


def test_an_attested_neutropenia_is_not_taken_out_with_a_borderline_value() -> None:
    attested = replace(not_history(), prior_neutropenia=PriorNeutropenia.MILD)
    assert judge(count(DAY, 2500), count(VALUE_ON, 1500), course=attested).action == "CONTINUE_MONTHLY_THROUGHOUT"


# Lifting A-15

STOPPED = date(2026, 3, 2)


def legacy(reason: StopReason = StopReason.LEGACY_RED, *, restarted: bool = False, **more: date) -> TreatmentCourse:
    pause = Interruption(datetime.combine(STOPPED, time()), datetime.combine(DAY - days(7), time()))
    return replace(
        COURSE,
        stop=CompleteStop(STOPPED, reason),
        interruptions=(pause,) if restarted else (),
        reexposed_on=DAY - days(7) if restarted else None,
        overrides=(override(OverrideKind.LIFT_A15, on=DAY - days(10), **more),),
    )


def test_a_ban_of_the_former_thresholds_is_lifted_and_says_by_whom() -> None:
    found = judge(count(DAY, 2500), course=legacy())
    assert not found.no_reexposure
    assert "override-lift-a15" in found.remarks
    assert "ban-unconfirmed" not in found.remarks
    assert judge(count(DAY, 2500), course=replace(legacy(), overrides=())).no_reexposure


def test_a_restart_under_a_lifted_ban_is_a_restart_as_after_any_gap_with_a_history() -> None:
    found = judge(count(DAY, 2500), course=legacy(restarted=True))
    assert found.action == "WEEKLY_AND_RETITRATE"
    assert not found.no_reexposure
    ended = judge(
        count(DAY + days(140), 2500), course=legacy(restarted=True, expires=DAY + days(400)), as_of=DAY + days(140)
    )
    assert ended.action == "CONTINUE_MONTHLY_THROUGHOUT"


def test_a_treatment_that_goes_on_when_the_lift_expires_alarms() -> None:
    found = judge(count(DAY, 2500), course=legacy(restarted=True, expires=DAY))
    assert (found.category, found.alert) == ("contraindicated", AlertLevel.CRITICAL)
    assert found.no_reexposure


@pytest.mark.parametrize("reason", [StopReason.ANC_BELOW_1000, StopReason.ANC_BELOW_500])
def test_r5_is_never_lifted(reason: StopReason) -> None:
    found = judge(count(DAY, 2500), course=legacy(reason, restarted=True))
    assert (found.category, found.alert) == ("contraindicated", AlertLevel.CRITICAL)
    assert judge(count(DAY, 2500), course=legacy(reason)).no_reexposure


def test_a_count_below_todays_threshold_bans_whatever_was_lifted() -> None:
    found = judge(count(DAY, 2500), count(STOPPED, 900), course=legacy(restarted=True))
    assert found.no_reexposure
    assert judge(count(DAY, 900), course=legacy(restarted=True)).action == "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE"
    attested = replace(legacy(restarted=True), prior_neutropenia=PriorNeutropenia.STOP_LEVEL)
    assert judge(count(DAY, 2500), course=attested).category == "contraindicated"


def test_a_new_course_after_a_lifted_stop_may_start() -> None:
    course = replace(legacy(), start=DAY + days(3))
    assert judge(count(DAY, 2500), course=course).category == "eligible"
    assert judge(count(DAY, 2500), course=replace(course, overrides=())).category == "contraindicated"


# Re-exposure


def exposed() -> TreatmentCourse:
    return replace(COURSE, stop=CompleteStop(STOPPED, StopReason.ANC_BELOW_1000), reexposed_on=DAY - days(7))


def test_a_recorded_restart_against_r5_alarms_with_and_without_a_count() -> None:
    for result in (None, count(DAY, 2500)):
        found = judge(result, count(STOPPED, 900), course=exposed())
        assert (found.category, found.action, found.alert) == (
            "contraindicated",
            "DO_NOT_REEXPOSE",
            AlertLevel.CRITICAL,
        )
        assert found.episode_on == DAY - days(7)
        assert found.no_reexposure


def test_a_stop_level_count_after_a_restart_against_r5_says_stop() -> None:
    found = judge(count(DAY, 450), course=exposed())
    assert (found.action, found.alert) == ("STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE", AlertLevel.CRITICAL)


def test_before_the_restart_and_after_the_next_stop_it_is_a_stop_like_any_other() -> None:
    assert judge(count(DAY - days(8), 2500), course=exposed(), as_of=DAY - days(8)).category == "post_stop"
    again = replace(exposed(), stop=CompleteStop(DAY - days(2), StopReason.ANC_BELOW_1000))
    assert judge(count(DAY, 2500), course=again).category == "post_stop"


def test_a_restart_after_an_unrecorded_stop_level_count_alarms() -> None:
    course = replace(COURSE, reexposed_on=DAY - days(7))
    assert judge(None, count(STOPPED, 900), course=course).category == "contraindicated"
    assert judge(None, count(STOPPED, 1900), course=course).category == "no_result"


# Transfer, loss, death


def test_a_count_after_a_transfer_is_judged_and_says_where_it_belongs() -> None:
    course = replace(COURSE, state=CourseState.TRANSFERRED)
    found = judge(count(DAY, 900), course=course)
    assert found.alert is AlertLevel.RED
    assert "transferred" in found.remarks
    draft = alerts_for(found, register_id="p", language="fr")
    assert draft is not None
    assert "transféré" in draft.text


def test_what_does_not_come_after_a_transfer_is_the_receivers() -> None:
    late = [count(DAY - days(700), 2500)]
    assert judge(None, *late, course=COURSE).alert is AlertLevel.RED
    gone = judge(None, *late, course=replace(COURSE, state=CourseState.TRANSFERRED))
    assert (gone.alert, gone.next_due) == (AlertLevel.NONE, None)


def test_loss_to_follow_up_silences_nothing() -> None:
    late = [count(DAY - days(700), 2500)]
    lost = replace(COURSE, state=CourseState.LOST)
    assert judge(None, *late, course=lost) == judge(None, *late, course=COURSE)


# What the form may say


def test_the_longest_interval_is_the_one_that_the_protocol_asks_for_today() -> None:
    clean = [count(DAY - days(100), 2500)]
    assert limits_of(ANSM, COURSE, clean, DAY).longest_days == 365
    assert limits_of(ANSM, COURSE, [count(VALUE_ON, 1400)], DAY).longest_days == 28
    assert limits_of(ANSM, replace(COURSE, prior_neutropenia=PriorNeutropenia.UNKNOWN), clean, DAY).longest_days == 28
    assert limits_of(ANSM, replace(COURSE, start=DAY - days(30)), clean, DAY).longest_days == 7
    assert limits_of(ANSM, replace(COURSE, start=DAY + days(3)), clean, DAY).longest_days == 7
    assert limits_of(ANSM, legacy(), clean, DAY).longest_days == 7
    pause = Interruption(datetime.combine(DAY - days(40), time()), datetime.combine(DAY - days(4), time()))
    paused = replace(COURSE, prior_neutropenia=PriorNeutropenia.MILD, interruptions=(pause,))
    assert limits_of(ANSM, paused, clean, DAY).longest_days == 7


def test_only_values_exactly_at_the_border_are_borderline() -> None:
    on_file = [count(VALUE_ON, 1500), count(VALUE_ON + days(1), 1499), count(VALUE_ON + days(2), 1501)]
    found = limits_of(ANSM, COURSE, [*on_file, count(VALUE_ON + days(3), 1500, comparator="<")], DAY)
    assert found.borderline_on == frozenset({VALUE_ON})
    assert not found.below_stop_on_file
    assert limits_of(ANSM, COURSE, [count(VALUE_ON, 999)], DAY).below_stop_on_file


# The day of the first dose (B-18)

FIRST = datetime(2026, 8, 3, 9, 30)  # noqa: DTZ001  # a wall clock, as the register holds doses
BEGUN = TreatmentCourse(start=DAY, prior_neutropenia=PriorNeutropenia.NONE, first_dose_at=FIRST)


def drawn(per_mm3: int, hour: int, minute: int = 0, *, on: date = DAY, time_known: bool = True) -> LabResult:
    taken = datetime(on.year, on.month, on.day, hour, minute, tzinfo=UTC)
    found = count(on, per_mm3)
    return replace(found, collected_at=taken, time_known=time_known, key=f"{taken}")


def test_a_stop_level_count_after_the_first_dose_of_the_day_is_a_stop_for_good() -> None:
    low = drawn(900, 9, 31)
    found = judge(low, course=BEGUN)
    assert (found.action, found.no_reexposure) == ("STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE", True)
    later = judge(count(DAY + days(7), 2500), low, course=BEGUN, as_of=DAY + days(7))
    assert (later.category, later.no_reexposure) == ("post_stop", True)
    assert judge(None, low, course=BEGUN).no_reexposure
    assert judge(drawn(2500, 11), low, course=BEGUN).action == "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE"


@pytest.mark.parametrize(
    ("low", "course"),
    [
        (drawn(900, 9, 30), BEGUN),
        (drawn(900, 11, time_known=False), BEGUN),
        (drawn(900, 11), replace(BEGUN, first_dose_at=None)),
        (drawn(1000, 11), BEGUN),
    ],
)
def test_any_other_count_of_that_day_is_a_pre_dose_count(low: LabResult, course: TreatmentCourse) -> None:
    assert judge(low, course=course).action == "DO_NOT_INITIATE"
    later = judge(count(DAY + days(7), 2500), low, course=course, as_of=DAY + days(7))
    assert later.category == "normal"


def test_a_doubtful_count_after_the_first_dose_alarms_and_bans_nobody() -> None:
    found = judge(replace(drawn(900, 11), status=ResultStatus.PRELIMINARY), course=BEGUN)
    assert (found.action, found.no_reexposure) == ("STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE", False)
    later = judge(
        count(DAY + days(7), 2500),
        replace(drawn(900, 11), status=ResultStatus.PRELIMINARY),
        course=BEGUN,
        as_of=DAY + days(7),
    )
    assert later.category == "normal"
