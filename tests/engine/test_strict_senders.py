"""Strict senders: judged by hl7apy and fhir.resources, read all the same, and no more than provisional where they fail."""

import io
import json
from pathlib import Path

import pytest

from engine.cli_read import read_command
from engine.strict import violations

FIXTURES = Path(__file__).parents[2] / "fixtures"


def read(path: Path, tmp_path: Path) -> dict[str, object]:
    site = tmp_path / "strict.toml"
    site.write_text("strict = true\n")
    out = io.StringIO()
    assert read_command([path], out, io.StringIO(), site=site) == 0
    line: dict[str, object] = json.loads(out.getvalue())
    return line


def test_a_sound_message_is_read_as_before(tmp_path: Path) -> None:
    for name in ("hl7v2/plain.hl7", "hl7v2/cda-corrected.hl7", "hl7v2/oul-r22.hl7", "fhir/observation.json"):
        assert [r["trust"] for r in read(FIXTURES / name, tmp_path)["results"]] == ["established"]  # type: ignore[attr-defined]


def test_a_message_that_breaks_the_standard_is_provisional(tmp_path: Path) -> None:
    line = read(FIXTURES / "hl7v2" / "set-ids-jump.hl7", tmp_path)
    assert [(r["trust"], r["doubts"]) for r in line["results"]] == [("provisional", ["strict-violation"])]  # type: ignore[attr-defined]
    assert "strict" in [p["code"] for p in line["problems"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["hl7v2/cda-in-obx.hl7", "hl7v2/no-pid.hl7", "fhir/duplicate-key.json"])
def test_no_complaint_quotes_the_message(name: str) -> None:
    raw = (FIXTURES / name).read_bytes()
    words = " ".join(violations(raw, "fhir" if name.startswith("fhir") else "hl7v2"))
    assert not any(secret in words for secret in ("405660", "279035121518989", "SPECIMEN", "PD94"))


@pytest.mark.parametrize("raw", [b"", b"MSH|", b"\xff" * 50, b"{", b"[[[["])
def test_anything_gives_complaints_and_no_exception(raw: bytes) -> None:
    assert violations(raw, "hl7v2")
    assert violations(raw, "fhir")
