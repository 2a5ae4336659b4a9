"""A Core statement compiled once a dialect, for what runs with every message.

SQLAlchemy's own execution costs a quarter of a millisecond a statement, which is the price of a whole commit; the text that
it compiles costs nothing to keep. It runs on the driver's cursor, in the transaction that SQLAlchemy began, and so raises
the driver's errors. Parameters are plain str, int, bytes, bool and None, so no type needs converting.

What the statement itself says (``state = 'waiting'``) is written into the text rather than bound: an index that holds only
such rows serves a statement that says so, and not one whose value comes later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import cloned_traverse
from sqlalchemy.util import await_

__all__ = ["Prepared", "together"]


class Prepared:
    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, _Text] = {}

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Executes for each row; does nothing for none."""
        if rows:
            text = self._text(connection)
            cursor = connection.connection.cursor()
            cursor.executemany(text.sql, [text.bind(row) for row in rows])
            cursor.close()

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        text = self._text(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text.sql, text.bind(parameters))
            return cursor.fetchall()
        finally:
            # A statement that failed half-way and is not ended would make SQLite's commit fail as well.
            cursor.close()

    def each(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """The rows for each set of parameters, in order. To a server all go out before the first answer is waited for."""
        if connection.dialect.name == "sqlite" or len(parameters) < 2:
            return [self.rows(connection, given) for given in parameters]
        text = self._text(connection)
        return _together(connection, [(text.sql, text.bind(given)) for given in parameters])

    def _text(self, connection: Connection) -> _Text:
        name = connection.dialect.name
        if name not in self._compiled:
            statement = cloned_traverse(self._statement, {}, {"bindparam": _as_written})
            compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
            if not isinstance(compiled, SQLCompiler):
                raise TypeError("only statements with parameters can be prepared")
            # The compiler adds some of its own: SQLite's LIMIT wants an OFFSET.
            constants = {key: value for key, value in compiled.params.items() if value is not None}
            self._compiled[name] = _Text(str(compiled), compiled.positiontup, constants)
        return self._compiled[name]


def together(connection: Connection, asked: Sequence[tuple[Prepared, Mapping[str, Any]]]) -> list[Sequence[Any]]:
    """Asks a server several things, one after the other there, with one wait for all of them."""
    texts = [(prepared._text(connection), given) for prepared, given in asked]
    return _together(connection, [(text.sql, text.bind(given)) for text, given in texts])


def _as_written(given: BindParameter[Any]) -> None:
    if given.value is not None:
        given.literal_execute = True
    # Checked when it is bound; here there is nothing yet to be required.
    given.required = False


def _together(connection: Connection, asked: Sequence[tuple[str, Any]]) -> list[Sequence[Any]]:
    driver: Any = connection.connection.driver_connection
    if connection.dialect.is_async:
        return await_(_together_async(driver, asked))
    with driver.pipeline():
        cursors = [driver.execute(sql, given) for sql, given in asked]
        return [cursor.fetchall() for cursor in cursors]


async def _together_async(driver: Any, asked: Sequence[tuple[str, Any]]) -> list[Sequence[Any]]:
    async with driver.pipeline():
        cursors = [await driver.execute(sql, given) for sql, given in asked]
        return [await cursor.fetchall() for cursor in cursors]


@dataclass(frozen=True, slots=True)
class _Text:
    sql: str
    order: Sequence[str] | None
    constants: Mapping[str, Any]

    def bind(self, row: Mapping[str, Any]) -> Any:
        """By position for SQLite, by name for PostgreSQL, whose text holds every character but NUL."""
        given = {**self.constants, **row} if self.constants else row
        if self.order is not None:
            return tuple([given[name] for name in self.order])
        return {name: _writable(value) for name, value in given.items()}


def _writable(value: Any) -> Any:
    if type(value) is str and "\0" in value:
        return value.replace("\0", "\ufffd")
    return [_writable(item) for item in value] if type(value) is list else value
