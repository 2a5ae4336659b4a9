"""Times as messages write them: HL7 TS/DTM, ISO 8601 and FHIR dateTime, with what is missing left missing.

Rule of the file: an offset is never invented. Without one the sender's zone is applied where it is known; an hour that
the clocks repeat or skip is a doubt.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo

from wire.memo import memo

__all__ = ["UNREADABLE", "Stamp", "date_of", "stamp_of"]


class Stamp(NamedTuple):
    """``at`` None: not stated, or not to the day. ``time_known`` False: only the day was."""

    at: datetime | None
    time_known: bool = True
    doubts: tuple[str, ...] = ()


UNREADABLE = Stamp(None, True, ("collection-time-unreadable",))
_TIME = re.compile(
    r"(\d{4})-?(?:(\d\d)-?(?:(\d\d)(?:[T ]?(\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?)?)?)?"
    r"\s*(Z|[+-]\d\d(?::?\d\d)?)?\Z",
    re.ASCII,
)


@memo(4096)
def stamp_of(text: str, zone: ZoneInfo | None = None) -> Stamp:
    """``20261122080500+0100``, ``202611220805``, ``20261122``, ``2026-11-22T08:05:00+01:00`` or ``2026-11-22``."""
    match = _TIME.match(text.strip())
    if match is None:
        return UNREADABLE
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if month is None or day is None:
        return UNREADABLE
    try:
        at = datetime(  # noqa: DTZ001 - naive until its offset or the sender's zone is known
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            int((fraction or "0")[:6].ljust(6, "0")),
        )
        known = hour is not None
        if not 1900 <= at.year <= 2200:
            return UNREADABLE
        if offset:
            return Stamp(at.replace(tzinfo=_offset(offset)), known)
    except (ValueError, OverflowError):
        return UNREADABLE
    if zone is None:
        return Stamp(at, known)
    local = at.replace(tzinfo=zone)
    odd = known and local.utcoffset() != local.replace(fold=1).utcoffset()
    return Stamp(local, known, ("time-ambiguous",) if odd else ())


def _offset(text: str) -> timezone:
    if text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + (int(text[-2:]) if len(text) > 3 else 0)
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def date_of(text: str) -> date | None:
    """The day of a birth date or a period's end; None when it is not stated to the day."""
    at = stamp_of(text).at
    return at.date() if at is not None else None
