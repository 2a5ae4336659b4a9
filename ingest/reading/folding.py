"""Words without what senders write differently: accents, case, odd spaces, letters that are two."""

from __future__ import annotations

import unicodedata

__all__ = ["fold"]

_LETTERS = str.maketrans({"ø": "o", "Ø": "o", "œ": "oe", "æ": "ae", "ß": "ss", "ł": "l", "\u00a0": " ", "\u202f": " "})


def fold(text: str) -> str:
    if text.isascii():
        return " ".join(text.casefold().split())
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().split())
