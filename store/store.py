"""The durable middle: one implementation for inbox, worklist, register and outbox."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import functools
import os
import secrets
import socket
import sqlite3
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from rules.model import PatientIdentifier
from store import (
    database,
    faults,
    feeds,
    findings,
    inbox,
    keyholders,
    leases,
    outbox,
    publications,
    purge,
    register,
    schema,
    seal,
)
from store.checkpoint import checkpoint
from store.port import (
    Accepted,
    Claim,
    DeliveryOutcome,
    Envelope,
    PatientRecord,
    Stale,
    StoreUnavailable,
    Waiting,
    Work,
)
from store.server import ServerReader, ServerWriter
from store.tables import alert, message
from store.values import to_ms
from store.writer import Writer

__all__ = ["LEASE_MS", "AlreadyRunning", "SchemaOutdated", "Snapshot", "Store"]

T = typing.TypeVar("T")

LEASE_MS = 5_000
"""How long a process that says nothing keeps what it had; then another one takes it."""
# Pages in the WAL file (4 KiB each) from which a checkpoint pays; it runs beside the commits, never in them.
_CHECKPOINT_EVERY_S = 2.0


class SchemaOutdated(Exception):
    """The database is of another version: ``neutroflag db upgrade`` brings it up."""


class AlreadyRunning(Exception):
    """Another engine works on this SQLite file."""


class Snapshot(typing.NamedTuple):
    """The engine's state in numbers."""

    received: int
    dispositions: dict[str, int]
    pending: int
    alerts_open: dict[str, int]
    outbox: list[tuple[str, str, int, int]]
    overdue: int = 0
    heard: dict[str, int] = {}  # noqa: RUF012  # a NamedTuple's default, never written to
    """By channel: when the last message came, in milliseconds."""


class Store:
    """Opened on a running event loop; every method is safe to call from it.

    On an SQLite file claims are held in memory: one engine works on it (a lock says so), and its end frees them. On a server
    they are rows with a time at which they end.
    """

    def __init__(
        self,
        url: str,
        *,
        sole: bool = True,
        patience_s: float = 15.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``sole``: the process that accepts; it keeps the WAL short. The process that judges beside it is not."""
        self.url = url
        self._clock = clock
        self.arrived = asyncio.Event()
        self.on_arrivals: Callable[[], None] = self.arrived.set
        """Called after each commit that brought messages."""
        self._sole = sole
        self._patience_s = patience_s
        self._claimed: set[int] = set()
        self._refused = False
        """The last message that came was not stored."""
        if wrong := database.problem(url):
            raise StoreUnavailable(wrong)
        self._file = database.file_of(url)
        self._reader = database.reader(url)
        self._server: ServerReader | None = None
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._reading: Connection | None = None
        self._writer: Writer | ServerWriter | None = None
        self._lock: int | None = None
        self._stop_checkpoints = threading.Event()
        self._checkpoints: threading.Thread | None = None

    @property
    def shared(self) -> bool:
        """Several processes, on several machines, may work on it."""
        return self._file is None

    async def open(self) -> None:
        """Takes the file, checks its schema (an empty one is set up), starts the writer.

        Raises AlreadyRunning, SchemaOutdated, StoreUnavailable.
        """
        await self._take_lock()
        try:
            await asyncio.to_thread(_prepare, database.writer(self.url))
        except SQLAlchemyError as error:
            words = faults.why(error) or f"{type(error).__name__}: {getattr(error, 'orig', '')}"
            raise StoreUnavailable(words) from error
        if self._file is None:
            self._server = ServerReader(self.url)
            self._writer = ServerWriter(self.url, inbox.arrive, lambda: self.on_arrivals())
            return
        # None: the writer waits in its own way, and the loop has its turns in between (see store.writer).
        self._writer = Writer(database.writer(self.url, wait_ms=0), inbox.arrive, lambda: self.on_arrivals())
        if self._sole:
            self._checkpoints = threading.Thread(target=self._checkpoint, name="store-checkpoint", daemon=True)
            self._checkpoints.start()

    async def close(self) -> None:
        self._stop_checkpoints.set()
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.join)
        if self._writer is not None:
            if self.shared:
                with contextlib.suppress(StoreUnavailable):  # gone: then its time ends
                    await self._writer.run(lambda connection: leases.give_back(connection, self.owner))
                    await self._writer.run(keyholders.leave)
            await self._writer.close()
        if self._server is not None:
            await self._server.close()
        if self._reading is not None:
            self._reading.close()
        self._reader.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _take_lock(self) -> None:
        """One that accepts and one that judges, each by a lock that ends with its process.

        The judging one waits a little: its forerunner may have lost its parent and not noticed yet.
        """
        path = self._file
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        name, patience_s = (f"{path}.lock", 0.0) if self._sole else (f"{path}.judge.lock", self._patience_s)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise AlreadyRunning(f"another engine works on {path}") from None
                await asyncio.sleep(0.05)
            else:
                self._lock = descriptor
                return

    def _checkpoint(self) -> None:
        """Moves the WAL into the database beside the commits: in them it made one in a thousand ten times slower."""
        engine = database.reader(self.url)
        while not self._stop_checkpoints.wait(_CHECKPOINT_EVERY_S):
            try:
                with engine.connect() as connection:
                    raw = connection.connection.driver_connection
                    if raw is not None:
                        checkpoint(raw)
            except (SQLAlchemyError, sqlite3.Error):
                continue  # busy or full: the commits themselves report that, the next round tries again
        engine.dispose()

    # Inbox

    async def accept(self, envelope: Envelope) -> Accepted:
        try:
            accepted = await self._writing.accept(envelope)
        except StoreUnavailable:
            self._refused = True
            raise
        self._refused = False
        return accepted

    async def takes(self) -> None:
        """Raises StoreUnavailable when messages would not be taken now. After one that was refused a write tells."""
        if wrong := await self.read(database.promises):
            raise StoreUnavailable(wrong)
        if self._refused:
            await self.write(lambda connection: inbox.count(connection, [("received", "", 0)]))
            self._refused = False

    # Worklist

    async def claim(self, limit: int) -> Sequence[Claim]:
        if self.shared:
            claims: Sequence[Claim] = await self._writing.run(
                lambda connection: leases.claimed(connection, self.owner, limit, LEASE_MS)
            )
        else:
            after = max(self._claimed, default=0)
            claims = await self.read(lambda connection: inbox.claim(connection, after, limit))
        fresh = [claim for claim in claims if claim.message_id not in self._claimed]
        self._claimed.update(claim.message_id for claim in fresh)
        return fresh

    def release(self, message_ids: Iterable[int]) -> None:
        """Gives claims back, to be claimed anew."""
        numbers = list(message_ids)
        self._claimed.difference_update(numbers)
        if self.shared and numbers and self._writer is not None:
            with contextlib.suppress(StoreUnavailable):  # closed: then all is given back
                self._writing.run(lambda connection: leases.give_up(connection, self.owner, numbers))

    async def announce(self, names: Mapping[int, Iterable[str]]) -> tuple[set[int], bool]:
        """Says whom claimed messages speak of; gives those that must wait for an earlier one of somebody else, and whether
        that is in vain: nobody has it now."""
        if not self.shared or not names:
            return set(), False
        return await self._writing.run(lambda connection: leases.announce(connection, self.owner, names))

    async def lead(self, names: Iterable[str]) -> set[str]:
        """Of what only one process may do, what this one does for the next LEASE_MS; all of it where there is only one."""
        wanted = set(names)
        if not self.shared:
            return wanted
        return await self._writing.run(lambda connection: leases.take(connection, self.owner, wanted, LEASE_MS))

    async def patients(self, identifiers: Iterable[PatientIdentifier]) -> list[PatientRecord]:
        wanted = list(identifiers)
        return await self.read(lambda connection: register.by_identifier(connection, wanted)) if wanted else []

    async def patients_by_id(self, ids: Sequence[str]) -> list[PatientRecord]:
        return await self.read(lambda connection: register.by_id(connection, ids)) if ids else []

    async def readable(self, ids: Sequence[str]) -> tuple[list[PatientRecord], list[str]]:
        """The records of these patients, and the ids of those whose row cannot be read."""
        found: list[PatientRecord] = []
        broken: list[str] = []
        for number in ids:
            try:
                found.extend(await self.patients_by_id([number]))
            except StoreUnavailable:
                raise
            except Exception:
                # Whatever is wrong with one row must not keep the others from being looked at; the caller tells.
                broken.append(number)
        return found, broken

    async def settling_ids(self, now: datetime, limit: int) -> list[str]:
        now_ms = to_ms(now)
        return await self.read(lambda connection: register.settling(connection, now_ms, limit))

    async def park(self, patient_id: str) -> None:
        """Nothing of this patient is looked at by itself any more: the row cannot be read, and a person was asked."""
        await self._writing.run(lambda connection: register.park(connection, patient_id))

    async def settling(self, now: datetime, limit: int) -> list[PatientRecord]:
        now_ms = to_ms(now)
        return await self.read(
            lambda connection: register.by_id(connection, register.settling(connection, now_ms, limit))
        )

    async def record(self, work: Work) -> Stale | None:
        if work.at is None:
            work = dataclasses.replace(work, at=self._clock())
        stale = await self._writing.run(functools.partial(record, work))
        if stale is None:
            self._claimed.difference_update(item.message_id for item in work.done)
        return stale

    async def replay(self, message_id: int) -> int | None:
        now_ms = to_ms(self._clock())
        copied = await self._writing.run(lambda connection: inbox.replay(connection, message_id, now_ms))
        if copied is not None:
            self.on_arrivals()
        return copied

    # Outbox

    async def due(self, destination: str, now: datetime, limit: int) -> Sequence[Waiting]:
        now_ms = to_ms(now)
        return await self.read(lambda connection: outbox.due(connection, destination, now_ms, limit))

    async def delivered(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        await self._writing.run(lambda connection: outbox.settle(connection, outcomes))

    # Housekeeping

    async def purge(self, before: datetime, limit: int = 500) -> int:
        """Forgets counts of people who are not on the register, received before then, with their raw bytes."""
        before_ms = to_ms(before)
        return await self._writing.run(lambda connection: purge.unenrolled(connection, before_ms, limit))

    async def snapshot(self) -> Snapshot:
        """Counts, and there may be a million to count: on a file in a thread, so that no sender's answer waits for it."""
        if self._server is not None:
            return await self._server.read(snapshot)
        return await asyncio.to_thread(self._snapshot)

    def _snapshot(self) -> Snapshot:
        with self._told(), self._reader.connect() as connection:
            return snapshot(connection)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Runs a short query on a reading connection: a snapshot, beside the writer."""
        if self._server is not None:
            return await self._server.read(query)
        with self._told():
            if self._reading is None or self._reading.closed or self._reading.invalidated:
                self._reading = self._reader.connect()
            transaction = self._reading.begin()
            try:
                return query(self._reading)
            finally:
                # Nothing was written. After a damaged page SQLite fails a commit, whatever the query made of it.
                transaction.rollback()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A database that fails, as StoreUnavailable."""
        try:
            yield
        except (SQLAlchemyError, self._reader.dialect.loaded_dbapi.Error) as error:
            raise StoreUnavailable(faults.why(error) or type(error).__name__) from error

    async def write(self, operation: Callable[[Connection], T]) -> T:
        """Runs a short operation in the next transaction; its exception undoes that operation alone."""
        return await self._writing.run(operation)

    @property
    def _writing(self) -> Writer | ServerWriter:
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        return self._writer


def record(work: Work, connection: Connection) -> Stale | None:
    """Writes a batch in the caller's transaction; ``Stale`` and nothing when one of its patients moved meanwhile."""
    asked = (
        register.moved(connection, [*work.patients.values(), *(item.record for item in work.looked)]),
        register.taken(connection, work),
        inbox.judged(connection, work.done),
        findings.moved_on(connection, work),
    )
    (moved, judged, answered) = (asked[0]() + asked[1](), asked[2](), asked[3]())
    if moved or judged or answered:
        return Stale(moved, judged, answered)
    at_ms = to_ms(work.at) if work.at is not None else _now_ms()
    inbox.finish(connection, work.done, at_ms)
    if connection.dialect.name != "sqlite":
        leases.done(connection, [item.message_id for item in work.done])
    register.write(connection, work, at_ms)
    publications.file(connection, work, at_ms)
    findings.write(connection, work)
    feeds.write(connection, work)
    return None


def snapshot(connection: Connection) -> Snapshot:
    counts = inbox.counted(connection)
    dispositions = {label: value for (name, label), value in counts.items() if name == "disposition"}
    received = counts.get(("received", ""), 0)
    open_alerts = connection.execute(
        select(alert.c.level, func.count()).where(alert.c.state == "open").group_by(alert.c.level)
    )
    return Snapshot(
        received=received,
        dispositions=dispositions,
        pending=connection.scalar(select(func.count()).select_from(message).where(message.c.disposition.is_(None)))
        or 0,
        alerts_open={row[0]: row[1] for row in open_alerts},
        outbox=outbox.backlog(connection) + publications.backlog(connection),
        overdue=findings.overdue_count(connection),
        heard=feeds.last_heard(connection),
    )


def _prepare(engine: typing.Any) -> None:
    with engine.connect() as connection, connection.begin():
        schema.alone(connection)
        if schema.is_empty(connection):
            schema.upgrade(connection)
        elif (found := schema.present(connection)) != schema.NEEDED:
            raise SchemaOutdated(f"the database has version {found}, this program needs {schema.NEEDED}")
        connection.execute(text("SELECT 1"))
        if wrong := database.promises(connection):
            raise StoreUnavailable(wrong)
        seal.check(connection)
        if seal.of(connection).current and connection.dialect.name != "sqlite":
            keyholders.announce(connection, seal.of(connection))
    engine.dispose()
    path = database.file_of(engine.url)
    if path is not None:
        _private(path)


def _private(path: Path) -> None:
    """Patient data: for the engine's user alone."""
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{path}{suffix}")
        if file.exists():
            file.chmod(0o600)


def _now_ms() -> int:
    return to_ms(datetime.now(UTC))
