"""Takes filed results from their outbox to a Kafka topic, a batch at a time, each version once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from emitters.kafka_results import ResultRecord, ResultsTopic, TopicUnavailable
from engine.dispatcher import RetryPolicy
from engine.observe import Meters
from store import Store, StoreUnavailable, publications

__all__ = ["Publisher"]

_BATCH = 500
_POLL_S = 1.0


class Publisher:
    """``leads``: whether this engine, of several, is the one that writes to this topic now."""

    def __init__(
        self,
        name: str,
        store: Store,
        topic: ResultsTopic,
        policy: RetryPolicy,
        meters: Meters,
        *,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self._store = store
        self._topic = topic
        self._policy = policy
        self._meters = meters
        self._leads = leads
        self._woken = asyncio.Event()
        self._failures = 0

    @property
    def state(self) -> str:
        """``up``, ``down``, or ``standby``: another engine publishes."""
        if not self._leads():
            return "standby"
        return "down" if self._failures else "up"

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled; a batch that is under way is then found again, and asked after."""
        try:
            while True:
                self._woken.clear()
                try:
                    busy = self._leads() and await self._round()
                except StoreUnavailable as error:
                    self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
                    busy = False
                if not busy:
                    await self._wait(_POLL_S)
        finally:
            await self._topic.close()

    async def _round(self) -> bool:
        """Whether there may be more at once."""
        number, rows = await self._store.write(lambda connection: publications.batch(connection, self.name, _BATCH))
        if not number:
            return False
        records = [
            ResultRecord(
                result_id=row.result_id,
                patient_id=row.patient_id,
                version=row.version,
                current=row.current,
                result=row.result,
            )
            for row in rows
        ]
        try:
            await self._topic.publish(number, records)
        except TopicUnavailable as error:
            self._failures += 1
            if self._failures == 1:
                self._meters.event(
                    "destination_down", level=logging.WARNING, destination=f"{self.name}/results", reason=str(error)
                )
            await asyncio.sleep(self._policy.wait_s(self._failures, None))
            return True
        if self._failures:
            self._failures = 0
            self._meters.event("destination_up", destination=f"{self.name}/results")
        await self._store.write(lambda connection: publications.published(connection, self.name, number))
        self._meters.event("results_published", destination=f"{self.name}/results", count=len(records))
        return True

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
