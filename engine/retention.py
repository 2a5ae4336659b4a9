"""What is kept for how long: one small batch at a time while the engine has nothing else to do.

A sweep goes through everything that has an age in the settings, oldest first, and begins anew some hours later: what an open
alert held back then may be free by then.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.config import RetentionSection
from engine.observe import Meters
from store import Store
from store.purge import Kind, sweep
from store.values import to_ms

__all__ = ["Retention", "ages"]

_BATCH = 200
_REST = timedelta(hours=6)


def ages(section: RetentionSection) -> dict[Kind, timedelta]:
    """Only what is to be removed at all."""
    days = {
        Kind.NOT_RELEVANT_BODIES: section.not_relevant_body_days,
        Kind.JUDGED_BODIES: section.judged_body_days,
        Kind.UNASSESSABLE_BODIES: section.judged_body_days,
        Kind.REGISTER_BODIES: section.judged_body_days,
        Kind.SET_ASIDE_BODIES: section.set_aside_body_days,
        Kind.NOT_RELEVANT: section.not_relevant_days,
        Kind.DUPLICATES: section.duplicate_days,
        Kind.DELIVERED: section.delivered_days,
        Kind.OBSERVED: section.observed_days,
        Kind.AUDIT: section.audit_days,
    }
    return {kind: timedelta(days=number) for kind, number in days.items() if number}


class Retention:
    def __init__(
        self,
        store: Store,
        section: RetentionSection,
        meters: Meters,
    ) -> None:
        self._store = store
        self._ages = ages(section)
        self._meters = meters
        self._left: list[Kind] = list(self._ages)
        self._after = 0
        self._rested_since: datetime | None = None

    async def step(self, now: datetime) -> int:
        """One batch of what is old enough by ``now``; how many rows or bodies it removed.

        Raises StoreUnavailable; then nothing was.
        """
        if not self._left:
            if self._rested_since is None:
                self._rested_since = now
            if abs(now - self._rested_since) < _REST:
                return 0
            self._left, self._after, self._rested_since = list(self._ages), 0, None
            if not self._left:
                return 0
        kind, after = self._left[0], self._after
        before_ms = to_ms(now - self._ages[kind])
        done = await self._store.write(lambda connection: sweep(connection, kind, after, before_ms, _BATCH))
        if done.removed:
            self._meters.event("retention_removed", kind=kind.value, count=done.removed)
        if done.after is None:
            self._left.pop(0)
        self._after = done.after or 0
        return done.removed
