"""One patient's counts, judged: the new one, and anew whatever it moves; what follows for the present state and its alerts.

Rule of the file: the present state rests on established counts. A provisional one is judged too, and can only alarm.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from engine.notify import Notifier, doubted_key
from engine.stops import Stops, has_stops, settle, stops_of
from rules import assess, find_protocol
from rules.model import AlertFamily, Assessment, CourseState, LabResult, TreatmentCourse, Trust, Unassessable
from store.port import CLOCK, Claim, PatientRecord, ResultRecord, Work

__all__ = ["Present", "Turn", "history_of"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What is being judged now: the message (None when a patient's state is looked at without one) and what it changes."""

    work: Work
    now: datetime
    claim: Claim | None = None

    @property
    def source(self) -> str:
        """Sender and control id, for a person who must look the message up."""
        return " ".join(part for part in (self.claim.sender, self.claim.control_id) if part) if self.claim else ""

    @property
    def sender(self) -> str:
        return self.claim.sender if self.claim else ""

    def day(self, zone: ZoneInfo) -> date:
        return self.now.astimezone(zone).date()

    @property
    def message_id(self) -> int | None:
        return self.claim.message_id if self.claim else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    default_protocol: str
    """For a course that names none."""
    notifier: Notifier
    zone: ZoneInfo
    history_after: timedelta
    settle: timedelta

    def filed(self, record: PatientRecord, item: ResultRecord, turn: Turn, *, before: LabResult | None) -> None:
        """A version became the current one. ``before``: the one that stood, and what rested on that is taken back."""
        replaces = before is not None
        if item.result.trust is Trust.ESTABLISHED:
            record.pending_at = None
        holding = self._judge(record, item, turn, before)
        in_doubt = item.result.trust is Trust.PROVISIONAL and not item.result.status.withdrawn
        stops = None
        if has_stops(record) and not in_doubt and not (not replaces and self._is_history(item.result, turn)):
            stops = self._stops(record, history_of(record), turn)
            holding.update(stops.worst)
        if replaces:
            self.notifier.withdraw(
                record, key=item.key, still=holding, replaced_by=item.result, now=turn.now, work=turn.work
            )
        if stops is not None:
            settle(self.notifier, record, stops, item.key, source=turn.source, now=turn.now, work=turn.work)

    def doubted(self, record: PatientRecord, item: ResultRecord, turn: Turn) -> None:
        """A doubtful restatement of an established count: it may alarm, and it takes nothing back (promise 3)."""
        if item.result.status.withdrawn:
            self.review(record, "withdrawal-in-doubt", item.result.where, turn)
            return
        # Judged as a count of its own: as a version it would put the established one out of the history.
        item = dataclasses.replace(item, result=dataclasses.replace(item.result, key=doubted_key(item.key)))
        own = self._verdict_on(record, history_of(record), item, turn)
        if own is not None:
            self._raise(record, own, item, turn)

    def look(self, record: PatientRecord, turn: Turn) -> None:
        """Loaded history has come to rest, or the register changed: look at the present state, and alert on that."""
        record.settle_at = self._expiry(record.course, turn)
        turn.work.patients[record.id] = record
        if not record.enrolled:
            return
        history = history_of(record)
        latest = _latest_established(history)
        today = self._assess(record, history, None, turn)
        verdict = today if latest is None else self._assess(record, history, latest.result, turn)
        if isinstance(verdict, Assessment) and isinstance(today, Assessment):
            self._now_stands(record, verdict, latest, today, turn)
            if verdict.no_reexposure and record.course.stop is None:
                # A stop-level count in loaded history that nobody has entered as a stop is news, however old it is.
                stops = self._stops(record, history, turn)
                settle(self.notifier, record, stops, "", source=turn.source, now=turn.now, work=turn.work)
            if latest is not None:
                self._raise(record, verdict, latest, turn)
            if _at_once(record.course, today):  # what is missing or overdue besides is the clock's to say
                self.notifier.raise_for(record, today, None, key=CLOCK, source="", now=turn.now, work=turn.work)
        newest = history[-1] if history else None
        if newest is not None and newest is not latest:
            doubted = self._assess(record, history, newest.result, turn)
            if isinstance(doubted, Assessment):
                self._raise(record, doubted, newest, turn)

    def _now_stands(
        self, record: PatientRecord, verdict: Assessment, latest: ResultRecord | None, today: Assessment, turn: Turn
    ) -> None:
        """The verdict on the last count, with today's dates; where the course has moved on since, the verdict on today."""
        day = latest.result.collected_at if latest is not None else None
        if day is None or _at_once(record.course, today) or _moved_on(record.course, day.date()):
            record.present, behind = today, None
        else:
            dates = (today.next_due, today.recommended_recheck_by)
            record.present, behind = verdict, latest
            if (verdict.next_due, verdict.recommended_recheck_by) != dates:
                record.present = dataclasses.replace(verdict, next_due=dates[0], recommended_recheck_by=dates[1])
        turn.work.assessments.append((record.id, behind.id if behind else None, None, record.present))

    def _expiry(self, course: TreatmentCourse, turn: Turn) -> datetime | None:
        """When the first override ends: the present state is looked at anew on that day."""
        day = min((one.expires for one in course.overrides if one.in_force(turn.day(self.zone))), default=None)
        return datetime.combine(day, time(), tzinfo=self.zone) if day is not None else None

    def review(self, record: PatientRecord | None, code: str, where: str, turn: Turn) -> None:
        """A task for a person. One a message, place and reason: a replay of the same bytes asks nobody twice."""
        claim = turn.claim
        # The bytes, not MSH-10, say that it is the same message: laboratories restart their counters.
        same = (_content(claim) if record else str(claim.message_id)) if claim else turn.now.date().isoformat()
        self.notifier.review(
            record,
            code=code,
            where=where,
            key=f"{claim.sender if claim else ''}|{same}|{where}|{code}",
            source=turn.source,
            now=turn.now,
            work=turn.work,
        )

    def _judge(self, record: PatientRecord, filed: ResultRecord, turn: Turn, before: LabResult | None) -> set[str]:
        """The ids of the alerts that hold because of the new version; ``before``: the one that it replaces."""
        history = history_of(record)
        own = None if filed.result.status.withdrawn else self._verdict_on(record, history, filed, turn)
        latest = _latest_established(history)
        present = own if latest is not None and latest.id == filed.id else None
        if filed.result.trust is Trust.ESTABLISHED or filed.result.status.withdrawn:
            if present is None and latest is not None:
                present = self._verdict_on(record, history, latest, turn)
            record.present = present
            day = latest.result.collected_at if latest is not None else None
            if day is not None and _moved_on(record.course, day.date()):
                record.settle_at = turn.now  # a late count: what stands today is another question
        # else: a provisional count satisfies no due test; what is established still stands.
        if before is None and self._is_history(filed.result, turn):
            record.settle_at = turn.now + self.settle
            return set()
        holding = set()
        if own is not None and (own is present or filed.result.trust is Trust.PROVISIONAL or _is_stop(own)):
            holding.add(self._raise(record, own, filed, turn, before))
        if present is not None and present is not own and latest is not None:
            holding.add(self._raise(record, present, latest, turn))
        return {alert_id for alert_id in holding if alert_id is not None}

    def _verdict_on(
        self, record: PatientRecord, history: Sequence[ResultRecord], item: ResultRecord, turn: Turn
    ) -> Assessment | None:
        verdict = self._assess(record, history, item.result, turn)
        match verdict:
            case Unassessable():
                self.review(record, verdict.code, verdict.where or item.result.where, turn)
                return None
            case Assessment():
                turn.work.assessments.append((record.id, item.id, turn.message_id, verdict))
                return verdict
            case other:
                assert_never(other)

    def _stops(self, record: PatientRecord, history: Sequence[ResultRecord], turn: Turn) -> Stops:
        return stops_of(record, history, lambda result: self._assess(record, history, result, turn))

    def _raise(
        self,
        record: PatientRecord,
        verdict: Assessment,
        behind: ResultRecord,
        turn: Turn,
        instead_of: LabResult | None = None,
    ) -> str | None:
        return self.notifier.raise_for(
            record,
            verdict,
            behind.result,
            key=behind.key,
            source=turn.source,
            now=turn.now,
            work=turn.work,
            instead_of=instead_of,
        )

    def _assess(
        self, record: PatientRecord, history: Sequence[ResultRecord], result: LabResult | None, turn: Turn
    ) -> Assessment | Unassessable:
        protocol = find_protocol(record.course.protocol or self.default_protocol)
        today = turn.now.astimezone(self.zone)
        others = [item.result for item in history if result is None or item.result.id != result.id]
        if result is not None and result.collected_at is None:
            # The day is unknown; the day of arrival is the latest it can be, and the count is provisional for that.
            result = dataclasses.replace(result, collected_at=today, time_known=False)
        as_of = today.date() if result is None or result.collected_at is None else result.collected_at.date()
        return assess(protocol, record.course, others, result, as_of)

    def _is_history(self, result: LabResult, turn: Turn) -> bool:
        arrived = turn.claim.received_at if turn.claim else turn.now
        return result.collected_at is not None and arrived - result.collected_at > self.history_after


def history_of(record: PatientRecord) -> list[ResultRecord]:
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


def _at_once(course: TreatmentCourse, today: Assessment) -> bool:
    """What no count need come for: signs of infection that no count answers (R7), and clozapine in spite of R5."""
    signs = course.infection_signs_on
    pending = today.family is AlertFamily.OVERDUE and signs is not None and today.episode_on == signs
    return pending or today.family is AlertFamily.STOP


def _moved_on(course: TreatmentCourse, since: date) -> bool:
    """Has a dose, a stop or the patient's whereabouts changed after the day of the last count?"""
    doses = [day for pause in course.interruptions for day in (pause.last_dose, pause.restart) if day is not None]
    days = [day.date() for day in doses] + ([course.stop.on] if course.stop is not None else [])
    return course.state is CourseState.TRANSFERRED or any(day > since for day in days)


def _content(claim: Claim) -> str:
    return hashlib.blake2b(claim.raw, digest_size=16).hexdigest()
