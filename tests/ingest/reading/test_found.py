"""What the search for breaking bytes has found stays found: each is read to a disposition that agrees with itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli_read import line_of
from ingest.reading import read_file

FOUND = sorted((Path(__file__).parents[3] / "fixtures" / "found").glob("*.bin"))


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_what_was_found_is_read(file: Path) -> None:
    readings = read_file(file.read_bytes())
    assert readings
    for index, reading in enumerate(readings):
        assert (reading.disposition == "results") == bool(reading.results)
        assert len({entry.where for entry in reading.ledger}) == len(reading.ledger)
        line_of("f", index, reading)
