"""After the switch from observing to delivering: the present state of what is open is told once, the past is not.

Done in small batches beside the judging, from the start of an engine that delivers until nothing is left; each batch is one
commit, so that an engine that dies in between goes on where it was and tells nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from engine.notify import Notifier
from engine.observe import Meters
from rules.model import CourseState
from store import Store
from store.observed import Untold, any_observed, untold
from store.port import AlertRecord, Work
from store.register import alert_by_id

__all__ = ["Switch"]

_BATCH = 32


class Switch:
    """``notifier`` delivers; ``on_alerts`` is called when deliveries wait."""

    def __init__(
        self,
        store: Store,
        notifier: Notifier,
        meters: Meters,
        *,
        on_alerts: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._meters = meters
        self._on_alerts = on_alerts
        self._clock = clock
        self._after = ""
        self._told = 0
        self.done = False

    async def step(self) -> int:
        """How many alerts were told or passed over now. Raises StoreUnavailable; then nothing was told."""
        if not self._after and not await self._store.read(any_observed):
            self.done = True
            return 0
        wanted = await self._store.read(lambda connection: untold(connection, self._after, _BATCH))
        if not wanted:
            self._end()
            return 0
        work = Work()
        for item in wanted:
            await self._tell(item, work)
        if await self._store.record(work) is None:
            # Otherwise one of the patients changed meanwhile: the same batch again, as it stands then.
            self._after = wanted[-1].alert_id
            self._told += len(work.alerts)
            if work.deliveries:
                self._on_alerts()
        return len(wanted)

    async def _tell(self, item: Untold, work: Work) -> None:
        standing = await self._standing(item, work)
        if standing is not None:
            self._notifier.present(standing, told=item.told, now=self._clock(), work=work)

    async def _standing(self, item: Untold, work: Work) -> AlertRecord | None:
        if item.patient_id is None:
            return await self._store.read(lambda connection: alert_by_id(connection, item.alert_id))
        record = work.patients.get(item.patient_id)
        if record is None:
            found = await self._store.patients_by_id([item.patient_id])
            if not found:
                return None
            record = work.patients[item.patient_id] = found[0]
        if record.course.state is CourseState.DECEASED:
            return None  # death silences (clinical.md B-30)
        return record.alerts.get(item.alert_id)

    def _end(self) -> None:
        self.done = True
        if self._told:
            self._meters.event("present_state_told", level=logging.WARNING, count=self._told)
