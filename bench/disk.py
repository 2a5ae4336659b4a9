"""What a message leaves on disk, by how it ended: on SQLite and on PostgreSQL. A size, and no time: load does not move it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import text

from bench import server
from engine.compose import Engine
from engine.config import load as settings_of
from engine.region import Region
from engine.register_csv import import_csv
from engine.simulate import load
from store import database

__all__ = ["ENDS", "bytes_of"]

End = Literal["not_relevant", "unenrolled", "judged", "duplicate"]
ENDS: tuple[End, ...] = ("not_relevant", "unenrolled", "judged", "duplicate")

_PEOPLE = 200


def bytes_of(end: End, count: int, *, postgresql: bool) -> float:
    """The database's growth by ``count`` messages that end so, a message; indexes with it, and the register without."""
    with tempfile.TemporaryDirectory() as folder:
        if not postgresql:
            return asyncio.run(_grown(f"sqlite:///{folder}/bench.db", Path(folder), end, count))
        with server.server() as found:
            return asyncio.run(_grown(server.fresh(found), Path(folder), end, count))


async def _grown(url: str, folder: Path, end: End, count: int) -> float:
    config = folder / "disk.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[mllp]\nport = 0\n[http]\nenabled = false\n', encoding="utf-8")
    settings = settings_of(config, {})
    today = datetime.now(UTC).replace(microsecond=0)
    share = 0 if end == "not_relevant" else 100
    region = Region(seed=1, count=count, start=today, patients=_PEOPLE, relevant=share)
    if end in ("judged", "duplicate"):
        await _run(settings, lambda engine: _nothing())
        region.register(folder / "register.csv", _PEOPLE, started=today - timedelta(days=40), by="Dr Bench")
        await asyncio.to_thread(
            import_csv, folder / "register.csv", settings.store.url, actor="Dr Bench", zone=settings.zone
        )
    # The duplicates are of messages that are there already.
    await _run(settings, lambda engine: _sent(engine, region, count if end == "duplicate" else count // 10, 0))
    before = await asyncio.to_thread(_size, url)
    first = 0 if end == "duplicate" else count // 10
    await _run(settings, lambda engine: _sent(engine, region, count if end == "duplicate" else count - first, first))
    return (await asyncio.to_thread(_size, url) - before) / (count if end == "duplicate" else count - first)


async def _nothing() -> None:
    return None


async def _run(settings: Any, work: Callable[[Engine], Any]) -> None:
    engine = Engine(settings)
    await engine.start()
    try:
        await work(engine)
        store = engine.store
        while store is not None:
            state = await store.snapshot()
            if not state.pending and not await store.settling_ids(datetime.now(UTC) + timedelta(days=1), 1):
                break
            store.arrived.set()
            await asyncio.sleep(0.1)
    finally:
        await engine.stop()


async def _sent(engine: Engine, region: Region, count: int, first: int) -> None:
    port = engine.mllp.port if engine.mllp is not None else 0
    report = await load("127.0.0.1", port, lambda number: region.build(first + number), count=count, connections=8)
    if report.accepted != count:
        raise RuntimeError(f"{count} sent, {report.accepted} accepted: {dict(report.errors)}")


def _size(url: str) -> int:
    path = database.file_of(url)
    if path is not None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return path.stat().st_size
    engine = database.writer(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as server_side:
        server_side.execute(text("CHECKPOINT"))
        size = int(server_side.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    engine.dispose()
    return size
