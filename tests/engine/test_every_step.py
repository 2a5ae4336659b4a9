"""The n-th thing asked of the database driver fails, n = 1, 2, 3 ... until a round passes untouched: nothing is lost.

After "How SQLite is tested". The driver's own connection class is the seam (``sqlite3.connect(factory=...)``), and for a
server the way to it; the engine runs whole. ``make evidence`` does the same to every system call of both processes
(evidence/every_step.py).
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event, make_url

from engine.compose import Engine
from engine.config import load
from engine.prescriber import Prescriber

AT_ONCE = 12


@dataclass
class Plan:
    """``strike`` counts operations once armed; the n-th fails."""

    number: int
    kind: str
    armed: bool = False
    count: int = 0
    struck: str = ""

    def strike(self, operation: str) -> bool:
        if not self.armed or self.struck:
            return False
        if self.kind == "answer lost" and operation.startswith("execute"):
            return False  # only a commit can be done and yet be reported as failed
        self.count += 1
        if self.count < self.number:
            return False
        self.struck = operation
        return True


_CODES = {
    "disk I/O error": sqlite3.SQLITE_IOERR,
    "database or disk is full": sqlite3.SQLITE_FULL,
    "answer lost": sqlite3.SQLITE_IOERR,
    "database disk image is malformed": sqlite3.SQLITE_CORRUPT,
}


def broken(kind: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(kind)
    error.sqlite_errorcode = _CODES[kind]
    return error


class FailingCursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> Any:
        connection: Any = self.connection
        if connection.plan.strike("execute"):
            raise broken(connection.plan.kind)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> Any:
        connection: Any = self.connection
        if connection.plan.strike("executemany"):
            raise broken(connection.plan.kind)
        return super().executemany(sql, parameters)


def failing(plan: Plan) -> type[sqlite3.Connection]:
    class FailingConnection(sqlite3.Connection):
        def cursor(self, factory: Any = FailingCursor) -> Any:
            return super().cursor(factory)

        def commit(self) -> None:
            if not plan.strike("commit"):
                return super().commit()
            if plan.kind == "answer lost":
                super().commit()
            raise broken(plan.kind)

    FailingConnection.plan = plan  # type: ignore[attr-defined]
    return FailingConnection


@pytest.fixture
def plans() -> Iterator[dict[str, Plan]]:
    """By database file: what befalls every connection that is made to it."""
    found: dict[str, Plan] = {}

    def connect(_dialect: Any, _record: Any, arguments: Any, named: dict[str, Any]) -> Any:
        plan = found.get(str(arguments[0]))
        return sqlite3.connect(*arguments, **named, factory=failing(plan)) if plan is not None else None

    event.listen(SqlEngine, "do_connect", connect)
    yield found
    event.remove(SqlEngine, "do_connect", connect)


@dataclass
class Ended:
    struck: str
    problems: list[str] = field(default_factory=list)


Looked = Callable[[str], list[Any]]
Round = Callable[[Plan], Awaitable[Ended]]


@pytest.fixture
def story(tmp_path: Path, hl7: Any, before: Any, connect: Any, eventually: Any) -> Any:
    """One engine on an enrolled database: a stop-level count, the same again, its correction; then all is reconciled.
    ``url`` is the engine's way to it, ``look`` ours."""
    drawn = before(hours=1)
    first = hl7.oru("M1", anc="0.84", collected=drawn)
    messages = [("M1", first), ("M1", first), ("M2", hl7.oru("M2", anc="2.40", status="C", collected=drawn))]

    async def insist(port: int, name: str, raw: bytes) -> None:
        async with asyncio.timeout(30):
            while True:
                lab = await connect(port)
                ack = await lab.ask(raw)
                await lab.close()
                assert ack.control_id == name
                if ack.code == "AA":
                    return
                assert (ack.code, ack.errors) == ("AE", ("207",))

    async def run(plan: Plan, folder: Path, url: str, look: Looked) -> Ended:
        async with Prescriber() as prescriber:
            prescriber.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")
            config = folder / "neutroflag.toml"
            config.write_text(
                f'[store]\nurl = "{url}"\n[mllp]\nport = 0\n[http]\nenabled = false\n[watch]\nevery_s = 3600\n'
                f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{prescriber.url}"\n'
                "retry_first_s = 0.05\nretry_longest_s = 0.2\n"
            )
            engine = Engine(load(config, {}))
            await engine.start()
            try:
                assert engine.mllp is not None
                await eventually(lambda: unfinished(look) == 0)
                plan.armed = True
                try:
                    for name, raw in messages:
                        await insist(engine.mllp.port, name, raw)
                    await eventually(lambda: unfinished(look) == 0)
                except TimeoutError:
                    return Ended(plan.struck, ["not finished", *await reconciled(engine, look, prescriber)])
                plan.armed = False
                return Ended(plan.struck, await reconciled(engine, look, prescriber))
            finally:
                await engine.stop()

    return run


def folder_of(plan: Plan, parent: Path) -> Path:
    folder = parent / f"{plan.kind}-{plan.number}".replace(" ", "_").replace("/", "_")
    folder.mkdir()
    return folder


@pytest.fixture
async def round_with(tmp_path: Path, plans: dict[str, Plan], story: Any, enrol_by_csv: Any) -> Round:
    await enrol_by_csv(tmp_path, f"sqlite:///{tmp_path / 'empty.db'}", "405660")

    async def run(plan: Plan) -> Ended:
        folder = folder_of(plan, tmp_path)
        file = folder / "neutroflag.db"
        shutil.copy(tmp_path / "empty.db", file)
        plans[str(file)] = plan
        ended: Ended = await story(plan, folder, f"sqlite:///{file}", functools.partial(looked, file))
        return ended

    return run


class Wire:
    """The way to a server: what goes out is counted by what waits for an answer, and one of them costs the connection.
    ``cut``: it does not arrive. ``answer lost``: it does, and what it did, stands."""

    def __init__(self, plan: Plan, port: int) -> None:
        self._plan, self._port = plan, port
        self._open: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        """Who was still being let in when the engine stopped would keep the server from dropping a database."""
        for end in self._open:
            end.transport.abort()

    async def there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection("127.0.0.1", self._port)
        ends = (writer, server[1])
        self._open.update(ends)
        deaf = asyncio.Event()
        back = asyncio.create_task(self._back(server[0], writer, deaf))
        try:
            await self._out(reader, server[1], deaf)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if deaf.is_set():
                await asyncio.wait([back], timeout=5)  # it has been done by now
            back.cancel()
            for end in ends:
                end.transport.abort()
            self._open.difference_update(ends)

    async def _out(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        head = b""
        while True:
            size = await reader.readexactly(4)
            server.write(head + size + await reader.readexactly(int.from_bytes(size) - 4))
            # The first message has no letter. Query and Sync are what an answer is waited for (PostgreSQL, 55.2).
            head = await reader.readexactly(1)
            if head in b"QS" and self._plan.strike(head.decode()):
                if self._plan.kind != "answer lost":
                    return
                size = await reader.readexactly(4)
                deaf.set()
                server.write(head + size + await reader.readexactly(int.from_bytes(size) - 4))
                await server.drain()
                return

    async def _back(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await server.read(65536):
            if deaf.is_set():
                return
            writer.write(data)


@pytest.fixture
async def round_on_server(tmp_path: Path, postgresql: Any, story: Any, enrol_by_csv: Any) -> AsyncIterator[Round]:
    enrolled = postgresql.fresh()
    await enrol_by_csv(tmp_path, enrolled, "405660")
    async with AsyncExitStack() as stack:

        async def run(plan: Plan) -> Ended:
            url = postgresql.copy(enrolled)
            stack.push_async_callback(asyncio.to_thread, postgresql.drop, url)
            wire = Wire(plan, make_url(url).port)
            stack.callback(wire.close)
            listening = await stack.enter_async_context(await asyncio.start_server(wire.there, "127.0.0.1", 0))
            port = listening.sockets[0].getsockname()[1]
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as ours:
                clear = {"sslmode": "disable", "gssencmode": "disable"}  # nothing is said before the first message
                through = make_url(url).set(port=port, query=clear).render_as_string(hide_password=False)
                look: Looked = lambda sql: ours.execute(sql).fetchall()  # type: ignore[arg-type]  # noqa: E731
                ended: Ended = await story(plan, folder_of(plan, tmp_path), through, look)
                return ended

        yield run


async def reconciled(engine: Engine, look: Looked, prescriber: Prescriber) -> list[str]:
    from store.check import findings

    assert engine.store is not None
    found = await engine.store.read(findings)
    if engine.failed.done():
        found.append(f"{engine.failed.result()} ended")
    rows = look("SELECT control_id, disposition FROM message")
    names = sorted(name for name, disposition in rows if disposition == "judged")
    if names != ["M1", "M2"] or {end for _, end in rows} - {"judged", "duplicate"}:
        found.append(f"on file: {rows}")
    states = look("SELECT state FROM delivery")
    if not states or set(states) != {("delivered",)}:
        found.append(f"deliveries: {states}")
    flags = [(flag["status"], flag["subject"]["reference"]) for flag in prescriber.flags()]
    if flags != [("inactive", "Patient/p1")] or prescriber.fhir.doubled():
        found.append(f"flags: {flags}")
    return found


def looked(file: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def unfinished(look: Looked) -> int:
    sql = (
        "SELECT (SELECT count(*) FROM message WHERE disposition IS NULL)"
        " + (SELECT count(*) FROM delivery WHERE state = 'waiting')"
        " + (SELECT count(*) FROM patient WHERE settle_at IS NOT NULL)"
    )
    return int(look(sql)[0][0])


async def rounds(run: Round, plans: list[Plan]) -> list[tuple[Plan, Ended]]:
    """Side by side: what takes time in a round is waiting for a retry."""
    return list(zip(plans, await asyncio.gather(*map(run, plans)), strict=True))


async def test_a_step_of_the_store_fails_here_and_there_and_nothing_is_lost_or_doubled(
    round_with: Round,
) -> None:
    """A sample of the next test: every eleventh step, each time by another kind of failure."""
    kinds = sorted(set(_CODES) - {"answer lost"})
    spread = [Plan(number, kinds[at % len(kinds)]) for at, number in enumerate(range(1, 140, 11))]
    ended = await rounds(round_with, [*spread, *(Plan(number, "answer lost") for number in (2, 5, 9))])
    assert [(plan, end) for plan, end in ended if end.problems] == []
    assert sum(bool(end.struck) for _, end in ended) > 10


@pytest.mark.skipif(os.environ.get("EVERY_STEP") != "all", reason="EVERY_STEP=all: minutes, part of `make evidence`")
@pytest.mark.parametrize("kind", sorted(_CODES))
async def test_whatever_step_of_the_store_fails_nothing_is_lost_and_nothing_doubled(
    round_with: Round, kind: str
) -> None:
    seen: dict[int, Ended] = {}
    while not any(not ended.struck for ended in seen.values()):
        assert len(seen) < 500
        plans = [Plan(number, kind) for number in range(len(seen) + 1, len(seen) + 1 + AT_ONCE)]
        seen |= {plan.number: ended for plan, ended in await rounds(round_with, plans)}
    print(f"{kind}: {sum(bool(ended.struck) for ended in seen.values())} steps failed in turn")
    assert {number: ended for number, ended in seen.items() if ended.problems} == {}
    assert sum(bool(ended.struck) for ended in seen.values()) > (3 if kind == "answer lost" else 20)


@pytest.mark.skipif(os.environ.get("EVERY_STEP") != "all", reason="EVERY_STEP=all: minutes, part of `make evidence`")
@pytest.mark.parametrize("kind", ["cut", "answer lost"])
async def test_a_connection_to_a_server_is_lost_at_any_wait_and_nothing_is_lost_or_doubled(
    round_on_server: Round, kind: str
) -> None:
    """The n-th wait for an answer, n = 1, 2, 3 ..."""
    ended: list[tuple[Plan, Ended]] = []
    for first in range(1, 80, AT_ONCE):
        ended += await rounds(round_on_server, [Plan(number, kind) for number in range(first, first + AT_ONCE)])
    assert [(plan, end) for plan, end in ended if end.problems] == []
    assert sum(bool(end.struck) for _, end in ended) > 40
