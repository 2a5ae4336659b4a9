"""Two records that are one person (ADT^A40), and the way back: counts, open alerts and the place on the register move.

Rule of the file: what was said of the one patient is taken back there and said of the other, never silently re-labelled.
A decision that a person has made stays where it was made. Whatever a merge moved stands in the audit: that undoes it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, select

from engine.identity import Known, Patients, usable
from engine.present import Present, Turn
from ingest.reading import Merge
from rules.model import AlertFamily, PatientIdentifier, TreatmentCourse
from store.merges import MERGED, UNDONE
from store.port import Audit, PatientRecord, ResultRecord
from store.tables import audit
from store.values import new_id

__all__ = ["MERGED", "UNDONE", "Moved", "last_merge", "merge", "merge_of", "undo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a merge moved, as its audit keeps it. ``course``: the prior record's, when it was on the register."""

    prior: str
    survivor: str
    identifiers: tuple[PatientIdentifier, ...]
    keys: tuple[str, ...]
    course: TreatmentCourse | None
    owner: str
    course_moved: bool
    reason: str = ""
    """Why it was taken back, where a person gave one."""


def merge(fact: Merge, patients: Patients, present: Present, turn: Turn) -> bool:
    """Acts on one pair of PID and MRG; True when something changed. Doubt about either is a task for a person."""
    if not usable(fact.prior) or not usable(fact.survivor):
        return False
    prior, survivor = patients.find(fact.prior), patients.find(fact.survivor)
    sure = [one for one in (prior, survivor) if isinstance(one, Known) and not one.doubt]
    if fact.doubts or any(isinstance(one, Known) and one.doubt for one in (prior, survivor)):
        for one in (prior, survivor):
            if isinstance(one, Known) and one.record.enrolled:
                turn.work.patients[one.record.id] = one.record
                present.review(one.record, "merge-doubtful", fact.where, turn)
        return False
    if len(sure) == 1:
        # One of the two was never heard of: the other goes by both names from now on.
        record = sure[0].record
        patients.learn(record, (*fact.prior, *fact.survivor))
        turn.work.patients[record.id] = record
        return True
    if len(sure) < 2 or sure[0].record is sure[1].record:
        return False
    _merge(sure[0].record, sure[1].record, patients, present, turn)
    return True


def last_merge(connection: Connection, survivor: str) -> Moved | None:
    """The latest merge into this record that nobody has taken back."""
    rows = connection.execute(
        select(audit.c.action, audit.c.detail)
        .where(audit.c.patient_id == survivor, audit.c.action.in_((MERGED, UNDONE)))
        .order_by(audit.c.at, audit.c.id)
    ).all()
    standing: dict[str, Moved] = {}
    for action, detail in rows:
        moved = msgspec.json.decode(detail, type=Moved)
        standing.pop(moved.prior, None)
        if action == MERGED:
            standing[moved.prior] = moved
    return list(standing.values())[-1] if standing else None


def merge_of(connection: Connection, number: int) -> Moved | None:
    """What the merge with this audit entry moved; None where the entry is none."""
    row = connection.execute(select(audit.c.action, audit.c.detail).where(audit.c.seq == number)).first()
    return msgspec.json.decode(row.detail, type=Moved) if row is not None and row.action == MERGED else None


def _merge(prior: PatientRecord, survivor: PatientRecord, patients: Patients, present: Present, turn: Turn) -> None:
    moved = Moved(
        prior=prior.id,
        survivor=survivor.id,
        identifiers=tuple(prior.identifiers),
        keys=tuple(prior.results),
        course=prior.course if prior.enrolled else None,
        owner=prior.owner,
        course_moved=prior.enrolled and not survivor.enrolled,
    )
    patients.rehome(prior, survivor, moved.identifiers, turn.work)
    _shift(prior, survivor, moved.keys, turn)
    if not survivor.person.family:
        survivor.person = prior.person
    if moved.course_moved:
        survivor.course, survivor.owner, survivor.enrolled = prior.course, prior.owner, True
    elif prior.enrolled:
        # Two courses of one person: the survivor's goes on, and somebody compares them.
        present.review(survivor, "merge-two-courses", "", turn)
    _readdress(prior, survivor, None, present, turn)
    _leave(prior)
    _note(MERGED, moved, turn)
    present.look(survivor, turn)


def undo(
    moved: Moved,
    prior: PatientRecord,
    survivor: PatientRecord,
    patients: Patients,
    present: Present,
    turn: Turn,
    by: str,
    reason: str = "",
) -> None:
    """Gives the prior record back what was its own, and what has come since under its identifiers."""
    own = {(i.value, i.authority) for i in moved.identifiers}
    keys = tuple(
        key
        for key, item in survivor.results.items()
        if key in moved.keys or any((i.value, i.authority) in own for i in item.result.identifiers)
    )
    patients.rehome(survivor, prior, moved.identifiers, turn.work)
    _shift(survivor, prior, keys, turn)
    if moved.course is not None:
        prior.course = survivor.course if moved.course_moved else moved.course
        prior.owner, prior.enrolled = moved.owner, True
    _readdress(survivor, prior, None if moved.course_moved else set(keys), present, turn)
    if moved.course_moved:
        _leave(survivor)
    _note(UNDONE, dataclasses.replace(moved, reason=reason), turn, by)
    for record in (prior, survivor):
        present.look(record, turn)


def _leave(record: PatientRecord) -> None:
    """Off the register; its past stays on record."""
    record.enrolled = False
    record.course = TreatmentCourse()
    record.present = None
    record.settle_at = None


def _shift(source: PatientRecord, target: PatientRecord, keys: tuple[str, ...], turn: Turn) -> None:
    """The current versions under ``keys`` become the target's; of one measurement that both have, the target's stands."""
    work = turn.work
    work.patients[source.id], work.patients[target.id] = source, target
    for key in keys:
        item = source.results.pop(key)
        if item in work.results:
            work.results.remove(item)
            work.late.append(item)
        else:
            work.superseded.append(item.id)
        number = new_id()
        copy = ResultRecord(
            id=number,
            patient_id=target.id,
            message_id=item.message_id,
            key=key,
            version=item.version,
            result=dataclasses.replace(item.result, id=number),
        )
        if key in target.results:
            work.late.append(copy)
        else:
            target.results[key] = copy
            work.results.append(copy)


def _readdress(
    source: PatientRecord, target: PatientRecord, keys: set[str] | None, present: Present, turn: Turn
) -> None:
    """Takes back what is open of the source (all of it, or what rests on ``keys``); tasks about unread counts go along.

    The alerts that rest on counts are raised anew by the look at the target's present state.
    """
    for standing in list(source.alerts.values()):
        if standing.state != "open" or (keys is not None and standing.result_key not in keys):
            continue
        present.notifier.take_back(source, standing, now=turn.now, work=turn.work)
        if standing.alert.family is AlertFamily.REVIEW and target.enrolled:
            present.notifier.goes_on(target, standing, now=turn.now, work=turn.work)


def _note(action: str, moved: Moved, turn: Turn, by: str = "") -> None:
    turn.work.audits.append(
        Audit(
            at=turn.now,
            actor=by or turn.source or "ADT",
            action=action,
            patient_id=moved.survivor,
            detail=msgspec.json.encode(moved),
        )
    )
