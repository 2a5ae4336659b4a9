"""The inbox on a server, where several processes store messages at the same time, and the names that they must agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import ARRAY, BigInteger, Connection, LargeBinary, bindparam, func, select

from store.statement import Prepared
from store.tables import message, message_ids

__all__ = ["hold", "judged", "reserve"]

_names = func.unnest(bindparam("names", type_=ARRAY(BigInteger))).column_valued("name")
# Until the end of the transaction: of two that bring a message of the same name at the same time, the second one waits.
_lock = Prepared(select(func.pg_advisory_xact_lock(_names)))
_known = Prepared(
    select(message.c.dedupe_key, message.c.id, message.c.content_hash)
    .where(
        message.c.dedupe_key == func.any(bindparam("keys", type_=ARRAY(LargeBinary))), message.c.duplicate_of.is_(None)
    )
    .order_by(message.c.id)
)
# Held to the end of the transaction, in one order everywhere.
_pending = Prepared(
    select(message.c.id)
    .where(message.c.id == func.any(bindparam("numbers", type_=ARRAY(BigInteger))), message.c.disposition.is_(None))
    .order_by(message.c.id)
    .with_for_update()
)
_ids = Prepared(select(message_ids.next_value()).select_from(func.generate_series(1, bindparam("many")).alias("each")))


def reserve(
    connection: Connection, keys: Iterable[bytes], count: int
) -> tuple[dict[bytes, list[tuple[int, bytes]]], Sequence[int]]:
    """What is stored under these names, as (id, content), nobody else being able to add to it until the caller's transaction
    ends; and numbers for so many new messages, growing. The numbers of a transaction that fails are never used."""
    given = sorted(keys)
    names = _numbers(given)
    _lock.ask(connection, [{"names": names}])
    found = _known.ask(connection, [{"keys": given}])
    numbers = _ids.ask(connection, [{"many": count}])
    known: dict[bytes, list[tuple[int, bytes]]] = {key: [] for key in given}
    for key, number, content in found()[0]:
        known[bytes(key)].append((number, bytes(content)))
    return known, sorted(row[0] for row in numbers()[0])


def hold(connection: Connection, names: Iterable[bytes]) -> None:
    """Until the transaction ends nobody else holds one of these names: who wants one waits, and so does what he asks next."""
    _lock.ask(connection, [{"names": _numbers(names)}])


def judged(connection: Connection, numbers: Sequence[int]) -> Callable[[], tuple[int, ...]]:
    """Of these messages, those that have their disposition; the others are held."""
    pending = _pending.ask(connection, [{"numbers": list(numbers)}])

    def ended() -> tuple[int, ...]:
        waiting = {row[0] for row in pending()[0]}
        return tuple(number for number in numbers if number not in waiting)

    return ended


def _numbers(names: Iterable[bytes]) -> list[int]:
    """In one order everywhere: two batches that share names must not wait for each other."""
    digests = (hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return sorted({int.from_bytes(digest, "big", signed=True) for digest in digests})
