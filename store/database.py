"""Opens the database with the settings that durability asks for.

SQLite: WAL with ``synchronous=FULL`` (an acknowledged message survives a power loss), every write transaction
``BEGIN IMMEDIATE`` (the deferred default loses updates silently), and checkpoints off the commit path.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, QueuePool

__all__ = ["file_of", "reader", "writer"]

_BUSY_MS = 5000


def file_of(url: str) -> Path | None:
    """The SQLite file behind ``url``; None for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def writer(url: str, *, wait_ms: int = _BUSY_MS) -> Engine:
    """For a writing connection: its transactions take the write lock at once, or wait ``wait_ms`` for it."""
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        _sqlite(engine, begin="BEGIN IMMEDIATE", wait_ms=wait_ms)
    return engine


def reader(url: str) -> Engine:
    """For readers: snapshots beside the writer."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=4, max_overflow=4, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        _sqlite(engine, begin="BEGIN", wait_ms=_BUSY_MS)
    return engine


def _sqlite(engine: Engine, *, begin: str, wait_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver must not begin transactions of its own, or ours would be ignored (SQLAlchemy, pysqlite notes).
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={wait_ms}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA cache_size=-16000")

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        # The writer may have begun on the driver already; what executes through SQLAlchemy then joins.
        if not connection.connection.driver_connection.in_transaction:
            connection.exec_driver_sql(begin)
