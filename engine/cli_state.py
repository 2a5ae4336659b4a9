"""The commands that look into, or change, what an engine keeps: they work beside a running engine, on its database."""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

from engine.cli import FAILURE, NOT_READY, OK, USAGE
from engine.config import ConfigError, Settings, load, origins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = [
    "config_check_command",
    "config_show_command",
    "database_of",
    "db_upgrade_command",
    "dead_list_command",
    "guarded",
    "health_command",
    "messages_list_command",
    "messages_show_command",
    "no_such",
    "patients_import_command",
    "patients_show_command",
    "patients_timeline_command",
    "print_rows",
]


class _Stop(Exception):
    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def _guarded(command: Callable[..., int]) -> Callable[..., int]:
    def run(*arguments: Any, stdout: TextIO, stderr: TextIO) -> int:
        try:
            return command(*arguments, stdout=stdout, stderr=stderr)
        except _Stop as stop:
            print(stop, file=stderr)
            return stop.code

    run.__doc__ = command.__doc__
    return run


def _settings(config: Path | None) -> Settings:
    try:
        return load(config)
    except ConfigError as error:
        raise _Stop(USAGE, str(error)) from None


@contextmanager
def _database(config: Path | None, *, write: bool = False) -> Iterator[Connection]:
    """A connection on the database of these settings; a transaction when ``write``. Never creates a file."""
    from sqlalchemy.exc import SQLAlchemyError

    from engine.body_keys import arm
    from store import StoreUnavailable, database, faults, schema

    settings = _settings(config)
    url = settings.store.url
    try:
        arm(settings)
    except ConfigError as error:
        raise _Stop(USAGE, str(error)) from None
    path = database.file_of(url)
    if path is not None and not path.exists():
        raise _Stop(NOT_READY, f"{path}: no such database; `neutroflag serve` makes it")
    engine = database.writer(url) if write else database.reader(url)
    try:
        with engine.connect() as connection, connection.begin():
            if schema.present(connection) != schema.NEEDED:
                raise _Stop(NOT_READY, "the database is of another version; `neutroflag db upgrade` brings it up")
            yield connection
    except SQLAlchemyError as error:
        words = faults.why(error) or getattr(error, "orig", type(error).__name__)
        raise _Stop(FAILURE, f"{path or 'database'}: {words}") from None
    except StoreUnavailable as error:
        raise _Stop(FAILURE, str(error)) from None
    finally:
        # A pool keeps the file open, and with it locks, until somebody collects it.
        engine.dispose()


def _rows(rows: Iterable[dict[str, Any]], json: bool, columns: tuple[str, ...], stdout: TextIO) -> None:
    if json:
        for row in rows:
            print(jsonlib.dumps(row, ensure_ascii=False, default=str), file=stdout)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if row.get(name) is None else str(row[name]) for name in columns))
    # What goes into a pipe is not cut to a screen's width.
    Console(file=stdout, soft_wrap=True, width=None if stdout.isatty() else 400).print(table)


def no_such(words: str) -> Exception:
    """To be raised by a guarded command that finds nothing."""
    return _Stop(FAILURE, words)


guarded, database_of, print_rows = _guarded, _database, _rows


@_guarded
def messages_list_command(
    config: Path | None,
    json: bool,
    disposition: str,
    sender: str,
    control_id: str,
    limit: int,
    *,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    from store import listing

    with _database(config) as connection:
        rows = listing.messages(connection, disposition=disposition, sender=sender, control_id=control_id, limit=limit)
        columns = ("id", "received_at", "channel", "sender", "control_id", "message_type", "disposition", "reason")
        _rows(rows, json, columns, stdout)
    return OK


@_guarded
def messages_show_command(config: Path | None, number: int, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import listing

    with _database(config) as connection:
        whole = listing.message_whole(connection, number)
    if whole is None:
        raise _Stop(FAILURE, f"no message {number}")
    if json:
        print(jsonlib.dumps(whole, ensure_ascii=False), file=stdout)
        return OK
    raw = whole.pop("raw")
    print(jsonlib.dumps(whole, ensure_ascii=False, indent=2), file=stdout)
    absent = "(the body was removed)"
    if whole["duplicate_of"]:
        absent = f"(the same bytes as message {whole['duplicate_of']})"
    elif whole["unopened"]:
        absent = f"({whole['unopened']}: what came cannot be read back; its key is missing, or it was altered)"
    print((raw or absent).replace("\r", "\n"), file=stdout)
    return OK


@_guarded
def dead_list_command(config: Path | None, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import listing

    with _database(config) as connection:
        columns = ("id", "destination", "alert_id", "revision", "attempts", "ended_at", "code", "words")
        _rows(listing.dead_letters(connection), json, columns, stdout)
    return OK


@_guarded
def patients_import_command(
    config: Path | None, file: Path, who: str, dry_run: bool, report_to: Path | None, *, stdout: TextIO, stderr: TextIO
) -> int:
    from engine.register_csv import import_csv, write_report
    from store import database, schema

    settings = _settings(config)
    if report_to is not None and report_to.exists():
        raise _Stop(FAILURE, f"{report_to}: exists already")
    path = database.file_of(settings.store.url)
    try:
        with ExitStack() as stack:
            url = settings.store.url
            if path is None or not path.exists():
                # A register may be loaded before the engine first runs; a dry run makes no database of its own accord.
                if dry_run:
                    url = f"sqlite:///{stack.enter_context(TemporaryDirectory())}/empty.db"
                with database.writer(url).connect() as connection, connection.begin():
                    schema.upgrade(connection)
                if path is not None and not dry_run:
                    path.chmod(0o600)
            if url == settings.store.url:
                with _database(config):
                    pass
            progress = stack.enter_context(_progress(stderr))
            report = import_csv(
                file,
                url,
                actor=who,
                zone=settings.zone,
                default_protocol=settings.engine.protocol,
                dry_run=dry_run,
                progress=progress,
            )
        if report_to is not None:
            write_report(report_to, report)
    except OSError as error:
        raise _Stop(FAILURE, f"{error.filename or file}: {error.strerror}") from None
    for complaint in (*report.complaints, *report.notes):
        print(f"{file}: {complaint}", file=stderr)
    if report.complaints:
        print(f"{len(report.complaints)} refused, nothing was imported", file=stderr)
        return FAILURE
    if dry_run:
        for change in report.changes:
            print(f"line {change.line}: {change.kind}: {', '.join(change.columns)}", file=stdout)
    done, end = ("would be", "; nothing was written") if dry_run else ("were", "")
    print(
        f"{report.rows} rows: {report.enrolled} {done} enrolled, {report.updated} {done} updated, "
        f"{report.unchanged} unchanged{end}",
        file=stdout,
    )
    return OK


@contextmanager
def _progress(stderr: TextIO) -> Iterator[Callable[[int, int], None]]:
    """A bar for a person who waits: on a terminal, and only where there is something to wait for."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=stderr), disable=not stderr.isatty(), transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _one_patient(connection: Connection, key: str) -> str:
    from store import listing

    found = listing.patient_keys(connection, key)
    if not found:
        raise _Stop(FAILURE, "no such patient on file")
    if len(found) > 1:
        raise _Stop(FAILURE, f"{len(found)} patients carry this identifier; write authority|identifier")
    return found[0]


@_guarded
def patients_show_command(config: Path | None, key: str, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    import msgspec

    from store import listing, register

    with _database(config) as connection:
        number = _one_patient(connection, key)
        record = register.by_id(connection, [number])[0]
        alerts = listing.alerts(connection, number)
        ways = {item["id"]: listing.way(connection, item["id"]) for item in alerts if item["state"] == "open"}
    whole = {
        "id": record.id,
        "enrolled": record.enrolled,
        "identifiers": msgspec.to_builtins(record.identifiers),
        "person": msgspec.to_builtins(record.person),
        "owner": record.owner,
        "course": msgspec.to_builtins(record.course),
        "present": msgspec.to_builtins(record.present),
        "counts": len(record.results),
        "alerts": [
            {name: item[name] for name in ("id", "family", "level", "state", "revision", "title", "updated_at")}
            # What is open: who was told, who has seen it, to whom it passed on.
            | ({"steps": ways[item["id"]]} if item["id"] in ways else {})
            for item in alerts
        ],
    }
    print(jsonlib.dumps(whole, ensure_ascii=False, indent=None if json else 2, default=str), file=stdout)
    return OK


@_guarded
def patients_timeline_command(config: Path | None, key: str, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import listing

    with _database(config) as connection:
        rows = listing.timeline(connection, _one_patient(connection, key))
    if not json:
        rows = [
            {
                "at": row["at"],
                "kind": row["kind"],
                "what": "  ".join(f"{name}={value}" for name, value in row.items() if name not in ("at", "kind")),
            }
            for row in rows
        ]
    _rows(rows, json, ("at", "kind", "what"), stdout)
    return OK


@_guarded
def db_upgrade_command(config: Path | None, *, stdout: TextIO, stderr: TextIO) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from store import database, faults, schema

    try:
        with database.writer(_settings(config).store.url).connect() as connection, connection.begin():
            schema.alone(connection)
            before = schema.present(connection)
            schema.upgrade(connection)
    except schema.UnknownVersion as error:
        raise _Stop(NOT_READY, str(error)) from None
    except SQLAlchemyError as error:
        raise _Stop(NOT_READY, faults.why(error) or str(getattr(error, "orig", type(error).__name__))) from None
    path = database.file_of(_settings(config).store.url)
    if path is not None:
        path.chmod(0o600)  # patients' data, from the first byte on
    print(f"schema {before or 'none'} -> {schema.NEEDED}", file=stdout)
    return OK


@_guarded
def config_check_command(config: Path | None, *, stdout: TextIO, stderr: TextIO) -> int:
    settings = _settings(config)
    import asyncio

    from engine.duty import remarks
    from engine.selfcheck import offers, shapes
    from engine.serve import refusals

    problems, warnings = refusals(settings)
    problems += shapes(settings)
    for warning in warnings:
        print(f"warning: {warning}", file=stderr)
    for problem in problems:
        print(problem, file=stderr)
    if problems:
        return USAGE
    print(f"settings are good; {len(settings.destination)} destinations", file=stdout)
    for line in asyncio.run(offers(settings)):
        print(line, file=stdout)
    if not settings.destination:
        print("note: no destination, alerts stay in the database", file=stderr)
    for remark in remarks(settings):
        print(f"note: {remark}", file=stderr)
    return OK


@_guarded
def config_show_command(config: Path | None, origin: bool, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    settings = _settings(config)
    rows = [
        {"key": key, "value": value if json else jsonlib.dumps(value), "origin": place}
        for key, value, place in origins(settings, config, os.environ)
    ]
    _rows(rows, json, ("key", "value", "origin") if origin else ("key", "value"), stdout)
    return OK


@_guarded
def config_texts_command(config: Path | None, language: str, *, stdout: TextIO, stderr: TextIO) -> int:
    from engine.texts import wordings_of
    from rules.texts import listed

    try:
        wordings = wordings_of(_settings(config))
    except ConfigError as error:
        raise _Stop(USAGE, str(error)) from None
    if language and language not in wordings.words:
        raise _Stop(USAGE, f"--language: none of {', '.join(wordings.words)}: {language!r}")
    print(listed(wordings, [language] if language else wordings.words), end="", file=stdout)
    return OK


@_guarded
def health_command(config: Path | None, *, stdout: TextIO, stderr: TextIO) -> int:
    import httpx2

    from engine.tls import pinned

    settings = _settings(config)
    if not settings.http.enabled:
        raise _Stop(NOT_READY, "http.enabled = false: there is no face to ask")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http.host, settings.http.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    scheme, trust = ("https", pinned(settings.http.certificate)) if settings.http.certificate else ("http", True)
    try:
        answer = httpx2.get(f"{scheme}://{host}:{settings.http.port}/readyz", timeout=10, trust_env=False, verify=trust)
    except httpx2.HTTPError as error:
        raise _Stop(NOT_READY, f"no engine answers on {host}:{settings.http.port}: {type(error).__name__}") from None
    print(answer.text.strip(), file=stdout)
    return OK if answer.status_code == 200 else NOT_READY
