"""Whose a result is, and what it says that was not known: identity and versions, without any store."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.identity import Ambiguous, Known, Patients, Unknown
from engine.versions import Effect, compare
from rules.model import AbsoluteNeutrophilCount, LabResult, PatientIdentifier, ResultStatus, Trust
from store.port import PatientRecord, ResultRecord

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IPP = PatientIdentifier("405660", "urn:oid:1.2.3", "PI")


def register(*identifiers: PatientIdentifier, enrolled: bool = True) -> Patients:
    patients = Patients()
    for number, item in enumerate(identifiers, 1):
        patients.add(PatientRecord(id=f"p{number}", enrolled=enrolled, identifiers=[item]))
    return patients


def test_value_and_authority_together_name_the_patient() -> None:
    found = register(IPP).find([IPP])
    assert isinstance(found, Known)
    assert (found.record.id, found.doubt) == ("p1", "")


def test_the_same_number_of_another_hospital_is_somebody_else() -> None:
    assert register(IPP).find([PatientIdentifier("405660", "urn:oid:9.9", "PI")]) == Unknown()


@pytest.mark.parametrize(("filed", "sent"), [("urn:oid:1.2.3", ""), ("", "urn:oid:1.2.3")])
def test_where_one_side_names_no_authority_the_match_is_in_doubt(filed: str, sent: str) -> None:
    found = register(PatientIdentifier("405660", filed)).find([PatientIdentifier("405660", sent)])
    assert isinstance(found, Known)
    assert found.doubt == "authority-missing"


def test_a_doubtful_match_with_somebody_off_the_register_is_none() -> None:
    assert register(IPP, enrolled=False).find([PatientIdentifier("405660")]) == Unknown()


def test_identifiers_of_two_patients_name_nobody() -> None:
    other = PatientIdentifier("777", "urn:oid:1.2.3", "PI")
    assert isinstance(register(IPP, other).find([IPP, other]), Ambiguous)


@pytest.mark.parametrize("kind", ["AN", "VN", "SS", "NH", "an"])
def test_an_account_a_visit_or_an_insured_person_is_not_the_patient(kind: str) -> None:
    account = dataclasses.replace(IPP, type=kind)
    assert register(IPP).find([account]) == Unknown()


def test_an_identifier_that_names_somebody_else_is_not_learnt() -> None:
    other = PatientIdentifier("777", "urn:oid:1.2.3", "PI")
    patients = register(IPP, other)
    patients.learn(patients.by_id["p1"], [IPP, other, PatientIdentifier("new", "urn:oid:5")])
    assert patients.fresh == [("p1", PatientIdentifier("new", "urn:oid:5"))]


def result(anc: str | None = "840", **other: Any) -> LabResult:
    given: dict[str, Any] = {
        "status": ResultStatus.FINAL,
        "anc": AbsoluteNeutrophilCount(per_mm3=Decimal(anc)) if anc else None,
        "collected_at": NOON,
        "key": "A",
    }
    return LabResult(**given | other)


P = {"status": ResultStatus.PRELIMINARY, "trust": Trust.PROVISIONAL}


@pytest.mark.parametrize(
    ("standing", "now", "effect"),
    [
        (None, result(), Effect.NEW),
        (result(), result(), Effect.UNCHANGED),
        (result(), result("2840", status=ResultStatus.CORRECTED), Effect.REPLACES),
        (result(**P), result(), Effect.REPLACES),
        (result(), result("3000", **P), Effect.LATE),
        (result(), result(None, status=ResultStatus.ENTERED_IN_ERROR), Effect.REPLACES),
        (result(), result(None, status=ResultStatus.CANCELLED), Effect.REPLACES),
        (result(issued_at=NOON), result("900", issued_at=NOON - timedelta(hours=1)), Effect.LATE),
        (result(issued_at=NOON), result("900", issued_at=NOON + timedelta(hours=1)), Effect.REPLACES),
        (result(), result(key="B"), Effect.UNCHANGED),
        (result(), result("850", key="B"), Effect.NEW),
        (result(), result(key="B", collected_at=NOON + timedelta(hours=1)), Effect.NEW),
        (result(), result(key="B", **P), Effect.UNCHANGED),
        (result(**P), result(key="B"), Effect.REPLACES),
    ],
)
def test_what_a_reading_does_to_what_stands(standing: LabResult | None, now: LabResult, effect: Effect) -> None:
    record = PatientRecord(id="p1", enrolled=True)
    if standing is not None:
        filed = ResultRecord(id=1, patient_id="p1", message_id=1, key=standing.key, version=1, result=standing)
        record.results[standing.key] = filed
    assert compare(record, now).effect is effect
