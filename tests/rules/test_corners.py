"""Corners that mutation testing found bare: the other side of a comparison, a remark, a reading, a fact of one day."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest

from rules import ProtocolError, assess, check_together, due, find_protocol
from rules.cases import Case, CaseError, read_cases
from rules.counts import Count
from rules.faults import course_faults
from rules.model import (
    AbsoluteNeutrophilCount,
    AlertFamily,
    AlertLevel,
    Assessment,
    Attestation,
    CompleteStop,
    Interruption,
    LabResult,
    Override,
    OverrideKind,
    Population,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
    Trust,
    Unassessable,
)
from rules.protocol import band_of
from rules.protocol_file import parse
from rules.record import worse
from rules.shadow import compare

ANSM, EU = find_protocol("ansm"), find_protocol("EU-SMPC-PRE2025")
FDA = find_protocol("FDA-2015-LABEL")
TEXT = resources.files("rules").joinpath("protocols/ansm-2025-09.toml").read_text(encoding="utf-8")
START, DAY = date(2026, 1, 5), date(2026, 8, 3)
COURSE = TreatmentCourse(start=START, prior_neutropenia=PriorNeutropenia.NONE)
SOON = timedelta(days=1)
ANSM_STOP = "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE"


def count(on: date, per_mm3: int | str, *, wbc: int | None = None, **more: Any) -> LabResult:
    at = datetime.combine(on, time(8), tzinfo=UTC)
    anc = AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3))
    leukocytes = None if wbc is None else Decimal(wbc)
    fields = {"status": ResultStatus.FINAL, "anc": anc, "collected_at": at, "wbc_per_mm3": leukocytes, **more}
    return LabResult(**fields)


def gap(last: date, restart: date | None) -> Interruption:
    again = None if restart is None else datetime.combine(restart, time())
    return Interruption(datetime.combine(last, time()), again)


def judge(result: LabResult | None, *history: LabResult, **more: Any) -> Assessment:
    course, on, protocol = more.get("course", COURSE), more.get("on", DAY), more.get("protocol", ANSM)
    found = assess(protocol, course, history, result, on)
    assert isinstance(found, Assessment)
    return found


# Leukocytes ---------------------------------------------------------------------------------------------------------


def test_only_a_protocol_that_counts_leukocytes_misses_them() -> None:
    assert "leukocytes-missing" in judge(count(DAY, 3000), protocol=EU).remarks
    assert "leukocytes-missing" not in judge(count(DAY, 3000, wbc=6000), protocol=EU).remarks
    assert "leukocytes-missing" not in judge(count(DAY, 3000)).remarks


def test_of_two_counts_a_day_the_lowest_leukocytes_are_judged_too() -> None:
    high, low = count(DAY, 2500, wbc=2900), count(DAY, 3000, wbc=6000)
    assert judge(low, high, protocol=EU).category == "red"
    assert judge(high, low, protocol=EU).category == "red"
    later = DAY + timedelta(days=7)
    assert judge(count(later, 3000, wbc=6000), low, high, protocol=EU, on=later).category == "post_stop"


def test_the_other_count_of_a_day_misses_its_leukocytes_too() -> None:
    assert "leukocytes-missing" in judge(count(DAY, 3000), count(DAY, 2500), protocol=EU).remarks


# What is said beside the verdict ------------------------------------------------------------------------------------


def test_a_new_titration_is_asked_for_after_a_long_gap_only() -> None:
    long = judge(count(DAY, 3000), course=replace(COURSE, interruptions=(gap(DAY - timedelta(days=28), DAY),)))
    short = judge(count(DAY, 3000), course=replace(COURSE, interruptions=(gap(DAY - timedelta(days=27), DAY),)))
    assert (long.retitrate, "retitrate" in long.remarks) == (True, True)
    assert (short.retitrate, "retitrate" in short.remarks) == (False, False)
    assert not judge(count(DAY, 800)).retitrate


def test_a_count_that_came_in_time_is_not_said_to_be_late() -> None:
    assert "late" not in dict(judge(count(DAY, 3000)).explanation)["en"]


def test_gaps_that_count_by_their_sum_name_the_reading_and_a_single_one_does_not() -> None:
    two = (gap(date(2026, 7, 20), date(2026, 7, 22)), gap(date(2026, 8, 1), DAY))
    assert "B-22" in judge(count(DAY, 3000), course=replace(COURSE, interruptions=two)).readings
    one = (gap(date(2026, 7, 30), DAY),)
    assert "B-22" not in judge(count(DAY, 3000), course=replace(COURSE, interruptions=one)).readings


def test_gaps_of_one_day_are_summed_too() -> None:
    days = (date(2026, 7, 20), date(2026, 7, 26), date(2026, 8, 2))
    course = replace(COURSE, interruptions=tuple(gap(day, day + SOON) for day in days))
    assert judge(count(DAY, 3000), course=course).action == "CLOSER_MONITORING"


def test_a_ban_by_an_absolute_count_is_not_called_unconfirmed() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY - timedelta(days=60), StopReason.OTHER))
    sure = judge(count(DAY, 800), course=stopped)
    unsure = judge(
        replace(count(DAY, 800), anc=AbsoluteNeutrophilCount(per_mm3=Decimal(800), derived=True)), course=stopped
    )
    assert (sure.action, sure.no_reexposure, "ban-unconfirmed" in sure.remarks) == ("DO_NOT_REEXPOSE", True, False)
    assert (unsure.no_reexposure, "ban-unconfirmed" in unsure.remarks) == (False, True)


def test_a_silence_after_a_stop_for_the_count_names_the_readings_of_it() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY - timedelta(days=9), StopReason.ANC_BELOW_1000))
    other = replace(COURSE, stop=CompleteStop(DAY - timedelta(days=9), StopReason.OTHER))
    assert "B-14" in judge(None, course=stopped).readings
    assert "B-14" not in judge(None, course=other).readings


def test_an_open_gap_bans_nobody() -> None:
    found = judge(count(DAY, 3000), course=replace(COURSE, interruptions=(gap(DAY - timedelta(days=9), None),)))
    assert (found.category, found.no_reexposure) == ("post_stop", False)
    assert "restart-not-recorded" in found.remarks
    assert "no-reexposure" not in found.remarks


def test_a_derived_count_is_said_to_lie_across_a_threshold_only_when_it_does() -> None:
    for lower, across in (("2900", False), ("1400", True)):
        anc = AbsoluteNeutrophilCount(per_mm3=Decimal(3000), derived=True, lower_bound=Decimal(lower))
        assert ("derived-across-threshold" in judge(replace(count(DAY, 1), anc=anc)).remarks) is across


def test_after_a_stop_the_limit_that_is_named_is_the_one_still_to_reach() -> None:
    blood = replace(COURSE, stop=CompleteStop(DAY - timedelta(days=9), StopReason.ANC_BELOW_1000))
    other = replace(COURSE, stop=CompleteStop(DAY - timedelta(days=9), StopReason.OTHER))
    assert judge(count(DAY, 900), course=blood).threshold_per_mm3 == 1000
    assert judge(count(DAY, 1300), course=blood).threshold_per_mm3 == 1500
    assert judge(count(DAY, 1300), course=other).threshold_per_mm3 is None


def test_a_missing_baseline_is_an_episode_of_the_planned_start() -> None:
    start = DAY + timedelta(days=5)
    assert judge(None, course=replace(COURSE, start=start)).episode_on == start


def test_signs_of_infection_belong_to_the_mild_episode_or_to_the_missing_count() -> None:
    ill = replace(COURSE, infection_signs_on=DAY)
    assert judge(count(DAY, 1200), course=ill).family is AlertFamily.MILD
    assert judge(count(DAY, 3000), course=ill).family is AlertFamily.OVERDUE


def test_an_overdue_recheck_is_an_episode_of_its_own_day() -> None:
    found = judge(None, count(DAY - timedelta(days=5), 1200))
    assert (found.alert, found.episode_on) == (AlertLevel.AMBER, DAY - timedelta(days=2))


# Doubt --------------------------------------------------------------------------------------------------------------


def test_a_doubtful_mild_count_raises_to_amber() -> None:
    found = judge(count(DAY, 1200, trust=Trust.PROVISIONAL), count(DAY - timedelta(days=7), 3000))
    assert (found.alert, found.category, found.provisional) == (AlertLevel.AMBER, "mild", True)


def test_a_preliminary_low_count_is_no_history_and_a_corrected_one_is() -> None:
    def earlier(status: ResultStatus) -> LabResult:
        return count(date(2026, 7, 6), 1200, status=status)

    assert judge(count(DAY, 3000), earlier(ResultStatus.PRELIMINARY)).action == "CONTINUE"
    assert judge(count(DAY, 3000), earlier(ResultStatus.CORRECTED)).action == "CONTINUE_MONTHLY_THROUGHOUT"


def test_a_doubtful_low_count_is_answered_by_an_established_one_of_its_day() -> None:
    low = count(DAY - SOON, 800, trust=Trust.PROVISIONAL)
    assert due(ANSM, COURSE, [low, count(DAY - SOON, 3000)], DAY).recheck_by is None
    assert due(ANSM, COURSE, [low], DAY).recheck_by == DAY


def test_a_lower_bound_below_zero_or_no_number_is_unassessable() -> None:
    for bound in ("-1", "NaN"):
        anc = AbsoluteNeutrophilCount(per_mm3=Decimal(3000), derived=True, lower_bound=Decimal(bound))
        assert isinstance(assess(ANSM, COURSE, (), replace(count(DAY, 1), anc=anc), DAY), Unassessable)


def test_below_the_same_value_is_a_fall() -> None:
    below = replace(count(DAY, 1300), anc=AbsoluteNeutrophilCount(per_mm3=Decimal(1300), comparator="<"))
    earlier = (count(date(2026, 6, 8), 3000), count(date(2026, 7, 6), 1300))
    assert judge(below, *earlier).recommended_recheck_by == DAY + timedelta(days=3)
    assert judge(count(DAY, 1300), *earlier).recommended_recheck_by is None


def test_the_end_of_a_follow_up_names_the_readings_of_its_stop() -> None:
    long_ago = DAY - timedelta(days=60)
    blood = replace(COURSE, stop=CompleteStop(long_ago, StopReason.ANC_BELOW_1000))
    other = replace(COURSE, stop=CompleteStop(long_ago, StopReason.OTHER))
    recovered = count(DAY - timedelta(days=9), 3000)
    assert "B-14" in judge(None, recovered, course=blood).readings
    assert "B-15" in judge(None, recovered, course=other).readings


# Days ---------------------------------------------------------------------------------------------------------------


def test_benign_ethnic_neutropenia_holds_from_the_day_of_its_record() -> None:
    assert judge(count(DAY, 800), course=replace(COURSE, ben=Attestation("Dr A", DAY))).category == "mild"


def test_a_gap_may_begin_with_the_day_of_the_first_dose() -> None:
    course = replace(COURSE, interruptions=(gap(START, START + timedelta(days=5)),))
    found = judge(count(START + timedelta(days=6), 3000), course=course, on=START + timedelta(days=6))
    assert (found.action, found.weekly_until) == ("CONTINUE_WEEKLY", START + timedelta(days=131))


@pytest.mark.parametrize(("day", "action"), [(125, "CONTINUE_WEEKLY"), (126, "CLOSER_MONITORING")])
def test_a_gap_is_judged_by_the_treated_time_at_its_last_dose(day: int, action: str) -> None:
    last = START + timedelta(days=day)
    restart = last + timedelta(days=4)
    course = replace(COURSE, interruptions=(gap(last, restart),))
    assert judge(count(restart, 3000), course=course, on=restart).action == action


def test_after_a_gap_the_weekly_count_is_due_a_week_after_the_restart() -> None:
    course = replace(COURSE, interruptions=(gap(date(2026, 7, 7), date(2026, 7, 10)),))
    for before_gap in (count(date(2026, 7, 6), 3000), count(date(2026, 7, 7), 3000)):
        found = due(ANSM, course, [before_gap], date(2026, 7, 10))
        assert (found.next_due, found.recheck_by) == (date(2026, 7, 17), date(2026, 7, 10))


@pytest.mark.parametrize(("counted", "asked"), [(26, DAY), (27, DAY), (28, date(2026, 8, 4))])
def test_a_count_of_the_gap_holds_for_one_interval_and_is_due_no_sooner_than_the_restart(
    counted: int, asked: date
) -> None:
    course = replace(COURSE, interruptions=(gap(date(2026, 7, 7), DAY),))
    found = due(ANSM, course, [count(date(2026, 7, counted), 3000)], DAY)
    assert (found.next_due, found.recheck_by) == (asked, None)


@pytest.mark.parametrize(("late", "level"), [(3, AlertLevel.AMBER), (4, AlertLevel.RED)])
def test_the_count_of_a_restart_is_soon_red(late: int, level: AlertLevel) -> None:
    course = replace(COURSE, interruptions=(gap(date(2026, 7, 7), DAY),))
    found = judge(None, count(date(2026, 7, 6), 3000), course=course, on=DAY + timedelta(days=late))
    assert (found.next_due, found.alert) == (DAY, level)
    inside = judge(None, count(date(2026, 7, 30), 3000), course=course, on=DAY + timedelta(days=3 + late))
    assert (inside.next_due, inside.alert) == (DAY + timedelta(days=3), level)


@pytest.mark.parametrize(
    ("back", "per_mm3", "action"),
    [
        (10, 1500, "AWAIT_SCHEDULED_ANC"),
        (11, 1500, "OBTAIN_ANC_BEFORE_START"),
        (10, 1499, "OBTAIN_ANC_BEFORE_START"),
        (11, 1499, "OBTAIN_ANC_BEFORE_START"),
    ],
)
def test_a_baseline_holds_for_ten_days_and_only_when_it_permits(back: int, per_mm3: int, action: str) -> None:
    course = replace(COURSE, start=DAY + SOON)
    assert judge(None, count(DAY + SOON - timedelta(days=back), per_mm3), course=course).action == action


def test_a_mild_count_of_an_earlier_course_is_history() -> None:
    stop = CompleteStop(date(2024, 3, 4), StopReason.OTHER)
    again = replace(COURSE, stop=stop)
    assert judge(count(DAY, 3000), count(date(2024, 2, 5), 1200), course=again).action == "CONTINUE_MONTHLY_THROUGHOUT"
    assert judge(count(DAY, 3000), count(date(2025, 2, 5), 1200), course=again).action == "CONTINUE"


@pytest.mark.parametrize(("ahead", "refused"), [(90, False), (91, True)])
def test_a_start_is_planned_within_ninety_days(ahead: int, refused: bool) -> None:
    course = replace(COURSE, start=DAY + timedelta(days=ahead))
    assert bool(list(course_faults(course, DAY))) is refused


def test_an_episode_began_with_the_first_of_its_unbroken_row() -> None:
    row = (count(date(2026, 5, 4), 1200), count(date(2026, 6, 1), 3000), count(date(2026, 6, 29), 1300))
    assert judge(count(DAY, 1300), *row).episode_on == date(2026, 6, 29)
    assert judge(count(DAY, 1300), *row[:2]).episode_on == DAY


def test_a_stable_patient_who_resumes_is_told_of_the_restart() -> None:
    course = TreatmentCourse(start=date(2022, 3, 7), prior_neutropenia=PriorNeutropenia.NONE)
    resumed = replace(course, interruptions=(gap(DAY - timedelta(days=40), DAY - timedelta(days=2)),))
    found = judge(count(DAY, 3000), count(date(2026, 3, 2), 3000), course=resumed)
    assert (found.action, found.episode_on) == ("RESUME_PREVIOUS_SCHEDULE", DAY - timedelta(days=2))


def test_a_baseline_too_old_is_provisional() -> None:
    assert judge(count(DAY, 3000), course=replace(COURSE, start=DAY + timedelta(days=11))).provisional
    assert not judge(count(DAY, 3000), course=replace(COURSE, start=DAY + timedelta(days=10))).provisional


def test_a_low_count_of_the_day_of_another_stop_keeps_the_follow_up_open() -> None:
    stop = DAY - timedelta(days=28)
    stopped = replace(COURSE, stop=CompleteStop(stop, StopReason.OTHER))
    assert due(ANSM, stopped, [count(stop, 3000)], DAY).next_due is None
    assert due(ANSM, stopped, [count(stop, 800)], DAY).next_due == stop + timedelta(days=7)


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('since = "2 years"', 'since = "52 weeks"'),
        ('since = "2 years"', 'since = "51 weeks"'),
        ("52 weeks", "730 days"),
    ],
)
def test_phases_begin_one_after_the_other(old: str, new: str) -> None:
    with pytest.raises(ProtocolError, match="must begin after"):
        parse(TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('alert = "critical"', 'alert = "amber"'),  # severe below moderate
        ('below = 1000\nkind = "stop"', 'below = 1000\nkind = "normal"'),  # moderate before mild
    ],
)
def test_a_lower_band_that_is_milder_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(ProtocolError, match="must not be judged more mildly"):
        parse(TEXT.replace(old, new, 1))


def test_the_lowest_band_begins_with_nothing_itself() -> None:
    with pytest.raises(ProtocolError, match="no range begins at zero"):
        parse(TEXT.replace("at_least = 0\n", "above = 0\n", 1))


def test_a_protocol_that_ends_on_the_day_the_next_begins_is_refused() -> None:
    later = replace(ANSM, version="2027-01", aliases=(), effective_from=date(2027, 1, 1))
    with pytest.raises(ProtocolError, match="overlap"):
        check_together([replace(ANSM, effective_until=date(2027, 1, 1)), later])
    assert len(check_together([replace(ANSM, effective_until=date(2026, 12, 31)), later])) == 2


def test_no_band_holds_less_than_nothing() -> None:
    bands = ANSM.bands_of(Population.GENERAL)
    for just_below in (True, False):
        with pytest.raises(ValueError, match="no band holds"):
            band_of(bands, Decimal(-1), just_below)
    assert band_of(bands, Decimal(0)).id == "severe"


# Shadow -------------------------------------------------------------------------------------------------------------


def test_a_corrected_count_is_compared_and_a_preliminary_one_is_not() -> None:
    low = count(START + timedelta(days=77), 1400)
    assert compare(EU, ANSM, COURSE, [replace(low, status=ResultStatus.CORRECTED)]).treatment is not None
    assert compare(EU, ANSM, COURSE, [replace(low, status=ResultStatus.PRELIMINARY)]).counts == 0


def test_a_first_dose_is_compared_only_with_its_leukocytes() -> None:
    assert compare(EU, ANSM, COURSE, [count(START, 1700)]).treatment is None
    refused = compare(EU, ANSM, COURSE, [count(START, 1700, wbc=6000)]).treatment
    assert refused is not None
    assert refused.stops == "old"
    assert compare(EU, ANSM, COURSE, [count(START, 9000, wbc=3499)]).treatment is not None
    assert compare(EU, ANSM, COURSE, [count(START + SOON, 9000, wbc=2999)]).treatment is not None


def test_a_first_dose_needs_no_leukocytes_where_no_protocol_asks_for_them() -> None:
    higher = tuple(replace(rule, at_least=Decimal(1800)) for rule in ANSM.initiations)
    found = compare(replace(ANSM, initiations=higher), ANSM, COURSE, [count(START, 1700)]).treatment
    assert found is not None
    assert found.stops == "old"


def test_a_start_is_no_interval_and_a_banned_patient_is_judged_whole() -> None:
    assert compare(EU, ANSM, COURSE, [count(START, 9000, wbc=9000)]).intervals == 0
    banned = replace(COURSE, prior_neutropenia=PriorNeutropenia.STOP_LEVEL)
    assert compare(EU, ANSM, banned, [count(DAY, 9000), count(DAY + SOON, 9000)]).counts == 1


def test_a_count_of_the_day_of_a_stop_is_judged_whole() -> None:
    day = START + timedelta(days=400)
    stopped = replace(COURSE, stop=CompleteStop(day, StopReason.OTHER))
    assert compare(EU, ANSM, stopped, [count(day, 9000)]).intervals == 0
    assert compare(EU, ANSM, stopped, [count(day - SOON, 9000)]).intervals == 1


# Gaps and the counts on file ------------------------------------------------------------------------------------------


def test_a_gap_may_begin_on_the_day_of_the_first_dose_and_not_before() -> None:
    day = START + timedelta(days=5)
    for last, action in ((START, "CONTINUE_WEEKLY"), (START - SOON, "CONTINUE")):
        course = replace(COURSE, interruptions=(gap(last, day),))
        assert judge(count(day, 3000), course=course, on=day).action == action


def test_counts_in_any_order_and_several_a_day_are_read_alike() -> None:
    on_file = [
        count(START + timedelta(days=day), value) for day, value in ((50, 2500), (57, 1200), (64, 1300), (71, 1250))
    ]
    found = judge(count(DAY, 3000), *on_file)
    assert found == judge(count(DAY, 3000), *reversed(on_file))
    assert found == judge(count(DAY, 3000), *on_file, count(START + timedelta(days=57), 2000))
    assert found.action == "CONTINUE_MONTHLY_THROUGHOUT"


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_bare_value_cannot_say_is_kept_of_every_count_on_file(turned: bool) -> None:
    day = START + timedelta(days=200)
    below = AbsoluteNeutrophilCount(per_mm3=Decimal(1000), comparator="<")
    derived = AbsoluteNeutrophilCount(per_mm3=Decimal(990), derived=True)
    for anc, said in ((below, "no-reexposure"), (derived, "ban-unconfirmed")):
        on_file = [count(START + timedelta(days=193), 2500), replace(count(day, 1), anc=anc)]
        found = judge(count(DAY, 3000), *(reversed(on_file) if turned else on_file))
        assert found.category == "post_stop"
        assert said in found.remarks
    leukopenia = [count(START + timedelta(days=193), 2500, wbc=5000), count(day, 2500, wbc=2900)]
    assert judge(count(DAY, 3000, wbc=6000), *leukopenia, protocol=EU).category == "post_stop"


@pytest.mark.parametrize(
    ("facts", "remark"),
    [
        ({}, "stop-not-recorded"),
        ({"stop": CompleteStop(DAY, StopReason.ANC_BELOW_1000)}, None),
    ],
)
def test_without_a_count_a_stop_that_nobody_recorded_is_still_said(facts: dict[str, Any], remark: str | None) -> None:
    course = replace(COURSE, **facts)
    found = judge(None, count(DAY, 800), course=course, on=DAY + 3 * SOON)
    assert [r for r in found.remarks if r.endswith("-not-recorded")] == ([remark] if remark else [])


def test_without_a_count_an_interruption_that_became_a_stop_lacks_its_restart() -> None:
    course = replace(COURSE, interruptions=(gap(DAY - 60 * SOON, None),))
    found = judge(None, count(DAY - 61 * SOON, 3000), course=course, on=DAY)
    assert [r for r in found.remarks if r.endswith("-not-recorded")] == ["restart-not-recorded"]


# Versions of one result ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "wins"), [(None, None, 1340), (1, None, 3000), (2, 1, 3000), (1, 1, 1340), (1, 2, 1340)]
)
def test_of_two_versions_the_one_stored_later_counts_and_of_equals_the_one_named_later(
    first: int | None, second: int | None, wins: int
) -> None:
    then = DAY - timedelta(days=7)
    versions = (count(then, 3000, key="r", id=first), count(then, 1340, key="r", id=second))
    found = judge(count(DAY, 3000), *versions)
    assert (found.action == "CONTINUE_MONTHLY_THROUGHOUT") is (wins == 1340)


# Files of protocols -------------------------------------------------------------------------------------------------


def test_a_phase_in_years_is_compared_with_one_in_weeks() -> None:
    assert parse(TEXT.replace('since = "52 weeks"', 'since = "60 weeks"')).id
    with pytest.raises(ProtocolError, match="must begin after"):
        parse(TEXT.replace('since = "52 weeks"', 'since = "105 weeks"'))


def test_the_first_phase_holds_for_everyone() -> None:
    first = TEXT.index("without_neutropenia = false")
    with pytest.raises(ProtocolError, match="the first phase must hold for everyone"):
        parse(TEXT[:first] + TEXT[first:].replace("= false", "= true", 1))


@pytest.mark.parametrize("choice", ['""', "5", "[]"])
def test_a_choice_is_a_word_or_yes_or_no(choice: str) -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith('choice = "the action of the window'))
    with pytest.raises(ProtocolError, match="choice must be a word or true/false"):
        parse(TEXT.replace(line, f"choice = {choice}"))


# Stops --------------------------------------------------------------------------------------------------------------


def test_a_stop_of_the_day_of_the_first_dose_is_none_of_an_earlier_course() -> None:
    """So a low count from before that day is not of the treatment."""
    course = replace(COURSE, start=START, stop=CompleteStop(START, StopReason.OTHER))
    again = replace(course, interruptions=(gap(START, START + 9 * SOON),))
    low = count(START - 3 * SOON, 1200)
    found = judge(count(DAY, 3000), low, course=again)
    assert found.action == judge(count(DAY, 3000), course=again).action


def test_after_a_stop_a_low_count_asks_for_the_next_one_sooner_where_the_protocol_does() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    for value, days in ((700, 1), (2500, 7)):
        last = count(DAY + 2 * SOON, value, wbc=5000)
        found = due(EU, stopped, (count(DAY, 700, wbc=5000), last), DAY + 2 * SOON)
        assert found.next_due == DAY + (2 + days) * SOON


def test_a_recovery_on_the_day_of_the_stop_is_a_recovery() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    counts = (count(DAY - SOON, 800), count(DAY, 3000))
    assert due(ANSM, stopped, counts, DAY + 27 * SOON).next_due == DAY + 7 * SOON
    assert due(ANSM, stopped, counts, DAY + 28 * SOON).next_due is None


# Case files ---------------------------------------------------------------------------------------------------------


def test_a_case_without_an_id_is_named_by_its_place() -> None:
    found = read_cases('[{"nonsense": 1}, {"nonsense": 1}]')
    assert [str(error) for error in found] == [f"case #{number}: nonsense: unknown field" for number in (1, 2)]


def test_part_days_of_a_gap_may_be_rounded_and_a_second_counts() -> None:
    gap_of = {"last_dose": "2026-03-01T08:00:00", "restart": "2026-03-02T08:00:01", "gap_days": 2}
    seen = {"date": "2026-03-03", "anc_per_mm3": 3000}
    row = {
        "id": "a",
        "protocol": "ANSM-2025",
        "ben_confirmed": False,
        "treatment_start": "2026-01-05",
        "interruptions": [gap_of],
        "observation": seen,
    }
    (found,) = read_cases(json.dumps([row]))
    assert not isinstance(found, CaseError), found
    (found,) = read_cases(json.dumps([row | {"interruptions": [gap_of | {"restart": "2026-03-02T08:00:00"}]}]))
    assert isinstance(found, CaseError)


def test_never_again_is_a_field_of_every_later_verdict() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    low, later = count(DAY, 800), DAY + 7 * SOON
    assert judge(low).no_reexposure
    assert judge(count(later, 3000), low, course=stopped, on=later).no_reexposure
    assert judge(None, low, course=stopped, on=later).no_reexposure
    assert not judge(count(later, 3000), count(DAY, 1100), on=later).no_reexposure


@pytest.mark.parametrize(("before", "asked"), [(0, True), (1, True), (-1, False)])
def test_a_count_of_the_day_of_the_last_dose_is_none_before_the_restart(before: int, asked: bool) -> None:
    """A-20: what was drawn while the drug was still taken says nothing of the days without it."""
    last, again = DAY - 20 * SOON, DAY
    course = replace(COURSE, interruptions=(gap(last, again),))
    found = due(ANSM, course, (count(last - before * SOON, 3000),), DAY)
    assert (found.recheck_by == again) is asked


def test_an_exponent_beyond_any_count_is_refused_and_the_last_before_it_is_not() -> None:
    def read(value: str) -> Case | CaseError:
        observation = f'{{"date": "2026-03-03", "anc_per_mm3": {value}}}'
        row = f'{{"id": "a", "protocol": "ANSM-2025", "treatment_start": "2026-01-05", "observation": {observation}}}'
        (found,) = read_cases(f"[{row}]")
        return found

    for value in ("1E9", "1E-9"):
        assert not isinstance(read(value), CaseError), value
    for value in ("1E10", "1E-10"):
        assert isinstance(read(value), CaseError), value
    (empty,) = read_cases('[{"id": "a", "protocol": "", "observation": {"date": "2026-03-03"}}]')
    assert str(empty) == "case a: protocol: must be a text"


# What makes a ban permanent -----------------------------------------------------------------------------------------


def test_only_an_absolute_count_bans_for_ever_and_what_is_open_is_said() -> None:
    derived = AbsoluteNeutrophilCount(per_mm3=Decimal(840), derived=True, lower_bound=Decimal(800))
    sure, computed = judge(count(DAY, 840)), judge(replace(count(DAY, 840), anc=derived))
    assert (sure.no_reexposure, "ban-unconfirmed" in sure.remarks) == (True, False)
    assert (computed.no_reexposure, "ban-unconfirmed" in computed.remarks) == (False, True)


def test_a_stop_of_an_earlier_course_bans_the_next_from_its_day_on() -> None:
    planned = replace(COURSE, start=DAY + 7 * SOON, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    assert judge(count(DAY, 3000), course=planned).no_reexposure
    assert not judge(count(DAY - SOON, 3000), course=planned, on=DAY - SOON).no_reexposure


# Two counts of a day ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("absolute", "agrees"), [(949, False), (950, True), (1100, True), (1101, False)])
def test_an_absolute_count_wins_over_a_derived_one_within_its_rounding(absolute: int, agrees: bool) -> None:
    """Both ends belong to it; outside them the lower of the two is judged (A-23)."""
    derived = Count(DAY, Decimal(950), False, False, Decimal(1100))
    other = Count(DAY, Decimal(absolute), False, True, Decimal(absolute))
    found = worse(derived, other)
    assert found == worse(other, derived)
    assert (found is other) is (agrees or absolute < 950)


def test_no_threshold_lies_at_zero() -> None:
    unit = Decimal(100)
    low = AbsoluteNeutrophilCount(per_mm3=Decimal(50), reporting_unit=unit)
    near = AbsoluteNeutrophilCount(per_mm3=Decimal(450), reporting_unit=unit)
    assert "precision" not in judge(replace(count(DAY, 50), anc=low)).remarks
    assert "precision" in judge(replace(count(DAY, 450), anc=near)).remarks


# More of the files --------------------------------------------------------------------------------------------------


def test_neighbours_of_one_level_are_no_fault_and_a_moment_is_no_day() -> None:
    red = TEXT.replace('alert = "critical"', 'alert = "red"')
    assert red != TEXT
    assert parse(red).id
    with pytest.raises(ProtocolError, match="effective_from must be date"):
        parse(TEXT.replace("effective_from = 2025-09-08", "effective_from = 2025-09-08T00:00:00"))


def test_only_the_american_label_has_an_aftermath() -> None:
    assert [find_protocol(name).aftermath for name in ("ansm", "FDA-2015-LABEL", "EU-SMPC-PRE2025")] == [
        False,
        True,
        False,
    ]


# The short way of a comparison ends at the first of whatever happened -------------------------------------------------


def test_a_comparison_looks_closely_from_the_first_event_on() -> None:
    """Not from the last: the gap of 2026 opens a window for both, long before the signs of infection of 2028."""
    course = TreatmentCourse(
        start=date(2024, 1, 1), prior_neutropenia=PriorNeutropenia.MILD,
        interruptions=(gap(date(2026, 3, 2), date(2026, 4, 13)),), infection_signs_on=date(2028, 1, 3),
    )  # fmt: skip
    rows = [count(date(2026, 4, 13) + timedelta(days=7 * week), 3000, wbc=6000) for week in range(30)]
    found = compare(ANSM, FDA, course, rows)
    apart = [
        row
        for number, row in enumerate(rows)
        if len({judge(row, *rows[:number], course=course, on=day_of(row), protocol=p).next_due for p in (ANSM, FDA)})
        > 1
    ]
    assert found.intervals == len(apart)


def day_of(result: LabResult) -> date:
    assert result.collected_at is not None
    return result.collected_at.date()


def test_a_comparison_looks_closely_on_the_day_of_a_stop() -> None:
    """Every 12 weeks against every 4 on that day, had nothing happened; after a stop both ask for a count a week."""
    course = TreatmentCourse(
        start=date(2023, 1, 2), prior_neutropenia=PriorNeutropenia.NONE, stop=CompleteStop(DAY, StopReason.OTHER)
    )
    assert compare(ANSM, EU, replace(course, stop=None), [count(DAY, 3000, wbc=6000)]).intervals == 1
    assert compare(ANSM, EU, course, [count(DAY, 3000, wbc=6000)]).intervals == 0


def test_a_ban_that_was_lifted_is_said_from_the_day_of_the_stop_on() -> None:
    lifted = Override(kind=OverrideKind.LIFT_A15, by="Dr A", on=DAY, reason="haematologist", expires=DAY + 99 * SOON)
    course = replace(COURSE, stop=CompleteStop(DAY, StopReason.LEGACY_RED), overrides=(lifted,))
    for on in (DAY, DAY + SOON):
        assert "former thresholds is lifted" in dict(judge(count(on, 3000), course=course, on=on).explanation)["en"]


def test_a_restart_that_asks_for_the_same_day_as_the_schedule_is_late_as_a_weekly_count() -> None:
    """B-11: red after three days where counts are weekly, after seven otherwise."""
    again = DAY - 11 * SOON
    course = replace(COURSE, interruptions=(gap(again - 10 * SOON, again),))
    for before, asked in ((21, 7), (20, 7), (10, 7), (5, 2)):  # that of the gap holds for a week
        found = due(ANSM, course, (count(again - before * SOON, 3000), count(again, 3000))[:1], again + 11 * SOON)
        assert (found.next_due, found.level) == (again + asked * SOON, AlertLevel.RED), before


def test_what_raises_nothing_belongs_to_no_family() -> None:
    found = judge(None, count(DAY, 3000), on=DAY + 3 * SOON)
    assert (found.alert, found.family, found.episode_on) == (AlertLevel.NONE, None, None)
    assert (judge(count(DAY, 3000)).family, judge(count(DAY, 800)).family) == (None, AlertFamily.STOP)


def test_signs_answered_by_a_normal_count_are_of_the_day_they_began() -> None:
    found = judge(count(DAY, 3000), course=replace(COURSE, infection_signs_on=DAY - SOON))
    assert (found.family, found.episode_on) == (AlertFamily.OVERDUE, DAY - SOON)


def test_without_a_planned_start_no_schedule_is_cited() -> None:
    planned = replace(COURSE, start=DAY + 3 * SOON)
    with_start, without = (
        judge(count(DAY, 3000), course=planned),
        judge(count(DAY, 3000), course=replace(planned, start=None)),
    )
    assert with_start.action == without.action
    assert (with_start.next_due is None, without.next_due is None) == (False, True)
    assert with_start.citations[: len(without.citations)] == without.citations
    assert len(with_start.citations) > len(without.citations)


@pytest.mark.parametrize("recorded", [True, False])
def test_an_attested_stop_level_neutropenia_bans_after_whatever_stop(recorded: bool) -> None:
    bound = count(date(2026, 7, 20), 900, anc=AbsoluteNeutrophilCount(per_mm3=Decimal(900), comparator=">="))
    known = replace(COURSE, prior_neutropenia=PriorNeutropenia.STOP_LEVEL, prior_attested=Attestation("Dr A", START))
    stopped = replace(known, stop=CompleteStop(date(2026, 7, 20), StopReason.OTHER)) if recorded else known
    for one in (count(DAY, 3000), None):
        found = judge(one, *(() if recorded else (bound,)), course=stopped)
        assert (found.no_reexposure, "no-reexposure" in found.remarks) == (True, True)
        assert found.action in ("WEEKLY_POST_STOP_NO_REEXPOSURE", "OBTAIN_ANC_OVERDUE")
        assert "ban-unconfirmed" not in found.remarks


@pytest.mark.parametrize(("doubted", "action"), [(1490, "AWAIT_SCHEDULED_ANC"), (480, ANSM_STOP)])
def test_a_doubtful_count_says_nothing_beside_a_lower_established_one_of_its_day(doubted: int, action: str) -> None:
    found = judge(count(DAY, doubted, trust=Trust.PROVISIONAL), count(DAY, 912))
    assert (found.action, found.provisional, found.no_reexposure) == (action, True, True)


def test_a_stop_for_another_reason_bans_nothing() -> None:
    stopped = replace(COURSE, stop=CompleteStop(DAY, StopReason.OTHER))
    for result in (count(DAY + 7 * SOON, 3000), None):
        found = judge(result, count(DAY, 3000), course=stopped, on=DAY + 7 * SOON)
        assert not found.no_reexposure
        assert "no-reexposure" not in found.remarks


def test_only_a_gap_without_a_restart_lacks_one() -> None:
    other = replace(COURSE, stop=CompleteStop(DAY, StopReason.OTHER))
    later = DAY + 7 * SOON
    assert "restart-not-recorded" not in judge(count(later, 3000), course=other, on=later).remarks
    assert "restart-not-recorded" not in judge(count(later, 3000), count(DAY, 800), on=later).remarks
    open_gap = replace(COURSE, interruptions=(gap(DAY - 60 * SOON, None),))
    assert "restart-not-recorded" in judge(count(DAY, 3000), course=open_gap).remarks


def test_an_attested_stop_level_history_bans_in_every_verdict() -> None:
    known = replace(COURSE, prior_neutropenia=PriorNeutropenia.STOP_LEVEL)
    for result in (count(DAY, 3000), count(DAY, 1200), count(DAY, 800), None):
        found = judge(result, count(DAY - 7 * SOON, 3000), course=known)
        assert found.no_reexposure
        assert "no-reexposure" in found.remarks


def test_inside_a_window_the_history_is_cited_where_there_is_one() -> None:
    paused = replace(COURSE, interruptions=(gap(DAY - 14 * SOON, DAY - 7 * SOON),))
    plain = judge(count(DAY, 3000), count(DAY - 7 * SOON, 3000), course=paused)
    history = judge(
        count(DAY, 3000), count(DAY - 7 * SOON, 3000), course=replace(paused, prior_neutropenia=PriorNeutropenia.MILD)
    )
    assert plain.action == history.action
    assert set(plain.citations) < set(history.citations)


def test_less_than_the_value_that_permits_does_not_permit() -> None:
    """A-22: "<1500" is not 1500, neither before the first dose nor for the end of the weeks after a stop."""
    planned = replace(COURSE, start=DAY + 3 * SOON)
    below = replace(count(DAY, 1500), anc=AbsoluteNeutrophilCount(per_mm3=Decimal(1500), comparator="<"))
    assert judge(count(DAY, 1500), course=planned).category == "eligible"
    assert judge(below, course=planned).category == "below_initiation_threshold"
    stopped = replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    over = DAY + 28 * SOON
    on_file = count(DAY, 800)
    at = judge(count(over, 1500), on_file, course=stopped, on=over)
    not_at = judge(replace(below, collected_at=count(over, 1).collected_at), on_file, course=stopped, on=over)
    assert (at.next_due is None, not_at.next_due is None) == (True, False)
