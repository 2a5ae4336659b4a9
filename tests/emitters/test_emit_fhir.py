"""What a transaction says, judged by two foreign validators and by our own invariants."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from emitters.check import judge_fhir
from emitters.counts import giga_per_litre
from emitters.fhir import FhirProfile, StandingTask, encode, transaction
from rules.model import AlertFamily, AlertKind, AlertLevel, ResultStatus, Subject, Trust

PROFILE = FhirProfile(owner="Organization/ward-3")


def entry(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [one for one in bundle["entry"] if one["resource"]["resourceType"] == kind]
    return found


def resource(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return entry(bundle, kind)["resource"]


def kinds(bundle: dict[str, Any]) -> list[str]:
    return [one["resource"]["resourceType"] for one in bundle["entry"]]


def build(alert, *, patient="Patient/p1", settings=PROFILE, standing=()):
    return transaction(alert, patient_reference=patient, settings=settings, standing=standing)


def test_every_family_level_and_kind_is_valid_r4b(every_alert):
    for alert in every_alert:
        assert judge_fhir(encode(build(alert))) == []


@pytest.mark.parametrize("family", list(AlertFamily))
def test_a_second_validator_that_knows_required_codes_agrees(make, family, foreign_errors):
    alert = make.review(result=make.result()) if family is AlertFamily.REVIEW else make.alert(family=family)
    assert foreign_errors(build(alert)) == []


def test_the_second_validator_does_reject_a_wrong_required_code(make, foreign_errors):
    bundle = build(make.alert())
    resource(bundle, "Flag")["status"] = "activ"
    assert any("status" in error for error in foreign_errors(bundle))
    assert judge_fhir(encode(bundle)) == []  # which is why there are two


def test_the_first_validator_names_the_place_of_a_wrong_element(make):
    bundle = build(make.alert())
    resource(bundle, "Task")["flavour"] = "sweet"
    assert any("Task.flavour" in complaint for complaint in judge_fhir(encode(bundle)))
    assert judge_fhir(b"{") == ["not a JSON object"]


def test_the_invariants_of_task_hold_for_every_alert(every_alert):
    for alert in every_alert:
        for one in build(alert)["entry"]:
            task = one["resource"]
            if task["resourceType"] != "Task":
                continue
            codes = [(coding["system"], coding["code"]) for coding in task["code"]["coding"]]
            if "restriction" in task:  # tsk-1
                assert ("http://hl7.org/fhir/CodeSystem/task-code", "fulfill") in codes
                assert "reference" in task["focus"]
            assert task["lastModified"] >= task["authoredOn"]  # inv-1


@pytest.mark.parametrize(
    ("per_mm3", "written"),
    [
        ("840", "0.84"),
        ("840.0", "0.84"),
        ("1000", "1"),
        ("5", "0.005"),
        ("0", "0"),
        ("12345.678", "12.345678"),
        ("1E+3", "1"),
    ],
)
def test_a_count_is_an_exact_json_number(make, per_mm3, written):
    alert = make.alert(result=make.result(anc=make.count(per_mm3)))
    text = encode(build(alert)).decode()
    assert re.search(r'"value":([^,"]+),"unit":"10\*9/L"', text)[1] == written


@pytest.mark.parametrize("absurd", ["1E+99999999", "NaN", "Infinity", "1E-99999"])
def test_a_count_beyond_sense_is_refused_and_not_printed_for_ever(absurd):
    with pytest.raises(ValueError, match="outside"):
        giga_per_litre(Decimal(absurd))


def test_the_observation_keeps_comparator_code_order_and_author(make):
    result = make.result(anc=make.count("100", comparator="<"))
    observation = resource(build(make.alert(result=result)), "Observation")
    assert observation["valueQuantity"]["comparator"] == "<"
    assert [one["code"] for one in observation["code"]["coding"]] == ["26499-4", "PNN"]
    source = observation["derivedFrom"][0]
    assert source["type"] == "Observation"
    assert source["identifier"]["value"] == "1001-E1"
    assert source["identifier"]["type"]["coding"][0]["code"] == "FILL"
    assert observation["effectiveDateTime"] == "2026-11-22T08:05:00+01:00"
    assert observation["device"]["reference"].startswith("urn:uuid:")


def test_a_percent_code_never_stands_beside_the_code_of_the_count(make):
    derived = make.result(
        code="26511-6", code_system="http://loinc.org", anc=make.count("840", derived=True, lower_bound=Decimal(835))
    )
    observation = resource(build(make.alert(result=derived)), "Observation")
    assert [one["code"] for one in observation["code"]["coding"]] == ["26499-4"]
    assert "0,835 10*9/L" in observation["method"]["text"]
    doubted = make.result(code="770-8", doubts=("code-unit-conflict",), trust=Trust.PROVISIONAL)
    observation = resource(build(make.alert(result=doubted)), "Observation")
    assert [one["code"] for one in observation["code"]["coding"]] == ["26499-4"]
    assert observation["note"] == [{"text": "provisional: code-unit-conflict"}]


def test_only_what_is_certain_of_a_time_is_written(make):
    naive = make.result(collected_at=datetime(2026, 11, 22, 8, 5))  # noqa: DTZ001 - the point of the test
    assert resource(build(make.alert(result=naive)), "Observation")["effectiveDateTime"] == "2026-11-22"
    day = make.result(time_known=False)
    assert resource(build(make.alert(result=day)), "Observation")["effectiveDateTime"] == "2026-11-22"
    assert "effectiveDateTime" not in resource(build(make.alert(result=make.result(collected_at=None))), "Observation")


@pytest.mark.parametrize(
    ("level", "category", "threshold", "family", "expected"),
    [
        (AlertLevel.CRITICAL, "severe", 1000, AlertFamily.STOP, "LL"),
        (AlertLevel.RED, "moderate", 1000, AlertFamily.STOP, "LL"),
        (AlertLevel.AMBER, "mild", 1500, AlertFamily.MILD, "L"),
        (AlertLevel.INFO, "normal", None, AlertFamily.SCHEDULE, "N"),
        (AlertLevel.AMBER, "post_stop", None, AlertFamily.SCHEDULE, None),
    ],
)
def test_the_letter_follows_the_count(make, level, category, threshold, family, expected):
    verdict = make.assessment(category=category, threshold_per_mm3=None if threshold is None else Decimal(threshold))
    observation = resource(build(make.alert(level=level, family=family, assessment=verdict)), "Observation")
    found = observation.get("interpretation")
    assert (found[0]["coding"][0]["code"] if found else None) == expected


def test_a_withdrawn_value_has_a_status_and_no_number(make):
    for status in (ResultStatus.CANCELLED, ResultStatus.ENTERED_IN_ERROR):
        result = make.result(status=status, anc=None)
        observation = resource(
            build(make.alert(kind=AlertKind.WITHDRAWN, reason=status.value, result=result)), "Observation"
        )
        assert observation["status"] == status.value
        assert "valueQuantity" not in observation
        assert "dataAbsentReason" in observation


@pytest.mark.parametrize(("reason", "status"), [("corrected", "inactive"), ("entered-in-error", "entered-in-error")])
def test_a_withdrawn_alert_ends_its_flag(make, reason, status):
    flag = resource(build(make.later(kind=AlertKind.WITHDRAWN, reason=reason)), "Flag")
    assert flag["status"] == status
    assert flag["period"] == {"start": "2026-11-22T10:16:05+01:00", "end": "2026-11-22T12:16:05+01:00"}


@pytest.mark.parametrize(
    ("family", "code"),
    [
        (AlertFamily.STOP, "ACK-STOP"),
        (AlertFamily.MILD, "NEXT-ANC"),
        (AlertFamily.START, "NEXT-ANC"),
        (AlertFamily.SCHEDULE, "NEXT-ANC"),
        (AlertFamily.OVERDUE, "NEXT-ANC"),
    ],
)
def test_each_family_has_its_flag_and_its_task(make, family, code):
    bundle = build(make.alert(family=family))
    assert resource(bundle, "Flag")["code"]["coding"][0]["code"] == family.value
    assert resource(bundle, "Task")["code"]["coding"][0]["code"] == code
    assert resource(bundle, "Task")["code"]["text"] == make.alert().title


def test_what_could_not_be_judged_has_a_task_and_no_flag(make):
    bundle = build(make.review())
    assert kinds(bundle) == ["Device", "Task", "Provenance"]
    task = resource(bundle, "Task")
    assert task["code"]["coding"][0]["code"] == "REVIEW-RESULT"
    assert task["reasonCode"]["coding"][0]["code"] == "unit-missing"
    assert task["for"] == {"reference": "Patient/p1"}
    assert {"valueString": "OBX[2]-6"}.items() <= task["input"][-1].items()


def test_a_review_without_a_readable_patient_is_a_task_for_nobody(make):
    alert = make.review(subject=Subject(register_id=""), result=make.result())
    bundle = build(alert, patient=None)
    assert kinds(bundle) == ["Device", "Task", "Provenance"]
    assert "for" not in resource(bundle, "Task")
    assert judge_fhir(encode(bundle)) == []


def test_no_other_alert_goes_out_without_a_patient(make):
    with pytest.raises(ValueError, match="without a patient"):
        build(make.alert(), patient=None)


def test_the_owner_is_a_reference_and_a_role_name_is_not_made_one(make):
    def task(named: str, **settings: str) -> dict[str, Any]:
        subject = replace(make.alert().subject, owner=named)
        return resource(build(make.alert(subject=subject), settings=FhirProfile(**settings)), "Task")

    assert task("PractitionerRole/psy1", owner="Organization/w")["owner"] == {"reference": "PractitionerRole/psy1"}
    named = task("duty-psychiatrist", owner="Organization/w")
    assert named["owner"] == {"reference": "Organization/w"}
    assert named["performerType"] == [{"text": "duty-psychiatrist"}]
    assert "owner" not in task("")


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "stat"), ("red", "asap"), ("amber", "urgent"), ("info", "routine"), ("none", "routine")],
)
def test_the_level_is_the_priority(make, level, priority):
    assert resource(build(make.alert(level=AlertLevel(level))), "Task")["priority"] == priority


def test_a_stop_is_to_be_answered_within_the_hour_and_a_count_by_its_date(make):
    assert resource(build(make.alert()), "Task")["restriction"] == {"period": {"end": "2026-11-22T11:16:05+01:00"}}
    mild = make.alert(family=AlertFamily.MILD, level=AlertLevel.AMBER)
    assert resource(build(mild), "Task")["restriction"] == {"period": {"end": "2026-11-23"}}
    late = make.alert(family=AlertFamily.OVERDUE, assessment=make.assessment(next_due=date(2026, 11, 1)))
    assert "restriction" not in resource(build(late), "Task")


@pytest.mark.parametrize(("zone", "kept"), [("America/Guadeloupe", True), ("Indian/Reunion", False), ("UTC", False)])
def test_whether_a_date_is_over_is_a_question_of_the_site_s_calendar(make, zone, kept):
    evening = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)  # still the 23rd in Guadeloupe
    mild = make.alert(
        family=AlertFamily.OVERDUE,
        level=AlertLevel.AMBER,
        updated_at=evening,
        assessment=make.assessment(next_due=date(2026, 11, 23)),
    )
    task = resource(build(mild, settings=FhirProfile(zone=ZoneInfo(zone))), "Task")
    assert ("restriction" in task) is kept


def test_ids_are_chosen_where_allowed_and_matched_by_identifier_elsewhere(make):
    chosen = build(make.alert())
    assert re.fullmatch(r"Flag/[0-9a-f-]{36}", entry(chosen, "Flag")["request"]["url"])
    assert entry(chosen, "Provenance")["request"]["method"] == "PUT"
    matched = build(make.alert(), settings=replace(PROFILE, update_create=False))
    url = entry(matched, "Flag")["request"]["url"]
    assert url == (
        "Flag?identifier=https%3A%2F%2Fneutroflag.org%2Ffhir%2Fsid%2Falert%7Ca32b4821-51a4-5253-b956-d3b932eed8fc"
    )
    assert "id" not in resource(matched, "Flag")


@pytest.mark.parametrize("update_create", [True, False])
def test_a_task_is_only_ever_created_conditionally(make, update_create):
    request = entry(build(make.alert(), settings=replace(PROFILE, update_create=update_create)), "Task")["request"]
    assert request["method"] == "POST"
    assert request["ifNoneExist"].endswith("%7Ca32b4821-51a4-5253-b956-d3b932eed8fc%3Aack")


def test_no_two_entries_share_an_identifier_or_a_full_url(every_alert):
    for alert in every_alert:
        entries = build(alert)["entry"]
        held = [(one["system"], one["value"]) for row in entries for one in row["resource"].get("identifier", ())]
        assert len(held) == len(set(held))
        assert len({row["fullUrl"] for row in entries}) == len(entries)


def test_every_internal_reference_is_in_the_bundle(every_alert):
    for alert in every_alert:
        text = encode(build(alert)).decode()
        full_urls = {row["fullUrl"] for row in json.loads(text)["entry"]}
        assert set(re.findall(r'"reference":"(urn:uuid:[^"]+)"', text)) <= full_urls


def test_the_same_alert_gives_the_same_bytes(make):
    assert encode(build(make.alert())) == encode(build(make.alert()))


def test_identity_stays_in_the_element_made_for_it(make):
    text = encode(build(make.alert())).decode()
    for phi in ("405660", "279035121518989", "PAT-TROIS", "DOMINIQUE", "1979", "reg-17"):
        assert phi not in text


def test_provenance_names_rule_source_and_deed(make):
    provenance = resource(build(make.alert()), "Provenance")
    assert provenance["policy"] == ["https://neutroflag.org/fhir/rules/ansm/2025-09/R5"]
    assert provenance["activity"]["coding"][0]["code"] == "CREATE"
    assert provenance["entity"][0]["what"]["identifier"]["value"] == "SIL-Y|labo|MSG000123"
    gone = make.later(kind=AlertKind.WITHDRAWN, reason="entered-in-error")
    assert resource(build(gone), "Provenance")["activity"]["coding"][0]["code"] == "NULLIFY"


def test_test_data_says_so_on_everything_about_a_patient(make):
    bundle = build(make.alert(production=False))
    for kind in ("Flag", "Task", "Observation"):
        assert resource(bundle, kind)["meta"]["security"][0]["code"] == "HTEST"


def standing(make, status: str, *, version: str = "3", revision: int = 1, **other: Any) -> StandingTask:
    task = json.loads(json.dumps(resource(build(make.alert()), "Task")))
    task |= {"id": "t1", "status": status, "meta": {"versionId": version}} | other
    task["input"][0]["valuePositiveInt"] = revision
    return StandingTask(task, version)


def test_a_revision_keeps_what_a_person_set(make):
    held = standing(make, "accepted", owner={"reference": "Practitioner/dr-h"}, priority="urgent")
    changed = entry(build(make.later(title="PNN 0,4 G/L"), standing=[held]), "Task")
    assert changed["request"] == {"method": "PUT", "url": "Task/t1", "ifMatch": 'W/"3"'}
    task = changed["resource"]
    assert (task["status"], task["owner"]) == ("accepted", {"reference": "Practitioner/dr-h"})
    assert task["priority"] == "stat"
    assert task["note"][-1]["text"].startswith("PNN 0,4 G/L")


def test_a_revision_after_a_closed_task_asks_again(make):
    bundle = build(make.later(), standing=[standing(make, "completed")])
    task = resource(bundle, "Task")
    assert task["status"] == "requested"
    assert task["identifier"][0]["value"].endswith(":ack:2")
    assert task["partOf"] == [{"reference": "Task/t1"}]


def test_a_revision_that_a_task_carries_already_writes_no_task(make):
    assert "Task" not in kinds(build(make.later(), standing=[standing(make, "completed", revision=2)]))


def test_a_task_without_a_version_is_never_written_back(make):
    task = entry(build(make.later(), standing=[standing(make, "requested", version="")]), "Task")
    assert task["request"]["method"] == "POST"


@pytest.mark.parametrize(("reason", "status"), [("corrected", "cancelled"), ("entered-in-error", "entered-in-error")])
def test_an_unanswered_task_is_taken_back_with_its_alert(make, reason, status):
    gone = make.later(kind=AlertKind.WITHDRAWN, reason=reason)
    task = resource(build(gone, standing=[standing(make, "received")]), "Task")
    assert task["status"] == status
    assert task["statusReason"]["coding"][0]["code"] == f"RESULT-{reason.upper()}"


@pytest.mark.parametrize("status", ["accepted", "in-progress", "completed", "rejected"])
def test_whoever_acted_on_a_withdrawn_alert_is_told_by_a_new_task(make, status):
    gone = make.later(kind=AlertKind.WITHDRAWN, reason="corrected")
    bundle = build(gone, standing=[standing(make, status)])
    old, new = [one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == "Task"]
    assert old["status"] == status
    assert len(old["note"]) == 1
    assert new["code"]["coding"][0]["code"] == "REVIEW-DECISION"
    assert judge_fhir(encode(bundle)) == []
