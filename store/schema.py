"""The schema's version: what the file has, what this program needs, and the step between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["NEEDED", "UnknownVersion", "alone", "is_empty", "present", "upgrade"]

NEEDED = "baseline9"
"""The version that this program works with: the last of store/migrations/versions."""


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "store:migrations")
    config.attributes["connection"] = connection
    return config


def present(connection: Connection) -> str | None:
    """The version of this database; None when it was never migrated."""
    # As Alembic keeps it. Alembic itself is loaded for a step alone: an engine that comes back is not to wait for it.
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


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
    from alembic import command
    from alembic.util.exc import CommandError

    try:
        command.upgrade(_config(connection), "head")
    except CommandError:
        raise UnknownVersion(
            f"the database has version {present(connection)}, which this program cannot bring up"
        ) from None
