"""From an SQLite file to a PostgreSQL server: every table, counted on both sides, in one transaction there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from store import check, trail
from store.tables import claim, lease, message, metadata

__all__ = ["NotEmpty", "move", "tables"]

_CHUNK = 1000


class NotEmpty(Exception):
    """The target holds something already: its tables by name."""


def tables() -> list[Table]:
    """What is moved, in an order in which nothing refers to what is not there yet. Leases end with their engines."""
    return [table for table in metadata.sorted_tables if table not in (claim, lease)]


def move(
    source: Connection, target: Connection, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, int], list[str]]:
    """(rows by table, what does not add up); the caller commits only when that is empty. Raises NotEmpty, and does nothing.

    ``source`` reads one moment's state, ``target`` has the schema of this program.
    """
    filled = [
        table.name for table in metadata.sorted_tables if target.execute(select(table).limit(1)).first() is not None
    ]
    if filled:
        raise NotEmpty(", ".join(filled))
    counts = {table.name: _count(source, table) for table in tables()}
    total, done = sum(counts.values()), 0
    for table in tables():
        for rows in _chunks(source, table):
            _copy(target, table, rows)
            done += len(rows)
            progress(done, total)
    last = source.scalar(select(func.max(message.c.id)))
    if last:
        target.execute(text("SELECT setval('message_ids', :last)"), {"last": last})
    problems = [
        f"{table.name}: {counts[table.name]} rows here, {arrived} there"
        for table in tables()
        if (arrived := _count(target, table)) != counts[table.name]
    ]
    return counts, problems or [*check.findings(target), *trail.verify(target)]


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _chunks(source: Connection, table: Table) -> Iterator[list[Any]]:
    found = source.execute(select(table).execution_options(yield_per=_CHUNK))
    for part in found.partitions():
        yield list(part)


def _copy(target: Connection, table: Table, rows: list[Any]) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    cursor: Any = target.connection.cursor()
    with cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as out:
        for row in rows:
            # PostgreSQL's text holds every character but this one, as in store.statement.
            out.write_row([value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row])
    cursor.close()
