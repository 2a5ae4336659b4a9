"""The clock: what did not come, noticed by itself (promise 7). A sweep every half a minute, each finding raised once.

Rule of the file: a finding, its alert and its notifications are one commit, so that nothing is told twice and nothing is
noted without being told, whenever the process ends. What the sweep reads, it reads by index (docs/clock.md).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from engine.config import WatchSection
from engine.escalation import Escalation
from engine.notify import Notifier
from engine.observe import Meters
from engine.present import Present, Turn
from engine.watch_patients import PatientWatch
from engine.watch_rhythm import Judgement, Listening, hear, judge
from rules.alerts import AlertDraft
from rules.model import Alert, AlertFamily, AlertKind, CourseState, Subject
from rules.silence import (
    DESTINATION_DOWN,
    FEED_SILENT,
    system_alert,
    system_ended_words,
)
from store import Store, StoreUnavailable, feeds, findings
from store.port import CLOCK, AlertRecord, EndedFinding, FeedRecord, Finding, Looked, Work
from store.register import alert_by_id
from store.values import from_ms, new_id, to_ms

__all__ = ["DESTINATION", "FEED", "UNANSWERED", "Watch"]

ANSWERS = "answers"
FEED = "feed"
DESTINATION = "destination"
UNANSWERED = "unanswered"

_PATIENTS = 100
_ALERTS = 100
_MESSAGES = 2000
# A whole register that was just imported is looked at in several sweeps: the other parts have their turn in between.
_SPELL_S = 20.0
# Between two batches the judging has its turn.
_PAUSE_S = 0.005
# While messages wait for longer than this to be judged, a count that is missing may be among them; but not for ever.
_BACKLOG, _BACKLOG_AT_MOST = timedelta(seconds=60), timedelta(hours=1)


# Longer than any transaction that stores messages may take, where several processes store them.
_UNCOMMITTED = timedelta(seconds=20)


class Watch:
    """``destinations``: the state (``up`` or ``down``) of each, by name. ``on_alerts`` is called when deliveries wait.

    ``leads``: whether this clock, of several, is the one that counts now.
    """

    def __init__(
        self,
        store: Store,
        present: Present,
        meters: Meters,
        settings: WatchSection,
        *,
        destinations: Callable[[], Mapping[str, str]],
        on_alerts: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        escalation: Escalation | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._leads = leads
        self._store = store
        self._present = present
        self._notifier: Notifier = present.notifier
        self._zone: ZoneInfo = present.zone
        self._escalation = escalation or Escalation(notifier=present.notifier, zone=present.zone)
        self._meters = meters
        self._settings = settings
        self._destinations = destinations
        self._on_alerts = on_alerts
        self._clock = clock
        self._patients = PatientWatch(
            notifier=present.notifier,
            default_protocol=present.default_protocol,
            zone=present.zone,
            pending=timedelta(hours=settings.pending_h),
        )
        self._started_at = clock()
        self._deaf: tuple[datetime, datetime] | None = None
        self._first = True

    async def run(self) -> None:
        """Until cancelled. The first sweep comes after one pause, so that what waited in the inbox is judged before it."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            if self._leads():
                await self.sweep()

    def clock_moved(self, expected: datetime, now: datetime) -> None:
        """The clock says ``now`` instead of ``expected``. Ahead, the machine may have stood still: what was not heard in
        between is nobody's silence, and what waits for a destination has its time from now on."""
        if now > expected:
            self._deaf, self._started_at, self._first = (expected, now), now, False
        else:
            self._started_at = min(self._started_at, now)

    async def sweep(self) -> None:
        """Looks once at everything. A part that fails is told and tried again with the next sweep; the others go on."""
        now = self._clock()
        parts: tuple[tuple[str, Callable[[datetime], Awaitable[None]]], ...] = (
            ("feeds", self._feeds),
            ("destinations", self._downs),
            ("patients", self._missing),
            ("answers", self._answers),
        )
        for name, part in parts:
            try:
                await part(now)
            except StoreUnavailable as error:
                self._meters.event("store_unavailable", level=logging.ERROR, reason=str(error))
                return
            except Exception as error:
                self._meters.fault(error, reason=f"watch {name}")

    # Patients

    async def _missing(self, now: datetime) -> None:
        waiting = await self._store.read(findings.oldest_pending)
        if waiting is not None and _BACKLOG < now - from_ms(waiting) < _BACKLOG_AT_MOST:
            return
        today, after = now.astimezone(self._zone).date().isoformat(), ("", "")
        over = time.monotonic() + _SPELL_S
        while time.monotonic() < over:
            page = await self._store.read(
                lambda connection, seen=after: findings.to_look_at(connection, today, seen, _PATIENTS)  # type: ignore[misc]
            )
            if not page:
                return
            await self._look([number for _, number in page], now)
            after = page[-1]
            await asyncio.sleep(_PAUSE_S)

    async def _look(self, ids: Sequence[str], now: datetime) -> None:
        pieces = []
        records, broken = await self._store.readable(ids)
        if broken:
            self._meters.event("patient_unreadable", level=logging.ERROR, reason="watch", count=len(broken))
        for record in records:
            standing = await self._store.read(lambda connection, n=record.id: findings.open_of(connection, n))  # type: ignore[misc]
            try:
                pieces.append(self._patients.look(record, standing, now))
            except Exception as error:
                # One patient's fault must not end the watch over all the others: a person must look (promise 3).
                self._meters.fault(error, reason="watch patient")
                work = Work(at=now)
                self._present.review(record, "internal-error", "", Turn(work, now))
                tomorrow = now.astimezone(self._zone).date() + timedelta(days=1)
                work.looked.append(
                    Looked(
                        record=record,
                        watch_on=tomorrow.isoformat(),
                        next_due=None,
                        recheck_by=None,
                        alerts_changed=bool(work.alerts),
                    )
                )
                pieces.append(work)
            await asyncio.sleep(0)
        await self._record(pieces)

    # Answers

    async def _answers(self, now: datetime) -> None:
        while found := await self._store.read(lambda connection: findings.answered(connection, _ALERTS)):
            ends = [EndedFinding(id=item["id"], at=now, body=item["body"] | {"end": "answered"}) for item in found]
            await self._record([Work(at=now, ended=ends)])
        if self._notifier.observe:
            return  # nobody was told, so that nobody owes an answer
        after = (0, "")
        while True:
            page = await self._store.read(
                lambda connection, seen=after: findings.unanswered(connection, to_ms(now), seen, _ALERTS)  # type: ignore[misc]
            )
            if not page:
                return
            after = (page[-1][2], page[-1][0])
            # One piece a patient: two alerts of one patient are passed on together, or both with the next sweep.
            pieces: dict[str, Work] = {}
            for alert_id, patient_id, _ in page:
                piece = pieces.setdefault(patient_id or alert_id, Work(at=now))
                await self._pass_on(alert_id, patient_id, piece, now)
            await self._record([piece for piece in pieces.values() if piece.alerts])
            await asyncio.sleep(_PAUSE_S)

    async def _pass_on(self, alert_id: str, patient_id: str | None, work: Work, now: datetime) -> None:
        if patient_id is None:
            standing = await self._store.read(lambda connection: alert_by_id(connection, alert_id))
        else:
            record = work.patients.get(patient_id)
            if record is None:
                found = await self._store.patients_by_id([patient_id])
                if not found:
                    return
                record = found[0]
            # Death silences (clinical.md B-30).
            if record.course.state is CourseState.DECEASED:
                return
            standing = record.alerts.get(alert_id)
            # The patient's next judgement must know of this revision.
            work.patients[patient_id] = record
        if standing is None or standing.state != "open":
            return
        before = standing.alert
        record = work.patients.get(patient_id or "")
        if before.family is AlertFamily.OVERDUE and record is not None and self._patients.is_pending(record, now):
            return
        passed = self._escalation.unanswered(standing, work, now, but=await self._not_to(before))
        if patient_id is not None:
            work.patients[patient_id].alerts[alert_id] = passed
        work.unanswered.append((alert_id, before.revision))
        if before.escalation and await self._store.read(lambda c: findings.is_open(c, UNANSWERED, alert_id)):
            return
        work.begun.append(
            Finding(
                id=new_id(),
                kind=UNANSWERED,
                subject=alert_id,
                patient_id=patient_id,
                alert_id=alert_id,
                began_at=now,
                body={"level": before.level.value, "since": before.raised_at.isoformat()},
            )
        )

    async def _not_to(self, alert: Alert) -> str:
        """The destination that an alert is about: it is not told of itself."""
        if alert.reason != DESTINATION_DOWN:
            return ""
        standing = await self._store.read(_open(DESTINATION))
        return next((item["subject"] for item in standing if item["alert_id"] == alert.id), "")

    # Feeds

    async def _feeds(self, now: datetime) -> None:
        marks = await self._store.read(feeds.marks)
        if self._first:
            self._first = False
            seen = marks.get("seen_at")
            since = from_ms(seen) if seen is not None else self._started_at
            self._deaf = (since, self._started_at) if since < self._started_at else None
        known = {(item.channel, item.sender): item for item in await self._store.read(feeds.records)}
        how, last = self._listening(), marks.get("message", 0)
        until = to_ms(now - _UNCOMMITTED) if self._store.shared else 2**62
        while rows := await self._store.read(
            lambda connection, n=last: feeds.arrived(connection, n, _MESSAGES, until_ms=until)  # type: ignore[misc]
        ):
            last = rows[-1][0]
            heard = self._hear(rows, known, how)
            await self._record([Work(at=now, feeds=heard, marks={"message": last})])
            await asyncio.sleep(_PAUSE_S)
        await self._store.record(Work(at=now, marks={"seen_at": to_ms(now)}))
        silent = {item["subject"]: item for item in await self._store.read(_open(FEED))}
        pieces = []
        for feed in known.values():
            piece = await self._judge_feed(feed, silent.get(f"{feed.channel}|{feed.sender}"), how, now)
            if piece is not None:
                pieces.append(piece)
            await asyncio.sleep(0)
        await self._record(pieces)

    def _listening(self) -> Listening:
        given = self._settings
        return Listening(
            zone=self._zone,
            floor_h=given.silence_floor_h,
            factor=given.silence_factor,
            after=timedelta(days=given.silence_after_days),
            messages=given.silence_after_messages,
            deaf=self._deaf,
        )

    def _hear(
        self,
        rows: Iterable[tuple[int, int, str, str, int | None]],
        known: dict[tuple[str, str], FeedRecord],
        how: Listening,
    ) -> list[FeedRecord]:
        heard: dict[tuple[str, str], list[datetime]] = {}
        for _, received_at, channel, sender, replay_of in rows:
            if replay_of is None and channel != ANSWERS:  # a replay is our own doing, and so is reading answers back
                heard.setdefault((channel, sender), []).append(from_ms(received_at))
        for (channel, sender), moments in heard.items():
            feed = known.setdefault(
                (channel, sender), FeedRecord(channel=channel, sender=sender, first_at=moments[0], last_at=moments[0])
            )
            hear(feed, moments, how)
            fixed = self._fixed(feed)
            feed.body["fixed"] = fixed is not None
            if fixed is not None:
                feed.body["limit_h"] = fixed
        return [known[key] for key in heard]

    def _fixed(self, feed: FeedRecord) -> float | None:
        for item in self._settings.feed:
            if item.sender == feed.sender and item.channel in ("", feed.channel):
                return item.max_silence_h
        return None

    async def _judge_feed(
        self, feed: FeedRecord, standing: dict[str, Any] | None, how: Listening, now: datetime
    ) -> Work | None:
        subject, name = f"{feed.channel}|{feed.sender}", f"{feed.sender or '?'} ({feed.channel})"
        if standing is not None:
            # It ends with a message, not with a limit that was moved.
            if to_ms(feed.last_at) == standing["body"]["last_at"]:
                return None
            return await self._ended(standing, now, "heard")
        fixed = self._fixed(feed)
        if fixed is None:
            found = judge(feed, now, how)
        else:
            deaf = how.deaf[1] - max(how.deaf[0], feed.last_at) if how.deaf and how.deaf[1] > feed.last_at else None
            silence = now - feed.last_at - (deaf or timedelta())
            found = Judgement(silence / timedelta(hours=1), fixed)
        if not found.silent:
            return None
        return self._began(
            FEED,
            FEED_SILENT,
            subject,
            name,
            feed.last_at,
            now,
            body={
                "last_at": to_ms(feed.last_at),
                "silence_h": round(found.silence_h, 2),
                "limit_h": found.limit_h,
            },
        )

    # Destinations

    async def _downs(self, now: datetime) -> None:
        states = self._destinations()
        standing = {item["subject"]: item for item in await self._store.read(_open(DESTINATION))}
        limit = timedelta(seconds=self._settings.destination_down_s)
        pieces = []
        for name, state in states.items():
            oldest = await self._store.read(lambda connection, n=name: findings.oldest_waiting(connection, n))  # type: ignore[misc]
            since = from_ms(oldest) if oldest is not None else None
            old = since is not None and now - since > limit
            if name in standing:
                if not old and state != "down":
                    pieces.append(await self._ended(standing[name], now, "up"))
            # What waited while the engine was off is given its time first.
            elif since is not None and now - max(since, self._started_at) > limit:
                pieces.append(self._began(DESTINATION, DESTINATION_DOWN, name, name, since, now, body={}, but=name))
        # One that left the settings is nobody's to wait for.
        pieces += [await self._ended(item, now, "removed") for name, item in standing.items() if name not in states]
        await self._record(pieces)

    # A finding that is about no patient

    def _began(
        self,
        kind: str,
        reason: str,
        subject: str,
        name: str,
        since: datetime,
        now: datetime,
        *,
        body: dict[str, Any],
        but: str = "",
    ) -> Work:
        work = Work(at=now)
        draft: AlertDraft = system_alert(
            reason,
            self._notifier.words(),
            name=name,
            key=f"{kind}|{subject}|{to_ms(now)}",
            since=since.astimezone(self._zone),
        )
        alert = Alert(
            id=draft.id,
            revision=1,
            kind=AlertKind.RAISED,
            family=draft.family,
            level=draft.level,
            title=draft.title,
            text=draft.text,
            subject=Subject(register_id=""),
            raised_at=now,
            updated_at=now,
            reason=reason,
            language=self._notifier.language,
        )
        alert = self._notifier.asked(alert, now)
        self._notifier.send(AlertRecord(alert=alert, patient_id=None, result_key=CLOCK), work, but=but)
        work.begun.append(
            Finding(
                id=new_id(),
                kind=kind,
                subject=subject,
                alert_id=alert.id,
                began_at=now,
                body=body | {"name": name, "since": since.isoformat(), "but": but},
            )
        )
        return work

    async def _ended(self, finding: dict[str, Any], now: datetime, how: str) -> Work:
        """A connection that is back closes its own alert: nothing clinical rested on it."""
        work, body = Work(at=now), finding["body"]
        work.ended.append(EndedFinding(id=finding["id"], at=now, body=body | {"end": how}))
        standing = await self._store.read(lambda connection: alert_by_id(connection, finding["alert_id"]))
        if standing is None or standing.state == "withdrawn":
            return work
        before = standing.alert
        title, text = system_ended_words(
            before.reason, before.title, self._notifier.words(before.language), name=body["name"]
        )
        alert = dataclasses.replace(
            before,
            revision=before.revision + 1,
            kind=AlertKind.WITHDRAWN,
            title=title,
            text=text,
            bare=(),
            updated_at=now,
        )
        self._notifier.send(dataclasses.replace(standing, alert=alert, state="withdrawn"), work, but=body["but"])
        return work

    # Recording

    async def _record(self, pieces: Sequence[Work]) -> None:
        """In one commit; a piece that somebody else's change has overtaken is left to the next sweep."""
        left = list(pieces)
        while left and self._leads():  # who has lost it in the middle leaves the rest to the one that has it now
            stale = await self._store.record(_merged(left))
            if stale is None:
                self._tell(left)
                return
            kept = [piece for piece in left if not _overtaken(piece, stale.patient_ids, stale.alert_ids)]
            if len(kept) == len(left):
                return
            left = kept

    def _tell(self, pieces: Sequence[Work]) -> None:
        for piece in pieces:
            for item in piece.begun:
                self._meters.event("finding", level=logging.WARNING, kind=item.kind, alert_id=item.alert_id or "")
            for ended in piece.ended:
                self._meters.event("finding_ended", reason=str(ended.body.get("end", "")), count=1)
        if any(piece.deliveries for piece in pieces):
            self._on_alerts()


def _open(kind: str) -> Callable[[Any], list[dict[str, Any]]]:
    return lambda connection: findings.open_findings(connection, kind, limit=100_000)


def _overtaken(piece: Work, patients: Iterable[str], alerts: Iterable[str]) -> bool:
    moved, answered = set(patients), set(alerts)
    return (
        not moved.isdisjoint(piece.patients)
        or any(item.record.id in moved for item in piece.looked)
        or any(number in answered for number, _ in piece.unanswered)
    )


def _merged(pieces: Sequence[Work]) -> Work:
    whole = Work(at=pieces[0].at)
    for piece in pieces:
        whole.patients |= piece.patients
        for name in ("assessments", "alerts", "deliveries", "begun", "ended", "looked", "unanswered", "feeds", "steps"):
            getattr(whole, name).extend(getattr(piece, name))
        whole.marks |= piece.marks
    return whole
