"""One patient, looked at by the clock: which count is missing today, what begins with that and what ends.

The verdict is the protocol's, on the absence of a count; the words are those of its alert. What the clock adds is memory:
a finding begins once and ends once. It closes only its own reminders, and only when what was missing has come (established,
never in doubt) or the record says that it is not expected; an alert that rests on a count is a person's to close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from engine.notify import Notifier
from engine.present import history_of
from rules import assess, find_protocol
from rules.model import (
    AlertFamily,
    AlertLevel,
    Assessment,
    CourseState,
    LabResult,
    Trust,
    Unassessable,
)
from rules.silence import ENDED, ended_words, next_look
from store.port import CLOCK, EndedFinding, Finding, Looked, PatientRecord, Work
from store.values import new_id

__all__ = ["BASELINE", "OVERDUE", "REEXPOSED", "SIGNS", "PatientWatch"]

OVERDUE = "overdue"
BASELINE = "baseline"
SIGNS = "signs"
"""Signs of infection are on record and no count answers them (R7)."""
REEXPOSED = "reexposed"
"""A treatment runs or is planned that is banned for ever (R5)."""

_Open = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientWatch:
    notifier: Notifier
    default_protocol: str
    zone: ZoneInfo
    pending: timedelta = timedelta(0)
    """How long a count whose specimen the laboratory has is not called overdue."""

    def is_pending(self, record: PatientRecord, now: datetime) -> bool:
        """A count is on its way: that it is not there yet is no news."""
        return record.pending_at is not None and now - record.pending_at < self.pending

    def look(self, record: PatientRecord, standing: _Open, now: datetime) -> Work:
        """All that follows from looking at this patient now; ``standing``: the patient's open findings."""
        work, today = Work(at=now), now.astimezone(self.zone).date()
        protocol = find_protocol(record.course.protocol or self.default_protocol)
        baseline_days = protocol.baseline.valid_for.days
        history = [item.result for item in history_of(record)]
        verdict = assess(protocol, record.course, history, None, today)
        missing = self._missing(record, verdict, today, baseline_days)
        kept = self._kept(record, history, missing, today)
        waits = missing is not None and missing[0] == OVERDUE and self.is_pending(record, now)
        if waits:
            missing, kept = None, kept | {OVERDUE}
        active = record.course.state is CourseState.ACTIVE
        for finding in (item for item in standing if item["kind"] != "unanswered"):
            if missing is not None and finding["kind"] == missing[0] and _same(finding, missing[1]):
                # News only, such as a higher level; a ban is named by the day, and the alert that stands says it.
                if active and not (finding["kind"] == REEXPOSED and _said_of_the_ban(record)):
                    self._say(record, missing[1], now, work)
                missing = None
            elif finding["kind"] not in kept:
                self._end(record, finding, history, now, work)
        # Somebody lost to follow-up is known to be missing: what stands, stands; nothing is added.
        if missing is not None and active:
            self._begin(record, *missing, history, now, work)
        following: date | None = None
        if record.enrolled:
            following = (
                next_look(record.course, verdict, today, baseline_days=baseline_days)
                if isinstance(verdict, Assessment)
                else today + timedelta(days=1)
            )
        if waits and record.pending_at is not None:
            following = (record.pending_at + self.pending).astimezone(self.zone).date()
        work.looked.append(
            Looked(
                record=record,
                watch_on=following.isoformat() if following is not None else None,
                next_due=_iso(verdict.next_due) if isinstance(verdict, Assessment) else None,
                recheck_by=_iso(verdict.recommended_recheck_by) if isinstance(verdict, Assessment) else None,
                alerts_changed=bool(work.alerts),
            )
        )
        return work

    def _missing(
        self, record: PatientRecord, verdict: Assessment | Unassessable, today: date, baseline_days: int
    ) -> tuple[str, Assessment] | None:
        if isinstance(verdict, Unassessable) or not _missed_here(record):
            return None
        if verdict.alert is AlertLevel.NONE or verdict.family is None:
            return None
        if verdict.family is AlertFamily.START:
            start = record.course.start
            # Earlier a count would be too old by the day of the start: there is nothing to miss yet.
            if start is None or today < start - timedelta(days=baseline_days):
                return None
            return BASELINE, verdict
        if verdict.family is AlertFamily.STOP:
            return REEXPOSED, verdict
        signs = record.course.infection_signs_on
        return (SIGNS if signs is not None and verdict.episode_on == signs else OVERDUE), verdict

    def _kept(
        self,
        record: PatientRecord,
        history: Sequence[LabResult],
        missing: tuple[str, Assessment] | None,
        today: date,
    ) -> set[str]:
        """Kinds whose cause today's verdict hides without ending it."""
        if not _missed_here(record):
            return set()
        kept = {OVERDUE} if missing is not None and missing[0] == SIGNS else set()
        start = record.course.start
        if start is not None and today > start and not any(day >= start for day in _days(history)):
            # The start has passed: that nobody counted before it is as true as on its day.
            protocol = find_protocol(record.course.protocol or self.default_protocol)
            then = assess(protocol, record.course, history, None, start)
            if isinstance(then, Assessment) and then.family is AlertFamily.START:
                kept.add(BASELINE)
        return kept

    def _begin(
        self,
        record: PatientRecord,
        kind: str,
        verdict: Assessment,
        history: Sequence[LabResult],
        now: datetime,
        work: Work,
    ) -> None:
        alert_id = _said_of_the_ban(record) if kind == REEXPOSED else None
        alert_id = alert_id or self._say(record, verdict, now, work)
        if alert_id is None:
            return
        work.begun.append(
            Finding(
                id=new_id(),
                kind=kind,
                subject=record.id,
                patient_id=record.id,
                alert_id=alert_id,
                began_at=now,
                body={
                    "episode": _iso(verdict.episode_on),
                    "action": verdict.action,
                    "level": verdict.alert.value,
                    "due": _iso(verdict.next_due),
                    "last_count": _iso(max(_days(history), default=None)),
                },
            )
        )

    def _say(self, record: PatientRecord, verdict: Assessment, now: datetime, work: Work) -> str | None:
        """Through the notifier, which tells only news; what a count has said more gravely is not talked down."""
        before = len(work.alerts)
        scratch = Work()
        known = dict(record.alerts)
        alert_id = self.notifier.raise_for(record, verdict, None, key=CLOCK, source="", now=now, work=scratch)
        if alert_id is None:
            return None
        old = known.get(alert_id)
        if old is not None and old.state != "withdrawn":
            on_a_count = old.alert.result is not None and old.alert.family is not AlertFamily.OVERDUE
            if on_a_count or old.alert.level.rank > verdict.alert.rank:
                record.alerts = known
                return alert_id
        work.alerts += scratch.alerts
        work.deliveries += scratch.deliveries
        if len(work.alerts) > before:
            work.assessments.append((record.id, None, None, verdict))
        return alert_id

    def _end(
        self,
        record: PatientRecord,
        finding: dict[str, Any],
        history: Sequence[LabResult],
        now: datetime,
        work: Work,
    ) -> None:
        last = _iso(max(_days(history), default=None))
        arrived = last is not None and last != finding["body"].get("last_count")
        work.ended.append(
            EndedFinding(id=finding["id"], at=now, body=finding["body"] | {"end": "arrived" if arrived else "changed"})
        )
        standing = record.alerts.get(finding["alert_id"])
        if standing is None or standing.state == "withdrawn" or finding["kind"] == REEXPOSED:
            return
        before = standing.alert
        if before.family is not AlertFamily.OVERDUE and before.result is not None:
            return
        self.notifier.withdrawn(
            record,
            standing,
            ended_words(before.title, self.notifier.words(before.language), arrived=arrived),
            now=now,
            work=work,
            # The date that was missed must not stand on; the next one does.
            assessment=record.present or before.assessment,
            result=None,
            reason=ENDED,
        )


def _said_of_the_ban(record: PatientRecord) -> str | None:
    """A stop alert that stands says it already."""
    return next(
        (
            number
            for number, entry in record.alerts.items()
            if entry.alert.family is AlertFamily.STOP and entry.state != "withdrawn"
        ),
        None,
    )


def _missed_here(record: PatientRecord) -> bool:
    """B-30: death silences; after a transfer that was accepted the receiver watches."""
    return record.enrolled and record.course.state not in (CourseState.DECEASED, CourseState.TRANSFERRED)


def _same(finding: dict[str, Any], verdict: Assessment) -> bool:
    """A ban has one episode, whatever day names it; any other finding is that of its day."""
    return bool(finding["kind"] == REEXPOSED or finding["body"].get("episode") == _iso(verdict.episode_on))


def _days(history: Sequence[LabResult]) -> list[date]:
    """Of the established counts."""
    return [
        result.collected_at.date()
        for result in history
        if result.trust is Trust.ESTABLISHED and result.collected_at is not None
    ]


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day is not None else None
