"""Normalised results on an Apache Kafka topic: each version exactly once, whoever dies in between."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from emitters.kafka_results import ResultRecord, ResultsSettings, ResultsTopic, TopicUnavailable
from rules.model import AbsoluteNeutrophilCount, LabResult, ResultStatus
from store import publications


def destination(broker: Any, alerts: str, results: str) -> str:
    return (
        f'[[destination]]\nname = "topic"\nkind = "kafka"\nbootstrap = "{broker.bootstrap}"\ntopic = "{alerts}"\n'
        f'results = "{results}"\nretry_first_s = 0.05\nretry_longest_s = 0.5\ntimeout_s = 15\n'
    )


async def test_each_version_of_each_count_is_in_the_topic_once(
    broker: Any, run_engine: Any, hl7: Any, before: Any, eventually: Any, root: Path
) -> None:
    topic = await broker.topic(2)
    running = await run_engine(extra=destination(broker, await broker.topic(), topic))
    await running.enrol()
    at = before(hours=2)
    await running.tell(
        hl7.oru("M1", anc="2.50", status="P", collected=at),
        hl7.oru("M2", anc="2.51", status="F", collected=at),
        hl7.oru("M2", anc="2.51", status="F", collected=at),  # sent again: a duplicate
        hl7.oru("M3", anc="0.84", status="C", collected=at),
        hl7.oru("M4", anc="3.00", patient="999999^^^CHX&1.2.3&ISO^PI", filler="X1"),  # not on the register
        hl7.oru("M5", anc="3.10", filler="B5", kind="ORU^R01", processing="T"),  # a test message
    )
    await running.settled()
    records = await broker.whole(topic)
    values = [json.loads(record.value) for record in records]
    assert [(one["version"], one["status"], one["anc_per_mm3"]) for one in values] == [
        (1, "preliminary", "2500"), (2, "final", "2510"), (3, "corrected", "840"),
    ]  # fmt: skip
    assert len({one["measurement"] for one in values}) == 1
    assert {record.key.decode() for record in records} == {values[0]["patient"]}
    assert not {b"405660", b"SPECIMEN", b"B2001"} & {part for record in records for part in record.value.split(b'"')}
    channel = yaml.safe_load((root / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))["channels"]["results"]
    for record in records:
        described = channel["messages"]["result"]
        jsonschema.Draft7Validator(described["payload"]).validate(json.loads(record.value))
        headers = {name: value.decode() for name, value in record.headers}
        jsonschema.Draft7Validator(described["headers"]).validate(headers)


def results(*numbers: int) -> list[ResultRecord]:
    return [
        ResultRecord(
            result_id=number, patient_id=f"p{number % 3}", version=1, current=True,
            result=LabResult(
                status=ResultStatus.FINAL, anc=AbsoluteNeutrophilCount(per_mm3=Decimal(2000 + number)),
                collected_at=datetime(2026, 11, 22, tzinfo=UTC), key=f"k{number}",
            ),
        )
        for number in numbers
    ]  # fmt: skip


@pytest.fixture
def topic_of(broker: Any) -> Any:
    opened = []

    def make(name: str, **other: Any) -> ResultsTopic:
        given = {"bootstrap": broker.bootstrap, "topic": name, "transactional_id": f"tx-{name}", "timeout_s": 20}
        opened.append(ResultsTopic(ResultsSettings(**given | other)))
        return opened[-1]

    return make


async def ids(broker: Any, topic: str) -> list[int]:
    return sorted(int(json.loads(record.value)["result_id"]) for record in await broker.whole(topic))


async def test_a_batch_that_was_written_before_its_end_was_told_is_not_written_again(
    broker: Any, topic_of: Any
) -> None:
    name = await broker.topic(3)
    first = topic_of(name)
    await first.publish("batch-1", results(1, 2, 3))
    # It dies here, before the store knows. Whoever follows finds the batch still waiting.
    await first.close()
    second = topic_of(name)
    await second.publish("batch-1", results(1, 2, 3))
    await second.publish("batch-2", results(4))
    await second.close()
    assert await ids(broker, name) == [1, 2, 3, 4]


async def test_half_a_batch_is_never_seen(broker: Any, topic_of: Any) -> None:
    name = await broker.topic(3)
    first = topic_of(name)
    await first.publish("batch-1", results(1))
    producer = first._producer
    assert producer is not None
    await producer.begin_transaction()
    await producer.send_and_wait(name, b'{"result_id": "2"}', key=b"p2")
    # It dies in the middle: nothing more is said.
    await producer.client.close()
    second = topic_of(name)
    await second.publish("batch-2", results(2, 3))
    await second.close()
    assert await ids(broker, name) == [1, 2, 3]


async def test_one_that_was_thought_dead_is_fenced(broker: Any, topic_of: Any) -> None:
    name = await broker.topic()
    first, second = topic_of(name), topic_of(name)
    await first.publish("batch-1", results(1))
    await second.publish("batch-2", results(2))
    with pytest.raises(TopicUnavailable):
        await first.publish("batch-2", results(2))
    await second.close()
    assert await ids(broker, name) == [1, 2]


@pytest.mark.slow
async def test_a_broker_and_an_engine_that_are_killed_cost_no_version_and_double_none(
    own_broker: Any, run_engine: Any, hl7: Any, before: Any, eventually: Any
) -> None:
    topic = await own_broker.topic(3)
    extra = destination(own_broker, await own_broker.topic(), topic)
    running = await run_engine(extra=extra)
    await running.enrol()
    sent = 0

    async def send(count: int) -> None:
        nonlocal sent
        numbers = range(sent, sent + count)
        await running.tell(*(hl7.oru(f"M{n}", filler=f"F{n}", collected=before(minutes=500 - n)) for n in numbers))
        sent += count

    await send(40)
    await asyncio.to_thread(own_broker.stop, "kill")
    await send(40)
    waiting = [row for row in (await running.store.snapshot()).outbox if row[0] == "topic/results"]
    assert waiting
    await running.engine.stop()  # with a batch under way
    await asyncio.to_thread(own_broker.start)
    running = await run_engine(extra=extra)
    await send(40)

    async def empty() -> bool:
        found: bool = await running.store.read(lambda connection: not publications.backlog(connection))
        return found

    await eventually(empty, 90)
    filed = await running.store.read(
        lambda connection: [row[0] for row in connection.exec_driver_sql("SELECT id FROM result").fetchall()]
    )
    assert await ids(own_broker, topic) == sorted(filed)
    assert len(filed) == sent
