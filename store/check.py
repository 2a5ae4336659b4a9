"""Whether what is stored adds up: in = out, and nothing points nowhere."""

from __future__ import annotations

from sqlalchemy import Connection, and_, exists, func, select

from store import inbox
from store.port import Disposition
from store.tables import alert, body, delivery, message

__all__ = ["findings"]


def findings(connection: Connection) -> list[str]:
    """One sentence a fault; empty when all is well."""
    found: list[str] = []
    ends = {
        row[0]: row[1]
        for row in connection.execute(select(message.c.disposition, func.count()).group_by(message.c.disposition))
    }
    kept = inbox.counted(connection)
    # What retention has removed was counted when it came and counted again when it went.
    gone = {label: value for (name, label), value in kept.items() if name == "purged"}
    received = kept.get(("received", ""), 0) - sum(gone.values())
    if received != sum(ends.values()):
        found.append(f"{received} messages were counted in, {sum(ends.values())} are on file")
    for disposition in Disposition:
        counted = kept.get(("disposition", disposition.value), 0) - gone.get(disposition.value, 0)
        filed = ends.get(disposition.value, 0)
        if counted != filed:
            found.append(f"{disposition.value}: {counted} were counted, {filed} are on file")
    for name in sorted(key for key in ends if key is not None and key not in set(Disposition)):
        found.append(f"unknown disposition {name!r}")
    lacking = select(func.count()).where(message.c.kept, ~exists().where(body.c.message_id == message.c.id))
    if number := connection.scalar(lacking.select_from(message)):
        found.append(f"{number} messages have lost their bytes")
    orphan = select(func.count()).where(~exists().where(alert.c.id == delivery.c.alert_id)).select_from(delivery)
    if number := connection.scalar(orphan):
        found.append(f"{number} deliveries belong to no alert")
    first = message.alias("first")
    lost = select(func.count()).where(
        and_(message.c.duplicate_of.is_not(None), ~exists().where(first.c.id == message.c.duplicate_of))
    )
    if number := connection.scalar(lost.select_from(message)):
        found.append(f"{number} duplicates name no original")
    return found
