"""Reads back the Tasks that we made at a FHIR server: what changed since the last look, page by page, into the inbox.

A door in like any other: what people did there is stored first, under the Task's own version, and judged afterwards. By
``_lastUpdated``, in the server's own time; and as a safety net, by the alerts that are open here, once in a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import msgspec

from emitters.fhir_server import FhirServer
from emitters.sink import Refused, TryAgain
from engine.observe import Meters
from ingest.envelope import fhir
from ingest.reading.fhirtasks import TASK_SYSTEM
from store import Store, StoreUnavailable, feeds, listing
from store.port import Work
from store.values import from_ms, to_ms

__all__ = ["CHANNEL", "AnswerPoll"]

CHANNEL: Final = "answers"
_ALERT_SYSTEM: Final = TASK_SYSTEM.removesuffix("task") + "alert"
# What a person sets; the rest is ours, or nobody's yet.
_SAID: Final = frozenset({"received", "accepted", "in-progress", "on-hold", "completed", "rejected", "failed"})
_COUNT, _PAGES, _ALERTS = 100, 50, 25
# A server may write a Task's time before it can be found: the last seconds are read again.
_OVERLAP: Final = timedelta(seconds=5)
_ALL_EVERY: Final = timedelta(hours=1)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class AnswerPoll:
    """``run`` until cancelled; ``look`` once, for tests with a clock of their own."""

    def __init__(
        self,
        store: Store,
        server: FhirServer,
        meters: Meters,
        *,
        every_s: float,
        leads: Callable[[], bool] = lambda: True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``leads``: whether this engine, of several, is the one that reads this server's answers now."""
        self._leads = leads
        self._store = store
        self._server = server
        self._meters = meters
        self._every_s = every_s
        self._clock = clock
        self._taken: dict[str, str] = {}
        """Version by Task, of those that the overlap may bring again."""
        self._all_at: datetime | None = None

    @property
    def name(self) -> str:
        return self._server.name

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._every_s)
                if not self._leads():
                    continue
                try:
                    await self.look()
                except StoreUnavailable as error:
                    self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
                except Exception as error:
                    # Another system's odd answer must not end the reading of answers.
                    self._meters.fault(error, destination=self.name)
        finally:
            await self._server.close()

    async def look(self) -> int:
        """How many changes of Tasks were taken. Nothing is asked while nobody here waits for an answer."""
        oldest = await self._store.read(listing.oldest_open)
        if oldest is None:
            return 0
        label = f"tasks:{self.name}"
        mark = (await self._store.read(feeds.marks)).get(label)
        since = from_ms(mark) - _OVERLAP if mark is not None else oldest - _OVERLAP
        taken, newest = await self._changed(since)
        if newest is not None and (mark is None or to_ms(newest) > mark):
            await self._store.record(Work(at=self._clock(), marks={label: to_ms(newest)}))
        now = self._clock()
        if self._all_at is None or abs(now - self._all_at) >= _ALL_EVERY:  # a clock that was set back postpones nothing
            self._all_at = now
            taken += await self._open()
        return taken

    async def _changed(self, since: datetime) -> tuple[int, datetime | None]:
        moment = since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ours = quote(f"{TASK_SYSTEM}|", safe="")
        return await self._pages(f"Task?identifier={ours}&_lastUpdated=ge{moment}&_sort=_lastUpdated&_count={_COUNT}")

    async def _open(self) -> int:
        """All Tasks of what is open here, whatever the server's times say."""
        taken, after = 0, ""
        while found := await self._store.read(lambda c, seen=after: listing.open_alerts(c, seen, _ALERTS)):  # type: ignore[misc]
            after = found[-1]
            tokens = ",".join(quote(f"{_ALERT_SYSTEM}|{number}", safe="") for number in found)
            taken += (await self._pages(f"Task?group-identifier={tokens}&_count={_COUNT}"))[0]
        return taken

    async def _pages(self, address: str) -> tuple[int, datetime | None]:
        taken, newest = 0, None
        for _ in range(_PAGES):
            bundle = await self._server.fetch(address)
            if isinstance(bundle, TryAgain | Refused):
                self._meters.event("answers_unread", level=logging.WARNING, destination=self.name, reason=bundle.why)
                return taken, newest
            for task in _tasks(bundle):
                taken += await self._take(task)
                at = _updated(task)
                newest = max(newest, at) if newest is not None and at is not None else (at or newest)
            following = _next(bundle)
            if not following or following == address:
                break
            address = following
        return taken, newest

    async def _take(self, task: dict[str, Any]) -> int:
        number, version = str(task.get("id", "")), str(task.get("meta", {}).get("versionId", ""))
        if task.get("status") not in _SAID or (version and self._taken.get(number) == version):
            return 0
        raw = _encoder.encode(task)
        item = fhir(
            raw,
            channel=CHANNEL,
            peer="",
            now=self._clock(),
            sender=self.name,
            control_id=f"Task/{number}/_history/{version or task.get('lastModified', '')}",
            message_type="Task",
        )
        stored = await self._store.accept(item)
        self._taken[number] = version
        while len(self._taken) > 10_000:
            self._taken.pop(next(iter(self._taken)))
        self._meters.received(CHANNEL, "fhir", stored.disposition)
        return 0 if stored.duplicate_of is not None else 1


def _tasks(bundle: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if (
            isinstance(resource, dict)
            and resource.get("resourceType") == "Task"
            and isinstance(resource.get("meta", {}), dict)
        ):
            yield resource


def _updated(task: dict[str, Any]) -> datetime | None:
    text = task.get("meta", {}).get("lastUpdated")
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _next(bundle: dict[str, Any]) -> str:
    for link in bundle.get("link") or ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return str(link["url"])
    return ""
