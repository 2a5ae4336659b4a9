"""What could not be read or judged, by kind: one reason, sender and type of message are one kind, with a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, select

from store.tables import message
from store.values import from_ms

__all__ = ["fingerprint", "groups", "of_kind"]

_KIND = (message.c.disposition, message.c.reason, message.c.sender, message.c.message_type)
_FAILED = message.c.disposition.in_(("set_aside", "unassessable"))
_copy = message.alias("copy")
_REPLAYED = exists().where(_copy.c.replay_of == message.c.id)


def fingerprint(disposition: str, reason: str | None, sender: str, message_type: str) -> str:
    words = "\x1f".join((disposition, reason or "", sender, message_type))
    return hashlib.blake2b(words.encode(), digest_size=4).hexdigest()


def groups(connection: Connection, limit: int = 1000) -> Iterator[dict[str, Any]]:
    """The largest first. ``open``: how many of them have not been judged again under another number."""
    rows = connection.execute(
        select(
            *_KIND,
            func.count().label("count"),
            func.sum(case((_REPLAYED, 0), else_=1)).label("open"),
            func.min(message.c.id).label("first"),
            func.max(message.c.id).label("last"),
            func.max(message.c.received_at).label("last_at"),
        )
        .where(_FAILED)
        .group_by(*_KIND)
        .order_by(func.count().desc())
        .limit(limit)
    )
    for row in rows.mappings():
        whole = dict(row)
        kind = fingerprint(whole["disposition"], whole["reason"], whole["sender"], whole["message_type"])
        yield {"fingerprint": kind} | whole | {"last_at": from_ms(whole["last_at"]).isoformat(timespec="seconds")}


def of_kind(connection: Connection, *, kind: str = "", reason: str = "", sender: str = "", limit: int = 0) -> list[int]:
    """Oldest first, those that have not been judged again yet. ``reason``: what it begins with. Nothing given: nothing."""
    if not (kind or reason or sender):
        return []
    wanted: list[ColumnElement[bool]] = [_FAILED, ~_REPLAYED]
    if kind:
        same = [one for one in groups(connection) if one["fingerprint"] == kind]
        if not same:
            return []
        wanted += [column.is_not_distinct_from(same[0][column.name]) for column in _KIND]
    if reason:
        wanted.append(message.c.reason.startswith(reason, autoescape=True))
    if sender:
        wanted.append(message.c.sender == sender)
    return list(
        connection.scalars(select(message.c.id).where(and_(*wanted)).order_by(message.c.id).limit(limit or None))
    )
