"""The Task that asks a person to act, over its life: created once, revised with care, cancelled when withdrawn.

A Task belongs to whoever answers it. The first is a conditional create, so a retry never touches it. Afterwards the
Tasks as the server has them (``StandingTask``) are given here, and each answer is the server's own resource with our
few fields renewed, written with ``ifMatch``: status, owner and everything else that a person set is kept.

When a person has already closed the Task, a later revision would go unseen on it: a new Task is made beside it.
Input ``revision`` on a Task says which notification it carries; that makes revising idempotent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from emitters.counts import is_reference
from emitters.fhir_terms import (
    HTEST,
    FhirProfile,
    Resource,
    coding,
    concept,
    identifier,
    instant,
    own_query,
    query,
    reference,
    urn,
)
from rules.asking import DISPENSED
from rules.decisions import UNDECIDED
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel
from rules.silence import ENDED, about_system
from rules.withdrawal import ANSWERED_WITHDRAWN

__all__ = [
    "PRIORITY",
    "StandingTask",
    "Targets",
    "answered_entries",
    "carried_revision",
    "latest",
    "rewrite",
    "task_entries",
    "task_identifiers",
    "task_search",
    "whole_groups",
]

_UNANSWERED: Final = frozenset({"draft", "requested", "received", "ready"})
_CLOSED: Final = frozenset({"completed", "rejected", "cancelled", "failed", "entered-in-error"})
PRIORITY: Final = {
    AlertLevel.CRITICAL: "stat",
    AlertLevel.RED: "asap",
    AlertLevel.AMBER: "urgent",
    AlertLevel.INFO: "routine",
    AlertLevel.NONE: "routine",
}
_RANK: Final = ("routine", "urgent", "asap", "stat")

_FULFILL: Final = coding("http://hl7.org/fhir/CodeSystem/task-code", "fulfill")
_ACK_STOP: Final = coding("anc-task", "ACK-STOP", "Acknowledge stop alert and decide")
_NEXT_ANC: Final = coding("anc-task", "NEXT-ANC", "Obtain the next neutrophil count")
_REVIEW_RESULT: Final = coding("anc-task", "REVIEW-RESULT", "Review a result that could not be judged")
_CHECK_CONNECTION: Final = coding("anc-task", "CHECK-CONNECTION", "Check a connection that is silent or down")
_REVIEW_DECISION: Final = coding("anc-task", "REVIEW-DECISION", "Review or state a decision")
_CHECK_DISPENSING: Final = coding("anc-task", "CHECK-DISPENSING", "Check a dispensing that came after a stop")
_COPIES: Final = {
    "pharmacist": coding("anc-task", "INFORM-PHARMACIST", "Dispense no clozapine without the prescriber's word"),
    "laboratory": coding("anc-task", "CALL-BACK", "Call the prescriber back with the absolute count"),
}
_STATES: Final = {
    state: concept(coding("anc-task-state", state))
    for state in ("AWAITING-ACK", "ACKNOWLEDGED", "ESCALATED", "DUE", "OVERDUE", "WITHDRAWN")
}
_INPUTS: Final = {
    code: concept(coding("anc-task-io", code))
    for code in ("revision", "escalation", "alert", "evaluated-result", "rule", "lab-message", "place-in-message")
}


@dataclass(frozen=True, slots=True)
class StandingTask:
    """A Task of this alert as the server has it now; ``version`` is its meta.versionId, "" when the server has none."""

    resource: Resource
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the entries of one transaction may point to: their fullUrls, None where there is no such entry."""

    device: str | None
    flag: str | None
    observation: str | None
    patient: str | None
    raised: str
    """The alert's times as instants, since every resource says them."""
    updated: str
    message: str | None = None
    """The CommunicationRequest and the proposed ServiceRequest of this notification, which a Task may fulfil."""
    proposal: str | None = None


def latest(alert: Alert, raised: str, updated: str) -> str:
    """The later of the alert's times, which are given as instants: a clock may have been set back between them."""
    return updated if alert.updated_at > alert.raised_at else raised


def task_identifiers(alert: Alert) -> list[Resource]:
    """Every identifier that a Task of this alert can have: one a revision, and one after a withdrawal."""
    # Bounded, so that the search URL is: an alert with more revisions than this still finds its latest Tasks.
    recent, base = range(max(2, alert.revision - 20), alert.revision + 1), _key(alert)
    values = [base, *(f"{base}:{n}" for n in recent)]
    if not alert.recipient:
        values += [f"{alert.id}:review-decision:{n}" for n in recent]
    return [identifier("task", value) for value in values]


# Tokens of one search, so that its URL stays short.
_A_SEARCH: Final = 24


def whole_groups(alert: Alert) -> Iterator[list[Resource]]:
    """The identifiers of every Task that this alert can ever have had, however often it passed on, and of the copies for
    second recipients; a search each."""
    names = [f"{alert.id}:{kind}" for kind in ("ack", *_COPIES)]
    later = (f"{name}:{number}" for number in range(2, alert.revision) for name in names)
    values = [*names, *later]
    for start in range(0, len(values), _A_SEARCH):
        yield [identifier("task", value) for value in values[start : start + _A_SEARCH]]


def task_search(alert: Alert) -> str:
    return "Task?" + query(*task_identifiers(alert))


def task_entries(
    alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]
) -> tuple[list[Resource], list[str]]:
    """The Task entries of this notification, and the references that its Provenance names."""
    if standing and any(carried_revision(task.resource) >= alert.revision for task in standing):
        # Sent before, and perhaps answered since: nothing of it is ours to write again.
        return [], [f"Task/{task.resource['id']}" for task in standing if "id" in task.resource]
    if alert.kind is AlertKind.WITHDRAWN:
        entries = _withdrawal(alert, to, settings, standing)
    else:
        entries = _notification(alert, to, settings, standing)
    return entries, [entry["fullUrl"] for entry in entries]


def answered_entries(alert: Alert, standing: Sequence[StandingTask]) -> list[Resource]:
    """Somebody has answered: the Tasks of the alert that nobody has taken up are ended, and whoever has taken one up, or is
    to be told rather than asked, reads in it what was decided. No status that a person set is changed."""
    entries = []
    for task in standing:
        resource = task.resource
        if not task.version or resource.get("status") in _CLOSED or carried_revision(resource) >= alert.revision:
            continue
        change = _noted(resource, alert)
        if not _informs(resource):
            change["businessStatus"] = _STATES["ACKNOWLEDGED"]
            if resource.get("status") in _UNANSWERED:
                change["status"] = "cancelled"
                change["statusReason"] = concept(coding("anc-status-reason", "ANSWERED-ELSEWHERE"), text=alert.title)
        entries.append(rewrite(change, task.version))
    return entries


def _informs(task: Resource) -> bool:
    """The pharmacist is told what must not be handed over: that the prescriber has answered does not say that the pharmacist
    has read it."""
    return any(one.get("code") == "INFORM-PHARMACIST" for one in (task.get("code") or {}).get("coding") or ())


def carried_revision(task: Resource) -> int:
    """Which notification the Task carries; 0 when it does not say (an EHR may drop inputs when it saves)."""
    return _carried(task, "revision")


def _carried(task: Resource, code: str) -> int:
    for item in task.get("input") or ():
        if _is_input(item, code) and isinstance(item.get("valuePositiveInt"), int):
            return int(item["valuePositiveInt"])
    return 0


def _is_input(item: Resource, code: str) -> bool:
    return any(one.get("code") == code for one in (item.get("type") or {}).get("coding") or ())


def _key(alert: Alert) -> str:
    """Of the first Task: of who must answer, or of the second recipient whom this copy is for."""
    return f"{alert.id}:{alert.recipient or 'ack'}"


def _notification(alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]) -> list[Resource]:
    writable = [task for task in standing if task.version and task.resource.get("status") not in _CLOSED]
    key = f"{_key(alert)}:{alert.revision}" if standing else _key(alert)
    if writable and not _passes_on(writable[-1].resource, alert, settings):
        return [rewrite(_revised(task.resource, alert), task.version) for task in writable[-1:]]
    # Nobody answered in time: the next owner has a Task of their own, and whoever was asked before can still answer theirs.
    passed = [rewrite(_passed_on(task.resource, alert), task.version) for task in writable[-1:]]
    return [*passed, _create(key, _task(alert, to, settings, key, standing))]


def _passes_on(task: Resource, alert: Alert, settings: FhirProfile) -> bool:
    """Is somebody else asked now than when this Task was made?"""
    if alert.escalation <= _carried(task, "escalation"):
        return False
    asked = _owner(alert, settings)
    return any(task.get(name) != asked.get(name) for name in asked)


def _passed_on(task: Resource, alert: Alert) -> Resource:
    passed = _noted(task, alert)
    passed["priority"] = "stat"
    passed["businessStatus"] = _STATES["ESCALATED"]
    return passed


def _withdrawal(alert: Alert, to: Targets, settings: FhirProfile, standing: Sequence[StandingTask]) -> list[Resource]:
    entries = []
    acted = False
    for task in standing:
        status = task.resource.get("status")
        seen = status not in _UNANSWERED and status not in ("cancelled", "entered-in-error")
        acted = acted or seen or (not task.version and status in _UNANSWERED)
        if task.version and status not in ("cancelled", "entered-in-error"):
            change = _noted(task.resource, alert) if seen else _taken_back(task.resource, alert)
            entries.append(rewrite(change, task.version))
    told_apart = bool(alert.followed_by or alert.recipient)  # the engine puts that question as an alert of its own
    if acted and not told_apart and alert.family is not AlertFamily.REVIEW and alert.reason != ENDED:
        # Someone acted on what is no longer true, and perhaps stopped a treatment: they must be told
        # in a way that shows, and a note on a Task that is done does not.
        key = f"{alert.id}:review-decision:{alert.revision}"
        entries.append(_create(key, _task(alert, to, settings, key, standing)))
    return entries


def _create(key: str, task: Resource) -> Resource:
    # A conditional create even where we may choose ids: a PUT would reset what a person set meanwhile.
    # One writer an alert (the outbox) keeps it from racing with itself (HAPI #3141, medplum #4234).
    return {
        "fullUrl": urn("Task", key),
        "resource": task,
        "request": {"method": "POST", "url": "Task", "ifNoneExist": own_query("task", key)},
    }


def rewrite(resource: Resource, version: str) -> Resource:
    """The entry that writes a standing resource back, if nobody has written it since it was read as ``version``."""
    place = f"{resource['resourceType']}/{resource['id']}"
    return {
        "fullUrl": urn("rewrite", place),
        "resource": resource,
        "request": {"method": "PUT", "url": place, "ifMatch": f'W/"{version}"'},
    }


def _task(alert: Alert, to: Targets, settings: FhirProfile, key: str, standing: Sequence[StandingTask]) -> Resource:
    withdrawn = alert.kind is AlertKind.WITHDRAWN
    authored = to.updated if standing else to.raised
    code, state, intent = _kind(alert)
    task: Resource = {"resourceType": "Task", "language": alert.language}
    if not alert.production:
        task["meta"] = {"security": [HTEST]}
    task["identifier"] = [identifier("task", key)]
    task["groupIdentifier"] = identifier("alert", alert.id)
    if standing and "id" in standing[-1].resource:
        task["partOf"] = [reference(f"Task/{standing[-1].resource['id']}")]
    task["status"] = "requested"
    task["businessStatus"] = _STATES[state]
    task["intent"] = intent
    task["priority"] = PRIORITY[alert.pressing]
    focus = _focus(alert, to)
    until = None if withdrawn else _deadline(alert, settings)
    # tsk-1 (R5): a restriction only on a Task that says it fulfils its focus.
    restricted = focus is not None and until is not None and alert.family is not AlertFamily.REVIEW
    task["code"] = concept(code, _FULFILL, text=alert.title) if restricted else concept(code, text=alert.title)
    task["description"] = alert.text
    if focus is not None:
        task["focus"] = reference(focus)
    if to.patient is not None:
        task["for"] = reference(to.patient)
    task["authoredOn"] = authored
    task["lastModified"] = authored if standing else latest(alert, to.raised, to.updated)
    if to.device is not None:
        task["requester"] = reference(to.device)
    task.update(_owner(alert, settings))
    if alert.reason:
        task["reasonCode"] = concept(coding("anc-reason", alert.reason), text=alert.reason)
    if to.observation is not None:
        task["reasonReference"] = reference(to.observation)
    if restricted:
        task["restriction"] = {"period": {"end": until}}
    task["input"] = _inputs(alert, to)
    return task


def _focus(alert: Alert, to: Targets) -> str | None:
    """What is to be fulfilled where the server has such requests; else what the Task is about."""
    if alert.family is AlertFamily.REVIEW:
        return to.observation
    asked = to.message if alert.family is AlertFamily.STOP else to.proposal
    return asked if asked is not None and alert.kind is not AlertKind.WITHDRAWN else to.flag


def _kind(alert: Alert) -> tuple[Resource, str, str]:
    """code, businessStatus and intent of a new Task."""
    if alert.recipient:
        return _COPIES.get(alert.recipient, _REVIEW_RESULT), "AWAITING-ACK", "order"
    if alert.kind is AlertKind.WITHDRAWN:
        return _REVIEW_DECISION, "WITHDRAWN", "order"
    match alert.family:
        case AlertFamily.STOP:
            return _ACK_STOP, "AWAITING-ACK", "order"
        case AlertFamily.REVIEW if about_system(alert.family, alert.reason):
            return _CHECK_CONNECTION, "AWAITING-ACK", "order"
        case AlertFamily.REVIEW if alert.reason in (ANSWERED_WITHDRAWN, UNDECIDED):
            return _REVIEW_DECISION, "AWAITING-ACK", "order"
        case AlertFamily.REVIEW if alert.reason == DISPENSED:
            return _CHECK_DISPENSING, "AWAITING-ACK", "order"
        case AlertFamily.REVIEW:
            return _REVIEW_RESULT, "AWAITING-ACK", "order"
        case AlertFamily.OVERDUE:
            return _NEXT_ANC, "OVERDUE", "proposal"
        case _:
            return _NEXT_ANC, "DUE", "proposal"


def _deadline(alert: Alert, settings: FhirProfile) -> str | None:
    """STOP is to be answered within minutes; the others ask for a count by a date."""
    if alert.recipient:
        return None
    if alert.family is AlertFamily.STOP:
        if alert.answer_by is not None and alert.answer_by > alert.updated_at:
            return instant(alert.answer_by)
        minutes = settings.minutes_to_answer(alert.level)
        return instant(alert.updated_at + timedelta(minutes=minutes)) if minutes is not None else None
    if alert.assessment is None:
        return None
    dates = [day for day in (alert.assessment.recommended_recheck_by, alert.assessment.next_due) if day is not None]
    # A deadline before the Task itself would be an inverted window in some EHRs: an overdue test has none.
    today = alert.updated_at.astimezone(settings.zone).date()
    return min(dates).isoformat() if dates and min(dates) >= today else None


def _owner(alert: Alert, settings: FhirProfile) -> Resource:
    named = alert.subject.owner
    default = (settings.reviewer or settings.owner) if alert.family is AlertFamily.REVIEW else settings.owner
    found: Resource = {}
    for owner in (named, default):
        if owner and is_reference(owner):
            found["owner"] = reference(owner)
            break
    roles = [owner for owner in (named, default) if owner and not is_reference(owner)]
    if roles:
        found["performerType"] = [{"text": roles[0]}]
    return found


def _inputs(alert: Alert, to: Targets) -> list[Resource]:
    inputs: list[Resource] = [_input("revision", "valuePositiveInt", alert.revision)]
    if alert.escalation:
        inputs.append(_input("escalation", "valuePositiveInt", alert.escalation))
    if to.flag is not None:
        inputs.append(_input("alert", "valueReference", reference(to.flag)))
    if to.observation is not None:
        inputs.append(_input("evaluated-result", "valueReference", reference(to.observation)))
    if alert.assessment is not None:
        inputs.append(_input("rule", "valueString", f"{alert.assessment.protocol} {alert.assessment.rule}"))
    if alert.source:
        inputs.append(_input("lab-message", "valueString", alert.source))
    if alert.where:
        inputs.append(_input("place-in-message", "valueString", alert.where))
    return inputs


def _input(code: str, choice: str, value: object) -> Resource:
    return {"type": _INPUTS[code], choice: value}


def _noted(task: Resource, alert: Alert) -> Resource:
    """The server's Task with our note and our revision; nothing that a person set is changed."""
    text = alert.title if alert.text.startswith(alert.title) else f"{alert.title}. {alert.text}"
    old = task.get("lastModified")
    kept = {name: value for name, value in task.items() if name not in ("meta", "text")}
    meta = {name: value for name, value in task.get("meta", {}).items() if name not in ("versionId", "lastUpdated")}
    if meta:
        kept["meta"] = meta
    kept["note"] = [*task.get("note", ()), {"time": instant(alert.updated_at), "text": text}]
    kept["input"] = [item for item in task.get("input", ()) if not _is_input(item, "revision")] + [
        _input("revision", "valuePositiveInt", alert.revision)
    ]
    # inv-1: lastModified is not before authoredOn; a person may have saved later than we judged.
    if not isinstance(old, str) or old < instant(alert.updated_at):
        kept["lastModified"] = instant(alert.updated_at)
    return kept


def _revised(task: Resource, alert: Alert) -> Resource:
    revised = _noted(task, alert)
    revised["description"] = alert.text
    if alert.escalation > _carried(task, "escalation"):  # the same owner, asked again
        others = [item for item in revised["input"] if not _is_input(item, "escalation")]
        revised["input"] = [*others, _input("escalation", "valuePositiveInt", alert.escalation)]
    if _RANK.index(PRIORITY[alert.pressing]) > _RANK.index(_known_priority(task)):
        revised["priority"] = PRIORITY[alert.pressing]
    code = task.get("code")
    if task.get("status") in _UNANSWERED and isinstance(code, dict):
        revised["code"] = {**code, "text": alert.title}
    return revised


def _known_priority(task: Resource) -> str:
    priority = task.get("priority")
    return priority if isinstance(priority, str) and priority in _RANK else "routine"


def _taken_back(task: Resource, alert: Alert) -> Resource:
    mistaken = alert.reason == "entered-in-error"
    back = _noted(task, alert)
    back["status"] = "entered-in-error" if mistaken else "cancelled"
    ended = alert.reason == ENDED or about_system(alert.family, alert.reason)
    code = "RESULT-ENTERED-IN-ERROR" if mistaken else "NO-LONGER-MISSING" if ended else "RESULT-CORRECTED"
    back["statusReason"] = concept(coding("anc-status-reason", code), text=alert.title)
    back["businessStatus"] = _STATES["WITHDRAWN"]
    return back
