"""The drawing of a patient's counts: positions, bands, shapes, marks; on the pure model, with the packaged protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from console.timeline import COMPACT, WIDE, Count, Dot, Standing, Timeline, draw
from rules import find_protocol
from rules.model import Attestation, CompleteStop, Interruption, Population, StopReason, TreatmentCourse

ANSM = find_protocol("ansm")
START = date(2026, 1, 1)
TODAY = date(2026, 6, 1)
ON_CLOZAPINE = TreatmentCourse(start=START)

Draw = Callable[..., Timeline]


def count(per_mm3: str, on: date, number: int = 1, **facts: Any) -> Count:
    at = datetime(on.year, on.month, on.day, 8, tzinfo=UTC)
    return Count(id=number, at=at, per_mm3=Decimal(per_mm3), **{"standing": Standing.CURRENT, **facts})


def drawn(*counts: Count, course: TreatmentCourse = ON_CLOZAPINE, **more: Any) -> Timeline:
    return draw(counts, course, ANSM, **{"today": TODAY, **more})


def dot(line: Timeline, number: int = 1) -> Dot:
    return next(one for one in line.dots if one.id == number)


@pytest.mark.parametrize("size", [WIDE, COMPACT])
def test_everything_that_is_drawn_lies_on_the_paper(size: Any) -> None:
    counts = [count(str(300 + 700 * n), START + timedelta(days=20 * n), n) for n in range(8)]
    line = drawn(*counts, size=size, next_due=TODAY + timedelta(days=7), recheck_by=TODAY + timedelta(days=2))
    for one in line.dots:
        assert size.left <= one.x <= size.width - size.right
        assert size.top <= one.y <= line.floor
    for mark in line.marks:
        assert size.left <= mark.x <= size.width - size.right
    for band in line.bands:
        assert band.height > 0


def test_later_counts_stand_further_right_and_lower_counts_further_down() -> None:
    line = drawn(count("4000", START, 1), count("900", START + timedelta(days=30), 2))
    assert dot(line, 1).x < dot(line, 2).x
    assert dot(line, 1).y < dot(line, 2).y


def test_the_bands_are_the_protocol_s_and_leave_no_gap() -> None:
    line = drawn(count("2500", START))
    assert [(band.id, band.low, band.high) for band in line.bands] == [
        ("severe", Decimal(0), Decimal(500)),
        ("moderate", Decimal(500), Decimal(1000)),
        ("mild", Decimal(1000), Decimal(1500)),
        ("normal", Decimal(1500), None),
    ]
    for lower, upper in zip(line.bands, line.bands[1:], strict=False):
        assert lower.y == pytest.approx(upper.y + upper.height, abs=0.2)
    assert [limit.per_mm3 for limit in line.limits] == [500, 1000, 1500]


def test_a_count_on_a_limit_stands_on_its_line_and_in_the_band_that_the_protocol_says() -> None:
    line = drawn(count("1000", START, 1), count("1500", START + timedelta(days=9), 2), count("999", TODAY, 3))
    heights = {limit.per_mm3: limit.y for limit in line.limits}
    assert dot(line, 1).y == heights[Decimal(1000)]
    assert dot(line, 2).y == heights[Decimal(1500)]
    assert [dot(line, number).kind for number in (1, 2, 3)] == ["mild", "mild", "stop"]


def test_less_than_the_limit_is_below_it() -> None:
    line = drawn(count("1000", TODAY, comparator="<"))
    assert (dot(line).kind, dot(line).arrow) == ("stop", -1)


def test_confirmed_ethnic_neutropenia_lowers_the_bands_from_its_day_on() -> None:
    course = TreatmentCourse(start=START, ben=Attestation("Dr Hoda", date(2026, 3, 1)))
    line = drawn(count("800", date(2026, 2, 1), 1), count("800", date(2026, 4, 1), 2), course=course)
    before = [band for band in line.bands if band.population is Population.GENERAL]
    after = [band for band in line.bands if band.population is Population.BENIGN_ETHNIC_NEUTROPENIA]
    assert [band.id for band in after] == ["severe", "mild", "normal"]
    assert before[0].x + before[0].width == pytest.approx(after[0].x, abs=0.2)
    assert dot(line, 1).x < after[0].x < dot(line, 2).x
    assert (dot(line, 1).kind, dot(line, 2).kind) == ("stop", "mild")


def test_a_corrected_value_is_hollow_struck_out_and_leads_to_the_new_one() -> None:
    line = drawn(
        count("900", TODAY, 1, standing=Standing.REPLACED, replaced_by=2),
        count("3900", TODAY, 2),
    )
    old, new = dot(line, 1), dot(line, 2)
    assert (old.hollow, old.strike, old.to) == (True, True, (new.x, new.y))
    assert (new.hollow, new.strike) == (False, False)
    assert line.line == ((new.x, new.y),)


def test_a_value_restated_as_it_was_is_drawn_once() -> None:
    line = drawn(count("2500", TODAY, 1, standing=Standing.REPLACED, replaced_by=2), count("2500", TODAY, 2))
    assert [one.id for one in line.dots] == [2]


def test_a_value_that_the_laboratory_took_back_leads_nowhere_and_carries_no_line() -> None:
    line = drawn(count("900", TODAY, 1, standing=Standing.WITHDRAWN))
    assert (dot(line).strike, dot(line).hollow, dot(line).to) == (True, True, None)
    assert line.line == ()


def test_derived_and_provisional_counts_have_shapes_of_their_own() -> None:
    line = drawn(
        count("2500", START, 1),
        count("2500", START + timedelta(days=9), 2, derived=True),
        count("2500", START + timedelta(days=18), 3, provisional=True),
    )
    assert [(one.shape, one.hollow) for one in line.dots] == [
        ("circle", False),
        ("square", False),
        ("diamond", True),
    ]
    assert len(line.line) == 2, "the line goes through what is established only"


@pytest.mark.parametrize(("comparator", "arrow"), [(None, 0), ("<", -1), ("<=", -1), (">", 1), (">=", 1)])
def test_a_value_with_a_sign_points_where_the_count_may_lie(comparator: Any, arrow: int) -> None:
    assert dot(drawn(count("2000", TODAY, comparator=comparator))).arrow == arrow


def test_a_count_without_a_day_or_without_a_value_has_no_place() -> None:
    undated = Count(id=1, at=None, per_mm3=Decimal(900), standing=Standing.CURRENT)
    assert drawn(undated, Count(id=2, at=datetime.now(UTC), per_mm3=None, standing=Standing.WITHDRAWN)).dots == ()


def test_treatment_runs_from_its_start_with_its_interruptions_to_its_stop() -> None:
    course = TreatmentCourse(
        start=START,
        interruptions=(Interruption(datetime(2026, 2, 1), datetime(2026, 2, 11)),),  # noqa: DTZ001  # wall clock
        stop=CompleteStop(date(2026, 5, 1), StopReason.OTHER),
    )
    line = drawn(course=course)
    assert [(piece.kind, piece.since, piece.until) for piece in line.pieces] == [
        ("treated", START, date(2026, 2, 1)),
        ("interrupted", date(2026, 2, 1), date(2026, 2, 11)),
        ("treated", date(2026, 2, 11), date(2026, 5, 1)),
    ]
    assert {mark.kind for mark in line.marks} == {"start", "stop", "today"}


def test_an_interruption_that_nobody_ended_runs_on_to_today() -> None:
    course = TreatmentCourse(start=START, interruptions=(Interruption(datetime(2026, 5, 20)),))  # noqa: DTZ001
    last = drawn(course=course).pieces[-1]
    assert (last.kind, last.until) == ("interrupted", None)


def test_a_planned_start_is_marked_and_nothing_is_treated_yet() -> None:
    line = drawn(course=TreatmentCourse(start=TODAY + timedelta(days=10)), next_due=TODAY + timedelta(days=10))
    assert line.pieces == ()
    assert "start" in {mark.kind for mark in line.marks}


def test_the_next_due_day_stands_right_of_today_when_it_is_to_come_and_left_when_it_is_late() -> None:
    def order(next_due: date) -> bool:
        x = {mark.kind: mark.x for mark in drawn(count("2500", START), next_due=next_due).marks}
        return x["due"] > x["today"]

    assert order(TODAY + timedelta(days=3))
    assert not order(TODAY - timedelta(days=3))


def test_a_shorter_period_leaves_older_counts_to_the_table_and_says_how_many() -> None:
    counts = [count("2500", START + timedelta(days=n), n) for n in range(0, 150, 10)]
    line = drawn(*counts, since=TODAY - timedelta(days=60))
    assert line.since >= TODAY - timedelta(days=62)
    assert line.earlier + len(line.dots) == len(counts)
    assert line.earlier > 0


def test_values_are_never_written_over_each_other_and_the_last_one_always_is() -> None:
    counts = [count("2500", START + timedelta(days=n), n) for n in range(150)]
    line = drawn(*counts)
    written = sorted(one.x for one in line.dots if one.labelled)
    assert all(right - left >= 2 * WIDE.room for left, right in itertools.pairwise(written))
    assert line.dots[-1].labelled


def test_what_stands_in_a_correction_s_place_is_written_before_what_it_replaced_and_before_a_doubtful_count() -> None:
    counts = [
        count("2700", TODAY - timedelta(days=20), 1, standing=Standing.REPLACED, replaced_by=2),
        count("1700", TODAY - timedelta(days=20), 2),
        count("2100", TODAY - timedelta(days=2), 3, provisional=True),
    ]
    course = TreatmentCourse(start=TODAY - timedelta(days=1400))
    line = drawn(*counts, course=course)
    assert dot(line, 2).labelled
    assert not dot(line, 3).labelled


def test_a_low_count_keeps_its_value_among_many_normal_ones() -> None:
    counts = [count("2500", START + timedelta(days=n), n) for n in range(1, 150)]
    counts[70] = count("400", START + timedelta(days=71), 71)
    assert dot(drawn(*counts), 71).labelled


@pytest.mark.parametrize("days", [1, 30, 100, 365, 800, 4000])
def test_there_are_ticks_for_any_length_and_never_more_than_fit(days: int) -> None:
    start = TODAY - timedelta(days=days)
    for size in (WIDE, COMPACT):
        line = drawn(count("2500", start), course=TreatmentCourse(start=start), size=size)
        assert 1 <= len(line.ticks) <= size.most_ticks


def test_a_very_high_count_is_still_on_the_paper() -> None:
    line = drawn(count("62000", TODAY))
    assert dot(line).y >= WIDE.top


def test_nothing_known_draws_bands_and_today() -> None:
    line = drawn(course=TreatmentCourse())
    assert (line.dots, line.pieces) == ((), ())
    assert [mark.kind for mark in line.marks] == ["today"]
