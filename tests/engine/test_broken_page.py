"""A damaged page of the database file: what stood on it is told apart and asked about, the rest is judged, verify says it."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.back import Back
from engine.cli_db import db_verify_command
from engine.config import load
from engine.observe import Meters
from ingest import envelope
from store import Store, StoreUnavailable, database, faults

_PAGE = 4096


def spoil(url: str, marker: bytes) -> None:
    """Zeroes the page that holds ``marker``."""
    file = database.file_of(url)
    assert file is not None
    raw = bytearray(file.read_bytes())
    at = raw.index(marker) // _PAGE * _PAGE
    raw[at : at + _PAGE] = bytes(_PAGE)
    file.write_bytes(raw)


async def test_the_message_on_a_damaged_page_is_set_aside_and_the_others_are_judged(
    url: str, enrol_by_csv: Any, tmp_path: Path, hl7: Any, eventually: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    store = Store(url)
    await store.open()
    for name in ("M1", "M2", "M3"):
        # So long that each has pages of its own.
        raw = hl7.oru(name, anc="0.40", filler=name) + f"NTE|1||{name}{'x' * 3000}\r".encode()
        await store.accept(envelope.hl7v2(raw, channel="mllp", peer="", now=datetime.now(UTC))[1])
    await store.close()
    spoil(url, b"M2" + b"x" * 100)
    config = tmp_path / "neutroflag.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[watch]\nevery_s = 3600\n', encoding="utf-8")
    store = Store(url)
    await store.open()
    back = Back(load(config, {}), store, Meters(), on_recorded=lambda ids: None)
    back.start()
    try:

        async def judged() -> bool:
            return (await store.snapshot()).pending == 0

        await eventually(judged, 60)

        def look(connection: Any) -> tuple[list[Any], list[Any]]:
            ends = connection.exec_driver_sql("SELECT disposition, reason FROM message ORDER BY id").fetchall()
            tasks = connection.exec_driver_sql(
                "SELECT json_extract(body, '$.source') FROM alert WHERE json_extract(body, '$.reason') = 'body-unreadable'"
            ).fetchall()
            return [tuple(row) for row in ends], [tuple(row) for row in tasks]

        ends, tasks = await store.read(look)
        assert ends == [("judged", ""), ("set_aside", "body-unreadable"), ("judged", "")]
        assert tasks == [("SIL|LABO M2",)]
        # Looked at directly it is said in words, and whose fault it is.
        with pytest.raises(StoreUnavailable, match="the database file is damaged: `neutroflag db verify`"):
            await store.read(lambda connection: connection.exec_driver_sql("SELECT raw FROM body").fetchall())
    finally:
        await back.stop()
        await store.close()
    out, err = io.StringIO(), io.StringIO()
    assert db_verify_command(config, "", stdout=out, stderr=err) == 1
    assert out.getvalue() + err.getvalue() != ""


async def test_a_damaged_page_that_arrivals_need_is_no_acknowledgement(url: str, hl7: Any) -> None:
    store = Store(url)
    await store.open()
    await store.close()

    def root(connection: Any) -> int:
        return int(connection.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'message'").scalar())

    engine = database.reader(url)
    with engine.connect() as connection:
        number = root(connection)
    engine.dispose()
    file = database.file_of(url)
    assert file is not None
    raw = bytearray(file.read_bytes())
    raw[(number - 1) * _PAGE : number * _PAGE] = bytes(_PAGE)
    file.write_bytes(raw)
    store = Store(url)
    await store.open()
    try:
        with pytest.raises(StoreUnavailable, match="the database file is damaged"):
            await store.accept(envelope.hl7v2(hl7.oru(), channel="mllp", peer="", now=datetime.now(UTC))[1])
    finally:
        await store.close()
    assert not faults.is_damaged(ValueError())
