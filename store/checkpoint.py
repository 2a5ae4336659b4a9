"""Keeps the WAL short while the commits go on.

Copying what was committed into the database takes no lock, and a file that is written all the time is never copied to its
end: it would grow for as long as the load lasts. So when it has become long, and all but a little of it is copied, the rest
is copied under the write lock, which the commits ask for again within a millisecond. SQLite then writes it from its start,
over blocks that the disk has already: a sync of these costs less than one of a file that grows.
"""

from __future__ import annotations

import sqlite3

__all__ = ["checkpoint"]

# Pages of 4 KiB.
_LONG = 4096
_LITTLE = 512
_ROUNDS = 4
# Readers hold the file's end with their snapshot: somebody's long query must not keep the commits waiting.
_PATIENCE_MS = 3


def checkpoint(connection: sqlite3.Connection) -> bool:
    """One round; True when the next commit begins the file anew."""
    for _ in range(_ROUNDS):
        _, pages, copied = _run(connection, "PASSIVE")
        if pages < _LONG:
            return False
        if pages - copied <= _LITTLE:
            connection.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
            busy, _, _ = _run(connection, "RESTART")
            return not busy
    return False


def _run(connection: sqlite3.Connection, mode: str) -> tuple[int, int, int]:
    """(another one is at it or reads, pages in the file, those that are copied)"""
    busy, pages, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return busy, pages, copied
