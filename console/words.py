"""The console's words, French and English. A key that one language lacks is an error at import."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["words_for"]

_WORDS: dict[str, tuple[str, str]] = {
    "language.name": ("Français", "English"),
}


def words_for(language: str) -> Mapping[str, str]:
    """Every word by key; KeyError for an unknown key or language."""
    return _BY_LANGUAGE[language]


_BY_LANGUAGE: dict[str, Mapping[str, str]] = {
    language: {key: words[place] for key, words in _WORDS.items()} for place, language in enumerate(("fr", "en"))
}
