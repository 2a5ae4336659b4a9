"""What people did with our alerts elsewhere, taken into the record: seen, handed back, answered (promise 6).

Rule of the file: only a person's answer to the question that stands closes an alert. An answer to older words, one that
needs a reason and gives none, or one of a second recipient is kept as a step on the way, and the alert stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from engine import undecided
from engine.escalation import Escalation
from engine.present import Turn
from ingest.reading import Reply
from rules.decisions import UNDECIDED, Decision, decision_of, needs_reason
from rules.model import Alert
from store import steps
from store.port import AlertRecord, Answer, PatientRecord, Step
from store.register import alert_by_id, alert_by_number, alert_of_message

__all__ = ["Known", "Replies", "find"]


@dataclass(frozen=True, slots=True)
class Known:
    """A reply and the alert that it is about."""

    reply: Reply
    entry: AlertRecord


def find(connection: Connection, replies: Sequence[Reply]) -> list[Known]:
    """The replies whose alert is on file and which were not taken yet, by whichever way they came."""
    found: list[Known] = []
    for reply in replies:
        if any(reply.evidence == other.reply.evidence for other in found):
            continue
        if reply.control_id:
            entry, recipient = alert_of_message(connection, reply.control_id)
            reply = replace(reply, recipient=recipient)  # the same reply, of whom it is
        elif len(reply.alert) in (15, 16):
            entry = alert_by_number(connection, reply.alert)
        else:
            entry = alert_by_id(connection, reply.alert)
        if entry is not None and not steps.seen_before(connection, entry.alert.id, reply.evidence):
            found.append(Known(reply, entry))
    return found


@dataclass(frozen=True, slots=True)
class Replies:
    escalation: Escalation

    def take(self, known: Known, record: PatientRecord | None, turn: Turn) -> None:
        """``record``: the patient of the alert, as the rest of this turn has it."""
        reply, work = known.reply, turn.work
        number = known.entry.alert.id
        # As this turn has left it, where the same batch has brought another reply to it.
        left = next((item for item in reversed(work.alerts) if item.alert.id == number), known.entry)
        entry = record.alerts.get(number, left) if record is not None else left
        alert = entry.alert
        if record is not None:
            work.patients[record.id] = record
        decision = decision_of(reply.decision)
        what = "handed-back" if decision is Decision.NOT_MY_PATIENT else reply.what
        stands = entry.state == "open" and not reply.recipient
        if what == "answered" and stands and self._closes(reply, decision, alert):
            self._answered(entry, reply, decision or Decision.NOTED, record, turn)
            return
        note = self._why_not(reply, decision, entry) if what == "answered" else ""
        question = undecided.open_question(record, number) if record is not None and not reply.recipient else None
        if question is not None and what == "answered" and undecided.states_a_decision(decision) and not note:
            # Said later on the Task that had been closed without it.
            self._step(entry, what, reply, turn, note)
            self._answered(question, reply, decision or Decision.NOTED, record, turn, of_another=True)
            return
        self._step(entry, "seen" if what == "answered" and note else what, reply, turn, note)
        if entry.state == "open" and not reply.recipient and what in ("seen", "answered", "handed-back"):
            work.seen[alert.id] = turn.now
            entry.seen = True
        # Whoever hands back what has passed on meanwhile changes nothing for who has it now.
        late = reply.escalation is not None and reply.escalation < alert.escalation
        if what == "handed-back" and stands and not late:
            if record is None:
                work.unanswered.append((alert.id, alert.revision))
            by = reply.by or turn.sender or "?"
            passed = self.escalation.handed_back(entry, work, turn.now, by=by)
            if record is not None:
                record.alerts[alert.id] = passed

    def _closes(self, reply: Reply, decision: Decision | None, alert: Alert) -> bool:
        if reply.revision is not None and reply.revision < alert.question:
            return False
        if alert.reason == UNDECIDED and not undecided.states_a_decision(decision):
            return False  # what was asked for is the decision
        return not (decision is not None and needs_reason(decision) and not reply.reason)

    def _why_not(self, reply: Reply, decision: Decision | None, entry: AlertRecord) -> str:
        if decision is not None and needs_reason(decision) and not reply.reason and not reply.recipient:
            return f"{decision.value} without a reason"
        if entry.state != "open" or reply.recipient:
            return ""
        if reply.revision is not None and reply.revision < entry.alert.question:
            return "answers older words"
        if not undecided.states_a_decision(decision):
            return "without a decision"
        return f"{decision.value if decision else '?'} without a reason"

    def _answered(
        self,
        entry: AlertRecord,
        reply: Reply,
        decision: Decision,
        record: PatientRecord | None,
        turn: Turn,
        *,
        of_another: bool = False,
    ) -> None:
        alert, work = entry.alert, turn.work
        unsaid = "" if reply.decision else "completed without a stated decision"
        unknown = reply.decision if reply.decision and decision_of(reply.decision) is None else ""
        if not any(item.alert.id == alert.id for item in work.alerts):  # else this very batch has moved it on
            work.unanswered.append((alert.id, alert.revision))
        given = Answer(
            alert_id=alert.id,
            revision=alert.revision,
            patient_id=entry.patient_id,
            at=turn.now,
            by=reply.by or f"({turn.sender or 'unnamed'})",
            decision=decision.value,
            reason=" ".join(filter(None, (reply.reason, unknown, unsaid))),
            destination=turn.sender,
            evidence=reply.evidence,
        )
        answered = self.escalation.notifier.answered(entry, given, work, of_another=of_another)
        if record is not None:
            record.alerts[alert.id] = answered
            if undecided.calls_for_a_decision(alert) and not undecided.states_a_decision(decision):
                undecided.ask(self.escalation.notifier, record, alert, by=given.by, now=turn.now, work=work)

    def _step(self, entry: AlertRecord, state: str, reply: Reply, turn: Turn, note: str) -> None:
        who = " ".join(filter(None, (reply.recipient, reply.by)))
        turn.work.steps.append(
            Step(
                alert_id=entry.alert.id,
                revision=reply.revision or entry.alert.revision,
                patient_id=entry.patient_id,
                at=turn.now,
                state=state,
                destination=turn.sender,
                who=who,
                evidence=f"{reply.evidence}: {note}" if note else reply.evidence,
            )
        )
