"""HL7 character sets on the way out: a character that the set lacks is transliterated, never a reason to fail."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["CHARSETS", "encoded"]

CHARSETS: Final = {
    "UNICODE UTF-8": "utf-8",
    "8859/15": "iso8859-15",
    "8859/1": "iso8859-1",
    "ASCII": "ascii",
    "": "ascii",
}
"""MSH-18 (table 0211) and the codec; empty means ASCII (HL7 v2.5, 2.15.9.18)."""

_PLAINER: Final = {
    "≥": ">=",
    "≤": "<=",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
    "µ": "u",
    "μ": "u",
    "œ": "oe",
    "Œ": "OE",
    "æ": "ae",
    "€": "EUR",
    "ß": "ss",
    "³": "3",
    "ł": "l",
    "ø": "o",
    "\u202f": " ",
    "\xa0": " ",
}


def encoded(text: str, charset: str) -> bytes:
    """The text in the character set of MSH-18, with the nearest characters that it has."""
    codec = CHARSETS[charset]
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        return "".join(_fitting(character, codec) for character in text).encode(codec)


def _fitting(character: str, codec: str) -> str:
    """The character, or the nearest that the set has, or ``?``. A substitute must not be a separator."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    for candidate in (character, _PLAINER.get(character, ""), bare):
        if candidate and (candidate == character or not set(candidate) & set("\\|^&~\r\n")):
            try:
                candidate.encode(codec)
            except UnicodeEncodeError:
                continue
            return candidate
    return "?"
