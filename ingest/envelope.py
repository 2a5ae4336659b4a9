"""From bytes to an Envelope: who sent it, under which name, and what makes it the same message again."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime

from store import Envelope
from store.values import message_name
from wire import er7

__all__ = ["NAMESPACE", "assigned_id", "fhir", "hl7v2", "is_acknowledgement", "pieces"]

NAMESPACE = uuid.UUID("5a1ff4de-2b1c-5d0e-8f3b-6f3a4e0c7b11")


def pieces(payload: bytes) -> list[bytes]:
    """The messages of a frame or body; one message alone stays byte for byte as it came."""
    found = er7.split_messages(payload)
    # With this beginning there is a header, which is read once more when the message is named.
    if len(found) < 2 and (payload.startswith(b"MSH|") or er7.peek(payload) is not None):
        return [payload]
    # Without any text it is a message too: it gets its AR, and is kept.
    return found or [payload]


def hl7v2(raw: bytes, *, channel: str, peer: str, now: datetime) -> tuple[er7.Header | None, Envelope]:
    """``raw`` is one message. Its name is MSH-3, MSH-4 and MSH-10 (standards.md 1.5), whichever door it came by."""
    header = er7.peek(raw)
    if header is None:
        return None, Envelope(
            channel=channel, format="hl7v2", raw=raw, received_at=now, content_hash=er7.content_hash(raw), peer=peer
        )
    sender = f"{header.sending_application}|{header.sending_facility}"
    return header, Envelope(
        channel=channel,
        format="hl7v2",
        raw=raw,
        received_at=now,
        content_hash=er7.content_hash(raw),
        dedupe_key=message_name("hl7v2", sender, header.control_id),
        peer=peer,
        sender=sender,
        control_id=header.control_id,
        message_type=f"{header.message_code}^{header.trigger}" if header.trigger else header.message_code,
    )


def fhir(
    raw: bytes,
    *,
    channel: str,
    peer: str,
    now: datetime,
    sender: str = "",
    control_id: str = "",
    message_type: str = "",
    refused: str = "",
) -> Envelope:
    """``control_id``: Bundle.identifier or MessageHeader.id; without one the same body twice is two messages."""
    return Envelope(
        channel=channel,
        format="fhir",
        raw=raw,
        received_at=now,
        content_hash=hashlib.blake2b(raw, digest_size=32).digest(),
        # A body that was refused has no name: sent again as it should be, it must not pass for a duplicate.
        dedupe_key=b"" if refused else message_name("fhir", sender, control_id),
        peer=peer,
        sender=sender,
        control_id=control_id,
        message_type=message_type,
        refused=refused,
    )


def is_acknowledgement(raw: bytes, header: er7.Header | None) -> bool:
    """An MSA segment: the message answers something, and is not answered (HL7 v2.5.1, 2.9.2).

    Results and admissions are never answers, whatever strays into them, and a read receipt (ZAM) is a message of its own:
    their senders wait for one.
    """
    if header is not None and header.message_code in ("ORU", "OUL", "ADT", "ZAM"):
        return False
    return b"MSA" in raw and _MSA.search(raw) is not None


# With its field separator: a broken line of a note may begin with the same letters, and its sender waits for an answer.
_MSA = re.compile(rb"[\r\n]MSA[^\w\s]")


def assigned_id(message_id: int, position: int | None = None) -> str:
    """The id that a single resource, or a Bundle's entry, got on being stored.

    Drawn from the message's number, so that nothing need be kept.
    """
    return str(uuid.uuid5(NAMESPACE, str(message_id) if position is None else f"{message_id}/{position}"))
