"""Apache Kafka in and out, on a real broker and through a whole engine."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

_PATIENT = "405660"


def _in(broker: Any, *topics: str, group: str = "neutroflag", more: str = "") -> str:
    return (
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\ntopics = {json.dumps(list(topics))}\ngroup = "{group}"\n{more}\n'
    )


def _out(broker: Any, topic: str) -> str:
    return (
        f'[[destination]]\nname = "topic"\nkind = "kafka"\nbootstrap = "{broker.bootstrap}"\ntopic = "{topic}"\n'
        "retry_first_s = 0.05\nretry_longest_s = 0.5\n"
    )


@pytest.fixture
def start(run_engine: Any, enrol_by_csv: Any, tmp_path: Path, url: str, eventually: Any) -> Any:
    async def started(extra: str) -> Any:
        await enrol_by_csv(tmp_path, url, _PATIENT)
        running = await run_engine(extra=extra)
        await eventually(running.settled_register)
        return running

    return started


@pytest.fixture
def received(eventually: Any) -> Any:
    async def wait(running: Any, count: int) -> None:
        async def there() -> bool:
            return bool((await running.store.snapshot()).received >= count)

        await eventually(there, 60)
        await running.judged()

    return wait


async def _group(broker: Any, topic: str, count: int, eventually: Any, group: str = "neutroflag") -> None:
    async def all_of_them() -> bool:
        return bool(await broker.committed(topic, group) >= count)

    await eventually(all_of_them, 30)


async def test_a_critical_count_goes_from_one_topic_to_the_other(
    broker: Any, start: Any, hl7: Any, eventually: Any
) -> None:
    results, alerts = await broker.topic(2), await broker.topic(2)
    running = await start(_in(broker, results) + _out(broker, alerts))
    await broker.send(results, hl7.oru(anc="0.84"), key=b"anything")
    (record,) = await broker.read(alerts, 1)
    bundle = json.loads(record.value)
    (patient,) = {
        entry["resource"]["subject"]["reference"] for entry in bundle["entry"] if "subject" in entry["resource"]
    }
    assert patient == "Patient?identifier=urn%3Aoid%3A1.2.3%7C405660"
    headers = {name: value.decode() for name, value in record.headers}
    assert (headers["family"], headers["level"], headers["schema"]) == ("ANC-STOP", "red", "neutroflag.alert/1")
    assert _PATIENT not in record.key.decode()
    assert "SPECIMEN" not in str(headers)
    await running.settled()
    assert await running.dispositions() == ["judged"]
    await _group(broker, results, 1, eventually)


async def test_every_kind_of_record_ends_in_one_disposition_and_stops_no_partition(
    broker: Any, received: Any, start: Any, hl7: Any, fhir: Any, as_json: Any, eventually: Any
) -> None:
    topic = await broker.topic(1)
    batch = (
        b"FHS|^~\\&\rBHS|^~\\&\r" + hl7.oru("B1") + hl7.oru("B2", patient="2^^^CHX&1.2.3&ISO^PI") + b"BTS|2\rFTS|1\r"
    )
    values = [
        b"",
        b"\x00\xff no message at all",
        b'{"resourceType": "Observation", "status": ',
        as_json({"resourceType": "Teapot"}),
        as_json(fhir.observation("2.5")),
        as_json(fhir.bundle("collection", fhir.observation("2.5", identifier="r-2", patient="7"))),
        batch,
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
        hl7.oru("LAST", anc="2.60", filler="B9"),
    ]
    await broker.send(topic, *values)
    await broker.send(topic, None, key=b"removed")
    running = await start(_in(broker, topic, group=topic))
    await received(running, 11)
    rows = await running.messages()
    assert sorted(row["disposition"] for row in rows) == sorted(
        ["set_aside"] * 6 + ["judged", "judged", "judged", "unenrolled", "unenrolled"]
    )
    assert await running.findings() == []
    await _group(broker, topic, len(values) + 1, eventually, topic)


async def test_records_that_come_again_are_duplicates(
    broker: Any, received: Any, start: Any, hl7: Any, fhir: Any, as_json: Any, tmp_path: Path
) -> None:
    topic = await broker.topic(1)
    running = await start(_in(broker, topic, group="first"))
    await broker.send(topic, hl7.oru(anc="0.84"), as_json(fhir.observation("2.5", identifier="r-7")), b"neither")
    await received(running, 3)
    url = running.engine.settings.store.url
    await running.engine.stop()
    # Another group has committed nothing: Kafka delivers everything again, as after a death between the two commits.
    again = await start(_in(broker, topic, group="second"))
    assert again.engine.settings.store.url == url
    await received(again, 6)
    assert sorted(await again.dispositions()) == ["duplicate"] * 3 + ["judged", "judged", "set_aside"]


async def test_the_same_fact_by_mllp_and_kafka_makes_one_alert(
    broker: Any, received: Any, start: Any, hl7: Any
) -> None:
    topic = await broker.topic(1)
    running = await start(_in(broker, topic, group=topic))
    raw = hl7.oru(anc="0.84")
    assert await running.tell(raw) == ["AA"]
    await broker.send(topic, raw, raw.replace(b"|M1|", b"|M2|"))
    await received(running, 3)
    await running.settled()
    assert sorted(await running.dispositions()) == ["duplicate", "judged", "judged"]
    assert len({row["alert_id"] for row in await running.deliveries()}) == 1
    assert len([row for row in await running.deliveries() if row["destination"] == "ehr"]) == 1


async def test_offsets_that_the_broker_no_longer_has_are_told_and_passed(
    broker: Any, received: Any, start: Any, hl7: Any, eventually: Any
) -> None:
    topic = await broker.topic(1)
    running = await start(_in(broker, topic, group=topic))
    await broker.send(topic, hl7.oru("K1"))
    await received(running, 1)
    await _group(broker, topic, 1, eventually, topic)
    await running.engine.stop()
    await broker.send(topic, hl7.oru("K2", filler="B3"), hl7.oru("K3", filler="B4"), hl7.oru("K4", filler="B5"))
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    again = await start(_in(broker, topic, group=topic))
    await received(again, 2)
    ids = {row["control_id"] for row in await again.messages()}
    assert ids == {"K1", "K4"}
    told = (await again.engine._metrics()).decode()
    assert 'neutroflag_notices_total{channel="kafka",event="offsets_lost"} 1.0' in told


async def test_a_topic_that_is_missing_is_named_and_read_once_it_is_there(
    broker: Any, received: Any, start: Any, hl7: Any, eventually: Any
) -> None:
    there, missing = await broker.topic(1), f"later-{uuid.uuid4().hex[:8]}"
    running = await start(_in(broker, there, missing, group=there))
    await eventually(lambda: _state(running, f"topic missing: {missing}"), 30)
    await broker.send(there, hl7.oru("T1"))
    await received(running, 1)
    await broker.topic(1, missing)
    await broker.send(missing, hl7.oru("T2", filler="B3"))
    await received(running, 2)
    await eventually(lambda: _state(running, "consuming"), 30)


async def _state(running: Any, wanted: str) -> bool:
    return wanted in (await running.engine.readiness())[1]["kafka"]["state"]


async def test_a_broker_that_dies_is_told_and_read_again_without_a_restart(
    own_broker: Any, received: Any, start: Any, hl7: Any, eventually: Any
) -> None:
    results, alerts = await own_broker.topic(1), await own_broker.topic(1)
    running = await start(_in(own_broker, results) + _out(own_broker, alerts))
    await own_broker.send(results, hl7.oru("D1"))
    await received(running, 1)
    await asyncio.to_thread(own_broker.stop, "kill")

    async def unreachable() -> bool:
        return "broker unreachable" in (await running.engine.readiness())[1]["kafka"]["state"]

    await eventually(unreachable, 60)
    # The other doors are not held by it, and the alert waits for its topic.
    assert await running.tell(hl7.oru("D2", anc="0.84", filler="B3")) == ["AA"]
    await asyncio.to_thread(own_broker.start)
    await own_broker.send(results, hl7.oru("D3", anc="0.40", filler="B4"))
    await received(running, 3)
    records = await own_broker.read(alerts, 2)
    assert [dict(record.headers)["level"] for record in records] == [b"red", b"critical"]


@pytest.mark.parametrize("key", [None, b"one"])
async def test_two_members_share_a_topic_and_one_takes_over_from_the_other(
    broker: Any, key: bytes | None, hl7: Any, eventually: Any, tmp_path: Path
) -> None:
    """Members join and die under load: each record is in a store once or is a duplicate there, and none is missing."""
    from engine.observe import Meters, configure
    from ingest.kafka import KafkaInlet, KafkaSource
    from store import Store

    configure(quiet=True)
    topic = await broker.topic(4)
    source = KafkaSource(bootstrap=broker.bootstrap, topics=(topic,), group=topic, security={}, session_timeout_ms=6000)
    store = Store(f"sqlite:///{tmp_path / 'shared.db'}")
    await store.open()
    members: list[asyncio.Task[None]] = []

    def join() -> None:
        members.append(asyncio.create_task(KafkaInlet(store, Meters(), source).run()))

    async def feed() -> None:
        for round_ in range(15):
            await broker.send(topic, *(hl7.oru(f"R{round_}-{number}") for number in range(40)), key=key)
            await asyncio.sleep(0.05)

    join()
    feeding = asyncio.create_task(feed())
    for _ in range(2):
        await asyncio.sleep(1.0)
        join()
    await asyncio.sleep(1.0)
    members[0].cancel()  # in the middle of whatever it does
    await feeding
    wanted = {f"R{round_}-{number}" for round_ in range(15) for number in range(40)}

    def stored() -> Any:
        from store import listing

        return store.read(lambda connection: list(listing.messages(connection, limit=100_000)))

    async def whole() -> bool:
        return {row["control_id"] for row in await stored()} == wanted

    await eventually(whole, 60)
    firsts = [row["control_id"] for row in await stored() if row["disposition"] != "duplicate"]
    assert len(firsts) == len(set(firsts)) == 600
    for member in members:
        member.cancel()
    await asyncio.gather(*members, return_exceptions=True)
    await store.close()


def _secured(broker: Any, password_file: Path) -> str:
    tls = broker.folder / "tls"
    return (
        f'bootstrap = "127.0.0.1:{(tls / "port").read_text().strip()}"\ntls = true\nca = "{tls / "ca.pem"}"\n'
        f'sasl = "PLAIN"\nusername = "lab"\npassword_file = "{password_file}"\n'
    )


async def test_tls_and_a_password_both_ways(broker: Any, start: Any, hl7: Any, received: Any) -> None:
    results, alerts = await broker.topic(1), await broker.topic(1)
    how = _secured(broker, broker.folder / "tls" / "password")
    running = await start(
        f'[kafka]\n{how}topics = ["{results}"]\n[[destination]]\nname = "topic"\nkind = "kafka"\n{how}topic = "{alerts}"\n'
    )
    await broker.send(results, hl7.oru(anc="0.84"))
    await received(running, 1)
    assert len(await broker.read(alerts, 1)) == 1


async def test_a_wrong_password_is_said_and_the_alert_waits(
    broker: Any, start: Any, hl7: Any, eventually: Any, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    how = _secured(broker, wrong)
    running = await start(
        f'[kafka]\n{how}topics = ["any"]\n[[destination]]\nname = "topic"\nkind = "kafka"\n{how}topic = "any"\n'
    )
    assert await running.tell(hl7.oru(anc="0.84")) == ["AA"]

    async def said() -> bool:
        _, state = await running.engine.readiness()
        return "password refused" in state["kafka"]["state"] and state["destinations"]["topic"] == "down"

    await eventually(said, 30)
    (waiting,) = [row for row in await running.deliveries() if row["destination"] == "topic"]
    assert waiting["state"] == "waiting"


@pytest.mark.parametrize("kind", ["topic", "group"])
async def test_a_right_that_is_missing_is_said_and_its_records_are_read_once_it_is_given(
    kind: str, broker: Any, start: Any, hl7: Any, received: Any, eventually: Any
) -> None:
    topic = await broker.topic(1)
    how = _secured(broker, broker.folder / "tls" / "password")
    await broker.send(topic, hl7.oru("K1"))
    async with broker.forbidden(kind, topic, "read"):
        running = await start(f'[kafka]\n{how}topics = ["{topic}"]\ngroup = "{topic}"\n')
        await eventually(lambda: _state(running, "not authorised"), 60)
        # The other doors are not held by it, and the log is not filled with it.
        assert await running.tell(hl7.oru("M1", filler="B3")) == ["AA"]
        told = (await running.engine._metrics()).decode()
        assert 'neutroflag_notices_total{channel="kafka",event="not_authorised"} 1.0' in told
    await received(running, 2)
    await eventually(lambda: _state(running, "consuming"), 30)
    assert sorted(row["control_id"] for row in await running.messages()) == ["K1", "M1"]


async def test_an_alert_waits_for_the_right_to_its_topic(broker: Any, start: Any, hl7: Any, eventually: Any) -> None:
    alerts = await broker.topic(1)
    how = _secured(broker, broker.folder / "tls" / "password")
    async with broker.forbidden("topic", alerts, "write"):
        running = await start(
            f'[[destination]]\nname = "topic"\nkind = "kafka"\n{how}topic = "{alerts}"\n'
            "retry_first_s = 0.05\nretry_longest_s = 0.5\n"
        )
        await running.tell(hl7.oru(anc="0.84"))

        async def down() -> bool:
            (waiting,) = [row for row in await running.deliveries() if row["destination"] == "topic"]
            _, state = await running.engine.readiness()
            return waiting["state"] == "waiting" and bool(state["destinations"]["topic"] == "down")

        await eventually(down, 30)
    assert len(await broker.read(alerts, 1)) == 1
    await running.settled()
    assert {row["state"] for row in await running.deliveries()} == {"delivered"}


async def test_a_record_that_is_too_large_stops_nothing_in_either_direction(
    broker: Any, start: Any, hl7: Any, received: Any
) -> None:
    """In: larger than what one fetch asks for. Out: larger than the topic takes, a dead letter for a person."""
    results = await broker.topic(1, **{"max.message.bytes": "8000000"})
    small = await broker.topic(1, **{"max.message.bytes": "500"})
    running = await start(_in(broker, results, group=results) + _out(broker, small))
    large = hl7.oru("K1", anc="2.60") + b"NTE|1||" + b"x" * 4_000_000 + b"\r"
    # What the sender said of its kind is not believed: the bytes tell.
    said = [("content-type", b"application/fhir+json")]
    await broker.send(results, large, hl7.oru("K2", anc="0.84", filler="B3"), headers=said)
    await received(running, 2)
    await running.settled()
    assert await running.dispositions() == ["judged", "judged"]
    dead = [row for row in await running.deliveries() if row["destination"] == "topic"]
    assert {(row["state"], row["code"]) for row in dead} == {("dead", "record-too-large")}
    assert {row["state"] for row in await running.deliveries() if row["destination"] != "topic"} == {"delivered"}
