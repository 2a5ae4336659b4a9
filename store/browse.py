"""What the operators' pages ask for: always a bounded look, by an index or newest first, whatever the database holds.

Rule of the file: nothing walks a table to its end. A search that has found too little within its time says how far back it
has looked, and goes on from there when asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, TextClause, bindparam, func, or_, select, text

from store import inbox, listing
from store.tables import alert, assessment, delivery, feed, identifier, message, result
from store.values import message_name

__all__ = [
    "DeadGroup",
    "Failed",
    "MessagePage",
    "Outgoing",
    "Standing",
    "Wanted",
    "dead",
    "dead_groups",
    "dead_ids",
    "dispositions",
    "failed",
    "identifiers",
    "last_heard",
    "messages",
    "observed_count",
    "outgoing",
    "standing",
]

_MANY = 1000
_CHUNK = 1000
_RECENT = 500
_OF_PATIENT = 5000
_FORMATS = ("hl7v2", "fhir")
_LISTED = (
    message.c.id,
    message.c.received_at,
    message.c.channel,
    message.c.sender,
    message.c.control_id,
    message.c.message_type,
    message.c.disposition,
    message.c.reason,
    message.c.duplicate_of,
    message.c.conflicts_with,
    message.c.replay_of,
)


# Written into the statement as it stands: the indexes that hold only such rows are not used for a value bound later.
_FAILED = text("message.disposition IN ('set_aside', 'unassessable')")
_PENDING = message.c.disposition.is_(None)


def _in_state(state: str) -> ColumnElement[bool]:
    return delivery.c.state == bindparam(None, state, literal_execute=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The present in numbers. ``pending`` and ``dead`` stop counting at 1000; times in milliseconds since 1970."""

    pending: int
    oldest_waiting_at: int | None
    dead: int
    critical: int
    red: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which messages; "" is any. ``disposition`` may be ``pending``; ``patient``: an identifier's value."""

    disposition: str = ""
    reason: str = ""
    sender: str = ""
    control_id: str = ""
    patient: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Newest first. ``before``: where the next page begins, None at the end. ``looked_back_to``: the search stopped there
    (milliseconds since 1970) for want of time, and more may be found beyond."""

    rows: Sequence[RowMapping]
    before: int | None
    looked_back_to: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadGroup:
    destination: str
    code: str
    count: int
    oldest_at: int
    newest_at: int
    words: str
    """Of the newest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Messages that nobody could read or judge, for one reason. ``last`` is the newest one's number."""

    disposition: str
    reason: str
    count: int
    last: int
    last_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One destination: what waits, what is dead, what was taken last (None: none among the newest 500)."""

    name: str
    waiting: int
    oldest_at: int | None
    dead: int
    taken_at: int | None


def standing(connection: Connection) -> Standing:
    """By four indexes: pending messages, waiting and dead deliveries, open alerts."""
    # Ids grow with time: the first waiting one is the oldest.
    oldest = connection.scalar(
        select(delivery.c.created_at).where(_in_state("waiting")).order_by(delivery.c.id).limit(1)
    )
    levels = connection.execute(
        select(alert.c.level, func.count())
        .where(alert.c.state == "open", alert.c.level.in_(("critical", "red")))
        .group_by(alert.c.level)
    )
    open_alerts: dict[str, int] = {row[0]: row[1] for row in levels}
    return Standing(
        pending=_up_to_many(connection, select(message.c.id).where(_PENDING)),
        oldest_waiting_at=oldest,
        dead=_up_to_many(connection, select(delivery.c.id).where(_in_state("dead"))),
        critical=open_alerts.get("critical", 0),
        red=open_alerts.get("red", 0),
    )


def dispositions(connection: Connection) -> dict[str, int]:
    """How many messages ended how, by the kept counters; ``received`` is their whole."""
    kept = inbox.counted(connection)
    return {label or "received": value for (name, label), value in kept.items() if name in ("received", "disposition")}


def last_heard(connection: Connection) -> dict[tuple[str, str], int]:
    """By channel and sender, when the newest message came, among the newest 500: newer than what the clock has noted."""
    newest = (
        select(message.c.channel, message.c.sender, message.c.received_at)
        .where(message.c.replay_of.is_(None))
        .order_by(message.c.id.desc())
        .limit(_RECENT)
    )
    heard: dict[tuple[str, str], int] = {}
    for channel, sender, at in connection.execute(newest):
        heard.setdefault((channel, sender), at)
    return heard


# Messages


def messages(
    connection: Connection,
    wanted: Wanted,
    *,
    before: int | None = None,
    limit: int = 50,
    time_s: float = 0.03,
    piece: int = _CHUNK,
) -> MessagePage:
    """``before``: only messages with a smaller number. Filters combine. A search without an index goes on for ``time_s``,
    ``piece`` messages at a time, one piece at least."""
    if wanted.patient:
        return _among(connection, _of_patient(connection, wanted.patient), wanted, before, limit)
    if wanted.control_id and (named := _of_name(connection, wanted)):
        return _among(connection, named, wanted, before, limit)
    if wanted.sender or wanted.control_id:
        return _search(connection, wanted, before, limit, time_s, piece)
    query = select(*_LISTED).where(*_by_index(wanted, before)).order_by(message.c.id.desc()).limit(limit + 1)
    return _page(connection.execute(query).mappings().all(), limit)


def _by_index(wanted: Wanted, before: int | None) -> Iterator[ColumnElement[bool] | TextClause]:
    if wanted.disposition == "pending":
        yield _PENDING
    elif wanted.disposition:
        yield message.c.disposition == wanted.disposition
    if wanted.reason and wanted.disposition in ("set_aside", "unassessable"):
        yield _FAILED
    if wanted.reason:
        yield message.c.reason == wanted.reason
    if before is not None:
        yield message.c.id < before


def _holds(wanted: Wanted, row: RowMapping) -> bool:
    shown = row["disposition"] or "pending"
    return (
        wanted.disposition in ("", shown)
        and wanted.reason in ("", row["reason"] or "")
        and wanted.sender in ("", row["sender"])
        and wanted.control_id in ("", row["control_id"])
    )


def _page(rows: Sequence[RowMapping], limit: int) -> MessagePage:
    return MessagePage(rows=rows[:limit], before=rows[limit - 1]["id"] if len(rows) > limit else None)


def _of_patient(connection: Connection, value: str) -> list[int]:
    """Numbers of the messages that said something of this patient, those included that only repeated it."""
    people = listing.patient_keys(connection, value)
    if not people:
        return []
    found = {
        number
        for column, owner in (
            (result.c.message_id, result.c.patient_id),
            (assessment.c.message_id, assessment.c.patient_id),
        )
        for number in connection.scalars(select(column).where(owner.in_(people), column.is_not(None)).distinct())
    }
    return sorted(found, reverse=True)[:_OF_PATIENT]


def _of_name(connection: Connection, wanted: Wanted) -> list[int]:
    """By the name under which duplicates are found, for each sender that was ever heard; with their replays."""
    senders = [wanted.sender] if wanted.sender else list(connection.scalars(select(feed.c.sender).distinct()))
    keys = [message_name(form, sender, wanted.control_id) for sender in senders for form in _FORMATS]
    found = set(connection.scalars(select(message.c.id).where(message.c.dedupe_key.in_(keys))))
    again = connection.scalars(select(message.c.id).where(message.c.replay_of.in_(sorted(found)[:_MANY])))
    return sorted(found | set(again), reverse=True)


def _among(
    connection: Connection, numbers: Sequence[int], wanted: Wanted, before: int | None, limit: int
) -> MessagePage:
    left = [number for number in numbers if before is None or number < before]
    rows: list[RowMapping] = []
    for start in range(0, len(left), 500):
        part = left[start : start + 500]
        query = select(*_LISTED).where(message.c.id.in_(part)).order_by(message.c.id.desc())
        rows += [row for row in connection.execute(query).mappings() if _holds(wanted, row)]
        if len(rows) > limit:
            break
    return _page(rows, limit)


def _search(
    connection: Connection, wanted: Wanted, before: int | None, limit: int, time_s: float, piece: int
) -> MessagePage:
    """Newest first, in pieces, until the page is full or the time is over: no index is paid for at intake."""
    deadline = time.monotonic() + time_s
    # Each by itself: asked for together, SQLite walks everything between them.
    first = connection.scalar(select(func.min(message.c.id)))
    last = connection.scalar(select(func.max(message.c.id)))
    high = min(before, last + 1) if before is not None and last is not None else (last or 0) + 1
    told = [column == value for column, value in _told(wanted) if value]
    rows: list[RowMapping] = []
    while first is not None and high > first:
        low = high - piece
        query = select(*_LISTED).where(*_by_index(wanted, high), message.c.id >= low, *told)
        found = connection.execute(query.order_by(message.c.id.desc()).limit(limit + 1 - len(rows)))
        rows += found.mappings()
        if len(rows) > limit:
            break
        high = low
        if time.monotonic() >= deadline and high > first:
            reached = select(message.c.received_at).where(message.c.id >= high).order_by(message.c.id).limit(1)
            return MessagePage(rows=rows, before=high, looked_back_to=connection.scalar(reached))
    return _page(rows, limit)


def _told(wanted: Wanted) -> Iterator[tuple[ColumnElement[str], str]]:
    yield message.c.sender, wanted.sender
    yield message.c.control_id, wanted.control_id


def failed(connection: Connection, limit: int = 100) -> list[Failed]:
    """The most frequent reasons first."""
    how_many = func.count().label("how_many")
    last = func.max(message.c.id).label("last")
    groups = connection.execute(
        select(message.c.disposition, message.c.reason, how_many, last)
        .where(_FAILED)
        .group_by(message.c.disposition, message.c.reason)
        .order_by(how_many.desc())
        .limit(limit)
    ).all()
    lasts = connection.execute(
        select(message.c.id, message.c.received_at).where(message.c.id.in_([group.last for group in groups]))
    )
    at: dict[int, int] = {row[0]: row[1] for row in lasts}
    return [
        Failed(
            disposition=group.disposition,
            reason=group.reason or "",
            count=group.how_many,
            last=group.last,
            last_at=at[group.last],
        )
        for group in groups
    ]


# Deliveries


def dead_groups(connection: Connection) -> list[DeadGroup]:
    """Dead letters by destination and reason, the largest group first."""
    rows = connection.execute(
        text(
            "SELECT destination, code, count(*) AS how_many, min(id) AS first, max(id) AS last "  # noqa: S608  # our own names
            f"FROM {_deliveries(connection, 'ix_delivery_dead')} WHERE state = 'dead' GROUP BY destination, code"
        )
    ).all()
    ends = {
        row.id: row
        for row in connection.execute(
            select(delivery.c.id, delivery.c.created_at, delivery.c.ended_at, delivery.c.words).where(
                delivery.c.id.in_([number for row in rows for number in (row.first, row.last)])
            )
        )
    }
    groups = [
        DeadGroup(
            destination=row.destination,
            code=row.code or "",
            count=row.how_many,
            oldest_at=ends[row.first].created_at,
            newest_at=ends[row.last].ended_at or ends[row.last].created_at,
            words=ends[row.last].words or "",
        )
        for row in rows
    ]
    return sorted(groups, key=lambda group: (-group.count, group.destination, group.code))


def _dead_of(destination: str, code: str) -> Select[Any]:
    same = or_(delivery.c.code.is_(None), delivery.c.code == "") if not code else delivery.c.code == code
    return select(delivery).where(_in_state("dead"), delivery.c.destination == destination, same)


def dead(
    connection: Connection, destination: str, code: str, *, before: int | None = None, limit: int = 50
) -> tuple[list[RowMapping], int | None]:
    """One group's dead letters, newest first, and where the next page begins."""
    query = _dead_of(destination, code).order_by(delivery.c.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(delivery.c.id < before)
    rows = list(connection.execute(query).mappings().all())
    return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None


def dead_ids(connection: Connection, destination: str, code: str, limit: int = 5000) -> list[int]:
    """Oldest first, so that a patient's notifications go out in their order."""
    chosen = _dead_of(destination, code).with_only_columns(delivery.c.id)
    return list(connection.scalars(chosen.order_by(delivery.c.id).limit(limit)))


def outgoing(connection: Connection, names: Sequence[str]) -> list[Outgoing]:
    taken: dict[str, int] = {}
    newest = connection.execute(
        select(delivery.c.destination, delivery.c.ended_at)
        .where(_in_state("delivered"))
        .order_by(delivery.c.id.desc())
        .limit(_RECENT)
    )
    for destination, ended_at in newest:
        taken.setdefault(destination, ended_at)
        if len(taken) == len(names):
            break
    waiting = text(
        f"SELECT id, created_at FROM {_deliveries(connection, 'ix_delivery_waiting')} "  # noqa: S608  # our own names
        f"WHERE state = 'waiting' AND destination = :name ORDER BY id LIMIT {_MANY}"
    )
    waits = {name: connection.execute(waiting, {"name": name}).all() for name in names}
    return [
        Outgoing(
            name=name,
            waiting=len(waits[name]),
            oldest_at=waits[name][0].created_at if waits[name] else None,
            dead=_up_to_many(
                connection, select(delivery.c.id).where(delivery.c.destination == name, _in_state("dead"))
            ),
            taken_at=taken.get(name),
        )
        for name in names
    ]


def observed_count(connection: Connection) -> int:
    """How many notifications observe mode has kept back, each once for all its destinations; up to 1000."""
    each = select(delivery.c.alert_id, delivery.c.revision).where(_in_state("observed")).distinct()
    return _up_to_many(connection, each)


def identifiers(connection: Connection, people: Sequence[str]) -> dict[str, list[str]]:
    """Patients' identifiers by register id."""
    found: dict[str, list[str]] = {}
    rows = connection.execute(
        select(identifier.c.patient_id, identifier.c.value).where(identifier.c.patient_id.in_(set(people)))
    )
    for patient_id, value in rows:
        found.setdefault(patient_id, []).append(value)
    return found


def _deliveries(connection: Connection, index: str) -> str:
    """The table by this index: SQLite would rather walk all rows of one state than a small index of another shape."""
    return f"delivery INDEXED BY {index}" if connection.dialect.name == "sqlite" else "delivery"


def _up_to_many(connection: Connection, query: Select[Any]) -> int:
    return connection.scalar(select(func.count()).select_from(query.limit(_MANY).subquery())) or 0
