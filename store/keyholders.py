"""Which key each process on a server seals bodies with, so that no key is given up while somebody still seals with it.

Rule of the file: whoever seals has said so in the same transaction, or in one of the last minutes; an announcement lives a
good deal longer than it takes to be renewed. On an SQLite file there is one engine, and nothing to agree on.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from store.inbox_server import hold
from store.seal import Ring
from store.tables import body_key, lease

__all__ = ["Holder", "announce", "leave", "others", "turning"]

# Sealed with by ``owner`` until ``expires_at``.
_PREFIX = "seals:"
_RENEW_S, _FOR_MS = 60.0, 600_000
_TURNING = "turning body keys"
_HERE = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
_said: dict[tuple[Any, str], float] = {}
_now = cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)


class Holder(NamedTuple):
    key_id: str
    owner: str
    """``host:process``."""
    for_s: int
    """How long its word still counts if it says nothing more."""


def announce(connection: Connection, ring: Ring) -> None:
    """In the transaction that seals something; asks the database once a minute."""
    here = (connection.engine.url, ring.current)
    said = _said.get(here)
    if said is not None and time.monotonic() - said < _RENEW_S:
        return
    turning(connection)
    name = f"{_PREFIX}{ring.current}:{_HERE}"
    row = insert(lease).values(name=name, owner=_HERE, expires_at=_now + _FOR_MS)
    connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"expires_at": row.excluded.expires_at}))
    # The key may have been given up while this process was silent for long: what is sealed with it now must be found again.
    connection.execute(
        insert(body_key).values(id=ring.current, proof=ring.proof()).on_conflict_do_nothing(index_elements=["id"])
    )
    _said[here] = time.monotonic()


def leave(connection: Connection) -> None:
    """This process seals nothing more."""
    _said.clear()
    connection.execute(delete(lease).where(lease.c.owner == _HERE))


def turning(connection: Connection) -> None:
    """Until the transaction ends nobody else announces, turns or gives up a key."""
    if connection.dialect.name != "sqlite":
        hold(connection, [_TURNING.encode()])


def others(connection: Connection, current: str) -> list[Holder]:
    """Who may still seal with another key than ``current``."""
    if connection.dialect.name == "sqlite":
        return []
    rows = connection.execute(
        select(lease.c.name, lease.c.owner, lease.c.expires_at - _now)
        .where(lease.c.name.startswith(_PREFIX, autoescape=True), lease.c.expires_at > _now)
        .order_by(lease.c.name)
    )
    found = []
    for name, owner, left_ms in rows:
        key_id = name.removeprefix(_PREFIX).partition(":")[0]
        if key_id != current:
            found.append(Holder(key_id, owner.rpartition(":")[0], int(left_ms) // 1000 + 1))
    return found
