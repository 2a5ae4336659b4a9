"""One entry of the audit trail as a FHIR R4 AuditEvent in the shape of IHE BALP; pure.

Profiles: IHE.BasicAudit.PatientUpdate / Update for what changed a record, DICOM user authentication for logins. The entry's
own detail (codes and our ids, never a count or a name of a patient) travels as ``entity.detail``.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from emitters.fhir_terms import BASE, Resource

__all__ = ["AuditEntry", "audit_event"]

_BALP: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit"
_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem"
_LOGINS: Final = {"login": ("110122", "Login"), "logout": ("110123", "Logout")}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """``seq`` and ``link`` place it in the chain; ``detail`` is JSON."""

    seq: int
    at_ms: int
    actor: str
    action: str
    patient_id: str | None
    detail: str
    link: str


def audit_event(entry: AuditEntry, *, engine_id: str) -> Resource:
    """The patient is named by our register's number, under our own system."""
    engine = {"identifier": {"system": f"{BASE}/sid/engine", "value": engine_id}}
    login = _LOGINS.get(entry.action)
    event: Resource = {
        "resourceType": "AuditEvent",
        "id": f"audit-{entry.seq}",
        **({} if login else {"meta": {"profile": [f"{_BALP}.{'PatientUpdate' if entry.patient_id else 'Update'}"]}}),
        "type": _coding(_DCM, "110114", "User Authentication")
        if login
        else _coding(f"{_TERMS}/audit-event-type", "rest"),
        "subtype": [
            _coding(_DCM, *login) if login else _coding("http://hl7.org/fhir/restful-interaction", "update"),
            _coding(f"{BASE}/CodeSystem/audit-action", entry.action),
        ],
        "action": "E" if login else "U",
        "recorded": datetime.fromtimestamp(entry.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "outcome": "0",
        "agent": [
            _agent("110153", "Source Role ID", {"display": entry.actor or "removed"}, requestor=True),
            _agent("110152", "Destination Role ID", engine, requestor=False),
        ],
        "source": {"observer": engine, "type": [_coding(f"{_TERMS}/security-source-type", "4")]},
        "entity": [_data(entry)],
    }
    if entry.patient_id:
        event["entity"].append(
            {
                "what": {"identifier": {"system": f"{BASE}/sid/patient", "value": entry.patient_id}},
                "type": _coding(f"{_TERMS}/audit-entity-type", "1"),
                "role": _coding(f"{_TERMS}/object-role", "1"),
            }
        )
    return event


def _data(entry: AuditEntry) -> Resource:
    return {
        "what": {"identifier": {"system": f"{BASE}/sid/audit", "value": str(entry.seq)}},
        "type": _coding(f"{_TERMS}/audit-entity-type", "2"),
        "role": _coding(f"{_TERMS}/object-role", "4"),
        "detail": [
            {"type": "detail", "valueBase64Binary": base64.b64encode(entry.detail.encode()).decode()},
            {"type": "chain", "valueString": entry.link},
        ],
    }


def _agent(code: str, display: str, who: Resource, *, requestor: bool) -> Resource:
    return {"type": {"coding": [_coding(_DCM, code, display)]}, "who": who, "requestor": requestor}


def _coding(system: str, code: str, display: str = "") -> Resource:
    return {"system": system, "code": code} | ({"display": display} if display else {})
