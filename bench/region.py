"""A region's store after years, on either database: patients with their counts, verdicts and messages.

A few are written by the store's own functions and copied by SQL; the copies differ in their names and numbers, so that the
tables hold what an engine writes. Measured in it and in one that holds only the patients of the load.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select, text

from bench import filled
from bench.running import send, serve
from bench.sender import PATIENT
from engine.config import WatchSection
from engine.notify import Notifier
from engine.observe import Meters, configure
from engine.present import Present
from engine.watch import Watch
from store import Store, database, feeds, schema
from store.port import Work
from store.tables import assessment, identifier, message, patient, result
from store.values import message_name, to_ms

__all__ = ["Region", "fill", "measured"]

_TEMPLATES = 20
_CHUNK = 20_000
_LOOKED_AT = 200


class Region(NamedTuple):
    """A second: stored and answered, and judged of patients on the register; seconds for a sweep."""

    intake: float
    judged: float
    sweep_s: float
    lost: str


def measured(url: str, patients: int, count: int, run: str) -> Region:
    """On a database that ``fill`` made with so many patients."""
    _read_through(url)
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), url=url) as engine:
        before = engine.drained()["received"]
        # The same patients as in what is measured: that is how an engine meets them that has run for a while.
        warm = send(engine, kind="register", run=f"{run}w", count=count, connections=64, first=patients)
        engine.drained()
        told = send(engine, kind="strangers", run=f"{run}i", count=count, connections=64)
        engine.drained()
        report = send(engine, kind="register", run=f"{run}l", count=count, connections=64, first=patients)
        lost = engine.lost(before + warm["accepted"] + told["accepted"] + report["accepted"])
        judged = (time.monotonic() - report["started"]) or 1.0
        if report["accepted"] + told["accepted"] != 2 * count:
            lost = f"{2 * count} asked for, {told['accepted']} and {report['accepted']} accepted {lost}"
    return Region(told["rate"], count / judged, asyncio.run(_sweep(url)), lost)


def _read_through(url: str) -> None:
    """Has the operating system hold the index that every message is looked up in, as after a day's work."""
    reading = database.writer(url)
    with reading.connect() as connection:
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql("SET enable_seqscan = off")
        connection.execute(select(func.count(message.c.dedupe_key)).where(message.c.dedupe_key > b"")).scalar_one()
    reading.dispose()


async def _sweep(url: str) -> float:
    """One look of the clock, for which some patients are due."""
    configure(quiet=True)
    now = datetime.now(UTC)
    store = Store(url)
    await store.open()
    try:
        due = {"today": now.date().isoformat(), "most": _LOOKED_AT}
        ids = "SELECT id FROM patient WHERE watch_on > :today ORDER BY watch_on, id LIMIT :most"
        await store.write(
            lambda connection: connection.execute(
                text(f"UPDATE patient SET watch_on = :today WHERE id IN ({ids})"),  # noqa: S608  # our own words
                due,
            )
        )
        zone = ZoneInfo("Europe/Paris")
        present = Present(
            default_protocol="ansm",
            notifier=Notifier(language="fr", destinations=()),
            zone=zone,
            history_after=timedelta(days=1),
            settle=timedelta(0),
        )
        watch = Watch(store, present, Meters(), WatchSection(), destinations=dict, on_alerts=lambda: None)
        started = time.perf_counter()
        await watch.sweep()
        return time.perf_counter() - started
    finally:
        await store.close()


def fill(url: str, patients: int) -> None:
    """A new database at ``url`` with so many patients and ``filled.COUNTS`` counts of each. Durability is left off for SQLite
    meanwhile; the engine turns it on."""
    now = datetime.now(UTC)
    writing = database.writer(url)
    with writing.connect() as connection, connection.begin():
        if schema.is_empty(connection):
            schema.upgrade(connection)
        filled.people(connection, filled.Sizes(messages=1, patients=_TEMPLATES), now)
    with contextlib.closing(writing.connect()) as connection:
        _copied(connection, patients)
    writing.dispose()


def _copied(connection: Connection, patients: int) -> None:
    lite = connection.dialect.name == "sqlite"
    raw: Any = connection.connection.driver_connection
    if lite:
        # Straight into the file: the write-ahead log of so many rows would be larger than the file.
        raw.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=OFF; PRAGMA cache_size=-2000000"
        )
    else:
        # References hold by how the rows are made; checking each costs more than writing it.
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.commit()
    name = "printf('%032x', {})" if lite else "lpad(to_hex({}), 32, '0')"
    number = f"(n * {filled.COUNTS} + k + 1)"
    known = f"'{PATIENT}' || " + ("printf('%06d', n)" if lite else "lpad(n::text, 6, '0')")
    noise = "randomblob(16)" if lite else "decode(md5(n::text || ':' || k), 'hex')"
    if lite:
        raw.create_function(
            "named", 1, lambda number: message_name("hl7v2", "SIL|LABO", f"F{number}"), deterministic=True
        )
    # As ``message_name`` makes them: ten thousand in a row begin alike.
    named = (
        f"substring(decode(md5(({number} / 10000)::text), 'hex') for 8) || "
        f"substring(decode(md5({number}::text), 'hex') for 12)"
    )
    later = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    columns = {table.name: [column.name for column in table.columns] for table in (patient, result, assessment)}
    with connection.begin():
        # Only those whose newest count alerts nobody and who are not due, so that a sweep looks at as many here as there;
        # each with a place, its counts too.
        connection.exec_driver_sql("DELETE FROM delivery")
        connection.exec_driver_sql(
            "CREATE TABLE few AS SELECT row_number() OVER (ORDER BY id) - 1 AS slot, * FROM patient "  # noqa: S608  # our day
            f"WHERE id NOT IN (SELECT patient_id FROM alert) AND watch_on > '{later}'"
        )
        connection.exec_driver_sql(
            "CREATE TABLE few_result AS SELECT few.slot, row_number() OVER (PARTITION BY few.id ORDER BY collected_at) - 1 "
            "AS k, result.* FROM result JOIN few ON few.id = result.patient_id"
        )
        connection.exec_driver_sql(
            "CREATE TABLE few_assessment AS SELECT few_result.slot, few_result.k, assessment.* FROM assessment "
            "JOIN few_result ON few_result.id = assessment.result_id"
        )
        for table in ("alert", "assessment", "result", "identifier", "patient"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608  # our own words
        slots = connection.exec_driver_sql("SELECT count(*) FROM few").scalar_one()
    # One in five seconds until the day before yesterday.
    received = (
        f"({to_ms(datetime.now(UTC)) - 172_800_000 - patients * filled.COUNTS * 5_000} + {number} * 5000::bigint)"
    )
    received = received.replace("::bigint", "") if lite else received
    of_message = {
        "id": number, "received_at": received, "channel": "'mllp'", "format": "'hl7v2'", "peer": "'192.0.2.1:4711'",
        "sender": "'SIL|LABO'", "control_id": f"'F' || {number}", "message_type": "'ORU^R01'",
        "dedupe_key": f"named({number})" if lite else named, "content_hash": noise, "disposition": "'judged'",
        "judged_at": received, "size": "5700", "kept": "0" if lite else "false",
    }  # fmt: skip
    made = {
        patient: ({"id": name.format("n")}, "few"),
        identifier: (
            {"value": known, "authority": "'urn:oid:2.999.1'", "type": "'PI'", "patient_id": name.format("n")}, "few"
        ),
        message: (of_message, "few_result"),
        result: (
            {"id": number, "patient_id": name.format("n"), "message_id": number, "key": "key || '|' || n"}, "few_result"
        ),
        assessment: (
            {"id": number, "patient_id": name.format("n"), "result_id": number, "message_id": number}, "few_assessment"
        ),
    }  # fmt: skip
    for first in range(0, patients, _CHUNK):
        last = min(first + _CHUNK, patients) - 1
        each = f"SELECT {first} UNION ALL SELECT n + 1 FROM c WHERE n < {last}"  # noqa: S608  # our own numbers
        numbers = f"(WITH RECURSIVE c(n) AS ({each}) SELECT n FROM c)"  # noqa: S608
        with connection.begin():
            for table, (given, source) in made.items():
                names = columns.get(table.name, list(given))
                values = ", ".join(str(given.get(column, f"t.{column}")) for column in names)
                insert = (
                    f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} "  # noqa: S608  # our own words
                    f"FROM {numbers} AS numbers JOIN {source} AS t ON t.slot = n % {slots}"
                )
                connection.exec_driver_sql(insert if lite else insert.replace("%", "%%"))
    total = patients * filled.COUNTS
    with connection.begin():
        for table in ("few", "few_result", "few_assessment"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        for label, kind in (("", "received"), ("judged", "disposition")):
            connection.execute(
                text("INSERT INTO counter (name, label, slot, value) VALUES (:kind, :label, 0, :total)"),
                {"kind": kind, "label": label, "total": total},
            )
        # The clock has seen these messages: it looks at each once, when it is new.
        feeds.write(connection, Work(marks={"message": total + 1, "seen_at": to_ms(datetime.now(UTC))}))
        if not lite:
            connection.exec_driver_sql(f"SELECT setval('message_ids', {total + 1})")
    # What a server would do by itself in the minutes after, in the middle of what is measured.
    if lite:
        raw.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        raw.autocommit = True
        raw.execute("VACUUM ANALYZE")
        raw.execute("CHECKPOINT")
