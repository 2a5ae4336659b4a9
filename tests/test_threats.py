"""The threat model names tests as its evidence; each of them must exist and hold tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)`", (ROOT / "docs/safety/threat-model.md").read_text("utf-8"))))


@pytest.mark.parametrize("name", NAMED)
def test_a_control_is_shown_by_a_test_that_exists(name: str) -> None:
    found = re.findall(r"^(?:async )?def test_\w+", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert found or name == "tests/test_threats.py"


def test_every_threat_has_a_control_and_its_evidence() -> None:
    rows = re.findall(
        r"^\| [STRIDE] \|(.+)\|$", (ROOT / "docs/safety/threat-model.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 20
    for row in rows:
        threat, control, shown = (cell.strip() for cell in row.split("|"))
        assert threat
        assert control
        assert "`tests/" in shown, threat
