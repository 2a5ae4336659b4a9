"""The register's own feed: what Patient, MedicationStatement, MedicationRequest and Condition change in it.

Rule of the file: monitoring is never started or ended on one weak signal, a clinician's date is never overridden by a
feed, and benign ethnic neutropenia, which lowers the thresholds, counts only when a named person has confirmed it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import assert_never

import msgspec

from engine.identity import Ambiguous, Known, Patients, Unknown, own_name, usable
from ingest.reading import BenFact, PatientFact, RegisterFact, TreatmentFact
from rules.model import Attestation, CompleteStop, PatientIdentifier, Person, StopReason, TreatmentCourse
from store.port import Audit, PatientRecord, Work

__all__ = ["apply", "enrol"]

_TAKING = frozenset({"active", "completed", "on-hold", "intended"})


def apply(
    fact: RegisterFact,
    patients: Patients,
    work: Work,
    *,
    now: datetime,
    source: str,
    assigned: str = "",
    sender: str = "",
) -> None:
    """``assigned``: the reference under which the FHIR door has told the sender that a single Patient is stored.
    ``sender``: whose references they are (engine.identity.own_name)."""
    match fact:
        case PatientFact():
            fact = dataclasses.replace(fact, references=(*fact.references, assigned) if assigned else fact.references)
            _patient(fact, patients, work, now, source, sender)
        case TreatmentFact():
            _treatment(fact, patients, work, now, source)
        case BenFact():
            _ben(fact, patients, work, now, source)
        case other:
            assert_never(other)


def enrol(record: PatientRecord, course: TreatmentCourse, work: Work, *, now: datetime, actor: str, why: str) -> None:
    """Puts a patient on the register or changes the course; the present state is looked at anew."""
    before = msgspec.to_builtins(record.course) if record.enrolled else None
    record.course = course
    record.enrolled = True
    _changed(record, work, now, actor, why, {"before": before, "after": msgspec.to_builtins(course)})
    record.settle_at = now


def _patient(fact: PatientFact, patients: Patients, work: Work, now: datetime, source: str, sender: str) -> None:
    names = tuple(own_name(name, sender) for name in fact.references if name.startswith("Patient/"))
    # What only this sender's own name says is a person of this sender's, whomever another calls the same.
    record = _record(fact.identifiers or names, patients, loosely=bool(fact.identifiers), new=not fact.known_only)
    if record is None:
        return
    # By what a later resource will call this patient. A name that is somebody else's already stays theirs, and is said.
    taken = [name.value for name in names if not patients.is_free_for(name, record)]
    patients.learn(record, (*fact.identifiers, *names))
    if taken:
        _changed(record, work, now, source, "patient-reference-taken", {"where": fact.where})
    person = Person(
        family=fact.family or record.person.family,
        given=fact.given or record.person.given,
        birth_date=fact.birth_date or record.person.birth_date,
        sex=fact.sex or record.person.sex,
    )
    if person == record.person and not record.new:
        return
    record.person = person
    if fact.birth_date:
        record.course = dataclasses.replace(record.course, birth_date=fact.birth_date)
    _changed(record, work, now, source, "patient", {})


def _treatment(fact: TreatmentFact, patients: Patients, work: Work, now: datetime, source: str) -> None:
    record = _record(fact.identifiers, patients)
    if record is None:
        return
    if fact.candidate or fact.status == "entered-in-error":
        # Only a text says clozapine, or the statement is withdrawn: kept for a person to see, nothing is started or ended.
        _changed(record, work, now, source, "treatment-not-applied", {"where": fact.where, "status": fact.status})
        return
    course = record.course
    if fact.status in _TAKING and fact.start is not None and not _clinician_said_otherwise(course, fact):
        course = dataclasses.replace(
            course,
            # Two feeds, two dates: the later start is the stricter schedule (standards.md 8).
            start=fact.start if course.start is None or fact.confirmed_by else max(course.start, fact.start),
            start_confirmed_by=fact.confirmed_by or course.start_confirmed_by,
            birth_date=record.person.birth_date or course.birth_date,
        )
    elif fact.status in _TAKING and not record.enrolled and fact.start is None:
        _changed(record, work, now, source, "treatment-without-start", {"where": fact.where})
        return
    if fact.status in ("stopped", "completed") and fact.stopped_on is not None and fact.confirmed_by:
        if record.enrolled and course.stop is None:
            course = dataclasses.replace(course, stop=CompleteStop(fact.stopped_on, StopReason.OTHER))
    elif fact.status == "stopped":
        _changed(record, work, now, source, "treatment-stop-not-applied", {"where": fact.where})
        return
    if course != record.course or not record.enrolled:
        enrol(record, course, work, now=now, actor=source, why=fact.resource_type)


def _clinician_said_otherwise(course: TreatmentCourse, fact: TreatmentFact) -> bool:
    return bool(course.start is not None and course.start_confirmed_by and not fact.confirmed_by)


def _ben(fact: BenFact, patients: Patients, work: Work, now: datetime, source: str) -> None:
    record = _record(fact.identifiers, patients)
    if record is None:
        return
    if fact.withdrawn:
        ben = None
    elif fact.confirmed and fact.confirmed_by and fact.confirmed_on is not None:
        ben = Attestation(fact.confirmed_by, fact.confirmed_on)
    else:
        _changed(record, work, now, source, "ben-not-confirmed", {"where": fact.where})
        return
    if ben == record.course.ben:
        return
    before = record.course.ben
    record.course = dataclasses.replace(record.course, ben=ben)
    _changed(
        record, work, now, source, "ben", {"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(ben)}
    )
    if record.enrolled:
        record.settle_at = now


def _record(
    identifiers: Iterable[PatientIdentifier], patients: Patients, *, loosely: bool = True, new: bool = True
) -> PatientRecord | None:
    """The one patient meant, made new if need be and ``new``; None where it cannot be said who."""
    wanted = usable(identifiers)
    match patients.find(wanted, loosely=loosely):
        case Known(record, doubt):
            return record if not doubt else None
        case Ambiguous():
            return None
        case Unknown():
            return patients.new(wanted) if wanted and new else None
        case other:
            assert_never(other)


def _changed(
    record: PatientRecord, work: Work, now: datetime, actor: str, action: str, detail: dict[str, object]
) -> None:
    work.patients[record.id] = record
    work.audits.append(
        Audit(at=now, actor=actor, action=action, patient_id=record.id, detail=msgspec.json.encode(detail))
    )
