"""One message, understood and judged: results into versions, verdicts, alerts, and exactly one disposition.

No I/O here: the patients come loaded, what changes goes into ``Work``, the time is given. The same message gives the same
work whether it comes from the inbox or from a replay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

import msgspec

from engine.enrol import apply
from engine.identity import Ambiguous, Known, Patients, Unknown, usable
from engine.notify import Notifier
from engine.versions import Effect, compare
from ingest.envelope import assigned_id
from ingest.reading import LedgerEntry, Problem, Reading
from rules import assess, find_protocol
from rules.model import Assessment, LabResult, Trust, Unassessable
from store.port import Claim, Disposition, MessageDone, PatientRecord, ResultRecord, Work
from store.values import new_id

__all__ = ["Judge"]

# A clock that runs ahead by less than this is a clock; more is a wrong date (standards.md 2.2).
_AHEAD = timedelta(hours=24)


# Where a resource stood in its Bundle.
_ENTRY = re.compile(r"entry\[(\d{1,6})\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    default_protocol: str
    """For a course that names none."""
    notifier: Notifier
    zone: ZoneInfo
    history_after: timedelta
    settle: timedelta

    def message(self, claim: Claim, reading: Reading, patients: Patients, work: Work, now: datetime) -> None:
        """Adds to ``work`` everything that one message changes, its disposition included."""
        source = " ".join(part for part in (claim.sender, claim.control_id) if part)
        outcomes: dict[str, tuple[str, str]] = {}
        ends: Counter[Disposition] = Counter()
        for fact in reading.register:
            entry = _ENTRY.search(fact.where)
            assigned = f"Patient/{assigned_id(claim.message_id, int(entry[1]) if entry else None)}"
            apply(fact, patients, work, now=now, source=f"{claim.channel} {source}".strip(), assigned=assigned)
        for result in reading.results:
            outcome, reason, end = self._result(result, reading, claim, patients, work, source, now)
            outcomes[result.where] = (outcome, reason)
            ends[end] += 1
        for problem in _unread_counts(reading):
            if reading.production:
                self._unread(problem, claim, patients, work, source, now)
            ends[Disposition.UNASSESSABLE] += 1
        disposition, reason = _end(reading, ends)
        work.done.append(
            MessageDone(
                message_id=claim.message_id,
                disposition=disposition,
                reason=reason,
                ledger=_ledger(reading.ledger, outcomes),
            )
        )

    def settle_patient(self, record: PatientRecord, work: Work, now: datetime) -> None:
        """Loaded history has come to rest, or the register changed: look at the present state, and alert on that."""
        record.settle_at = None
        work.patients[record.id] = record
        if not record.enrolled:
            return
        history = _history(record)
        latest = _latest_established(history)
        verdict = self._assess(record, history, latest.result if latest else None, now)
        if isinstance(verdict, Assessment):
            record.present = verdict
            work.assessments.append((record.id, latest.id if latest else None, None, verdict))
            if verdict.no_reexposure and record.course.stop is None:
                self._raise_unknown_stops(record, history, work, now)
            if latest is not None:  # what is missing or overdue is the clock's to say
                self._raise(record, verdict, latest, "", work, now)
        newest = history[-1] if history else None
        if newest is not None and newest is not latest:
            doubted = self._assess(record, history, newest.result, now)
            if isinstance(doubted, Assessment):
                self._raise(record, doubted, newest, "", work, now)

    # One result

    def _result(
        self,
        result: LabResult,
        reading: Reading,
        claim: Claim,
        patients: Patients,
        work: Work,
        source: str,
        now: datetime,
    ) -> tuple[str, str, Disposition]:
        """(outcome of the observation, reason, what it makes of the message)"""
        if not usable(result.identifiers):
            if reading.production:
                problem = Problem("patient-missing", result.where, "no usable patient identifier")
                self._unread(problem, claim, patients, work, source, now)
            return "unassessable", "patient-missing", Disposition.UNASSESSABLE
        match patients.find(result.identifiers):
            case Ambiguous(records):
                if not any(record.enrolled for record in records):
                    return "not_relevant", "unenrolled", Disposition.UNENROLLED
                for record in records:
                    if record.enrolled and reading.production:
                        self._review(record, "patient-ambiguous", result.where, claim, work, source, now)
                        work.patients[record.id] = record
                return "unassessable", "patient-ambiguous", Disposition.UNASSESSABLE
            case Unknown():
                if not reading.production:
                    return "not_relevant", "test-message", Disposition.UNENROLLED
                record = patients.new(result.identifiers)
                doubt = ""
            case Known(record, doubt):
                pass
            case other:
                assert_never(other)
        result = self._placed(result, claim, doubt)
        if not reading.production:
            # MSH-11 T or D: understood, shown, and never part of anybody's history or alerts.
            return "provisional", "test-message", Disposition.JUDGED if record.enrolled else Disposition.UNENROLLED
        work.patients[record.id] = record
        if not doubt and "identity" not in " ".join(result.doubts):
            patients.learn(record, result.identifiers)
        if not record.enrolled:
            change = compare(record, result)
            if change.effect in (Effect.NEW, Effect.REPLACES):
                self._file(record, result, claim, change.standing, work)
            elif change.effect is Effect.DOUBTED:
                self._keep_beside(record, result, claim, change.standing, work)
            return "not_relevant", "unenrolled", Disposition.UNENROLLED
        return self._judge(record, result, claim, work, source, now)

    def _placed(self, result: LabResult, claim: Claim, doubt: str) -> LabResult:
        """The result in local time, with the doubts that only we can have."""
        doubts = [doubt] if doubt else []
        collected = result.collected_at
        if collected is None:
            if not result.status.withdrawn:  # what is taken back needs no time of its own
                doubts.append("time-missing")
        else:
            collected = collected.replace(tzinfo=self.zone) if collected.tzinfo is None else collected
            # A date alone is that day wherever it was written.
            collected = collected.astimezone(self.zone) if result.time_known else collected
            if collected > claim.received_at + _AHEAD:
                doubts.append("time-in-the-future")
        issued = result.issued_at
        if issued is not None and issued.tzinfo is None:
            issued = issued.replace(tzinfo=self.zone)
        new = tuple(item for item in doubts if item not in result.doubts)
        return dataclasses.replace(
            result,
            collected_at=collected,
            issued_at=issued,
            doubts=result.doubts + new,
            trust=Trust.PROVISIONAL if new or result.doubts else result.trust,
        )

    def _judge(
        self, record: PatientRecord, result: LabResult, claim: Claim, work: Work, source: str, now: datetime
    ) -> tuple[str, str, Disposition]:
        if result.status.withdrawn and not result.code:
            return self._whole_order(record, result, claim, work, source, now)
        change = compare(record, result)
        if change.effect is Effect.UNCHANGED:
            return "unchanged", "", Disposition.JUDGED
        if change.effect is Effect.LATE:
            self._keep_beside(record, result, claim, change.standing, work)
            return "unchanged", "older-version", Disposition.JUDGED
        if change.effect is Effect.DOUBTED:
            return self._doubted(record, result, claim, change.standing, work, source, now)
        filed = self._file(record, result, claim, change.standing, work)
        holding = self._verdicts(record, filed, claim, work, source, now, first=change.standing is None)
        if change.standing is not None:
            self.notifier.withdraw(record, key=filed.key, still=holding, replaced_by=filed.result, now=now, work=work)
        if result.trust is Trust.PROVISIONAL:
            return "provisional", ",".join(result.doubts) or result.status.value, Disposition.JUDGED
        return "judged", "", Disposition.JUDGED

    def _doubted(
        self,
        record: PatientRecord,
        result: LabResult,
        claim: Claim,
        standing: ResultRecord | None,
        work: Work,
        source: str,
        now: datetime,
    ) -> tuple[str, str, Disposition]:
        """A doubtful restatement of an established count: it may alarm, and it takes nothing back (promise 3)."""
        beside = self._keep_beside(record, result, claim, standing, work)
        if result.status.withdrawn:
            self._review(record, "withdrawal-in-doubt", result.where, claim, work, source, now)
        else:
            # Judged as a count of its own: as a version it would put the established one out of the history.
            beside.result = dataclasses.replace(beside.result, key=f"{beside.key}|doubted")
            own = self._verdict_on(record, _history(record), beside, claim, work, source, now)
            if own is not None:
                self._raise(record, own, beside, source, work, now)
        return "provisional", ",".join(result.doubts) or result.status.value, Disposition.JUDGED

    def _keep_beside(
        self, record: PatientRecord, result: LabResult, claim: Claim, standing: ResultRecord | None, work: Work
    ) -> ResultRecord:
        """Files a version that does not become the current one."""
        number = new_id()
        beside = ResultRecord(
            id=number,
            patient_id=record.id,
            message_id=claim.message_id,
            key=result.key,
            version=standing.version if standing else 0,
            result=dataclasses.replace(result, id=number),
        )
        work.late.append(beside)
        return beside

    def _whole_order(
        self, record: PatientRecord, result: LabResult, claim: Claim, work: Work, source: str, now: datetime
    ) -> tuple[str, str, Disposition]:
        """The order as a whole was cancelled (OBR-25 X without OBX): every count of it is taken back."""
        keys = [
            key
            for key, standing in record.results.items()
            if key.startswith(result.key) and not standing.result.status.withdrawn
        ]
        for key in keys:
            named = dataclasses.replace(result, key=key, code=record.results[key].result.code or "cancelled-order")
            self._judge(record, named, claim, work, source, now)
        return ("judged" if keys else "unchanged"), "order-cancelled", Disposition.JUDGED

    def _file(
        self, record: PatientRecord, result: LabResult, claim: Claim, standing: ResultRecord | None, work: Work
    ) -> ResultRecord:
        """Makes the result the current version of its measurement."""
        number = new_id()
        filed = ResultRecord(
            id=number,
            patient_id=record.id,
            message_id=claim.message_id,
            key=result.key,
            version=standing.version + 1 if standing else 1,
            result=dataclasses.replace(result, id=number),
        )
        if standing is not None:
            record.results.pop(standing.key, None)
            self._rename(record, standing.key, result.key, work)
            if standing in work.results:  # came in this very batch: its row is not written yet
                work.results.remove(standing)
                work.late.append(standing)
            else:
                work.superseded.append(standing.id)
        record.results[filed.key] = filed
        work.results.append(filed)
        return filed

    def _rename(self, record: PatientRecord, before: str, now: str, work: Work) -> None:
        """The measurement goes on under another channel's name: so do the alerts that rest on it."""
        if before != now:
            for entry in record.alerts.values():
                if entry.result_key == before:
                    entry.result_key = now
                    work.alerts.append(entry)

    def _verdicts(
        self,
        record: PatientRecord,
        filed: ResultRecord,
        claim: Claim,
        work: Work,
        source: str,
        now: datetime,
        *,
        first: bool,
    ) -> set[str]:
        """Judges the new version, and anew what it moves; the ids of the alerts that hold because of it."""
        history = _history(record)
        own = None
        if not filed.result.status.withdrawn:
            own = self._verdict_on(record, history, filed, claim, work, source, now)
        latest = _latest_established(history)
        present = own if latest is not None and latest.id == filed.id else None
        if filed.result.trust is Trust.ESTABLISHED or filed.result.status.withdrawn:
            if present is None and latest is not None:
                present = self._verdict_on(record, history, latest, claim, work, source, now)
            record.present = present
        # else: a provisional count satisfies no due test; what is established still stands.
        if first and self._is_history(filed.result, claim):
            record.settle_at = now + self.settle
            return set()
        holding = set()
        if own is not None and (own is present or filed.result.trust is Trust.PROVISIONAL or _is_stop(own)):
            holding.add(self._raise(record, own, filed, source, work, now))
        if present is not None and present is not own and latest is not None:
            holding.add(self._raise(record, present, latest, source, work, now))
        return {alert_id for alert_id in holding if alert_id is not None}

    def _verdict_on(
        self,
        record: PatientRecord,
        history: Sequence[ResultRecord],
        item: ResultRecord,
        claim: Claim,
        work: Work,
        source: str,
        now: datetime,
    ) -> Assessment | None:
        verdict = self._assess(record, history, item.result, now)
        match verdict:
            case Unassessable():
                self._review(record, verdict.code, verdict.where or item.result.where, claim, work, source, now)
                return None
            case Assessment():
                work.assessments.append((record.id, item.id, claim.message_id, verdict))
                return verdict
            case other:
                assert_never(other)

    def _raise_unknown_stops(
        self, record: PatientRecord, history: Sequence[ResultRecord], work: Work, now: datetime
    ) -> None:
        """A stop-level count in loaded history that nobody has entered as a stop is news, however old it is."""
        for item in history:
            verdict = self._assess(record, history, item.result, now)
            if isinstance(verdict, Assessment) and _is_stop(verdict):
                self._raise(record, verdict, item, "", work, now)

    def _raise(
        self,
        record: PatientRecord,
        verdict: Assessment,
        behind: ResultRecord,
        source: str,
        work: Work,
        now: datetime,
    ) -> str | None:
        return self.notifier.raise_for(
            record, verdict, behind.result, key=behind.key, source=source, now=now, work=work
        )

    def _assess(
        self, record: PatientRecord, history: Sequence[ResultRecord], result: LabResult | None, now: datetime
    ) -> Assessment | Unassessable:
        protocol = find_protocol(record.course.protocol or self.default_protocol)
        today = now.astimezone(self.zone).date()
        others = [item.result for item in history if result is None or item.result.id != result.id]
        if result is not None and result.collected_at is None:
            # The day is unknown; the day of arrival is the latest it can be. It is provisional for that (see _placed).
            result = dataclasses.replace(result, collected_at=now.astimezone(self.zone), time_known=False)
        as_of: date = today if result is None or result.collected_at is None else result.collected_at.date()
        return assess(protocol, record.course, others, result, as_of)

    def _is_history(self, result: LabResult, claim: Claim) -> bool:
        return result.collected_at is not None and claim.received_at - result.collected_at > self.history_after

    # What could not be read

    def _unread(
        self, problem: Problem, claim: Claim, patients: Patients, work: Work, source: str, now: datetime
    ) -> None:
        """A task for a person when the patient is on the register or cannot be known; otherwise counted by sender."""
        if not usable(problem.identifiers):
            self._review(None, problem.code, problem.where, claim, work, source, now)
            return
        found = patients.find(problem.identifiers)
        match found:
            case Known(record):
                records: tuple[PatientRecord, ...] = (record,)
            case Ambiguous(several):
                records = several
            case Unknown():
                records = ()
            case other:
                assert_never(other)
        for record in records:
            if record.enrolled:
                work.patients[record.id] = record
                self._review(record, problem.code, problem.where, claim, work, source, now)

    def _review(
        self,
        record: PatientRecord | None,
        code: str,
        where: str,
        claim: Claim,
        work: Work,
        source: str,
        now: datetime,
    ) -> None:
        self.notifier.review(
            record,
            code=code,
            where=where,
            # One task a message, place and reason: a replay of the same bytes asks nobody twice. The bytes, not MSH-10,
            # say that it is the same: laboratories restart their counters.
            key=f"{claim.sender}|{_content(claim) if record else claim.message_id}|{where}|{code}",
            source=source,
            now=now,
            work=work,
        )


def _content(claim: Claim) -> str:
    return hashlib.blake2b(claim.raw, digest_size=16).hexdigest()


def _history(record: PatientRecord) -> list[ResultRecord]:
    """Current counts that stand, oldest first; those without a day have no place in it."""
    placed = [
        (item.result.collected_at, item.id, item)
        for item in record.results.values()
        if item.result.anc is not None and not item.result.status.withdrawn and item.result.collected_at is not None
    ]
    placed.sort(key=lambda entry: (entry[0], entry[1]))
    return [item for _, _, item in placed]


def _latest_established(history: Sequence[ResultRecord]) -> ResultRecord | None:
    return next((item for item in reversed(history) if item.result.trust is Trust.ESTABLISHED), None)


def _is_stop(verdict: Assessment) -> bool:
    return verdict.no_reexposure and verdict.action.startswith("STOP_IMMEDIATELY")


def _unread_counts(reading: Reading) -> list[Problem]:
    """The problems that stand for a neutrophil count which nobody could read (promise 3)."""
    if reading.disposition == "set_aside":
        return []
    rows = [entry.where for entry in reading.ledger if entry.outcome == "unassessable"]
    found = [problem for problem in reading.problems if any(_within(problem.where, row) for row in rows)]
    if not found and reading.disposition == "unassessable":
        return list(reading.problems)
    return found


def _within(place: str, row: str) -> bool:
    return place == row or place.startswith((f"{row}-", f"{row}."))


def _end(reading: Reading, ends: Counter[Disposition]) -> tuple[Disposition, str]:
    if reading.disposition == "set_aside":
        first = reading.problems[0] if reading.problems else None
        return Disposition.SET_ASIDE, f"{first.code}: {first.where}".rstrip(": ") if first else "unreadable"
    for disposition in (Disposition.JUDGED, Disposition.UNASSESSABLE, Disposition.UNENROLLED):
        if ends[disposition]:
            codes = sorted({problem.code for problem in reading.problems})
            if not reading.production:
                codes.append("test-message")
            return disposition, ",".join(codes)
    if reading.register:
        return Disposition.NOT_RELEVANT, "register"
    return Disposition.NOT_RELEVANT, ""


def _ledger(entries: Sequence[LedgerEntry], outcomes: dict[str, tuple[str, str]]) -> bytes:
    rows = []
    for where, read_as, reason in entries:
        outcome, why = outcomes.get(where, (read_as, reason))
        rows.append({"where": where, "outcome": "judged" if outcome == "result" else outcome, "reason": why or reason})
    return msgspec.json.encode(rows)
