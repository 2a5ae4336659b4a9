"""Rewrites the database so that nothing that was removed is left in its files.

Removing a row leaves its bytes where they lay, until something else is written there. SQLite: the file is rebuilt
(``VACUUM``), then the WAL is emptied. PostgreSQL: the tables are rebuilt (``VACUUM FULL``); its own WAL, its statistics and
its archive are the server administrators'. While it runs nothing else can be written: senders are told to try again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from sqlalchemy import text

from store import database
from store.tables import metadata

__all__ = ["scrub"]

_PATIENCE_S = 10.0
_TRY_EVERY_S = 0.05


def scrub(url: str, patience_s: float = _PATIENCE_S) -> str:
    """Why something may be left, in words; "" when nothing is. Raises the database's errors (disk full, held)."""
    file = database.file_of(url)
    if file is not None:
        return _sqlite(file, patience_s)
    engine = database.writer(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in metadata.sorted_tables:
            connection.execute(text(f'VACUUM (FULL, ANALYZE) "{table.name}"'))
    engine.dispose()
    return ""


def _sqlite(file: Path, patience_s: float) -> str:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=patience_s)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("VACUUM")
        deadline = time.monotonic() + patience_s
        while True:
            # Emptied only when nobody reads from it any more: an engine's readers take turns of milliseconds.
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return ""
            if time.monotonic() > deadline:
                return f"{file}-wal is being read and could not be emptied"
            time.sleep(_TRY_EVERY_S)
