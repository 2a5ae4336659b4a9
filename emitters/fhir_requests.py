"""What asks beside the Task: a CommunicationRequest for what is urgent, a proposed ServiceRequest for the next count.

People act on both, so they are made once (conditionally) and afterwards only touched as the server has them now, with
``ifMatch``: an earlier request that nobody has taken up is ended, one that somebody has is left alone.

At L0 and L1 the message itself is all there is: one Communication, DocumentReference or CommunicationRequest a notification.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

from emitters.counts import is_reference
from emitters.fhir_tasks import PRIORITY, StandingTask, Targets, rewrite
from emitters.fhir_terms import (
    HTEST,
    FhirProfile,
    Level,
    Resource,
    coding,
    concept,
    identifier,
    own_query,
    query,
    reference,
    urn,
)
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel

__all__ = ["KINDS", "answered_entries", "asked_by", "entries", "request_identifiers", "request_search", "told_revision"]

KINDS: Final = {
    Level.L0: ("Communication", "DocumentReference"),
    Level.L1: ("CommunicationRequest",),
    Level.L2: (),
    Level.L3: ("CommunicationRequest", "ServiceRequest"),
}
"""The types of which an alert can have standing resources at each level, its Tasks apart."""

_OPEN: Final = frozenset({"draft", "active", "on-hold"})
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/communication-category"
_COUNT: Final = coding("http://loinc.org", "58410-2", "CBC panel - Blood by Automated count")
_NOTE: Final = coding("http://loinc.org", "34109-9", "Note")
_ALERT, _REMINDER = (concept(coding(_CATEGORY, code)) for code in ("alert", "reminder"))


def entries(alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]) -> list[Resource]:
    """The entries of this notification; ``standing``: what the server has of it, of the types of ``KINDS``."""
    match settings.level:
        case Level.L0:
            kind = "DocumentReference" if settings.document else "Communication"
            return _message(kind, alert, to, settings, standing)
        case Level.L1:
            return _message("CommunicationRequest", alert, to, settings, standing)
        case Level.L2:
            return []
        case Level.L3:
            found = _message("CommunicationRequest", alert, to, settings, standing) if _urgent(alert, to) else []
            return found + _proposal(alert, to, settings, standing)


def answered_entries(standing: Sequence[StandingTask]) -> list[Resource]:
    """Somebody has answered: what was to be communicated has been, unless a person has it on hold. The proposed count
    stands: it is still to be taken."""
    return [
        rewrite(_kept(task.resource) | {"status": "completed"}, task.version)
        for task in standing
        if task.resource.get("resourceType") == "CommunicationRequest"
        and task.resource.get("status") in ("draft", "active")
        and task.version
    ]


def request_identifiers(alert: Alert) -> list[Resource]:
    # Later ones too: told after them, this notification would put back what has been overtaken.
    recent = range(max(1, alert.revision - 20), alert.revision + 6)
    told = [identifier("notification", f"{_told(alert)}:{number}") for number in recent]
    return [*told, identifier("next-anc", alert.id), *(identifier("next-anc", f"{alert.id}:{n}") for n in recent)]


def request_search(kind: str, alert: Alert) -> str:
    return f"{kind}?" + query(*request_identifiers(alert))


def told_revision(resource: Resource, alert: Alert) -> int:
    """Which notification a standing Communication(Request) told; 0 for another resource."""
    values = [str(one.get("value", "")) for one in resource.get("identifier") or () if isinstance(one, dict)]
    start = f"{_told(alert)}:"
    numbers = [value.removeprefix(start) for value in values if value.startswith(start)]
    told = [int(number) for number in numbers if number.isascii() and number.isdigit()]
    return max(told, default=0) if resource.get("resourceType") != "ServiceRequest" else 0


def _told(alert: Alert) -> str:
    """What is told to whoever must answer, or to the second recipient whom this copy is for: each is of its own."""
    return f"{alert.id}:{alert.recipient}" if alert.recipient else alert.id


def asked_by(settings: FhirProfile, device: str | None) -> Resource:
    """The engine as requester or sender: the Device where it stands on the server, its identifier elsewhere."""
    if device is not None:
        return reference(device)
    own = identifier("engine", settings.engine_id)
    return {"type": "Device", "identifier": own, "display": settings.engine_name}


def _urgent(alert: Alert, to: Targets) -> bool:
    """Who reads their Tasks is told by them; what must not wait for that, and its withdrawal, is told besides."""
    return to.flag is not None and (alert.family is AlertFamily.STOP or alert.level.rank >= AlertLevel.RED.rank)


def _message(
    kind: str, alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]
) -> list[Resource]:
    """The text as one resource, which takes the place of those before it."""
    key = f"{_told(alert)}:{alert.revision}"
    earlier = [task for task in standing if task.resource.get("resourceType") == kind]
    if any(told_revision(task.resource, alert) >= alert.revision for task in earlier):
        return []
    body = {
        "Communication": _communication,
        "CommunicationRequest": _communication_request,
        "DocumentReference": _document,
    }[kind](alert, to, settings)
    body["identifier"] = [identifier("notification", key)]
    before = [reference(f"{kind}/{task.resource['id']}") for task in earlier if "id" in task.resource]
    if before and kind == "CommunicationRequest":
        body["replaces"] = before[-1:]
    elif before and kind == "Communication":
        body["inResponseTo"] = before[-1:]
    elif before:
        body["relatesTo"] = [{"code": "replaces", "target": before[-1]}]
    return [*_ended(kind, alert, earlier), _create(kind, "notification", key, body, alert)]


def _ended(kind: str, alert: Alert, earlier: Sequence[StandingTask]) -> Iterator[Resource]:
    for task in earlier:
        status = task.resource.get("status")
        mistaken = alert.kind is AlertKind.WITHDRAWN and alert.reason == "entered-in-error"
        ends: str | None = None
        if kind == "CommunicationRequest" and status in _OPEN:
            ends = "entered-in-error" if mistaken else "revoked"
        elif kind == "DocumentReference" and status == "current":
            ends = "entered-in-error" if mistaken else "superseded"
        elif kind == "Communication" and mistaken and status != "entered-in-error":
            ends = "entered-in-error"
        if ends is not None and task.version:
            yield rewrite(_kept(task.resource) | {"status": ends}, task.version)


def _communication_request(alert: Alert, to: Targets, settings: FhirProfile) -> Resource:
    body: Resource = {
        "resourceType": "CommunicationRequest",
        "language": alert.language,
        "status": "active",
        "category": [_REMINDER if alert.family is AlertFamily.OVERDUE else _ALERT],
        "priority": PRIORITY[alert.level],
        "payload": [{"contentString": _words(alert)}],
        "authoredOn": to.updated,
        "requester": asked_by(settings, to.device),
        **_subject(to),
        **_recipient(alert, settings),
    }
    about = [reference(target) for target in (to.flag, to.observation) if target is not None]
    if about:
        body["about"] = about
    if to.observation is not None:
        body["reasonReference"] = [reference(to.observation)]
    return body


def _communication(alert: Alert, to: Targets, settings: FhirProfile) -> Resource:
    # No "received": that somebody has read it is not ours to say.
    return {
        "resourceType": "Communication",
        "language": alert.language,
        "status": "completed",
        "category": [_REMINDER if alert.family is AlertFamily.OVERDUE else _ALERT],
        "priority": PRIORITY[alert.level],
        "topic": {"text": alert.title},
        "sent": to.updated,
        "sender": asked_by(settings, to.device),
        "payload": [{"contentString": _words(alert)}],
        **_subject(to),
        **_recipient(alert, settings),
    }


def _document(alert: Alert, to: Targets, settings: FhirProfile) -> Resource:
    text = base64.b64encode(_words(alert).encode()).decode()
    attachment = {
        "contentType": "text/plain; charset=utf-8",
        "language": alert.language,
        "data": text,
        "title": alert.title,
    }
    return {
        "resourceType": "DocumentReference",
        "language": alert.language,
        "status": "current",
        "docStatus": "final",
        "type": concept(_NOTE, text=alert.title),
        "date": to.updated,
        "author": [asked_by(settings, to.device)],
        "description": alert.title,
        "content": [{"attachment": attachment}],
        **_subject(to),
    }


def _proposal(alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]) -> list[Resource]:
    """The next count as a proposal: one an alert, whose date moves with the verdict until somebody has taken it up."""
    if to.patient is None or alert.family is AlertFamily.REVIEW or to.flag is None:
        return []
    known = [task for task in standing if task.resource.get("resourceType") == "ServiceRequest"]
    free = [task for task in known if task.version and task.resource.get("status") in _OPEN]
    if alert.kind is AlertKind.WITHDRAWN:
        status = "entered-in-error" if alert.reason == "entered-in-error" else "revoked"
        return [rewrite(_kept(task.resource) | {"status": status}, task.version) for task in free]
    due = _due(alert)
    if due is None:
        return [rewrite(_kept(task.resource) | {"status": "revoked"}, task.version) for task in free]
    when = {"occurrencePeriod": {"end": due.isoformat()}}
    if free:
        last = free[-1]
        if last.resource.get("occurrencePeriod") == when["occurrencePeriod"]:
            return []
        moved = {name: value for name, value in _kept(last.resource).items() if not name.startswith("occurrence")}
        return [rewrite(moved | when | {"priority": PRIORITY[alert.level]}, last.version)]
    key = f"{alert.id}:{alert.revision}" if known else alert.id
    body: Resource = {
        "resourceType": "ServiceRequest",
        "language": alert.language,
        "identifier": [identifier("next-anc", key)],
        "status": "active",
        "intent": "proposal",
        "priority": PRIORITY[alert.level],
        "code": concept(_COUNT, text=settings.words_in(alert.language).count_to_order),
        "subject": reference(to.patient),
        **when,
        "authoredOn": to.updated,
        "requester": asked_by(settings, to.device),
    }
    if to.observation is not None:
        body["reasonReference"] = [reference(to.observation)]
    return [_create("ServiceRequest", "next-anc", key, body, alert)]


def _due(alert: Alert) -> date | None:
    if alert.assessment is None:
        return None
    days = [day for day in (alert.assessment.recommended_recheck_by, alert.assessment.next_due) if day is not None]
    return min(days, default=None)


def _create(kind: str, sid: str, key: str, body: Resource, alert: Alert) -> Resource:
    if not alert.production:
        body["meta"] = {"security": [HTEST]}
    condition = own_query(sid, key)
    return {
        "fullUrl": urn(kind, f"{sid}|{key}"),
        "resource": body,
        "request": {"method": "POST", "url": kind, "ifNoneExist": condition},
    }


def _kept(resource: Resource) -> Resource:
    """The server's resource as it may be written back: its own meta and narrative are the server's to make."""
    return {name: value for name, value in resource.items() if name not in ("meta", "text")}


def _subject(to: Targets) -> dict[str, Any]:
    return {"subject": reference(to.patient)} if to.patient is not None else {}


def _recipient(alert: Alert, settings: FhirProfile) -> dict[str, Any]:
    default = (settings.reviewer or settings.owner) if alert.family is AlertFamily.REVIEW else settings.owner
    for owner in (alert.subject.owner, default):
        if owner and is_reference(owner):
            return {"recipient": [reference(owner)]}
    named = alert.subject.owner or default
    return {"recipient": [{"display": named}]} if named else {}


def _words(alert: Alert) -> str:
    return alert.text if alert.text.startswith(alert.title) else f"{alert.title}\n{alert.text}"
