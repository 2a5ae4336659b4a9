"""docs/reading.md says what the code does, and names every doubt and problem that the code can give."""

import re
from pathlib import Path

from ingest.reading.page import page

ROOT = Path(__file__).parents[3]


def test_the_page_is_the_one_that_the_code_writes() -> None:
    assert (ROOT / "docs" / "reading.md").read_text(encoding="utf-8") == page(), "python -m ingest.reading.page"


def test_every_code_that_reading_gives_is_on_the_page() -> None:
    text = page()
    source = "\n".join(
        p.read_text(encoding="utf-8") for p in (ROOT / "ingest" / "reading").glob("*.py") if p.name != "page.py"
    )
    given = set(re.findall(r'(?:Refusal|Problem|Fault|NotXml|NotFhir|_set_aside)\(\s*"([a-z][a-z-]+)"', source))
    assert len(given) > 30
    assert {code for code in given if f"`{code}`" not in text} == set()
