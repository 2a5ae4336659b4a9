"""An alert as one FHIR R4 transaction: Device, Flag, Task, the judged Observation, Provenance; more or less by level.

Pure: values in, a dict out. Every id is a uuid5 of a business key and every write is idempotent, so that the same
transaction sent twice changes nothing. What a person has set on a Task is never overwritten (``fhir_tasks``).
Only R4 elements that R4B kept are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from emitters import fhir_requests
from emitters.fhir_issue import detected_issue, rule_address
from emitters.fhir_observation import observation, result_key
from emitters.fhir_tasks import StandingTask, Targets, answered_entries, latest, task_entries
from emitters.fhir_terms import (
    BASE,
    HTEST,
    FhirProfile,
    Level,
    Resource,
    coding,
    concept,
    fhir_id,
    identifier,
    instant,
    own_query,
    reference,
)
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel
from rules.silence import about_system

__all__ = ["BASE", "FhirProfile", "Level", "StandingTask", "device_entry", "encode", "transaction"]

_NEUTROPENIA: Final = coding("http://snomed.info/sct", "165517008", "Neutropenia (finding)")
_FLAG_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/flag-category"
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_EXTENSION: Final = "http://hl7.org/fhir/StructureDefinition"

_FLAG_CATEGORIES: Final = [concept(coding(_FLAG_CATEGORY, code)) for code in ("drug", "safety")]
_FLAG_PRIORITY: Final = {
    level: {
        "url": f"{_EXTENSION}/flag-priority",
        "valueCodeableConcept": concept(coding("http://hl7.org/fhir/flag-priority-code", code)),
    }
    for level, code in (
        (AlertLevel.CRITICAL, "PH"),
        (AlertLevel.RED, "PH"),
        (AlertLevel.AMBER, "PM"),
        (AlertLevel.INFO, "PL"),
        (AlertLevel.NONE, "PN"),
    )
}
_FLAG_CODE: Final = {
    family: coding("anc-alert", family.value, display)
    for family, display in (
        (AlertFamily.STOP, "Neutrophils below the stop threshold"),
        (AlertFamily.MILD, "Mild neutropenia"),
        (AlertFamily.START, "Neutrophils before the start of treatment"),
        (AlertFamily.SCHEDULE, "Changed neutrophil monitoring schedule"),
        (AlertFamily.OVERDUE, "Neutrophil count overdue"),
        (AlertFamily.REVIEW, "Neutrophil count that could not be judged"),
    )
}
_ACTIVITIES: Final = {code: concept(coding(_OPERATION, code)) for code in ("CREATE", "UPDATE", "NULLIFY")}
_ASSEMBLER: Final = concept(coding(_PARTICIPANT, "assembler"))

_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def encode(bundle: Resource) -> bytes:
    """The transaction as JSON bytes; decimals are exact numbers, never floats or strings."""
    return _encoder.encode(bundle)


def transaction(
    alert: Alert,
    *,
    patient_reference: str | None,
    settings: FhirProfile,
    standing: Sequence[StandingTask] = (),
    requests: Sequence[StandingTask] = (),
) -> Resource:
    """One Bundle of type transaction for this notification.

    ``standing``: the Tasks of this alert on the server, oldest first, and ``requests``: what else stands of it
    (``fhir_requests.KINDS``); both needed after revision 1. ``patient_reference`` may be None for REVIEW alerts only,
    whose patient could not be read. To be read only: its constant parts are shared.
    Raises ValueError for an alert that cannot be said in FHIR.
    """
    if patient_reference is None and alert.family is not AlertFamily.REVIEW and alert.kind is not AlertKind.ANSWERED:
        raise ValueError("only a REVIEW alert can go out without a patient")
    raised, updated = instant(alert.raised_at), instant(alert.updated_at)
    if alert.kind is AlertKind.ANSWERED:
        return _answered(alert, settings, standing, requests, raised, updated)
    if settings.level in (Level.L0, Level.L1):
        alone = Targets(
            device=None, flag=None, observation=None, patient=patient_reference, raised=raised, updated=updated
        )
        return _bundle(fhir_requests.entries(alert, alone, settings, requests))
    entries = [device_entry(settings)]
    device = entries[0]["fullUrl"]
    judged = None
    # An Observation about nobody would be read as about somebody.
    if alert.result is not None and patient_reference is not None and not alert.recipient:
        key = result_key(alert, alert.result)
        body = observation(alert, alert.result, patient_reference, device, settings.words_in(alert.language))
        entries.append(_owned("Observation", "anc-result", key, body, alert, settings))
        judged = entries[-1]["fullUrl"]
    flag = None
    # What could not be judged has no Flag: a Flag would say something about the patient.
    if alert.family is not AlertFamily.REVIEW and patient_reference is not None and not alert.recipient:
        body = _flag(alert, patient_reference, device, judged, raised, updated)
        entries.append(_owned("Flag", "alert", alert.id, body, alert, settings))
        flag = entries[-1]["fullUrl"]
    to = Targets(
        device=device, flag=flag, observation=judged, patient=patient_reference, raised=raised, updated=updated
    )
    more: list[str] = []
    if settings.level is Level.L3 and not alert.recipient:
        known = patient_reference is not None and not about_system(alert.family, alert.reason)
        # A copy for a second recipient says nothing new of the patient.
        if known and not alert.recipient:
            issue = detected_issue(alert, _FLAG_CODE[alert.family], to)
            entries.append(_owned("DetectedIssue", "issue", alert.id, issue, alert, settings))
            more.append(entries[-1]["fullUrl"])
            if flag is not None:
                _detail(entries, flag, more[-1])
        asked = fhir_requests.entries(alert, to, settings, requests)
        entries += asked
        more += [entry["fullUrl"] for entry in asked]
        to = _with_requests(to, asked)
    tasks, named = task_entries(alert, to, settings, standing)
    entries += tasks
    targets = [target for target in (flag, judged, *more, *named) if target is not None]
    if targets:
        entries.append(_provenance(alert, targets, to, settings))
    return _bundle(entries)


def _answered(
    alert: Alert,
    settings: FhirProfile,
    standing: Sequence[StandingTask],
    requests: Sequence[StandingTask],
    raised: str,
    updated: str,
) -> Resource:
    """What still stands open of an alert that a person has answered is ended; its Flag stays: the danger is not over."""
    ended = fhir_requests.answered_entries(requests)
    if settings.level in (Level.L0, Level.L1):
        return _bundle(ended)
    ended += answered_entries(alert, standing)
    if not ended:
        return _bundle([])
    device = device_entry(settings)
    to = Targets(device=device["fullUrl"], flag=None, observation=None, patient=None, raised=raised, updated=updated)
    return _bundle([device, *ended, _provenance(alert, [entry["fullUrl"] for entry in ended], to, settings)])


def _bundle(entries: Sequence[Resource]) -> Resource:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def _detail(entries: Sequence[Resource], flag: str, issue: str) -> None:
    """The Flag points to the issue that explains it."""
    for entry in entries:
        if entry["fullUrl"] == flag:
            detail = {"url": f"{_EXTENSION}/flag-detail", "valueReference": reference(issue)}
            entry["resource"]["extension"] = [*entry["resource"]["extension"], detail]


def _with_requests(to: Targets, asked: Sequence[Resource]) -> Targets:
    """The requests that a new Task may fulfil: those made by this very notification."""
    made = {
        entry["resource"]["resourceType"]: entry["fullUrl"] for entry in asked if entry["request"]["method"] == "POST"
    }
    return replace(to, message=made.get("CommunicationRequest"), proposal=made.get("ServiceRequest"))


def device_entry(settings: FhirProfile) -> Resource:
    """The engine itself, as author and assembler. Conditional, so that it is made once and never written again."""
    own = identifier("engine", settings.engine_id)
    return {
        "fullUrl": f"urn:uuid:{fhir_id('Device', settings.engine_id)}",
        "resource": {
            "resourceType": "Device",
            "identifier": [own],
            "status": "active",
            "deviceName": [{"name": settings.engine_name, "type": "user-friendly-name"}],
            "version": [{"value": settings.engine_version}],
        },
        "request": {"method": "POST", "url": "Device", "ifNoneExist": own_query("engine", settings.engine_id)},
    }


def _owned(kind: str, sid: str, key: str, resource: Resource, alert: Alert, settings: FhirProfile) -> Resource:
    """A resource whose whole state is ours: written over by its own id, or by its identifier where ids are not ours."""
    if not alert.production:
        resource["meta"] = {"security": [HTEST]}
    resource["identifier"] = [identifier(sid, key)]
    own = fhir_id(kind, key)
    if settings.update_create:
        # Race-free: no search stands between the server and the write.
        resource["id"] = own
        url = f"{kind}/{own}"
    else:
        url = f"{kind}?{own_query(sid, key)}"
    return {"fullUrl": f"urn:uuid:{own}", "resource": resource, "request": {"method": "PUT", "url": url}}


def _flag(alert: Alert, patient: str, device: str, observation: str | None, raised: str, updated: str) -> Resource:
    local = _FLAG_CODE[alert.family]
    neutropenia = alert.family in (AlertFamily.STOP, AlertFamily.MILD)
    period = {"start": raised}
    status = "active"
    if alert.kind is AlertKind.WITHDRAWN:
        status = "entered-in-error" if alert.reason == "entered-in-error" else "inactive"
        period["end"] = latest(alert, raised, updated)
    extensions: list[Resource] = [_FLAG_PRIORITY[alert.level]]
    if observation is not None:
        extensions.append({"url": f"{_EXTENSION}/flag-detail", "valueReference": reference(observation)})
    return {
        "resourceType": "Flag",
        "language": alert.language,
        "extension": extensions,
        "status": status,
        "category": _FLAG_CATEGORIES,
        "code": concept(local, *((_NEUTROPENIA,) if neutropenia else ()), text=alert.title),
        "subject": reference(patient),
        "period": period,
        "author": reference(device),
    }


def _provenance(alert: Alert, targets: list[str], to: Targets, settings: FhirProfile) -> Resource:
    """Who made this notification, of what, by which rule.

    R4 Provenance has no identifier. Where ids are ours a retry writes the same one over; elsewhere a retry after a lost
    answer can leave a second one that says the same thing at the same time: harmless, so nothing guards it.
    """
    key = f"{alert.id}|{alert.revision}"
    entities: list[Resource] = []
    if alert.source:
        entities.append({"role": "source", "what": {"identifier": identifier("lab-message", alert.source)}})
    if to.observation is not None:
        entities.append({"role": "source", "what": reference(to.observation)})
    activity = _activity(alert)
    if alert.kind is not AlertKind.RAISED:
        role = "removal" if activity == "NULLIFY" else "revision"
        entities.append({"role": role, "what": {"identifier": identifier("alert", alert.id)}})
    provenance: Resource = {
        "resourceType": "Provenance",
        "target": [reference(target) for target in targets],
        "occurredDateTime": to.updated,
        "recorded": to.updated,
        "activity": _ACTIVITIES[activity],
        "agent": [{"type": _ASSEMBLER, "who": fhir_requests.asked_by(settings, to.device)}],
    }
    if entities:
        provenance["entity"] = entities
    if alert.assessment is not None:
        provenance["policy"] = [rule_address(alert)]
    own = fhir_id("Provenance", key)
    request = {"method": "POST", "url": "Provenance"}
    if settings.update_create:
        provenance["id"] = own
        request = {"method": "PUT", "url": f"Provenance/{own}"}
    return {"fullUrl": f"urn:uuid:{own}", "resource": provenance, "request": request}


def _activity(alert: Alert) -> str:
    match alert.kind:
        case AlertKind.RAISED:
            return "CREATE"
        case AlertKind.UPDATED | AlertKind.ANSWERED:
            return "UPDATE"
        case AlertKind.WITHDRAWN:
            return "NULLIFY" if alert.reason == "entered-in-error" else "UPDATE"
