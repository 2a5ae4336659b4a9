"""A stop that somebody closed without saying what was decided: the decision is asked for by an alert of its own.

A person's status ends the alert, and a status alone says nothing of the drug: to note a stop is no answer to it
(rules/decisions.py). So the stop is answered, and the question what was decided stays open, as urgent as the stop was,
until a person says it, here or at a destination.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

from rules import alert_id
from rules.asking import undecided_words
from rules.decisions import UNDECIDED, Decision
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel
from rules.silence import ENDED, ended_elsewhere_words
from store.port import AlertRecord, PatientRecord, Work

if TYPE_CHECKING:
    from engine.notify import Notifier

__all__ = ["ask", "calls_for_a_decision", "open_question", "settle", "states_a_decision"]


def calls_for_a_decision(alert: Alert) -> bool:
    return alert.family is AlertFamily.STOP and alert.level.rank >= AlertLevel.RED.rank


def states_a_decision(decision: Decision | None) -> bool:
    return decision is not None and decision is not Decision.NOTED


def ask(notifier: Notifier, record: PatientRecord, before: Alert, *, by: str, now: datetime, work: Work) -> None:
    """Once a stop: closed again without a decision, the same question stands."""
    number = _number(record, before.id)
    standing = record.alerts.get(number)
    if standing is not None and standing.state == "open":
        return
    title, text = undecided_words(before, notifier.words(before.language), by=by)
    alert = dataclasses.replace(
        before,
        id=number,
        revision=standing.alert.revision + 1 if standing is not None else 1,
        kind=AlertKind.RAISED,
        family=AlertFamily.REVIEW,
        title=title,
        text=text,
        bare=(),
        raised_at=now,
        updated_at=now,
        assessment=None,
        result=None,
        reason=UNDECIDED,
        escalation=0,
        urgency=AlertLevel.NONE,
        answer_by=None,
        followed_by="",
    )
    # Put to whoever was asked last: that is the person who closed it, or sits beside them.
    alert = notifier.asked(alert, now, owner=before.asked[-1] if before.asked else "")
    entry = AlertRecord(alert=alert, patient_id=record.id, state="open", result_key=f"{UNDECIDED}|{before.id}")
    record.alerts[number] = entry
    notifier.send(entry, work)


def open_question(record: PatientRecord, stop: str) -> AlertRecord | None:
    standing = record.alerts.get(_number(record, stop))
    return standing if standing is not None and standing.state == "open" else None


def settle(notifier: Notifier, record: PatientRecord, stop: str, *, now: datetime, work: Work) -> None:
    """The stop itself asks again, or is taken back and asks in another way: the question beside it ends."""
    standing = open_question(record, stop)
    if standing is None:
        return
    words = ended_elsewhere_words(standing.alert.title, notifier.words(standing.alert.language))
    notifier.withdrawn(record, standing, words, now=now, work=work, reason=ENDED)


def _number(record: PatientRecord, stop: str) -> str:
    return alert_id(record.id, AlertFamily.REVIEW, f"{stop}|{UNDECIDED}")
