"""The shipped sentences by language."""

from __future__ import annotations

from rules.english import ENGLISH
from rules.french import FRENCH
from rules.words import Words

__all__ = ["WORDS", "Words"]

WORDS: dict[str, Words] = {"fr": FRENCH, "en": ENGLISH}
