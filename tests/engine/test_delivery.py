"""Destinations that are down, refuse, or come back: delivered once, in order, or listed for a person."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.fixture
def url(each_database: str) -> str:
    """The flow is the same on both."""
    return each_database


async def test_a_destination_that_was_down_gets_everything_once_and_in_order(
    running: Any, hl7: Any, prescriber: Any, before: Any, eventually: Any
) -> None:
    await prescriber.down()
    await running.tell(
        hl7.oru("M1", anc="1.30", filler="B1", collected=before(hours=4)),
        hl7.oru("M2", anc="0.84", filler="B2", collected=before(hours=3)),
        hl7.oru("M3", anc="0.40", filler="B3", collected=before(hours=2)),
    )
    waiting = await running.deliveries(state="waiting")
    assert {row["destination"] for row in waiting} == {"ehr", "ehr-v2"}
    await prescriber.up()
    await running.settled()
    sent = [row["control_id"] for row in await running.deliveries() if row["destination"] == "ehr-v2"]
    assert list(prescriber.messages()) == sent
    assert prescriber.duplicates == 0
    assert prescriber.fhir.doubled() == 0
    assert {row["state"] for row in await running.deliveries()} == {"delivered"}


@pytest.mark.parametrize("kind", ["mllp down", "mllp slow", "fhir slow"])
async def test_one_destination_that_is_down_or_slow_does_not_hold_the_other(
    run_engine: Any, hl7: Any, prescriber: Any, eventually: Any, kind: str
) -> None:
    held: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = 1 if "down" in kind else listener.sockets[0].getsockname()[1]
    place = f'url = "http://127.0.0.1:{port}/fhir"' if "fhir" in kind else f'host = "127.0.0.1"\nport = {port}'
    running = await run_engine(extra=f'[[destination]]\nname = "gone"\nkind = "{kind.split()[0]}"\n{place}\n')
    await running.enrol()
    await running.tell(hl7.oru("M1", anc="0.84"))
    await eventually(lambda: prescriber.flags() and prescriber.messages())

    async def left() -> bool:
        return {row["destination"] for row in await running.deliveries(state="waiting")} == {"gone"}

    await eventually(left)
    await eventually(lambda: bool(held) == ("slow" in kind))
    for writer in held:
        writer.close()
    listener.close()


async def test_an_alert_about_a_patient_unknown_to_the_destination_is_a_dead_letter_and_can_be_replayed(
    running: Any, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    await running.enrol("777")
    await running.tell(hl7.oru("M1", anc="0.84", patient="777^^^CHX&1.2.3&ISO^PI"))
    await running.settled()
    (dead,) = await running.deliveries(state="dead")
    assert dead["destination"] == "ehr"
    assert dead["words"]
    assert "777" not in dead["words"]
    assert prescriber.flags() == []
    prescriber.add_patient(("urn:oid:1.2.3", "777"), id_="p7")

    from store import outbox

    assert await running.store._writing.run(lambda connection: outbox.replay(connection, [dead["id"]], 0)) == [
        dead["id"]
    ]
    await eventually(prescriber.flags)
    await running.settled()
    assert prescriber.flags()[0]["subject"]["reference"] == "Patient/p7"
    assert await running.deliveries(state="dead") == []


async def test_a_refused_alert_does_not_hold_the_patients_later_ones(
    running: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    from engine.prescriber import AckFault

    prescriber.ack_faults.append(AckFault(code="AR"))
    await running.tell(
        hl7.oru("M1", anc="1.30", filler="B1", collected=before(hours=3)),
        hl7.oru("M2", anc="0.84", filler="B2", collected=before(hours=2)),
    )
    await running.settled()
    states = [row["state"] for row in await running.deliveries() if row["destination"] == "ehr-v2"]
    assert states[0] == "dead"
    assert set(states[1:]) == {"delivered"}
