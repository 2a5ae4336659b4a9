"""What the machine gives in this minute, measured beside the product, so that its figures can be read on a shared one.

A sync of the disk, SQLite's own durable commit of one blood count, and an MLLP listener that answers and keeps nothing, under
the same sender. ``python -m bench.machine`` is that listener: it prints its port and ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from bench.sender import sent
from wire import ack, er7, mllp

__all__ = ["Machine", "echo", "measured"]

_BLOCK = 8192
_BODY = 5700


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``sync_ms`` is a median, ``commits`` durable transactions of one row a second, ``echo`` answers a second."""

    sync_ms: float
    commits: float
    echo: float


def measured(share: int = 1) -> Machine:
    with tempfile.TemporaryDirectory() as folder:
        return Machine(
            sync_ms=_sync_ms(Path(folder) / "file", 400 // share),
            commits=_commits(Path(folder) / "raw.db", 800 // share),
            echo=_echo(8000 // share),
        )


def _sync_ms(path: Path, rounds: int) -> float:
    block = os.urandom(_BLOCK)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        took = []
        for number in range(rounds):
            os.pwrite(file, block, number * _BLOCK)
            started = time.perf_counter()
            os.fdatasync(file)
            took.append(time.perf_counter() - started)
        return statistics.median(took) * 1000
    finally:
        os.close(file)


def _commits(path: Path, rounds: int) -> float:
    """The settings of store.database, and nothing of the product: what no store on SQLite can beat one by one."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, raw BLOB)")
        body = os.urandom(_BODY)
        started = time.perf_counter()
        for number in range(rounds):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO message VALUES (?, ?)", (number, body))
            connection.execute("COMMIT")
        return rounds / (time.perf_counter() - started)
    finally:
        connection.close()


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """The port of an MLLP listener that answers AA and keeps nothing."""
    command = [sys.executable, "-m", "bench.machine"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield int(process.stdout.readline()) if process.stdout is not None else 0
    finally:
        process.communicate("")


def _echo(count: int) -> float:
    with echo() as port:
        return float(sent(port, kind="strangers", run="echo", count=count, connections=64)["rate"])


class _Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self._deframer = mllp.Deframer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for event in self._deframer.feed(data):
            if isinstance(event, mllp.Frame) and self._transport is not None:
                header = er7.peek(event.payload)
                answer = ack.acknowledge(header, "AA", control_id="ECHO", now=datetime.now(UTC))
                self._transport.write(mllp.frame(answer))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
