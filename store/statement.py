"""A Core statement compiled once a dialect, for what runs with every message.

SQLAlchemy's own execution costs a quarter of a millisecond a statement, which is the price of a whole commit; the text that
it compiles costs nothing to keep. It runs on the driver's cursor, in the transaction that SQLAlchemy began, and so raises
the driver's errors. Parameters are plain str, int, bytes, bool and None, so no type needs converting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Prepared"]


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
        cursor.execute(text.sql, text.bind(parameters))
        found = cursor.fetchall()
        cursor.close()
        return found

    def _text(self, connection: Connection) -> _Text:
        name = connection.dialect.name
        if name not in self._compiled:
            compiled = self._statement.compile(dialect=connection.dialect)
            if not isinstance(compiled, SQLCompiler):
                raise TypeError("only statements with parameters can be prepared")
            constants = {key: value for key, value in compiled.params.items() if value is not None}
            self._compiled[name] = _Text(str(compiled), compiled.positiontup, constants)
        return self._compiled[name]


@dataclass(frozen=True, slots=True)
class _Text:
    sql: str
    order: Sequence[str] | None
    constants: Mapping[str, Any]

    def bind(self, row: Mapping[str, Any]) -> Any:
        given = {**self.constants, **row} if self.constants else row
        return dict(given) if self.order is None else tuple([given[name] for name in self.order])
