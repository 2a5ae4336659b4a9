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
from evidence.laboratories import Laboratories
from evidence.world import Story, World

__all__ = ["Soaked", "resident_kb", "soak"]

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
        labs = Laboratories(world, _stranger, over, rate=rate)
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
        done.accepted, done.resent = len(world.accepted), labs.resent
        done.starts = world.starts
        done.problems = world.problems(stories)
        told(world.command("db", "verify").strip())
    return done


def _stranger(number: int, lane: int) -> tuple[str, bytes]:
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
                memory = sum(resident_kb(pid) for pid in pids)
                files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
                done.looks.append((time.monotonic() - started, memory, files, (pids[0], pids[1])))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _LOOK_EVERY_S)


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def _break(
    world: World,
    labs: Laboratories,
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
