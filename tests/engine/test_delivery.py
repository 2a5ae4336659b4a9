"""Destinations that are down, refuse, or come back: delivered once, in order, or listed for a person."""

from __future__ import annotations

from typing import Any


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


async def test_one_destination_that_is_down_does_not_hold_the_other(
    run_engine: Any, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    extra = '[[destination]]\nname = "gone"\nkind = "mllp"\nhost = "127.0.0.1"\nport = 1\n'
    running = await run_engine(extra=extra)
    await running.enrol()
    await running.tell(hl7.oru("M1", anc="0.84"))
    await eventually(lambda: prescriber.flags() and prescriber.messages())

    async def left() -> bool:
        return {row["destination"] for row in await running.deliveries(state="waiting")} == {"gone"}

    await eventually(left)


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
