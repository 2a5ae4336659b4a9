"""What an HL7 v2 message says of the people who have an alert of ours (docs/answers.md).

Three shapes: an ORU^R01 under our order number with a coded ``ANC-ANSWER``; an alert acknowledgement (ORU or ORA, R41 or
R42) under that number or the MSH-10 of our message; a read receipt (ZAM^Z03), which names that MSH-10 in its MSA-2.
"""

from __future__ import annotations

import re
from typing import Final

from ingest.reading.outcome import Reply
from wire.er7 import Header, Message, Segment

__all__ = ["may_reply", "replies_in", "tells_by_its_type"]

_ACKNOWLEDGEMENTS: Final = frozenset(("R41", "R42"))
# OBR-3.1 of our alerts: the first 16 characters of the alert's id, without hyphens (emitters/v2_parts.py); the last one is a
# letter for the copy of a second recipient.
_NUMBER: Final = re.compile(r"([0-9a-f]{15})([0-9a-fpl])")
_COPIES: Final = {"p": "pharmacist", "l": "laboratory"}
_PEOPLE: Final = (("OBX", 16), ("PRT", 5), ("OBR", 32), ("ORC", 12))
_LONGEST: Final = 500
# An escape that may stand for a letter of the code: hexadecimal, highlighting, formatting, truncation.
_SPELT: Final = re.compile(r"\\[XHNP.]")


def may_reply(message: Message) -> bool:
    """False: no OBX-3 is our code, however it is escaped. A search, in place of a split of every OBX of every message."""
    if "ANC-ANSWER" in message.text:
        return True
    if message.separators[1:5] != ("^", "~", "\\", "&"):
        return message.separators.escape in message.text
    return "\\" in message.text and _SPELT.search(message.text) is not None


def tells_by_its_type(header: Header) -> bool:
    """An acknowledgement of an alert or a receipt, whatever its rows are."""
    code, trigger = header.message_code, header.trigger
    return (code in ("ORU", "ORA") and trigger in _ACKNOWLEDGEMENTS) or (code == "ZAM" and trigger == "Z03")


def replies_in(message: Message) -> tuple[Reply, ...]:
    """Empty for every message that answers nothing of ours."""
    header = message.header
    code, trigger = header.message_code, header.trigger
    telling = tells_by_its_type(header)
    if not telling and (code != "ORU" or not may_reply(message)):
        return ()
    rows = {obx.component(3): obx for obx in message.segments("OBX")} if code != "ZAM" else {}
    if not telling and "ANC-ANSWER" not in rows:
        return ()
    number = _order_number(message)
    msa = message.segment("MSA")
    control_id = msa.field(2) if msa is not None else ""
    if not number and not control_id:
        return ()
    answer = rows.get("ANC-ANSWER")
    decision = answer.component(5)[:_LONGEST] if answer is not None else ""
    # With its time: systems restart their counters.
    sender = f"{header.sending_application}|{header.sending_facility}"
    name = f"{code}^{trigger} {sender} {header.control_id} {header.timestamp}"
    return (
        Reply(
            what="answered" if decision else "seen",
            evidence=name[:_LONGEST],
            alert=number.rstrip("pl"),
            recipient=_COPIES.get(number[-1:], ""),
            control_id="" if number else control_id,
            decision=decision,
            reason=_reason(rows)[:_LONGEST],
            by=_person(message, answer)[:200],
            revision=_revision(rows),
            where="OBX" if answer is not None else "MSA",
        ),
    )


def _order_number(message: Message) -> str:
    """Ours, wherever the answering system keeps it: as filler, as placer, or as the parent of an order of its own."""
    for obr in message.segments("OBR"):
        for position in (3, 2, 29):
            for part in obr.components(position):
                found = part.partition("&")[0].lower()
                if _NUMBER.fullmatch(found):
                    return found
    return ""


def _revision(rows: dict[str, Segment]) -> int | None:
    text = rows["ANC-REVISION"].field(5) if "ANC-REVISION" in rows else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _reason(rows: dict[str, Segment]) -> str:
    row = rows.get("ANC-ANSWER-REASON")
    return " ".join(filter(None, (row.text(part) for part in row.repetitions(5)))) if row is not None else ""


def _person(message: Message, answer: Segment | None) -> str:
    """The responsible observer, else whoever a participation, the report or the order names: XCN as one line."""
    for kind, position in _PEOPLE:
        segment = answer if kind == "OBX" else message.segment(kind)
        if segment is None:
            continue
        parts = [*(segment.components(position) if segment.field(position) else []), "", "", ""]
        name = " ".join(filter(None, (parts[2], parts[1]))) or parts[0].replace("&", " ")
        if name.strip():
            return name.strip()
    return ""
