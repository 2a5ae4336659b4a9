"""What clinicians look at: the day's lists, a search, one patient whole, one alert whole. Read-only, by index.

Rule of the file: no query walks a table. Lists are cut at ``limit``; who asks for one more than is shown knows of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from rules.model import (
    Alert,
    AlertFamily,
    AlertLevel,
    Assessment,
    LabResult,
    PatientIdentifier,
    Person,
    TreatmentCourse,
)
from rules.silence import SYSTEM_REASONS
from store import steps
from store.port import Step
from store.register import question_about
from store.tables import alert, answer, assessment, audit, delivery, identifier, message, patient, result
from store.values import (
    decode_alert,
    decode_assessment,
    decode_course,
    decode_person,
    decode_result,
    name_key,
)

__all__ = [
    "AlertFile",
    "AlertRow",
    "AnswerRow",
    "AuditRow",
    "DeliveryRow",
    "ListedPatient",
    "PatientFile",
    "Verdict",
    "Version",
    "alert_file",
    "due",
    "late_levels",
    "missing_baselines",
    "open_alerts",
    "overdue",
    "patient_exists",
    "patient_file",
    "search",
    "unreadable",
]

_APART = (AlertFamily.REVIEW.value, AlertFamily.OVERDUE.value)
_LEVELS = (AlertLevel.CRITICAL, AlertLevel.RED, AlertLevel.AMBER, AlertLevel.INFO)
# Enum values as msgspec writes them; a residual condition on rows that an index has already found.
_ACTIVE = patient.c.course.contains('"state":"active"', autoescape=True)
_NO_BASELINE = patient.c.present.contains('"OBTAIN_ANC_BEFORE_START"', autoescape=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """``state``: open, withdrawn or closed. ``patient_id`` None: the identity could not be read."""

    alert: Alert
    state: str
    patient_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPatient:
    """``counted_from``: the earlier of the two dates, from which lateness counts (clinical.md B-11)."""

    id: str
    person: Person
    identifiers: tuple[PatientIdentifier, ...]
    course: TreatmentCourse
    present: Assessment | None
    next_due: date | None
    recheck_by: date | None

    @property
    def counted_from(self) -> date | None:
        return min((day for day in (self.next_due, self.recheck_by) if day is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of one count, and the message that brought it."""

    id: int
    key: str
    version: int
    current: bool
    result: LabResult
    message_id: int
    sender: str
    control_id: str
    received_at: int | None
    """Milliseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    id: int
    result_id: int | None
    made_at: int
    body: Assessment


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    alert_id: str
    revision: int
    at: int
    by: str
    decision: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    at: int
    actor: str
    action: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    id: int
    revision: int
    destination: str
    state: str
    attempts: int
    created_at: int
    ended_at: int | None
    code: str
    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFile:
    """``verdicts`` and ``audits`` newest first, cut; ``verdict_of``: the newest (category, level) by result."""

    listed: ListedPatient
    enrolled: bool
    owner: str
    versions: tuple[Version, ...]
    verdicts: tuple[Verdict, ...]
    verdict_of: dict[int, tuple[str, str]]
    alerts: tuple[AlertRow, ...]
    answers: tuple[AnswerRow, ...]
    audits: tuple[AuditRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFile:
    row: AlertRow
    patient: ListedPatient | None
    deliveries: tuple[DeliveryRow, ...]
    answers: tuple[AnswerRow, ...]
    steps: tuple[Step, ...] = ()
    """Its way so far, oldest first."""
    question: str = ""
    """The open alert that asks for the decision on this one, which was closed without it or taken back."""


def open_alerts(connection: Connection, limit: int, *, level: str = "") -> list[AlertRow]:
    """Critical first, then by level; within a level what a count says before what is overdue, the newest first. Without
    unreadable counts, which have a list of their own; but all families where one ``level`` is asked for."""
    found: list[AlertRow] = []
    for wanted in (AlertLevel(level),) if level else _LEVELS:
        families = (alert.c.family.not_in(_APART), alert.c.family == AlertFamily.OVERDUE.value)
        for condition in (alert.c.level == wanted.value,) if level else families:
            if len(found) >= limit:
                return found
            query = (
                select(alert.c.body, alert.c.state, alert.c.patient_id)
                .where(alert.c.state == "open", alert.c.level == wanted.value, condition)
                .order_by(alert.c.raised_at.desc())
                .limit(limit - len(found))
            )
            found += _alerts(connection, query)
    return found


def unreadable(connection: Connection, limit: int) -> list[AlertRow]:
    """Counts that nobody could read and a person must look at; newest first."""
    query = (
        select(alert.c.body, alert.c.state, alert.c.patient_id)
        .where(alert.c.state == "open", alert.c.family == AlertFamily.REVIEW.value)
        # A quiet connection is the operators' to see, and no result.
        .where(*(~alert.c.body.contains(f'"reason":"{reason}"') for reason in sorted(SYSTEM_REASONS)))
        .order_by(alert.c.raised_at.desc())
        .limit(limit)
    )
    return _alerts(connection, query)


def _alerts(connection: Connection, query: Any) -> list[AlertRow]:
    return [
        AlertRow(alert=decode_alert(body), state=state, patient_id=patient_id)
        for body, state, patient_id in connection.execute(query)
    ]


def overdue(connection: Connection, today: date, limit: int) -> list[ListedPatient]:
    """The count was due, or a recheck was, before today; the longest overdue first."""
    return _by_date(connection, "", today.isoformat(), ~_NO_BASELINE, limit)


def late_levels(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """By patient, the level of the reminder of a missed count that stands, answered or not: what the clock has judged."""
    if not ids:
        return {}
    rows = connection.execute(
        select(alert.c.patient_id, alert.c.level).where(
            alert.c.patient_id.in_(list(ids)), alert.c.family == AlertFamily.OVERDUE.value, alert.c.state != "withdrawn"
        )
    )
    found: dict[str, str] = {}
    for patient_id, level in rows:
        if patient_id not in found or AlertLevel(level).rank > AlertLevel(found[patient_id]).rank:
            found[patient_id] = level
    return found


def due(connection: Connection, today: date, days: int, limit: int) -> list[ListedPatient]:
    """Due from today to ``days`` ahead, and not overdue; the soonest first."""
    first, after = today.isoformat(), (today + timedelta(days=days + 1)).isoformat()
    return _by_date(connection, first, after, ~_NO_BASELINE, limit)


def missing_baselines(connection: Connection, today: date, limit: int) -> list[ListedPatient]:
    """A start is planned within 30 days, or was within the last 60, without the count that it needs (R2)."""
    first, after = today - timedelta(days=60), today + timedelta(days=31)
    return _by_date(connection, first.isoformat(), after.isoformat(), _NO_BASELINE, limit)


def _by_date(
    connection: Connection, first: str, after: str, condition: ColumnElement[bool], limit: int
) -> list[ListedPatient]:
    """Active courses whose earlier date lies in ``first <= day < after``. The first ``limit`` of each date hold the first
    ``limit`` of the earlier one."""
    rows: dict[str, Any] = {}
    for column, other in ((patient.c.next_due, patient.c.recheck_by), (patient.c.recheck_by, patient.c.next_due)):
        query = (
            _listed()
            .where(column >= first, column < after, or_(other.is_(None), other >= first), _ACTIVE, condition)
            .order_by(column)
            .limit(limit)
        )
        rows.update((row.id, row) for row in connection.execute(query) if row.id not in rows)
    found = _people(connection, list(rows.values()))
    return sorted(found, key=lambda one: (one.counted_from or date.max, one.id))[:limit]


def _listed() -> Any:
    return select(
        patient.c.id,
        patient.c.person,
        patient.c.course,
        patient.c.present,
        patient.c.next_due,
        patient.c.recheck_by,
    ).where(patient.c.enrolled)


def _people(connection: Connection, rows: Sequence[Any]) -> list[ListedPatient]:
    names = _identifiers(connection, [row.id for row in rows])
    return [_person(row, names.get(row.id, ())) for row in rows]


def _person(row: Any, identifiers: tuple[PatientIdentifier, ...]) -> ListedPatient:
    return ListedPatient(
        id=row.id,
        person=decode_person(row.person),
        identifiers=identifiers,
        course=decode_course(row.course),
        present=decode_assessment(row.present) if row.present else None,
        next_due=date.fromisoformat(row.next_due) if row.next_due else None,
        recheck_by=date.fromisoformat(row.recheck_by) if row.recheck_by else None,
    )


def _identifiers(connection: Connection, ids: Iterable[str]) -> dict[str, tuple[PatientIdentifier, ...]]:
    wanted = list(ids)
    if not wanted:
        return {}
    query = (
        select(identifier.c.patient_id, identifier.c.value, identifier.c.authority, identifier.c.type)
        .where(identifier.c.patient_id.in_(wanted))
        .order_by(identifier.c.value)
    )
    found: dict[str, tuple[PatientIdentifier, ...]] = {}
    for patient_id, value, authority, kind in connection.execute(query):
        found[patient_id] = (*found.get(patient_id, ()), PatientIdentifier(value, authority, kind))
    return found


def search(connection: Connection, words: str, *, after: str = "", limit: int = 50) -> list[ListedPatient]:
    """By an identifier's whole value, else by what the name begins with; by name. "" finds everybody on the register.

    ``after``: the register id of the last one seen."""
    found = connection.scalars(select(identifier.c.patient_id).where(identifier.c.value == words.strip()).distinct())
    ids = list(found) if words.strip() else []
    query = _listed().order_by(patient.c.sort_name, patient.c.id).limit(limit)
    if ids:
        query = query.where(patient.c.id.in_(ids))
    elif key := name_key(words):
        # Nothing sorts behind U+10FFFF: all names that begin with the key, and no others.
        query = query.where(patient.c.sort_name >= key, patient.c.sort_name < key + "\U0010ffff")
    elif words.strip():
        return []
    if after:
        seen = connection.scalar(select(patient.c.sort_name).where(patient.c.id == after))
        if seen is not None:
            behind = or_(patient.c.sort_name > seen, and_(patient.c.sort_name == seen, patient.c.id > after))
            query = query.where(patient.c.sort_name >= seen, behind)
    return _people(connection, connection.execute(query).all())


def patient_exists(connection: Connection, patient_id: str) -> ListedPatient | None:
    """The patient's head alone; None for an unknown id or one who is not on the register."""
    row = connection.execute(_listed().where(patient.c.id == patient_id)).first()
    return _people(connection, [row])[0] if row is not None else None


def patient_file(connection: Connection, patient_id: str, *, verdicts: int = 20) -> PatientFile | None:
    """None for an unknown id."""
    row = connection.execute(
        select(
            patient.c.id,
            patient.c.person,
            patient.c.course,
            patient.c.present,
            patient.c.next_due,
            patient.c.recheck_by,
            patient.c.enrolled,
            patient.c.owner,
        ).where(patient.c.id == patient_id)
    ).first()
    if row is None:
        return None
    return PatientFile(
        listed=_people(connection, [row])[0],
        enrolled=bool(row.enrolled),
        owner=row.owner,
        versions=_versions(connection, patient_id),
        verdicts=_verdicts(connection, patient_id, verdicts),
        verdict_of=_verdict_of(connection, patient_id),
        alerts=_alerts_of(connection, patient_id),
        answers=_answers(connection, answer.c.patient_id == patient_id),
        audits=_audits(connection, patient_id),
    )


def _versions(connection: Connection, patient_id: str) -> tuple[Version, ...]:
    """Every version, those that were replaced too; oldest first."""
    query = (
        select(
            result.c.id,
            result.c.key,
            result.c.version,
            result.c.current,
            result.c.body,
            result.c.message_id,
            message.c.sender,
            message.c.control_id,
            message.c.received_at,
        )
        .select_from(result.outerjoin(message, message.c.id == result.c.message_id))
        .where(result.c.patient_id == patient_id)
    )
    found = [
        Version(
            id=row.id,
            key=row.key,
            version=row.version,
            current=bool(row.current),
            result=decode_result(row.body),
            message_id=row.message_id,
            sender=row.sender or "",
            control_id=row.control_id or "",
            received_at=row.received_at,
        )
        for row in connection.execute(query)
    ]
    return tuple(sorted(found, key=lambda one: one.id))


def _verdicts(connection: Connection, patient_id: str, limit: int) -> tuple[Verdict, ...]:
    query = (
        select(assessment.c.id, assessment.c.result_id, assessment.c.made_at, assessment.c.body)
        .where(assessment.c.patient_id == patient_id)
        .order_by(assessment.c.id.desc())
        .limit(limit)
    )
    return tuple(
        Verdict(id=number, result_id=result_id, made_at=made_at, body=decode_assessment(body))
        for number, result_id, made_at, body in connection.execute(query)
    )


def _verdict_of(connection: Connection, patient_id: str) -> dict[int, tuple[str, str]]:
    query = (
        select(assessment.c.result_id, assessment.c.category, assessment.c.level)
        .where(assessment.c.patient_id == patient_id, assessment.c.result_id.is_not(None))
        .order_by(assessment.c.id)
    )
    return {result_id: (category, level) for result_id, category, level in connection.execute(query)}


def _alerts_of(connection: Connection, patient_id: str) -> tuple[AlertRow, ...]:
    query = select(alert.c.body, alert.c.state, alert.c.patient_id).where(alert.c.patient_id == patient_id)
    found = _alerts(connection, query)
    return tuple(sorted(found, key=lambda one: (-one.alert.level.rank, -one.alert.raised_at.timestamp())))


def _answers(connection: Connection, condition: ColumnElement[bool]) -> tuple[AnswerRow, ...]:
    query = select(
        answer.c.alert_id, answer.c.revision, answer.c.at, answer.c.by, answer.c.decision, answer.c.reason
    ).where(condition)
    return tuple(
        AnswerRow(
            alert_id=row.alert_id, revision=row.revision, at=row.at, by=row.by, decision=row.decision, reason=row.reason
        )
        for row in connection.execute(query.order_by(answer.c.id.desc()))
    )


def _audits(connection: Connection, patient_id: str, limit: int = 100) -> tuple[AuditRow, ...]:
    query = (
        select(audit.c.at, audit.c.actor, audit.c.action, audit.c.detail)
        .where(audit.c.patient_id == patient_id)
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    return tuple(
        AuditRow(at=at, actor=actor, action=action, detail=json.loads(detail))
        for at, actor, action, detail in connection.execute(query)
    )


def alert_file(connection: Connection, alert_id: str) -> AlertFile | None:
    """None for an unknown id."""
    found = _alerts(connection, select(alert.c.body, alert.c.state, alert.c.patient_id).where(alert.c.id == alert_id))
    if not found:
        return None
    number = found[0].patient_id
    query = (
        select(
            delivery.c.id,
            delivery.c.revision,
            delivery.c.destination,
            delivery.c.state,
            delivery.c.attempts,
            delivery.c.created_at,
            delivery.c.ended_at,
            delivery.c.code,
            delivery.c.body,
        )
        .where(delivery.c.alert_id == alert_id)
        .order_by(delivery.c.revision.desc(), delivery.c.destination)
    )
    deliveries = tuple(
        DeliveryRow(
            id=row.id,
            revision=row.revision,
            destination=row.destination,
            state=row.state,
            attempts=row.attempts,
            created_at=row.created_at,
            ended_at=row.ended_at,
            code=row.code or "",
            alert=decode_alert(row.body),
        )
        for row in connection.execute(query)
    )
    question = question_about(connection, alert_id) if found[0].state != "open" else None
    return AlertFile(
        row=found[0],
        patient=patient_exists(connection, number) if number else None,
        deliveries=deliveries,
        answers=_answers(connection, answer.c.alert_id == alert_id),
        question=question.alert.id if question is not None else "",
        steps=tuple(steps.of(connection, alert_id)),
    )
