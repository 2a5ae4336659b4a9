"""The n-th thing asked of the database driver fails, n = 1, 2, 3 ... until a round passes untouched: nothing is lost.

After "How SQLite is tested". The driver's own connection class is the seam (``sqlite3.connect(factory=...)``); the engine
runs whole. ``make evidence`` does the same to every system call of both processes (evidence/every_step.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

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
        if self.kind == "answer lost" and operation != "commit":
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


@pytest.fixture
async def round_with(
    tmp_path: Path, plans: dict[str, Plan], hl7: Any, before: Any, connect: Any, enrol_by_csv: Any, eventually: Any
) -> Callable[[Plan], Awaitable[Ended]]:
    """One engine of its own: a stop-level count, the same again, its correction; then everything is reconciled."""
    await enrol_by_csv(tmp_path, f"sqlite:///{tmp_path / 'empty.db'}", "405660")
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

    async def run(plan: Plan) -> Ended:
        folder = tmp_path / f"{plan.kind}-{plan.number}".replace(" ", "_").replace("/", "_")
        folder.mkdir()
        file = folder / "neutroflag.db"
        shutil.copy(tmp_path / "empty.db", file)
        plans[str(file)] = plan
        async with Prescriber() as prescriber:
            prescriber.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")
            config = folder / "neutroflag.toml"
            config.write_text(
                f'[store]\nurl = "sqlite:///{file}"\n[mllp]\nport = 0\n[http]\nenabled = false\n[watch]\nevery_s = 3600\n'
                f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{prescriber.url}"\n'
                "retry_first_s = 0.05\nretry_longest_s = 0.2\n"
            )
            engine = Engine(load(config, {}))
            await engine.start()
            try:
                assert engine.mllp is not None
                await eventually(lambda: unfinished(file) == 0)
                plan.armed = True
                try:
                    for name, raw in messages:
                        await insist(engine.mllp.port, name, raw)
                    await eventually(lambda: unfinished(file) == 0)
                except TimeoutError:
                    return Ended(plan.struck, ["not finished", *await reconciled(engine, file, prescriber)])
                plan.armed = False
                return Ended(plan.struck, await reconciled(engine, file, prescriber))
            finally:
                await engine.stop()

    return run


async def reconciled(engine: Engine, file: Path, prescriber: Prescriber) -> list[str]:
    from store.check import findings

    assert engine.store is not None
    found = await engine.store.read(findings)
    if engine.failed.done():
        found.append(f"{engine.failed.result()} ended")
    rows = looked(file, "SELECT control_id, disposition FROM message")
    names = sorted(name for name, disposition in rows if disposition == "judged")
    if names != ["M1", "M2"] or {end for _, end in rows} - {"judged", "duplicate"}:
        found.append(f"on file: {rows}")
    states = looked(file, "SELECT state FROM delivery")
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


def unfinished(file: Path) -> int:
    sql = (
        "SELECT (SELECT count(*) FROM message WHERE disposition IS NULL)"
        " + (SELECT count(*) FROM delivery WHERE state = 'waiting')"
        " + (SELECT count(*) FROM patient WHERE settle_at IS NOT NULL)"
    )
    return int(looked(file, sql)[0][0])


async def rounds(run: Callable[[Plan], Awaitable[Ended]], plans: list[Plan]) -> list[tuple[Plan, Ended]]:
    """Side by side: what takes time in a round is waiting for a retry."""
    return list(zip(plans, await asyncio.gather(*map(run, plans)), strict=True))


async def test_a_step_of_the_store_fails_here_and_there_and_nothing_is_lost_or_doubled(
    round_with: Callable[[Plan], Awaitable[Ended]],
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
    round_with: Callable[[Plan], Awaitable[Ended]], kind: str
) -> None:
    seen: dict[int, Ended] = {}
    while not any(not ended.struck for ended in seen.values()):
        assert len(seen) < 500
        plans = [Plan(number, kind) for number in range(len(seen) + 1, len(seen) + 1 + AT_ONCE)]
        seen |= {plan.number: ended for plan, ended in await rounds(round_with, plans)}
    print(f"{kind}: {sum(bool(ended.struck) for ended in seen.values())} steps failed in turn")
    assert {number: ended for number, ended in seen.items() if ended.problems} == {}
    assert sum(bool(ended.struck) for ended in seen.values()) > (3 if kind == "answer lost" else 20)
