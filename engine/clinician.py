"""What a person does: answers to alerts, changes of a course, replays; validated, recorded with its author, judged anew.

Rule of the file: who did it stands in the audit, in the same transaction as what it changed. An answer closes the alert
that the person saw and no other; only a person closes one, and a worse count opens it again (engine/notify.py).

RefusedInput, beside what ``rules.changes`` lists for courses:

==============  ===========  =============================================================================================
action          field        codes
==============  ===========  =============================================================================================
all             by           missing, too-long
answer          decision     not-for-this-alert
answer          reason       missing (for continued, disputed, not-my-patient), too-long
answer          (whole)      changed-meanwhile (read the alert again), withdrawn
change_course   (whole)      not-enrolled (only Started puts a patient on the register), changed-meanwhile
replay_message  (whole)      body-gone, several-messages (in an edited copy)
undo_merge      reason       missing, too-long
undo_merge      (whole)      changed-meanwhile (not the last merge that stands)
==============  ===========  =============================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from console.port import Decision, RefusedInput, decisions_for, needs_reason
from engine.enrol import enrol
from engine.escalation import Escalation
from engine.merge import merge_of
from engine.present import Present, history_of
from engine.unmerge import take_back
from ingest.envelope import pieces
from rules import find_protocol
from rules.changes import CourseChange, CourseError, Deceased, Started, Transferred, change
from rules.limits import limits_of
from rules.model import TreatmentCourse
from store import Store, inbox, outbox, register
from store.answers import Overtaken, write
from store.port import AlertRecord, Answer, Audit, PatientRecord, Step, Work
from store.values import encode, to_ms

__all__ = ["Clinician"]

# Each try reads the patient anew; the judging process commits a few times a second at most.
_TRIES = 20
_PAUSE_S = 0.05
_LONGEST_NAME = 200
_LONGEST_REASON = 2000


class Clinician:
    """The console's ``Actions``. ``zone``: the site's, whose calendar says what today is."""

    def __init__(
        self,
        store: Store,
        *,
        zone: ZoneInfo,
        default_protocol: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        escalation: Escalation | None = None,
        present: Present | None = None,
    ) -> None:
        """``present``: judges anew what a merge that is taken back moves."""
        self._present = present
        self._store = store
        self._escalation = escalation
        self._zone = zone
        self._default_protocol = default_protocol
        self._clock = clock

    async def answer(
        self, alert_id: str, *, decision: Decision, reason: str, by: str, revision: int | None = None
    ) -> None:
        """Raises RefusedInput, LookupError, StoreUnavailable."""
        by, reason = _who(by), _why(decision, reason)
        for _ in range(_TRIES):
            standing, decided = await self._standing(alert_id, decision, revision)
            given = Answer(
                alert_id=standing.alert.id,
                revision=standing.alert.revision,
                patient_id=standing.patient_id,
                at=self._clock(),
                by=by,
                decision=decision.value,
                reason=reason,
                closes=decision is not Decision.NOT_MY_PATIENT,
            )
            if standing.state == "open" and self._escalation is not None:
                if await self._ended_or_passed(standing, given, self._escalation, decided):
                    self._store.on_arrivals()
                    return
                # Something else of the patient changed meanwhile; whether the alert did is seen by reading it again.
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await self._store.write(lambda connection, given=given: write(connection, given))  # type: ignore[misc]
            except Overtaken:
                raise RefusedInput("", "changed-meanwhile") from None
            return
        raise RefusedInput("", "changed-meanwhile")

    async def _standing(
        self, alert_id: str, decision: Decision, revision: int | None
    ) -> tuple[AlertRecord, AlertRecord | None]:
        """The alert that the answer ends; and, where that is the open question about another one which was closed or taken
        back, the one that was answered."""
        standing = await self._store.read(lambda connection: register.alert_by_id(connection, alert_id))
        if standing is None:
            raise LookupError(alert_id)
        question = None
        if standing.state != "open":
            question = await self._store.read(lambda connection: register.question_about(connection, alert_id))
        if standing.state == "withdrawn" and question is None:
            raise RefusedInput("", "withdrawn")
        if revision is not None and revision != standing.alert.revision:
            raise RefusedInput("", "changed-meanwhile")
        if decision not in decisions_for(standing.alert.family, standing.alert.level, standing.alert.reason):
            raise RefusedInput("decision", "not-for-this-alert")
        return (standing, None) if question is None else (question, standing)

    async def _ended_or_passed(
        self, standing: AlertRecord, given: Answer, escalation: Escalation, decided: AlertRecord | None
    ) -> bool:
        """In one commit with what follows: word of the answer to whoever has the alert before them, or the next owner
        asked. False when something changed meanwhile, and nothing was written. ``decided``: the alert that it was said of."""
        work = Work(at=given.at)
        work.unanswered.append((given.alert_id, given.revision))
        if standing.patient_id is not None:
            for record in await self._store.patients_by_id([standing.patient_id]):
                work.patients[record.id] = record
        if given.closes:
            escalation.notifier.answered(standing, given, work)
        else:
            work.answers.append(given)
            escalation.handed_back(standing, work, given.at, by=given.by)
        if decided is not None:
            work.steps.append(
                Step(
                    alert_id=decided.alert.id,
                    revision=decided.alert.revision,
                    patient_id=decided.patient_id,
                    at=given.at,
                    state="answered",
                    who=given.by,
                    evidence=given.decision,
                )
            )
        return await self._store.record(work) is None

    async def change_course(self, patient_id: str, change: CourseChange, *, by: str) -> None:
        """Raises RefusedInput, LookupError, StoreUnavailable. The patient's present state is looked at anew at once."""
        by = _who(by)
        for _ in range(_TRIES):
            found = await self._store.patients_by_id([patient_id])
            if not found:
                raise LookupError(patient_id)
            if await self._store.record(self._changed(found[0], change, by)) is None:
                self._store.on_arrivals()
                return
            await asyncio.sleep(_PAUSE_S)
        raise RefusedInput("", "changed-meanwhile")

    async def replay_message(self, message_id: int, *, by: str, edited: bytes | None = None) -> int:
        """The number of the copy that is judged again. Raises RefusedInput, LookupError, StoreUnavailable."""
        from engine.again import again  # what it looks ahead with is slow to load

        by, now = _who(by), self._clock()
        if edited is not None and len(pieces(edited)) > 1:
            raise RefusedInput("", "several-messages")

        def replayed(connection: Connection) -> int | None:
            copied = again(connection, [message_id], by=by, bytes_instead=edited, now=now)[message_id]
            if copied is None and not inbox.known(connection, message_id):
                raise LookupError(message_id)
            return copied

        copied = await self._store.write(replayed)
        if copied is None:
            raise RefusedInput("", "body-gone")
        self._store.on_arrivals()
        return copied

    async def undo_merge(self, number: int, *, reason: str, by: str) -> None:
        """Raises RefusedInput, LookupError, StoreUnavailable."""
        by, reason, now, present = _who(by), reason.strip(), self._clock(), self._present
        if not reason:
            raise RefusedInput("reason", "missing")
        if len(reason) > _LONGEST_REASON:
            raise RefusedInput("reason", "too-long")
        if present is None:
            raise LookupError(number)

        def undone(connection: Connection) -> bool:
            moved = merge_of(connection, number)
            if moved is None:
                raise LookupError(number)
            return take_back(connection, moved, present, by=by, reason=reason, now=now) is None

        if not await self._store.write(undone):
            raise RefusedInput("", "changed-meanwhile")
        self._store.on_arrivals()

    async def replay_dead(self, ids: Sequence[int], *, by: str) -> int:
        """How many wait again; one that newer news of its alert has overtaken does not.

        Raises RefusedInput, StoreUnavailable.
        """
        by, now = _who(by), self._clock()

        def replayed(connection: Connection) -> list[int]:
            again = outbox.replay(connection, ids, to_ms(now))
            if again:
                register.write(connection, _audit(now, by, "replay-dead", {"deliveries": again}), to_ms(now))
            return again

        return len(await self._store.write(replayed))

    def _changed(self, record: PatientRecord, what: CourseChange, by: str) -> Work:
        now = self._clock()
        today = now.astimezone(self._zone).date()
        if not record.enrolled and not isinstance(what, Started):
            raise RefusedInput("", "not-enrolled")
        course = self._course(record, what, today, by)
        work = Work()
        enrol(record, course, work, now=now, actor=by, why=f"course:{type(what).__name__.lower()}")
        if isinstance(what, Deceased) or (isinstance(what, Transferred) and what.accepted):
            self._release(record, work, what, now, by)
        return work

    def _course(self, record: PatientRecord, what: CourseChange, today: date, by: str) -> TreatmentCourse:
        protocol = find_protocol(record.course.protocol or self._default_protocol)
        counts = [item.result for item in history_of(record)]
        limits = limits_of(protocol, record.course, counts, today)
        try:
            changed = change(record.course, what, today=today, limits=limits)
        except CourseError as refused:
            raise RefusedInput(refused.field, refused.code) from None
        if isinstance(what, Started):
            changed = replace(changed, start_confirmed_by=by, birth_date=changed.birth_date or record.person.birth_date)
        return changed

    def _release(self, record: PatientRecord, work: Work, what: CourseChange, now: datetime, by: str) -> None:
        """B-30: death silences, and a transfer holds the alerts here until the receiver has accepted: then they are
        answered by the person who recorded it."""
        for entry in list(record.alerts.values()):
            if entry.state != "open":
                continue
            given = Answer(
                alert_id=entry.alert.id,
                revision=entry.alert.revision,
                patient_id=record.id,
                at=now,
                by=by,
                decision=Decision.NOTED.value,
                reason=type(what).__name__.lower(),
            )
            if self._escalation is not None:
                self._escalation.notifier.answered(entry, given, work)
            else:
                work.answers.append(given)
                work.alerts.append(replace(entry, state="answered"))


def _audit(now: datetime, by: str, action: str, detail: Mapping[str, object]) -> Work:
    return Work(audits=[Audit(at=now, actor=by, action=action, detail=encode(detail).encode())])


def _who(by: str) -> str:
    name = " ".join(by.split())
    if not name:
        raise RefusedInput("by", "missing")
    if len(name) > _LONGEST_NAME:
        raise RefusedInput("by", "too-long")
    return name


def _why(decision: Decision, reason: str) -> str:
    text = reason.strip()
    if needs_reason(decision) and not text:
        raise RefusedInput("reason", "missing")
    if len(text) > _LONGEST_REASON:
        raise RefusedInput("reason", "too-long")
    return text
