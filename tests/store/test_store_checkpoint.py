"""The WAL under a load that never pauses, on real files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.checkpoint import checkpoint
from store.database import reader

PAGES = 4200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "busy.db"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF;")
        connection.execute("CREATE TABLE filled (id INTEGER PRIMARY KEY, body BLOB)")
        yield connection


@pytest.fixture
def beside(path: Path, writer: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A connection as the store's own checkpoints have it."""
    engine = reader(f"sqlite:///{path}")
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        yield driver
    engine.dispose()


def fill(connection: sqlite3.Connection, pages: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO filled (body) VALUES (zeroblob(3900))", [()] * pages)
    connection.execute("COMMIT")


def size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def test_a_long_file_is_begun_anew_and_nothing_of_it_is_lost(
    path: Path, writer: sqlite3.Connection, beside: sqlite3.Connection
) -> None:
    fill(writer, PAGES)
    before = size(path)
    assert checkpoint(beside)
    for _ in range(5):
        fill(writer, 100)
    assert size(path) == before
    assert writer.execute("SELECT count(*) FROM filled").fetchone() == (PAGES + 500,)
    with closing(sqlite3.connect(path)) as fresh:
        assert fresh.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_short_file_is_left_to_grow(path: Path, writer: sqlite3.Connection, beside: sqlite3.Connection) -> None:
    fill(writer, 50)
    before = size(path)
    assert not checkpoint(beside)
    fill(writer, 50)
    assert writer.execute("SELECT count(*) FROM filled").fetchone() == (100,)
    assert size(path) >= before


def test_somebody_who_reads_is_not_waited_for_and_the_next_round_does_it(
    path: Path, writer: sqlite3.Connection, beside: sqlite3.Connection
) -> None:
    fill(writer, 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as reading:
        reading.execute("BEGIN")
        assert reading.execute("SELECT count(*) FROM filled").fetchone() == (10,)
        fill(writer, PAGES)
        assert not checkpoint(beside)
        fill(writer, 10)  # the lock is free again
        assert reading.execute("SELECT count(*) FROM filled").fetchone() == (10,)
        reading.execute("COMMIT")
    assert checkpoint(beside)


def test_somebody_who_writes_is_not_waited_for(
    path: Path, writer: sqlite3.Connection, beside: sqlite3.Connection
) -> None:
    fill(writer, PAGES)
    writer.execute("BEGIN IMMEDIATE")
    assert not checkpoint(beside)
    writer.execute("ROLLBACK")
    assert checkpoint(beside)
