"""``neutroflag demo``: a laboratory, the engine and a prescriber's system in one process, on real sockets.

``--once`` plays the cast to its end and compares what the prescriber's systems hold with the cast's table; without it a calm
feed goes on until Ctrl-C. Nothing of the demo outlives it: the database lies in a temporary directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from sqlalchemy import Connection, func, select

from engine import observe
from engine.compose import Engine
from engine.config import (
    EngineSection,
    HttpSection,
    LocaleSection,
    MllpSection,
    Settings,
    StoreSection,
    WatchSection,
)
from engine.demo_feed import Feed, Sender
from engine.demo_outcome import LANGUAGE, compare, fhir_holds, patient_of_reference, read_v2, v2_holds
from engine.demo_table import Event, cast, events, folder, register
from engine.demo_view import Board, Delivered, summary
from engine.destination_settings import FhirDestination, MllpDestination
from engine.prescriber import Prescriber
from engine.register_csv import import_csv
from engine.simulate import AUTHORITY
from rules.model import PatientIdentifier
from store import Store
from store.tables import delivery, message, step

__all__ = ["run"]

_FHIR, _V2 = "ehr", "ehr-v2"
_CRITICAL = "DEMO-CRITICAL"
_PRESCRIBER = "Dr Hoda"
_SYSTEM = f"urn:oid:{AUTHORITY}"
_DEADLINE_S = 60.0
"""Of ``--once``: what is not delivered by then is reported as lost."""


def run(once: bool, stdout: TextIO) -> int:
    """0: everything arrived and is as the table says; 1: not."""
    observe.configure(quiet=True)
    with tempfile.TemporaryDirectory(prefix="neutroflag-demo-") as directory, _own_settings_only():
        try:
            return asyncio.run(_Demo(once, stdout, Path(directory)).play())
        except KeyboardInterrupt:
            return 0


@dataclass(slots=True)
class _Watched:
    """What the prescriber's systems were seen to hold, for the events and for the times."""

    flags: dict[str, str] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)
    messages: int = 0
    critical_sent: float = 0.0
    critical_flagged: float = 0.0


class _Demo:
    def __init__(self, once: bool, stdout: TextIO, directory: Path) -> None:
        self.once = once
        self.out = stdout
        self.directory = directory
        self.cast = cast()
        self.board = Board(stdout)
        self.ehr, self.v2 = Prescriber(), Prescriber()
        self.watched = _Watched()
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.sent = 0
        self.played = False
        self.stopped = asyncio.Event()
        self._down_at = 0.0

    async def play(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.stopped.set)
        async with self.ehr, self.v2:
            for patient in self.cast:
                self.ehr.add_patient((_SYSTEM, patient.id), id_=patient.id)
            engine = Engine(_settings(self.directory, self.ehr, self.v2, once=self.once))
            await engine.start()
            watching = asyncio.create_task(self._watch(engine))
            self.board.open()
            try:
                return await self._with(engine, _opened(engine))
            finally:
                watching.cancel()
                self.board.close()
                await engine.stop()

    async def _with(self, engine: Engine, store: Store) -> int:
        settings = engine.settings
        mllp = engine.mllp.port if engine.mllp else 0
        self.board.doors = [
            f"console  http://127.0.0.1:{engine.http_port}/console      open it in a browser: no account is needed here",
            f"MLLP     mllp://127.0.0.1:{mllp}      neutroflag send FILE --to mllp://127.0.0.1:{mllp}",
            f"HTTP     http://127.0.0.1:{engine.http_port}      /fhir  /hl7  /readyz  /metrics",
            f"out      {self.ehr.url} (FHIR), mllp://127.0.0.1:{self.v2.mllp_port} (HL7 v2)      cast: {folder()}",
        ]
        for door in self.board.doors:
            if not self.out.isatty():
                print(door, file=self.out, flush=True)
        now = datetime.now(settings.zone)
        feed = Feed(self.cast, now)
        await self._enrol(settings, feed)
        async with Sender("127.0.0.1", mllp) as laboratory:
            await self._history(laboratory, feed, store)
            for event in events():
                await self._event(event, laboratory, feed)
                await self._pause(0.2 if self.once else 2.5)
            self.played = not self.stopped.is_set()
            if self.once:
                await self._all_delivered(store)
            await self._answered(store)
            if not self.once:
                await self._calm(laboratory, feed)
            self.sent = laboratory.sent
        return await self._end(store, feed)

    async def _enrol(self, settings: Settings, feed: Feed) -> None:
        path = self.directory / "register.csv"
        path.write_text(register(feed.drawn.date()), encoding="utf-8")
        report = await asyncio.to_thread(import_csv, path, settings.store.url, actor="demo", zone=settings.zone)
        self.problems += [str(complaint) for complaint in report.complaints]
        self.board.say("engine", f"{report.enrolled} patients on the register, from register.csv")

    async def _history(self, laboratory: Sender, feed: Feed, store: Store) -> None:
        """90 days of counts through the door; alerts come on the present state only, once it has come to rest."""
        codes = [await laboratory.send(raw) for raw in feed.history()]
        refused = len(codes) - codes.count("AA")
        if refused:
            self.problems.append(f"{refused} counts of the history were not accepted")
        self.board.say("lab", f"{len(codes)} counts of the last 90 days -> AA; only the present state may alert")
        soon = timedelta(minutes=1)
        while not self.stopped.is_set() and (
            (await store.snapshot()).pending or await store.settling(datetime.now(UTC) + soon, 1)
        ):
            await self._pause(0.05)

    async def _event(self, event: Event, laboratory: Sender, feed: Feed) -> None:
        if self.stopped.is_set():
            return
        if event.what == "down":
            self._down_at = time.monotonic()
            await self.v2.down()
            self.board.say("ehr-v2", "goes DOWN: its alerts wait in the outbox, nobody else waits for it")
            return
        if event.what == "up":
            await self.v2.up()
            self.remarks.append(f"{_V2} was down for {time.monotonic() - self._down_at:.1f} s and caught up")
            self.board.say("ehr-v2", "is back")
            return
        words, raw = feed.message(event)
        if event.patient == _CRITICAL and event.what == "count":
            self.watched.critical_sent = time.monotonic()
        code = await laboratory.send(raw)
        self.board.say("lab", f"{words} -> {code or 'no answer'}")
        if code != event.answer:
            self.problems.append(f"{words}: answered {code or 'nothing'}, not {event.answer}")

    async def _calm(self, laboratory: Sender, feed: Feed) -> None:
        self.board.say("demo", "the cast has played; a calm feed goes on until Ctrl-C")
        while not self.stopped.is_set():
            await self._pause(4)
            if not self.stopped.is_set():
                code = await laboratory.send(feed.stranger())
                self.board.say("lab", f"a count of somebody who is not on the register -> {code or 'no answer'}")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    async def _all_delivered(self, store: Store) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline and not self.stopped.is_set():
            snapshot = await store.snapshot()
            if not snapshot.pending and all(one.complete for one in await self._deliveries(store)):
                return
            await self._pause(0.05)
        self.problems.append(f"not everything was delivered within {_DEADLINE_S:g} s")

    async def _answered(self, store: Store) -> None:
        """A prescriber acts on the critical stop and completes its Task in their own system: that closes the alert here."""
        deadline = time.monotonic() + _DEADLINE_S
        done = ""
        while time.monotonic() < deadline and not self.stopped.is_set():
            asked = [
                task
                for task in self.ehr.tasks()
                if patient_of_reference(task.get("for", {})) == _CRITICAL
                and task["code"]["coding"][0]["code"] == "ACK-STOP"
            ]
            if asked and not done:
                done = self.ehr.answer(asked[-1]["id"], "completed", _PRESCRIBER, decision="STOPPED")["id"]
                self.board.say("ehr", f"{_CRITICAL}: {_PRESCRIBER} completes the Task, decision STOPPED")
            closed: bool = await store.read(_closed_by_a_person)
            if done and closed:
                self.board.say("engine", f"{_CRITICAL}: the alert is closed, by {_PRESCRIBER}")
                self.remarks.append(f"1 alert closed: {_PRESCRIBER} completed its Task in the prescriber's system")
                return
            await self._pause(0.05)
        if not self.stopped.is_set():
            self.problems.append("the Task that the prescriber completed did not close its alert")

    async def _deliveries(self, store: Store) -> list[Delivered]:
        counts = await store.read(_by_state)
        of = {name: {state: number for (n, state), number in counts.items() if n == name} for name in (_FHIR, _V2)}
        return [
            Delivered(_FHIR, "FHIR", **of[_FHIR], held=self.ehr.fhir.transactions, down=not self.ehr.is_up),
            Delivered(_V2, "HL7 v2", **of[_V2], held=len(self.v2.messages()), down=not self.v2.is_up),
        ]

    async def _watch(self, engine: Engine) -> None:
        """Looks at both sides every few hundredths of a second, as a person in front of both screens would."""
        store = _opened(engine)
        rounds = 0
        while True:
            self._see_fhir()
            self._see_v2()
            if rounds % 10 == 0:
                self.board.snapshot = await store.snapshot()
                self.board.deliveries = await self._deliveries(store)
            if engine.failed.done():
                self.problems.append(f"a part of the engine ended: {engine.failed.result()}")
                self.stopped.set()
                return
            rounds += 1
            await asyncio.sleep(0.02)

    def _see_fhir(self) -> None:
        seen = self.watched
        levels = {"stat": "critical", "asap": "red", "urgent": "amber", "routine": "info"}
        tasks = {task["groupIdentifier"]["value"]: task for task in self.ehr.tasks()}
        for flag in self.ehr.flags():
            version = f"{flag['meta']['versionId']} {flag['status']}"
            if seen.flags.get(flag["id"]) == version:
                continue
            seen.flags[flag["id"]] = version
            task = tasks.get(flag["identifier"][0]["value"], {})
            patient = patient_of_reference(flag["subject"])
            level = levels.get(task.get("priority", ""), "") if flag["status"] == "active" else "withdrawn"
            self.board.say("ehr", f"Flag + Task  {patient}: {flag['code']['text']}", level)
            if patient == _CRITICAL and seen.critical_sent and not seen.critical_flagged:
                seen.critical_flagged = time.monotonic()
        for task in tasks.values():
            if "focus" not in task and task["id"] not in seen.tasks:
                seen.tasks.add(task["id"])
                patient = patient_of_reference(task.get("for", {}))
                self.board.say("ehr", f"Task  {patient}: {task['code']['text']}", levels[task["priority"]])

    def _see_v2(self) -> None:
        for raw in list(self.v2.messages().values())[self.watched.messages :]:
            _, patient, held = read_v2(raw)
            self.board.say(_V2, f"ORU^R01  {patient}: {held.family}", held.level or held.state)
            self.watched.messages += 1

    async def _end(self, store: Store, feed: Feed) -> int:
        await asyncio.sleep(0.1)
        snapshot, deliveries = await store.snapshot(), await self._deliveries(store)
        self.board.close()
        if not self.played:
            # Ended by a person in the middle of the cast: there is nothing to compare.
            return 1 if self.once else 0
        if self.once:
            self._account(snapshot.received, sum(snapshot.dispositions.values()), await store.read(_read_back))
        seen = self.watched
        if seen.critical_flagged:
            took = seen.critical_flagged - seen.critical_sent
            self.remarks.append(f"0.40 G/L: from the laboratory to a Flag at the prescriber in {took:.2f} s")
        records = await store.patients(PatientIdentifier(patient.id, _SYSTEM, "PI") for patient in self.cast)
        present = {item.value: record.present for record in records for item in record.identifiers}
        fhir, v2 = fhir_holds(self.ehr.flags(), self.ehr.tasks()), v2_holds(self.v2.messages().values())
        taken_back = sum(held.state == "withdrawn" for rows in fhir.values() for held in rows)
        self.remarks.append(f"{taken_back} alert taken back, after the laboratory's correction")
        outcomes = compare(self.cast, present, fhir, v2, feed.drawn.date())
        lost = [one for one in deliveries if not one.complete]
        self.problems += [f"{one.name}: {one.waiting} waiting, {one.dead} dead letters" for one in lost]
        summary(self.out, snapshot, deliveries, outcomes, self.remarks, self.problems)
        # A live demo takes messages from anybody; only the one that plays by itself can be held to its table.
        return 0 if not self.once or (not self.problems and all(row.ok for row in outcomes)) else 1

    def _account(self, received: int, disposed: int, read_back: int) -> None:
        """``read_back``: answers, which come from the prescriber's system and not from the laboratory."""
        if received - read_back != self.sent:
            self.problems.append(f"the laboratory sent {self.sent} messages, {received - read_back} were stored")
        if received != disposed:
            self.problems.append(f"{received} messages came in, {disposed} have their disposition")


def _closed_by_a_person(connection: Connection) -> bool:
    closed = select(func.count()).select_from(step).where(step.c.state == "closed")
    return bool(connection.scalar(closed))


def _read_back(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(message).where(message.c.channel == "answers")) or 0


def _by_state(connection: Connection) -> dict[tuple[str, str], int]:
    rows = connection.execute(
        select(delivery.c.destination, delivery.c.state, func.count()).group_by(
            delivery.c.destination, delivery.c.state
        )
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _opened(engine: Engine) -> Store:
    if engine.store is None:
        raise RuntimeError("the engine is not started")
    return engine.store


def _settings(directory: Path, ehr: Prescriber, v2: Prescriber, *, once: bool) -> Settings:
    return Settings(
        store=StoreSection(url=f"sqlite:///{directory / 'demo.db'}"),
        engine=EngineSection(history_settle_s=0.5, name="neutroflag-demo"),
        mllp=MllpSection(port=_port(2575)),
        http=HttpSection(port=_port(8080)),
        destination=(
            FhirDestination(
                name=_FHIR, kind="fhir", url=ehr.url, retry_first_s=0.3, retry_longest_s=1, answers_every_s=0.5
            ),
            MllpDestination(
                name=_V2, kind="mllp", host="127.0.0.1", port=v2.mllp_port, retry_first_s=0.3, retry_longest_s=1
            ),
        ),
        locale=LocaleSection(language=LANGUAGE),
        # The one run compares what the cast's messages called for; who has sent no count would come on top of it.
        watch=WatchSection(every_s=3600) if once else WatchSection(),
    )


def _port(wanted: int) -> int:
    """The customary port, or 0 for a free one when somebody has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


@contextlib.contextmanager
def _own_settings_only() -> Iterator[None]:
    """A site's environment variables would point the demo at the site's own database."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.upper().startswith("NEUTROFLAG_")}
    try:
        yield
    finally:
        os.environ.update(kept)
