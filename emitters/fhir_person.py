"""One person's data as a FHIR R4 collection: the Patient, clozapine as a MedicationStatement, every count. Pure.

What FHIR has no natural place for (verdicts, alerts, who did what) is in the rest of the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from emitters.fhir_observation import count
from emitters.fhir_terms import Resource, coding, concept, instant, reference
from rules.model import LabResult, PatientIdentifier, Person, TreatmentCourse

__all__ = ["Version", "collection"]

_CLOZAPINE: Final = concept(coding("http://www.whocc.no/atc", "N05AH02", "Clozapine"))
_GENDERS: Final = {"F": "female", "M": "male", "O": "other", "A": "other"}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a count. ``current``: it is the one that stands."""

    result: LabResult
    current: bool


def collection(
    number: str,
    person: Person,
    identifiers: Sequence[PatientIdentifier],
    course: TreatmentCourse,
    versions: Sequence[Version],
    at: datetime,
) -> Resource:
    """``number``: the register's own id of the person."""
    resources = [
        _patient(number, person, identifiers),
        *([_statement(number, course)] if course.start else []),
        *(_count(number, one) for one in versions),
    ]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": instant(at),
        "entry": [{"resource": resource} for resource in resources],
    }


def _patient(number: str, person: Person, identifiers: Sequence[PatientIdentifier]) -> Resource:
    found: Resource = {"resourceType": "Patient", "id": number}
    if identifiers:
        found["identifier"] = [
            ({"system": one.authority} if ":" in one.authority else {}) | {"value": one.value} for one in identifiers
        ]
    name = ({"family": person.family} if person.family else {}) | ({"given": [person.given]} if person.given else {})
    if name:
        found["name"] = [name]
    if person.sex:
        found["gender"] = _GENDERS.get(person.sex.upper()[:1], "unknown")
    if person.birth_date is not None:
        found["birthDate"] = person.birth_date.isoformat()
    return found


def _statement(number: str, course: TreatmentCourse) -> Resource:
    period = {"start": course.start.isoformat()} if course.start else {}
    if course.stop is not None:
        period["end"] = course.stop.on.isoformat()
    return {
        "resourceType": "MedicationStatement",
        "status": "stopped" if course.stop is not None else "active",
        "medicationCodeableConcept": _CLOZAPINE,
        "subject": reference(f"Patient/{number}"),
        "effectivePeriod": period,
    }


def _count(number: str, version: Version) -> Resource:
    found = count(version.result, f"Patient/{number}")
    if not version.current:
        # Of a former version only its being former is sure: a reader must not take it for what stands.
        found["note"] = [*found.get("note", []), {"text": "superseded: a later version of this count stands"}]
    return found
