"""What the operators' pages ask for: always a bounded look, by an index or newest first, whatever the database holds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from store.tables import alert, delivery, message

__all__ = ["Standing", "standing"]

_MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The present in numbers. ``pending`` and ``dead`` stop counting at 1000; times in milliseconds since 1970."""

    pending: int
    oldest_waiting_at: int | None
    dead: int
    critical: int
    red: int


def standing(connection: Connection) -> Standing:
    """By four indexes: pending messages, waiting and dead deliveries, open alerts."""
    # Ids grow with time: the first waiting one is the oldest.
    oldest = connection.scalar(
        select(delivery.c.created_at).where(delivery.c.state == "waiting").order_by(delivery.c.id).limit(1)
    )
    levels = connection.execute(
        select(alert.c.level, func.count())
        .where(alert.c.state == "open", alert.c.level.in_(("critical", "red")))
        .group_by(alert.c.level)
    )
    open_alerts = {level: number for level, number in levels}  # noqa: C416  # a Row is no pair to mypy
    return Standing(
        pending=_up_to(connection, select(message.c.id).where(message.c.disposition.is_(None))),
        oldest_waiting_at=oldest,
        dead=_up_to(connection, select(delivery.c.id).where(delivery.c.state == "dead")),
        critical=open_alerts.get("critical", 0),
        red=open_alerts.get("red", 0),
    )


def _up_to(connection: Connection, query: object) -> int:
    found = select(func.count()).select_from(query.limit(_MANY).subquery())  # type: ignore[attr-defined]
    return connection.scalar(found) or 0
