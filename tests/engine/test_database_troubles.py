"""A server that is gone, refuses or has changed under a running engine: said in words, nothing lost, and no restart."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from engine.cli import NOT_READY
from engine.cli_state import health_command

ENDED = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'neutroflag'"


@pytest.fixture
def url(server: Any) -> str:
    found: str = server.fresh()
    return found


def _gone(server: Any, _: str) -> Callable[[], None]:
    server.postgresql.stop()
    back: Callable[[], None] = server.postgresql.start
    return back


def _said(change: str, undo: str) -> Callable[[Any, str], Callable[[], None]]:
    """``DB`` is the database; connections are ended after each: what a server says only to new ones."""

    def break_it(server: Any, name: str) -> Callable[[], None]:
        def run(words: str) -> None:
            server.run(words.replace("DB", name), name if "table" in words else "postgres")

        def mend() -> None:
            run(undo)
            server.run(ENDED)

        run(change)
        server.run(ENDED)
        return mend

    return break_it


def _password(server: Any, _: str) -> Callable[[], None]:
    """Changed by a connection from before: it is the one that can change it back."""
    known = psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True)
    known.execute("alter role neutroflag password 'another'")
    known.execute(ENDED)

    def mend() -> None:
        known.execute(sql.SQL("alter role neutroflag password {}").format(server.postgresql.password))
        known.close()

    return mend


TROUBLES = {
    "gone": (_gone, "is gone|cannot be reached"),
    "wrong password": (_password, "the database refuses the password"),
    "read-only": (
        _said("alter database DB set default_transaction_read_only = on",
              "alter database DB reset default_transaction_read_only"),
        "the database is read-only",
    ),
    "a table of another build": (
        _said("alter table message rename to message_of_old", "alter table message_of_old rename to message"),
        "a table is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_it_is_said_nothing_is_lost_and_it_goes_on_without_a_restart(
    trouble: str, run_engine: Any, enrol_by_csv: Any, hl7: Any, server: Any, url: str, tmp_path: Path, eventually: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine()
    assert await running.tell(hl7.oru("M1", anc="2.60")) == ["AA"]
    break_it, words = TROUBLES[trouble]
    # In a thread: a change of a table waits for what the engine has begun, and that for the loop.
    mend = await asyncio.to_thread(break_it, server, url.rpartition("/")[2])
    try:
        lab = await running.lab()
        said = await _said_by(running, tmp_path)
        assert (await lab.ask(hl7.oru("M2", anc="0.84", filler="B3"))).code == "AE"
    finally:
        await asyncio.to_thread(mend)
    assert re.search(words, said), said

    async def taken() -> bool:
        return bool((await lab.ask(hl7.oru("M2", anc="0.84", filler="B3"))).code == "AA")

    await eventually(taken, 30)
    await lab.close()
    await running.settled()
    ends = [(row["control_id"], row["disposition"]) for row in await running.messages()]
    assert sorted(end for end in ends if end[1] != "duplicate") == [("M1", "judged"), ("M2", "judged")]
    assert len(running.prescriber.flags()) == 1
    assert (await running.engine.readiness())[0]
    assert await running.findings() == []


async def _said_by(running: Any, folder: Path) -> str:
    """What ``neutroflag health`` prints of the store."""
    config, out = folder / "health.toml", io.StringIO()
    config.write_text(f"[http]\nport = {running.engine.http_port}\n")
    assert await asyncio.to_thread(functools.partial(health_command, config, stdout=out, stderr=out)) == NOT_READY
    return str(json.loads(out.getvalue())["store"])
