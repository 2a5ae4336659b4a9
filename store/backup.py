"""A copy of an SQLite database while an engine writes to it: one moment's state, checked before it gets its name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from store import check

__all__ = ["copy"]

# So many pages (4 KiB each) at a time; in between a small disk has time for the engine's own commits.
_PAGES, _PAUSE_S = 2048, 0.01


def copy(source: Path, target: Path, progress: Callable[[int, int], None] = lambda left, total: None) -> list[str]:
    """What is wrong with the copy; empty, and ``target`` exists, when it is whole.

    Raises FileExistsError rather than write over anything, OSError and sqlite3.Error where the disk does not do.
    """
    if target.exists():
        raise FileExistsError(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    # Patients' data: for this user alone, from the first byte on.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        _fill(source, partial, progress)
        problems = _problems(partial)
        if not problems:
            # Unlike a rename, a link never replaces a file that came meanwhile.
            os.link(partial, target)
            _sync(target.parent)
        return problems
    finally:
        partial.unlink(missing_ok=True)


def _fill(source: Path, partial: Path, progress: Callable[[int, int], None]) -> None:
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, isolation_level=None, timeout=10)) as origin,
        closing(sqlite3.connect(partial, isolation_level=None)) as filled,
    ):
        # One read transaction for the whole copy: without it each commit of the engine makes SQLite begin again, and under
        # load a large copy never ends.
        origin.execute("BEGIN")
        origin.execute("SELECT count(*) FROM sqlite_master").fetchone()
        origin.backup(filled, pages=_PAGES, sleep=_PAUSE_S, progress=lambda _status, left, total: progress(left, total))
        origin.execute("COMMIT")
        filled.execute("PRAGMA journal_mode=DELETE")


def _problems(file: Path) -> list[str]:
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(f"file:{file}?mode=ro", uri=True), poolclass=NullPool
    )
    with engine.connect() as connection:
        found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
        return found or check.findings(connection)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
