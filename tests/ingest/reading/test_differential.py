"""Our reader of ER7 beside python-hl7 and hl7apy over every fixture, field by field; where they are wrong is listed here.

Seen with python-hl7 0.4.5 and hl7apy 1.3.5:

* LF between segments: python-hl7 makes one segment of the whole message, hl7apy takes the rest for the version. Both are
  given the message as the standard has it, as they are given text without BOM.
* A highlighted ``b`` (escapes H and N): python-hl7 unescapes it to ``_b_``. hl7apy escapes the backslashes of ``.br`` and
  ``X41`` a second time. Raw fields are compared.
* MSH-2 of two, three or five characters: hl7apy refuses the message.
* Empty components: hl7apy drops those beyond the third of a CE, so that a code of the second alternate triplet moves.
"""

from __future__ import annotations

import json
from pathlib import Path

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment

from wire.er7 import Message, Segment, parse, split_messages

ROOT = Path(__file__).parents[3] / "fixtures" / "hl7v2"
FILES = [ROOT / name for name in json.loads((ROOT / "expected.json").read_text())["files"]]


def messages() -> list[tuple[str, Message]]:
    found = []
    for file in FILES:
        for raw in split_messages(file.read_bytes()):
            message = parse(raw)
            if message is not None:
                found.append((file.stem, message))
    return found


MESSAGES = messages()


def segments(message: Message) -> list[Segment]:
    """Without lines that are none: python-hl7 takes the whole of such a line for a name."""
    found = zip(message.segments(), message.lines, strict=True)
    return [segment for segment, line in found if line[3:4] == message.separators.field]


def standard(message: Message) -> str:
    return "\r".join(line for line in message.lines if line[3:4] == message.separators.field) + "\r"


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_python_hl7_finds_the_same_segments_and_fields(name: str, message: Message) -> None:
    theirs = hl7.parse(standard(message))
    ours = segments(message)
    assert [str(segment[0]) for segment in theirs] == [segment.name for segment in ours]
    for their, our in zip(theirs, ours, strict=True):
        first = 3 if our.name == "MSH" else 1
        for position in range(first, max(len(their), len(our.fields))):
            said = str(their[position]).strip() if position < len(their) else ""
            assert said == our.field(position), f"{our.at(position)}"


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_python_hl7_finds_the_same_components(name: str, message: Message) -> None:
    theirs = hl7.parse(standard(message))
    for their, our in zip(theirs, segments(message), strict=True):
        if our.name not in ("OBX", "OBR", "PID"):
            continue
        for position in (3, 5, 6):
            raw = our.field(position)
            if not raw or our.separators.escape in raw or our.separators.subcomponent in raw:
                continue
            for repetition in range(len(our.repetitions(position))):
                found = [str(part).strip() for part in _components(their[position][repetition])]
                assert found == our.components(position, repetition), our.at(position)


def _components(repetition: object) -> list[object]:
    return list(repetition) if isinstance(repetition, hl7.Repetition) else [repetition]


def test_hl7apy_finds_the_same_values_where_it_reads_a_segment() -> None:
    compared = 0
    for _, message in MESSAGES:
        marks = message.separators
        if marks[:5] != ("|", "^", "~", "\\", "&"):
            continue
        for our in message.segments("OBX"):
            try:
                their = parse_segment(our.line, version="2.5", validation_level=VALIDATION_LEVEL.TOLERANT)
                values = {3: their.obx_3.value, 6: their.obx_6.value, 11: their.obx_11.value}
            except (HL7apyException, AttributeError, IndexError):
                continue
            for position, value in values.items():
                raw = our.field(position)
                if "~" in raw or "\\" in raw or "&" in raw or "^^" in raw:
                    continue  # one repetition of several, escapes, empty components: see above
                assert (value or "").rstrip("^") == raw.rstrip("^"), our.at(position)
                compared += 1
    assert compared > 200
