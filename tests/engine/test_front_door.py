"""The whole way of a result, by real doors: laboratory in, prescriber out, on one engine with a simulated prescriber."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

from tests.plain import PLAIN
from wire.er7 import parse


@pytest.fixture
def url(each_database: str) -> str:
    """Promised on both."""
    return each_database


def codes(resource: dict[str, Any]) -> set[str]:
    return {coding["code"] for coding in resource["code"]["coding"]}


async def post(url: str, body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(verify=PLAIN, trust_env=False) as client:
        return await client.post(
            f"{url}/fhir", content=json.dumps(body).encode(), headers={"content-type": "application/fhir+json"}
        )


def levels_of(prescriber: Any) -> list[str]:
    return [flag["status"] for flag in prescriber.flags()]


# Counts that alarm


async def test_a_critical_count_reaches_the_prescriber_as_flag_task_and_hl7(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    assert await running.tell(hl7.oru("M1", anc="0.84")) == ["AA"]
    await running.settled()
    flag = prescriber.flags()[0]
    assert flag["status"] == "active"
    assert flag["subject"]["reference"] == "Patient/p1"
    assert len(prescriber.flags()) == len(prescriber.tasks()) == 1
    assert prescriber.tasks()[0]["status"] == "requested"
    (message,) = prescriber.messages().values()
    alert = parse(message)
    assert alert is not None
    assert alert.header.message_code == "ORU"
    assert b"405660" in message
    assert await running.dispositions() == ["judged"]
    assert await running.findings() == []


async def test_a_sound_count_alarms_nobody(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(hl7.oru("M1", anc="2.50"))
    await running.settled()
    assert prescriber.flags() == prescriber.tasks() == []
    assert prescriber.messages() == {}


async def test_the_same_message_twice_gives_one_alert_and_the_same_answer(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    raw = hl7.oru("M1", anc="0.84")
    assert await running.tell(raw, raw) == ["AA", "AA"]
    await running.settled()
    assert len(prescriber.messages()) == len(prescriber.flags()) == len(prescriber.tasks()) == 1
    assert await running.dispositions() == ["judged", "duplicate"]


async def test_the_same_result_in_a_new_message_says_nothing_new(running: Any, hl7: Any, prescriber: Any) -> None:
    first = hl7.oru("M1", anc="0.84")
    await running.tell(first, first.replace(b"|M1|", b"|M2|"))
    await running.settled()
    assert len(prescriber.messages()) == 1
    assert await running.dispositions() == ["judged", "judged"]


async def test_one_fact_by_hl7_and_by_fhir_is_one_alert(
    running: Any, hl7: Any, fhir: Any, prescriber: Any, before: Any
) -> None:
    drawn = before(hours=2)
    await running.tell(hl7.oru("M1", anc="0.840", collected=drawn))
    answer = await post(running.url, fhir.observation("0.84", collected=drawn))
    assert answer.status_code == 201
    await running.settled()
    assert len(prescriber.messages()) == len(prescriber.flags()) == 1


async def test_a_corrected_count_withdraws_what_rested_on_it(running: Any, hl7: Any, prescriber: Any) -> None:
    wrong = hl7.oru("M1", anc="0.84", filler="B1")
    right = hl7.oru("M2", anc="2.84", filler="B1", status="C")
    await running.tell(wrong, right)
    await running.settled()
    assert levels_of(prescriber) == ["inactive"]
    # Whoever may have acted on the stop has a decision to review; nobody but a person closes that.
    assert sorted((*sorted(codes(task) - {"fulfill"}), task["status"]) for task in prescriber.tasks()) == [
        ("ACK-STOP", "cancelled"),
        ("REVIEW-DECISION", "requested"),
    ]
    assert len(prescriber.messages()) == 3


async def test_a_result_of_the_wrong_patient_is_withdrawn_as_entered_in_error(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    await running.tell(
        hl7.oru("M1", anc="0.84", filler="B1"),
        hl7.oru("M2", anc='""', filler="B1", status="W"),
    )
    await running.settled()
    assert levels_of(prescriber) == ["entered-in-error"]


async def test_a_correction_to_a_worse_count_updates_the_one_alert(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(
        hl7.oru("M1", anc="0.84", filler="B1"),
        hl7.oru("M2", anc="0.40", filler="B1", status="C"),
    )
    await running.settled()
    assert [flag["status"] for flag in prescriber.flags() if "ANC-STOP" in codes(flag)] == ["active"]
    assert len(prescriber.messages()) == 2
    assert all(row["state"] == "delivered" for row in await running.deliveries())
    assert prescriber.fhir.doubled() == 0


# Doubt


async def test_a_provisional_count_raises_an_alert(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", status="P"))
    await running.settled()
    assert levels_of(prescriber) == ["active"]


async def test_a_provisional_count_lowers_nothing(running: Any, hl7: Any, prescriber: Any, before: Any) -> None:
    # Both of one day, whatever the hour: a count of a later day has an alert of its own.
    paris = datetime.now(ZoneInfo("Europe/Paris"))
    first = before(hours=3) if paris.hour >= 3 else (paris - timedelta(days=1)).replace(hour=20)
    await running.tell(
        hl7.oru("M1", anc="0.84", filler="B1", collected=first),
        hl7.oru("M2", anc="3.00", filler="B2", collected=first + timedelta(hours=1), status="P"),
    )
    await running.settled()
    assert levels_of(prescriber) == ["active"]
    assert len(prescriber.messages()) == 1


async def test_a_preliminary_correction_does_not_withdraw_a_final_alert(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    await running.tell(
        hl7.oru("M1", anc="0.84", filler="B1", status="F"),
        hl7.oru("M2", anc="3.00", filler="B1", status="P"),
    )
    await running.settled()
    assert levels_of(prescriber) == ["active"]


async def test_a_count_without_unit_is_a_task_for_a_person(running: Any, hl7: Any, prescriber: Any) -> None:
    assert await running.tell(hl7.oru("M1", anc="0.84", unit="")) == ["AA"]
    await running.settled()
    (task,) = prescriber.tasks()
    assert "unit-missing" in json.dumps(task)
    assert task["for"]["reference"] == "Patient/p1"
    assert await running.dispositions() == ["unassessable"]


async def test_a_count_without_patient_is_a_task_about_nobody(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", patient=""))
    await running.settled()
    (task,) = prescriber.tasks()
    assert "for" not in task
    assert await running.dispositions() == ["unassessable"]


async def test_two_unreadable_counts_under_one_control_id_are_two_tasks(
    running: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    """Laboratories restart their counters: the same MSH-10 with other content is another message."""
    await running.tell(
        hl7.oru("1", anc="0.84", unit="", filler="B1", collected=before(hours=3)),
        hl7.oru("1", anc="0.44", unit="", filler="B2", collected=before(hours=2)),
    )
    await running.settled()
    assert await running.dispositions() == ["unassessable", "unassessable"]
    assert len(prescriber.tasks()) == 2


async def test_a_replay_of_an_unreadable_message_asks_nobody_twice(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(hl7.oru("1", anc="0.84", unit=""))
    assert await running.store.replay(1) == 2
    await running.settled()
    assert await running.dispositions() == ["unassessable", "unassessable"]
    assert len(prescriber.tasks()) == 1


async def test_a_replay_of_a_readable_message_changes_nothing(running: Any, hl7: Any, prescriber: Any) -> None:
    await running.tell(hl7.oru("1", anc="0.84"))
    assert await running.store.replay(1) == 2
    await running.settled()
    assert await running.dispositions() == ["judged", "judged"]
    assert len(prescriber.messages()) == len(prescriber.tasks()) == 1


# Whose


async def test_a_stranger_is_kept_until_the_register_knows_them_then_alerts_on_the_present_state(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    prescriber.add_patient(("urn:oid:1.2.3", "777"), id_="p7")
    await running.tell(hl7.oru("M1", anc="0.84", patient="777^^^CHX&1.2.3&ISO^PI"))
    assert await running.dispositions() == ["unenrolled"]
    assert prescriber.flags() == []
    report = await running.enrol("777")
    assert report.complaints == []
    await running.settled()
    (flag,) = prescriber.flags()
    assert flag["subject"]["reference"] == "Patient/p7"


async def test_ninety_days_of_history_alert_on_the_present_state_only(
    running: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    await running.tell(
        *(
            hl7.oru(f"H{days}", anc="1.20" if days == 60 else "2.50", filler=f"B{days}", collected=before(days=days))
            for days in range(90, 1, -10)
        )
    )
    await running.settled()
    assert prescriber.flags() == []
    await running.tell(hl7.oru("H2", anc="1.30", filler="B2", collected=before(days=2)))
    await running.settled()
    assert len(prescriber.flags()) == 1
    assert len(prescriber.messages()) == 1


async def test_history_that_ends_in_a_stop_count_alerts_once(
    running: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    await running.tell(
        *(
            hl7.oru(f"H{days}", anc="0.70" if days == 5 else "2.50", filler=f"B{days}", collected=before(days=days))
            for days in (26, 19, 12, 5)
        )
    )
    await running.settled()
    assert levels_of(prescriber) == ["active"]
    assert len(prescriber.messages()) == 1


async def test_an_identifier_without_its_authority_may_raise_and_never_reassures(
    running: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", patient="405660", filler="B1", collected=before(hours=3)))
    await running.settled()
    assert levels_of(prescriber) == ["active"]
    await running.tell(hl7.oru("M2", anc="3.10", patient="405660", filler="B2", collected=before(hours=2)))
    await running.settled()
    stops = [flag for flag in prescriber.flags() if "ANC-STOP" in codes(flag)]
    assert [flag["status"] for flag in stops] == ["active"]


# What must never go out


async def test_a_test_message_is_answered_stored_and_never_delivered(running: Any, hl7: Any, prescriber: Any) -> None:
    assert await running.tell(hl7.oru("T1", anc="0.40", processing="T")) == ["AA"]
    await running.settled()
    assert prescriber.flags() == prescriber.tasks() == []
    assert await running.dispositions() == ["judged"]


async def test_a_test_message_that_cannot_be_read_is_never_delivered_either(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    await running.tell(
        hl7.oru("T1", anc="0.40", unit="", processing="T"),
        hl7.oru("T2", anc="0.40", patient="", processing="T"),
        hl7.oru("T3", anc="0.40", unit="", processing="D"),
    )
    await running.settled()
    assert prescriber.tasks() == []
    assert prescriber.messages() == {}
    assert await running.dispositions() == ["unassessable"] * 3


async def test_observe_mode_judges_and_delivers_nothing(
    run_engine: Callable[..., Awaitable[Any]], hl7: Any, prescriber: Any
) -> None:
    running = await run_engine(mode="observe")
    await running.enrol()
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    assert prescriber.flags() == prescriber.tasks() == []
    assert prescriber.messages() == {}
    snapshot = await running.store.snapshot()
    assert snapshot.alerts_open == {"red": 1}
    assert await running.dispositions() == ["judged"]


# The register by FHIR


def person() -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.3", "value": "900"}],
        "name": [{"family": "EXEMPLE", "given": ["Camille"]}],
        "gender": "female",
        "birthDate": "1990-02-03",
    }


def treatment(start: str, **elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": {"coding": [{"system": "http://www.whocc.no/atc", "code": "N05AH02"}]},
        "subject": {"reference": "urn:uuid:00000000-0000-4000-8000-000000000000"},
        "effectivePeriod": {"start": start},
        "informationSource": {"display": "Dr A. Hoda"},
    } | elements


def benign(recorder: str) -> dict[str, Any]:
    condition: dict[str, Any] = {
        "resourceType": "Condition",
        "verificationStatus": {"coding": [{"code": "confirmed"}]},
        "code": {"coding": [{"system": "https://example.org/CodeSystem/anc-context", "code": "BEN"}]},
        "subject": {"reference": "urn:uuid:00000000-0000-4000-8000-000000000000"},
        "recordedDate": "2026-05-02",
    }
    return condition | ({"recorder": {"display": recorder}} if recorder else {})


async def course_of(running: Any, value: str) -> Any:
    from rules.model import PatientIdentifier

    (record,) = await running.store.patients([PatientIdentifier(value, "urn:oid:1.2.3", "PI")])
    return record


async def test_the_register_is_fed_by_patient_and_medication_statement(
    running: Any, hl7: Any, fhir: Any, prescriber: Any, before: Any
) -> None:
    prescriber.add_patient(("urn:oid:1.2.3", "900"), id_="p9")
    start = before(days=30).date().isoformat()
    answer = await post(running.url, fhir.bundle("transaction", person(), treatment(start)))
    assert answer.status_code == 200
    await running.judged()
    record = await course_of(running, "900")
    assert record.enrolled
    assert record.course.start.isoformat() == start
    assert record.course.start_confirmed_by == "Dr A. Hoda"
    assert record.person.family == "EXEMPLE"
    await running.tell(hl7.oru("M1", anc="0.84", patient="900^^^CHX&1.2.3&ISO^PI"))
    await running.settled()
    assert [flag["subject"]["reference"] for flag in prescriber.flags()] == ["Patient/p9"]


async def test_a_text_that_says_clozapine_starts_no_monitoring(running: Any, fhir: Any) -> None:
    said = treatment("2026-07-01", medicationCodeableConcept={"text": "LEPONEX 100 mg"})
    await post(running.url, fhir.bundle("collection", person(), said))
    await running.judged()
    assert not (await course_of(running, "900")).enrolled


async def test_benign_neutropenia_counts_only_when_a_named_person_confirmed_it(running: Any, fhir: Any) -> None:
    await post(running.url, fhir.bundle("collection", person(), treatment("2026-07-01"), benign("")))
    await running.judged()
    assert (await course_of(running, "900")).course.ben is None
    await post(running.url, fhir.bundle("collection", person(), benign("Dr A. Hoda")))
    await running.judged()
    assert (await course_of(running, "900")).course.ben.by == "Dr A. Hoda"


# What breaks


async def test_a_message_that_cannot_be_judged_is_set_aside_and_the_rest_are_judged(
    running: Any, hl7: Any, prescriber: Any
) -> None:
    """This patient's protocol is gone from the package: whatever is judged about them fails inside."""
    await break_the_protocol_of(running, "777")
    prescriber.add_patient(("urn:oid:1.2.3", "777"), id_="p7")
    answers = await running.tell(
        hl7.oru("M1", anc="2.50", filler="B1"),
        hl7.oru("M2", anc="0.84", filler="B2", patient="777^^^CHX&1.2.3&ISO^PI"),
        hl7.oru("M3", anc="0.84", filler="B3"),
    )
    await running.settled()
    assert answers == ["AA", "AA", "AA"]
    assert await running.dispositions() == ["judged", "set_aside", "judged"]
    assert (await running.messages(disposition="set_aside"))[0]["reason"].startswith("internal-error")
    assert len(prescriber.flags()) >= 1
    assert any("internal-error" in json.dumps(task) for task in prescriber.tasks())
    assert await running.findings() == []


async def test_one_patient_whose_state_cannot_be_judged_does_not_end_the_engine(
    running: Any, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    prescriber.add_patient(("urn:oid:1.2.3", "777"), id_="p7")
    await break_the_protocol_of(running, "777", look_anew=True)
    await eventually(running.settled_register)
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    assert not running.engine.failed.done()
    assert levels_of(prescriber) == ["active"]
    assert any("internal-error" in json.dumps(task) for task in prescriber.tasks())


async def break_the_protocol_of(running: Any, value: str, *, look_anew: bool = False) -> None:
    import dataclasses
    from datetime import UTC, datetime

    from store.port import Work

    await running.enrol(value)
    record = await course_of(running, value)
    record.course = dataclasses.replace(record.course, protocol="ansm@1999-01")
    record.settle_at = datetime.now(UTC) if look_anew else None
    assert await running.store.record(Work(patients={record.id: record})) is None


async def test_every_message_ends_in_one_disposition_and_every_observation_in_one_outcome(
    running: Any, hl7: Any, fhir: Any
) -> None:
    duplicate = hl7.oru("M1", anc="2.50", filler="B1")
    await running.tell(
        duplicate,
        duplicate,
        hl7.oru("M2", anc="1.20", filler="B2", patient="777^^^CHX&1.2.3&ISO^PI"),
        hl7.oru("M3", unit="", filler="B3"),
        hl7.other("ADT^A01", "M4"),
        hl7.other("ORM^O01", "M5"),
        b"not a message at all",
    )
    await post(running.url, {"resourceType": "Nonsense"})
    await post(running.url, fhir.bundle("collection", fhir.observation("2.5", identifier="r-9")))
    await running.settled()
    assert sorted(await running.dispositions()) == [
        "duplicate",
        "judged",
        "judged",
        "not_relevant",
        "not_relevant",
        "set_aside",
        "set_aside",
        "unassessable",
        "unenrolled",
    ]
    assert await running.findings() == []
