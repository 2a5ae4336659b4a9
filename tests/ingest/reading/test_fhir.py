"""FHIR: exact decimals, references, register facts, refusals."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingest.reading import BenFact, PatientFact, Reading, TreatmentFact, read_message
from rules.model import PatientIdentifier

FIXTURES = Path(__file__).parents[3] / "fixtures" / "fhir"


def read(text: str | bytes | dict[str, Any]) -> Reading:
    raw = json.dumps(text).encode() if isinstance(text, dict) else text.encode() if isinstance(text, str) else text
    return read_message(raw, format="fhir")


def observation(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "751-8"}]},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-11-22T08:05:00Z",
        "valueQuantity": {"value": 1.2, "unit": "10*9/L"},
    }
    found.update(more)
    return {k: v for k, v in found.items() if v is not None}


def test_decimals_are_those_of_the_document() -> None:
    text = json.dumps(observation()).replace("1.2,", "0.84000000000000000,")
    assert [p.code for p in read(text).problems] == ["value-out-of-bounds"]
    result = read(json.dumps(observation()).replace("1.2,", "0.8400,")).results[0]
    assert result.anc is not None
    assert (result.anc.per_mm3, result.anc.reporting_unit) == (Decimal(840), Decimal("0.1"))
    assert result.value_as_sent == "0.8400"


def test_a_patient_s_identifiers_are_ordered_and_typed() -> None:
    result = read((FIXTURES / "bundle.json").read_bytes()).results[0]
    assert result.identifiers[0] == PatientIdentifier("405660", "urn:oid:1.2.250.1.999.3", "PI")
    assert result.identifiers[1].authority == "urn:oid:1.2.250.1.213.1.4.8"


def test_a_bare_reference_is_an_identifier_without_authority() -> None:
    assert read(observation()).results[0].identifiers == (PatientIdentifier("Patient/1"),)


def test_two_patients_of_one_bundle_stay_apart() -> None:
    values = [r.identifiers[0].value for r in read((FIXTURES / "urn-uuid.json").read_bytes()).results]
    assert values == ["405660", "77"]


def test_the_same_name_on_two_servers_points_nowhere() -> None:
    def patient(base: str, value: str) -> dict[str, Any]:
        resource = {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:oid:1.2", "value": value}]}
        return {"fullUrl": f"{base}/Patient/1", "resource": resource}

    entries = [patient("http://a", "A"), patient("http://b", "B"), {"resource": observation()}]
    result = read({"resourceType": "Bundle", "type": "collection", "entry": entries}).results[0]
    assert result.identifiers == (PatientIdentifier("Patient/1"),)


def test_the_key_is_the_identifier_else_the_resource_else_the_content() -> None:
    named = read(observation(identifier=[{"system": "urn:x", "value": "7"}])).results[0].key
    assert named == "urn:x|7|ANC:751-8"
    assert read(observation()).results[0].key == "Observation/o|ANC:751-8"
    assert read(observation(id=None)).results[0].key.startswith("content:")


@pytest.mark.parametrize("token", ["1e99999999", "-1", '"1.2"', "true", "null", "[1]", "1" * 50])
def test_odd_numbers_are_never_a_count(token: str) -> None:
    reading = read(json.dumps(observation()).replace("1.2,", f"{token},"))
    assert reading.results == ()
    assert reading.disposition == "unassessable"


def test_register_facts_are_found_and_text_alone_is_a_candidate() -> None:
    facts = read((FIXTURES / "register.json").read_bytes()).register
    patient = next(f for f in facts if isinstance(f, PatientFact))
    coded, text = (f for f in facts if isinstance(f, TreatmentFact))
    ben = next(f for f in facts if isinstance(f, BenFact))
    assert (patient.family, patient.birth_date, patient.references) == ("SPECIMEN", date(1979, 3, 28), ("Patient/p1",))
    assert (coded.start, coded.candidate, coded.confirmed_by) == (date(2026, 7, 1), False, "Dr A. Hoda")
    assert (text.candidate, text.resource_type) == (True, "MedicationRequest")
    assert (ben.confirmed, ben.confirmed_on, ben.confirmed_by) == (True, date(2026, 5, 2), "Dr A. Hoda")
    assert ben.identifiers[0].value == "405660"


@pytest.mark.parametrize("drop", ["recorder", "verificationStatus"])
def test_ben_without_a_name_or_a_confirmation_is_not_confirmed(drop: str) -> None:
    bundle = json.loads((FIXTURES / "register.json").read_text())
    condition = bundle["entry"][3]["resource"]
    del condition[drop]
    assert [f.confirmed for f in read(bundle).register if isinstance(f, BenFact)] == [False]


def test_other_medicines_are_no_treatment_facts() -> None:
    use = {"resourceType": "MedicationRequest", "status": "active", "medicationCodeableConcept": {"text": "olanzapine"}}
    assert read(use).register == ()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not-json"),
        (b"{", "not-json"),
        (b"[]", "not-fhir"),
        (b'{"a":1}', "not-fhir"),
        (b"<Bundle/>", "xml-not-read"),
        (b"[" * 100_000, "not-fhir"),
        (b'{"resourceType":"Bundle","entry":' + b"[" * 100_000, "not-fhir"),
        (b'{"resourceType":"Bundle","entry":[],"entry":[]}', "duplicate-key"),
        (b'{"resourceType":"Bundle","entry":5}', "not-fhir"),
        (b"\xff\xfe{}", "not-json"),
    ],
)
def test_what_is_no_fhir_is_set_aside_with_its_place(raw: bytes, code: str) -> None:
    reading = read(raw)
    assert reading.disposition == "set_aside"
    assert reading.problems[0].code in (code, "not-json")
    assert reading.problems[0].where


def test_an_observation_of_the_wrong_shape_is_a_task_when_it_speaks_of_neutrophils() -> None:
    broken = observation(status=5)
    reading = read(broken)
    assert [(p.code, p.identifiers) for p in reading.problems] == [("structure", (PatientIdentifier("Patient/1"),))]
    broken["code"] = {"coding": [{"code": "2951-2"}]}
    assert read(broken).disposition == "not_relevant"


def test_every_observation_and_component_leaves_one_entry() -> None:
    for path in FIXTURES.glob("*.json"):
        ledger = read(path.read_bytes()).ledger
        assert len({e.where for e in ledger}) == len(ledger)


def test_a_test_tag_is_no_production() -> None:
    meta = {"tag": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0103", "code": "T"}]}
    reading = read(
        {"resourceType": "Bundle", "type": "collection", "meta": meta, "entry": [{"resource": observation()}]}
    )
    assert not reading.production
    assert reading.results[0].doubts == ("test-message",)
