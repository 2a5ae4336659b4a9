"""Opens the database with the settings that durability asks for.

SQLite: WAL with ``synchronous=FULL`` (an acknowledged message survives a power loss), every write transaction
``BEGIN IMMEDIATE`` (the deferred default loses updates silently), and checkpoints off the commit path.

PostgreSQL: ``synchronous_commit`` at least ``on``, a server that says ``fsync`` is off is refused, and a connection whose
other end is gone is noticed within seconds.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, QueuePool

from store import arrays, faults, statement

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["NO_SCANS", "file_of", "parallel", "problem", "promises", "reader", "takes_write_lock", "writer"]

_BUSY_MS = 5000
_WRITING = "BEGIN IMMEDIATE"
_ASK_EVERY_S = 0.001
# libpq's own names. A server that hangs or a cable that is cut is noticed by the kernel, whoever waits (tcp_user_timeout).
_SERVER: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "neutroflag",
}
# In one wait for each new connection. A process that stands still in the middle of a transaction, or whose host lost its
# power there, must not hold the others' rows for ever: the server's own keepalives begin after two hours. remote_write and
# remote_apply wait for a standby too; off and local promise less than an acknowledgement does. Bodies are squeezed by the
# server: its old way costs several times more, and not each build has the other one.
_SETTINGS = (
    "SELECT set_config('idle_in_transaction_session_timeout', '30000', false),"
    " set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '1', false),"
    " set_config('tcp_keepalives_count', '4', false), set_config('tcp_user_timeout', '7000', false),"
    " CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN set_config('synchronous_commit', 'on', false) END,"
    " (SELECT set_config(name, 'lz4', false) FROM pg_settings"
    " WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))"
)
# What writes touches rows by their keys, some dozens at a time. A plan made while the tables were small, or never counted,
# would walk them whole, and is kept; with these ways closed the planner takes the index on the first day and on the last.
# By a bitmap it would gather a whole backlog, and sort it, for the oldest few.
NO_SCANS = ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit")


def problem(url: str) -> str:
    """What is wrong with the address of a database, in words; "" when this program can open it."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "must be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
    if parsed.drivername == "sqlite":
        return "" if parsed.database and not parsed.host else "must be sqlite:///FILE"
    if parsed.drivername != "postgresql+psycopg":
        return "only sqlite:///FILE and postgresql+psycopg://USER@HOST/DATABASE are supported"
    if find_spec("psycopg") is None or find_spec("greenlet") is None:
        return "PostgreSQL needs the extra [postgres]: pip install 'neutroflag[postgres]'"
    return "" if parsed.database else "names no database: postgresql+psycopg://USER@HOST/DATABASE"


def file_of(url: str | URL) -> Path | None:
    """The SQLite file behind ``url``; None for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def writer(url: str, *, wait_ms: int = _BUSY_MS) -> Engine:
    """For a writing connection: its transactions take the write lock at once, or wait ``wait_ms`` for it."""
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=_arguments(url))
    if engine.dialect.name == "sqlite":
        _sqlite(engine, begin=_WRITING, wait_ms=wait_ms)
    else:
        _postgresql(engine)
    return engine


def reader(url: str) -> Engine:
    """For readers: snapshots beside the writer."""
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=4, max_overflow=4, hide_parameters=True, connect_args=_arguments(url)
    )
    if engine.dialect.name == "sqlite":
        _sqlite(engine, begin="BEGIN", wait_ms=_BUSY_MS)
    else:
        _postgresql(engine)
    return engine


def promises(connection: Connection) -> str:
    """Why this database cannot keep what an acknowledgement promises, in words; "" when it can."""
    if connection.dialect.name == "sqlite":
        return ""
    names = ("transaction_read_only", "fsync", "full_page_writes")
    found = connection.execute(text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))).one()
    if found[0] == "on":
        return "the database is read-only"
    for name, value in zip(names[1:], found[1:], strict=True):
        if value == "off":
            return f"the server runs with {name} = off: what it commits does not outlast a power loss"
    return ""


def parallel(url: str, *, connections: int, snapshots: bool = False) -> AsyncEngine:
    """PostgreSQL for a running loop, which never waits for it. ``snapshots``: what one transaction reads is one moment's."""
    # Loads half of SQLAlchemy, which a start on a file need not wait for.
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,
        connect_args=_arguments(url),
        **({"isolation_level": "REPEATABLE READ"} if snapshots else {}),
    )
    _postgresql(engine.sync_engine, () if snapshots else NO_SCANS)

    # What was not sent yet comes before what SQLAlchemy executes itself.
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def in_order(connection: Connection, *_: Any) -> None:
        statement.send(connection)

    return engine


def _arguments(url: str) -> dict[str, Any]:
    """Whatever the address itself says comes first."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return {}
    # Before there is an engine: it takes a copy of what the driver can write. The first one of a process would be without.
    arrays.register()
    return {name: value for name, value in _SERVER.items() if name not in parsed.query}


def _postgresql(engine: Engine, off: Sequence[str] = ()) -> None:
    settings = _SETTINGS + "".join(f", set_config('{name}', 'off', false)" for name in off)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(settings)
        cursor.close()
        connection.commit()


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
        driver = connection.connection.driver_connection
        # The writer may have begun on the driver already; what executes through SQLAlchemy then joins.
        if driver.in_transaction or (begin == _WRITING and _began(driver, wait_ms)):
            return
        connection.exec_driver_sql(begin)


def _began(connection: sqlite3.Connection, wait_ms: int) -> bool:
    """Whether the write lock was to be had; if not, SQLAlchemy asks once more, and tells in its own way what is wrong."""
    connection.execute("PRAGMA busy_timeout=0")
    with contextlib.suppress(sqlite3.OperationalError):
        if takes_write_lock(connection, wait_ms / 1000, _ASK_EVERY_S):
            connection.execute(f"PRAGMA busy_timeout={wait_ms}")
            return True
    return False


def takes_write_lock(connection: sqlite3.Connection, wait_s: float, ask_every_s: float) -> bool:
    """Begins a writing transaction; False: somebody else held the lock for so long, and nothing was begun.

    SQLite's own waiting asks ten times a second: between the commits of an engine under load it would find no gap. Raises
    sqlite3.OperationalError for anything else.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute(_WRITING)
        except sqlite3.OperationalError as error:
            if not faults.is_held(error):
                raise
            if time.monotonic() >= deadline:
                return False
            time.sleep(ask_every_s)
        else:
            return True
