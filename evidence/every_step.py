"""Every step failing in turn: the n-th system call of a kind fails, n = 1, 2, 3 ... until a round passes untouched.

After "How SQLite is tested". The kernel's own interface is the seam: ``strace`` is attached to the running process that
accepts, or to the one that judges, and makes its n-th call fail, wait, or be the last one it made (SIGKILL). Nothing in the
engine is changed or knows. Needs strace and the right to trace one's own processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from evidence.world import Story, World

__all__ = ["FAULTS", "Fault", "Outcome", "armed", "every_step", "may_trace"]

_SYNC, _WRITE, _READ = "fdatasync,fsync", "pwrite64,ftruncate", "pread64"
_SAY, _HEAR = "write,writev,sendto,sendmsg", "read,readv,recvfrom,recvmsg"
_OPEN = "accept4,connect,openat,socket"


@dataclass(frozen=True, slots=True)
class Fault:
    """``calls`` of one process, and what befalls the n-th of them; ``sticky``: it and every later one of the round."""

    name: str
    who: str
    calls: str
    befalls: str
    sticky: bool = False


def _both(name: str, calls: str, befalls: str, *, sticky: bool = False) -> list[Fault]:
    return [Fault(f"{name}, {who}", who, calls, befalls, sticky) for who in ("accepting", "judging")]


FAULTS = (
    *_both("killed at a disk sync", _SYNC, "signal=KILL"),
    *_both("killed at a disk write", _WRITE, "signal=KILL"),
    *_both("killed at a socket write", _SAY, "signal=KILL"),
    *_both("killed at a socket read", _HEAR, "signal=KILL"),
    *_both("disk sync fails (EIO)", _SYNC, "error=EIO"),
    *_both("disk write fails (EIO)", _WRITE, "error=EIO"),
    *_both("disk full (ENOSPC)", _WRITE, "error=ENOSPC"),
    *_both("disk full from then on (ENOSPC)", _WRITE, "error=ENOSPC", sticky=True),
    *_both("disk read-only from then on (EROFS)", _WRITE, "error=EROFS", sticky=True),
    *_both("disk read fails (EIO)", _READ, "error=EIO"),
    *_both("lock refused (EAGAIN)", "fcntl", "error=EAGAIN"),
    *_both("disk sync takes 300 ms", _SYNC, "delay_enter=300000"),
    *_both("socket write fails (ECONNRESET)", _SAY, "error=ECONNRESET"),
    *_both("socket read fails (ECONNRESET)", _HEAR, "error=ECONNRESET"),
    *_both("no file handle (EMFILE)", _OPEN, "error=EMFILE"),
)


@dataclass(slots=True)
class Outcome:
    fault: str
    rounds: int = 0
    struck: int = 0
    last: int = 0
    untouched: bool = False
    problems: list[str] = field(default_factory=list)


def may_trace() -> bool:
    """Is there a strace, and may it trace?"""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )


async def every_step(
    folder: Path,
    faults: tuple[Fault, ...] = FAULTS,
    *,
    most: int = 400,
    stride: int = 1,
    first: int = 1,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """For each fault n = first, first + stride ... until a round passes untouched, or ``most``; then reconciled."""
    outcomes = []
    stories: list[Story] = []
    async with World(folder, stories=len(faults) * (most // stride + 1)) as world:
        for fault in faults:
            outcome = Outcome(fault.name)
            for number in range(first, most + 1, stride):
                story = Story(len(stories))
                stories.append(story)
                outcome.rounds, outcome.last = outcome.rounds + 1, number
                if not await _round(world, fault, number, story):
                    outcome.untouched = True
                    break
                outcome.struck += 1
            outcome.problems = world.problems(stories)
            outcomes.append(outcome)
            told(outcome)
            if outcome.problems:
                break
    return outcomes


async def _round(world: World, fault: Fault, number: int, story: Story) -> bool:
    """One story with the fault armed; whether it struck."""
    await world.judging()
    log = world.folder / "strace.log"
    log.unlink(missing_ok=True)
    async with armed(world, fault, number, log):
        if fault.sticky:
            # A disk that stays full lets nothing through: the story begins, the disk gets room, the story ends.
            telling = asyncio.create_task(world.tell(story))
            await asyncio.wait([telling], timeout=2.0)
        else:
            await world.tell(story)
            await world.settled()
    if fault.sticky:
        await telling
    await world.settled()
    said = log.read_text(errors="replace") if log.exists() else ""
    return "(INJECTED)" in said or "(DELAYED)" in said or "killed by SIGKILL" in said


@contextlib.asynccontextmanager
async def armed(world: World, fault: Fault, number: int, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The fault waits for its call; gives the tracer, which ends by itself only with the process that it watches."""
    pid = world.accepting_pid if fault.who == "accepting" else world.judging_pid
    if pid is None:
        raise RuntimeError("there is no judging process")
    when = f"{number}+" if fault.sticky else str(number)
    calls = fault.calls
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:{fault.befalls}:when={when}"),
        *("-p", str(pid)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert tracer.stderr is not None  # noqa: S101  # asked for above
    try:
        said = await asyncio.wait_for(tracer.stderr.readline(), 20)
        if b"attached" not in said:
            raise RuntimeError(f"strace: {said.decode(errors='replace').strip()}")
        yield tracer
    finally:
        if tracer.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                tracer.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(5):
                await tracer.communicate()
        except TimeoutError:  # it may wait for ever for a thread that is just being killed
            with contextlib.suppress(ProcessLookupError):
                tracer.kill()
            await tracer.wait()
