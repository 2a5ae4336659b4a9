"""Columns of many rows as PostgreSQL's own arrays, in its binary form: what goes out with every message.

The driver's way looks at each element for its type and writes bytes as text: two milliseconds for the names of a group. Here
the type is the one that the statement says, so that a statement has one plan whatever its rows hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, String, Text
from sqlalchemy.types import TypeEngine

__all__ = ["Packed", "packing", "register"]

_NULL = b"\xff\xff\xff\xff"
_length = struct.Struct("!i").pack
_int8, _int4, _bool = struct.Struct("!iq").pack, struct.Struct("!ii").pack, struct.Struct("!i?").pack


class Packed(bytes):
    """An array as the server reads it."""


def packing(element: TypeEngine[Any]) -> Callable[[Sequence[Any]], Packed]:
    """Packs lists of this type's values; None is NULL. Raises TypeError for a type that no statement of ours needs."""
    found = [(oid, item) for kind, oid, item in _KINDS if isinstance(element, kind)]
    if not found:
        raise TypeError(f"no array of {element!r}")
    oid, item = found[0]
    head = struct.Struct("!iiIii").pack

    def pack(values: Sequence[Any]) -> Packed:
        if not values:
            return Packed(struct.pack("!iiI", 0, 0, oid))
        packed = [_NULL if value is None else item(value) for value in values]
        return Packed(b"".join((head(1, int(_NULL in packed), oid, len(packed), 1), *packed)))

    return pack


def _bytes(value: bytes) -> bytes:
    return _length(len(value)) + value


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


# The narrower type first: Text is a String, BigInteger an Integer. Numbers of types as in pg_type.dat.
_KINDS: tuple[tuple[type[Any], int, Callable[[Any], bytes]], ...] = (
    (BigInteger, 20, lambda value: _int8(8, value)),
    (Integer, 23, lambda value: _int4(4, value)),
    (Boolean, 16, lambda value: _bool(1, value)),
    (Text, 25, _text),
    (String, 1043, _text),
    (LargeBinary, 17, _bytes),
)


def register() -> None:
    """Tells the driver to send such values as they are."""
    import psycopg
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class AsItIs(Dumper):
        format = Format.BINARY

        def dump(self, obj: Packed) -> bytes:
            return obj

    psycopg.adapters.register_dumper(Packed, AsItIs)
