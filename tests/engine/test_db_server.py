"""``neutroflag db`` on PostgreSQL: moved from SQLite with every row, verified, backed up, and refused in words."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from engine.cli import FAILURE, NOT_READY, OK, USAGE
from engine.cli_db import db_backup_command, db_move_command, db_verify_command
from engine.cli_state import db_upgrade_command
from store import Store, database
from store.move import tables

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def empty(postgresql: Any) -> Iterator[str]:
    url = postgresql.empty()
    yield url
    postgresql.drop(url)


def run(command: Any, config: Path, *arguments: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = command(config, *arguments, stdout=out, stderr=err)
    return code, out.getvalue(), err.getvalue()


def settings(folder: Path, url: str) -> Path:
    file = folder / "moved.toml"
    file.write_text(f'[store]\nurl = "{url}"\n[mllp]\nport = 0\n[http]\nport = 0\n')
    return file


@pytest.fixture
async def worked(running: Any, hl7: Any) -> Any:
    """An SQLite file that an engine has worked on: counts, alerts, deliveries, a duplicate, an unreadable one."""
    await running.tell(hl7.oru("M1", anc="0.40"), hl7.oru("M1", anc="0.40"), hl7.oru("M2", anc="x"), b"MSH|not much")
    await running.settled()
    await running.engine.stop()
    return running


def rows(url: str) -> dict[str, list[Any]]:
    engine = database.reader(url)
    with engine.connect() as connection:
        found = {table.name: sorted(map(repr, connection.execute(table.select()).all())) for table in tables()}
    engine.dispose()
    return found


async def test_everything_is_moved_once_and_an_engine_goes_on_there(
    worked: Any, tmp_path: Path, empty: str, hl7: Any
) -> None:
    source = worked.engine.settings.store.url
    config = tmp_path / "neutroflag.toml"
    code, said, _ = run(db_move_command, config, empty, False)
    assert (code, "say --yes" in said) == (OK, True)
    code, said, told = run(db_move_command, config, empty, True)
    assert (code, told) == (OK, "")
    assert rows(empty) == rows(source)
    assert len(rows(empty)["delivery"]) > 0

    # A second time there is something in the way, and it stays as it is.
    code, _, told = run(db_move_command, config, empty, True)
    assert code == FAILURE
    assert "not empty" in told
    assert rows(empty) == rows(source)

    there = settings(tmp_path, empty)
    code, said, told = run(db_verify_command, there, "")
    assert (code, told) == (OK, "")
    assert said.startswith("whole: integrity, references, and in = out\n")
    assert run(db_upgrade_command, there)[0] == OK

    # Numbers go on from the last one, and what was known is known.
    store = Store(empty)
    await store.open()
    last = max(int(row.partition("(")[2].partition(",")[0]) for row in rows(source)["message"])
    assert await store.replay(1) == last + 1
    await store.close()


async def test_a_file_that_an_engine_works_on_is_not_moved(running: Any, tmp_path: Path, empty: str) -> None:
    code, _, told = run(db_move_command, tmp_path / "neutroflag.toml", empty, True)
    assert code == NOT_READY
    assert "stop it first" in told


@pytest.mark.parametrize(
    ("target", "expected", "words"),
    [
        ("sqlite:///other.db", USAGE, "db backup"),
        ("mysql://h/d", USAGE, "only"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", FAILURE, "cannot be reached"),
    ],
)
async def test_a_target_that_cannot_be_is_refused_in_words(
    worked: Any, tmp_path: Path, target: str, expected: int, words: str
) -> None:
    code, _, told = run(db_move_command, tmp_path / "neutroflag.toml", target, True)
    assert code == expected
    assert words in told
    assert "secret" not in told


async def test_what_does_not_add_up_there_is_not_moved(worked: Any, tmp_path: Path, empty: str) -> None:
    source = database.writer(worked.engine.settings.store.url)
    with source.connect() as connection, connection.begin():
        connection.exec_driver_sql("update counter set value = value + 1 where name = 'received'")
    code, _, told = run(db_move_command, tmp_path / "neutroflag.toml", empty, True)
    assert code == FAILURE
    assert "nothing was moved" in told
    engine = database.reader(empty)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from pg_tables where schemaname = 'public'").scalar() == 0
    engine.dispose()


def test_a_backup_is_one_that_pg_restore_reads(tmp_path: Path, postgresql_url: str, monkeypatch: Any) -> None:
    config = settings(tmp_path, postgresql_url)
    copy = tmp_path / "copy.dump"
    if shutil.which("pg_dump") and shutil.which("pg_restore"):
        code, said, told = run(db_backup_command, config, copy)
        assert (code, told) == (OK, "")
        assert "readable by pg_restore" in said
        assert copy.stat().st_mode & 0o077 == 0
        assert run(db_backup_command, config, copy)[0] == FAILURE  # never over anything
    monkeypatch.setenv("PATH", "/nonexistent")
    code, _, told = run(db_backup_command, config, tmp_path / "other.dump")
    assert code == NOT_READY
    assert "pg_dump" in told


def test_who_is_on_the_register_is_shown_by_a_process_of_its_own(
    tmp_path: Path, postgresql_url: str, root: Path
) -> None:
    """Tests that call commands in one process after the other find there what the first one has set up."""
    config = settings(tmp_path, postgresql_url)
    first = root / "docs" / "first" / "register.csv"
    for command in (["patients", "import", str(first), "--by", "Dr Example"], ["patients", "show", "900001"]):
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli", *command, "--config", str(config)],
            cwd=root, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == OK, done.stderr
    assert "EXEMPLE" in done.stdout


async def test_the_readmes_three_commands_lead_to_an_engine_on_postgresql(
    worked: Any, tmp_path: Path, empty: str, root: Path
) -> None:
    """Typed as they stand there, the address of the database apart; its password is where libpq looks for it."""
    chapter = (root / "README.md").read_text(encoding="utf-8").partition("## When you outgrow one machine")[2]
    prepare, move, serve = re.findall(r"^```\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)[0].splitlines()
    assert prepare.startswith("make .venv/.runtime && . .venv/bin/activate")
    assert re.search(r"^\$\(VENV\)/\.runtime:", (root / "Makefile").read_text(), re.MULTILINE)
    password = str(make_url(empty).password)
    address = empty.replace(f":{password}@", "@")
    assert "postgresql+psycopg://neutroflag@db.example/neutroflag" in move
    one = (tmp_path / "neutroflag.toml").rename(tmp_path / "one.toml")
    settings(tmp_path, address).rename(tmp_path / "two.toml")
    program = tmp_path / "neutroflag"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine.cli "$@"\n')
    program.chmod(0o755)
    around = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "PGPASSWORD": password, "PYTHONPATH": str(root),
        "NEUTROFLAG_CONFIG": str(one),
    }  # fmt: skip
    moving = move.replace("postgresql+psycopg://neutroflag@db.example/neutroflag", address)
    done = subprocess.run(["sh", "-c", moving], cwd=tmp_path, env=around, capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert done.returncode == OK, done.stderr
    assert len(rows(empty)["message"]) == 4
    serving = subprocess.Popen(  # noqa: ASYNC220
        ["sh", "-c", f"exec {serve}"],
        cwd=tmp_path,
        env=around,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serving.stderr is not None
    said = await asyncio.to_thread(serving.stderr.readline)
    serving.terminate()
    told = await asyncio.to_thread(serving.communicate)
    assert "mllp://127.0.0.1:" in said, (said, told)
    assert serving.returncode == OK
