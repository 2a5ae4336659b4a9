"""Spans and the calendar's corners (clinical.md B-4)."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules import assess, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    Assessment,
    LabResult,
    PriorNeutropenia,
    ResultStatus,
    TreatmentCourse,
)
from rules.span import Span, anniversary, due_after, parse_span

YEAR, TWO_YEARS = Span(1, "year"), Span(2, "year")


@pytest.mark.parametrize("text", ["7", "days", "7days", "0 days", "-1 days", "7.5 days", "7 months", "", "٧ days"])
def test_what_has_no_number_and_unit_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="interval with a unit"):
        parse_span(text)


@pytest.mark.parametrize("text", ["1 day", "7 days", "48 hours", "18 weeks", "2 years"])
def test_a_span_prints_as_it_is_written(text: str) -> None:
    assert str(parse_span(text)) == text


def test_a_yearly_test_after_29_february_is_due_by_28_february() -> None:
    assert due_after(date(2028, 2, 29), YEAR) == date(2029, 2, 28)
    assert due_after(date(2027, 2, 28), YEAR) == date(2028, 2, 28)


def test_the_anniversary_of_29_february_is_1_march() -> None:
    assert anniversary(date(2024, 2, 29), TWO_YEARS) == date(2026, 3, 1)
    assert anniversary(date(2024, 2, 29), Span(4, "year")) == date(2028, 2, 29)


def test_with_lost_days_the_later_anniversary_counts() -> None:
    # 1 December 2023 + 2 years + 100 days = 11 March 2026; + 100 days first = 10 March 2024 + 2 years = 10 March 2026
    assert anniversary(date(2023, 12, 1), TWO_YEARS, 100) == date(2026, 3, 11)


def test_weeks_are_seven_days() -> None:
    assert anniversary(date(2026, 1, 5), Span(18, "week")) == date(2026, 5, 11)


PARIS = ZoneInfo("Europe/Paris")


@given(st.dates(date(1996, 1, 1), date(2096, 12, 31)), st.integers(1, 10))
@settings(max_examples=500, deadline=None)
def test_a_year_is_never_due_later_than_its_anniversary(day: date, years: int) -> None:
    span = Span(years, "year")
    assert due_after(day, span) <= anniversary(day, span)
    assert 365 * years <= (due_after(day, span) - day).days <= 366 * years
    leap_day = (day.month, day.day) == (2, 29)
    assert (anniversary(day, span) - due_after(day, span)).days in ((0, 1) if leap_day else (0,))


@given(st.dates(date(1996, 1, 1), date(2096, 12, 31)), st.integers(0, 800))
@example(date(2002, 2, 1), 758)
@settings(max_examples=300, deadline=None)
def test_lost_days_never_bring_an_anniversary_forward(day: date, lost: int) -> None:
    two = Span(2, "year")
    assert anniversary(day, two, lost) >= anniversary(day, two) + timedelta(days=lost)
    # Not strictly: one day more may only make up for a 29 February that the second year has not.
    assert anniversary(day, two, lost + 1) >= anniversary(day, two, lost)


@given(st.dates(date(2020, 1, 1), date(2034, 12, 31)), st.sampled_from([0, 1, 2, 3, 23]))
@settings(max_examples=200, deadline=None)
def test_a_clock_change_moves_no_due_date(day: date, hour: int) -> None:
    at = datetime(day.year, day.month, day.day, hour, 30, tzinfo=PARIS)
    course = TreatmentCourse(start=day - timedelta(days=200), prior_neutropenia=PriorNeutropenia.NONE)
    count = LabResult(status=ResultStatus.FINAL, anc=AbsoluteNeutrophilCount(per_mm3=Decimal(3000)), collected_at=at)
    found = assess(find_protocol("ansm"), course, (), count, at.date())
    assert isinstance(found, Assessment)
    assert found.next_due == day + timedelta(days=28)
