"""Alerts that wait already: how fast they go out to a destination that costs next to nothing, and what waiting costs."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bench.filled import queue
from bench.machine import echo
from bench.running import Serve, receiver, serve
from bench.scenes import Figures

__all__ = ["delivering", "waiting_mb"]

# The first of them are sent while the engine still starts.
_WARM = 10
_PATIENCE_S = 60.0
_WATCHED_S = 8.0


def delivering(kind: str, count: int) -> Figures:
    """Each alert of another patient, none of them known to the sender yet."""
    with tempfile.TemporaryDirectory() as folder, _destination(kind) as settings:
        path = Path(folder) / "bench.db"
        queue(path, count, "out", datetime.now(UTC))
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
            serve(Path(folder), settings=settings) as engine,
        ):
            first = _delivered(database, engine, count // _WARM)
            last = _delivered(database, engine, count)
        if last.count != count:
            return Figures(lost=f"{count} alerts waited, {last.count} were delivered")
    more = last.count - first.count
    return Figures(rate=more / (last.at - first.at), cpu_ms=1000 * (last.cpu_s - first.cpu_s) / more)


class _Seen(NamedTuple):
    count: int
    at: float
    cpu_s: float


def _delivered(database: sqlite3.Connection, engine: Serve, count: int) -> _Seen:
    """As soon as so many were, or none was for long."""
    seen, moved = _Seen(0, time.monotonic(), 0.0), time.monotonic()
    while seen.count < count and time.monotonic() - moved < _PATIENCE_S:
        # Few looks: each one costs what is measured.
        time.sleep(0.05)
        (number,) = database.execute("SELECT count(*) FROM delivery WHERE state = 'delivered'").fetchone()
        now = time.monotonic()
        moved = now if number > seen.count else moved
        seen = _Seen(number, now, engine.cpu_s())
    return seen


def waiting_mb(count: int) -> float:
    """The most memory of all processes in the first seconds while nothing takes the alerts."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        port = taken.getsockname()[1]
        queue(Path(folder) / "bench.db", count, "out", datetime.now(UTC))
        with serve(Path(folder), settings=_fhir(port)) as engine:
            most, until = 0.0, time.monotonic() + _WATCHED_S
            while time.monotonic() < until:
                most = max(most, engine.memory_mb())
                time.sleep(0.1)
            if sum(row["count"] for row in engine.state()["outbox"]) != count:
                raise RuntimeError("alerts left although the destination was down")
        return most


@contextlib.contextmanager
def _destination(kind: str) -> Iterator[str]:
    if kind == "fhir":
        with receiver() as found:
            yield _fhir(found.port)
    else:
        with echo() as port:
            yield _SETTINGS + f'kind = "mllp"\nhost = "127.0.0.1"\nport = {port}\n'


_SETTINGS = '[watch]\nevery_s = 3600\n[[destination]]\nname = "out"\n'


def _fhir(port: int) -> str:
    return _SETTINGS + f'kind = "fhir"\nurl = "http://127.0.0.1:{port}/fhir"\nanswers = false\n'
