"""How the pages write times, ages and numbers: in the site's zone, in the visitor's language."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from store.values import from_ms

__all__ = ["formats", "moment_of"]

_MONTHS = {
    "fr": ("janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."),
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
}
_THOUSANDS = {"fr": "\u202f", "en": ","}
_UNITS = {"fr": ("s", "min", "h", "j"), "en": ("s", "min", "h", "d")}

Moment = datetime | date | int | str


def moment_of(value: Moment, zone: ZoneInfo) -> datetime | date:
    """Milliseconds, ISO text or a datetime as local time; a date stays a date. A naive time is taken as local."""
    if isinstance(value, int):
        return from_ms(value).astimezone(zone)
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.astimezone(zone) if value.tzinfo else value.replace(tzinfo=zone)
    return value


def formats(language: str, zone: ZoneInfo, now: datetime) -> dict[str, Callable[..., str]]:
    """``day``, ``moment``, ``iso``, ``age`` and ``number`` for templates. None and "" become ""."""

    def day(value: Moment | None) -> str:
        if value in (None, ""):
            return ""
        at = moment_of(value, zone)
        return f"{at.day} {_MONTHS[language][at.month - 1]} {at.year}"

    def moment(value: Moment | None, *, seconds: bool = False) -> str:
        if value in (None, ""):
            return ""
        at = moment_of(value, zone)
        if not isinstance(at, datetime):
            return day(at)
        clock = f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}"
        if at.date() == now.astimezone(zone).date():
            return clock if seconds else f"{_TODAY[language]} {clock}"
        return f"{day(at.date())} {clock}"

    def iso(value: Moment | None) -> str:
        return "" if value in (None, "") else moment_of(value, zone).isoformat()

    def age(value: Moment | timedelta | None) -> str:
        """How long ago, or how long: the largest unit that is not zero, and the next one below for hours and days."""
        if value in (None, ""):
            return ""
        if isinstance(value, timedelta):
            span = value
        else:
            at = moment_of(value, zone)
            span = now - (at if isinstance(at, datetime) else datetime(at.year, at.month, at.day, tzinfo=zone))
        seconds = max(int(span.total_seconds()), 0)
        s, m, h, d = _UNITS[language]
        if seconds < 60:
            return f"{seconds} {s}"
        if seconds < 3600:
            return f"{seconds // 60} {m}"
        if seconds < 2 * 86400:
            return f"{seconds // 3600} {h} {seconds % 3600 // 60:02d}"
        return f"{seconds // 86400} {d}"

    def number(value: int | Decimal | str | None) -> str:
        if value in (None, ""):
            return ""
        whole, point, part = f"{value}".partition(".")
        sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
        # Four digits stand together, as in the sources: 1500/mm3.
        grouped = f"{int(digits):,}".replace(",", _THOUSANDS[language]) if len(digits) > 4 else digits
        mark = "," if language == "fr" else "."
        return f"{sign}{grouped}{mark + part if point else ''}"

    return {"day": day, "moment": moment, "iso": iso, "age": age, "number": number}


_TODAY = {"fr": "aujourd’hui", "en": "today"}
