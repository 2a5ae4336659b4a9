"""The wall clock is set back or ahead at its n-th reading, n = 1, 2, 3 ...: nothing is lost, doubled or quietly postponed.

Real store, real judging, watching and delivering; one clock for all of them, which the trial sets. See engine/timekeeper.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

from emitters.sink import Answer, Delivered, TryAgain
from engine.config import RetentionSection, WatchSection
from engine.dispatcher import Dispatcher, RetryPolicy
from engine.judge import Judge
from engine.notify import Notifier
from engine.observe import Meters
from engine.present import Present
from engine.retention import Retention
from engine.timekeeper import Timekeeper
from engine.watch import Watch
from engine.watch_rhythm import _START
from engine.worker import Worker
from ingest.envelope import hl7v2
from rules.model import Alert, PatientIdentifier, Person, PriorNeutropenia, TreatmentCourse
from store import Store, accounts, findings, outbox
from store.check import findings as not_whole
from store.port import PatientRecord, Work
from store.tables import alert, body, delivery, feed, message, patient
from store.values import from_ms, new_id, to_ms

PARIS = ZoneInfo("Europe/Paris")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AT_ONCE = 12


@dataclass
class Clock:
    """The real time, until its ``number``-th reading once armed; from then on ``jump`` beside it."""

    jump: timedelta = timedelta()
    number: int = 0
    readings: int = 0
    armed: bool = False
    off: timedelta = timedelta()
    gone_s: float = 0.0

    def __call__(self) -> datetime:
        if self.armed:
            self.readings += 1
            if self.readings == self.number:
                self.off = self.jump
        return datetime.now(UTC) + self.off + timedelta(seconds=self.gone_s)

    def monotonic(self) -> float:
        return time.monotonic() + self.gone_s

    def passes(self, span: timedelta) -> None:
        """Time goes by, for both clocks."""
        self.gone_s += span.total_seconds()


@dataclass
class Sink:
    """A prescriber's system: takes everything, or is away."""

    name: str = "ehr"
    away: bool = False
    got: list[tuple[str, int]] = field(default_factory=list)

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        if self.away:
            return TryAgain("no connection", down=True)
        self.got.append((alert.id, alert.revision))
        return Delivered("ok")

    async def close(self) -> None:
        pass


class Back:
    """What judges, watches and delivers, on one clock; its loops run as in the engine, its sweeps when they are asked for."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock, self.sink, self.meters = path, clock, Sink(), Meters()

    async def __aenter__(self) -> Back:
        clock = self.clock
        self.store = Store(f"sqlite:///{self.path}", clock=clock)
        await self.store.open()
        present = Present(
            default_protocol="ansm",
            notifier=Notifier(language="fr", destinations=("ehr",)),
            zone=PARIS,
            history_after=DAY,
            settle=timedelta(seconds=0.1),
        )
        policy = RetryPolicy(first_s=0.05, longest_s=0.1)
        self.dispatcher = Dispatcher(self.store, self.sink, policy, self.meters, clock=clock)
        self.watch = Watch(
            self.store,
            present,
            self.meters,
            WatchSection(),
            destinations=lambda: {"ehr": self.dispatcher.state},
            on_alerts=self.dispatcher.wake,
            clock=clock,
        )
        self.keeper = Timekeeper(
            self.store,
            self.meters,
            zone=PARIS,
            watch=self.watch,
            dispatchers=[self.dispatcher],
            clock=clock,
            monotonic=clock.monotonic,
        )
        self.retention = Retention(self.store, RetentionSection(), self.meters)
        self.worker = Worker(
            self.store,
            Judge(present=present, zone=PARIS),
            self.meters,
            zone=PARIS,
            unenrolled=timedelta(days=30),
            on_recorded=lambda _: None,
            on_alerts=self.dispatcher.wake,
            clock=clock,
            retention=self.retention,
            age_time=self.keeper.age_time,
        )
        loops = (self.worker.run, self.dispatcher.run, self._keep)
        self.running = [asyncio.create_task(loop()) for loop in loops]
        return self

    async def _keep(self) -> None:
        while True:
            await self.keeper.look()
            await asyncio.sleep(0.02)

    async def __aexit__(self, *_: object) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.store.close()

    async def enrol(self, number: str) -> None:
        course = TreatmentCourse(
            start=(self.clock() - 40 * DAY).date(),
            start_confirmed_by="Dr Exemple",
            prior_neutropenia=PriorNeutropenia.NONE,
        )
        record = PatientRecord(id=number, enrolled=True, new=True, person=Person(family=number), course=course)
        item = PatientIdentifier(number, "urn:oid:1.2.3", "PI")
        await self.store.record(Work(patients={number: record}, identifiers=[(number, item)], at=self.clock()))

    async def tell(self, raw: bytes) -> None:
        _, item = hl7v2(raw, channel="mllp", peer="", now=self.clock())
        await self.store.accept(item)

    async def value(self, query: Any) -> Any:
        return await self.store.read(lambda connection: connection.scalar(query))

    async def unfinished(self) -> list[int]:
        """Messages not judged, patients not settled, notifications not delivered."""
        queries = (
            select(message.c.id).where(message.c.disposition.is_(None)),
            select(patient.c.rev).where(patient.c.settle_at.is_not(None)),
            select(delivery.c.id).where(delivery.c.state == "waiting"),
        )
        return [number for query in queries for number in await self._all(query)]

    async def _all(self, query: Any) -> list[Any]:
        return await self.store.read(lambda connection: list(connection.scalars(query)))


async def is_finished(back: Back) -> bool:
    return not await back.unfinished()


@pytest.fixture
async def back(tmp_path: Path) -> AsyncIterator[Back]:
    async with Back(tmp_path / "neutroflag.db", Clock()) as opened:
        await opened.enrol("405660")
        yield opened


@pytest.fixture
async def story(tmp_path: Path, hl7: Any, before: Any, eventually: Any) -> Callable[[Clock], Awaitable[list[str]]]:
    """A stop-level count, the same again, its correction, and another patient's late history; then all is reconciled."""
    empty = tmp_path / "empty.db"
    async with Back(empty, Clock()):
        pass
    drawn = before(hours=1)
    first = hl7.oru("M1", anc="0.84", collected=drawn, patient="405660^^^CHX&1.2.3&ISO^PI", filler="B1")
    corrected = hl7.oru("M2", anc="2.40", status="C", collected=drawn, patient="405660^^^CHX&1.2.3&ISO^PI", filler="B1")
    late = hl7.oru("M3", anc="0.40", collected=before(hours=50), patient="405661^^^CHX&1.2.3&ISO^PI", filler="B3")

    async def tell(clock: Clock) -> list[str]:
        path = tmp_path / f"{clock.number}_{clock.jump.total_seconds():.0f}.db"
        shutil.copy(empty, path)
        async with Back(path, clock) as back:
            for number in ("405660", "405661"):
                await back.enrol(number)
            clock.armed = True
            for raw in (first, first, corrected, late):
                await back.tell(raw)
                await asyncio.sleep(0.02)
            try:
                await eventually(lambda: is_finished(back), limit_s=10)
            except (TimeoutError, AssertionError):
                return [f"reading {clock.number}: left waiting: {await back.unfinished()}"]
            finally:
                clock.armed = False
            found = await back.store.read(not_whole)
            ends = await back._all(select(message.c.disposition).order_by(message.c.id))
            if ends != ["judged", "duplicate", "judged", "judged"]:
                found.append(f"reading {clock.number}: ended {ends}")
            if len(back.sink.got) != len(set(back.sink.got)) or back.sink.got != sorted(
                back.sink.got, key=by_alert(back)
            ):
                found.append(f"reading {clock.number}: told {back.sink.got}")
            # What was corrected before it could be told is told as corrected, or not at all; this one nobody corrected.
            stands = set(await back._all(select(alert.c.id).where(alert.c.patient_id == "405661")))
            if not stands or not stands <= {number for number, _ in back.sink.got}:
                found.append(f"reading {clock.number}: only {back.sink.got} was told")
            return found

    return tell


def by_alert(back: Back) -> Callable[[tuple[str, int]], tuple[int, int]]:
    """Each alert's revisions in their order; alerts in any."""
    order = list(dict.fromkeys(number for number, _ in back.sink.got))
    return lambda item: (order.index(item[0]), item[1])


@pytest.mark.parametrize("jump", [-2 * HOUR, -400 * DAY, 2 * HOUR, 400 * DAY], ids=["-2h", "-400d", "+2h", "+400d"])
async def test_every_reading_of_the_clock_may_be_the_one_that_jumps(
    jump: timedelta, story: Callable[[Clock], Awaitable[list[str]]]
) -> None:
    quiet = Clock()
    assert await story(quiet) == []
    stride = 1 if os.environ.get("EVERY_STEP") == "all" else max(quiet.readings // AT_ONCE, 1)
    numbers = list(range(1, quiet.readings + 1, stride))
    clocks = [Clock(jump=jump, number=number) for number in numbers]
    for start in range(0, len(clocks), AT_ONCE):
        for found in await asyncio.gather(*(story(clock) for clock in clocks[start : start + AT_ONCE])):
            assert found == []
    assert sum(clock.off == jump for clock in clocks) > 2


async def test_what_waits_to_be_tried_again_is_not_postponed_by_a_clock_set_back(
    back: Back, hl7: Any, before: Any, eventually: Any
) -> None:
    back.sink.away = True
    await back.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
    await eventually(lambda: back.dispatcher.down)
    back.clock.off = -3 * HOUR
    await eventually(lambda: moved_back(back))
    back.sink.away = False
    await eventually(lambda: is_finished(back))
    assert len(back.sink.got) == 1


async def test_what_was_reckoned_before_the_step_and_written_after_it_is_not_postponed_either(
    back: Back, hl7: Any, before: Any, eventually: Any
) -> None:
    back.sink.away = True
    await back.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
    await eventually(lambda: back.dispatcher.down)
    back.dispatcher._leads = lambda: False  # its own attempts are over
    await asyncio.sleep(0.1)
    back.clock.off = -3 * HOUR
    await eventually(lambda: moved_back(back))
    stale = to_ms(back.clock() + 3 * HOUR)
    await back.store.write(lambda c: c.execute(update(delivery).values(next_at=stale)))
    back.clock.passes(timedelta(seconds=6))
    await eventually(lambda: moved_back(back))


async def moved_back(back: Back) -> bool:
    latest = await back.value(select(delivery.c.next_at).order_by(delivery.c.next_at.desc()))
    made = await back.value(select(delivery.c.created_at).order_by(delivery.c.created_at.desc()))
    now = back.clock() + timedelta(seconds=1)
    return latest is not None and from_ms(latest) <= now and from_ms(made) <= now


async def test_a_step_while_the_engine_was_off_is_noticed_when_it_starts(
    tmp_path: Path, hl7: Any, before: Any, eventually: Any
) -> None:
    path = tmp_path / "neutroflag.db"
    async with Back(path, Clock(off=5 * HOUR)) as ahead:
        ahead.sink.away = True
        await ahead.enrol("405660")
        await ahead.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
        await eventually(lambda: ahead.dispatcher.down)
        await ahead.watch.sweep()
    async with Back(path, Clock()) as right:
        await eventually(lambda: is_finished(right))
        assert len(right.sink.got) == 1


async def test_an_answer_is_awaited_no_longer_than_its_time(back: Back, hl7: Any, before: Any, eventually: Any) -> None:
    await back.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
    await eventually(lambda: len(back.sink.got) == 1)
    by = await back.value(select(alert.c.answer_by))
    assert timedelta() < from_ms(by) - back.clock() <= HOUR  # critical: one hour
    back.clock.off = -6 * HOUR
    await eventually(lambda: sooner(back, by))
    await back.watch.sweep()
    assert await back.store.read(lambda c: findings.open_findings(c, "unanswered")) == []
    back.clock.passes(HOUR)
    await back.watch.sweep()
    (found,) = await back.store.read(lambda c: findings.open_findings(c, "unanswered"))
    await eventually(lambda: (found["alert_id"], 2) in back.sink.got)


async def sooner(back: Back, by: int) -> bool:
    return bool(by - await back.value(select(alert.c.answer_by)) >= 6 * HOUR // timedelta(milliseconds=1) - 1000)


async def test_a_machine_that_stood_still_accuses_no_sender_and_no_destination(
    back: Back, hl7: Any, before: Any, eventually: Any
) -> None:
    """Suspended for ten hours: the monotonic clock does not count them, the wall clock has leapt."""
    back.sink.away = True
    await back.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
    await eventually(lambda: back.dispatcher.down)
    await back.watch.sweep()
    await known_for_weeks(back)
    back.clock.off = 10 * HOUR
    await eventually(lambda: noticed(back))
    await back.watch.sweep()
    kinds = {item["kind"] for item in await back.store.read(findings.open_findings)}
    assert kinds <= {"unanswered"}  # its time was over meanwhile, and that a person is asked again is right
    assert back.keeper.age_time() is not None
    back.clock.passes(10 * HOUR)
    await back.watch.sweep()
    kinds = {item["kind"] for item in await back.store.read(findings.open_findings)}
    assert {"feed", "destination"} <= kinds  # heard and reached in none of ten hours of running, they are told


async def noticed(back: Back) -> bool:
    """The step was seen: the machine counts as deaf until now."""
    deaf = back.watch._deaf
    return deaf is not None and deaf[1] - deaf[0] > 9 * HOUR


async def known_for_weeks(back: Back) -> None:
    """The sender has spoken in every hour of eight weeks."""
    now = back.clock()
    week = (now.astimezone(PARIS).replace(tzinfo=None) - _START).days // 7
    rhythm = {"weeks": {}, "longest": {}}
    for past in range(week - 8, week + 1):
        rhythm["weeks"][str(past)] = f"{(1 << 168) - 1:x}"

    def write(connection: Any) -> None:
        values = {"first_at": to_ms(now - 56 * DAY), "messages": 5000, "body": json.dumps(rhythm)}
        connection.execute(update(feed).values(values))

    await back.store.write(write)


async def test_a_clock_far_ahead_removes_nothing_until_it_has_lasted_for_a_day(
    back: Back, hl7: Any, before: Any, eventually: Any
) -> None:
    """A wrong year would otherwise forget what was received, and no clock that is set right brings it back."""
    await back.tell(hl7.oru("M1", anc="2.40", collected=before(hours=1), patient="9^^^CHX&1.2.3&ISO^PI"))
    await eventually(lambda: is_finished(back))
    await eventually(lambda: back.keeper.age_time() is not None)
    back.clock.off = 4000 * DAY
    assert back.keeper.age_time() is None
    await eventually(lambda: noticed(back))
    await asyncio.sleep(0.3)  # the worker has nothing else to do than to remove
    assert await back.value(select(body.c.message_id)) is not None
    back.clock.passes(1.1 * DAY)
    back.store.arrived.set()
    await eventually(lambda: is_gone(back))


async def is_gone(back: Back) -> bool:
    back.store.arrived.set()
    return await back.value(select(body.c.message_id)) is None


async def test_days_reckoned_by_a_clock_that_was_far_ahead_are_looked_at_anew(back: Back, eventually: Any) -> None:
    """A year ahead for an hour: nobody must be looked at only a year later."""
    await eventually(lambda: is_finished(back))
    back.clock.off = 400 * DAY
    await eventually(lambda: noticed(back))
    await back.watch.sweep()
    await back.store.write(
        lambda c: c.execute(update(patient).values(watch_on=(back.clock() + 20 * DAY).date().isoformat()))
    )
    back.clock.off = timedelta()
    await eventually(lambda: looked_at_today(back))


async def looked_at_today(back: Back) -> bool:
    day = await back.value(select(patient.c.watch_on))
    return bool(day <= back.clock().astimezone(PARIS).date().isoformat())


async def test_a_session_lasts_no_longer_for_a_clock_that_is_set_back(back: Back, eventually: Any) -> None:
    now, idle = back.clock(), HOUR // timedelta(milliseconds=1)

    def open_one(connection: Any) -> None:
        accounts.add(connection, "anne", role="viewer", password_hash="x", at_ms=to_ms(now), actor="test")
        accounts.add_session(
            connection,
            "anne",
            token_hash=b"t",
            csrf="c",
            at_ms=to_ms(now),
            expires_ms=to_ms(now + 8 * HOUR),
            idle_ms=idle,
        )

    def find(connection: Any) -> Any:
        return accounts.find_session(connection, b"t", at_ms=to_ms(back.clock()), idle_ms=idle)

    await back.store.write(open_one)
    back.clock.off = -5 * HOUR
    await eventually(lambda: moved_to(back, find))
    back.clock.passes(1.1 * HOUR)
    assert await back.store.read(find) is None


async def moved_to(back: Back, find: Any) -> bool:
    found = await back.store.read(find)
    return found is not None and from_ms(found.seen_at) <= back.clock()


async def test_a_later_revision_with_an_earlier_number_waits_for_the_earlier_one(
    back: Back, hl7: Any, before: Any, eventually: Any
) -> None:
    """Numbers come by the clock, and each process has its own."""
    back.sink.away = True
    drawn = before(hours=1)
    await back.tell(hl7.oru("M1", anc="0.84", collected=drawn, filler="B1"))
    await back.tell(hl7.oru("M2", anc="2.40", collected=drawn, filler="B1", status="C"))
    await eventually(lambda: back.dispatcher.down)
    await eventually(lambda: back.value(select(delivery.c.id).where(delivery.c.revision == 2)))

    def swap(connection: Any) -> int:
        later = connection.execute(select(delivery.c.id, delivery.c.alert_id).where(delivery.c.revision == 2)).one()
        of_it = delivery.c.alert_id == later.alert_id
        first = connection.scalar(select(delivery.c.id).where(of_it, delivery.c.revision == 1))
        connection.execute(update(delivery).where(delivery.c.id == later.id).values(id=first - 1))
        return int(first - 1)

    later = await back.store.write(swap)
    due = await back.store.read(lambda c: outbox.due(c, "ehr", to_ms(back.clock() + HOUR), 10))
    assert due
    assert later not in [row.id for row in due]
    back.sink.away = False
    await eventually(lambda: is_finished(back))
    assert back.sink.got == sorted(back.sink.got, key=by_alert(back))


def test_numbers_grow_and_none_comes_twice_while_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time_ns()
    steps = iter(range(20_000))
    monkeypatch.setattr("store.values.time.time_ns", lambda: start - next(steps) * 1_000_000)
    numbers = [new_id() for _ in range(20_000)]
    assert numbers == sorted(set(numbers))


async def test_an_engine_that_was_off_for_days_has_its_time_to_deliver(
    tmp_path: Path, hl7: Any, before: Any, eventually: Any
) -> None:
    """After a power cut of the whole house the destination comes up later than the engine: nothing is given up at once."""
    path = tmp_path / "neutroflag.db"
    async with Back(path, Clock()) as first:
        first.sink.away = True
        await first.enrol("405660")
        await first.tell(hl7.oru("M1", anc="0.40", collected=before(hours=1)))
        await eventually(lambda: first.dispatcher.down)
    async with Back(path, Clock(off=3 * DAY)) as later:
        later.sink.away = True
        await eventually(lambda: later.dispatcher.down)
        await asyncio.sleep(0.3)
        later.sink.away = False
        await eventually(lambda: is_finished(later))
        assert len(later.sink.got) == 1
