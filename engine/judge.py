"""One message, understood and judged: results into versions, verdicts, alerts, and exactly one disposition.

No I/O here: the patients come loaded, what changes goes into ``Work``, the time is given. The same message gives the same
work whether it comes from the inbox or from a replay.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never
from zoneinfo import ZoneInfo

from engine.dispensing import after_stop
from engine.enrol import apply
from engine.identity import UNPROVEN, Ambiguous, Known, Patients, Unknown, sender_of, usable
from engine.merge import MERGED, merge
from engine.present import Present, Turn
from engine.versions import Change, Effect, compare
from ingest.envelope import assigned_id
from ingest.reading import BenFact, Confirmation, LedgerEntry, PatientFact, Problem, Reading, TreatmentFact
from rules.model import LabResult, PatientIdentifier, ResultStatus, Trust
from store.ledgers import packed
from store.port import Claim, Disposition, MessageDone, PatientRecord, ResultRecord, Work
from store.values import new_id

__all__ = ["Judge"]

# A clock that runs ahead by less than this is a clock; more is a wrong date (standards.md 2.2).
_AHEAD = timedelta(hours=24)
# Where a resource stood in its Bundle.
_PART = re.compile(r"[-./]")
_ENTRY = re.compile(r"entry\[(\d{1,6})\]")


class _End(NamedTuple):
    """What became of one observation, why, and what that makes of the message."""

    outcome: str
    reason: str
    disposition: Disposition


_UNENROLLED = _End("not_relevant", "unenrolled", Disposition.UNENROLLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    present: Present
    zone: ZoneInfo

    def message(self, claim: Claim, reading: Reading, patients: Patients, work: Work, now: datetime) -> None:
        """Adds to ``work`` everything that one message changes, its disposition included."""
        if _says_nothing(reading):
            disposition, ledger = Disposition.NOT_RELEVANT, packed(reading.ledger)
            work.done.append(MessageDone(message_id=claim.message_id, disposition=disposition, ledger=ledger))
            return
        turn = Turn(work, now, claim)
        for fact in reading.register:
            if reading.production and after_stop(fact, patients, self.present.notifier, turn, self.zone):
                continue
            if reading.production:
                if isinstance(fact, PatientFact):
                    self._deceased(fact, patients, turn)
                else:
                    self._unproven(fact, patients, turn)
            entry = _ENTRY.search(fact.where)
            assigned = f"Patient/{assigned_id(claim.message_id, int(entry[1]) if entry else None)}"
            apply(
                fact,
                patients,
                work,
                now=now,
                source=f"{claim.channel} {turn.source}".strip(),
                assigned=assigned,
                sender=sender_of(claim),
            )
        merged = [one for one in reading.merges if merge(one, patients, self.present, turn)]
        if reading.production:
            for known in reading.pending:
                self._pending(known, patients, turn)
        ends = [(result.where, self._result(result, reading, patients, turn)) for result in reading.results]
        tally = Counter(end.disposition for _, end in ends)
        settled = {one.where for one in reading.confirmations if self._confirmed(one, reading, patients, turn, ends)}
        tally.update(end.disposition for where, end in ends if where in settled)
        for problem in _unread_counts(reading):
            if _is_within(problem.where, settled):
                continue
            if reading.production:
                self._unread(problem, patients, turn)
            tally[Disposition.UNASSESSABLE] += 1
        if claim.unopened:
            # It may have held a count of anybody: a person must look (promise 3), at the sender's copy.
            self.present.review(None, claim.unopened, "", turn)
        disposition, reason = _disposition(reading, tally)
        if merged:
            disposition, reason = Disposition.JUDGED, MERGED
        work.done.append(
            MessageDone(
                message_id=claim.message_id,
                disposition=disposition,
                reason=reason,
                ledger=_ledger(reading.ledger, dict(ends)),
            )
        )

    def _unproven(self, fact: TreatmentFact | BenFact, patients: Patients, turn: Turn) -> None:
        """A treatment of whom another anonymous sender calls so is nobody's to apply, and must not be lost in silence."""
        found = patients.find(usable(fact.identifiers))
        if isinstance(found, Known) and found.doubt == UNPROVEN:
            turn.work.patients[found.record.id] = found.record
            self.present.review(found.record, UNPROVEN, fact.where, turn)

    def _deceased(self, fact: PatientFact, patients: Patients, turn: Turn) -> None:
        """A feed says that somebody on the register has died: asked once, and nothing falls silent before a person's word."""
        found = patients.find(usable(fact.identifiers)) if fact.deceased else None
        if isinstance(found, Known) and not found.doubt and found.record.enrolled:
            turn.work.patients[found.record.id] = found.record
            self.present.notifier.review(
                found.record,
                code="death-reported",
                where=fact.where,
                key=f"death-reported|{found.record.id}",
                source=turn.source,
                now=turn.now,
                work=turn.work,
            )

    def _result(self, result: LabResult, reading: Reading, patients: Patients, turn: Turn) -> _End:
        if not usable(result.identifiers):
            if reading.production:
                self._unread(Problem("patient-missing", result.where, "no usable patient identifier"), patients, turn)
            return _End("unassessable", "patient-missing", Disposition.UNASSESSABLE)
        doubt = ""
        match patients.find(result.identifiers):
            case Ambiguous(records):
                return self._ambiguous(records, result, reading, turn)
            case Unknown():
                if not reading.production:
                    return _End("not_relevant", "test-message", Disposition.UNENROLLED)
                record = patients.new(result.identifiers)
            case Known(record, doubt):
                pass
            case other:
                assert_never(other)
        if not reading.production:
            # MSH-11 T or D: understood, shown, and never part of anybody's history or alerts.
            end = Disposition.JUDGED if record.enrolled else Disposition.UNENROLLED
            return _End("provisional", "test-message", end)
        result = self._placed(result, turn, doubt)
        turn.work.patients[record.id] = record
        if not doubt and not any("identity" in item for item in result.doubts):
            patients.learn(record, result.identifiers)
        if not record.enrolled:
            self._note(record, result, turn)
            return _UNENROLLED
        return self._version(record, result, turn)

    def _pending(self, identifiers: tuple[PatientIdentifier, ...], patients: Patients, turn: Turn) -> None:
        """The laboratory has the specimen. Said again before its count came, it buys no more time."""
        found = patients.find(identifiers)
        if isinstance(found, Known) and not found.doubt and found.record.enrolled and found.record.pending_at is None:
            found.record.pending_at = turn.now
            turn.work.patients[found.record.id] = found.record

    def _confirmed(
        self, one: Confirmation, reading: Reading, patients: Patients, turn: Turn, ends: list[tuple[str, _End]]
    ) -> bool:
        """OBX-11 U or V: the standing value is final now. False when none stands: then nobody has read it."""
        found = patients.find(one.identifiers) if usable(one.identifiers) else Unknown()
        standing = found.record.results.get(one.key) if isinstance(found, Known) else None
        if standing is None or standing.result.status.withdrawn:
            return False
        doubts = tuple(d for d in standing.result.doubts if not d.startswith("status-"))
        doubts = tuple(dict.fromkeys((*doubts, *one.doubts)))
        result = dataclasses.replace(
            standing.result,
            id=None,
            status=ResultStatus.FINAL,
            trust=Trust.PROVISIONAL if doubts else Trust.ESTABLISHED,
            doubts=doubts,
            issued_at=one.issued_at or standing.result.issued_at,
            identifiers=one.identifiers,
            where=one.where,
        )
        ends.append((one.where, self._result(result, reading, patients, turn)))
        return True

    def _ambiguous(self, records: tuple[PatientRecord, ...], result: LabResult, reading: Reading, turn: Turn) -> _End:
        enrolled = [record for record in records if record.enrolled]
        if not enrolled:
            return _UNENROLLED
        if reading.production:
            for record in enrolled:
                turn.work.patients[record.id] = record
                self.present.review(record, "patient-ambiguous", result.where, turn)
        return _End("unassessable", "patient-ambiguous", Disposition.UNASSESSABLE)

    def _placed(self, result: LabResult, turn: Turn, doubt: str) -> LabResult:
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
            if turn.claim is not None and collected > turn.claim.received_at + _AHEAD:
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

    # Versions

    def _note(self, record: PatientRecord, result: LabResult, turn: Turn) -> None:
        """Kept for the day on which this person is enrolled."""
        if _is_whole_order(result):
            for one in _of_order(record, result):
                self._note(record, one, turn)
            return
        change = compare(record, result)
        if change.effect in (Effect.NEW, Effect.REPLACES):
            _file(record, result, change, turn)
        elif change.effect is Effect.DOUBTED:
            _keep_beside(record, result, change, turn)

    def _version(self, record: PatientRecord, result: LabResult, turn: Turn) -> _End:
        if _is_whole_order(result):
            return self._whole_order(record, result, turn)
        change = compare(record, result)
        match change.effect:
            case Effect.UNCHANGED:
                _learn_key(record, result.key, change.standing, turn)
                return _End("unchanged", "", Disposition.JUDGED)
            case Effect.LATE:
                _keep_beside(record, result, change, turn)
                return _End("unchanged", "older-version", Disposition.JUDGED)
            case Effect.DOUBTED:
                self.present.doubted(record, _keep_beside(record, result, change, turn), turn)
            case Effect.NEW | Effect.REPLACES:
                filed = _file(record, result, change, turn)
                before = change.standing.result if change.standing is not None else None
                self.present.filed(record, filed, turn, before=before)
            case other:
                assert_never(other)
        if result.trust is Trust.PROVISIONAL:
            return _End("provisional", ",".join(result.doubts) or result.status.value, Disposition.JUDGED)
        return _End("judged", "", Disposition.JUDGED)

    def _whole_order(self, record: PatientRecord, result: LabResult, turn: Turn) -> _End:
        """The order as a whole was cancelled (OBR-25 X without OBX): every count of it is taken back."""
        cancelled = _of_order(record, result)
        for one in cancelled:
            self._version(record, one, turn)
        return _End("judged" if cancelled else "unchanged", "order-cancelled", Disposition.JUDGED)

    # What could not be read

    def _unread(self, problem: Problem, patients: Patients, turn: Turn) -> None:
        """A task for a person when the patient is on the register or cannot be known; otherwise counted by sender."""
        if not usable(problem.identifiers):
            self.present.review(None, problem.code, problem.where, turn)
            return
        match patients.find(problem.identifiers):
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
                turn.work.patients[record.id] = record
                self.present.review(record, problem.code, problem.where, turn)


def _is_whole_order(result: LabResult) -> bool:
    """No analyte in its key: it stands for every count under its order number."""
    return result.status.withdrawn and result.key.endswith("|ANC:")


def _of_order(record: PatientRecord, result: LabResult) -> list[LabResult]:
    """The cancellation of an order, once for each standing count of it."""
    return [
        dataclasses.replace(result, key=key, code=standing.result.code)
        for key, standing in record.results.items()
        if key.startswith(result.key) and not standing.result.status.withdrawn
    ]


def _file(record: PatientRecord, result: LabResult, change: Change, turn: Turn) -> ResultRecord:
    """Makes the result the current version of its measurement."""
    standing, work = change.standing, turn.work
    if standing is not None:
        names = {*standing.result.also, standing.key} - {result.key}
        result = dataclasses.replace(result, also=tuple(sorted(names)))
    filed = _numbered(record, result, turn, version=standing.version + 1 if standing else 1)
    if standing is not None:
        record.results.pop(standing.key, None)
        _rename(record, standing.key, result.key, work)
        if standing in work.results:  # came in this very batch: its row is not written yet
            work.results.remove(standing)
            work.late.append(standing)
        else:
            work.superseded.append(standing.id)
    record.results[filed.key] = filed
    work.results.append(filed)
    return filed


def _learn_key(record: PatientRecord, key: str, standing: ResultRecord | None, turn: Turn) -> None:
    """One fact, told by a second channel under its own key: that channel's correction must find it again."""
    if standing is None or key == standing.key or key in standing.result.also:
        return
    standing.result = dataclasses.replace(standing.result, also=(*standing.result.also, key))
    if standing not in turn.work.results:  # else it is written with the rest of the batch
        turn.work.known_as.append(standing)
        turn.work.patients[record.id] = record


def _keep_beside(record: PatientRecord, result: LabResult, change: Change, turn: Turn) -> ResultRecord:
    """Files a version that does not become the current one."""
    beside = _numbered(record, result, turn, version=change.standing.version if change.standing else 0)
    turn.work.late.append(beside)
    return beside


def _numbered(record: PatientRecord, result: LabResult, turn: Turn, *, version: int) -> ResultRecord:
    number = new_id()
    return ResultRecord(
        id=number,
        patient_id=record.id,
        message_id=turn.message_id or 0,
        key=result.key,
        version=version,
        result=dataclasses.replace(result, id=number),
    )


def _rename(record: PatientRecord, before: str, now: str, work: Work) -> None:
    """The measurement goes on under another channel's name: so do the alerts that rest on it."""
    if before != now:
        for entry in record.alerts.values():
            if entry.result_key == before:
                entry.result_key = now
                work.alerts.append(entry)


def _says_nothing(reading: Reading) -> bool:
    """Nothing of a count, of the register or of an answer: the way of most messages of a laboratory."""
    return reading.disposition == "not_relevant" and not (
        reading.results
        or reading.problems
        or reading.register
        or reading.confirmations
        or reading.merges
        or reading.replies
        or reading.pending
    )


def _unread_counts(reading: Reading) -> list[Problem]:
    """The problems that stand for a neutrophil count which nobody could read (promise 3)."""
    if reading.disposition == "set_aside":
        return []
    rows = {entry.where for entry in reading.ledger if entry.outcome == "unassessable"}
    found = [problem for problem in reading.problems if _is_within(problem.where, rows)]
    if not found and reading.disposition == "unassessable":
        return list(reading.problems)
    return found


def _is_within(place: str, rows: Collection[str]) -> bool:
    """Is it one of the rows, or a part of one: ``OBX[2]-6``, ``entry[1].resource.valueQuantity``?"""
    return place in rows or any(place[: found.start()] in rows for found in _PART.finditer(place))


def _disposition(reading: Reading, ends: Counter[Disposition]) -> tuple[Disposition, str]:
    if reading.disposition == "set_aside":
        first = reading.problems[0] if reading.problems else None
        return Disposition.SET_ASIDE, f"{first.code}: {first.where}".rstrip(": ") if first else "unreadable"
    for disposition in (Disposition.JUDGED, Disposition.UNASSESSABLE, Disposition.UNENROLLED):
        if ends[disposition]:
            codes = sorted({problem.code for problem in reading.problems})
            if not reading.production:
                codes.append("test-message")
            return disposition, ",".join(codes)
    if reading.replies:
        return Disposition.NOT_RELEVANT, "answer"
    if reading.register:
        return Disposition.NOT_RELEVANT, "register"
    return Disposition.NOT_RELEVANT, ""


def _ledger(entries: tuple[LedgerEntry, ...], ends: dict[str, _End]) -> bytes:
    if not ends and not any(entry.outcome == "result" for entry in entries):
        return packed(entries)
    rows = []
    for where, read_as, reason in entries:
        end = ends.get(where)
        outcome = end.outcome if end else read_as
        why = (end.reason if end else "") or reason
        rows.append((where, "judged" if outcome == "result" else outcome, why))
    return packed(tuple(rows))
