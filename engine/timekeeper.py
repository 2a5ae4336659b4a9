"""Whether the wall clock goes as time does: it is set back or ahead (NTP, a person), or the machine stood still.

Durations inside a process are measured by the monotonic clock. What outlives a process, such as when to try again and until
when to answer, is written down in the wall clock's time. Once a second the two are compared. Set back: what waits moves back
with it (store.leap). Leapt ahead, which is also how a suspended machine wakes: nobody spoke to us meanwhile, so that nobody
was silent; destinations have their time to come back; nothing is removed for its age until the new time has lasted for a day.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.dispatcher import Dispatcher
from engine.observe import Meters
from engine.watch import Watch
from store import Store, StoreUnavailable, feeds, leap
from store.values import from_ms, to_ms

__all__ = ["Timekeeper"]

_EVERY_S = 1.0
# What a busy machine makes of a second's pause is no step.
_BACK, _AHEAD = timedelta(seconds=1), timedelta(seconds=60)
# What is in hand at a step is written by then.
_LATE_S = (5.0, 30.0)
# So far ahead that ages are no longer believed, and for how long.
_FAR, _DOUBTED_S = timedelta(days=1), 24 * 3600.0


class Timekeeper:
    """``leads``: whether this engine, of several, is the one whose clock counts. ``monotonic``: seconds."""

    def __init__(
        self,
        store: Store,
        meters: Meters,
        *,
        zone: ZoneInfo,
        watch: Watch,
        dispatchers: Sequence[Dispatcher],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._meters = meters
        self._zone = zone
        self._watch = watch
        self._dispatchers = dispatchers
        self._clock = clock
        self._monotonic = monotonic
        self._leads = leads
        self._now, self._at = clock(), monotonic()
        self._began = False
        self._doubted_until = float("-inf")
        self._again: list[tuple[float, int, set[tuple[str, int]]]] = []
        """When to look once more for what was reckoned before a step and written after it; by how much; what has moved."""

    def age_time(self) -> datetime | None:
        """Now, for what may be removed because it is old; None while the clock is not believed. Compared with this very
        reading: what is removed too early cannot be had back."""
        now, at = self._clock(), self._monotonic()
        expected = self._now + timedelta(seconds=at - self._at)
        if not self._began or at < self._doubted_until or now > expected + _AHEAD:
            return None
        return now

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Compares once. A step that the store cannot take now is looked at again: nothing of it is forgotten."""
        now, at = self._clock(), self._monotonic()
        try:
            if not self._began:
                await self._begin(now)
            expected = self._now + timedelta(seconds=at - self._at)
            if now < expected - _BACK:
                await self._set_back(expected, now)
            elif now > expected + _AHEAD:
                self._leapt(expected, now)
            elif self._again and at >= self._again[0][0]:
                await self._late(now)
        except StoreUnavailable as error:
            self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
            return
        self._now, self._at = now, at

    async def _begin(self, now: datetime) -> None:
        """The clock may have been set while the engine was off: it was seen last at the last sweep."""
        seen = (await self._store.read(feeds.marks)).get("seen_at")
        if seen is not None and from_ms(seen) > now + _BACK:
            await self._set_back(from_ms(seen), now)
        elif seen is not None and now - from_ms(seen) > _FAR:
            self._doubted_until = self._monotonic() + _DOUBTED_S
        self._began = True

    async def _late(self, now: datetime) -> None:
        _, by_ms, moved = self._again[0]
        await self._store.write(lambda connection: leap.late(connection, now_ms=to_ms(now), by_ms=by_ms, moved=moved))
        self._again.pop(0)

    async def _set_back(self, expected: datetime, now: datetime) -> None:
        by, local = expected - now, now.astimezone(self._zone).date()
        today = local if expected.astimezone(self._zone).date() != local else None
        by_ms = by // timedelta(milliseconds=1)
        if self._leads():
            moved = await self._store.write(
                lambda connection: leap.set_back(connection, now_ms=to_ms(now), by_ms=by_ms, today=today)
            )
            self._again += [(self._monotonic() + after_s, by_ms, moved) for after_s in _LATE_S]
            self._again.sort(key=lambda item: item[0])
        self._watch.clock_moved(expected, now)
        for dispatcher in self._dispatchers:
            dispatcher.wake()
        self._meters.event("clock_set_back", level=logging.WARNING, duration_ms=by / timedelta(milliseconds=1))

    def _leapt(self, expected: datetime, now: datetime) -> None:
        self._watch.clock_moved(expected, now)
        for dispatcher in self._dispatchers:
            dispatcher.try_anew()
        if now - expected > _FAR:
            self._doubted_until = self._monotonic() + _DOUBTED_S
        by = (now - expected) / timedelta(milliseconds=1)
        self._meters.event("clock_leapt_ahead", level=logging.WARNING, duration_ms=by)
