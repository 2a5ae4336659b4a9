"""A million messages and a thousand faults: what every sender holds as accepted, against what is on file and how it ended.

Laboratories send as fast as they are answered and insist; each message's disposition is known beforehand. After every so
many messages one fault strikes: kill -9 of either process (once more while it starts), a disk error by strace, both
processes or one of them standing still, every connection cut, the prescriber's system away. Patients' stories run through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.pure import chemistry
from engine.simulate import LABORATORIES, blood_count
from evidence.every_step import Fault, armed
from evidence.laboratories import Laboratories
from evidence.world import Story, World

__all__ = ["KINDS", "PEOPLE", "Kind", "Messages", "Million", "million", "when"]

_LANES, _TELLERS, PEOPLE = 64, 2, 1000
_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class Kind:
    """``letter`` begins the control ids; ``end`` is the one disposition that each must have."""

    letter: str
    what: str
    end: str


_REGISTERED = Kind("R", "counts of patients on the register", "judged")
_STRANGER = Kind("N", "counts of others", "unenrolled")
_CHEMISTRY = Kind("C", "reports without a neutrophil count", "not_relevant")
_STORY = Kind("S", "told in the patients' stories", "judged")
KINDS = (_REGISTERED, _STRANGER, _CHEMISTRY, _STORY)

_SYNC, _WRITE = "fdatasync,fsync", "pwrite64,ftruncate"
_BOTH = ("accepting", "judging")
_DISK = tuple(
    Fault(f"{words}, {who}", who, calls, befalls)
    for who in _BOTH
    for words, calls, befalls in (
        ("disk sync fails (EIO)", _SYNC, "error=EIO"),
        ("disk write fails (EIO)", _WRITE, "error=EIO"),
        ("disk full (ENOSPC)", _WRITE, "error=ENOSPC"),
        ("disk read-only (EROFS)", _WRITE, "error=EROFS"),
    )
)
_DEADLY = tuple(Fault(f"killed at a disk sync, {who}", who, _SYNC, "signal=KILL") for who in _BOTH)


@dataclass(slots=True)
class Million:
    seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    """Accepted by the engine, as their senders know it, by kind."""
    filed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """On file by kind and disposition."""
    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    resent: int = 0
    alerts: int = 0
    load: list[float] = field(default_factory=list)
    verified: str = ""
    problems: list[str] = field(default_factory=list)


async def million(
    folder: Path, *, messages: int, faults: int, seed: int, told: Callable[[str], None] = lambda words: None
) -> Million:
    done, stories = Million(), list[Story]()
    count = max(messages // 1000, 4)
    direct = messages - 3 * count  # a story has three names
    async with World(folder, stories=count, people=PEOPLE, patience_s=_PATIENCE_S) as world:
        started = time.monotonic()
        labs = Laboratories(world, Messages(2 * count), asyncio.Event(), count=direct)
        striking = _Faults(world, labs, done, random.Random(seed), told)
        async with asyncio.TaskGroup() as group:
            for lane in range(_LANES):
                group.create_task(labs.lane(lane))
            for _ in range(_TELLERS):
                group.create_task(_tell(world, stories, count, messages))
            group.create_task(striking.all(faults, messages))
        told(f"all {len(world.accepted):,} are accepted after {time.monotonic() - started:,.0f} s")
        await world.settled()
        done.seconds = time.monotonic() - started
        done.sent.update(name[0] for name in world.accepted)
        done.starts, done.resent = world.starts, labs.resent
        done.problems = await asyncio.to_thread(world.problems, stories, {kind.end for kind in KINDS} | {"duplicate"})
        _reconcile(world, messages, done)
        done.verified = world.command("db", "verify").strip().splitlines()[0]
    return done


class Messages:
    """The n-th message. What is the same in all of a kind is built once: the sender shares the cores with the engine."""

    def __init__(self, first_patient: int) -> None:
        self.first = first_patient
        self.now = datetime.now(UTC).replace(microsecond=0)
        self._strangers = [
            blood_count(
                control_id="@ID@",
                filler="F@ID@",
                patient_id="P@ID@",
                anc_per_mm3=2400,
                collected=self.now - timedelta(hours=1),
                sent=self.now,
                laboratory=laboratory,
            )
            for laboratory in LABORATORIES
        ]
        self._chemistry = chemistry(0).replace(b"|C0|P|", b"|@ID@|P|").replace(b"C0|", b"F@ID@|")

    def __call__(self, number: int, lane: int) -> tuple[str, bytes]:
        match number % 50:
            case 0:
                return self.registered(number // 50, lane)
            case rest if rest % 5 in (1, 2):
                name = f"N{number}"
                return name, self._strangers[lane % len(self._strangers)].replace(b"@ID@", name.encode())
            case _:
                name = f"C{number}"
                return name, self._chemistry.replace(b"@ID@", name.encode())

    def registered(self, number: int, lane: int) -> tuple[str, bytes]:
        """Sound counts, an hour apart: nobody is to be told of them."""
        name, (turn, person) = f"R{number}", divmod(number, PEOPLE)
        return name, blood_count(
            control_id=name,
            filler=f"F{name}",
            patient_id=f"EV{self.first + person:06d}",
            anc_per_mm3=2400 + turn,
            collected=self.now - timedelta(days=20) + timedelta(hours=turn),
            sent=self.now,
            laboratory=LABORATORIES[lane % len(LABORATORIES)],
        )


async def _tell(world: World, stories: list[Story], count: int, messages: int) -> None:
    """The stories, spread over the whole run."""
    while len(stories) < count:
        story = Story(len(stories))
        stories.append(story)
        await when(lambda at=story.number / count - 0.01: len(world.accepted) >= at * messages)  # type: ignore[misc]
        await world.tell(story)


class _Faults:
    def __init__(
        self, world: World, labs: Laboratories, done: Million, chance: random.Random, told: Callable[[str], None]
    ) -> None:
        self._world, self._labs, self._done, self._chance, self._told = world, labs, done, chance, told
        self._began = time.monotonic()

    async def all(self, faults: int, messages: int) -> None:
        """Spread over the messages, in an order that the seed gives; each is over before the next strikes."""
        chosen = [
            *(("connections cut", self._cut),) * 14,
            *(("judging process killed", self._kill_judging),) * 3,
            ("accepting process killed", self._kill_accepting),
            ("accepting process killed, and again while it starts", self._kill_twice),
            *((fault.name, self._disk(fault)) for fault in _DISK for _ in range(2)),
            *((fault.name, self._disk(fault)) for fault in _DEADLY),
            *(("accepting process stands still", self._still_accepting),) * 2,
            *(("judging process stands still", self._still_judging),) * 2,
            *(("both processes stand still", self._still),) * 2,
            *(("prescriber's system away", self._away),) * 8,
        ]
        # Every kind as often as the others of its weight, whatever the number.
        deck: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        while len(deck) < faults:
            deck += self._chance.sample(chosen, len(chosen))
        share = messages / faults
        for number, (name, strike) in enumerate(deck[:faults]):
            # Senders do not run ahead of the faults, nor these of them: what recovers from one is struck by the next.
            self._labs.most = int((number + 1.5) * share)
            await when(lambda at=number + 0.5: len(self._world.accepted) >= at * share)  # type: ignore[misc]
            await strike()
            self._done.faults[name] += 1
            if number % 20 == 0:
                self._note(number)
        self._labs.most = messages

    def _note(self, number: int) -> None:
        load, accepted = os.getloadavg()[0], len(self._world.accepted)
        self._done.load.append(load)
        rate = accepted / (time.monotonic() - self._began)
        self._told(f"{accepted:,} accepted ({rate:,.0f}/s), {number + 1} faults, load {load:.1f}")

    async def _cut(self) -> None:
        self._labs.cut()

    async def _kill_judging(self) -> None:
        _signal(await self._judging_pid(), signal.SIGKILL)

    async def _kill_accepting(self) -> None:
        _signal(self._world.accepting_pid, signal.SIGKILL)

    async def _kill_twice(self) -> None:
        first = self._world.accepting_pid
        _signal(first, signal.SIGKILL)
        await when(lambda: self._world.accepting_pid != first)
        await asyncio.sleep(self._chance.uniform(0, 2.5))
        _signal(self._world.accepting_pid, signal.SIGKILL)

    def _disk(self, fault: Fault) -> Callable[[], Awaitable[None]]:
        async def strike() -> None:
            log = self._world.folder / "fault.log"
            while True:
                log.unlink(missing_ok=True)
                # The process may be gone, or do nothing of the kind just now: then it is tried anew.
                with contextlib.suppress(RuntimeError, TimeoutError):
                    at = self._chance.randint(1, 6)
                    async with armed(self._world, fault, at, log) as tracer, asyncio.timeout(5):
                        await (tracer.wait() if "KILL" in fault.befalls else when(lambda: _struck(log)))
                if _struck(log):
                    return
                await asyncio.sleep(0.1)

        return strike

    async def _still_accepting(self) -> None:
        await self._stand(self._world.accepting_pid)

    async def _still_judging(self) -> None:
        await self._stand(await self._judging_pid())

    async def _stand(self, pid: int) -> None:
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.1, 1.5))
        _signal(pid, signal.SIGCONT)

    async def _still(self) -> None:
        async with self._world.standing_still():
            await asyncio.sleep(self._chance.uniform(0.1, 1.5))

    async def _away(self) -> None:
        await self._world.prescriber.down()
        await asyncio.sleep(self._chance.uniform(0.1, 1.5))
        await self._world.prescriber.up()

    async def _judging_pid(self) -> int:
        await when(lambda: self._world.judging_pid is not None)
        return self._world.judging_pid or await self._judging_pid()


async def when(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # files, processes and counts tell of no event
        await asyncio.sleep(0.02)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _struck(log: Path) -> bool:
    said = log.read_text(errors="replace") if log.exists() else ""
    return "(INJECTED)" in said or "killed by SIGKILL" in said


def _reconcile(world: World, messages: int, done: Million) -> None:
    with closing(sqlite3.connect(f"file:{world.database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT substr(control_id, 1, 1), disposition, count(*) FROM message "
            "WHERE channel <> 'fhir' GROUP BY 1, 2 UNION ALL "
            "SELECT 'S', disposition, count(*) FROM message WHERE channel = 'fhir' GROUP BY 2"
        ).fetchall()
        done.alerts = connection.execute("SELECT count(*) FROM delivery WHERE state = 'delivered'").fetchone()[0]
    for letter, end, number in rows:
        done.filed[letter, end] += number
    for kind in KINDS:
        once = sum(
            number for (letter, end), number in done.filed.items() if letter == kind.letter and end != "duplicate"
        )
        if not once == done.filed[kind.letter, kind.end] == done.sent[kind.letter]:
            ends = {end: number for (letter, end), number in done.filed.items() if letter == kind.letter}
            done.problems.append(f"{kind.what}: {done.sent[kind.letter]} accepted, on file {ends}")
    if len(world.accepted) != messages:
        done.problems.append(f"{messages} were to be sent, {len(world.accepted)} were accepted")
