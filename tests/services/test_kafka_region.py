"""Laboratories on Apache Kafka, two engines on one PostgreSQL, alerts to a topic: an engine and the broker are killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from store import Store, listing
from store.check import findings

PATIENTS, MESSAGES, GROUP = 6, 400, 20
COUNTS = ("0.40", "0.84", "1.20", "2.50")


async def feed(broker: Any, topic: str, records: list[bytes]) -> None:
    """Insists, as a laboratory's producer does: what may be in the topic twice is one message."""
    for first in range(0, len(records), GROUP):
        while True:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(20):
                    await broker.send(topic, *records[first : first + GROUP])
                break
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_an_engine_and_the_broker_are_killed_under_load_and_the_account_is_exact(
    own_broker: Any, hosts: list[Any], start_host: Any, configs: Any, postgresql_url: str, prescriber: Any, hl7: Any,
    enrol_by_csv: Any, tmp_path: Path, eventually: Any,
) -> None:  # fmt: skip
    for number in range(PATIENTS):
        prescriber.add_patient(("urn:oid:1.2.3", f"4056{number:02}"), id_=f"p{number}")
        await enrol_by_csv(tmp_path, postgresql_url, f"4056{number:02}")
    results, alerts = await own_broker.topic(4), await own_broker.topic(2)
    out = f'[[destination]]\nname = "topic"\nkind = "kafka"\nbootstrap = "{own_broker.bootstrap}"\ntopic = "{alerts}"\n'
    door = f'[kafka]\nbootstrap = "{own_broker.bootstrap}"\ntopics = ["{results}"]\n'
    door += "session_timeout_s = 6\nmax_records = 25\n"
    config = configs("host", "all", extra=f"{door}{out}retry_first_s = 0.05\nretry_longest_s = 0.5\n")
    hosts += [await start_host(config), await start_host(config)]
    records = [
        hl7.oru(
            f"M{number}",
            anc=COUNTS[number % len(COUNTS)],
            patient=f"4056{number % PATIENTS:02}^^^CHX&1.2.3&ISO^PI",
            filler=f"F{number}",
        )
        for number in range(MESSAGES)
    ]
    store = Store(postgresql_url, sole=False)
    await store.open()

    async def judged(most: float) -> bool:
        state = await store.snapshot()
        return sum(number for end, number in state.dispositions.items() if end != "duplicate") >= most

    feeding = asyncio.create_task(feed(own_broker, results, records))
    await eventually(lambda: judged(MESSAGES / 5), 60)
    await hosts[0].kill()
    await eventually(lambda: judged(MESSAGES / 2), 60)
    await asyncio.to_thread(own_broker.stop, "kill")
    await asyncio.to_thread(own_broker.start)
    await asyncio.wait_for(feeding, 120)

    async def drained() -> bool:
        state = await store.snapshot()
        whole = await judged(MESSAGES) and state.pending == 0
        return whole and not [row for row in state.outbox if row[1] == "waiting"]

    await eventually(drained, 120)
    assert await store.read(findings) == []
    rows = await store.read(lambda connection: list(listing.messages(connection, limit=100_000)))
    firsts = Counter(row["control_id"] for row in rows if row["disposition"] != "duplicate")
    assert firsts == {f"M{number}": 1 for number in range(MESSAGES)}
    assert {row["disposition"] for row in rows} <= {"judged", "duplicate"}
    outbox = await store.read(lambda connection: list(listing.deliveries(connection)))
    await store.close()
    assert {row["state"] for row in outbox} == {"delivered"}
    told = [row["control_id"] for row in outbox if row["destination"] == "topic"]
    assert told
    # One on its way when its engine died may be there twice, under its one id.
    there = {dict(record.headers)["delivery-id"].decode() for record in await own_broker.whole(alerts)}
    assert there == set(told)
    assert sorted(set(prescriber.messages())) == sorted(
        row["control_id"] for row in outbox if row["destination"] == "ehr-v2"
    )
    assert prescriber.fhir.doubled() == 0
