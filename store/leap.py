"""The wall clock was set back: what waits for a time waits no longer for it than it was meant to.

Times to come were written by a clock that ran ahead of today's. They move back with it, in one transaction, so that nothing
is postponed by the step. Times that are over stay as they were written: they are evidence. A clock that leaps ahead needs
none of this; what waited is due a little earlier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from datetime import date

from sqlalchemy import Connection, exists, literal, select, update

from store import feeds
from store.port import Work
from store.tables import alert, delivery, feed, finding, patient, session
from store.values import decode_alert, encode, from_ms

__all__ = ["late", "set_back"]


_SLACK_MS = 60_000


def late(connection: Connection, *, now_ms: int, by_ms: int, moved: Set[tuple[str, int]]) -> None:
    """What was reckoned before the step and written after it was seen to: it stands where nothing else does, as far ahead as
    the step was long. ``moved``: what ``set_back`` gave."""
    _waiting(connection, now_ms + by_ms - _SLACK_MS, by_ms)
    _deadlines(connection, now_ms, by_ms, but=moved, updated_after=now_ms)


def set_back(connection: Connection, *, now_ms: int, by_ms: int, today: date | None) -> set[tuple[str, int]]:
    """``now_ms``: what the clock says now, ``by_ms`` less than it would have. ``today``: the local day, where that is another
    than it would have been: every patient is then looked at anew, for the days set meanwhile were reckoned from a wrong one.

    Gives the alerts, by id and revision, whose time to be answered has moved.
    """
    _waiting(connection, now_ms, by_ms)
    if today is not None:
        connection.execute(
            update(patient)
            .where(patient.c.watch_on > today.isoformat())
            .values(watch_on=today.isoformat(), rev=patient.c.rev + 1)
        )
    # A sender that is called silent stays so until it is heard.
    silent = exists().where(
        finding.c.kind == "feed",
        finding.c.ended_at.is_(None),
        finding.c.subject == feed.c.channel + literal("|") + feed.c.sender,
    )
    connection.execute(update(feed).where(feed.c.last_at > now_ms, ~silent).values(last_at=feed.c.last_at - by_ms))
    connection.execute(
        update(session)
        .where(session.c.seen_at > now_ms)
        .values(seen_at=session.c.seen_at - by_ms, expires_at=session.c.expires_at - by_ms)
    )
    feeds.write(connection, Work(marks={"seen_at": now_ms}))
    return _deadlines(connection, now_ms, by_ms)


def _waiting(connection: Connection, beyond_ms: int, by_ms: int) -> None:
    """Times after ``beyond_ms``: of notifications to be tried, of counts that settle, of specimens in the laboratory."""
    for column in (delivery.c.next_at, delivery.c.created_at):
        connection.execute(
            update(delivery).where(delivery.c.state == "waiting", column > beyond_ms).values({column: column - by_ms})
        )
    for column in (patient.c.settle_at, patient.c.pending_at):
        # A new revision of the row: what was judged from the old one is judged again.
        connection.execute(
            update(patient).where(column > beyond_ms).values({column: column - by_ms, patient.c.rev: patient.c.rev + 1})
        )


def _deadlines(
    connection: Connection, now_ms: int, by_ms: int, *, but: Set[tuple[str, int]] = frozenset(), updated_after: int = 0
) -> set[tuple[str, int]]:
    """Until when an open alert is to be answered: in its row, and in the alert, from which later revisions are made."""
    rows = connection.execute(
        select(alert.c.id, alert.c.revision, alert.c.answer_by, alert.c.body).where(
            alert.c.state == "open", alert.c.answer_by > now_ms, alert.c.updated_at > updated_after
        )
    ).all()
    for number, revision, answer_by, body in rows:
        if (number, revision) in but:
            continue
        until = answer_by - by_ms
        moved = dataclasses.replace(decode_alert(body), answer_by=from_ms(until))
        connection.execute(update(alert).where(alert.c.id == number).values(answer_by=until, body=encode(moved)))
    return {(number, revision) for number, revision, _, _ in rows}
