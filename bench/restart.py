"""From kill -9 to the next accepted message: a new database, and one in which a million messages wait to be judged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Table

from bench.sender import alerts
from ingest.envelope import hl7v2
from store import Store, database, inbox
from store.tables import body, message
from wire.ack import read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["backlog", "restarts"]

_JUDGES_S = 1.5


def backlog(path: Path, rows: int) -> None:
    """A new database whose inbox holds ``rows`` blood counts that nobody has judged, as the door stores them."""
    asyncio.run(_first(path))
    own = {"id": "n.i", "control_id": "'B' || n.i", "dedupe_key": "randomblob(16)", "content_hash": "randomblob(16)"}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        # Durability is left off while it is written; the engine turns it on.
        for pragma in ("journal_mode=DELETE", "journal_mode=OFF", "synchronous=OFF", "cache_size=-400000"):
            raw.execute(f"PRAGMA {pragma}")
        raw.execute("BEGIN")
        _multiply(raw, message, own, "message.id", rows)
        _multiply(raw, body, {"message_id": "n.i"}, "body.message_id", rows)
        raw.execute("COMMIT")
    engine = database.writer(f"sqlite:///{path}")
    with engine.connect() as connection, connection.begin():
        inbox.count(connection, [("received", "", rows - 1)])
    engine.dispose()


async def _first(path: Path) -> None:
    store = Store(f"sqlite:///{path}")
    await store.open()
    _, item = hl7v2(alerts("first", 0)(1), channel="mllp", peer="", now=datetime.now(UTC))
    await store.accept(item)
    await store.close()


def _multiply(raw: sqlite3.Connection, table: Table, own: dict[str, str], key: str, rows: int) -> None:
    """The table's first row, so many times; ``own``: what differs, in SQL."""
    columns = [column.name for column in table.columns]
    values = ", ".join(own.get(name, f"{table.name}.{name}") for name in columns)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)"
    copies = f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM n, {table.name} WHERE {key} = 1"  # noqa: S608
    raw.execute(f"{numbers} {copies}", {"rows": rows})


def restarts(folder: Path, times: int) -> list[tuple[float, float]]:
    """Seconds from the start of ``serve`` to its first AA, each time after kill -9 of both its processes at work; and of them
    the processor's seconds in the process that accepts, which a busy machine does not change."""
    port, took = _free_port(), list[tuple[float, float]]()
    config = folder / "neutroflag.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{folder / "bench.db"}"\n[mllp]\nport = {port}\n[http]\nport = 0\n'
        "[watch]\nevery_s = 3600\n"
    )
    build = alerts(f"again{time.monotonic_ns()}", 0)
    for number in range(times + 1):
        started = time.monotonic()
        with (folder / "events.jsonl").open("ab") as events:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "engine.cli", "serve", "--config", str(config)], stdout=events, stderr=events
            )
        try:
            _accepted(port, build(number), started + 120)
            took.append((time.monotonic() - started, _processor_s(process.pid)))
            time.sleep(_JUDGES_S)
        finally:
            _kill(process)
    return took[1:]  # the first one follows no kill


def _accepted(port: int, raw: bytes, deadline: float) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as door:
            door.sendall(frame(raw))
            deframer = Deframer()
            while data := door.recv(65536):
                for event in deframer.feed(data):
                    if isinstance(event, Frame):
                        answer = read_ack(event.payload)
                        if answer is None or answer.code != "AA":
                            raise RuntimeError(f"answered by {answer}")
                        return
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was accepted")
        time.sleep(0.005)


def _processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _kill(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
