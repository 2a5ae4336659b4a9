"""What the clock says goes out as what it is: a connection to check is about no patient, and a reminder that ends takes
nothing back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emitters.check import judge_fhir, judge_v2
from emitters.fhir import FhirProfile, encode, transaction
from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.fhir_tasks import StandingTask
from emitters.hl7v2 import V2Profile, alert_message
from emitters.sink import Delivered
from rules.model import AlertFamily, AlertKind, AlertLevel, Subject
from rules.silence import DESTINATION_DOWN, ENDED, FEED_SILENT

PROFILE = FhirProfile(owner="Organization/ward-3", update_create=True)


def system(make: Any, **other: Any) -> Any:
    given: dict[str, Any] = {
        "subject": Subject(register_id=""),
        "title": "Plus de messages de LABO (mllp)",
        "text": "Surveillance technique, aucun patient en particulier.",
        "reason": FEED_SILENT,
        "where": "",
        "source": "",
    }
    return make.review(**given | other)


def ended(make: Any) -> Any:
    return make.later(
        family=AlertFamily.OVERDUE,
        level=AlertLevel.AMBER,
        kind=AlertKind.WITHDRAWN,
        reason=ENDED,
        title="CLOS : numération en retard",
        text="La numération qui manquait est arrivée.",
        result=None,
        assessment=make.assessment(category="normal", rule="R3a", threshold_per_mm3=None),
    )


def tasks(bundle: bytes) -> list[dict[str, Any]]:
    resources = [entry["resource"] for entry in json.loads(bundle)["entry"]]
    return [resource for resource in resources if resource["resourceType"] == "Task"]


@pytest.mark.parametrize("reason", [FEED_SILENT, DESTINATION_DOWN])
def test_a_quiet_connection_is_a_task_about_no_patient_and_no_result(make: Any, reason: str) -> None:
    bundle = encode(transaction(system(make, reason=reason), patient_reference=None, settings=PROFILE))
    assert judge_fhir(bundle) == []
    (task,) = tasks(bundle)
    assert task["code"]["coding"][0]["code"] == "CHECK-CONNECTION"
    assert "for" not in task
    assert "focus" not in task
    assert b'"Flag"' not in bundle
    assert b'"Observation"' not in bundle


@pytest.mark.parametrize("kind", [AlertKind.RAISED, AlertKind.UPDATED, AlertKind.WITHDRAWN])
def test_a_quiet_connection_in_hl7_names_no_patient_and_no_result(make: Any, kind: AlertKind) -> None:
    message = alert_message(system(make, kind=kind), control_id="C1", profile=V2Profile())
    assert judge_v2(message) == []
    assert b"PID|" not in message
    assert "liaison à vérifier".encode() in message
    assert "Résultat à relire".encode() not in message
    assert (b"ANC-ENDED" in message) is (kind is AlertKind.WITHDRAWN)


def test_a_reminder_that_ends_says_so_and_takes_nothing_back(make: Any) -> None:
    message = alert_message(ended(make), control_id="C1", profile=V2Profile())
    assert judge_v2(message) == []
    assert b"ANC-ENDED^ALERTE CLOSE" in message
    assert "ANNULÉE".encode() not in message


def test_a_reminder_that_ends_closes_its_flag_and_its_task_and_asks_nobody_to_review_a_decision(make: Any) -> None:
    done = {
        "resourceType": "Task",
        "id": "t1",
        "status": "in-progress",
        "intent": "order",
        "meta": {"versionId": "2"},
    }
    bundle = encode(
        transaction(
            ended(make), patient_reference="Patient/p1", settings=PROFILE, standing=[StandingTask(dict(done), "2")]
        )
    )
    assert judge_fhir(bundle) == []
    (task,) = tasks(bundle)
    assert (task["id"], task["status"]) == ("t1", "in-progress")  # a person has it in hand: a note, and no more
    untouched = StandingTask(dict(done, status="requested"), "2")
    bundle = encode(transaction(ended(make), patient_reference="Patient/p1", settings=PROFILE, standing=[untouched]))
    (task,) = tasks(bundle)
    assert task["status"] == "cancelled"
    assert task["statusReason"]["coding"][0]["code"] == "NO-LONGER-MISSING"
    flags = [entry["resource"] for entry in json.loads(bundle)["entry"] if entry["resource"]["resourceType"] == "Flag"]
    assert [flag["status"] for flag in flags] == ["inactive"]


async def test_a_server_takes_the_task_about_a_connection_and_its_end(make: Any, ehr: Any) -> None:
    server = FhirServer(FhirServerSettings(name="ehr", url=ehr.url, profile=FhirProfile()))
    try:
        assert isinstance(await server.send(system(make), "C1"), Delivered)
        back = system(make, revision=2, kind=AlertKind.WITHDRAWN, title="CLOS : Plus de messages de LABO (mllp)")
        assert isinstance(await server.send(back, "C2"), Delivered)
    finally:
        await server.close()
    assert [task["status"] for task in ehr.tasks()] == ["cancelled"]
    assert ehr.flags() == []
