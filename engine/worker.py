"""Claims what arrived, judges it, records it: one commit a batch.

Judging happens between reads and the one write, in small steps, so that the doors stay quick. A batch that cannot be
recorded is done again message by message; one that still cannot be judged is set aside, never lost and never in the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from msgspec import structs

from engine.escalation import Escalation
from engine.identity import Patients, named_by, own_key, own_name, sender_of
from engine.judge import Judge
from engine.observe import Meters
from engine.present import Turn
from engine.replies import Known, Replies, find
from engine.retention import Retention
from engine.switch import Switch
from ingest.reading import PatientFact, Problem, Reading, Site, read_message
from rules.model import PatientIdentifier
from store import Store, StoreUnavailable
from store.port import Claim, Disposition, MessageDone, PatientRecord, Work

__all__ = ["Worker", "identifiers_in", "understood"]

_BATCH = 32
# Behind a backlog more messages share each wait for a server. SQLite has no such waits, and its doors wait for each commit.
_BATCH_BEHIND = 128
_POLL_S = 1.0
# Messages that another process took on a server of both wake nobody here: an idle worker asks.
_POLL_SHARED_S = 0.1
_WAIT_S, _ASKED_AT_MOST = 0.01, 100
# Each record is a commit that the doors wait for: a steady trickle is judged a few at a time. An idle engine judges at once.
_ROUND_S = 0.04
_PURGE_EVERY = timedelta(minutes=10)


class Worker:
    """``on_recorded`` is called with the messages that have their disposition, ``on_alerts`` when deliveries wait.

    ``switch``: what remains to be told of the time when this engine only observed. ``retention``: what is
    removed when there is nothing else to do. ``sites``: the profiles of senders, by MSH-3|MSH-4. ``leads``: whether this
    worker, of several, does now what is done once: the present state of patients, the switch, and what is removed.
    ``publish_to``: destinations that get results as results.
    """

    def __init__(
        self,
        store: Store,
        judge: Judge,
        meters: Meters,
        *,
        zone: ZoneInfo,
        unenrolled: timedelta,
        on_recorded: Callable[[Iterable[int]], None],
        on_alerts: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        switch: Switch | None = None,
        retention: Retention | None = None,
        sites: Mapping[str, Site] | None = None,
        escalation: Escalation | None = None,
        leads: Callable[[], bool] = lambda: True,
        publish_to: tuple[str, ...] = (),
        age_time: Callable[[], datetime | None] | None = None,
    ) -> None:
        self._store = store
        self._judge = judge
        self._meters = meters
        self._zone = zone
        self._unenrolled = unenrolled
        self._on_recorded = on_recorded
        self._on_alerts = on_alerts
        self._clock = clock
        self._switch = switch
        self._retention = retention
        self._sites = sites or {}
        notifier = judge.present.notifier
        self._replies = Replies(escalation or Escalation(notifier=notifier, zone=zone))
        self._leads = leads
        self._publish_to = publish_to
        self._age_time = age_time or clock
        self._purged_at: datetime | None = None
        self._most = _BATCH

    async def run(self) -> None:
        """Until cancelled. What the store cannot do now is done when it can."""
        while True:
            started = time.monotonic()
            try:
                handled = await self._round()
            except StoreUnavailable as error:
                self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
                await asyncio.sleep(_POLL_S)
                continue
            if handled:
                if handled < _BATCH:
                    await asyncio.sleep(started + _ROUND_S - time.monotonic())
            else:
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: in Python 3.11 it swallows a cancellation that comes in the moment of waking.
                    async with asyncio.timeout(_POLL_SHARED_S if self._store.shared else _POLL_S):
                        await self._store.arrived.wait()

    async def _round(self) -> int:
        """How many messages and patients were seen to."""
        self._store.arrived.clear()
        claims = await self._store.claim(self._most)
        behind = self._store.shared and len(claims) == self._most
        self._most = min(2 * self._most, _BATCH_BEHIND) if behind else _BATCH
        if claims:
            try:
                await self._batch(claims)
            except BaseException:
                self._store.release(claim.message_id for claim in claims)
                raise
        if not self._leads():
            return len(claims)
        settled = await self._settle()
        told = await self._switch.step() if self._switch is not None and not self._switch.done else 0
        if not claims and not settled and not told and (now := self._age_time()) is not None:
            await self._purge(now)
            if self._retention is not None:
                await self._retention.step(now)
        return len(claims) + settled + told

    async def _batch(self, claims: Sequence[Claim]) -> None:
        try:
            await self._judge_and_record(claims)
        except StoreUnavailable:
            raise
        except Exception as error:
            # A fault of ours, not of the store. Alone, each message shows whether it is the one.
            self._meters.event("batch_failed", level=logging.ERROR, reason=type(error).__name__)
            for claim in claims:
                await self._alone(claim)

    async def _alone(self, claim: Claim) -> None:
        try:
            await self._judge_and_record([claim])
        except StoreUnavailable:
            raise
        except Exception as error:
            self._meters.fault(error, message_id=claim.message_id)
            work = Work()
            # It may hold a count: a person must look (promise 3).
            self._judge.present.review(None, "internal-error", "", Turn(work, self._clock(), claim))
            work.done.append(
                MessageDone(
                    message_id=claim.message_id,
                    disposition=Disposition.SET_ASIDE,
                    reason=f"internal-error: {type(error).__name__}",
                )
            )
            await self._store.record(work)
            self._recorded(work)

    async def _judge_and_record(self, claims: Sequence[Claim]) -> None:
        readings = []
        for claim in claims:
            started = time.perf_counter()
            readings.append(self._read(claim))
            self._meters.stage("read", time.perf_counter() - started)
        pairs = list(zip(claims, readings, strict=True))
        if len(pairs) > 1 and any(reading.replies for reading in readings):
            # Answers are few, and each stands on what the one before it has left.
            for claim in claims:
                await self._judge_and_record([claim])
            return
        asked = 0
        while pairs:
            wanted = {item for claim, reading in pairs for item in identifiers_in(reading, claim)}
            patients = Patients()
            records = await self._store.patients(wanted)
            for record in records:
                patients.add(record)
            # Beside other workers: a patient's messages are judged in the order in which they came.
            waiting, vain = set[int](), False
            if self._store.shared:
                waiting, vain = await self._store.announce(_spoken_of(pairs, records))
            if len(waiting) == len(pairs):
                asked += 1
                if vain or asked == _ASKED_AT_MOST:
                    # Who judges the earlier ones does not end, or has died: the next claim begins with the oldest.
                    self._store.release(waiting)
                    return
                await asyncio.sleep(_WAIT_S)
                continue
            replied = await self._replied(pairs, patients)
            work = Work(publish_to=self._publish_to)
            for claim, reading in pairs:
                if claim.message_id in waiting:
                    continue
                started = time.perf_counter()
                self._judge.message(claim, reading, patients, work, self._clock())
                self._meters.stage("judge", time.perf_counter() - started)
                await asyncio.sleep(0)
                for known in replied:
                    of_whom = patients.by_id.get(known.entry.patient_id or "")
                    self._replies.take(known, of_whom, Turn(work, self._clock(), claim))
            work.identifiers = [(number, item) for number, item in patients.fresh]
            _keep_whole(work, patients)
            started = time.perf_counter()
            stale = await self._store.record(work)
            if stale is None:
                self._meters.stage("record", time.perf_counter() - started)
                self._recorded(work)
                pairs = [pair for pair in pairs if pair[0].message_id in waiting]
            elif stale.message_ids:
                # Another process has judged them: not ours any more.
                self._store.release(stale.message_ids)
                pairs = [pair for pair in pairs if pair[0].message_id not in stale.message_ids]

    async def _replied(self, pairs: Sequence[tuple[Claim, Reading]], patients: Patients) -> list[Known]:
        """What people did with alerts of ours, where a message tells it; with their patients' records."""
        replies = [reply for _, reading in pairs if reading.production for reply in reading.replies]
        if not replies:
            return []
        found = await self._store.read(lambda connection: find(connection, replies))
        absent = {item.entry.patient_id for item in found if item.entry.patient_id} - patients.by_id.keys()
        for record in await self._store.patients_by_id(sorted(filter(None, absent))):
            patients.add(record)
        return found

    def _read(self, claim: Claim) -> Reading:
        return understood(claim, self._zone, self._sites)

    async def _settle(self) -> int:
        now = self._clock()
        ids = await self._store.settling_ids(now, _BATCH)
        if not ids:
            return 0
        records, broken = await self._store.readable(ids)
        for number in broken:
            await self._unreadable(number, now)
        work = Work()
        for record in records:
            self._settle_one(record, work, now)
            await asyncio.sleep(0)
        if await self._store.record(work) is None:
            self._recorded(work)
        return len(ids)

    async def _unreadable(self, number: str, now: datetime) -> None:
        """One row that cannot be read must not end the judging of all the others: a person must look (promise 3)."""
        self._meters.event("patient_unreadable", level=logging.ERROR, reason="settle")
        work = Work()
        self._judge.present.review(None, "internal-error", f"patient {number}", Turn(work, now))
        await self._store.record(work)
        await self._store.park(number)
        self._recorded(work)

    def _settle_one(self, record: PatientRecord, work: Work, now: datetime) -> None:
        try:
            self._judge.present.look(record, Turn(work, now))
        except Exception as error:
            # One patient's fault must not end the watch over all the others: a person must look (promise 3).
            self._meters.fault(error, reason="settle")
            record.settle_at = None
            work.patients[record.id] = record
            self._judge.present.review(record, "internal-error", "", Turn(work, now))

    async def _purge(self, now: datetime) -> None:
        if self._purged_at is not None and abs(now - self._purged_at) < _PURGE_EVERY:
            return
        removed = await self._store.purge(now - self._unenrolled)
        if removed:
            self._meters.event("unenrolled_purged", count=removed)
            return
        self._purged_at = now

    def _recorded(self, work: Work) -> None:
        for item in work.done:
            self._meters.disposed(item.disposition.value)
        for entry in work.alerts:
            self._meters.event(
                "alert",
                level=logging.WARNING,
                alert_id=entry.alert.id,
                alert_level=entry.alert.level.value,
                family=entry.alert.family.value,
                kind=entry.alert.kind.value,
                revision=entry.alert.revision,
            )
        self._on_recorded([item.message_id for item in work.done])
        if work.deliveries or (work.publish_to and (work.results or work.late)):
            self._on_alerts()


def understood(claim: Claim, zone: ZoneInfo, sites: Mapping[str, Site]) -> Reading:
    """What a stored message says, read as its sender's profile has it."""
    form = cast('Literal["hl7v2", "fhir"]', claim.format)
    if claim.unopened:
        problem = Problem(claim.unopened, "", "what came cannot be read back from the database")
        return Reading(format=form, disposition="set_aside", problems=(problem,))
    site = sites.get(claim.sender)
    reading = read_message(claim.raw, format=form, zone=zone, site=site)
    if site is None and sites and reading.sender != claim.sender:
        # FHIR names its sender in the message, not at the door.
        site = sites.get(reading.sender)
        if site is not None:
            reading = read_message(claim.raw, format=form, zone=zone, site=site)
    if site is not None and site.strict:
        from engine.strict import held_to  # its libraries are slow to load, and few senders are strict

        reading = held_to(reading, claim.raw)
    if sender := sender_of(claim):
        reading = _named(reading, sender)
    if claim.raw or reading.problems:
        return reading
    return Reading(format=form, disposition="set_aside", problems=(Problem("empty", "", "no bytes"),))


def _named(reading: Reading, sender: str) -> Reading:
    """Bare references to patients, and bare names of results, as this sender means them."""

    def all_of(items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(dataclasses.replace(one, identifiers=named_by(sender, one.identifiers)) for one in items)

    def keyed(items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(dataclasses.replace(one, key=own_key(one.key, sender)) for one in all_of(items))

    return structs.replace(
        reading,
        identifiers=named_by(sender, reading.identifiers),
        results=keyed(reading.results),
        problems=all_of(reading.problems),
        confirmations=keyed(reading.confirmations),
        register=all_of(reading.register),
        pending=tuple(named_by(sender, known) for known in reading.pending),
    )


def identifiers_in(reading: Reading, claim: Claim) -> Iterable[PatientIdentifier]:
    """Everybody whom judging it may need."""
    yield from reading.identifiers
    for result in reading.results:
        yield from result.identifiers
    for merge in reading.merges:
        yield from (*merge.prior, *merge.survivor)
    for problem in reading.problems:
        yield from problem.identifiers
    for known in reading.pending:
        yield from known
    for fact in reading.register:
        yield from fact.identifiers
        if isinstance(fact, PatientFact):
            yield from (own_name(name, sender_of(claim)) for name in fact.references)


def _spoken_of(pairs: Sequence[tuple[Claim, Reading]], records: Sequence[PatientRecord]) -> dict[int, set[str]]:
    """By message: the identifiers that it names, and the register's ids of those who carry them."""
    owners: dict[str, set[str]] = {}
    for record in records:
        for item in record.identifiers:
            owners.setdefault(item.value, set()).add(record.id)
    found: dict[int, set[str]] = {}
    for claim, reading in pairs:
        values = {item.value for item in identifiers_in(reading, claim)}
        found[claim.message_id] = values.union(*(owners.get(value, ()) for value in values))
    return found


def _keep_whole(work: Work, patients: Patients) -> None:
    """A record that gained an identifier is written with it, and a new one that nothing refers to is not written."""
    for number, _ in work.identifiers:
        work.patients.setdefault(number, patients.by_id[number])
