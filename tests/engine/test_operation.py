"""Running it: metrics over both processes, health, a backup under load, a drained stop, retention by the clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine.config import RetentionSection
from engine.observe import Meters
from engine.retention import Retention, ages
from store import Store, backup, database, schema
from store.check import findings
from store.purge import Kind

# contracts.md, "Events and metrics", as Prometheus shows them.
CONTRACT = {
    "neutroflag_messages_received_total": {"channel", "format"},
    "neutroflag_dispositions_total": {"disposition"},
    "neutroflag_ack_seconds_count": set(),
    "neutroflag_stage_seconds_count": {"stage"},
    "neutroflag_outbox_messages": {"destination", "state"},
    "neutroflag_outbox_oldest_seconds": set(),
    "neutroflag_alerts_open": {"level"},
    "neutroflag_patients_overdue": set(),
    "neutroflag_feed_silence_seconds": {"channel"},
    "neutroflag_build_info": {"version"},
}
NOBODY_THERE = '[[destination]]\nname = "gone"\nkind = "mllp"\nhost = "127.0.0.1"\nport = 1\n'


@dataclass
class Served:
    process: asyncio.subprocess.Process
    mllp_port: int
    url: str
    config: Path

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{self.url}/metrics")).text
        found = {}
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
        return found

    async def value(self, name: str, **labels: str) -> float:
        return (await self.metrics()).get((name, frozenset(labels.items())), 0)


@pytest.fixture
async def serve(tmp_path: Path, url: str) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Starts ``neutroflag serve``: two processes, on free ports."""
    started: list[asyncio.subprocess.Process] = []

    async def start(extra: str = "") -> Served:
        with socket.create_server(("127.0.0.1", 0)) as free:
            http = free.getsockname()[1]
        config = tmp_path / "n.toml"
        config.write_text(
            f'[store]\nurl = "{url}"\n[mllp]\nport = 0\n[http]\nport = {http}\n[watch]\nevery_s = 0.2\n{extra}'
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine.cli", "serve", "--config", str(config),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        found = re.search(r"mllp://127\.0\.0\.1:(\d+)", said)
        assert found, said
        return Served(process, int(found[1]), f"http://127.0.0.1:{http}", config)

    yield start
    for process in started:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def command(config: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "engine.cli", *map(str, arguments), "--config", str(config)]
    return subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)


async def test_every_metric_of_the_contract_is_there_over_both_processes_and_moves(
    serve: Any, enrol_by_csv: Any, tmp_path: Path, url: str, hl7: Any, connect: Any, eventually: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    await enrol_by_csv(tmp_path, url, "777")  # under treatment for 40 days, and no count at all
    served = await serve(NOBODY_THERE)
    lab = await connect(served.mllp_port)
    assert (await lab.ask(hl7.oru("M1", anc="0.84"))).code == "AA"

    async def moved(name: str, **labels: str) -> None:
        async def above() -> bool:
            return await served.value(name, **labels) > 0

        await eventually(above, 40)

    await moved("neutroflag_messages_received_total", channel="mllp", format="hl7v2")
    await moved("neutroflag_ack_seconds_count")
    for stage in ("read", "judge", "record"):  # measured in the judging process
        await moved("neutroflag_stage_seconds_count", stage=stage)
    await moved("neutroflag_dispositions_total", disposition="judged")
    await moved("neutroflag_alerts_open", level="red")
    await moved("neutroflag_outbox_messages", destination="gone", state="waiting")
    await moved("neutroflag_outbox_oldest_seconds")
    await moved("neutroflag_patients_overdue")
    await moved("neutroflag_feed_silence_seconds", channel="mllp")
    shown = await served.metrics()
    for name, labels in CONTRACT.items():
        series = [{label for label, _ in found} for known, found in shown if known == name]
        assert series, name
        assert all(labels == found for found in series), name
    before = await served.value("neutroflag_dispositions_total", disposition="duplicate")
    await lab.ask(hl7.other("ADT^A01", "M2"))
    await moved("neutroflag_dispositions_total", disposition="not_relevant")
    assert before == 0
    await lab.close()


async def test_health_is_asked_of_the_running_engine(serve: Any, eventually: Any) -> None:
    served = await serve()

    async def ready() -> bool:
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{served.url}/readyz")).status_code == 200

    await eventually(ready, 40)
    assert (await asyncio.to_thread(command, served.config, "health")).returncode == 0
    served.process.terminate()
    await served.process.wait()
    done = await asyncio.to_thread(command, served.config, "health")
    assert (done.returncode, "no engine answers" in done.stderr) == (3, True)


class Load:
    """Laboratories that send one count after another until the engine hangs up or they are told to stop."""

    def __init__(self, port: int, hl7: Any, connect: Any, labs: int = 6) -> None:
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self.refused: list[str] = []
        self.over = False
        self._tasks = [asyncio.create_task(self._one(port, hl7, connect, number)) for number in range(labs)]

    async def _one(self, port: int, hl7: Any, connect: Any, number: int) -> None:
        lab = await connect(port)
        with contextlib.suppress(ConnectionError):
            for turn in range(100_000):
                if self.over:
                    break
                name = f"L{number}M{turn}"
                self.sent.add(name)
                answer = await lab.ask(hl7.oru(name, filler=f"F{name}", patient=f"{number}^^^CHX&1.2.3&ISO^PI"))
                if answer.code == "AA":
                    self.answered.add(name)
                else:
                    self.refused.append(answer.code)
        with contextlib.suppress(ConnectionError):
            await lab.close()

    async def end(self) -> None:
        self.over = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)


async def test_a_stop_signal_under_load_answers_what_was_taken_and_loses_nothing(
    serve: Any, hl7: Any, connect: Any, eventually: Any, url: str
) -> None:
    served = await serve()
    load = Load(served.mllp_port, hl7, connect)
    await eventually(lambda: len(load.answered) > 60)
    told = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(served.process.wait(), 30) == 0
    assert time.monotonic() - told < 30
    await load.end()
    assert load.refused == []
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        stored = {row[0] for row in connection.execute("select control_id from message")}
    assert load.answered <= stored <= load.sent
    # Each sender has one message on its way at most: what the engine had taken was answered before it hung up.
    assert stored - load.answered == set()
    opened = Store(url)
    await opened.open()
    assert await opened.read(findings) == []
    await opened.close()


async def test_a_backup_under_load_is_whole_private_and_overwrites_nothing(
    serve: Any, hl7: Any, connect: Any, eventually: Any, tmp_path: Path
) -> None:
    served = await serve()
    load = Load(served.mllp_port, hl7, connect, labs=3)
    await eventually(lambda: len(load.answered) > 30)
    copy = tmp_path / "copy.db"
    assert await asyncio.to_thread(backup.copy, tmp_path / "neutroflag.db", copy) == []
    await load.end()
    assert load.refused == []
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not any("partial" in name for name in os.listdir(tmp_path))
    opened = Store(f"sqlite:///{copy}")
    await opened.open()
    snapshot = await opened.snapshot()
    assert await opened.read(findings) == []
    await opened.close()
    assert 30 < snapshot.received <= len(load.sent)
    before = copy.read_bytes()
    with pytest.raises(FileExistsError):
        backup.copy(tmp_path / "neutroflag.db", copy)
    assert copy.read_bytes() == before


def test_a_copy_of_a_broken_database_gets_no_name(tmp_path: Path) -> None:
    source = tmp_path / "n.db"
    with database.writer(f"sqlite:///{source}").connect() as connection, connection.begin():
        schema.upgrade(connection)
        connection.exec_driver_sql("insert into counter values ('received', '', 0, 7)")
    assert backup.copy(source, tmp_path / "copy.db") == ["7 messages were counted in, 0 are on file"]
    assert sorted(name for name in os.listdir(tmp_path) if "copy" in name) == []


def test_by_default_nothing_clinical_is_removed() -> None:
    assert set(ages(RetentionSection())) == {Kind.NOT_RELEVANT_BODIES, Kind.DUPLICATES, Kind.OBSERVED}


async def test_retention_goes_by_the_clock_a_batch_a_step_and_rests(
    url: str, hl7: Any, run_engine: Any, rows_of: Any
) -> None:
    running = await run_engine()
    await running.tell(hl7.other("ADT^A01", "M1"), hl7.other("ADT^A01", "M2"))
    await running.engine.stop()
    store = Store(url)
    await store.open()
    now = [datetime.now(UTC)]
    retention = Retention(store, RetentionSection(), Meters())
    kept = "select count(*) from body"

    async def all_steps() -> int:
        return sum([await retention.step(now[0]) for _ in range(10)])

    assert (await all_steps(), rows_of(kept)) == (0, [2])
    now[0] += timedelta(days=31)
    assert (await all_steps(), rows_of(kept)) == (2, [0])
    assert await store.read(findings) == []
    await store.close()
