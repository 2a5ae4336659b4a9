"""Clozapine that was handed over although a stop is on record: the prescriber is told, and the pharmacist."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from engine.identity import Known, Patients
from engine.notify import Notifier
from engine.present import Turn
from ingest.reading import RegisterFact, TreatmentFact
from rules.model import AlertFamily
from store.port import PatientRecord

__all__ = ["after_stop"]

# What was not handed over, or not to be believed, is none.
_NOT_HANDED_OVER = frozenset({"cancelled", "entered-in-error", "stopped", "declined", "on-hold"})


def after_stop(fact: RegisterFact, patients: Patients, notifier: Notifier, turn: Turn, zone: ZoneInfo) -> bool:
    """Whether this is a dispensing after a stop; then it is told, and changes nothing of the register. On the day of the
    stop too: whoever fetched the tablets that morning has them."""
    if not isinstance(fact, TreatmentFact) or fact.resource_type != "MedicationDispense":
        return False
    if fact.status in _NOT_HANDED_OVER:
        return False
    found = patients.find(fact.identifiers)
    if not isinstance(found, Known) or not found.record.enrolled:
        return False
    record = found.record
    stopped = _stopped_on(record, zone)
    on = fact.start or turn.day(zone)
    if stopped is None or on < stopped:
        return False
    turn.work.patients[record.id] = record
    notifier.dispensed(
        record,
        on=on.isoformat(),
        stop=stopped.isoformat(),
        key=on.isoformat(),
        for_ever=_for_ever(record),
        source=turn.source,
        now=turn.now,
        work=turn.work,
    )
    return True


def _stopped_on(record: PatientRecord, zone: ZoneInfo) -> date | None:
    """The stop that is recorded, else the day since which an alert calls for one."""
    if record.course.stop is not None:
        return record.course.stop.on
    calls = [
        entry.alert.raised_at.astimezone(zone).date()
        for entry in record.alerts.values()
        if entry.alert.family is AlertFamily.STOP and entry.state != "withdrawn" and entry.alert.result is not None
    ]
    return min(calls, default=None)


def _for_ever(record: PatientRecord) -> bool:
    stop = record.course.stop
    haematological = stop.reason.haematological if stop is not None else True
    return haematological or bool(record.present and record.present.no_reexposure)
