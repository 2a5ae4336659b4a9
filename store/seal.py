"""Message bodies sealed with AES-GCM: the key ring of a database, and that it is the right one.

Sealed are the bytes of messages as they came (``body.raw``), each with its own nonce and bound to its message's number, so
that bodies cannot be exchanged unnoticed. Which key it was stands beside each; NULL is a body in the clear. Results,
identifiers and the register are not sealed.

Rings are known by the database's address (``use``), so that whoever connects to it reads alike.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.engine import URL, make_url

from store.port import StoreUnavailable
from store.tables import body, body_key

__all__ = [
    "MISSING",
    "UNOPENABLE",
    "UNREADABLE",
    "Ring",
    "check",
    "known",
    "of",
    "opened",
    "rekey",
    "retire",
    "ring_of",
    "unopened",
    "use",
]

UNOPENABLE = "body-unopenable"
"""Damaged, exchanged, or sealed with a key that is not in the ring: what was in it cannot be known here."""
MISSING = "body-missing"
"""A message without a disposition whose bytes are gone: nothing of ours removes those."""

UNREADABLE = "body-unreadable"
"""The page of the database file on which it stood is damaged."""

_NONCE = 12
_BYTES = 32
_PAGE = 1000
_TURN_BYTES = 4 * 1024 * 1024
_CHECK = b"neutroflag body key"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Ring:
    """``keys``: by id. ``current`` seals, all open; "" seals nothing."""

    def __init__(self, keys: Mapping[str, bytes] | None = None, current: str = "") -> None:
        self.current = current
        self._keys: dict[str, Any] = {}
        if keys:
            # Loaded where there is a key: most of its cost is OpenSSL.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._keys = {name: AESGCM(key) for name, key in keys.items()}

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def seal(self, raw: bytes, message_id: int) -> tuple[bytes, str | None]:
        """What to store, and the key's id beside it."""
        if not self.current:
            return raw, None
        return self._sealed(self.current, raw, b"%d" % message_id), self.current

    def open(self, stored: bytes, key_id: str | None, message_id: int) -> bytes | None:
        """None where the bytes are not what was sealed. Raises StoreUnavailable without the key."""
        return stored if key_id is None else self._opened(key_id, stored, b"%d" % message_id)

    def look(self, stored: Any, key_id: str | None, message_id: int) -> tuple[bytes, str]:
        """The bytes as they came; or b"" and why they cannot be had: UNOPENABLE, MISSING."""
        if stored is None:
            return b"", MISSING
        if key_id is not None and key_id not in self:
            return b"", UNOPENABLE
        raw = self.open(bytes(stored), key_id, message_id)
        return (raw, "") if raw is not None else (b"", UNOPENABLE)

    def proof(self) -> bytes:
        """By which the current key is known again."""
        return self._sealed(self.current, _CHECK, self.current.encode())

    def proves(self, key_id: str, proof: bytes) -> bool:
        return self._opened(key_id, proof, key_id.encode()) == _CHECK

    def _sealed(self, key_id: str, raw: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + bytes(self._keys[key_id].encrypt(nonce, raw, about))

    def _opened(self, key_id: str, stored: bytes, about: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        if key_id not in self._keys:
            raise StoreUnavailable(f"bodies are sealed with the key {key_id}, which store.key_file does not hold")
        try:
            return bytes(self._keys[key_id].decrypt(stored[:_NONCE], stored[_NONCE:], about))
        except (InvalidTag, ValueError):
            return None


def ring_of(text: str) -> Ring:
    """Lines of an id and 32 bytes in Base64; the last one seals. Raises ValueError, which quotes no key."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 2 or not _NAME.fullmatch(parts[0]):
            raise ValueError(f"line {number}: an id (letters, digits, . _ -) and a key, with a space between")
        if parts[0] in keys:
            raise ValueError(f"line {number}: the id {parts[0]} a second time")
        try:
            key = base64.b64decode(parts[1], validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _BYTES:
            raise ValueError(f"line {number}: the key is not {_BYTES} bytes in Base64")
        keys[parts[0]] = key
    if not keys:
        raise ValueError("holds no key")
    return Ring(keys, next(reversed(keys)))


_CLEAR = Ring()
_rings: dict[URL, Ring] = {}


def use(url: str, ring: Ring | None) -> None:
    """From now on, in this process, for every connection to this database."""
    _rings[make_url(url)] = ring or _CLEAR


def of(connection: Connection) -> Ring:
    """The ring of the database that this is a connection to."""
    return _rings.get(connection.engine.url, _CLEAR) if _rings else _CLEAR


def opened(connection: Connection, stored: Any, key_id: str | None, message_id: int) -> bytes | None:
    """The bytes as they came; None without a body, or where it cannot be opened."""
    raw, unopened = of(connection).look(stored, key_id, message_id)
    return None if unopened else raw


def check(connection: Connection) -> None:
    """That every key which bodies were sealed with is there and is the right one; makes the current one known.

    Raises StoreUnavailable.
    """
    ring = of(connection)
    known = {name: bytes(proof) for name, proof in connection.execute(select(body_key.c.id, body_key.c.proof))}
    for name, proof in known.items():
        if name not in ring:
            raise StoreUnavailable(
                f"message bodies are sealed with the key {name}; set store.key_file or store.key_command to what holds it"
            )
        if not ring.proves(name, proof):
            raise StoreUnavailable(f"the key {name} is not the one that message bodies were sealed with")
    if ring.current and ring.current not in known:
        connection.execute(insert(body_key).values(id=ring.current, proof=ring.proof()))


def rekey(connection: Connection, after: int, limit: int) -> tuple[int | None, int, list[int]]:
    """Seals bodies beyond message ``after`` with the current key: (where to go on, how many were, which could not be opened).

    None: nothing is left. At most ``limit`` bodies, and of large ones fewer: an engine beside it waits for the transaction.
    Bodies that cannot be opened stay as they are.
    """
    ring = of(connection)
    other = or_(body.c.key_id.is_(None), body.c.key_id != ring.current)
    sizes = connection.execute(
        select(body.c.message_id, func.length(body.c.raw))
        .where(body.c.message_id > after, other)
        .order_by(body.c.message_id)
        .limit(limit)
    ).all()
    if not sizes:
        return None, 0, []
    totals = accumulate(size for _, size in sizes)
    taken = max(1, sum(total <= _TURN_BYTES for total in totals))
    last = sizes[taken - 1].message_id
    rows = connection.execute(
        select(body.c.message_id, body.c.key_id, body.c.raw)
        .where(body.c.message_id > after, body.c.message_id <= last, other)
        .order_by(body.c.message_id)
        # Two that turn keys at once, or one beside retention, do not undo each other's doing.
        .with_for_update()
    ).all()
    done, broken = 0, []
    for number, key_id, stored in rows:
        raw, unopened = ring.look(stored, key_id, number)
        if unopened:
            broken.append(number)
            continue
        sealed, new = ring.seal(raw, number)
        connection.execute(update(body).where(body.c.message_id == number).values(raw=sealed, key_id=new))
        done += 1
    return (last if taken < len(sizes) or taken == limit else None), done, broken


def retire(connection: Connection, kept: Iterable[str] = ()) -> Sequence[str]:
    """Forgets the keys that no body is sealed with any more; their ids. ``kept``: keys that somebody still seals with."""
    ring = of(connection)
    unused = and_(body_key.c.id.not_in([ring.current, *kept]), ~exists().where(body.c.key_id == body_key.c.id))
    gone = connection.scalars(select(body_key.c.id).where(unused).order_by(body_key.c.id)).all()
    if gone:
        connection.execute(delete(body_key).where(body_key.c.id.in_(gone)))
    return gone


def unopened(connection: Connection) -> Iterator[int]:
    """The messages whose body is on file and cannot be opened. Opens every sealed one: for ``db verify``."""
    ring, after = of(connection), 0
    while True:
        rows = connection.execute(
            select(body.c.message_id, body.c.key_id, body.c.raw)
            .where(body.c.message_id > after, body.c.key_id.is_not(None))
            .order_by(body.c.message_id)
            .limit(_PAGE)
        ).all()
        yield from (number for number, key_id, stored in rows if ring.look(stored, key_id, number)[1])
        if len(rows) < _PAGE:
            return
        after = rows[-1].message_id


def known(connection: Connection, key_id: str) -> bool:
    """Whether an engine has started with this key."""
    return bool(connection.scalar(select(func.count()).select_from(body_key).where(body_key.c.id == key_id)))
