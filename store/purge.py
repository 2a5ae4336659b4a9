"""Forgetting: counts of people who are not on the register, and what the settings let go after its time.

Rule of the file: a small batch at a time, and never anything that an open alert, an open finding or a message without its
disposition refers to. Where messages are removed and not only their bytes, a counter keeps in = out (store.check).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    Table,
    and_,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)

from store import inbox, seal, trail
from store.tables import alert, assessment, audit, body, delivery, finding, ledger, message, patient, result

__all__ = ["Kind", "Swept", "open_alert", "remove_bodies", "sweep", "unenrolled"]


class Kind(enum.StrEnum):
    """What has a time of its own to be kept."""

    NOT_RELEVANT_BODIES = "not_relevant_bodies"
    JUDGED_BODIES = "judged_bodies"
    UNASSESSABLE_BODIES = "unassessable_bodies"
    REGISTER_BODIES = "register_bodies"
    """Not relevant as results; what fed the register speaks of the people on it."""
    SET_ASIDE_BODIES = "set_aside_bodies"
    NOT_RELEVANT = "not_relevant"
    """The whole of them: row, ledger, and bytes where they are still there."""
    DUPLICATES = "duplicates"
    DELIVERED = "delivered"
    OBSERVED = "observed"
    AUDIT = "audit"


class Swept(NamedTuple):
    """``after``: where the next batch begins; None when nothing older is left."""

    after: int | None
    removed: int


# A person has dealt with it, or the laboratory took it back. Whatever else an alert may be counts as open.
_ENDED = ("answered", "withdrawn", "closed")
open_alert = alert.c.state.not_in(_ENDED)
_DISPOSITION = {
    Kind.NOT_RELEVANT_BODIES: "not_relevant",
    Kind.JUDGED_BODIES: "judged",
    Kind.UNASSESSABLE_BODIES: "unassessable",
    Kind.REGISTER_BODIES: "not_relevant",
    Kind.SET_ASIDE_BODIES: "set_aside",
    Kind.NOT_RELEVANT: "not_relevant",
    Kind.DUPLICATES: "duplicate",
}
_WHOLE = (Kind.NOT_RELEVANT, Kind.DUPLICATES)


_SEEN: tuple[ColumnElement[Any], ...] = (message.c.id, message.c.received_at, message.c.reason)


def sweep(connection: Connection, kind: Kind, after: int, before_ms: int, limit: int) -> Swept:
    """Looks at ``limit`` rows beyond ``after`` that are older than ``before_ms``, and removes those that may go."""
    if kind in _DISPOSITION:
        return _messages(connection, kind, after, before_ms, limit)
    if kind is Kind.AUDIT:
        return _rows(connection, audit, _audit(), after, before_ms, limit, trail.remove)
    return _rows(connection, delivery, _outbox(kind), after, before_ms, limit)


def _messages(connection: Connection, kind: Kind, after: int, before_ms: int, limit: int) -> Swept:
    query = select(*_SEEN).where(message.c.disposition == _DISPOSITION[kind], message.c.id > after)
    if kind not in _WHOLE:
        query = query.where(message.c.kept)
    rows = connection.execute(query.order_by(message.c.id).limit(limit)).all()
    old = [row for row in rows if row.received_at < before_ms]
    going = _unused(connection, [row.id for row in old if _may_go(kind, row)])
    if kind in _WHOLE:
        # Ids are counted on from the last one, which therefore stays.
        named = {connection.scalar(select(func.max(message.c.id))), *_named(connection, going)}
        going = [number for number in going if number not in named]
        if going:
            for table in (ledger, body):
                connection.execute(delete(table).where(table.c.message_id.in_(going)))
            connection.execute(delete(message).where(message.c.id.in_(going)))
            inbox.count(connection, [("purged", _DISPOSITION[kind], len(going))])
    elif going:
        remove_bodies(connection, going)
    return _swept(rows, old, len(going), limit)


def _named(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Of these messages, those that a duplicate or a replay on file names as its first."""
    if not ids:
        return []
    of = union(
        select(message.c.duplicate_of.label("id")).where(message.c.duplicate_of.in_(ids)),
        select(message.c.replay_of.label("id")).where(message.c.replay_of.in_(ids)),
    ).subquery()
    return list(connection.scalars(select(of.c.id)))


def _may_go(kind: Kind, row: Row[Any]) -> bool:
    of_register = bool(row.reason == "register")
    if kind in _WHOLE:
        return not of_register
    if kind in (Kind.NOT_RELEVANT_BODIES, Kind.REGISTER_BODIES):
        return of_register is (kind is Kind.REGISTER_BODIES)
    return True


def _swept(rows: Sequence[Row[Any]], old: Sequence[Row[Any]], removed: int, limit: int) -> Swept:
    more = len(rows) == limit and len(old) == len(rows)
    return Swept(rows[-1].id if more else None, removed)


def _unused(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Of these messages, those that nothing open refers to."""
    if not ids:
        return []
    used = set(connection.scalars(_of_watched_patients(ids)))
    waiting = message.alias("waiting")
    for row in connection.execute(
        select(waiting.c.replay_of, waiting.c.conflicts_with, waiting.c.duplicate_of).where(
            waiting.c.disposition.is_(None)
        )
    ):
        used.update(row)
    left = [number for number in ids if number not in used]
    asked = _asked_about(connection)
    return [number for number in left if not asked or not asked & _names(connection, number)]


def _of_watched_patients(ids: Sequence[int]) -> Select[Any]:
    """Messages with a count or verdict of a patient who has an open alert or finding, whichever count it rests on."""
    of = union(
        select(result.c.message_id, result.c.patient_id).where(result.c.message_id.in_(ids)),
        select(assessment.c.message_id, assessment.c.patient_id).where(assessment.c.message_id.in_(ids)),
    ).subquery()
    return select(of.c.message_id).where(_watched(of))


def _watched(table: Table | Subquery) -> ColumnElement[bool]:
    return or_(
        exists().where(and_(alert.c.patient_id == table.c.patient_id, open_alert)),
        exists().where(and_(finding.c.patient_id == table.c.patient_id, finding.c.ended_at.is_(None))),
    )


def _asked_about(connection: Connection) -> set[str]:
    """Sender and message of the counts that a person is still asked to look up (engine.present names them so)."""
    keys = connection.scalars(select(alert.c.result_key).where(alert.c.family == "ANC-REVIEW", open_alert))
    return {key.rsplit("|", 2)[0] for key in keys}


def _names(connection: Connection, number: int) -> set[str]:
    row = connection.execute(
        select(message.c.sender, body.c.key_id, body.c.raw)
        .select_from(message.outerjoin(body, body.c.message_id == message.c.id))
        .where(message.c.id == number)
    ).one()
    raw = seal.opened(connection, row.raw, row.key_id, number)
    content = hashlib.blake2b(raw or b"", digest_size=16).hexdigest()
    return {f"{row.sender}|{number}", f"{row.sender}|{content}"}


def remove_bodies(connection: Connection, numbers: Sequence[int]) -> None:
    if numbers:
        connection.execute(delete(body).where(body.c.message_id.in_(numbers)))
        connection.execute(update(message).where(message.c.id.in_(numbers)).values(kept=False))


def _outbox(kind: Kind) -> Select[Any]:
    alerts_open = exists().where(and_(alert.c.id == delivery.c.alert_id, open_alert))
    asked = exists().where(and_(finding.c.alert_id == delivery.c.alert_id, finding.c.ended_at.is_(None)))
    query = select(delivery.c.id, delivery.c.ended_at, (~alerts_open & ~asked).label("free"))
    if kind is Kind.DELIVERED:
        return query.where(delivery.c.state == "delivered")
    # The last word on an alert that stands outside is still to be told when the engine delivers (store.observed).
    last = exists().where(and_(alert.c.id == delivery.c.alert_id, alert.c.revision == delivery.c.revision))
    outside = delivery.alias("outside")
    told = exists().where(
        and_(outside.c.alert_id == delivery.c.alert_id, outside.c.state.in_(("waiting", "delivered")))
    )
    query = select(delivery.c.id, delivery.c.ended_at, (~alerts_open & ~asked & ~(last & told)).label("free"))
    return query.where(delivery.c.state == "observed")


def _audit() -> Select[Any]:
    free = (~_watched(audit)).label("free")
    return select(audit.c.id, audit.c.at.label("ended_at"), free).where(audit.c.action != trail.REMOVED)


def _rows(
    connection: Connection,
    table: Table,
    query: Select[Any],
    after: int,
    before_ms: int,
    limit: int,
    remove: Callable[[Connection, Sequence[int]], None] | None = None,
) -> Swept:
    rows = connection.execute(query.where(table.c.id > after).order_by(table.c.id).limit(limit)).all()
    # Ids grow with the time of writing, the end of a delivery may be later: one that is too young does not end the sweep.
    old = [row for row in rows if row.ended_at is not None and row.ended_at < before_ms]
    going = [row.id for row in old if row.free]
    if going and remove is not None:
        remove(connection, going)
    elif going:
        connection.execute(delete(table).where(table.c.id.in_(going)))
    return Swept(rows[-1].id if len(rows) == limit and old else None, len(going))


def unenrolled(connection: Connection, before_ms: int, limit: int) -> int:
    """Removes at most ``limit`` such people, and as many bodies of messages in which nobody else was judged."""
    people = connection.scalars(
        select(patient.c.id)
        .where(~patient.c.enrolled, patient.c.updated_at < before_ms)
        .order_by(patient.c.updated_at)
        .limit(limit)
    ).all()
    in_use = exists().where(result.c.message_id == message.c.id)
    if people:
        theirs = connection.scalars(select(result.c.message_id).where(result.c.patient_id.in_(people)).distinct()).all()
        connection.execute(delete(patient).where(patient.c.id.in_(people)))
        alone = connection.scalars(select(message.c.id).where(message.c.id.in_(theirs), ~in_use)).all()
        remove_bodies(connection, alone)
    # What only said again what was known of them has no result of its own.
    bodies = connection.scalars(
        select(message.c.id)
        .where(
            # Written out, as the index has it.
            message.c.disposition == literal_column("'unenrolled'"),
            message.c.kept,
            message.c.received_at < before_ms,
            ~in_use,
        )
        .order_by(message.c.received_at)
        .limit(limit)
    ).all()
    remove_bodies(connection, bodies)
    return len(people) + len(bodies)
