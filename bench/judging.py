"""What one more judging engine is worth where it has a processor of its own.

On a machine whose cores are all taken by senders, server and one engine a second engine can show nothing. Here the messages
are in the inbox before anything is measured, and each judging engine, with all its processes, is held to the same share of a
core, so that together with PostgreSQL, which is not held, they leave the machine some room. What is measured lies between
two points of the work, after every engine has started and well before the last message.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench import region, server
from bench.quota import groups
from bench.running import Serve, cpu_s_of, send, serve

__all__ = ["Judging", "backlog", "loops", "measured"]

_PATIENTS = 2_000
_SETTLED_S = 1.0
_LIMIT_S = 120.0
_LOOP_S = 3.0


class Judging(NamedTuple):
    """Messages judged a second, cores that the engines and the server had meanwhile, the machine's rest; what was lost."""

    rate: float
    engines: float
    server: float
    idle: float
    lost: str


def backlog(found: Any, kind: str, count: int) -> str:
    """A database with patients and their counts of years, and ``count`` messages that were accepted and wait."""
    url = server.fresh(found)
    region.fill(url, _PATIENTS)
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), url=url, role="accept") as engine:
        report = send(engine, kind=kind, run="wait", count=count, connections=64, first=_PATIENTS)
    if report["accepted"] != count:
        raise RuntimeError(f"{count} asked for, {report['accepted']} accepted {report['errors']}")
    with server.connected(url) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return url


def measured(found: Any, waiting: str, count: int, judges: int, cores: float) -> Judging:
    """``judges`` engines, each with ``cores`` of a core, on a copy of the database at ``waiting``, while they judge ``count``
    of its messages. OSError where nobody can be held to a share."""
    url = server.fresh(found, copied=waiting)
    with groups(judges) as held, server.connected(url) as connection, contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for group in held:
            group.limit(cores)
        # Side by side, and within their share from the first moment: whoever is up begins to judge.
        starting = [
            serve(folder / f"judge{number}", url=url, role="judge", into=group) for number, group in enumerate(held)
        ]
        with ThreadPoolExecutor(judges) as pool:
            engines = list(pool.map(stack.enter_context, starting))
        time.sleep(_SETTLED_S)
        # From one commit to another: messages are judged many at a time.
        first = _more(connection, _judged(connection))
        started, before = time.monotonic(), _used(found, engines)
        last = _more(connection, first + count - 1)
        took, after = time.monotonic() - started, _used(found, engines)
        theirs, its, idle = ((now - then) / took for now, then in zip(after, before, strict=True))
        # Who has nothing more to do would be measured as slow.
        wrong = "" if _waiting(connection) else "no message was left at the end of what was measured"
        for group in held:
            group.free()
        state = engines[0].drained()
        if sum(state["dispositions"].values()) != state["received"]:
            wrong = f"not all are judged: {state}"
    return Judging((last - first) / took, theirs, its, idle, wrong)


def loops(processes: int, cores: float) -> float:
    """What so many processes get done a second that share nothing but the machine, each with ``cores`` of a core: two
    processors of a virtual machine may be one processor's two threads, and then two processes do not do twice as much."""
    with groups(processes) as held:
        started = []
        for group in held:
            group.limit(cores)
            process = subprocess.Popen([sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
            group.take(process.pid)
            started.append(process)
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
                process.stdin = None
        return sum(float(process.communicate()[0]) for process in started)


_LOOP = f"""
import sys, time
sys.stdin.read()
rounds, end = 0, time.monotonic() + {_LOOP_S}
while time.monotonic() < end:
    sorted(str(number) for number in range(1000))
    rounds += 1
print(rounds / {_LOOP_S})
"""


def _more(connection: Any, than: int) -> int:
    """How many are judged, once it is more than so many, or after the time limit."""
    deadline = time.monotonic() + _LIMIT_S
    while (judged := _judged(connection)) <= than and time.monotonic() < deadline:
        time.sleep(0.01)
    return judged


def _used(found: Any, engines: Sequence[Serve]) -> tuple[float, float, float]:
    """Seconds of a processor so far: of the engines, of the server, of nobody."""
    return sum(engine.cpu_s() for engine in engines), cpu_s_of(found.process.pid), _idle_s()


def _judged(connection: Any) -> int:
    return int(connection.execute("SELECT sum(value) FROM counter WHERE name = 'disposition'").fetchone()[0] or 0)


def _waiting(connection: Any) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT FROM message WHERE disposition IS NULL)").fetchone()[0])


def _idle_s() -> float:
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
