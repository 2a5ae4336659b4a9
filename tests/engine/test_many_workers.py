"""Several workers on one database: each patient's messages in the order in which they came, each message judged once."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.back import Back
from engine.config import load
from engine.observe import Meters
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, Subject
from store import Envelope, Store, StoreUnavailable, register
from store.check import findings
from store.port import AlertRecord, Work
from store.values import message_name, to_ms

WORKERS, PATIENTS, MESSAGES = 8, 5, 120


@pytest.fixture
async def eight(postgresql_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """Starts eight judging halves, each with connections of its own, on what is in the store."""
    async with AsyncExitStack() as stack:

        async def start(extra: str = "") -> list[Back]:
            file = tmp_path / "n.toml"
            file.write_text(f'[store]\nurl = "{postgresql_url}"\n{extra}')
            backs = []
            for _ in range(WORKERS):
                store = Store(postgresql_url, sole=False)
                await store.open()
                stack.push_async_callback(store.close)
                back = Back(load(file, {}), store, Meters(), on_recorded=lambda _: None)
                stack.push_async_callback(back.stop)
                backs.append(back)
            for back in backs:
                back.start()
            return backs

        yield start


@pytest.fixture
async def inbox(postgresql_url: str) -> AsyncIterator[Store]:
    store = Store(postgresql_url)
    await store.open()
    yield store
    await store.close()


def said(seed: int, hl7: Any) -> list[tuple[str, str, str, bytes]]:
    """(patient, filler, value, message): counts and their corrections, of a few patients, mixed."""
    chance = random.Random(seed)
    found = []
    for number in range(MESSAGES):
        patient, filler = f"P{chance.randrange(PATIENTS)}", f"F{chance.randrange(3)}"
        value = f"{chance.randrange(100, 900) / 100:.2f}"
        raw = hl7.oru(
            f"M{number}", anc=value, patient=f"{patient}^^^CHX&1.2.3&ISO^PI", filler=f"{patient}{filler}", status="C"
        )
        found.append((patient, f"{patient}{filler}", value, raw))
    return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_eight_workers_keep_each_patients_order_and_judge_each_message_once(
    seed: int, eight: Any, inbox: Store, hl7: Any, eventually: Any
) -> None:
    messages = said(seed, hl7)
    for number, (_, _, _, raw) in enumerate(messages):
        await inbox.accept(envelope(f"M{number}", raw))
    backs = await eight()
    try:
        await eventually(lambda: _drained(inbox), limit_s=120)
    finally:
        assert not any(back.failed.done() for back in backs)
        await asyncio.gather(*(back.stop() for back in backs))

    # Each message has one end, whoever gave it, and in = out.
    assert await inbox.read(findings) == []
    assert sum((await inbox.snapshot()).dispositions.values()) == MESSAGES
    # What stands for each measurement is what was said last, and its versions are in the order of the messages.
    rows = await inbox.read(_versions)
    assert {filler: value for filler, _, _, is_current, value in rows if is_current} == {
        filler: value for _, filler, value, _ in messages
    }
    for filler in {row[0] for row in rows}:
        ours = [(version, message) for name, version, message, _, _ in rows if name == filler]
        assert ours == sorted(ours)
        assert [version for version, _ in ours] == list(range(1, len(ours) + 1))


def envelope(control_id: str, raw: bytes) -> Envelope:
    return Envelope(
        channel="mllp",
        format="hl7v2",
        raw=raw,
        received_at=datetime.now(UTC),
        content_hash=hashlib.blake2b(raw, digest_size=32).digest(),
        dedupe_key=message_name("hl7v2", "SIL|LABO", control_id),
        sender="SIL|LABO",
        control_id=control_id,
        message_type="ORU^R01",
    )


async def _drained(store: Store) -> bool:
    try:
        return (await store.snapshot()).pending == 0
    except StoreUnavailable:
        return False  # eight engines share this process: the answer may have come later than the store waits for it


def _versions(connection: Any) -> list[tuple[str, int, int, bool, str]]:
    from store.values import decode_result

    rows = connection.exec_driver_sql(
        "select key, version, message_id, current, body from result order by key, version"
    ).fetchall()
    return [
        (
            next(part for part in key.split("|") if part.startswith("P")).partition("@")[0],
            version,
            number,
            current,
            decode_result(text).value_as_sent,
        )
        for key, version, number, current, text in rows
    ]


async def test_of_several_engines_one_reads_the_answers_of_a_server(
    eight: Any, inbox: Store, prescriber: Any, eventually: Any
) -> None:
    """Each look is a request at somebody else's server; eight engines make as many as one."""
    await inbox.write(_open_alert)
    await eight(
        f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{prescriber.url}"\nanswers_every_s = 0.05\n'
        "[watch]\nevery_s = 3600\n"
    )
    # The safety net asks for every open alert once an hour: each engine that reads does so with its first look.
    searches = prescriber.fhir.searches
    await eventually(lambda: searches["Task?identifier"] > 20)
    assert searches["Task?group-identifier"] == 1


def _open_alert(connection: Any) -> None:
    now = datetime.now(UTC)
    alert = Alert(
        id="a32b4821-51a4-5253-b956-d3b932eed8fc",
        revision=1,
        kind=AlertKind.RAISED,
        family=AlertFamily.STOP,
        level=AlertLevel.CRITICAL,
        title="STOP",
        text="STOP",
        subject=Subject(register_id="r1"),
        raised_at=now,
        updated_at=now,
    )
    register.write(connection, Work(alerts=[AlertRecord(alert=alert, patient_id=None)]), to_ms(now))
