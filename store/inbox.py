"""The inbox's SQL: storing a batch of arrivals, finding duplicates, claiming what has no disposition yet."""

from __future__ import annotations

import collections
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store import faults, inbox_server, keyholders, seal
from store.port import Accepted, Claim, Disposition, Envelope, MessageDone
from store.statement import Prepared, given, inserting
from store.tables import body, counter, ledger, message
from store.values import from_ms, to_ms

__all__ = ["arrive", "bytes_of", "claim", "claims", "count", "counted", "finish", "judged", "known", "replay"]

_insert_message, _insert_body, _insert_ledger = inserting(message), inserting(body), inserting(ledger)
_known = Prepared(
    select(message.c.id, message.c.content_hash)
    .where(message.c.dedupe_key == bindparam("key"), message.c.duplicate_of.is_(None))
    .order_by(message.c.id)
)
_last_id = Prepared(select(func.max(message.c.id)))
_ended = given(
    message_id=message.c.id,
    new_disposition=message.c.disposition,
    new_reason=message.c.reason,
    new_judged_at=message.c.judged_at,
)
_finish = Prepared(
    update(message)
    .where(message.c.id == bindparam("message_id"))
    .values(
        disposition=bindparam("new_disposition"),
        reason=bindparam("new_reason"),
        judged_at=bindparam("new_judged_at"),
    ),
    whole=update(message)
    .where(message.c.id == _ended.c.message_id)
    .values(disposition=_ended.c.new_disposition, reason=_ended.c.new_reason, judged_at=_ended.c.new_judged_at),
)
_pending = Prepared(
    select(message.c.id)
    .where(message.c.id == bindparam("message_id"), message.c.disposition.is_(None))
    .with_for_update()
)
_head = (
    *(message.c.id, message.c.format, message.c.channel, message.c.sender, message.c.control_id),
    *(message.c.received_at, message.c.peer),
)
_heads = Prepared(
    select(*_head)
    .where(message.c.disposition.is_(None), message.c.id > bindparam("after"))
    .order_by(message.c.id)
    .limit(bindparam("most"))
)
_stored = Prepared(select(body.c.key_id, body.c.raw).where(body.c.message_id == bindparam("number")))
_claim = Prepared(
    select(*_head, body.c.key_id, body.c.raw)
    .select_from(message.outerjoin(body, body.c.message_id == message.c.id))
    .where(message.c.disposition.is_(None), message.c.id > bindparam("after"))
    .order_by(message.c.id)
    .limit(bindparam("most"))
)


def _counting(dialect: Any) -> Prepared:
    statement = dialect.insert(counter).values(
        name=bindparam("name"), label=bindparam("label"), slot=bindparam("slot"), value=bindparam("value")
    )
    return Prepared(
        statement.on_conflict_do_update(
            index_elements=["name", "label", "slot"], set_={"value": counter.c.value + statement.excluded.value}
        )
    )


# Processes on a server count in rows of their own, mostly: a row is held until its transaction is on disk.
_SLOT = os.getpid() % 16
_count = {"sqlite": _counting(sqlite), "postgresql": _counting(postgresql)}


def arrive(connection: Connection, envelopes: Sequence[Envelope]) -> list[Accepted]:
    """Stores a batch in the caller's transaction.

    A duplicate is a row of its own without a body: it is counted, and the first one keeps the bytes.
    """
    keys = {envelope.dedupe_key for envelope in envelopes if envelope.dedupe_key}
    known, ids = _before(connection, keys, len(envelopes))
    rows: list[dict[str, object]] = []
    answers: list[Accepted] = []
    for message_id, envelope in zip(ids, envelopes, strict=True):
        earlier = known.get(envelope.dedupe_key, []) if envelope.dedupe_key else []
        same = next((number for number, content in earlier if content == envelope.content_hash), None)
        conflict = earlier[0][0] if earlier and same is None else None
        if envelope.dedupe_key and same is None:
            known.setdefault(envelope.dedupe_key, []).append((message_id, envelope.content_hash))
        rows.append(_row(message_id, envelope, same, conflict))
        answers.append(Accepted(message_id, duplicate_of=same, conflicts_with=conflict))
    _insert_message.many(connection, rows)
    ring = seal.of(connection)
    if ring.current and connection.dialect.name != "sqlite":
        keyholders.announce(connection, ring)
    _insert_body.many(
        connection,
        [
            _body(ring, number, envelope.raw)
            for number, row, envelope in zip(ids, rows, envelopes, strict=True)
            if row["kept"]
        ],
    )
    ended = collections.Counter(row["disposition"] for row in rows if row["disposition"])
    count(connection, [("received", "", len(rows)), *(("disposition", str(key), n) for key, n in ended.items())])
    return answers


def _before(
    connection: Connection, keys: Iterable[bytes], count: int
) -> tuple[dict[bytes, list[tuple[int, bytes]]], Sequence[int]]:
    """What is known under these names, as (id, content), and numbers for so many new messages."""
    if connection.dialect.name != "sqlite":
        return inbox_server.reserve(connection, keys, count)
    # The caller's transaction holds the write lock, so that ids can be counted on.
    first = _next_id(connection)
    return {key: [(row[0], bytes(row[1])) for row in _known.rows(connection, {"key": key})] for key in keys}, range(
        first, first + count
    )


def _next_id(connection: Connection) -> int:
    if connection.dialect.name != "sqlite":
        return inbox_server.reserve(connection, (), 1)[1][0]
    last: int | None = _last_id.rows(connection, {})[0][0]
    return (last or 0) + 1


def _row(message_id: int, envelope: Envelope, duplicate_of: int | None, conflict: int | None) -> dict[str, object]:
    received = to_ms(envelope.received_at)
    disposition = None
    if duplicate_of is not None:
        disposition = Disposition.DUPLICATE.value
    elif envelope.refused:
        disposition = Disposition.SET_ASIDE.value
    return {
        "id": message_id,
        "received_at": received,
        "channel": envelope.channel,
        "format": envelope.format,
        "peer": envelope.peer,
        "sender": envelope.sender,
        "control_id": envelope.control_id,
        "message_type": envelope.message_type,
        "dedupe_key": envelope.dedupe_key or None,
        "content_hash": envelope.content_hash,
        "duplicate_of": duplicate_of,
        "conflicts_with": conflict,
        "replay_of": None,
        "reason": envelope.refused or None,
        "disposition": disposition,
        "judged_at": received if disposition else None,
        "size": len(envelope.raw),
        "kept": duplicate_of is None,
    }


def _body(ring: seal.Ring, message_id: int, raw: bytes) -> dict[str, object]:
    stored, key_id = ring.seal(raw, message_id)
    return {"message_id": message_id, "key_id": key_id, "raw": stored}


def claim(connection: Connection, after: int, limit: int) -> list[Claim]:
    """The oldest messages beyond ``after`` that have no disposition."""
    try:
        rows = _claim.rows(connection, {"after": after, "most": limit})
    except sqlite3.DatabaseError as error:
        if not faults.is_damaged(error):
            raise
        return _one_by_one(connection, after, limit)
    return claims(connection, rows)


def _one_by_one(connection: Connection, after: int, limit: int) -> list[Claim]:
    """One damaged page must not keep every message from being judged: those whose bytes stood on it are told apart."""
    found: list[Claim] = []
    for row in _heads.rows(connection, {"after": after, "most": limit}):
        try:
            stored = _stored.rows(connection, {"number": row[0]})
        except sqlite3.DatabaseError as error:
            if not faults.is_damaged(error):
                raise
            (claim,) = claims(connection, [(*row, None, None)])
            found.append(replace(claim, unopened=seal.UNREADABLE))
        else:
            found += claims(connection, [(*row, *(stored[0] if stored else (None, None)))])
    return found


def claims(connection: Connection, rows: Sequence[Sequence[Any]]) -> list[Claim]:
    """Rows as ``_claim`` gives them (leases select the same columns), their bodies opened."""
    ring = seal.of(connection)
    found = []
    for number, form, channel, sender, control_id, received, peer, key_id, stored in rows:
        raw, unopened = ring.look(stored, key_id, number)
        found.append(
            Claim(
                message_id=number,
                format=form,
                channel=channel,
                sender=sender,
                control_id=control_id,
                received_at=from_ms(received),
                raw=raw,
                peer=peer,
                unopened=unopened,
            )
        )
    return found


def judged(connection: Connection, done: Sequence[MessageDone]) -> Callable[[], tuple[int, ...]]:
    """Of these, the messages that have their disposition already: a process that was thought dead was only slow."""
    numbers = sorted(item.message_id for item in done)
    if connection.dialect.name == "sqlite":
        pending = _pending.each(connection, [{"message_id": number} for number in numbers])
        return lambda: tuple(number for number, rows in zip(numbers, pending, strict=True) if not rows)
    return inbox_server.judged(connection, numbers)


def finish(connection: Connection, done: Sequence[MessageDone], at_ms: int) -> None:
    if not done:
        return
    _finish.many(
        connection,
        [
            {
                "message_id": item.message_id,
                "new_disposition": item.disposition.value,
                "new_reason": item.reason,
                "new_judged_at": at_ms,
            }
            for item in done
        ],
    )
    _insert_ledger.many(
        connection,
        [{"message_id": item.message_id, "entries": item.ledger.decode()} for item in done if item.ledger != b"[]"],
    )
    tally = collections.Counter(item.disposition.value for item in done)
    count(connection, [("disposition", label, number) for label, number in tally.items()])


def bytes_of(connection: Connection, message_id: int) -> bytes | None:
    """None when there is no such message, its body was removed or cannot be opened, or it is a duplicate."""
    found = connection.execute(select(body.c.raw, body.c.key_id).where(body.c.message_id == message_id)).first()
    return seal.opened(connection, found.raw, found.key_id, message_id) if found is not None else None


def replay(connection: Connection, message_id: int, at_ms: int, edited: Envelope | None = None) -> int | None:
    """A new row with the same bytes, or with ``edited`` ones, linked to the original, which stays as it is.

    None when there is none, or its body is gone and there are no others.
    """
    row = connection.execute(select(message).where(message.c.id == message_id)).mappings().first()
    raw = edited.raw if edited is not None else bytes_of(connection, message_id)
    if row is None or raw is None:
        return None
    copy = dict(row)
    new_id = _next_id(connection)
    copy.update(
        id=new_id,
        received_at=at_ms,
        dedupe_key=None,
        duplicate_of=None,
        conflicts_with=None,
        replay_of=message_id,
        disposition=None,
        reason=None,
        judged_at=None,
    )
    if edited is not None:
        copy.update(
            format=edited.format,
            sender=edited.sender,
            control_id=edited.control_id,
            message_type=edited.message_type,
            content_hash=edited.content_hash,
            size=len(edited.raw),
            kept=True,
        )
    ring = seal.of(connection)
    if ring.current and connection.dialect.name != "sqlite":
        keyholders.announce(connection, ring)
    _insert_message.many(connection, [copy])
    _insert_body.many(connection, [_body(ring, new_id, raw)])
    count(connection, [("received", "", 1)])
    return new_id


def known(connection: Connection, message_id: int) -> bool:
    return connection.scalar(select(message.c.id).where(message.c.id == message_id)) is not None


def counted(connection: Connection) -> dict[tuple[str, str], int]:
    """The kept counters by name and label."""
    sums = select(counter.c.name, counter.c.label, func.sum(counter.c.value)).group_by(counter.c.name, counter.c.label)
    return {(name, label): int(value) for name, label, value in connection.execute(sums)}


def count(connection: Connection, changes: Iterable[tuple[str, str, int]]) -> None:
    """Adds to kept counters: (name, label, how many)."""
    slot = 0 if connection.dialect.name == "sqlite" else _SLOT
    rows = [
        {"name": name, "label": label, "slot": slot, "value": value} for name, label, value in sorted(changes) if value
    ]
    _count[connection.dialect.name].many(connection, rows)
