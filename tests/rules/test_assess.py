"""What the worked cases cannot say: trust, derived counts, versions, order, and properties over random histories."""

from __future__ import annotations

import ast
import itertools
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import assess, due, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    AlertLevel,
    Assessment,
    Attestation,
    CompleteStop,
    CourseState,
    Interruption,
    LabResult,
    Population,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
    Trust,
    Unassessable,
)

ANSM = find_protocol("ansm")
START = date(2026, 1, 5)
COURSE = TreatmentCourse(start=START, prior_neutropenia=PriorNeutropenia.NONE)
DAY = date(2026, 8, 3)
KEYS = itertools.count()


def count(
    on: date,
    per_mm3: int | str,
    *,
    status: ResultStatus = ResultStatus.FINAL,
    trust: Trust = Trust.ESTABLISHED,
    comparator: str | None = None,
    lower: str | None = None,
    unit: str | None = None,
    key: str = "",
    number: int | None = None,
) -> LabResult:
    anc = AbsoluteNeutrophilCount(
        per_mm3=Decimal(per_mm3),
        comparator=comparator,  # type: ignore[arg-type]
        derived=lower is not None,
        lower_bound=None if lower is None else Decimal(lower),
        reporting_unit=None if unit is None else Decimal(unit),
    )
    at = datetime(on.year, on.month, on.day, 8, tzinfo=UTC)
    return LabResult(status=status, anc=anc, collected_at=at, trust=trust, key=key, id=number)


def wall(day: date) -> datetime:
    """Midnight on the wall clock, as the register holds doses."""
    return datetime.combine(day, time())


def judge(
    result: LabResult | None, *history: LabResult, course: TreatmentCourse = COURSE, as_of: date = DAY
) -> Assessment:
    found = assess(ANSM, course, history, result, as_of)
    assert isinstance(found, Assessment)
    return found


def test_a_preliminary_stop_level_count_alarms_and_bans_nobody_for_ever() -> None:
    found = judge(count(DAY, 800, status=ResultStatus.PRELIMINARY), count(date(2026, 7, 6), 2900))
    assert (found.action, found.alert) == ("STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE", AlertLevel.RED)
    assert (found.provisional, found.no_reexposure) == (True, False)


def test_a_doubtful_normal_count_does_not_satisfy_a_due_test() -> None:
    late = date(2026, 8, 20)
    before = count(date(2026, 7, 6), 2900)
    found = judge(count(late, 3000, trust=Trust.PROVISIONAL), before, as_of=late)
    assert (found.action, found.alert, found.next_due) == ("OBTAIN_ANC_OVERDUE", AlertLevel.RED, date(2026, 8, 3))
    assert found.category == "normal"


def test_a_doubtful_count_lowers_nothing_that_an_established_one_of_the_day_has_said() -> None:
    found = judge(count(DAY, 3000, trust=Trust.PROVISIONAL), count(DAY, 2500), count(date(2026, 7, 6), 2900))
    assert (found.action, found.next_due) == ("AWAIT_SCHEDULED_ANC", DAY + timedelta(days=28))


def test_one_low_count_before_the_first_dose_is_remarked_among_sound_ones() -> None:
    course = replace(COURSE, start=DAY + timedelta(days=3))
    earlier = [count(date(2026, 7, 6), 2900), count(date(2026, 7, 20), 1400), count(date(2026, 7, 27), 2900)]
    assert "earlier-low-count" in judge(count(DAY, 3000), *earlier, course=course).remarks
    assert "earlier-low-count" not in judge(count(DAY, 3000), *earlier[::2], course=course).remarks


def test_a_doubtful_normal_count_before_the_first_dose_permits_nothing() -> None:
    course = replace(COURSE, start=DAY + timedelta(days=3))
    assert judge(count(DAY, 3000, trust=Trust.PROVISIONAL), course=course).action == "OBTAIN_ANC_BEFORE_START"


def test_a_doubtful_count_in_the_history_leaves_the_schedule_alone() -> None:
    history = [count(date(2026, 7, 6), 2900), count(date(2026, 8, 1), 3000, trust=Trust.PROVISIONAL)]
    assert due(ANSM, COURSE, history, DAY).next_due == date(2026, 8, 3)


def test_a_doubtful_low_count_that_nobody_answered_asks_for_a_repeat() -> None:
    history = [count(date(2026, 7, 20), 2900), count(date(2026, 8, 1), 800, trust=Trust.PROVISIONAL)]
    found = due(ANSM, COURSE, history, DAY)
    assert (found.recheck_by, found.level) == (date(2026, 8, 2), AlertLevel.AMBER)


def test_a_derived_count_is_judged_by_its_lower_bound() -> None:
    found = judge(count(DAY, "1008", lower="974"))
    assert (found.category, found.no_reexposure) == ("moderate", False)
    assert {"derived", "derived-across-threshold", "ban-unconfirmed"} <= set(found.remarks)


def test_an_absolute_count_of_the_day_wins_over_a_derived_one_within_rounding() -> None:
    assert judge(count(DAY, "1008", lower="974"), count(DAY, "1000")).category == "mild"
    assert judge(count(DAY, "1008", lower="974"), count(DAY, "1200")).category == "moderate"


@pytest.mark.parametrize(
    ("sign", "value", "category"),
    [
        ("<", "1000", "moderate"),
        ("<", "500", "severe"),
        ("<=", "1000", "mild"),
        (">", "1500", "mild"),
        ("<", "0", "severe"),
    ],
)
def test_a_value_with_a_sign_is_compared_exactly(sign: str, value: str, category: str) -> None:
    found = judge(count(DAY, value, comparator=sign))
    assert found.category == category
    assert "censored" in found.remarks


def test_an_upper_limit_cannot_reassure() -> None:
    found = judge(count(DAY, 2000, comparator="<"), count(date(2026, 7, 20), 2900))
    assert found.provisional
    assert found.next_due == date(2026, 8, 17)


def test_a_value_within_one_reporting_step_of_a_threshold_says_so() -> None:
    assert "precision" in judge(count(DAY, 1100, unit="100")).remarks
    assert "precision" not in judge(count(DAY, 1110, unit="10")).remarks


def test_of_two_counts_a_day_the_lowest_is_judged() -> None:
    found = judge(count(DAY, 3000), count(DAY, 950))
    assert found.category == "moderate"
    assert "several-counts" in found.remarks


def test_a_withdrawn_version_is_no_count() -> None:
    wrong = count(date(2026, 7, 6), 900, key="k", number=1)
    back = replace(wrong, status=ResultStatus.ENTERED_IN_ERROR, anc=None, id=2)
    assert judge(count(DAY, 3000), wrong, back).category == "normal"


def test_a_corrected_version_replaces_the_first() -> None:
    wrong = count(date(2026, 7, 6), 900, key="k", number=1)
    right = count(date(2026, 7, 6), 1900, key="k", number=2, status=ResultStatus.CORRECTED)
    assert judge(count(DAY, 3000), right, wrong).category == "normal"


def test_a_count_is_not_compared_with_its_own_earlier_version() -> None:
    earlier = count(DAY, 900, key="k", number=1)
    assert judge(count(DAY, 1900, key="k", number=2, status=ResultStatus.CORRECTED), earlier).category == "normal"


def test_a_late_arrival_is_judged_at_its_own_day() -> None:
    assert judge(count(DAY, 3000), count(date(2026, 9, 1), 1200)).action == "CONTINUE"


@pytest.mark.parametrize("result", [count(DAY, 1, status=ResultStatus.CANCELLED), count(DAY, "NaN"), count(DAY, -5)])
def test_what_is_no_count_is_unassessable(result: LabResult) -> None:
    assert isinstance(assess(ANSM, COURSE, (), result, DAY), Unassessable)


def test_a_result_without_a_value_is_unassessable() -> None:
    assert isinstance(assess(ANSM, COURSE, (), replace(count(DAY, 1), anc=None), DAY), Unassessable)


def test_unknown_history_is_monitored_monthly_at_least() -> None:
    course = TreatmentCourse(start=date(2021, 3, 1))
    found = judge(count(DAY, 3000), course=course)
    assert (found.action, found.next_due) == ("CONTINUE", DAY + timedelta(days=28))
    assert "B-26" in found.readings


def test_unknown_history_does_not_resume_as_a_stable_patient() -> None:
    gap = Interruption(wall(date(2026, 7, 20)), wall(date(2026, 8, 3)))
    course = TreatmentCourse(start=date(2021, 3, 1), interruptions=(gap,))
    assert judge(count(DAY, 3000), course=course).action == "CLOSER_MONITORING"


def test_an_attested_stop_level_history_forbids_a_start() -> None:
    course = TreatmentCourse(prior_neutropenia=PriorNeutropenia.STOP_LEVEL, prior_attested=Attestation("Dr A", START))
    found = judge(count(DAY, 4000), course=course)
    assert (found.category, found.action, found.alert) == ("contraindicated", "DO_NOT_REEXPOSE", AlertLevel.CRITICAL)
    assert found.no_reexposure


def test_treatment_after_a_ban_is_contraindicated_and_counted_weekly() -> None:
    stop = CompleteStop(date(2025, 10, 6), StopReason.ANC_BELOW_1000)
    found = judge(count(DAY, 4000), course=replace(COURSE, stop=stop))
    assert (found.category, found.next_due) == ("contraindicated", DAY + timedelta(days=7))


def test_a_later_record_of_benign_ethnic_neutropenia_lifts_no_stop() -> None:
    course = replace(COURSE, ben=Attestation("Dr A", date(2026, 7, 20)))
    assert judge(count(DAY, 2000), count(date(2026, 7, 6), 800), course=course).no_reexposure
    assert course.population is Population.BENIGN_ETHNIC_NEUTROPENIA


def test_a_count_before_the_record_of_benign_ethnic_neutropenia_is_general() -> None:
    course = replace(COURSE, ben=Attestation("Dr A", DAY + timedelta(days=1)))
    assert judge(count(DAY, 800), course=course).category == "moderate"


def test_death_silences() -> None:
    found = judge(
        None, count(date(2026, 7, 6), 2900), course=replace(COURSE, state=CourseState.DECEASED), as_of=date(2027, 1, 1)
    )
    assert (found.alert, found.next_due) == (AlertLevel.NONE, None)


def test_a_count_of_the_day_of_the_stop_is_what_it_was_stopped_for() -> None:
    course = replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000))
    assert judge(count(DAY, 800), course=course).action == "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE"


def test_later_counts_of_a_stop_keep_its_episode() -> None:
    first = judge(count(DAY, 800))
    later = judge(count(DAY + timedelta(days=7), 1200), count(DAY, 800), as_of=DAY + timedelta(days=7))
    assert (first.family, first.episode_on) == (later.family, later.episode_on)


COUNTS = st.integers(0, 4000).map(lambda tenths: Decimal(tenths) / 2 * 5)
DAYS = st.integers(-20, 1200)
HISTORIES = st.lists(st.tuples(DAYS, COUNTS), max_size=12)
GAPS = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 60)), max_size=3)
PRIORS = st.sampled_from([PriorNeutropenia.NONE, PriorNeutropenia.UNKNOWN, PriorNeutropenia.MILD])
STOPS = st.none() | st.tuples(st.integers(1, 1200), st.sampled_from(list(StopReason)))


@st.composite
def situations(draw: st.DrawFn) -> tuple[TreatmentCourse, list[LabResult], date]:
    gaps = tuple(
        Interruption(wall(date(2024, 1, 8)) + timedelta(days=a), wall(date(2024, 1, 8)) + timedelta(days=a + n))
        for a, n in draw(GAPS)
    )
    start = date(2024, 1, 8)
    stop = draw(STOPS)
    course = TreatmentCourse(
        start=start,
        interruptions=gaps,
        prior_neutropenia=draw(PRIORS),
        ben=draw(st.none() | st.just(Attestation("Dr A", date(2020, 1, 1)))),
        stop=None if stop is None else CompleteStop(start + timedelta(days=stop[0]), stop[1]),
    )
    history = [count(start + timedelta(days=d), str(v)) for d, v in draw(HISTORIES)]
    return course, history, start + timedelta(days=draw(DAYS))


@given(situations(), COUNTS, COUNTS)
@settings(max_examples=400, deadline=None)
def test_a_lower_count_is_never_judged_more_mildly(
    situation: tuple[TreatmentCourse, list[LabResult], date], one: Decimal, other: Decimal
) -> None:
    course, history, day = situation
    low, high = sorted((one, other))
    below = judge(count(day, str(low)), *history, course=course, as_of=day)
    above = judge(count(day, str(high)), *history, course=course, as_of=day)
    assert below.alert.rank >= above.alert.rank
    assert above.no_reexposure <= below.no_reexposure


@given(situations(), COUNTS)
@settings(max_examples=300, deadline=None)
def test_under_treatment_there_is_always_a_next_date(
    situation: tuple[TreatmentCourse, list[LabResult], date], value: Decimal
) -> None:
    course, history, day = situation
    found = judge(count(day, str(value)), *history, course=course, as_of=day)
    if found.category in ("normal", "mild", "moderate", "severe"):
        assert found.next_due is not None
        assert found.next_due > day
    assert found.citations
    assert [language for language, _ in found.explanation] == ["fr", "en"]


@given(situations(), COUNTS)
@settings(max_examples=300, deadline=None)
def test_a_provisional_count_never_lowers(
    situation: tuple[TreatmentCourse, list[LabResult], date], value: Decimal
) -> None:
    course, history, day = situation
    without = judge(None, *history, course=course, as_of=day)
    doubtful = judge(count(day, str(value), trust=Trust.PROVISIONAL), *history, course=course, as_of=day)
    assert doubtful.alert.rank >= without.alert.rank
    assert doubtful.no_reexposure == without.no_reexposure
    if without.next_due is not None:
        assert doubtful.next_due is not None
        assert doubtful.next_due <= without.next_due


@given(situations(), COUNTS)
@settings(max_examples=300, deadline=None)
def test_benign_ethnic_neutropenia_is_never_stricter(
    situation: tuple[TreatmentCourse, list[LabResult], date], value: Decimal
) -> None:
    course, _, day = situation
    general = judge(count(day, str(value)), course=replace(course, ben=None), as_of=day)
    ben = judge(count(day, str(value)), course=replace(course, ben=Attestation("Dr A", date(2020, 1, 1))), as_of=day)
    assert ben.alert.rank <= general.alert.rank


@given(st.integers(1, 900), st.lists(st.tuples(st.integers(1, 400), COUNTS), max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_stop_is_never_undone_by_a_later_count(stopped_on: int, later: list[tuple[int, Decimal]]) -> None:
    low = START + timedelta(days=stopped_on)
    history = [count(low, 999), *(count(low + timedelta(days=d), str(v)) for d, v in later)]
    day = low + timedelta(days=401)
    found = judge(count(day, 5000), *history, as_of=day)
    assert found.no_reexposure
    assert found.category == "post_stop"


@given(situations())
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_history_does_not_matter(
    situation: tuple[TreatmentCourse, list[LabResult], date],
) -> None:
    course, history, day = situation
    assert judge(None, *history, course=course, as_of=day) == judge(None, *history[::-1], course=course, as_of=day)


def test_the_rules_import_nothing_but_the_standard_library() -> None:
    for path in (Path(__file__).parents[2] / "rules").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert root == "rules" or root in sys.stdlib_module_names, f"{path.name}: {name}"
                assert root not in ("logging", "socket", "random", "time"), f"{path.name}: {name}"


def test_no_number_of_a_recommendation_stands_in_the_evaluator() -> None:
    for name in ("assess", "absent", "course", "schedule", "record", "verdict", "explain"):
        tree = ast.parse((Path(__file__).parents[2] / "rules" / f"{name}.py").read_text(encoding="utf-8"))
        numbers = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) in (int, float)}
        assert numbers <= {0, 1, 100}, name
