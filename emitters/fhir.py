"""An alert as one FHIR R4 transaction: Device, Flag, Task, the judged Observation, Provenance.

Pure: values in, a dict out. Every id is a uuid5 of a business key and every write is idempotent, so that the same
transaction sent twice changes nothing. What a person has set on a Task is never overwritten (``fhir_tasks``).
Only R4 elements that R4B kept are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from emitters.counts import UCUM_UNIT, giga_per_litre, letter
from emitters.fhir_tasks import StandingTask, Targets, latest, task_entries
from emitters.fhir_terms import (
    BASE,
    FhirProfile,
    Resource,
    coding,
    concept,
    fhir_id,
    identifier,
    instant,
    own_query,
    quoted,
    reference,
)
from rules.model import (
    AbsoluteNeutrophilCount,
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    LabResult,
    ResultStatus,
)

__all__ = ["BASE", "FhirProfile", "StandingTask", "device_entry", "encode", "transaction"]

_LOINC: Final = "http://loinc.org"
_ANC: Final = coding(_LOINC, "26499-4", "Neutrophils [#/volume] in Blood")
_NEUTROPENIA: Final = coding("http://snomed.info/sct", "165517008", "Neutropenia (finding)")
_LABORATORY: Final = coding("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory")
_FLAG_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/flag-category"
_INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_V2_0203: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_HTEST: Final = coding("http://terminology.hl7.org/CodeSystem/v3-ActReason", "HTEST")
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
    )
}
_LETTERS: Final = {mark: concept(coding(_INTERPRETATION, mark)) for mark in ("LL", "L", "N")}
_ACTIVITIES: Final = {code: concept(coding(_OPERATION, code)) for code in ("CREATE", "UPDATE", "NULLIFY")}
_ASSEMBLER: Final = concept(coding(_PARTICIPANT, "assembler"))
_LABORATORIES: Final = concept(_LABORATORY)
_FILLER: Final = concept(coding(_V2_0203, "FILL"))

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
) -> Resource:
    """One Bundle of type transaction for this notification.

    ``standing``: the Tasks of this alert on the server, oldest first; needed after revision 1. ``patient_reference``
    may be None for REVIEW alerts only, whose patient could not be read. To be read only: its constant parts are shared.
    Raises ValueError for an alert that cannot be said in FHIR.
    """
    if patient_reference is None and alert.family is not AlertFamily.REVIEW:
        raise ValueError("only a REVIEW alert can go out without a patient")
    raised, updated = instant(alert.raised_at), instant(alert.updated_at)
    entries = [device_entry(settings)]
    device = entries[0]["fullUrl"]
    observation = None
    # An Observation about nobody would be read as about somebody.
    if alert.result is not None and patient_reference is not None:
        key = _result_key(alert, alert.result)
        body = _observation(alert, alert.result, patient_reference, device)
        entries.append(_owned("Observation", "anc-result", key, body, alert, settings))
        observation = entries[-1]["fullUrl"]
    flag = None
    # What could not be judged has no Flag: a Flag would say something about the patient.
    if alert.family is not AlertFamily.REVIEW and patient_reference is not None:
        body = _flag(alert, patient_reference, device, observation, raised, updated)
        entries.append(_owned("Flag", "alert", alert.id, body, alert, settings))
        flag = entries[-1]["fullUrl"]
    to = Targets(
        device=device,
        flag=flag,
        observation=observation,
        patient=patient_reference,
        raised=raised,
        updated=updated,
    )
    tasks, named = task_entries(alert, to, settings, standing)
    entries += tasks
    targets = [target for target in (flag, observation, *named) if target is not None]
    if targets:
        entries.append(_provenance(alert, targets, to, settings))
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


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
        resource["meta"] = {"security": [_HTEST]}
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


def _result_key(alert: Alert, result: LabResult) -> str:
    # The laboratory's key may hold its order numbers: hashed, so that ours tells nothing. Scoped to the patient, since
    # a result posted on the wrong one and re-posted on the right one must not be moved between them.
    return fhir_id("result", f"{alert.subject.register_id}|{result.key or f'{alert.id}|{result.collected_at}'}")


def _observation(alert: Alert, result: LabResult, patient: str, device: str) -> Resource:
    """The count as it was judged: ours, normalised, pointing to the laboratory's by its order number."""
    observation: Resource = {
        "resourceType": "Observation",
        "status": result.status.value,
        "category": [_LABORATORIES],
        "code": _codes(result),
        "subject": reference(patient),
    }
    if result.collected_at is not None:
        observation["effectiveDateTime"] = _effective(result.collected_at, result.time_known)
    if result.issued_at is not None and result.issued_at.tzinfo is not None:
        observation["issued"] = instant(result.issued_at)
    if result.anc is None or result.status.withdrawn:
        reason = "not-performed" if result.status is ResultStatus.CANCELLED else "unknown"
        observation["dataAbsentReason"] = concept(coding(_ABSENT, reason))
    else:
        observation |= _measured(alert, result.anc)
    if result.doubts:
        observation["note"] = [{"text": f"{result.trust.value}: {', '.join(result.doubts)}"}]
    observation["device"] = reference(device)
    source = _laboratory_order(result)
    if source is not None:
        observation["derivedFrom"] = [{"type": "Observation", "identifier": source}]
    return observation


def _measured(alert: Alert, anc: AbsoluteNeutrophilCount) -> Resource:
    quantity: Resource = {
        "value": giga_per_litre(anc.per_mm3),
        "unit": UCUM_UNIT,
        "system": "http://unitsofmeasure.org",
        "code": UCUM_UNIT,
    }
    if anc.comparator is not None:
        quantity["comparator"] = anc.comparator
    measured: Resource = {"valueQuantity": quantity}
    mark = letter(alert, anc)
    if mark is not None:
        measured["interpretation"] = [_LETTERS[mark]]
    if anc.derived:
        worst = f"; at worst {giga_per_litre(anc.lower_bound)} {UCUM_UNIT}" if anc.lower_bound is not None else ""
        measured["method"] = {"text": f"Computed from leukocytes and the neutrophil fraction{worst}"}
    return measured


def _codes(result: LabResult) -> Resource:
    """LOINC 26499-4 and the laboratory's own code, unless that one names something else (a percentage)."""
    text = result.display or _ANC["display"]
    derived = result.anc is not None and result.anc.derived
    own_code_in_doubt = derived or "code-unit-conflict" in result.doubts
    if not result.code or own_code_in_doubt or (result.code_system == _LOINC and result.code == _ANC["code"]):
        return concept(_ANC, text=text)
    local: Resource = {"code": result.code}
    if result.code_system:
        system = result.code_system
        local["system"] = system if ":" in system else f"{BASE}/laboratory-codes/{quoted(system)}"
    if result.display:
        local["display"] = result.display
    return concept(_ANC, local, text=text)


def _effective(at: datetime, time_known: bool) -> str:
    # FHIR wants an offset beside a time; where none was stated only the day is certain.
    return instant(at) if time_known and at.tzinfo is not None else at.date().isoformat()


def _laboratory_order(result: LabResult) -> Resource | None:
    """The filler order number as an identifier; EI components, where it came with them, name who gave it."""
    if not result.order.filler:
        return None
    value, namespace, oid, kind = [*result.order.filler.split("^"), "", "", ""][:4]
    found: Resource = {"type": _FILLER, "value": value or result.order.filler}
    if oid and kind == "ISO":
        found["system"] = f"urn:oid:{oid}"
    elif namespace:
        found["assigner"] = {"display": namespace}
    return found


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
        "agent": [{"type": _ASSEMBLER, "who": reference(to.device)}],
    }
    if entities:
        provenance["entity"] = entities
    if alert.assessment is not None:
        protocol, _, version = alert.assessment.protocol.partition("@")
        path = "/".join(quoted(part) for part in (protocol, version, alert.assessment.rule) if part)
        provenance["policy"] = [f"{BASE}/rules/{path}"]
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
        case AlertKind.UPDATED:
            return "UPDATE"
        case AlertKind.WITHDRAWN:
            return "NULLIFY" if alert.reason == "entered-in-error" else "UPDATE"
