"""The schema's version: what the file has, what this program needs, and the step between."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, inspect, text

__all__ = ["UnknownVersion", "alone", "is_empty", "needed", "present", "upgrade"]


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "store:migrations")
    config.attributes["connection"] = connection
    return config


def needed() -> str:
    """The version that this program works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("store/migrations holds no version")
    return head


def present(connection: Connection) -> str | None:
    """The version of this database; None when it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def is_empty(connection: Connection) -> bool:
    return not inspect(connection).get_table_names()


def alone(connection: Connection) -> None:
    """Until the transaction ends nobody else sets up or changes the schema: processes that start together on a server."""
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT pg_advisory_xact_lock(7236857431)"))


class UnknownVersion(Exception):
    """The database is of a build from which no step leads here."""


def upgrade(connection: Connection) -> None:
    """Brings the database to the needed version, in the caller's transaction. Raises UnknownVersion; then nothing changed."""
    try:
        command.upgrade(_config(connection), "head")
    except CommandError:
        raise UnknownVersion(
            f"the database has version {present(connection)}, which this program cannot bring up"
        ) from None
