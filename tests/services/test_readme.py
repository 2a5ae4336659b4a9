"""The README's way to several machines, typed as it stands there: PostgreSQL and Kafka together, two engines."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from evidence.world import free_port
from store import Store, listing
from store.check import findings

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "postgresql+psycopg://neutroflag@db.example/neutroflag"
BROKER = 'bootstrap = "kafka.example:9093"'
CA = 'ca = "kafka-ca.pem"'


def block(chapter: str, kind: str = "") -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]


class Shell:
    """A host's: the folder that the reader works in, and the program. Only its ports are its own."""

    def __init__(self, folder: Path, tools: Path, password: str) -> None:
        self.folder, self.mllp = folder, free_port()
        self.environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PGPASSWORD": password,
            "NEUTROFLAG_MLLP__PORT": str(self.mllp),
            "NEUTROFLAG_HTTP__PORT": str(free_port()),
        }

    async def run(self, script: str, limit_s: float = 90) -> str:
        script = script.replace("mllp://127.0.0.1:2575", f"mllp://127.0.0.1:{self.mllp}")
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-ec", script], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, check=False, timeout=limit_s,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def begun(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=(self.folder / f"{self.mllp}.err").open("wb"),
        )  # fmt: skip


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """``neutroflag``, as the environment that the first command makes has it on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "neutroflag").write_text(f'#!/bin/sh\nexec env PYTHONPATH={ROOT} {sys.executable} -m engine.cli "$@"\n')
    (folder / "neutroflag").chmod(0o755)
    return folder


@pytest.fixture
def empty(postgresql: Any) -> Iterator[str]:
    url = postgresql.empty()
    yield url
    postgresql.drop(url)


async def test_the_three_commands_lead_to_two_engines_on_postgresql_and_kafka(
    broker: Any, empty: str, tools: Path, tmp_path: Path, eventually: Any
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "docs").symlink_to(ROOT / "docs")
    password = str(make_url(empty).password)
    hosts = [Shell(folder, tools, password) for _ in range(2)]

    # One machine, as the README's first minute leaves it. What has no ``make`` in it is typed.
    made, *first = block("Send your first message in 60 seconds").splitlines()
    assert made.startswith("make .venv/.runtime")
    await hosts[0].run("\n".join([*first, "kill %1", "wait"]))

    prepare, move, serve = block("When you outgrow one machine").splitlines()
    assert prepare.partition("#")[0].strip() == made.strip()
    assert DATABASE in move
    address = empty.replace(f":{password}@", "@")
    said = await hosts[0].run(move.replace(DATABASE, address))
    assert "moved, counted on both sides" in said

    text = block("When you outgrow one machine", "toml")
    assert (text.count(DATABASE), text.count(BROKER), text.count(CA)) == (1, 2, 2)
    tls = broker.folder / "tls"
    (folder / "kafka-ca.pem").write_bytes((tls / "ca.pem").read_bytes())
    # What this broker asks for beside the authority, which the README leaves to docs/kafka.md.
    account = f'sasl = "PLAIN"\nusername = "lab"\npassword_file = "{tls / "password"}"\n'
    text = text.replace(DATABASE, address).replace(
        "kafka.example:9093", f"127.0.0.1:{(tls / 'port').read_text().strip()}"
    )
    (folder / "two.toml").write_text(text.replace(CA, account + CA))
    results = await broker.topic(2, "lab.results")
    alerts = await broker.topic(2, "neutroflag.alerts")
    count = (ROOT / "docs" / "first" / "count.hl7").read_bytes().replace(b"@TODAY@", time.strftime("%Y%m%d").encode())

    store = Store(empty, sole=False)
    await store.open()
    with ExitStack() as stack:
        for host in hosts:
            process = host.begun(serve)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        for host in hosts:
            await host.run("until neutroflag health --config two.toml; do sleep 0.2; done")
        # A lower count by each door: the topic, and the second host's own.
        await broker.send(
            results, count.replace(b"FIRST-1", b"TWO-1").replace(b"F-1^", b"F-2^").replace(b"0.84", b"0.45")
        )
        (told,) = await broker.read(alerts, 1)
        assert told.key
        (folder / "more.hl7").write_bytes(
            count.replace(b"FIRST-1", b"TWO-2").replace(b"F-1^", b"F-3^").replace(b"0.84", b"0.40")
        )
        assert "AA" in await hosts[1].run("neutroflag send more.hl7 --to mllp://127.0.0.1:2575")

        async def drained() -> bool:
            state = await store.snapshot()
            return not state.pending and not state.outbox and state.dispositions == {"judged": 3}

        await eventually(drained, 30)
        # What the README says to look at, by a process of its own.
        assert "EXEMPLE" in await hosts[1].run("neutroflag patients show 900001 --config two.toml")
    rows = await store.read(lambda connection: list(listing.messages(connection)))
    assert {(row["control_id"], row["channel"]) for row in rows} == {
        ("FIRST-1", "mllp"), ("TWO-1", "kafka"), ("TWO-2", "mllp")
    }  # fmt: skip
    assert await store.read(findings) == []
    await store.close()
    assert await broker.committed(results) == 1
