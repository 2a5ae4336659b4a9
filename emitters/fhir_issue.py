"""The verdict as a DetectedIssue: which rule spoke, on what evidence, how severe. Written over at each revision."""

from __future__ import annotations

from typing import Final

from emitters.fhir_tasks import Targets
from emitters.fhir_terms import BASE, Resource, coding, concept, quoted, reference
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, ResultStatus

__all__ = ["detected_issue", "rule_address"]

_SEVERITY: Final = {
    AlertLevel.CRITICAL: "high",
    AlertLevel.RED: "high",
    AlertLevel.AMBER: "moderate",
    AlertLevel.INFO: "low",
    AlertLevel.NONE: "low",
}


def detected_issue(alert: Alert, code: Resource, to: Targets) -> Resource:
    """``code``: the alert's family as a coding. What could not be judged is a preliminary issue: nothing was concluded."""
    issue: Resource = {
        "resourceType": "DetectedIssue",
        "language": alert.language,
        "status": _status(alert),
        "code": concept(code, text=alert.title),
        "severity": _SEVERITY[alert.level],
        "identifiedDateTime": to.updated,
        "detail": alert.text,
    }
    if to.patient is not None:
        issue["patient"] = reference(to.patient)
    if to.device is not None:
        issue["author"] = reference(to.device)
    # Which order or statement the patient takes it by is the server's knowledge, not ours.
    issue["implicated"] = [{"type": "Medication", "display": "clozapine"}]
    evidence: Resource = {}
    if alert.assessment is not None:
        evidence["code"] = [concept(coding("anc-rule", alert.assessment.rule), text=alert.assessment.protocol)]
        issue["reference"] = rule_address(alert)
    elif alert.reason:
        evidence["code"] = [concept(coding("anc-reason", alert.reason))]
    if to.observation is not None:
        issue["implicated"].append(reference(to.observation))
        evidence["detail"] = [reference(to.observation)]
    if evidence:
        issue["evidence"] = [evidence]
    return issue


def rule_address(alert: Alert) -> str:
    """The canonical address of the rule that spoke; "" where none did."""
    if alert.assessment is None:
        return ""
    protocol, _, version = alert.assessment.protocol.partition("@")
    return f"{BASE}/rules/" + "/".join(quoted(part) for part in (protocol, version, alert.assessment.rule) if part)


def _status(alert: Alert) -> str:
    if alert.kind is AlertKind.WITHDRAWN:
        return alert.reason if alert.reason in ("corrected", "entered-in-error") else "amended"
    provisional = alert.assessment is not None and alert.assessment.provisional
    if alert.family is AlertFamily.REVIEW or provisional:
        return "preliminary"
    corrected = alert.result is not None and alert.result.status is ResultStatus.CORRECTED
    return "corrected" if alert.kind is AlertKind.UPDATED and corrected else "final"
