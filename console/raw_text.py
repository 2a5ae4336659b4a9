"""A message's bytes as a person can read them: nothing hidden, nothing changed, nothing that the page could act on."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from dataclasses import dataclass

import msgspec

from wire import er7

__all__ = ["RawText", "readable"]

_SHOWN = 200_000
_LINE = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawText:
    """``segments``: HL7 v2, (name, rest) a line; else ``text``. ``cut``: how many characters are not shown."""

    codec: str
    segments: tuple[tuple[str, str], ...] = ()
    text: str = ""
    cut: int = 0


def readable(raw: bytes, form: str) -> RawText:
    """JSON is only laid out anew: its numbers stay as they were written."""
    if form == "hl7v2":
        return _segments(raw)
    with contextlib.suppress(msgspec.DecodeError, RecursionError):  # what is no JSON is shown as it came
        raw = msgspec.json.format(raw, indent=2)
    text, codec = er7.decode(raw)
    return RawText(codec=codec, text="\n".join(_visible(line) for line in _LINE.split(text[:_SHOWN])), cut=_cut(text))


def _segments(raw: bytes) -> RawText:
    header = er7.peek(raw)
    text, codec = er7.decode(raw, header.charset if header else "")
    lines = _LINE.split(text[:_SHOWN])
    while lines and not lines[-1]:
        lines.pop()
    return RawText(
        codec=codec, segments=tuple((_visible(line[:3]), _visible(line[3:])) for line in lines), cut=_cut(text)
    )


def _cut(text: str) -> int:
    return max(len(text) - _SHOWN, 0)


def _visible(line: str) -> str:
    """Control characters by their pictures, what steers the direction of writing by its number."""
    return line if line.isprintable() else "".join(map(_picture, line))


def _picture(character: str) -> str:
    if character.isprintable() or character == "\t":
        return character
    number = ord(character)
    if number < 0x20:
        return chr(0x2400 + number)
    if number == 0x7F:
        return "\u2421"
    # Spaces of other widths are spaces; everything else unprintable is said by its number.
    return character if unicodedata.category(character) == "Zs" else f"\\u{number:04x}"
