"""A database of another build is told apart, by serve and by db upgrade, and nothing is done to it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from store import SchemaOutdated, Store, schema


@pytest.fixture
def old(tmp_path: Path) -> Path:
    file = tmp_path / "old.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.execute("CREATE TABLE message (id INTEGER)")
    return file


def test_the_version_that_is_needed_is_the_last_step() -> None:
    config = Config()
    config.set_main_option("script_location", "store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.NEEDED]


async def test_the_store_does_not_open_it(old: Path) -> None:
    store = Store(f"sqlite:///{old}")
    with pytest.raises(SchemaOutdated, match=f"has version 0001, this program needs {schema.NEEDED}"):
        await store.open()
    await store.close()


def test_upgrade_says_that_no_step_leads_from_it(old: Path, tmp_path: Path) -> None:
    config = tmp_path / "n.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{old}"\n')
    command = [sys.executable, "-m", "engine.cli", "db", "upgrade", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        3,
        "the database has version 0001, which this program cannot bring up",
    )
    with sqlite3.connect(old) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
