"""A message's bytes as text to be edited in a form, and back: whatever a browser would change on the way is refused first.

Rule of the file: unchanged text gives the same message. Line ends are the exception: a form sends CR LF for each, HL7 v2
wants CR, and nothing else reads them as content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_plus

from wire import er7

__all__ = ["MOST", "Editable", "editable", "edited"]

MOST = 60_000
"""Bytes of text as a form sends it; the form as a whole may have little more (console.auth)."""
_LINE = re.compile("\r\n|\r|\n")
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Editable:
    text: str
    codec: str


def editable(raw: bytes, form: str) -> Editable | None:
    """None where a form would change more than line ends, or could not carry it."""
    header = er7.peek(raw) if form == "hl7v2" else None
    text, codec = er7.decode(raw, header.charset if header else "")
    shown = "\n".join(_LINE.split(text)).rstrip("\n")
    if _UNSAFE.search(text) or len(quote_plus(text)) > MOST:
        return None
    same = encoded(text, codec) == raw
    return Editable(shown, codec) if same and not shown.startswith("\n") else None


def edited(text: str, original: bytes, form: str) -> bytes | None:
    """The bytes of the text as a form sent it, in the original's character set; None where it has no such character."""
    header = er7.peek(original) if form == "hl7v2" else None
    _, codec = er7.decode(original, header.charset if header else "")
    lines = _LINE.split(text)
    while lines and not lines[-1].strip():
        lines.pop()
    plain = "\r".join(lines) + "\r" if form == "hl7v2" else "\n".join(lines)
    return encoded(plain, codec)


def encoded(text: str, codec: str) -> bytes | None:
    try:
        return text.encode(codec)
    except (UnicodeEncodeError, LookupError):
        return None
