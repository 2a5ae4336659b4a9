"""Full and locked disks: nothing is answered as stored that is not, nothing is blamed on the message, and it recovers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from store import AlreadyRunning, SchemaOutdated, Store, StoreUnavailable, database, schema
from store.check import findings
from store.port import Work
from store.tables import metadata

on_sqlite = pytest.mark.parametrize("each_database", ["sqlite"], indirect=True)


async def run(store: Any, sql: str) -> Any:
    def execute(connection: Any) -> Any:
        found = connection.exec_driver_sql(sql)
        return found.fetchone() if found.returns_rows else None

    return await store._writing.run(execute)


async def fill(store: Any) -> None:
    """Allows the file a handful of pages more than it has: a disk that is nearly full."""
    pages = (await run(store, "PRAGMA page_count"))[0]
    await run(store, f"PRAGMA max_page_count={pages + 4}")


@on_sqlite
async def test_a_full_disk_refuses_and_takes_again_when_there_is_room(store: Any, envelope: Any, rows_of: Any) -> None:
    await fill(store)
    envelopes = [envelope(f"M{n}", "x" * 4000 + str(n)) for n in range(20)]
    answers = [
        answer for item in envelopes for answer in await asyncio.gather(store.accept(item), return_exceptions=True)
    ]
    # The connection that failed is not used again: on the next one, which knows no limit, there is room.
    assert [type(answer) for answer in answers].count(StoreUnavailable) == 1
    stored = sum(not isinstance(answer, BaseException) for answer in answers)
    assert rows_of("select count(*) from message") == [stored] == [19]
    assert (await store.accept(envelope("after", "x" * 4000))).duplicate_of is None
    assert rows_of("select count(*) from message") == [stored + 1]
    assert await store.read(findings) == []


@on_sqlite
async def test_a_full_disk_while_recording_is_the_stores_failure_and_not_the_messages(
    store: Any, patient: Any, outgoing: Any, rows_of: Any
) -> None:
    """The worker sets a message aside for any other error; for this one it must wait."""
    await fill(store)
    record, item = patient()
    work = outgoing(*range(200))
    work.patients["p1"] = record
    work.identifiers.append(("p1", item))
    with pytest.raises(StoreUnavailable):
        await store.record(work)
    assert rows_of("select count(*) from delivery") == [0]
    assert await store.record(work) is None
    assert rows_of("select count(*) from delivery") == [200]


@on_sqlite
async def test_a_full_disk_while_changing_what_is_there_is_the_stores_failure_too(
    store: Any, patient: Any, rows_of: Any
) -> None:
    """A change of many rows is undone by itself, not with its transaction: the error comes by another way."""
    patients = {f"p{n}": patient(f"p{n}", str(n))[0] for n in range(3)}
    await store.record(Work(patients=patients))
    await fill(store)
    loaded = await store.patients_by_id(list(patients))
    for record in loaded:
        record.owner = "x" * 40_000
    with pytest.raises(StoreUnavailable):
        await store.record(Work(patients={record.id: record for record in loaded}))
    assert rows_of("select distinct length(owner) from patient") == [0]


@on_sqlite
async def test_a_full_disk_for_a_batch_leaves_the_small_ones_their_place(
    store: Any, envelope: Any, rows_of: Any
) -> None:
    await fill(store)
    envelopes = [envelope("big", "x" * 100_000), *(envelope(f"M{n}", f"small {n}") for n in range(4))]
    answers = await asyncio.gather(*map(store.accept, envelopes), return_exceptions=True)
    assert isinstance(answers[0], StoreUnavailable)
    kept = set(rows_of("select control_id from message"))
    assert kept == {f"M{n}" for n, answer in enumerate(answers[1:]) if not isinstance(answer, BaseException)}


@on_sqlite
async def test_a_database_locked_by_another_is_waited_for(store: Any, url: str, envelope: Any) -> None:
    engine = database.writer(url)
    other = engine.connect()
    held = other.begin()
    waiting = asyncio.create_task(store.accept(envelope("M1")))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    await asyncio.to_thread(held.rollback)
    other.close()
    assert (await waiting).message_id == 1


@on_sqlite
async def test_a_file_that_lets_nobody_in_is_waited_for(store: Any, url: str, envelope: Any) -> None:
    # As whoever closes it as the last one holds it, while its log is copied: not even a connection is to be had.
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("COMMIT")
    waiting = asyncio.create_task(store.accept(envelope("M1")))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    other.close()
    assert (await waiting).message_id == 1


@on_sqlite
async def test_a_database_that_stays_locked_is_said_to_be_unavailable(
    store: Any, url: str, envelope: Any, rows_of: Any
) -> None:
    await run(store, "PRAGMA busy_timeout=100")
    engine = database.writer(url)
    with engine.connect() as other, other.begin():
        with pytest.raises(StoreUnavailable):
            await store.accept(envelope("M1"))
        assert rows_of("select count(*) from message") == [0]
        with pytest.raises(StoreUnavailable):
            await store.takes()
    await store.takes()  # without a message that would show it
    assert (await store.accept(envelope("M1"))).message_id == 1


@on_sqlite
async def test_a_second_engine_on_the_same_file_is_refused(store: Any, url: str) -> None:
    with pytest.raises(AlreadyRunning):
        await Store(url).open()


async def test_a_file_is_free_again_once_its_engine_ended(store: Any, url: str) -> None:
    await store.close()
    anew = Store(url)
    await anew.open()
    await anew.close()


async def test_an_older_schema_is_refused_rather_than_guessed_at(store: Any, url: str) -> None:
    await run(store, "update alembic_version set version_num = '0000'")
    await store.close()
    old = Store(url)
    with pytest.raises(SchemaOutdated, match="0000"):
        await old.open()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "neutroflag.db"
    file.write_bytes(b"not a database, and longer than the header of one " * 40)
    with pytest.raises(StoreUnavailable):
        await Store(f"sqlite:///{file}").open()


async def test_the_migrations_make_exactly_the_tables_that_the_code_describes(store: Any) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def compare(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    assert await store.read(compare) == []
    assert await store.read(schema.present) == schema.NEEDED


@on_sqlite
async def test_patients_data_is_for_the_engines_user_alone(store: Any, envelope: Any, tmp_path: Path) -> None:
    await store.accept(envelope("M1"))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)}
    assert "neutroflag.db" in modes
    assert "neutroflag.db-wal" in modes
    assert set(modes.values()) == {0o600}


@on_sqlite
async def test_the_writing_connection_waits_for_the_disk_at_every_commit(store: Any) -> None:
    # 2 is FULL (SQLite, PRAGMA synchronous): under NORMAL an acknowledged message can be lost on power loss.
    assert await run(store, "PRAGMA synchronous") == (2,)
    assert await run(store, "PRAGMA journal_mode") == ("wal",)
    assert await run(store, "PRAGMA foreign_keys") == (1,)
