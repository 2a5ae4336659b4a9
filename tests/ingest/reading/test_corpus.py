"""Agreement with a corpus of public test messages, where it stands beside the repository."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from ingest.reading import read_file
from rules.model import Trust

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
pytestmark = pytest.mark.skipif(
    not (CORPUS / "expected.json").exists(), reason="the corpus is not beside the repository"
)
EXPECTED = json.loads((CORPUS / "expected.json").read_text()) if (CORPUS / "expected.json").exists() else {}
FILES = [m["file"] for m in json.loads((CORPUS / "manifest.json").read_text())] if EXPECTED else []


@pytest.mark.parametrize("file", EXPECTED)
def test_counts_agree_and_none_is_invented(file: str) -> None:
    results = [r for reading in read_file((CORPUS / file).read_bytes()) for r in reading.results]
    wanted = [row for row in EXPECTED[file] if row["analyte"] == "ANC"]
    reported = [r for r in results if r.anc is not None and not r.anc.derived]
    assert sorted(r.anc.per_mm3 for r in reported if r.anc) == sorted(
        Decimal(str(row["anc_per_mm3"])) for row in wanted
    )
    for result, row in zip(reported, wanted, strict=True):
        assert result.code == row["code"]
    for result in results:
        if result.anc is not None and result.anc.derived:
            assert result.trust is Trust.PROVISIONAL
            percent = next(row for row in EXPECTED[file] if row["analyte"] == "NEUT_PERCENT")
            if "normalised_if_usable" in percent and "leukocytes-differ" not in result.doubts:
                assert result.anc.per_mm3 == Decimal(str(percent["normalised_if_usable"]))


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_read_to_a_disposition(file: str) -> None:
    readings = read_file((CORPUS / file).read_bytes())
    assert readings
    for reading in readings:
        assert reading.disposition in ("results", "not_relevant", "unassessable", "set_aside")
        if file not in EXPECTED:
            assert reading.disposition in ("not_relevant", "set_aside")
