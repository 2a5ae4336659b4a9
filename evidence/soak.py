"""Hours under load with a fault every minute: nothing lost, nothing doubled, memory and file handles flat.

Laboratories send at a steady rate and insist; patients' stories run through it. The faults go round: either process killed,
the prescriber's system away, the disk full, every connection cut, the machine standing still. Processes are killed in the
first quarter only: what is compared of memory and handles then belongs to processes that have lived through all the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.simulate import LABORATORIES, blood_count
from evidence.every_step import Fault, armed, may_trace
from evidence.world import Story, World
from wire.ack import read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["Soaked", "soak"]

_LANES, _STORY_EVERY_S, _LOOK_EVERY_S = 16, 3.0, 5.0
_FULL = Fault("disk full", "accepting", "pwrite64,ftruncate", "error=ENOSPC", sticky=True)


@dataclass(slots=True)
class Soaked:
    seconds: float = 0.0
    accepted: int = 0
    resent: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    looks: list[tuple[float, int, int, tuple[int, int]]] = field(default_factory=list)
    """(seconds, resident kB of both processes, open files of both, their process ids)"""
    problems: list[str] = field(default_factory=list)

    def lived_s(self) -> float:
        """How long the processes of the last look had been seen by then."""
        same = [at for at, _, _, pids in self.looks if pids == self.looks[-1][3]]
        return same[-1] - same[0] if same else 0.0

    def drift(self) -> tuple[str, str]:
        """Memory and handles: median of the second quarter, and of the last."""
        quarter = len(self.looks) // 4
        early, late = self.looks[quarter : 2 * quarter], self.looks[-quarter:]
        if not quarter:
            return "too short", "too short"
        memory = [statistics.median(one[1] for one in part) / 1024 for part in (early, late)]
        files = [statistics.median(one[2] for one in part) for part in (early, late)]
        return f"{memory[0]:.0f} -> {memory[1]:.0f} MB", f"{files[0]:.0f} -> {files[1]:.0f}"


async def soak(
    folder: Path, *, seconds: float, rate: float, fault_every_s: float, told: Callable[[str], None] = lambda words: None
) -> Soaked:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    done, over = Soaked(), asyncio.Event()
    count = int(seconds / _STORY_EVERY_S) + 2
    async with World(folder, stories=count) as world:
        started = time.monotonic()
        stories: list[Story] = []
        labs = _Labs(world, rate, over, done)
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(labs.lane(number)) for number in range(_LANES)]
            group.create_task(_tell(world, stories, count - 1, over))
            group.create_task(_look(world, done, started, over))
            group.create_task(_break(world, labs, done, fault_every_s, started + seconds / 4, over, told))
            await asyncio.sleep(seconds)
            over.set()
        del lanes
        done.seconds = time.monotonic() - started
        await world.settled()
        done.accepted = len(world.accepted)
        done.starts = world.starts
        done.problems = world.problems(stories)
        told(world.command("db", "verify").strip())
    return done


class _Labs:
    """Strangers' counts over steady connections; what has no answer is sent again over a new one."""

    def __init__(self, world: World, rate: float, over: asyncio.Event, done: Soaked) -> None:
        self._world, self._rate, self._over, self._done = world, rate, over, done
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def lane(self, number: int) -> None:
        left: tuple[str, bytes] | None = None
        while not self._over.is_set() or left is not None:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._world.mllp_port)
                self._writers.add(writer)
                try:
                    while left is not None or not self._over.is_set():
                        left = left or await self._next(number)
                        async with asyncio.timeout(10):
                            writer.write(frame(left[1]))
                            accepted = await self._answered(reader, left[0])
                        if not accepted:
                            self._done.resent += 1
                            await asyncio.sleep(0.2)
                            continue
                        self._world.accepted.add(left[0])
                        left = None
                    return
                finally:
                    self._writers.discard(writer)
                    writer.transport.abort()
            if left is not None:
                self._done.resent += 1
            await asyncio.sleep(0.2)

    async def _next(self, lane: int) -> tuple[str, bytes]:
        number = next(self._numbers)
        await asyncio.sleep(max(0.0, self._began + number / self._rate - time.monotonic()))
        name = f"L{number}"
        drawn = datetime.now(UTC) - timedelta(hours=1)
        return name, blood_count(
            control_id=name,
            filler=f"LF{number}",
            patient_id=f"STRANGER{number}",
            anc_per_mm3=400 + number % 4000,
            collected=drawn.replace(microsecond=0),
            laboratory=LABORATORIES[lane % len(LABORATORIES)],
        )

    async def _answered(self, reader: asyncio.StreamReader, name: str) -> bool:
        deframer = Deframer()
        while data := await reader.read(65536):
            for event in deframer.feed(data):
                if isinstance(event, Frame):
                    answer = read_ack(event.payload)
                    if answer is None or answer.control_id != name:
                        self._world.wrong_answers.append(f"{name} was answered by {answer}")
                    return answer is not None and answer.code == "AA"
        raise EOFError


async def _tell(world: World, stories: list[Story], most: int, over: asyncio.Event) -> None:
    while not over.is_set() and len(stories) < most:
        story = Story(len(stories))
        stories.append(story)
        await world.tell(story)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _STORY_EVERY_S)


async def _look(world: World, done: Soaked, started: float, over: asyncio.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError, ProcessLookupError):
            pids = [pid for pid in (world.accepting_pid, world.judging_pid) if pid is not None]
            if len(pids) == 2:
                memory = sum(_resident_kb(pid) for pid in pids)
                files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
                done.looks.append((time.monotonic() - started, memory, files, (pids[0], pids[1])))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _LOOK_EVERY_S)


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def _break(
    world: World,
    labs: _Labs,
    done: Soaked,
    every_s: float,
    kill_until: float,
    over: asyncio.Event,
    told: Callable[[str], None],
) -> None:
    async def away() -> None:
        await world.prescriber.down()
        await asyncio.sleep(min(10.0, every_s / 4))
        await world.prescriber.up()

    async def full() -> None:
        async with armed(world, _FULL, 1, world.folder / "full.log"):
            await asyncio.sleep(min(5.0, every_s / 4))

    async def killed(pid: int | None) -> None:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    async def cut() -> None:
        labs.cut()

    async def still() -> None:
        async with world.standing_still():
            await asyncio.sleep(min(12.0, every_s / 4))

    kills = {
        "judging process killed": lambda: killed(world.judging_pid),
        "accepting process killed": lambda: killed(world.accepting_pid),
    }
    faults = {"connections cut": cut, **kills, "prescriber away": away, "both processes stood still": still}
    if may_trace():
        faults["disk full"] = full
    for name in itertools.cycle(faults):
        if name in kills and time.monotonic() > kill_until:
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), every_s)
        if over.is_set():
            return
        told(f"{name}; accepted so far: {len(world.accepted)}")
        done.faults[name] = done.faults.get(name, 0) + 1
        await faults[name]()
        await world.judging()
