"""From a verdict to what goes out: raising, updating and withdrawing alerts, and the deliveries of each.

Rule of the file: a notification is made when something changed for the reader, and never because the same thing was said
again. Evidence that is provisional may raise an alert; it lowers and withdraws none (promise 3).
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from engine import undecided
from engine.identity import published
from engine.news import deciding_of, is_news, is_worse, lowers_a_stop
from engine.routing import Routing, copies_of
from rules import AlertDraft, alert_id, alerts_for, review_alert
from rules.asking import DISPENSED, answered_words, copy_words, dispensed_alert
from rules.decisions import Decision
from rules.model import (
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    Assessment,
    CourseState,
    LabResult,
    OrderReference,
    PatientIdentifier,
    Person,
    ResultStatus,
    Subject,
    Trust,
)
from rules.texts import SHIPPED, Wordings
from rules.withdrawal import ANSWERED_WITHDRAWN, acted_on, lowered_words, moved, withdrawal
from rules.words import Words
from store.port import CLOCK, AlertRecord, Answer, Delivery, PatientRecord, ResultRecord, Step, Work
from store.values import new_id

__all__ = ["PATIENCE", "Notifier", "doubted_key"]

_HOUR = timedelta(hours=1)
PATIENCE: Mapping[AlertLevel, timedelta] = {
    AlertLevel.CRITICAL: _HOUR,
    AlertLevel.RED: 4 * _HOUR,
    AlertLevel.AMBER: 72 * _HOUR,
}
"""How long an alert of this level may wait for its answer; a level that is not in it waits for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """``destinations``: all of them; ``routing`` says which get what, without it each gets everything."""

    language: str
    destinations: tuple[str, ...]
    wordings: Wordings = SHIPPED
    observe: bool = False
    """Notifications are kept as observed and never sent."""
    routing: Routing | None = None
    patience: Mapping[AlertLevel, timedelta] = field(default_factory=lambda: PATIENCE)
    told_of_answers: Mapping[str, bool] = field(default_factory=dict)
    """Destinations that are told when an alert is answered, since something of it may stand open there; False: not of an
    answer given there that ended all there was, the one Task."""
    zone: tzinfo = UTC

    def words(self, language: str = "") -> Words:
        """In this language (an alert keeps its own), the site's where nothing is said."""
        return self.wordings.words[language or self.language]

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
        instead_of: LabResult | None = None,
    ) -> str | None:
        """Raises or updates the alert of a verdict; its id, or None where the verdict calls for none. ``instead_of``: what
        the laboratory had reported before in the place of ``result``."""
        deciding = deciding_of(record, verdict, result)
        if deciding is not None and deciding is not result:
            result, key, instead_of = deciding, deciding.key, None
        draft = alerts_for(
            verdict,
            register_id=record.id,
            language=self.language,
            result=result,
            instead_of=instead_of,
            wordings=self.wordings,
        )
        if draft is None or record.course.state is CourseState.DECEASED:
            return None
        standing = record.alerts.get(draft.id)
        if standing is not None and lowers_a_stop(standing, draft):
            # A correction: what the alert still rests on is asked of every count (``engine.stops``).
            corrected = standing.result_key in (key, doubted_key(key))
            # The same stop, milder and in doubt, is nothing that its reader does not know.
            if corrected or (verdict.provisional and verdict.action.startswith("STOP_IMMEDIATELY")):
                return draft.id
            episode = f"{verdict.episode_on}|after-stop"
            draft = dataclasses.replace(
                draft, id=alert_id(record.id, AlertFamily.SCHEDULE, episode), family=AlertFamily.SCHEDULE
            )
            standing = record.alerts.get(draft.id)
        reopened = standing is None or standing.state == "withdrawn"
        if standing is not None and not reopened and not is_news(standing.alert, verdict, result, draft):
            return draft.id
        answered = standing is not None and standing.state == "answered"
        # Only a person closes an alert, and what is worse than what the person answered opens it again.
        quiet = answered and standing is not None and not is_worse(standing.alert, verdict, result, draft)
        anew = reopened or (answered and not quiet)
        asks = anew or standing is None or is_worse(standing.alert, verdict, result, draft)
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
            told=standing.alert.told if standing else (),
            order=_order(record, result),
        )
        if standing is not None and not asks:
            alert = _still_asked(alert, standing.alert)
        else:
            # What is worse is asked anew, and never later than what it replaces would have been asked again.
            open_until = standing.alert.answer_by if standing is not None and not anew else None
            alert = self.asked(alert, now, by=open_until)
        # What it rests on: the count that last made it worse. The clock's verdict rests on counts.
        opened_by = key if reopened or standing is None or (asks and key != CLOCK) else standing.result_key
        entry = AlertRecord(
            alert=alert,
            patient_id=record.id,
            state="answered" if quiet else "open",
            result_id=result.id if result else None,
            result_key=opened_by,
        )
        record.alerts[alert.id] = entry
        self.send(entry, work)
        if asks and standing is not None:
            undecided.settle(self, record, alert.id, now=now, work=work)
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
        draft = review_alert(code, where, register_id=number, key=key, language=self.language, wordings=self.wordings)
        if any(entry.alert.id == draft.id for entry in work.alerts) or (record and draft.id in record.alerts):
            return
        subject = _subject(record) if record else Subject(register_id="", identifiers=published(identifiers))
        order = _order(record, None) if record else OrderReference()
        alert = self._first(draft, subject, order, reason=code, source=source, now=now)
        self._opened(dataclasses.replace(alert, where=where), record, key=key, now=now, work=work)

    def dispensed(
        self,
        record: PatientRecord,
        *,
        on: str,
        stop: str,
        key: str,
        for_ever: bool,
        source: str,
        now: datetime,
        work: Work,
    ) -> None:
        """Clozapine was handed over although a stop is on record. Told again by the pharmacy, it is the same alert."""
        draft = dispensed_alert(record.id, self.words(), on=on, stop=stop, key=key, for_ever=for_ever)
        if draft.id in record.alerts or record.course.state is CourseState.DECEASED:
            return
        alert = self._first(draft, _subject(record), _order(record, None), reason=DISPENSED, source=source, now=now)
        self._opened(alert, record, key=f"{DISPENSED}|{key}", now=now, work=work)

    def _first(
        self, draft: AlertDraft, subject: Subject, order: OrderReference, *, reason: str, source: str, now: datetime
    ) -> Alert:
        """The first revision of an alert that no verdict stands behind."""
        return Alert(
            id=draft.id,
            revision=1,
            kind=AlertKind.RAISED,
            family=draft.family,
            level=draft.level,
            title=draft.title,
            text=draft.text,
            subject=subject,
            raised_at=now,
            updated_at=now,
            reason=reason,
            source=source,
            language=self.language,
            order=order,
        )

    def _opened(
        self, alert: Alert, record: PatientRecord | None, *, key: str, now: datetime, work: Work, owner: str = ""
    ) -> None:
        """Puts a first revision to its owner and sends it. ``key``: what it rests on."""
        alert = self.asked(alert, now, owner=owner)
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
            if standing.state == "withdrawn" or standing.result_key not in (key, doubted_key(key)) or before.id in kept:
                continue
            if before.family is AlertFamily.REVIEW:
                continue
            wrong = replaced_by.status is ResultStatus.ENTERED_IN_ERROR
            title, text = withdrawal(before, replaced_by, self.words())
            review = _to_be_reviewed(record, standing)
            self.withdrawn(
                record,
                standing,
                (title, text),
                now=now,
                work=work,
                # The judged count stays beside its replacement's status, so that the reader knows what is taken back.
                result=replaced_by if replaced_by.anc is not None else before.result,
                reason="entered-in-error" if wrong else "corrected",
                subject=dataclasses.replace(_subject(record), owner=before.subject.owner),
                followed_by=review,
            )
            undecided.settle(self, record, before.id, now=now, work=work)
            if review:
                self._acted_on(record, before, review, now, work, answered=standing.state == "answered")

    def lowered(
        self,
        record: PatientRecord,
        standing: AlertRecord,
        verdict: Assessment,
        behind: ResultRecord,
        *,
        now: datetime,
        work: Work,
    ) -> None:
        """The count that an alert rested on is corrected, and what is left calls for it at this level: told by the same
        channels, as urgently, and with the level that was told."""
        before = standing.alert
        draft = alerts_for(
            verdict, register_id=record.id, language=self.language, result=behind.result, wordings=self.wordings
        )
        if draft is None:
            return
        title, text = lowered_words(before, draft.title, draft.text, self.words())
        alert = _later(
            before,
            AlertKind.UPDATED,
            (title, text),
            now,
            level=draft.level,
            urgency=before.pressing,
            assessment=verdict,
            result=behind.result,
            language=self.language,
        )
        entry = dataclasses.replace(standing, alert=alert, result_id=behind.id, result_key=behind.key)
        record.alerts[alert.id] = entry
        self.send(entry, work)

    def take_back(self, record: PatientRecord, standing: AlertRecord, *, now: datetime, work: Work) -> None:
        """An open alert that goes on under another patient's record (a merge, or its undoing)."""
        words = moved(standing.alert, self.words())
        self.withdrawn(record, standing, words, now=now, work=work, reason="entered-in-error", subject=_subject(record))

    def goes_on(self, target: PatientRecord, standing: AlertRecord, *, now: datetime, work: Work) -> None:
        """A task for a person that stood under another patient's record: asked here, as it was worded and as urgent."""
        if target.course.state is CourseState.DECEASED:
            return
        before = standing.alert
        key = f"{standing.result_key}|moved"
        number = alert_id(target.id, before.family, key)
        if number in target.alerts:
            return
        alert = _anew(before, number, before.bare_words, _subject(target), now, told=())
        self._opened(alert, target, key=key, now=now, work=work)

    def withdrawn(
        self,
        record: PatientRecord,
        standing: AlertRecord,
        words: tuple[str, str],
        *,
        now: datetime,
        work: Work,
        **facts: Any,
    ) -> None:
        """The alert is over without an answer: whoever was told is told so. ``words``: title and text; ``facts``: what else
        of the alert (``Alert``) is said otherwise, its ``reason`` at least."""
        alert = _later(standing.alert, AlertKind.WITHDRAWN, words, now, **facts)
        entry = dataclasses.replace(standing, alert=alert, state="withdrawn")
        record.alerts[alert.id] = entry
        self.send(entry, work)

    def _acted_on(
        self, record: PatientRecord, before: Alert, number: str, now: datetime, work: Work, *, answered: bool
    ) -> None:
        """Somebody may have acted on what is now taken back: that is for a person to look at again."""
        alert = _anew(
            before,
            number,
            acted_on(before, self.words(), answered=answered),
            _subject(record),
            now,
            family=AlertFamily.REVIEW,
            level=AlertLevel.AMBER,
            assessment=None,
            result=None,
            reason=ANSWERED_WITHDRAWN,
        )
        # Put to whoever was asked last: that is the person who may have acted.
        owner = before.asked[-1] if before.asked else ""
        self._opened(alert, record, key=f"answered|{before.id}", now=now, work=work, owner=owner)

    def answered(self, entry: AlertRecord, given: Answer, work: Work, *, of_another: bool = False) -> AlertRecord:
        """Files a person's answer, which ends the alert, with word of it to wherever something of it may still stand open:
        with earlier owners, second recipients, at other destinations. The alert's own words stay as they are.

        ``of_another``: it was said of another alert, so that this one's own Task stands open where it came from, too."""
        alert = entry.alert
        copied = self._copied(alert)
        alone = given.destination if not (alert.escalation or of_another or given.destination in copied) else ""
        told = self.told_of_answers
        names = [
            name for name in dict.fromkeys((*alert.told, *copied)) if name in told and (name != alone or told[name])
        ]
        if names:
            alert = dataclasses.replace(alert, revision=alert.revision + 1)
            title, text = answered_words(
                alert,
                self.words(alert.language),
                at=given.at.astimezone(self.zone),
                by=given.by,
                decision=Decision(given.decision),
            )
            word = dataclasses.replace(
                alert, kind=AlertKind.ANSWERED, title=title, text=text, updated_at=given.at, answer_by=None
            )
            work.deliveries += [self._delivery(name, word, entry.patient_id) for name in names]
        answered = dataclasses.replace(entry, alert=alert, state="answered")
        work.answers.append(given)
        work.alerts.append(answered)
        return answered

    def _copied(self, alert: Alert) -> list[str]:
        """The destinations that have a copy of the alert for a second recipient."""
        names: list[str] = []
        for recipient, role in self.routing.roles.items() if self.routing is not None else ():
            if recipient in copies_of(alert):
                copy = dataclasses.replace(self.put_to(alert, role), recipient=recipient, asked=(role,), told=())
                names += self._takers(copy)
        return names

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
        if standing.state == "open" and alert.answer_by is None:
            alert = self.asked(alert, now)
        entry = dataclasses.replace(standing, alert=alert)
        self.send(entry, work)
        return entry

    def asked(self, alert: Alert, now: datetime, *, by: datetime | None = None, owner: str = "") -> Alert:
        """The alert as it is put to its first owner now, to be answered within its level's time, and ``by`` at the latest.

        ``owner``: a role to ask rather than the default one.
        """
        patience = self.patience.get(alert.level)
        until = now + patience if patience is not None and not self.observe else None
        if until is not None and by is not None:
            until = min(until, by)
        first = owner or alert.subject.owner
        if self.routing is not None:
            first = self.routing.first_owner(first, now)
        return dataclasses.replace(
            self.put_to(alert, first),
            question=alert.revision,
            answer_by=until,
            escalation=0,
            urgency=AlertLevel.NONE,
            asked=(first,) if first else (),
        )

    def put_to(self, alert: Alert, owner: str) -> Alert:
        """``owner``: a role, or a reference that the register names."""
        reference = self.routing.reference(owner) if self.routing is not None else owner
        return dataclasses.replace(alert, subject=dataclasses.replace(alert.subject, owner=reference))

    def send(self, entry: AlertRecord, work: Work, *, but: str = "") -> None:
        """Files the alert as it now stands, with a notification for each destination that gets it, ``but`` one."""
        alert = entry.alert
        names = self._takers(alert)
        told = tuple(dict.fromkeys((*alert.told, *names)))
        if told != alert.told:
            alert = entry.alert = dataclasses.replace(alert, told=told)
        work.alerts.append(entry)
        asked = alert.asked[-1] if alert.asked else ""
        work.steps.append(_step(entry, "withdrawn" if alert.kind is AlertKind.WITHDRAWN else "made", who=asked))
        # Before any destination is set up, what would have been sent is kept all the same: it goes to "".
        for name in names or (("",) if self.observe else ()):
            if but and name == but:
                continue
            work.deliveries.append(self._delivery(name, alert, entry.patient_id))
        for recipient, role in self.routing.roles.items() if self.routing is not None else ():
            if recipient in copies_of(alert):
                self._copy(entry, recipient, role, work, but=but)

    def _takers(self, alert: Alert) -> tuple[str, ...]:
        return self.routing.destinations(alert) if self.routing is not None else self.destinations

    def _copy(self, entry: AlertRecord, recipient: str, role: str, work: Work, *, but: str) -> None:
        """For a second recipient: no answer of theirs is awaited, and none ends the alert."""
        title, text = copy_words(entry.alert, self.words(entry.alert.language), recipient)
        alert = dataclasses.replace(
            self.put_to(entry.alert, role),
            title=title,
            text=text,
            recipient=recipient,
            answer_by=None,
            asked=(role,),
            told=(),
            followed_by="",
        )
        for name in self._takers(alert):
            if name != but:
                work.deliveries.append(self._delivery(name, alert, entry.patient_id))

    def _delivery(self, name: str, alert: Alert, patient_id: str | None) -> Delivery:
        return Delivery(
            id=new_id(),
            destination=name,
            # 20 characters, as MSH-10 allows (HL7 v2.5: ST 20); drawn once, so that a retry carries the same.
            control_id=secrets.token_hex(10),
            alert=alert,
            patient_id=patient_id,
            state="observed" if self.observe else "waiting",
        )


def _later(before: Alert, kind: AlertKind, words: tuple[str, str], now: datetime, **facts: Any) -> Alert:
    """The next revision. ``words``: title and text; ``facts``: what else of it is said otherwise."""
    title, text = words
    return dataclasses.replace(
        before,
        revision=before.revision + 1,
        kind=kind,
        title=title,
        text=text,
        bare=(),
        updated_at=now,
        **facts,
    )


def _anew(before: Alert, number: str, words: tuple[str, str], subject: Subject, now: datetime, **facts: Any) -> Alert:
    """The first revision of an alert that follows from another one. ``words``, ``facts``: as of ``_later``."""
    later = _later(before, AlertKind.RAISED, words, now, **facts)
    return dataclasses.replace(later, id=number, revision=1, subject=subject, raised_at=now)


def _step(entry: AlertRecord, state: str, *, who: str = "", evidence: str = "") -> Step:
    alert = entry.alert
    return Step(
        alert_id=alert.id,
        revision=alert.revision,
        patient_id=entry.patient_id,
        at=alert.updated_at,
        state=state,
        who=who,
        evidence=evidence or alert.level.value,
    )


def _still_asked(alert: Alert, before: Alert) -> Alert:
    """Nothing worse was said: who is asked, how urgently and by when stays as it was."""
    return dataclasses.replace(
        alert,
        question=before.question,
        answer_by=before.answer_by,
        escalation=before.escalation,
        urgency=before.urgency,
        asked=before.asked,
        subject=dataclasses.replace(alert.subject, owner=before.subject.owner),
    )


def _to_be_reviewed(record: PatientRecord, standing: AlertRecord) -> str:
    """The id of the alert that puts the decision to a person again, where somebody may have acted: on any stop (that nobody
    has answered does not say that nobody has read it), on anything else that was answered or taken up. "" where not."""
    before = standing.alert
    if before.level.rank <= AlertLevel.INFO.rank:
        return ""
    if before.family is not AlertFamily.STOP and standing.state != "answered" and not standing.seen:
        return ""
    return alert_id(record.id, AlertFamily.REVIEW, f"{before.id}|{before.revision}|withdrawn")


def doubted_key(key: str) -> str:
    """The measurement's name for a doubtful restatement of it, which is judged as a count of its own."""
    return f"{key}|doubted"


def _order(record: PatientRecord, result: LabResult | None) -> OrderReference:
    """Of the count itself, else of the patient's newest one."""
    if result is not None:
        return result.order
    newest = max(record.results.values(), key=lambda one: one.id, default=None)
    return newest.result.order if newest is not None else OrderReference()


def _subject(record: PatientRecord) -> Subject:
    person: Person = record.person
    return Subject(register_id=record.id, identifiers=published(record.identifiers), person=person, owner=record.owner)
