"""Who does what only one may do where several processes work on one server: by its clock, for a few seconds at a time.

A holder that dies is followed when its time is over, one that stops gives its leases back. What a holder does that was only
thought dead is harmless twice: messages and patients are guarded where they are written (store.store.record).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, cast, delete, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from store import inbox, seal
from store.inbox_server import hold
from store.port import Claim
from store.statement import Prepared
from store.tables import body, claim, lease, message

__all__ = ["announce", "claimed", "done", "give_back", "give_up", "take"]

_now = cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
_new = insert(lease).values(
    name=bindparam("name"), owner=bindparam("owner"), expires_at=_now + cast(bindparam("for_ms"), BigInteger)
)
_take = Prepared(
    _new.on_conflict_do_update(
        index_elements=["name"],
        set_={"owner": _new.excluded.owner, "expires_at": _new.excluded.expires_at},
        where=or_(lease.c.owner == _new.excluded.owner, lease.c.expires_at < _now),
    ).returning(lease.c.name)
)
_free = Prepared(
    select(
        message.c.id,
        message.c.format,
        message.c.channel,
        message.c.sender,
        message.c.control_id,
        message.c.received_at,
        message.c.peer,
        body.c.key_id,
        body.c.raw,
    )
    .select_from(
        message.outerjoin(body, body.c.message_id == message.c.id).outerjoin(claim, claim.c.message_id == message.c.id)
    )
    .where(message.c.disposition.is_(None), or_(claim.c.message_id.is_(None), claim.c.expires_at < _now))
    .order_by(message.c.id)
    .limit(bindparam("most"))
)
_claiming = insert(claim).values(
    message_id=bindparam("message_id"),
    owner=bindparam("owner"),
    expires_at=_now + cast(bindparam("for_ms"), BigInteger),
    names=null(),
)
_claim = Prepared(
    _claiming.on_conflict_do_update(
        index_elements=["message_id"],
        set_={"owner": _claiming.excluded.owner, "expires_at": _claiming.excluded.expires_at, "names": null()},
    )
)
_announce = Prepared(
    update(claim)
    .where(claim.c.message_id == bindparam("number"), claim.c.owner == bindparam("of"))
    .values(names=bindparam("new_names"))
)
_earlier = Prepared(
    select(message.c.id, claim.c.names)
    .select_from(message.outerjoin(claim, claim.c.message_id == message.c.id))
    .where(
        message.c.disposition.is_(None),
        message.c.id < bindparam("before"),
        claim.c.owner.is_distinct_from(bindparam("of")),
    )
    .order_by(message.c.id)
)
_done = Prepared(delete(claim).where(claim.c.message_id == bindparam("number")))
_given_up = Prepared(delete(claim).where(claim.c.message_id == bindparam("number"), claim.c.owner == bindparam("of")))


def take(connection: Connection, owner: str, names: Iterable[str], for_ms: int) -> set[str]:
    """Of these, the leases that ``owner`` holds now: taken, or prolonged."""
    return {
        row[0]
        for name in sorted(names)
        for row in _take.rows(connection, {"name": name, "owner": owner, "for_ms": for_ms})
    }


def give_back(connection: Connection, owner: str) -> None:
    """All that ``owner`` has, its claims too: somebody else goes on at once."""
    connection.execute(delete(lease).where(lease.c.owner == owner))
    connection.execute(delete(claim).where(claim.c.owner == owner))


def claimed(connection: Connection, owner: str, limit: int, for_ms: int) -> list[Claim]:
    """The oldest messages without a disposition that nobody has, or had and lost by time. One process after the other: nobody
    takes a later message while an earlier one is being taken."""
    hold(connection, [b"claims"])
    rows = _openable(connection, _free.rows(connection, {"most": limit}))
    _claim.many(connection, [{"message_id": row[0], "owner": owner, "for_ms": for_ms} for row in rows])
    return inbox.claims(connection, rows)


def _openable(connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """Without those sealed with a key of another engine, which this one was not given yet: the other can read them."""
    ring = seal.of(connection)
    strange = {key_id for *_, key_id, _ in rows if key_id is not None and key_id not in ring}
    theirs = {key_id for key_id in strange if seal.known(connection, key_id)}
    return [row for row in rows if row[-2] not in theirs] if theirs else rows


def announce(connection: Connection, owner: str, names: Mapping[int, Iterable[str]]) -> set[int]:
    """Says whom each of these messages speaks of; gives those that must wait for an earlier one of somebody else.

    A message waits for an earlier one that speaks of the same, and for one of which nobody has said yet whom it speaks of.
    """
    mine = {number: set(given) for number, given in names.items()}
    _announce.many(
        connection,
        [{"number": number, "of": owner, "new_names": json.dumps(sorted(given))} for number, given in mine.items()],
    )
    rows: Sequence[Any] = _earlier.rows(connection, {"before": max(mine), "of": owner})
    theirs = {number: None if text is None else set(json.loads(text)) for number, text in rows}
    waiting: set[int] = set()
    spoken_of: set[str] = set()
    for number, said in sorted((theirs | mine).items()):
        if number in mine:
            if not spoken_of.isdisjoint(mine[number]):
                waiting.add(number)
                spoken_of |= mine[number]
        elif said is None:
            return waiting | {later for later in mine if later > number}
        else:
            spoken_of |= said
    return waiting


def done(connection: Connection, numbers: Iterable[int]) -> None:
    """These have their disposition, whoever had claimed them."""
    _done.many(connection, [{"number": number} for number in sorted(numbers)])


def give_up(connection: Connection, owner: str, numbers: Iterable[int]) -> None:
    _given_up.many(connection, [{"number": number, "of": owner} for number in sorted(numbers)])
