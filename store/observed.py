"""What observe mode would have sent: rows of the outbox that never leave it, and the alerts whose present state nobody
outside has been told.

Rule of the file: an observed row stays observed for ever. After the switch to ``deliver`` the present state of an alert is
told by a revision of its own, never by letting an old notification go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, String, and_, cast, exists, func, not_, or_, select

from store.tables import alert, delivery
from store.values import from_ms

__all__ = ["Untold", "WouldHaveSent", "any_observed", "untold", "would_have_sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHaveSent:
    """One notification that observe mode kept back. ``id`` sorts by time and is the key of the next page."""

    id: int
    at: datetime
    alert_id: str
    revision: int
    patient_id: str | None
    destinations: tuple[str, ...]
    """Names of those that would have got it; empty when none was set up yet."""
    level: str
    kind: str
    family: str
    title: str
    anc_per_mm3: str | None
    """Exact; None where the notification is not about a count."""
    collected_at: str | None


@dataclass(frozen=True, slots=True)
class Untold:
    """An alert whose present revision was only observed. ``told``: an earlier revision of it had gone out."""

    alert_id: str
    patient_id: str | None
    told: bool


_other = delivery.alias("other")
_first_of_its_revision = ~exists().where(
    _other.c.alert_id == delivery.c.alert_id,
    _other.c.revision == delivery.c.revision,
    _other.c.state == "observed",
    _other.c.id < delivery.c.id,
)


def would_have_sent(
    connection: Connection, after_id: int, limit: int, level: str | None = None, *, newest_first: bool = False
) -> list[WouldHaveSent]:
    """At most ``limit`` notifications beyond ``after_id`` (0: from the start), of one alert level or of all.

    ``newest_first``: downwards from ``after_id`` (0: from the newest).
    """
    query = select(delivery).where(delivery.c.state == "observed", _first_of_its_revision)
    if after_id:
        query = query.where(delivery.c.id < after_id if newest_first else delivery.c.id > after_id)
    if level is not None:
        query = query.where(_level(connection) == level)
    order = delivery.c.id.desc() if newest_first else delivery.c.id
    rows = connection.execute(query.order_by(order).limit(limit)).mappings().all()
    return [_row(connection, dict(row)) for row in rows]


def _level(connection: Connection) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return func.json_extract(delivery.c.body, "$.level", type_=String)
    level: ColumnElement[Any] = cast(delivery.c.body, JSON)["level"].as_string()
    return level


def _row(connection: Connection, row: dict[str, Any]) -> WouldHaveSent:
    names = connection.scalars(
        select(delivery.c.destination)
        .where(
            delivery.c.alert_id == row["alert_id"],
            delivery.c.revision == row["revision"],
            delivery.c.state == "observed",
        )
        .order_by(delivery.c.id)
    )
    body = json.loads(row["body"])
    result = body.get("result") or {}
    return WouldHaveSent(
        id=row["id"],
        at=from_ms(row["created_at"]),
        alert_id=row["alert_id"],
        revision=row["revision"],
        patient_id=row["patient_id"],
        destinations=tuple(name for name in names if name),
        level=body["level"],
        kind=body["kind"],
        family=body["family"],
        title=body["title"],
        anc_per_mm3=_plain((result.get("anc") or {}).get("per_mm3")),
        collected_at=result.get("collected_at"),
    )


def _plain(number: str | None) -> str | None:
    """Exact, without exponent and trailing zeros: ``840.00`` is ``840``."""
    return None if number is None else f"{Decimal(number).normalize():f}"


def any_observed(connection: Connection) -> bool:
    return connection.scalar(select(delivery.c.id).where(delivery.c.state == "observed").limit(1)) is not None


def _has_row(*states: str, present: bool) -> ColumnElement[bool]:
    same = _other.c.revision == alert.c.revision if present else _other.c.revision < alert.c.revision
    return exists().where(and_(_other.c.alert_id == alert.c.id, same, _other.c.state.in_(states)))


def untold(connection: Connection, after_id: str, limit: int) -> list[Untold]:
    """By alert id, beyond ``after_id``: open alerts whose present revision was only observed, and withdrawn or closed
    ones of which an earlier revision stands outside."""
    sent = _has_row("waiting", "delivered", present=False)
    rows = connection.execute(
        select(alert.c.id, alert.c.patient_id, sent.label("told"))
        .where(
            alert.c.id > after_id,
            _has_row("observed", present=True),
            not_(_has_row("waiting", "delivered", "dead", present=True)),
            or_(alert.c.state == "open", sent),
        )
        .order_by(alert.c.id)
        .limit(limit)
    )
    return [Untold(row.id, row.patient_id, bool(row.told)) for row in rows]
