"""A sender's own rhythm, learnt from when it spoke, and how long its silence may last.

The reasoning. A laboratory that sends every ten minutes at noon says nothing at night and little on Sunday, so that a silence
cannot be judged by its length alone. Silence is therefore measured in *expected hours*: each hour of it counts as much as the
share of the last eight weeks in which this sender spoke in that hour of the week. Sixty hours of a weekend in which it never
speaks count nothing, three hours of a busy Tuesday count three, and for one that sends once a day at any time an hour counts
a tenth. What is too long is learnt too: the longest silence of the last eight weeks, in expected hours, times a factor, and
never less than a floor. Judged only after two weeks and a number of messages.

What keeps it honest: silence teaches nothing while it lasts (the shares are those of the day on which the sender was last
heard), a silence that was a finding is never learnt as normal, and the time in which the engine itself was off counts for
nobody. A public holiday on a working day is a silence that the rhythm does not know: it is told once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from store.port import FeedRecord

__all__ = ["Judgement", "Listening", "hear", "judge"]

_WEEKS = 8
_SLOTS = 7 * 24
_HOUR = timedelta(hours=1)
_LONGEST = timedelta(days=7 * _WEEKS)
_START = datetime(2001, 1, 1)  # noqa: DTZ001  # a Monday, as wall-clock time: weeks are counted from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How feeds are judged. ``deaf``: when the engine was off last, and nobody could be heard."""

    zone: ZoneInfo
    floor_h: float
    factor: float
    after: timedelta
    messages: int
    deaf: tuple[datetime, datetime] | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """``limit_h`` None: its rhythm is still being learnt. Both in expected hours."""

    silence_h: float
    limit_h: float | None

    @property
    def silent(self) -> bool:
        return self.limit_h is not None and self.silence_h > self.limit_h


def hear(feed: FeedRecord, moments: Sequence[datetime], how: Listening) -> None:
    """Learns from messages at these moments, in order; ``feed`` is changed in place."""
    weeks, longest = _weeks(feed), _longest(feed)
    for moment in moments:
        if (moment - feed.last_at) / _HOUR * how.factor > how.floor_h:
            feed.body |= {"weeks": _written(weeks), "longest": _kept(longest)}
            ended = judge(feed, moment, how)
            if not ended.silent:
                week = str(_slot(moment, how.zone)[0])
                longest[week] = max(longest.get(week, 0.0), round(ended.silence_h, 2))
        week_number, slot = _slot(moment, how.zone)
        weeks[week_number] = weeks.get(week_number, 0) | 1 << slot
        feed.last_at = max(feed.last_at, moment)
        feed.messages += 1
    feed.body |= {"weeks": _written(weeks), "longest": _kept(longest)}
    feed.body["limit_h"] = judge(feed, feed.last_at, how).limit_h


def judge(feed: FeedRecord, now: datetime, how: Listening) -> Judgement:
    """How long ``feed`` has been silent by ``now``, and how long it may be."""
    shares = _shares(_weeks(feed), feed.first_at, feed.last_at, how.zone)
    silence = _expected(shares, feed.last_at, now, how.zone)
    if how.deaf is not None:
        since, until = max(how.deaf[0], feed.last_at), min(how.deaf[1], now)
        silence -= _expected(shares, since, until, how.zone)
    if feed.last_at - feed.first_at < how.after or feed.messages < how.messages:
        return Judgement(silence, None)
    return Judgement(silence, max(how.floor_h, how.factor * max(_longest(feed).values(), default=0.0)))


def _slot(moment: datetime, zone: ZoneInfo) -> tuple[int, int]:
    """(week, hour of the week) of the local time."""
    since = moment.astimezone(zone).replace(tzinfo=None) - _START
    return since.days // 7, since.days % 7 * 24 + since.seconds // 3600


def _shares(weeks: dict[int, int], first_at: datetime, last_at: datetime, zone: ZoneInfo) -> list[float]:
    """For each hour of the week, in which share of the weeks that it was listened to the sender spoke then.

    The hour in which it was heard first is left out, and that in which it was heard last: one is always full, and would
    make every hour of a short acquaintance look usual.
    """
    first_week, first_slot = _slot(first_at, zone)
    last_week, last_slot = _slot(last_at, zone)
    from_week = max(first_week, last_week - _WEEKS)
    shares = []
    for slot in range(_SLOTS):
        begin = from_week + (1 if from_week == first_week and slot <= first_slot else 0)
        end = last_week - (1 if slot >= last_slot else 0)
        listened = end - begin + 1
        spoke = sum(1 for week in range(begin, end + 1) if weeks.get(week, 0) >> slot & 1)
        shares.append(spoke / listened if listened > 0 else 0.0)
    return shares


def _expected(shares: Sequence[float], since: datetime, until: datetime, zone: ZoneInfo) -> float:
    """The hours between two moments, each weighed by its share."""
    moment, total = max(since, until - _LONGEST).astimezone(UTC), 0.0
    until = until.astimezone(UTC)
    while moment < until:
        following = min(moment.replace(minute=0, second=0, microsecond=0) + _HOUR, until)
        total += shares[_slot(moment, zone)[1]] * ((following - moment) / _HOUR)
        moment = following
    return total


def _weeks(feed: FeedRecord) -> dict[int, int]:
    return {int(week): int(bits, 16) for week, bits in feed.body.get("weeks", {}).items()}


def _written(weeks: dict[int, int]) -> dict[str, str]:
    return {str(week): f"{weeks[week]:x}" for week in sorted(weeks)[-_WEEKS - 1 :]}


def _longest(feed: FeedRecord) -> dict[str, float]:
    found: dict[str, Any] = feed.body.get("longest", {})
    return dict(found)


def _kept(longest: dict[str, float]) -> dict[str, float]:
    return {week: longest[week] for week in sorted(longest, key=int)[-_WEEKS:]}
