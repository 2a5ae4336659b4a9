"""Group commit on the event loop: what arrived while the last commit was on its way goes down in the next.

Every write of a process goes through here, one transaction at a time. Arrivals are inserted set-wise, other operations run
each in a savepoint of the same transaction; all callers are answered after the one commit. It runs on the loop's own thread:
a commit takes less time than handing the interpreter to another thread and back (docs/decisions/0001-two-processes.md). A
database that somebody else holds is asked again shortly, with the loop free in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from store import faults
from store.database import takes_write_lock
from store.port import Accepted, Envelope, StoreUnavailable

__all__ = ["Writer"]

T = typing.TypeVar("T")

# A bound on one transaction: large enough that 64 busy connections share it, small enough that its commit stays short.
_BATCH = 256
_HELD_WAIT_S, _HELD_PAUSE_S = 0.0025, 0.00015
_HELD_RETRY_S = 0.001
_HELD_LIMIT_S = 5.0


@dataclass(slots=True)
class _Arrival:
    envelope: Envelope
    answer: asyncio.Future[Accepted]


@dataclass(slots=True)
class _Operation:
    run: Callable[[Connection], typing.Any]
    answer: asyncio.Future[typing.Any]


_Job = _Arrival | _Operation
_Outcome = tuple[_Job, typing.Any, Exception | None]


class _Held(Exception):
    """Somebody else has the write lock, or the whole file."""


class Writer:
    """``insert`` stores a batch of envelopes; ``on_arrivals`` is called after the commit of each batch that had any."""

    def __init__(
        self,
        engine: Engine,
        insert: Callable[[Connection, Sequence[Envelope]], Sequence[Accepted]],
        on_arrivals: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._insert = insert
        self._on_arrivals = on_arrivals
        self._loop = asyncio.get_running_loop()
        self._jobs: list[_Job] = []
        self._scheduled: asyncio.Handle | None = None
        self._held_since: float | None = None
        self._connection: Connection | None = None
        self._closed = False

    def accept(self, envelope: Envelope) -> asyncio.Future[Accepted]:
        answer: asyncio.Future[Accepted] = self._loop.create_future()
        self._put(_Arrival(envelope, answer))
        return answer

    def run(self, operation: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run ``operation`` inside a write transaction; its exception rolls back that operation alone."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._put(_Operation(operation, answer))
        return answer

    async def close(self) -> None:
        """Commits what is queued, and takes nothing more."""
        self._closed = True
        while self._jobs:
            self._flush()
            if self._held_since is not None:
                await asyncio.sleep(_HELD_RETRY_S)
        self._drop_connection()
        self._engine.dispose()

    def _put(self, job: _Job) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._jobs.append(job)
        if self._scheduled is None:
            # After everything else that is ready in this turn of the loop: that is the group.
            self._scheduled = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = None
        jobs, self._jobs = self._jobs[:_BATCH], self._jobs[_BATCH:]
        if not jobs:
            return
        try:
            outcomes = self._commit(jobs)
            self._held_since = None
        except _Held:
            if not self._give_up():
                self._jobs = jobs + self._jobs
                if not self._closed:
                    self._scheduled = self._loop.call_later(_HELD_RETRY_S, self._flush)
                return
            outcomes = [(job, None, StoreUnavailable("the database is held by somebody else")) for job in jobs]
        except Exception as error:
            # The store's own loop: whatever broke, the callers are told. A connection that failed is not trusted again.
            why = StoreUnavailable(faults.why(error) or type(error).__name__)
            outcomes = [(job, None, why) for job in jobs]
            self._drop_connection()
        if self._jobs and not self._closed:
            self._scheduled = self._loop.call_soon(self._flush)
        self._answer(outcomes)

    def _give_up(self) -> bool:
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since < _HELD_LIMIT_S:
            return False
        self._held_since = None
        return True

    def _commit(self, jobs: list[_Job]) -> list[_Outcome]:
        connection = self._connected()
        try:
            return self._transaction(connection, jobs)
        except _Held:
            raise
        except Exception:
            if len(jobs) == 1:
                raise
        # One message that the database will not take must not cost the others their place.
        outcomes: list[_Outcome] = []
        for job in jobs:
            try:
                outcomes.extend(self._transaction(connection, [job]))
            except Exception as error:
                outcomes.append((job, None, StoreUnavailable(faults.why(error) or type(error).__name__)))
        return outcomes

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            try:
                self._connection = self._engine.connect()
            except SQLAlchemyError as error:
                if faults.is_held(error):
                    # Whoever closes a file as the last one copies its log into it, and lets nobody in meanwhile.
                    raise _Held from error
                raise
        return self._connection

    def _transaction(self, connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        arrivals = [job for job in jobs if isinstance(job, _Arrival)]
        with _begun(connection):
            if arrivals:
                accepted = self._insert(connection, [job.envelope for job in arrivals])
                outcomes.extend((job, answer, None) for job, answer in zip(arrivals, accepted, strict=True))
            for job in jobs:
                if isinstance(job, _Operation):
                    outcomes.append(_run_one(connection, job))
        return outcomes

    def _answer(self, outcomes: list[_Outcome]) -> None:
        arrived = False
        for job, value, error in outcomes:
            arrived = arrived or (error is None and isinstance(job, _Arrival))
            if job.answer.done():  # its caller left; nobody else's answer waits for it
                continue
            if error is not None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(value)
        if arrived:
            self._on_arrivals()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.invalidate()
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


@contextlib.contextmanager
def _begun(connection: Connection) -> typing.Iterator[None]:
    """A transaction; ``_Held`` when its lock is not to be had now.

    On the driver's own connection: SQLAlchemy's account of a transaction costs a third of the commit. An operation that
    executes through SQLAlchemy joins it (store.database begins none where one runs).
    """
    driver: typing.Any = connection.connection.dbapi_connection
    if driver is None:
        raise StoreUnavailable("the connection is gone")
    # The other process's commit takes a fraction of a millisecond.
    if connection.dialect.name == "sqlite" and not takes_write_lock(driver, _HELD_WAIT_S, _HELD_PAUSE_S):
        raise _Held  # nothing was begun and nothing is broken
    try:
        yield
    except BaseException:
        _end(connection, driver.rollback, "rollback")
        raise
    _end(connection, driver.commit, "commit")


def _end(connection: Connection, on_driver: Callable[[], None], name: str) -> None:
    joined = connection.get_transaction()
    if joined is not None:
        getattr(joined, name)()
    else:
        on_driver()


def _run_one(connection: Connection, job: _Operation) -> _Outcome:
    # On the driver's cursor: SQLAlchemy's own savepoint costs as much as the commit.
    cursor = connection.connection.cursor()
    cursor.execute("SAVEPOINT one")
    try:
        value = job.run(connection)
    except Exception as error:
        if _of_the_database(error):
            raise  # not the operation's doing: the whole is undone, and each is tried by itself
        cursor.execute("ROLLBACK TO one")
        cursor.execute("RELEASE one")
        return job, None, error
    cursor.execute("RELEASE one")
    return job, value, None


def _of_the_database(error: Exception) -> bool:
    """A disk, a lock or a damaged file, and nothing that the operation asked for wrongly."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return type(cause).__name__ in ("OperationalError", "InternalError", "DatabaseError")
