"""From a verdict to what goes out: raising, updating and withdrawing alerts, and the deliveries of each.

Rule of the file: a notification is made when something changed for the reader, and never because the same thing was said
again. Evidence that is provisional may raise an alert; it lowers and withdraws none (promise 3).
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.identity import published
from rules import AlertDraft, alert_id, alerts_for, review_alert
from rules.model import (
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    Assessment,
    CourseState,
    LabResult,
    PatientIdentifier,
    Person,
    ResultStatus,
    Subject,
    Trust,
)
from rules.withdrawal import ANSWERED_WITHDRAWN, acted_on, moved, withdrawal
from store.port import AlertRecord, Delivery, PatientRecord, Work
from store.values import new_id

__all__ = ["Notifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """``destinations``: names of those that get every notification, or would get it in observe mode."""

    language: str
    destinations: tuple[str, ...]
    observe: bool = False
    """Notifications are kept as observed and never sent."""

    def raise_for(
        self,
        record: PatientRecord,
        verdict: Assessment,
        result: LabResult | None,
        *,
        key: str,
        source: str,
        now: datetime,
        work: Work,
    ) -> str | None:
        """Raises or updates the alert of a verdict; its id, or None where the verdict calls for none."""
        draft = alerts_for(verdict, register_id=record.id, language=self.language, result=result)
        if draft is None or record.course.state is CourseState.DECEASED:
            return None
        standing = record.alerts.get(draft.id)
        if standing is not None and _would_hide_a_stop(standing, verdict, draft):
            episode = f"{verdict.episode_on}|after-stop"
            draft = dataclasses.replace(
                draft, id=alert_id(record.id, AlertFamily.SCHEDULE, episode), family=AlertFamily.SCHEDULE
            )
            standing = record.alerts.get(draft.id)
        reopened = standing is None or standing.state == "withdrawn"
        if standing is not None and not reopened and not _news(standing.alert, verdict, result, draft):
            return draft.id
        answered = standing is not None and standing.state == "answered"
        # Only a person closes an alert, and what is worse than what the person answered opens it again.
        quiet = answered and standing is not None and not _worse(standing.alert, verdict, result, draft)
        anew = reopened or (answered and not quiet)
        alert = Alert(
            id=draft.id,
            revision=standing.alert.revision + 1 if standing else 1,
            kind=AlertKind.RAISED if reopened else AlertKind.UPDATED,
            family=draft.family,
            level=draft.level,
            title=draft.title,
            text=draft.text,
            subject=_subject(record),
            raised_at=now if anew or standing is None else standing.alert.raised_at,
            updated_at=now,
            assessment=verdict,
            result=result,
            source=source,
            language=self.language,
        )
        opened_by = key if reopened or standing is None else standing.result_key
        entry = AlertRecord(
            alert=alert,
            patient_id=record.id,
            state="answered" if quiet else "open",
            result_id=result.id if result else None,
            result_key=opened_by,
        )
        record.alerts[alert.id] = entry
        self.send(entry, work)
        return alert.id

    def review(
        self,
        record: PatientRecord | None,
        *,
        code: str,
        where: str,
        key: str,
        source: str,
        identifiers: Sequence[PatientIdentifier] = (),
        now: datetime,
        work: Work,
    ) -> None:
        """A count that is recognisably there and could not be read, or whose patient could not: a task for a person."""
        if record is not None and record.course.state is CourseState.DECEASED:
            return
        number = record.id if record else ""
        draft = review_alert(code, where, register_id=number, key=key, language=self.language)
        if any(entry.alert.id == draft.id for entry in work.alerts) or (record and draft.id in record.alerts):
            return
        alert = Alert(
            id=draft.id,
            revision=1,
            kind=AlertKind.RAISED,
            family=draft.family,
            level=draft.level,
            title=draft.title,
            text=draft.text,
            subject=_subject(record) if record else Subject(register_id="", identifiers=published(identifiers)),
            raised_at=now,
            updated_at=now,
            reason=code,
            where=where,
            source=source,
            language=self.language,
        )
        entry = AlertRecord(alert=alert, patient_id=record.id if record else None, state="open", result_key=key)
        if record is not None:
            record.alerts[alert.id] = entry
        self.send(entry, work)

    def withdraw(
        self,
        record: PatientRecord,
        *,
        key: str,
        still: Iterable[str],
        replaced_by: LabResult,
        now: datetime,
        work: Work,
    ) -> None:
        """Takes back what rested on a measurement that the laboratory has corrected or withdrawn."""
        if replaced_by.trust is Trust.PROVISIONAL and not replaced_by.status.withdrawn:
            return
        kept = set(still)
        for standing in list(record.alerts.values()):
            before = standing.alert
            if standing.state == "withdrawn" or standing.result_key != key or before.id in kept:
                continue
            if before.family is AlertFamily.REVIEW:
                continue
            wrong = replaced_by.status is ResultStatus.ENTERED_IN_ERROR
            title, text = withdrawal(before, replaced_by, language=self.language)
            alert = dataclasses.replace(
                before,
                revision=before.revision + 1,
                kind=AlertKind.WITHDRAWN,
                title=title,
                text=text,
                updated_at=now,
                # The judged count stays beside its replacement's status, so that the reader knows what is taken back.
                result=replaced_by if replaced_by.anc is not None else before.result,
                reason="entered-in-error" if wrong else "corrected",
                subject=_subject(record),
            )
            entry = dataclasses.replace(standing, alert=alert, state="withdrawn")
            record.alerts[alert.id] = entry
            self.send(entry, work)
            if standing.state == "answered" and before.level.rank > AlertLevel.INFO.rank:
                self._acted_on(record, before, now, work)

    def take_back(self, record: PatientRecord, standing: AlertRecord, *, now: datetime, work: Work) -> None:
        """An open alert that goes on under another patient's record (a merge, or its undoing)."""
        before = standing.alert
        title, text = moved(before, language=self.language)
        alert = dataclasses.replace(
            before,
            revision=before.revision + 1,
            kind=AlertKind.WITHDRAWN,
            title=title,
            text=text,
            updated_at=now,
            reason="entered-in-error",
            subject=_subject(record),
        )
        entry = dataclasses.replace(standing, alert=alert, state="withdrawn")
        record.alerts[alert.id] = entry
        self.send(entry, work)

    def _acted_on(self, record: PatientRecord, before: Alert, now: datetime, work: Work) -> None:
        """Somebody answered what is now taken back, and may have acted on it: that is for a person to look at again."""
        title, text = acted_on(before, language=self.language)
        number = alert_id(record.id, AlertFamily.REVIEW, f"{before.id}|{before.revision}|withdrawn")
        alert = dataclasses.replace(
            before,
            id=number,
            revision=1,
            kind=AlertKind.RAISED,
            family=AlertFamily.REVIEW,
            level=AlertLevel.AMBER,
            title=title,
            text=text,
            subject=_subject(record),
            raised_at=now,
            updated_at=now,
            assessment=None,
            result=None,
            reason=ANSWERED_WITHDRAWN,
        )
        entry = AlertRecord(alert=alert, patient_id=record.id, state="open", result_key=f"answered|{before.id}")
        record.alerts[number] = entry
        self.send(entry, work)

    def present(self, standing: AlertRecord, *, told: bool, now: datetime, work: Work) -> AlertRecord:
        """The alert as it stands, as a notification of its own: after observe mode, to those who were told nothing.

        ``told``: an earlier revision of it had gone out, so that it is no news but a change.
        """
        alert = dataclasses.replace(
            standing.alert,
            revision=standing.alert.revision + 1,
            kind=standing.alert.kind
            if standing.state == "withdrawn"
            else (AlertKind.UPDATED if told else AlertKind.RAISED),
            updated_at=now,
        )
        entry = dataclasses.replace(standing, alert=alert)
        self.send(entry, work)
        return entry

    def send(self, entry: AlertRecord, work: Work, *, but: str = "") -> None:
        """Files the alert as it now stands, with a notification for each destination ``but`` one."""
        work.alerts.append(entry)
        # Before any destination is set up, what would have been sent is kept all the same: it goes to "".
        for name in self.destinations or (("",) if self.observe else ()):
            if but and name == but:
                continue
            work.deliveries.append(
                Delivery(
                    id=new_id(),
                    destination=name,
                    # 20 characters, as MSH-10 allows (HL7 v2.5: ST 20); drawn once, so that a retry carries the same.
                    control_id=secrets.token_hex(10),
                    alert=entry.alert,
                    patient_id=entry.patient_id,
                    state="observed" if self.observe else "waiting",
                )
            )


def _would_hide_a_stop(standing: AlertRecord, verdict: Assessment, draft: AlertDraft) -> bool:
    """A follow-up count after a stop is milder than the stop; said under the stop's id it would lower an alert that
    nobody has answered, or the words that somebody has. It is told beside it, and the stop stays as it was (promise 6)."""
    return (
        draft.family is AlertFamily.STOP
        and standing.state in ("open", "answered")
        and draft.level.rank < standing.alert.level.rank
        and not verdict.action.startswith("STOP_IMMEDIATELY")
    )


def _news(before: Alert, verdict: Assessment, result: LabResult | None, draft: AlertDraft) -> bool:
    """Does this verdict say something that the reader of the standing alert does not know?"""
    old = before.assessment
    if old is None:
        return True
    if verdict.provisional and draft.level.rank <= before.level.rank:
        return False
    if draft.level is not before.level or verdict.action != old.action or verdict.category != old.category:
        return True
    if verdict.next_due != old.next_due:
        return True  # a date that is over must not stand in the prescriber's system
    return draft.level.rank > AlertLevel.INFO.rank and _count(result) != _count(before.result)


def _worse(before: Alert, verdict: Assessment, result: LabResult | None, draft: AlertDraft) -> bool:
    """Does this verdict call for another answer than the one that was given? A higher level or another category does, and
    each further red or critical count; a milder one, or another date, does not."""
    old = before.assessment
    if old is None or draft.level.rank != before.level.rank:
        return draft.level.rank >= before.level.rank
    if verdict.category != old.category or verdict.action != old.action:
        return True
    return result is not None and draft.level.rank >= AlertLevel.RED.rank and _count(result) != _count(before.result)


def _count(result: LabResult | None) -> object:
    return (result.key, result.anc, result.collected_at) if result is not None else None


def _subject(record: PatientRecord) -> Subject:
    person: Person = record.person
    return Subject(register_id=record.id, identifiers=published(record.identifiers), person=person, owner=record.owner)
