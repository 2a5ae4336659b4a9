"""Who does what only one may do where several processes work on one server: by its clock, for a few seconds at a time.

A holder that dies is followed when its time is over, one that stops gives its leases back. What a holder does that was only
thought dead is harmless twice: messages and patients are guarded where they are written (store.store.record).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    String,
    Text,
    bindparam,
    cast,
    delete,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from store import inbox, seal
from store.inbox_server import hold
from store.port import Claim
from store.statement import Prepared, given
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
_claimed = given(message_id=claim.c.message_id)
_claiming = insert(claim).from_select(
    ["message_id", "owner", "expires_at", "names"],
    select(
        _claimed.c.message_id,
        cast(bindparam("owner"), String),
        _now + cast(bindparam("for_ms"), BigInteger),
        cast(null(), Text),
    ),
)
_claim = Prepared(
    _claiming.on_conflict_do_update(
        index_elements=["message_id"],
        set_={"owner": _claiming.excluded.owner, "expires_at": _claiming.excluded.expires_at, "names": null()},
    )
)
_said = given(number=claim.c.message_id, new_names=claim.c.names)
_announce = Prepared(
    update(claim)
    .where(claim.c.message_id == _said.c.number, claim.c.owner == bindparam("of"))
    .values(names=_said.c.new_names)
)
_earlier = Prepared(
    select(message.c.id, claim.c.names, or_(claim.c.message_id.is_(None), claim.c.expires_at < _now))
    .select_from(message.outerjoin(claim, claim.c.message_id == message.c.id))
    .where(
        message.c.disposition.is_(None),
        message.c.id < bindparam("before"),
        claim.c.owner.is_distinct_from(bindparam("of")),
    )
    .order_by(message.c.id)
)
_these = claim.c.message_id == func.any(bindparam("numbers", type_=ARRAY(BigInteger)))
_done = Prepared(delete(claim).where(_these))
_given_up = Prepared(delete(claim).where(_these, claim.c.owner == bindparam("of")))


def take(connection: Connection, owner: str, names: Iterable[str], for_ms: int) -> set[str]:
    """Of these, the leases that ``owner`` holds now: taken, or prolonged."""
    asked = [{"name": name, "owner": owner, "for_ms": for_ms} for name in sorted(names)]
    return {row[0] for rows in _take.each(connection, asked) for row in rows}


def give_back(connection: Connection, owner: str) -> None:
    """All that ``owner`` has, its claims too: somebody else goes on at once."""
    connection.execute(delete(lease).where(lease.c.owner == owner))
    connection.execute(delete(claim).where(claim.c.owner == owner))


def claimed(connection: Connection, owner: str, limit: int, for_ms: int) -> list[Claim]:
    """The oldest messages without a disposition that nobody has, or had and lost by time. One process after the other: nobody
    takes a later message while an earlier one is being taken."""
    hold(connection, [b"claims"])
    rows = _openable(connection, _free.rows(connection, {"most": limit}))
    if rows:
        _claim.many(connection, [{"message_id": [row[0] for row in rows], "owner": owner, "for_ms": for_ms}])
    return inbox.claims(connection, rows)


def _openable(connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """Without those sealed with a key of another engine, which this one was not given yet: the other can read them."""
    ring = seal.of(connection)
    strange = {key_id for *_, key_id, _ in rows if key_id is not None and key_id not in ring}
    theirs = {key_id for key_id in strange if seal.known(connection, key_id)}
    return [row for row in rows if row[-2] not in theirs] if theirs else rows


def announce(connection: Connection, owner: str, names: Mapping[int, Iterable[str]]) -> tuple[set[int], bool]:
    """Says whom each of these messages speaks of; gives those that must wait for an earlier one of somebody else, and whether
    one of them waits in vain: nobody has that earlier one now.

    A message waits for an earlier one that speaks of the same, and for one of which nobody has said yet whom it speaks of.
    """
    mine = {number: set(speaks_of) for number, speaks_of in names.items()}
    said = {"number": list(mine), "new_names": [json.dumps(sorted(theirs)) for theirs in mine.values()]}
    _announce.many(connection, [{**said, "of": owner}])
    rows: Sequence[Any] = _earlier.rows(connection, {"before": max(mine), "of": owner})
    theirs = {number: None if text is None else set(json.loads(text)) for number, text, _ in rows}
    free = {number for number, _, is_free in rows if is_free}
    waiting: set[int] = set()
    spoken_of: set[str] = set()
    nobodys: set[str] = set()
    vain = False
    for number, names_of in sorted((theirs | mine).items()):
        if number in mine:
            if not spoken_of.isdisjoint(mine[number]):
                waiting.add(number)
                vain = vain or not nobodys.isdisjoint(mine[number])
                spoken_of |= mine[number]
        elif names_of is None:
            later = {one for one in mine if one > number}
            return waiting | later, vain or (number in free and bool(later))
        else:
            spoken_of |= names_of
            if number in free:
                nobodys |= names_of
    return waiting, vain


def done(connection: Connection, numbers: Iterable[int]) -> None:
    """These have their disposition, whoever had claimed them."""
    if wanted := sorted(numbers):
        _done.many(connection, [{"numbers": wanted}])


def give_up(connection: Connection, owner: str, numbers: Iterable[int]) -> None:
    _given_up.many(connection, [{"numbers": sorted(numbers), "of": owner}])
