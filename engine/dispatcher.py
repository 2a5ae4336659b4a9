"""Takes what is due from the outbox to its destination, each destination by itself, each patient in order.

The retry clock lives in the outbox table: an attempt ends as delivered, as waiting until a later time, or as a dead letter.
A destination that is down is tried again with one notification, not with all; a slow one never holds another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from emitters.sink import Answer, Delivered, Refused, Sink, TryAgain
from engine.observe import Meters
from rules.model import Alert
from store import Store, StoreUnavailable
from store.port import DeliveryOutcome, Waiting
from store.values import decode_alert, from_ms

__all__ = ["Dispatcher", "RetryPolicy"]

_POLL_S = 1.0
# Each commit costs the same for one outcome as for ten; until it is made the destination's next turn has begun already.
_TOGETHER_S = 0.01
# Answered and not recorded yet: so many at most while the database is held or full.
_UNRECORDED = 256
# Rows read beyond what can be started now, and how long that reading is believed.
_AHEAD, _AHEAD_S = 64, 0.25
# What is too old is given up only after so long of trying: an engine that was off, or stood still, has not tried.
_TRIED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    first_s: float = 1
    longest_s: float = 300
    give_up_after: timedelta = timedelta(hours=24)
    parallel: int = 1

    def wait_s(self, attempts: int, asked_s: float | None) -> float:
        """Doubles from the first wait to the longest, a quarter of it random; what the destination asked for comes first."""
        backoff: float = min(self.first_s * 2 ** min(attempts - 1, 30), self.longest_s)
        jittered = backoff * (0.75 + 0.25 * random.random())  # noqa: S311  # spreads load, guards nothing
        return max(jittered, min(asked_s or 0, 3600))


class Dispatcher:
    def __init__(
        self,
        store: Store,
        sink: Sink,
        policy: RetryPolicy,
        meters: Meters,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """``leads``: whether this engine, of several, is the one that delivers to this destination now."""
        self._leads = leads
        self._store = store
        self._sink = sink
        self._policy = policy
        self._meters = meters
        self._clock = clock
        self._woken = asyncio.Event()
        self._busy_patients: set[str] = set()
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._sending: set[int] = set()
        self._ahead: deque[Waiting] = deque()
        self._read_at = 0.0
        self._outcomes: list[tuple[DeliveryOutcome, asyncio.Future[None]]] = []
        self._recorder: asyncio.Task[None] | None = None
        self._ended: set[int | str] = set()
        """Deliveries, and their patients, that ended since the outbox was last read: that reading may still show them as
        waiting, and a later notification of the patient as free to go before one that must be tried again."""
        self._down_since: float | None = None
        self._down_tries = 0
        self._quiet_until = 0.0
        self._trying_since = time.monotonic()

    @property
    def name(self) -> str:
        return self._sink.name

    @property
    def state(self) -> str:
        """``up``, ``down``, or ``standby``: another engine delivers."""
        if not self._leads():
            return "standby"
        return "down" if self.down else "up"

    @property
    def down(self) -> bool:
        return self._down_since is not None

    def wake(self) -> None:
        self._woken.set()

    def try_anew(self) -> None:
        """Time has passed in which nothing could be tried."""
        self._trying_since = time.monotonic()
        self._quiet_until = 0.0
        self.wake()

    async def run(self) -> None:
        """Until cancelled; then what is in flight is left to its retry, under the same ids."""
        try:
            while True:
                try:
                    started = await self._round()
                except StoreUnavailable as error:
                    self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
                    await asyncio.sleep(_POLL_S)
                    continue
                if not started:
                    await self._wait()
        finally:
            for task in self._in_flight.values():
                task.cancel()
            await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
            await self._record_last()
            await self._sink.close()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes in the moment of waking.
            async with asyncio.timeout(_POLL_S):
                await self._woken.wait()

    async def _round(self) -> bool:
        self._woken.clear()
        if not self._leads():
            return False
        if time.monotonic() < self._quiet_until:
            await asyncio.sleep(min(self._quiet_until - time.monotonic(), _POLL_S))
            return False
        # While it is down one notification is enough to find out whether it still is.
        free = (1 if self.down else self._policy.parallel) - len(self._sending)
        if free <= 0 or len(self._in_flight) >= len(self._sending) + _UNRECORDED:
            return False
        if time.monotonic() - self._read_at > _AHEAD_S:
            self._ahead.clear()
        started = self._start_some(free)
        if started < free:
            self._ended.clear()
            self._read_at = time.monotonic()
            # Rows in flight are still waiting in the table, so more are read than can be started.
            most = len(self._in_flight) + free + _AHEAD
            self._ahead = deque(await self._store.due(self.name, self._clock(), most))
            started += self._start_some(free - started)
        return started > 0

    def _start_some(self, most: int) -> int:
        """From what was read. One that is passed over, its patient having another under way, is found by the next reading."""
        started = 0
        while self._ahead and started < most:
            waiting = self._ahead.popleft()
            if waiting.id in self._in_flight or waiting.id in self._ended:
                continue
            if not self._leads():
                return False  # the reading took longer than the lease: somebody else has begun
            if waiting.patient_id in self._busy_patients or waiting.patient_id in self._ended:
                continue
            self._start(waiting)
            started += 1
        return started

    def _start(self, waiting: Waiting) -> None:
        if waiting.patient_id is not None:
            self._busy_patients.add(waiting.patient_id)
        self._sending.add(waiting.id)
        self._in_flight[waiting.id] = asyncio.create_task(self._deliver(waiting))

    async def _deliver(self, waiting: Waiting) -> None:
        try:
            started = time.perf_counter()
            outcome = await self._attempt(waiting)
            self._meters.stage(f"deliver_{self.name}", time.perf_counter() - started)
            recorded = self._recorded(outcome)
            if outcome.state == "delivered":
                # The destination's next turn begins. Until this one is on disk its patient's next notification waits.
                self._sending.discard(waiting.id)
                self._woken.set()
            await recorded
            if outcome.state == "waiting":
                self._ahead.clear()  # it has its turn before those that were read with it
            self._tell(outcome)
        finally:
            self._in_flight.pop(waiting.id, None)
            self._sending.discard(waiting.id)
            self._ended.add(waiting.id)
            if waiting.patient_id is not None:
                self._busy_patients.discard(waiting.patient_id)
                self._ended.add(waiting.patient_id)
            self._woken.set()

    def _recorded(self, outcome: DeliveryOutcome) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.append((outcome, done))
        if self._recorder is None:
            self._recorder = asyncio.create_task(self._record(), name=f"outcomes {self.name}")
        return done

    async def _record(self) -> None:
        while self._outcomes:
            await asyncio.sleep(_TOGETHER_S)
            batch = self._outcomes[:]
            try:
                await self._store.delivered([outcome for outcome, _ in batch])
            except StoreUnavailable:
                await asyncio.sleep(_POLL_S)
                continue
            except Exception as error:
                # Whoever waits for these outcomes would wait for ever.
                self._meters.fault(error, destination=self.name, reason="outcomes")
                await asyncio.sleep(_POLL_S)
                continue
            del self._outcomes[: len(batch)]
            for _, done in batch:
                if not done.done():  # its caller may have been cancelled
                    done.set_result(None)
        self._recorder = None

    async def _record_last(self) -> None:
        """What was answered before the end is not sent again."""
        if self._recorder is not None:
            self._recorder.cancel()
            await asyncio.gather(self._recorder, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):
            if self._outcomes:
                await self._store.delivered([outcome for outcome, _ in self._outcomes])

    async def _attempt(self, waiting: Waiting) -> DeliveryOutcome:
        try:
            alert = decode_alert(waiting.body)
        except msgspec.MsgspecError:
            return DeliveryOutcome(
                id=waiting.id,
                state="dead",
                attempts=waiting.attempts,
                at=self._clock(),
                code="unreadable-row",
                reached=False,
            )
        try:
            answer: Answer = await self._sink.send(alert, waiting.control_id)
        except Exception as error:
            # A sink answers for what the other side does; what it raises is a fault of ours, and must not lose the row.
            self._meters.fault(error, destination=self.name, delivery_id=waiting.id)
            answer = TryAgain(f"internal: {type(error).__name__}")
        return self._outcome(waiting, alert, answer)

    def _outcome(self, waiting: Waiting, alert: Alert, answer: Answer) -> DeliveryOutcome:
        now = self._clock()
        attempts = waiting.attempts + 1
        match answer:
            case Delivered(evidence):
                self._up()
                return DeliveryOutcome(id=waiting.id, state="delivered", attempts=attempts, at=now, words=evidence)
            case Refused(code, why):
                self._up()
                return DeliveryOutcome(id=waiting.id, state="dead", attempts=attempts, at=now, code=code, words=why)
            case TryAgain(why, after_s, down):
                if down:
                    # The destination's own pause holds all its rows; none loses its turn to a later one.
                    self._mark_down()
                    wait_s = 0.0
                else:
                    self._up()
                    wait_s = self._policy.wait_s(attempts, after_s)
                if self._too_old(alert, waiting, now):
                    return DeliveryOutcome(
                        id=waiting.id,
                        state="dead",
                        attempts=attempts,
                        at=now,
                        code="exhausted",
                        words=why,
                        reached=not down,
                    )
                return DeliveryOutcome(
                    id=waiting.id,
                    state="waiting",
                    attempts=attempts,
                    at=now,
                    next_at=now + timedelta(seconds=wait_s),
                    code="retry",
                    words=why,
                    reached=not down,
                )

    def _too_old(self, alert: Alert, waiting: Waiting, now: datetime) -> bool:
        """An alert is as old as its outbox row; it is given up by age, so that an outage costs no attempts. One that a person
        has sent again is as old as that."""
        allowed = self._policy.give_up_after
        tried_s = time.monotonic() - self._trying_since
        return now - max(alert.updated_at, from_ms(waiting.since_ms)) > allowed and tried_s > min(
            allowed.total_seconds(), _TRIED_S
        )

    def _mark_down(self) -> None:
        self._down_tries += 1
        self._quiet_until = time.monotonic() + self._policy.wait_s(self._down_tries, None)
        if self._down_since is None:
            self._down_since = time.monotonic()
            self._meters.event("destination_down", level=logging.WARNING, destination=self.name)

    def _up(self) -> None:
        self._quiet_until = 0.0
        if self._down_since is not None:
            self._meters.event("destination_up", destination=self.name)
        self._down_since, self._down_tries = None, 0

    def _tell(self, outcome: DeliveryOutcome) -> None:
        level = logging.ERROR if outcome.state == "dead" else logging.INFO
        self._meters.event(
            f"delivery_{outcome.state}",
            level=level,
            destination=self.name,
            delivery_id=outcome.id,
            attempts=outcome.attempts,
            code=outcome.code,
        )
