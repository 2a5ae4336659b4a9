"""Between clinical values and columns: times as milliseconds, dataclasses as JSON, ids that sort by time."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta

import msgspec

from rules.model import Alert, Assessment, LabResult, Person, TreatmentCourse

__all__ = [
    "decode_alert",
    "decode_assessment",
    "decode_course",
    "decode_person",
    "decode_result",
    "encode",
    "first_id",
    "from_ms",
    "message_name",
    "name_key",
    "new_id",
    "new_uuid",
    "to_ms",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place on the time line")
    return (moment - _EPOCH) // _MS


def from_ms(value: int) -> datetime:
    return _EPOCH + value * _MS


# Decimals go as strings: exact, and the same on every database.
_encoder = msgspec.json.Encoder(decimal_format="string")


def encode(value: object) -> str:
    return _encoder.encode(value).decode()


decode_alert = msgspec.json.Decoder(Alert).decode
decode_assessment = msgspec.json.Decoder(Assessment).decode
decode_course = msgspec.json.Decoder(TreatmentCourse).decode
decode_person = msgspec.json.Decoder(Person).decode
decode_result = msgspec.json.Decoder(LabResult).decode

_EPOCH_OF_IDS_MS = 1_577_836_800_000
# The last characters of a control id, which differ from message to message where senders count.
_COUNTED = 4
_process = int.from_bytes(os.urandom(2), "big") & 0x3FF
_last = int.from_bytes(os.urandom(2), "big") & 0xFFF
_counting = threading.Lock()


def new_id() -> int:
    """A 63-bit number: milliseconds since 2020, ten random bits of this process, twelve of a counter.

    Unique over processes without asking the database, and later ones are larger, so that the key's index grows at its end.
    A clock that is set back does not make them smaller, nor lets one come twice: the counter then runs on into later
    milliseconds.
    """
    global _last
    ms = time.time_ns() // 1_000_000 - _EPOCH_OF_IDS_MS
    with _counting:
        _last = number = max(_last + 1, ms << 12 | (_last + 1) & 0xFFF)
    return number >> 12 << 22 | _process << 12 | number & 0xFFF


def new_uuid() -> str:
    """A version 7 UUID (RFC 9562, 5.7): later ones sort after earlier ones, so that what many new rows touch of an index is
    its end, and not a page each."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return str(uuid.UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62))


def name_key(family: str, given: str = "") -> str:
    """For searching and ordering: no accents, one case. ``("Lévêque", "Zoé")`` -> ``"leveque zoe"``."""
    plain = unicodedata.normalize("NFKD", f"{family} {given}")
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().split())


def first_id(at_ms: int) -> int:
    """The smallest number that ``new_id`` could give at this time: ids select by time."""
    return max(at_ms - _EPOCH_OF_IDS_MS, 0) << 22


def message_name(form: str, sender: str, control_id: str) -> bytes:
    """What a message is known by, whichever door it came by; empty for one without a control id.

    Senders count: the names of ten thousand messages in a row begin alike, so that they lie together in an index of years.
    """
    if not control_id:
        return b""
    known = hashlib.blake2b("\x1f".join((form, sender, control_id[:-_COUNTED])).encode())
    beginning = known.digest()[:8]
    known.update(control_id[-_COUNTED:].encode())
    return beginning + known.digest()[:12]
