"""A sender's rhythm over weeks, by messages at hours that the reader can check."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.watch_rhythm import Listening, hear, judge
from store.port import FeedRecord

PARIS = ZoneInfo("Europe/Paris")
MONDAY = datetime(2026, 9, 28, tzinfo=PARIS)
HOW = Listening(zone=PARIS, floor_h=3, factor=1.5, after=timedelta(days=14), messages=20)


def heard(weeks: int, speaks: Callable[[datetime], bool]) -> FeedRecord:
    """A message at half past each hour in which it speaks."""
    moments = [(MONDAY + timedelta(days=hour // 24)).replace(hour=hour % 24, minute=30) for hour in range(weeks * 168)]
    spoken = [moment.astimezone(UTC) for moment in moments if speaks(moment)]
    feed = FeedRecord(channel="mllp", sender="LAB", first_at=spoken[0], last_at=spoken[0])
    hear(feed, spoken, HOW)
    return feed


def office(moment: datetime) -> bool:
    return moment.weekday() < 5 and 7 <= moment.hour < 19


def test_a_weekend_counts_nothing_and_monday_morning_counts_in_full() -> None:
    feed = heard(3, office)  # last heard on Friday at 18:30
    monday = MONDAY + timedelta(days=21)
    assert judge(feed, monday.replace(hour=7), HOW).silence_h == 0.5  # the rest of Friday's last hour
    assert not judge(feed, monday.replace(hour=9), HOW).silent
    assert judge(feed, monday.replace(hour=10), HOW).silent


def test_the_hour_that_is_moved_in_autumn_raises_nothing() -> None:
    feed = heard(4, office)  # the clocks go back on 25 October 2026, the last Sunday of these weeks
    assert not judge(feed, (MONDAY + timedelta(days=28)).replace(hour=8), HOW).silent


def test_silence_teaches_nothing_while_it_lasts() -> None:
    feed = heard(3, office)
    after = [judge(feed, MONDAY + timedelta(days=days), HOW) for days in (25, 60)]
    assert all(found.silent for found in after)
    assert after[0].limit_h == after[1].limit_h


def test_a_silence_that_was_too_long_is_not_learnt_as_normal() -> None:
    feed = heard(3, office)
    back = (MONDAY + timedelta(days=23)).replace(hour=9)
    hear(feed, [back.astimezone(UTC)], HOW)
    assert feed.body["limit_h"] == 3


def test_hours_in_which_the_engine_was_off_are_not_counted() -> None:
    feed = heard(3, office)
    monday = MONDAY + timedelta(days=21)
    off = Listening(
        zone=PARIS,
        floor_h=3,
        factor=1.5,
        after=timedelta(days=14),
        messages=20,
        deaf=(monday.replace(hour=6), monday.replace(hour=12)),
    )
    assert judge(feed, monday.replace(hour=12), off).silence_h == 0.5


def test_one_that_speaks_seldom_is_judged_by_its_occasions() -> None:
    feed = heard(8, lambda moment: moment.weekday() < 5 and moment.hour == 10)
    friday = MONDAY + timedelta(days=53)
    assert feed.last_at.astimezone(PARIS).date() == (friday + timedelta(days=0)).date()
    assert feed.body["limit_h"] == 3
    # Three working days without its message, and the fourth day's hour has begun.
    assert not judge(feed, (MONDAY + timedelta(days=58)).replace(hour=10), HOW).silent
    assert judge(feed, (MONDAY + timedelta(days=59)).replace(hour=12), HOW).silent
