"""``neutroflag db backup|verify|move``: what is done to a database as a whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.cli import FAILURE, NOT_READY, OK, USAGE
from engine.cli_state import _database, _guarded, _progress, _settings, _Stop

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["db_backup_command", "db_move_command", "db_verify_command"]

_NAMED = 20


@_guarded
def db_backup_command(config: Path | None, file: Path, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import backup, database

    url = _settings(config).store.url
    source = database.file_of(url)
    if source is None:
        _dump(url, file)
        print(f"{file}: {file.stat().st_size} bytes, readable by pg_restore", file=stdout)
        return OK
    if not source.exists():
        raise _Stop(NOT_READY, "there is no database to copy")
    try:
        problems = backup.copy(source, file)
    except FileExistsError:
        raise _Stop(FAILURE, f"{file}: exists already") from None
    except (OSError, sqlite3.Error) as error:
        raise _Stop(FAILURE, f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if problems:
        raise _Stop(FAILURE, "the copy is not whole and was removed: " + "; ".join(problems))
    print(f"{file}: {file.stat().st_size} bytes, verified", file=stdout)
    return OK


def _dump(url: str, file: Path) -> None:
    """By PostgreSQL's own program: one moment's state, while engines write."""
    from sqlalchemy.engine import make_url

    program, reader = shutil.which("pg_dump"), shutil.which("pg_restore")
    if program is None or reader is None:
        raise _Stop(
            NOT_READY,
            "pg_dump and pg_restore are not on PATH: install PostgreSQL's client programs of the server's version, "
            "or back up with what your database's administrators use",
        )
    if file.exists():
        raise _Stop(FAILURE, f"{file}: exists already")
    parsed = make_url(url)
    # Not among the arguments, which every user of the machine can read.
    environment = os.environ | ({"PGPASSWORD": str(parsed.password)} if parsed.password else {})
    address = parsed.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        for command in (
            [program, "--format=custom", f"--file={partial}", f"--dbname={address}"],
            [reader, "--list", str(partial)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
            if done.returncode:
                raise _Stop(FAILURE, f"{Path(command[0]).name}: {done.stderr.strip().splitlines()[-1:]}")
        os.link(partial, file)
    except OSError as error:
        raise _Stop(FAILURE, f"{file}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


@_guarded
def db_verify_command(config: Path | None, audit_head: str, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import seal, trail
    from store.check import findings

    noted = _noted(audit_head) if audit_head else None
    with _database(config) as connection:
        problems = [*_integrity(connection), *findings(connection), *trail.verify(connection, noted)]
        closed = list(seal.unopened(connection))
        if closed:
            problems.append(
                f"{len(closed)} message bodies cannot be opened (key missing, or altered): "
                + ", ".join(str(number) for number in closed[:_NAMED])
            )
        entries, link = trail.head(connection)
    for problem in problems:
        print(problem, file=stdout)
    if not problems:
        print("whole: integrity, references, and in = out", file=stdout)
        print(f"audit head, to be noted elsewhere: {entries}:{link}", file=stdout)
    return FAILURE if problems else OK


def _noted(text: str) -> tuple[int, str]:
    number, _, link = text.partition(":")
    if not number.isdecimal() or len(link) != 64 or not set(link.lower()) <= set("0123456789abcdef"):
        raise _Stop(
            USAGE, "--audit-head: as printed by db verify: the number of entries, a colon, 64 hexadecimal digits"
        )
    return int(number), link


def _integrity(connection: Connection) -> Iterator[str]:
    from sqlalchemy import text

    if connection.dialect.name == "sqlite":
        yield from (row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok")
        return
    broken = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
    yield from (f"{row[0]}: the index is not usable; REINDEX it" for row in connection.execute(text(broken)))


@_guarded
def db_move_command(config: Path | None, target: str, yes: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from store import database, faults, schema
    from store.move import NotEmpty, move, tables

    source = database.file_of(_settings(config).store.url)
    if source is None or not source.exists():
        raise _Stop(NOT_READY, "store.url names no SQLite file that could be moved")
    if wrong := database.problem(target):
        raise _Stop(USAGE, f"target: {wrong}")
    if database.file_of(target) is not None:
        raise _Stop(
            USAGE, "target: must be postgresql+psycopg://USER@HOST/DATABASE; an SQLite file is copied by db backup"
        )
    if not yes:
        print(f"would move {len(tables())} tables of {source}; say --yes to do it", file=stdout)
        return OK
    with ExitStack() as stack:
        stack.enter_context(_stopped(source))
        here = stack.enter_context(_database(config))
        try:
            there = stack.enter_context(database.writer(target).connect())
            with there.begin() as transaction:
                schema.alone(there)
                if schema.is_empty(there):
                    schema.upgrade(there)
                elif schema.present(there) != schema.NEEDED:
                    raise _Stop(NOT_READY, "the target is of another version; nothing was moved")
                if wrong := database.promises(there):
                    raise _Stop(NOT_READY, wrong)
                progress = stack.enter_context(_progress(stderr))
                counts, problems = move(here, there, progress)
                if problems:
                    transaction.rollback()
                    raise _Stop(FAILURE, "nothing was moved: " + "; ".join(problems))
        except NotEmpty as error:
            raise _Stop(FAILURE, f"the target is not empty ({error}); nothing was moved") from None
        except (SQLAlchemyError, OSError) as error:
            raise _Stop(FAILURE, f"nothing was moved: {faults.why(error) or type(error).__name__}") from None
        _analyze(target)
    for name, number in counts.items():
        print(f"{name}: {number}", file=stdout)
    print(
        f"moved, counted on both sides; set store.url to the target, and keep {source} until you have seen it work",
        file=stdout,
    )
    return OK


def _analyze(target: str) -> None:
    """So that the first queries already know how much there is."""
    from sqlalchemy import text

    from store import database

    with database.writer(target).connect() as connection, connection.begin():
        connection.execute(text("ANALYZE"))


@contextmanager
def _stopped(source: Path) -> Iterator[None]:
    """Nobody works on the file, and nobody begins to: what came after the move would be left behind."""
    held: list[int] = []
    try:
        for name in (f"{source}.lock", f"{source}.judge.lock"):
            held.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _Stop(NOT_READY, f"an engine works on {source}: stop it first") from None
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
