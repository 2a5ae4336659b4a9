"""A Core statement compiled once a dialect, for what runs with every message.

SQLAlchemy's own execution costs a quarter of a millisecond a statement, which is the price of a whole commit; the text that
it compiles costs nothing to keep. It runs on the driver's cursor, in the transaction that SQLAlchemy began, and so raises
the driver's errors. Parameters are plain str, int, bytes, bool and None, so no type needs converting.

What the statement itself says (``state = 'waiting'``) is written into the text rather than bound: an index that holds only
such rows serves a statement that says so, and not one whose value comes later.

To a server a statement goes out late: what nobody waits for goes with the next question, questions go together, and what is
left goes with the commit (``committed``). Each wait for a server costs more than what it does there. A fault of a statement
is therefore raised by the next question or by the commit, and ends the transaction as it would have at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Table, bindparam, func, insert, select
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.sql.visitors import cloned_traverse
from sqlalchemy.util import await_

from store.arrays import packing

__all__ = ["UNSENT", "Prepared", "committed", "forget", "given", "inserting", "send"]

UNSENT = "neutroflag.unsent"
"""In ``Connection.info``: what is to be sent."""


class Prepared:
    """``whole``: the same for many rows at once, on a server; its parameters are the columns of those rows, as ``given``
    names them. No row of one call may then touch what another one of it touches."""

    def __init__(self, statement: ClauseElement, *, whole: ClauseElement | None = None) -> None:
        self._statement = statement
        self._whole = Prepared(whole) if whole is not None else None
        self._compiled: dict[str, _Text] = {}

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Executes for each row; does nothing for none. To a server it goes with the next question, or with the commit."""
        if not rows:
            return
        if not connection.dialect.is_async:
            text = self._text(connection)
            cursor = connection.connection.cursor()
            cursor.executemany(text.sql, [text.bind(row) for row in rows])
            cursor.close()
        elif self._whole is not None:
            text = self._whole._text(connection)
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            _unsent(connection).append(_Asked(text.sql, text.bind(columns)))
        else:
            text = self._text(connection)
            _unsent(connection).extend(_Asked(text.sql, text.bind(row)) for row in rows)

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        return self.ask(connection, [parameters])()[0]

    def each(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """The rows for each set of parameters, in order."""
        return self.ask(connection, parameters)()

    def ask(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> Callable[[], list[Sequence[Any]]]:
        """Gives the answers when they are wanted. To a server all that was asked until then goes out at once."""
        text = self._text(connection)
        if not connection.dialect.is_async:
            found = _each(connection, [(text.sql, text.bind(given)) for given in parameters])
            return lambda: found
        asked = [_Asked(text.sql, text.bind(given), wanted=True) for given in parameters]
        _unsent(connection).extend(asked)

        def answers() -> list[Sequence[Any]]:
            send(connection)
            return [one.rows for one in asked]

        return answers

    def _text(self, connection: Connection) -> _Text:
        name = connection.dialect.name
        if name not in self._compiled:
            statement = cloned_traverse(self._statement, {}, {"bindparam": _as_written})
            compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
            if not isinstance(compiled, SQLCompiler):
                raise TypeError("only statements with parameters can be prepared")
            # The compiler adds some of its own: SQLite's LIMIT wants an OFFSET.
            constants = {key: value for key, value in compiled.params.items() if value is not None}
            arrays = {
                key: packing(found.type.item_type)
                for key, found in compiled.binds.items()
                if name == "postgresql" and isinstance(found.type, ARRAY)
            }
            self._compiled[name] = _Text(str(compiled), compiled.positiontup, constants, arrays)
        return self._compiled[name]


def given(**columns: ColumnElement[Any]) -> TableValuedAlias:
    """Rows that a whole statement is given, with these columns, each of the type of the one that it is like."""
    arrays = [bindparam(name, type_=ARRAY(like.type)) for name, like in columns.items()]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def inserting(table: Table) -> Prepared:
    """A row of the table, or many; all of its columns are to be given."""
    names = [column.name for column in table.columns]
    rows = given(**{name: table.c[name] for name in names})
    whole = insert(table).from_select(names, select(*(rows.c[name] for name in names)))
    return Prepared(insert(table).values({name: bindparam(name) for name in names}), whole=whole)


def send(connection: Connection) -> None:
    """What was not sent yet goes out, with one wait for all of it."""
    if unsent := _unsent(connection):
        asked = unsent[:]
        unsent.clear()
        await_(_sent(connection.connection.driver_connection, asked))


def forget(connection: Connection) -> None:
    """What a transaction that ended badly left unsent is nothing to the next one."""
    _unsent(connection).clear()


async def committed(driver: Any, unsent: list[Any], *, commit: bool) -> None:
    """What is left, and the commit behind it, with one wait. ``commit``: false where nothing was asked before, so that
    nobody knows yet whether the connection still stands: a commit that is lost with it is nobody's to repeat."""
    asked = unsent[:]
    unsent.clear()
    await _sent(driver, asked, commit=commit)


def _unsent(connection: Connection) -> list[Any]:
    found: list[Any] = connection.info.setdefault(UNSENT, [])
    return found


def _each(connection: Connection, asked: Sequence[tuple[str, Any]]) -> list[Sequence[Any]]:
    if connection.dialect.name == "sqlite" or len(asked) < 2:
        found = []
        for sql, bound in asked:
            cursor = connection.connection.cursor()
            try:
                cursor.execute(sql, bound)
                found.append(cursor.fetchall())
            finally:
                # A statement that failed half-way and is not ended would make SQLite's commit fail as well.
                cursor.close()
        return found
    driver: Any = connection.connection.driver_connection
    with driver.pipeline():
        cursors = [driver.execute(sql, bound) for sql, bound in asked]
        return [cursor.fetchall() for cursor in cursors]


async def _sent(driver: Any, asked: Sequence[_Asked], *, commit: bool = False) -> None:
    async with driver.pipeline():
        # In the server's own format: bodies would come in twice as many characters.
        cursors = [await driver.execute(one.sql, one.bound, binary=True) for one in asked]
        if commit:
            await driver.commit()
        for one, cursor in zip(asked, cursors, strict=True):
            if one.wanted:
                one.rows = await cursor.fetchall()


def _as_written(given: BindParameter[Any]) -> None:
    if given.value is not None:
        given.literal_execute = True
    # Checked when it is bound; here there is nothing yet to be required.
    given.required = False


@dataclass(slots=True)
class _Asked:
    sql: str
    bound: Any
    wanted: bool = False
    rows: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class _Text:
    sql: str
    order: Sequence[str] | None
    constants: Mapping[str, Any]
    arrays: Mapping[str, Callable[[Sequence[Any]], bytes]]

    def bind(self, row: Mapping[str, Any]) -> Any:
        """By position for SQLite, by name for PostgreSQL, whose text holds every character but NUL."""
        given = {**self.constants, **row} if self.constants else row
        if self.order is not None:
            return tuple([given[name] for name in self.order])
        if not self.arrays:
            return {name: _writable(value) for name, value in given.items()}
        arrays = self.arrays
        return {
            name: arrays[name](_writable(value)) if name in arrays else _writable(value)
            for name, value in given.items()
        }


def _writable(value: Any) -> Any:
    if type(value) is str and "\0" in value:
        return value.replace("\0", "\ufffd")
    return [_writable(item) for item in value] if type(value) is list else value
