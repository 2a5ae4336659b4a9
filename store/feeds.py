"""Who sends on which channel, since when, and how regularly: kept beside the messages, never counted from them.

Each sweep reads the messages beyond the last one that it has seen, by their id.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select
from sqlalchemy.dialects import postgresql, sqlite

from store.port import FeedRecord, Work
from store.statement import Prepared
from store.tables import counter, feed, finding, message
from store.values import from_ms, to_ms

__all__ = ["arrived", "feeds", "last_heard", "marks", "records", "write"]

MARKS = "watch"
_arrived = Prepared(
    select(message.c.id, message.c.received_at, message.c.channel, message.c.sender, message.c.replay_of)
    .where(message.c.id > bindparam("after"), message.c.received_at <= bindparam("until"))
    .order_by(message.c.id)
    .limit(bindparam("most"))
)


def _upserts(dialect: Any) -> tuple[Prepared, Prepared]:
    rows = dialect.insert(feed).values({column.name: bindparam(column.name) for column in feed.columns})
    kept = dialect.insert(counter).values(name=MARKS, label=bindparam("label"), slot=0, value=bindparam("value"))
    return (
        Prepared(
            rows.on_conflict_do_update(
                index_elements=["channel", "sender"],
                set_={name: getattr(rows.excluded, name) for name in ("last_at", "messages", "body")},
            )
        ),
        Prepared(
            kept.on_conflict_do_update(index_elements=["name", "label", "slot"], set_={"value": kept.excluded.value})
        ),
    )


_upsert = {"sqlite": _upserts(sqlite), "postgresql": _upserts(postgresql)}


def arrived(
    connection: Connection, after: int, limit: int, *, until_ms: int = 2**62
) -> list[tuple[int, int, str, str, int | None]]:
    """(id, received_at, channel, sender, replay_of) of the messages beyond ``after``, in order.

    ``until_ms``: only those that came by then. Of two processes that store at the same time the one with the smaller
    numbers may be the later one to commit; what was read beyond them would never be read.
    """
    return [tuple(row) for row in _arrived.rows(connection, {"after": after, "until": until_ms, "most": limit})]


def records(connection: Connection) -> list[FeedRecord]:
    return [
        FeedRecord(
            channel=row.channel,
            sender=row.sender,
            first_at=from_ms(row.first_at),
            last_at=from_ms(row.last_at),
            messages=row.messages,
            body=json.loads(row.body),
        )
        for row in connection.execute(select(feed))
    ]


def feeds(connection: Connection) -> list[dict[str, Any]]:
    """For a page: channel, sender, first_at, last_at (aware datetimes), messages, ``expected`` and ``silent``.

    ``expected``: the longest silence, in hours in which this sender usually speaks (or, where the settings say so, in
    plain hours: ``fixed``), before it becomes a finding; None while its rhythm is still being learnt.
    """
    is_silent = (
        exists()
        .where(
            finding.c.kind == "feed",
            finding.c.subject == feed.c.channel + "|" + feed.c.sender,
            finding.c.ended_at.is_(None),
        )
        .label("silent")
    )
    found = []
    for row in connection.execute(select(feed, is_silent).order_by(feed.c.channel, feed.c.sender)):
        body = json.loads(row.body)
        found.append(
            {
                "channel": row.channel,
                "sender": row.sender,
                "first_at": from_ms(row.first_at),
                "last_at": from_ms(row.last_at),
                "messages": row.messages,
                "expected": body.get("limit_h"),
                "fixed": bool(body.get("fixed")),
                "silent": bool(row.silent),
            }
        )
    return found


def last_heard(connection: Connection) -> dict[str, int]:
    """When the last message came on each channel, in milliseconds; as of the last sweep."""
    heard: dict[str, int] = {}
    for channel, last_at in connection.execute(select(feed.c.channel, feed.c.last_at)):
        heard[channel] = max(last_at, heard.get(channel, 0))
    return heard


def marks(connection: Connection) -> dict[str, int]:
    """How far the clock has got: ``message`` (id), ``seen_at`` (milliseconds, of its last sweep)."""
    rows = connection.execute(select(counter.c.label, counter.c.value).where(counter.c.name == MARKS))
    return {row.label: row.value for row in rows}


def write(connection: Connection, work: Work) -> None:
    rows, kept = _upsert[connection.dialect.name]
    rows.many(
        connection,
        [
            {
                "channel": item.channel,
                "sender": item.sender,
                "first_at": to_ms(item.first_at),
                "last_at": to_ms(item.last_at),
                "messages": item.messages,
                "body": json.dumps(item.body),
            }
            for item in work.feeds
        ],
    )
    kept.many(connection, [{"label": label, "value": value} for label, value in work.marks.items()])
