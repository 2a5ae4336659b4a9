"""A message twice as long costs twice as much: nothing in it is compared with all of it, or decoded for each of its rows."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from ingest.reading import fhirindex, read_message
from ingest.reading import fhirtypes as t
from rules.model import PatientIdentifier

HEAD = "MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01|M1|P|2.5\rPID|1||405660^^^CHX^PI\rOBR|1||F|NFS|||20261122080500\r"


def observation(number: int, **given: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "751-8"}]},
        "subject": {"reference": "Patient/p"},
        "specimen": {"reference": "Specimen/s"},
        "effectiveDateTime": f"2026-11-22T08:{number % 60:02}:00Z",
        "valueQuantity": {"value": 1.85, "unit": "10*9/L"},
        **given,
    }


def test_hundreds_of_patients_are_not_compared_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    equal = PatientIdentifier.__eq__

    def counted(self: PatientIdentifier, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(self, other)

    monkeypatch.setattr(PatientIdentifier, "__eq__", counted)
    rows = [f"PID|1||{n}^^^CHX^PI\rOBX|1|NM|751-8^N^LN||1.85|G/L|||||F" for n in range(400)]
    reading = read_message((HEAD + "\r".join(rows)).encode(), format="hl7v2")
    assert len(reading.identifiers) == 401
    assert compared < 4_000


def test_what_many_observations_point_to_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[type] = Counter()
    decode = fhirindex.decode

    def counted(raw: bytes, kind: type[Any]) -> Any:
        decoded[kind] += 1
        return decode(raw, kind)

    monkeypatch.setattr(fhirindex, "decode", counted)
    around = [
        {"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:oid:1.2.3", "value": "405660"}]},
        {"resourceType": "Specimen", "id": "s", "type": {"text": "sang"}},
    ]
    entries = [{"resource": one} for one in (*around, *map(observation, range(40)))]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    assert len(read_message(json.dumps(bundle).encode(), format="fhir").results) == 40
    inside = [observation(n, subject=None) for n in range(40)]
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "contained": inside,
        "subject": {"reference": "Patient/p"},
    }
    assert len(read_message(json.dumps(report).encode(), format="fhir").results) == 40
    assert (decoded[t.Patient], decoded[t.Specimen], decoded[t.DiagnosticReport]) == (1, 1, 1)


@pytest.mark.parametrize("value", ["{}", "{}.{:03}"], ids=["most of them impossible", "all of them possible"])
def test_more_counts_than_one_specimen_can_have_are_none(value: str) -> None:
    rows = [f"OBX|{n}|NM|751-8^N^LN||{value.format(n % 99, n)}|G/L|||||F" for n in range(1, 400)]
    reading = read_message((HEAD + "\r".join(rows)).encode(), format="hl7v2")
    assert reading.results == ()
    assert [problem.code for problem in reading.problems] == ["value-repeated"]
    assert len(reading.ledger) == len(rows)


def test_more_components_than_a_panel_has_are_for_a_person() -> None:
    part = {"code": {"coding": [{"code": "751-8"}]}, "valueQuantity": {"value": 1.85, "unit": "G/L"}}
    raw = json.dumps(observation(1, component=[part] * 501)).encode()
    assert [problem.code for problem in read_message(raw, format="fhir").problems] == ["structure"]


def test_only_so_many_identifiers_of_one_patient_are_kept() -> None:
    many = "~".join(f"{n}^^^CHX^PI" for n in range(5_000))
    raw = (HEAD.replace("405660^^^CHX^PI", many) + "OBX|1|NM|751-8^N^LN||1.85|G/L|||||F").encode()
    assert len(read_message(raw, format="hl7v2").identifiers) == 100
