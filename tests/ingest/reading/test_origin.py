"""Where the patient is and who ordered, as messages say it: what alerts are routed by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.reading import read_message

HEAD = "MSH|^~\\&|SIL|LABO|N|CHX|20261126101500+0100||ORU^R01|M1|P|2.5\rPID|1||405660^^^CHX&1.2.3&ISO^PI\r"
OBX = "OBX|1|NM|751-8^Neutrophils^LN||0.84|10*9/L|||||F\r"
DRAWN = "|" * 4 + "20261126080000+0100"


@pytest.mark.parametrize(
    ("segments", "ward", "prescriber"),
    [
        (f"PV1|1|I|PSY1^12^2\rOBR|1|P1|F1{DRAWN}{'|' * 9}10001^HODA^Claire\r", "PSY1", "10001"),
        (f"ORC|RE|P1|F1{'|' * 9}20002^DIALLO\rOBR|1|P1|F1{DRAWN}\r", "", "20002"),
        (f'OBR|1|P1|F1{DRAWN}{"|" * 9}""\r', "", ""),
        (f"OBR|1|P1|F1{DRAWN}\r", "", ""),
    ],
)
def test_hl7(segments: str, ward: str, prescriber: str) -> None:
    (result,) = read_message((HEAD + segments + OBX).encode(), format="hl7v2").results
    assert (result.order.ward, result.order.prescriber) == (ward, prescriber)


def test_hl7_that_names_two_wards_names_none() -> None:
    raw = f"{HEAD}PV1|1|I|PSY1\rPV1|2|I|GER1\rOBR|1|P1|F1{DRAWN}\r{OBX}"
    (result,) = read_message(raw.encode(), format="hl7v2").results
    assert result.order.ward == ""


def test_fhir() -> None:
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "751-8"}]},
        "subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "405660"}},
        "effectiveDateTime": "2026-11-26T08:00:00+01:00",
        "valueQuantity": {"value": 0.84, "unit": "10*9/L"},
        "basedOn": [{"reference": "ServiceRequest/s1"}],
        "encounter": {"reference": "Encounter/e1"},
    }
    order = {"resourceType": "ServiceRequest", "id": "s1", "requester": {"identifier": {"value": "10001"}}}
    places = [{"location": {"reference": "Location/ER"}}, {"location": {"display": "PSY1"}}]
    stay = {"resourceType": "Encounter", "id": "e1", "location": places}
    bundle = {"resourceType": "Bundle", "type": "collection"}
    bundle["entry"] = [{"resource": one} for one in (observation, order, stay)]
    (result,) = read_message(json.dumps(bundle).encode(), format="fhir").results
    assert (result.order.ward, result.order.prescriber) == ("PSY1", "10001")
    (alone,) = read_message(json.dumps(observation).encode(), format="fhir").results
    assert (alone.order.ward, alone.order.prescriber) == ("", "")
