"""How much a server is given, level by level: judged by foreign validators, sent over real sockets, changed with care."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from emitters.check import judge_fhir
from emitters.fhir import FhirProfile, Level, encode, transaction
from emitters.fhir_levels import may_choose_ids, missing, proposed
from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.sink import Delivered, Refused
from engine.prescriber import Prescriber
from rules.model import AlertFamily, AlertKind, AlertLevel, ResultStatus, Subject
from rules.silence import ENDED

OWNER = "Organization/ward-3"
MOVED = date(2026, 12, 1)


def build(alert, level: Level, **settings: Any) -> dict[str, Any]:
    profile = FhirProfile(owner=OWNER, level=level, **settings)
    patient = "Patient/p1" if alert.subject.register_id else None
    return transaction(alert, patient_reference=patient, settings=profile)


def kinds(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["resourceType"] for entry in bundle["entry"]]


def of(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]
    return found


@pytest.mark.parametrize("level", list(Level))
def test_every_alert_at_every_level_is_valid_by_two_foreign_judges(make, every_alert, foreign_errors, level):
    for alert in every_alert:
        for settings in ({}, {"document": True}) if level is Level.L0 else ({},):
            bundle = build(alert, level, **settings)
            assert judge_fhir(encode(bundle)) == []
    for alert in (make.alert(), make.later(kind=AlertKind.WITHDRAWN, reason="corrected"), make.review()):
        assert foreign_errors(build(alert, level)) == []


def test_a_stop_at_the_highest_level_says_everything_once(make):
    bundle = build(make.alert(), Level.L3)
    assert kinds(bundle) == [
        "Device", "Observation", "Flag", "DetectedIssue", "CommunicationRequest", "ServiceRequest", "Task", "Provenance",
    ]  # fmt: skip
    urls = {entry["resource"]["resourceType"]: entry["fullUrl"] for entry in bundle["entry"]}
    task, flag, issue = of(bundle, "Task"), of(bundle, "Flag"), of(bundle, "DetectedIssue")
    assert task["focus"] == {"reference": urls["CommunicationRequest"]}
    assert {"url": flag["extension"][-1]["url"], "valueReference": {"reference": urls["DetectedIssue"]}} in flag[
        "extension"
    ]
    assert (issue["status"], issue["severity"]) == ("final", "high")
    assert issue["evidence"][0]["detail"] == [{"reference": urls["Observation"]}]
    assert issue["reference"].endswith("/rules/ansm/2025-09/R5")
    request = of(bundle, "CommunicationRequest")
    assert (request["priority"], request["status"]) == ("stat", "active")
    assert "arrêter la clozapine" in request["payload"][0]["contentString"]
    proposal = of(bundle, "ServiceRequest")
    assert (proposal["intent"], proposal["occurrencePeriod"]) == ("proposal", {"end": "2026-11-23"})
    targets = [one["reference"] for one in of(bundle, "Provenance")["target"]]
    assert set(targets) == {url for kind, url in urls.items() if kind not in ("Device", "Provenance")}


def test_the_next_count_is_a_task_on_a_proposal_and_makes_no_noise_besides(make):
    bundle = build(make.alert(family=AlertFamily.MILD, level=AlertLevel.AMBER), Level.L3)
    assert "CommunicationRequest" not in kinds(bundle)
    (proposal,) = [one["fullUrl"] for one in bundle["entry"] if one["resource"]["resourceType"] == "ServiceRequest"]
    task = of(bundle, "Task")
    assert task["focus"] == {"reference": proposal}
    assert task["code"]["coding"][0]["code"] == "NEXT-ANC"
    assert of(bundle, "DetectedIssue")["severity"] == "moderate"


def test_what_could_not_be_judged_is_a_preliminary_issue_and_no_flag(make):
    bundle = build(make.review(), Level.L3)
    assert of(bundle, "DetectedIssue")["status"] == "preliminary"
    assert not {"Flag", "ServiceRequest", "CommunicationRequest"} & set(kinds(bundle))
    assert "DetectedIssue" not in kinds(build(make.review(subject=Subject(register_id="")), Level.L3))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "final"),
        ({"kind": AlertKind.UPDATED}, "final"),
        ({"kind": AlertKind.WITHDRAWN, "reason": "corrected"}, "corrected"),
        ({"kind": AlertKind.WITHDRAWN, "reason": "entered-in-error"}, "entered-in-error"),
        ({"kind": AlertKind.WITHDRAWN, "reason": ENDED}, "amended"),
    ],
)
def test_the_issue_says_what_became_of_the_evidence(make, change, status):
    assert of(build(make.alert(**change), Level.L3), "DetectedIssue")["status"] == status
    corrected = make.alert(kind=AlertKind.UPDATED, result=make.result(status=ResultStatus.CORRECTED))
    assert of(build(corrected, Level.L3), "DetectedIssue")["status"] == "corrected"
    provisional = make.alert(assessment=make.assessment(provisional=True))
    assert of(build(provisional, Level.L3), "DetectedIssue")["status"] == "preliminary"


@pytest.mark.parametrize(
    ("level", "document", "kind"),
    [
        (Level.L0, False, "Communication"),
        (Level.L0, True, "DocumentReference"),
        (Level.L1, False, "CommunicationRequest"),
    ],
)
def test_the_lowest_levels_are_one_text_that_stands_alone(make, level, document, kind):
    bundle = build(make.alert(), level, document=document)
    assert kinds(bundle) == [kind]
    resource = of(bundle, kind)
    text = (
        base64.b64decode(resource["content"][0]["attachment"]["data"]).decode()
        if document
        else resource["payload"][0]["contentString"]
    )
    assert text.startswith("PNN 0,84 G/L : arrêter la clozapine immédiatement")
    assert "NFS demain" in text
    assert resource["subject"] == {"reference": "Patient/p1"}


def statement(*types: str, interactions: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> dict[str, Any]:
    rest: dict[str, Any] = {
        "mode": "server",
        "resource": [
            {"type": kind, "interaction": [{"code": code} for code in own], "updateCreate": True} for kind in types
        ],
    }
    if interactions:
        rest["interaction"] = [{"code": code} for code in interactions]
    return {"resourceType": "CapabilityStatement", "rest": [rest]}


L2_TYPES = ("Device", "Flag", "Observation", "Provenance", "Task")


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (statement(*L2_TYPES, "DetectedIssue", "CommunicationRequest", "ServiceRequest"), Level.L3),
        (statement(*L2_TYPES, "CommunicationRequest"), Level.L2),
        (statement("Flag", "CommunicationRequest"), Level.L1),
        (statement("Communication", "Patient"), Level.L0),
        (statement("DocumentReference"), Level.L0),
        (statement("Patient"), None),
        (statement(), None),
        ({}, None),
        (statement(*L2_TYPES, own=("read", "search-type")), None),
        (statement(*L2_TYPES, own=("read", "create")), Level.L2),
        (statement(*L2_TYPES, interactions=("batch",)), None),
        (statement(*L2_TYPES, interactions=("batch", "transaction")), Level.L2),
    ],
)
def test_the_statement_proposes_the_highest_level_that_it_can_take(said, level):
    assert proposed(said) is level


def test_what_is_missing_is_named_and_ids_are_ours_only_where_all_types_allow_it():
    assert missing(statement("Flag", "Device", "Observation"), Level.L2) == ["Provenance", "Task"]
    assert may_choose_ids(statement(*L2_TYPES), Level.L2)
    assert not may_choose_ids(statement("Flag"), Level.L2)
    # A Task is never written over by an id of ours, so it need not allow it.
    assert may_choose_ids(statement("Device", "Flag", "Observation", "Provenance"), Level.L2)


def sink_to(ehr: Prescriber, level: Level | None) -> FhirServer:
    return FhirServer(FhirServerSettings(name="ehr", url=ehr.url, timeout_s=2, level=level))


async def give(sink: FhirServer, *alerts) -> None:
    for alert in alerts:
        for _ in range(2):  # each twice: a retry after a lost answer
            assert isinstance(await sink.send(alert, "x"), Delivered)


async def test_requests_follow_the_alert_and_are_never_doubled(ehr, make):
    sink = sink_to(ehr, Level.L3)
    later = make.later(assessment=make.assessment(next_due=MOVED))
    await give(sink, make.alert(), later)
    (proposal,) = ehr.fhir.all("ServiceRequest")
    assert proposal["occurrencePeriod"] == {"end": "2026-12-01"}
    first, second = ehr.fhir.all("CommunicationRequest")
    assert (first["status"], second["status"]) == ("revoked", "active")
    assert second["replaces"] == [{"reference": f"CommunicationRequest/{first['id']}"}]
    await give(sink, replace(later, revision=3, kind=AlertKind.WITHDRAWN, reason="entered-in-error"))
    assert [one["status"] for one in ehr.fhir.all("ServiceRequest")] == ["entered-in-error"]
    assert [one["status"] for one in ehr.fhir.all("CommunicationRequest")] == ["revoked", "entered-in-error", "active"]
    assert [one["status"] for one in ehr.fhir.all("DetectedIssue")] == ["entered-in-error"]
    assert ehr.fhir.doubled() == 0
    await sink.close()


async def test_what_somebody_took_up_is_left_alone_and_asked_anew_beside_it(ehr, make):
    sink = sink_to(ehr, Level.L3)
    await give(sink, make.alert())
    for kind in ("ServiceRequest", "CommunicationRequest"):
        (one,) = ehr.fhir.all(kind)
        ehr.fhir._store(kind, one["id"], one | {"status": "completed"})
    await give(sink, make.later(assessment=make.assessment(next_due=MOVED)))
    assert [(one["status"], one["occurrencePeriod"]["end"]) for one in ehr.fhir.all("ServiceRequest")] == [
        ("completed", "2026-11-23"),
        ("active", "2026-12-01"),
    ]
    assert [one["status"] for one in ehr.fhir.all("CommunicationRequest")] == ["completed", "active"]
    await sink.close()


@pytest.mark.parametrize(
    ("level", "kind", "statuses"),
    [
        (Level.L1, "CommunicationRequest", ["revoked", "entered-in-error", "active"]),
        (Level.L0, "Communication", ["entered-in-error", "entered-in-error", "completed"]),
    ],
)
async def test_at_the_lowest_levels_each_notification_takes_the_place_of_the_last(ehr, make, level, kind, statuses):
    sink = sink_to(ehr, level)
    wrong = make.later(revision=3, kind=AlertKind.WITHDRAWN, reason="entered-in-error")
    await give(sink, make.alert(), make.later(), wrong)
    assert [one["status"] for one in ehr.fhir.all(kind)] == statuses
    assert not ehr.flags()
    assert not ehr.tasks()
    older = await sink.send(make.later(), "x")
    assert older == Delivered("superseded: revision 3 stands")
    await sink.close()


async def test_without_a_level_the_statement_decides_and_asks_no_more_of_people_than_tasks(ehr, make):
    sink = sink_to(ehr, None)
    await give(sink, make.alert())
    assert ehr.tasks()
    assert not ehr.fhir.all("ServiceRequest")
    await sink.close()
    del ehr.fhir.held["Task"]
    sink = sink_to(ehr, None)
    await give(sink, make.alert())
    assert len(ehr.fhir.all("CommunicationRequest")) == 1
    await sink.close()


async def test_a_level_that_the_server_does_not_offer_is_for_a_person(ehr, make):
    del ehr.fhir.held["Task"]
    sink = sink_to(ehr, Level.L2)
    answer = await sink.send(make.alert(), "x")
    assert answer == Refused("emission-level", "level L2 is set and the server offers L1: no Task")
    await sink.close()


async def test_a_device_that_stood_before_under_another_id_is_used_and_not_doubled(ehr, make):
    ehr.fhir.update_create = False
    sink = sink_to(ehr, Level.L2)
    await give(sink, make.alert(id="a"))
    await sink.close()
    ehr.fhir.update_create = True
    sink = sink_to(ehr, Level.L2)
    await give(sink, make.alert(id="b", result=make.result(key="another")))
    await sink.close()
    assert len(ehr.fhir.all("Device")) == 1


def test_a_bundle_is_json_with_exact_decimals_at_every_level(make):
    assert b'"value":0.84,' in encode(build(make.alert(), Level.L3))
    assert json.loads(encode(build(make.alert(), Level.L0)))["type"] == "transaction"


@pytest.mark.parametrize(("level", "kind"), [(Level.L0, "Communication"), (Level.L1, "CommunicationRequest")])
async def test_a_copy_for_a_second_recipient_is_a_text_of_its_own(ehr, make, level, kind):
    sink = sink_to(ehr, level)
    await give(sink, make.alert(), make.alert(recipient="pharmacist"), make.later(), make.later(recipient="pharmacist"))
    assert len(ehr.fhir.all(kind)) == 4
    assert ehr.fhir.doubled() == 0
    await sink.close()
