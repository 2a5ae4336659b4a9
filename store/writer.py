"""Group commit: one thread writes; whatever queued during the last commit goes down in the next.

Arrivals are inserted set-wise, other operations run each in a savepoint of the same transaction; all callers are answered
after the one commit. A fixed delay would gain nothing and cost a lone connection its speed, so there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from store.port import Accepted, Envelope, StoreUnavailable

__all__ = ["Writer"]

T = typing.TypeVar("T")

# A bound on one transaction: large enough that 64 busy connections share it, small enough that its commit stays short.
_BATCH = 256


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


class Writer:
    """The only one that writes. ``insert`` stores a batch of envelopes; ``on_arrivals`` is called after their commit."""

    def __init__(
        self,
        engine: Engine,
        insert: Callable[[Connection, Sequence[Envelope]], Sequence[Accepted]],
        loop: asyncio.AbstractEventLoop,
        on_arrivals: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._insert = insert
        self._loop = loop
        self._on_arrivals = on_arrivals
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def accept(self, envelope: Envelope) -> asyncio.Future[Accepted]:
        answer: asyncio.Future[Accepted] = self._loop.create_future()
        self._put(_Arrival(envelope, answer))
        return answer

    def run(self, operation: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run ``operation`` inside a write transaction; its exception rolls back that operation alone."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._put(_Operation(operation, answer))
        return answer

    def _put(self, job: _Job) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._jobs.put(job)

    def close(self) -> None:
        """Commits what is queued, then ends the thread."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection: Connection | None = None
        while (jobs := self._next()) is not None:
            try:
                if connection is None or connection.closed or connection.invalidated:
                    connection = self._engine.connect()
                outcomes = self._commit(connection, jobs)
            except Exception as error:
                # The store's own loop: whatever broke, the callers are told and the thread lives on.
                why = StoreUnavailable(type(error).__name__)
                outcomes = [(job, None, why) for job in jobs]
                if connection is not None:
                    # A connection that failed is not trusted again.
                    with contextlib.suppress(SQLAlchemyError):
                        connection.invalidate()
                        connection.close()
                    connection = None
            with contextlib.suppress(RuntimeError):  # the loop may be gone at shutdown
                self._loop.call_soon_threadsafe(self._answer, outcomes)
        if connection is not None:
            connection.close()

    def _next(self) -> list[_Job] | None:
        job = self._jobs.get()
        if job is None:
            return None
        jobs = [job]
        while len(jobs) < _BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _commit(self, connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
        try:
            return self._transaction(connection, jobs)
        except Exception:
            if len(jobs) == 1:
                raise
        # One message that the database will not take must not cost the others their place.
        outcomes: list[_Outcome] = []
        for job in jobs:
            try:
                outcomes.extend(self._transaction(connection, [job]))
            except Exception as error:
                outcomes.append((job, None, StoreUnavailable(type(error).__name__)))
        return outcomes

    def _transaction(self, connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        arrivals = [job for job in jobs if isinstance(job, _Arrival)]
        with connection.begin():
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


def _run_one(connection: Connection, job: _Operation) -> _Outcome:
    savepoint = connection.begin_nested()
    try:
        value = job.run(connection)
    except Exception as error:
        savepoint.rollback()
        return job, None, error
    savepoint.commit()
    return job, value, None
