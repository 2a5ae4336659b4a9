"""Every doubt that a count can carry has words for a reader, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from console.words import words_for


@pytest.mark.parametrize("language", ["fr", "en"])
def test_each_doubt_of_the_page_of_what_is_read_has_words(root: Path, language: str) -> None:
    page = (root / "docs" / "reading.md").read_text(encoding="utf-8")
    part = page.partition("\n## Doubts\n")[2].partition("\n## ")[0]
    codes = set(re.findall(r"^\| `([a-z-]+)` \|", part, re.MULTILINE))
    assert len(codes) > 20
    # Those that only the judging side can have.
    codes |= {"time-missing", "time-in-the-future"}
    words = words_for(language)
    assert [code for code in sorted(codes) if not words.get(f"doubt.{code}")] == []
