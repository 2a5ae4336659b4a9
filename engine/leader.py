"""Which of several engines on one database does what is done once: the clock, and the delivering to each destination.

A lease lives in the database, by the server's clock, and is prolonged well before it ends. Here it counts as held only as
long
as its last prolongation allows, counted from before it was asked for: an engine that stood still knows that it has lost it
before it does anything more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from engine.observe import Meters
from store import Store, StoreUnavailable
from store.store import LEASE_MS

__all__ = ["CLOCK", "Leader", "delivering_to"]

CLOCK = "clock"
_EVERY_S = 1.0
# The two clocks may run at slightly different speeds.
_HELD_S = LEASE_MS / 1000 * 0.8


def delivering_to(destination: str) -> str:
    return f"deliver {destination}"


class Leader:
    """On an SQLite file there is one engine, which leads always."""

    def __init__(self, store: Store, meters: Meters, names: Iterable[str], on_led: Callable[[], None]) -> None:
        """``on_led`` is called when something new is this engine's to do."""
        self._store = store
        self._meters = meters
        self._names = sorted(names)
        self._on_led = on_led
        self._until: dict[str, float] = {}

    def leads(self, name: str) -> bool:
        return not self._store.shared or time.monotonic() < self._until.get(name, 0.0)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            asked_at = time.monotonic()
            held: set[str] = set()
            with contextlib.suppress(StoreUnavailable):  # it is told by whoever has work to do; what is held runs out
                held = await self._store.lead(self._names)
            new = [name for name in held if not self.leads(name)]
            for name in held:
                self._until[name] = asked_at + _HELD_S
            if new and self._store.shared:
                self._meters.event("leads", level=logging.WARNING, count=len(new), reason=", ".join(sorted(new)))
                self._on_led()
            await asyncio.sleep(_EVERY_S)
