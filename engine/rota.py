"""Who is on duty: roles, the hours of each, holidays, and who stands in for whom. Pure: the time is given.

Hours are wall-clock hours of the site's zone. Every instant has exactly one wall-clock time, whatever the clocks do in March
and October, so that a rota without a gap on the wall has none in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

__all__ = ["DAYS", "HOLIDAY", "Cover", "Role", "Rota", "Shift", "french_holidays"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOLIDAY: Final = "holiday"
_NAMES: Final = {
    **dict(zip(DAYS, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"), strict=True)),
    HOLIDAY: "a holiday",
}
_DAY_MIN: Final = 24 * 60
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Role:
    """``fhir``: the reference that owns a Task in FHIR; without one the role's name is said."""

    name: str
    fhir: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """From ``start`` to ``end`` in minutes after midnight of each of ``days``; not later than ``start``: of the next day."""

    role: str
    days: frozenset[str]
    start: int = 0
    end: int = _DAY_MIN

    @property
    def length(self) -> int:
        return self.end - self.start if self.end > self.start else self.end - self.start + _DAY_MIN


@dataclass(frozen=True, slots=True)
class Cover:
    """``by`` stands in for ``role`` in the shifts that begin from ``first`` to ``last``."""

    role: str
    by: str
    first: date
    last: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Rota:
    """``shifts`` in the order in which the roles are asked."""

    zone: ZoneInfo
    roles: tuple[Role, ...]
    shifts: tuple[Shift, ...]
    covers: tuple[Cover, ...] = ()
    holidays: frozenset[date] = frozenset()
    calendar: str = ""
    """``FR``: the eleven public holidays of France besides ``holidays``."""

    def on_duty(self, at: datetime) -> tuple[str, ...]:
        """Roles in the order in which they are asked, each once."""
        wall = at.astimezone(self.zone)
        minute, today = wall.hour * 60 + wall.minute, wall.date()
        found: dict[str, None] = {}
        for shift in self.shifts:
            for begun, passed in ((today, minute), (today - _ONE_DAY, minute + _DAY_MIN)):
                if self._kind(begun) in shift.days and shift.start <= passed < shift.start + shift.length:
                    found[self._stands_in(shift.role, begun)] = None
        return tuple(found)

    def role_of(self, owner: str) -> str:
        """The role that ``owner`` names, by its name or its FHIR reference; "" for none."""
        return next((role.name for role in self.roles if owner and owner in (role.name, role.fhir)), "")

    def reference(self, role: str) -> str:
        """What a Task calls this role."""
        return next((one.fhir or one.name for one in self.roles if one.name == role), role)

    def first(self, owner: str, at: datetime) -> str:
        """Whom to ask first: ``owner``, unless that is a role which is off duty, or nobody."""
        duty, role = self.on_duty(at), self.role_of(owner)
        if owner and (not role or role in duty or not duty):
            return role or owner
        return duty[0] if duty else owner

    def next(self, asked: Sequence[str], at: datetime) -> str:
        """Whom to ask after ``asked`` (the last one asked last): who was not asked yet, else who was longest ago."""
        duty = self.on_duty(at)
        before = asked[-1] if asked else ""
        others = [role for role in duty if role != before]
        if not others:
            return duty[0] if duty else before
        last = {role: place for place, role in enumerate(asked)}
        return min(others, key=lambda role: (last.get(role, -1), duty.index(role)))

    def gaps(self) -> list[str]:
        """The hours in which nobody is on duty: ``Saturday 08:00-18:00``, ``a holiday 00:00-24:00``; empty: none."""
        found: dict[str, None] = {}
        for place, day in enumerate(DAYS):
            yesterday = DAYS[place - 1]
            for span in self._gaps(yesterday, day):
                found[f"{_NAMES[day]} {span}"] = None
        if self.calendar or self.holidays:
            ordinary = set(found)
            for place, day in enumerate(DAYS):
                for before in (DAYS[place - 1], HOLIDAY):
                    for span in self._gaps(before, HOLIDAY):
                        found[f"{_NAMES[HOLIDAY]} {span}"] = None
                for span in self._gaps(HOLIDAY, day):
                    if f"{_NAMES[day]} {span}" not in ordinary:
                        found[f"{_NAMES[day]} after a holiday {span}"] = None
        return list(found)

    def _gaps(self, yesterday: str, today: str) -> Iterator[str]:
        """Uncovered spans of a day of kind ``today`` after one of kind ``yesterday``."""
        covered = sorted(
            (max(shift.start - off, 0), min(shift.start + shift.length - off, _DAY_MIN))
            for shift in self.shifts
            for kind, off in ((today, 0), (yesterday, _DAY_MIN))
            if kind in shift.days
        )
        reached = 0
        for start, end in [*covered, (_DAY_MIN, _DAY_MIN)]:
            if start > reached:
                yield f"{_clock(reached)}-{_clock(start)}"
            reached = max(reached, end)

    def _kind(self, day: date) -> str:
        holiday = day in self.holidays or (self.calendar == "FR" and day in french_holidays(day.year))
        return HOLIDAY if holiday else DAYS[day.weekday()]

    def _stands_in(self, role: str, day: date) -> str:
        return next((one.by for one in self.covers if one.role == role and one.first <= day <= one.last), role)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@lru_cache(maxsize=64)
def french_holidays(year: int) -> frozenset[date]:
    """The public holidays of France (Code du travail, L3133-1); those of Alsace-Moselle and overseas are not among them.

    >>> date(2026, 4, 6) in french_holidays(2026), date(2026, 5, 14) in french_holidays(2026)
    (True, True)
    """
    easter = _easter(year)
    fixed = ((1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25))
    moving = (1, 39, 50)  # Easter Monday, Ascension, Whit Monday
    return frozenset(
        [*(date(year, month, day) for month, day in fixed), *(easter + timedelta(days=days) for days in moving)]
    )


def _easter(year: int) -> date:
    """Gregorian Easter Sunday (the anonymous algorithm, Meeus, Astronomical Algorithms, chapter 8)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (b - (b + 8) // 25 + 1) // 3
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
