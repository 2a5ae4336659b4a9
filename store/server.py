"""Reading and writing on a database server, PostgreSQL: several connections, and the loop never waits for any of them.

Arrivals go down together, as on SQLite: what came while the last commit was on its way is the next one. Other operations
have a transaction each, some at a time: the server groups their commits. One that the server ended because another stood in
its way is done anew; one whose connection was lost before it was committed too. A lost commit is nobody's to repeat here:
it is said to have failed, and whoever asked for it is known again when he asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import typing
from collections.abc import Callable, Coroutine, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from store import database, faults, statement
from store.port import Accepted, Envelope, StoreUnavailable

if typing.TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["ServerReader", "ServerWriter"]

T = typing.TypeVar("T")

_BATCH = 256
_TRIES = 5
# Longer than a failover's first seconds would keep senders waiting without an answer, which they can act on.
_LIMIT_S = 6.0
_READERS, _WRITERS = 6, 5


class ServerReader:
    def __init__(self, url: str) -> None:
        self._engine = database.parallel(url, connections=_READERS, snapshots=True)

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await _answered(self._engine, query)

    async def close(self) -> None:
        await self._engine.dispose()


class ServerWriter:
    """The same face as store.writer.Writer."""

    def __init__(
        self,
        url: str,
        insert: Callable[[Connection, Sequence[Envelope]], Sequence[Accepted]],
        on_arrivals: Callable[[], None],
    ) -> None:
        self._engine = database.parallel(url, connections=_WRITERS)
        self._insert = insert
        self._on_arrivals = on_arrivals
        self._loop = asyncio.get_running_loop()
        self._arrivals: list[tuple[Envelope, asyncio.Future[Accepted]]] = []
        self._draining: asyncio.Task[None] | None = None
        # One connection stays for the arrivals.
        self._free = asyncio.Semaphore(_WRITERS - 1)
        self._running: set[asyncio.Future[typing.Any]] = set()
        self._closed = False

    def accept(self, envelope: Envelope) -> asyncio.Future[Accepted]:
        self._open()
        answer: asyncio.Future[Accepted] = self._loop.create_future()
        self._arrivals.append((envelope, answer))
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain())
        return answer

    def run(self, operation: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run ``operation`` inside a write transaction. A caller that leaves does not undo what he asked for."""
        self._open()
        task = self._loop.create_task(self._run(operation))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return asyncio.shield(task)

    async def close(self) -> None:
        """Commits what is queued, and takes nothing more."""
        self._closed = True
        if self._draining is not None:
            await asyncio.wait({self._draining})
        if self._running:
            await asyncio.wait(set(self._running))
        await self._engine.dispose()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _ended(self, task: asyncio.Future[typing.Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever still waits is told, and nobody may be left

    async def _run(self, operation: Callable[[Connection], T]) -> T:
        async with self._free:
            return await _answered(self._engine, operation)

    async def _drain(self) -> None:
        while self._arrivals:
            batch, self._arrivals = self._arrivals[:_BATCH], self._arrivals[_BATCH:]
            await self._arrive(batch)
        self._draining = None

    async def _arrive(self, batch: Sequence[tuple[Envelope, asyncio.Future[Accepted]]]) -> None:
        envelopes = [envelope for envelope, _ in batch]
        try:
            accepted = await _answered(self._engine, lambda connection: self._insert(connection, envelopes))
        except StoreUnavailable as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        except Exception as error:
            if len(batch) > 1:
                # One message that the database will not take must not cost the others their place.
                for one in batch:
                    await self._arrive([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(StoreUnavailable(type(error).__name__))
        else:
            for (_, answer), value in zip(batch, accepted, strict=True):
                if not answer.done():  # its caller left; nobody else's answer waits for it
                    answer.set_result(value)
            self._on_arrivals()


async def _answered(engine: AsyncEngine, operation: Callable[[Connection], T]) -> T:
    """One transaction, within a bounded time. Raises StoreUnavailable, or what the operation itself raised."""
    for left in range(_TRIES - 1, -1, -1):
        try:
            return await _bounded(_transaction(engine, operation))
        except _Uncommitted as ended:
            error = ended.error
            if left and (faults.again(error) or (faults.is_lost(error) and left == _TRIES - 1)):
                continue
            words = faults.why(error)
            if words is None:
                raise error from None
            raise StoreUnavailable(words) from error
        except (SQLAlchemyError, TimeoutError, OSError) as failed:
            raise StoreUnavailable(faults.why(failed) or type(failed).__name__) from failed
    raise AssertionError("the last try ends in one way or the other")


class _Uncommitted(Exception):
    """Nothing of the transaction stands."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


async def _transaction(engine: AsyncEngine, operation: Callable[[Connection], T]) -> T:
    async with engine.connect() as connection:
        await connection.begin()
        try:
            value: T = await connection.run_sync(_begun, operation)
        except Exception as error:
            await _undone(connection)
            raise _Uncommitted(error) from error
        unsent: list[typing.Any] = connection.info.get(statement.UNSENT, [])
        if unsent:
            driver: typing.Any = (await connection.get_raw_connection()).driver_connection
            begun = driver.info.transaction_status.name == "INTRANS"
            try:
                await statement.committed(driver, unsent, commit=begun)
            except Exception as error:
                await _undone(connection)
                if begun and faults.is_lost(error):
                    raise StoreUnavailable(faults.why(error) or type(error).__name__) from error
                raise _Uncommitted(error) from error
        await connection.commit()
        return value


def _begun(connection: Connection, operation: Callable[[Connection], T]) -> T:
    statement.forget(connection)
    return operation(connection)


async def _undone(connection: AsyncConnection) -> None:
    try:
        await connection.rollback()
    except Exception:
        # The driver says so only now, where SQLAlchemy hears it; the pool forgets the connections of the dead server.
        with contextlib.suppress(Exception):
            await connection.invalidate()


_late: set[asyncio.Task[typing.Any]] = set()


async def _bounded(work: Coroutine[typing.Any, typing.Any, T]) -> T:
    """Its end, or TimeoutError at the limit, whatever the server does; the rest is then ended behind the caller's back."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=_LIMIT_S)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise TimeoutError
    return task.result()


def _abandon(task: asyncio.Task[typing.Any]) -> None:
    task.cancel()
    _late.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[typing.Any]) -> None:
    _late.discard(task)
    if not task.cancelled():
        task.exception()
