"""Spans of time as a recommendation prints them: ``7 days``, ``18 weeks``, ``1 year``; and the calendar's corners.

A year has two readings on 29 February (clinical.md B-4): a *due* date falls on 28 February, never later than the year;
an *anniversary* falls on 1 March, never earlier than it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Unit = Literal["hour", "day", "week", "year"]

_UNITS: dict[str, Unit] = {"hour": "hour", "day": "day", "week": "week", "year": "year"}
_SPAN = re.compile(r"([0-9]{1,4}) (hour|day|week|year)s?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """A whole number of hours, days, weeks or years."""

    count: int
    unit: Unit

    @property
    def days(self) -> int:
        """Length in days; only of spans that have one. Raises ValueError for hours and years."""
        if self.unit == "week":
            return 7 * self.count
        if self.unit == "day":
            return self.count
        raise ValueError(f"{self} is not a whole number of days")

    @property
    def length(self) -> timedelta:
        """Exact length; raises ValueError for years."""
        return timedelta(hours=self.count) if self.unit == "hour" else timedelta(days=self.days)

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"


def parse_span(text: str) -> Span:
    """``"7 days"`` -> Span(7, "day"). Raises ValueError when there is no unit or the number is not a positive integer."""
    match = _SPAN.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"not an interval with a unit (such as '7 days'): {text!r}")
    return Span(int(match[1]), _UNITS[match[2]])


def due_after(day: date, span: Span) -> date:
    """The last day on which a test is in time: ``day`` + ``span``; 29 February + 1 year = 28 February (B-4)."""
    if span.unit != "year":
        return day + timedelta(days=span.days)
    try:
        return day.replace(year=day.year + span.count)
    except ValueError:
        return date(day.year + span.count, 2, 28)


def anniversary(day: date, span: Span, lost_days: int = 0) -> date:
    """The first day on which ``span`` of treatment is complete, ``lost_days`` without treatment not counted.

    29 February + 1 year = 1 March; with lost days, years may be added before or after them: the later day (B-4).
    """
    if span.unit != "year":
        return day + timedelta(days=span.days + lost_days)
    if not lost_days:
        return _years_later(day, span.count)
    lost = timedelta(days=lost_days)
    return max(_years_later(day, span.count) + lost, _years_later(day + lost, span.count))


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 3, 1)
