"""The two processes of ``serve``: one judging process at a time, started anew when it dies, ended with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import back_process
from engine.back_process import BackProcess
from engine.config import Settings
from engine.observe import Meters
from store import AlreadyRunning, Store, database


@pytest.fixture
def url(request: Any, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "postgresql":
        found: str = request.getfixturevalue("postgresql_url")
        return found
    return f"sqlite:///{tmp_path / 'n.db'}"


@pytest.fixture
async def serving(tmp_path: Path, url: str, eventually: Any) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """``neutroflag serve`` and its MLLP port."""
    config = tmp_path / "n.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[mllp]\nport = 0\n[http]\nport = 0\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.cli", "serve", "--config", str(config),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    faces = (await process.stderr.readline()).decode()
    found = re.search(r"mllp://127\.0\.0\.1:(\d+)", faces)
    assert found, faces
    await eventually(lambda: children(process.pid))
    yield process, int(found[1])
    if process.returncode is None:
        process.terminate()
        await process.wait()


def _rows(url: str, sql: str) -> list[Any]:
    engine = database.reader(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(sql)]
    engine.dispose()
    return found


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
async def test_a_judging_process_that_is_killed_is_started_anew_and_judges_on(
    serving: Any, connect: Any, hl7: Any, eventually: Any, url: str
) -> None:
    process, port = serving
    (first,) = children(process.pid)
    os.kill(first, signal.SIGKILL)
    lab = await connect(port)
    assert (await lab.ask(hl7.oru("M1", anc="2.4"))).code == "AA"

    def judged() -> bool:
        return _rows(url, "SELECT disposition FROM message") == [("unenrolled",)]

    await eventually(judged, limit_s=20)
    (second,) = children(process.pid)
    assert second != first
    await lab.close()


class Noting(Meters):
    """Keeps the names of events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def event(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        self.events.append(event)


@pytest.fixture
async def back(url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """The parent's side of a judging process, not started yet."""
    store = Store(url)
    await store.open()
    settings = Settings.model_validate({"store": {"url": url}})
    process = BackProcess(settings, Noting(), on_recorded=lambda _: None)
    yield process
    await process.stop()
    await store.close()


async def test_a_judging_process_that_cannot_be_started_is_tried_again(
    back: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        back.start()
        await eventually(lambda: "back_died" in back._meters.events)
    await eventually(lambda: back.alive)
    assert not back.failed.done()


async def test_a_judging_process_that_hangs_is_replaced(
    back: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    back.start()
    await eventually(lambda: back.alive)
    first = back._process.pid
    monkeypatch.setattr(back_process, "_HUNG_AFTER_S", 3.0)
    heard = back._heard_at
    await eventually(lambda: back._heard_at > heard)  # the next report is awaited for no longer than that
    os.kill(first, signal.SIGSTOP)
    await eventually(lambda: gone(first))
    monkeypatch.undo()
    await eventually(lambda: back._process.pid != first)
    heard = back._heard_at
    await eventually(lambda: back._heard_at > heard)
    assert not back.failed.done()


async def test_the_judging_process_ends_with_its_parent(serving: Any, eventually: Any) -> None:
    process, _ = serving
    (child,) = children(process.pid)
    process.kill()
    await process.wait()
    await eventually(lambda: gone(child), limit_s=15)


async def test_a_stop_signal_ends_both(serving: Any) -> None:
    process, _ = serving
    (child,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert gone(child)


async def test_two_cannot_judge_on_one_database(url: str) -> None:
    first = Store(url, sole=False)
    await first.open()
    with pytest.raises(AlreadyRunning):
        await Store(url, sole=False, patience_s=0.2).open()
    await first.close()
    second = Store(url, sole=False)
    await second.open()
    await second.close()
