"""Worked cases of the reference protocols: ours, both sides of every limit, and the shared ones where present."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli_rules import rules_list
from engine.config import ConfigError, load
from rules import ProtocolError, find_protocol, find_selectable, packaged
from rules.cases import case_verdict, read_cases

HERE = Path(__file__).parent
OURS = HERE / "cases-other.json"
SHARED = HERE.parents[2] / "shared" / "cases" / "other-protocols.json"


def _rows(path: Path) -> list[Any]:
    if not path.exists():
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=f"{path.name} is not here"))]
    return [pytest.param(row, id=row["id"]) for row in json.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("row", [*_rows(OURS), *_rows(SHARED)])
def test_a_worked_case_of_another_protocol_is_met_exactly(row: dict[str, Any]) -> None:
    (case,) = read_cases(json.dumps([row]))
    assert not isinstance(case, Exception)
    line = case_verdict(find_protocol(case.protocol), case)
    expected = {"recommended_recheck_by": None, "weekly_until": None, **row["expected"]}
    assert {field: line[field] for field in expected} == expected
    assert line["citations"]


def test_a_reference_protocol_is_refused_for_a_live_course() -> None:
    for found in packaged():
        if found.selectable:
            assert find_selectable(found.name) is found
        else:
            with pytest.raises(ProtocolError, match="a reference for comparison, not for a live course"):
                find_selectable(found.name)


def test_settings_that_name_a_reference_protocol_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[engine]\nprotocol = "FDA-2015-LABEL"\n')
    with pytest.raises(ConfigError, match=r"engine\.protocol: .*reference for comparison"):
        load(path)


def test_the_list_says_which_protocols_are_references() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_list(out, err) == 0
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "reference only" in line] == ["eu-smpc@pre-2025", "us-fda@2015"]


def test_a_verdict_of_a_reference_names_its_own_readings_only() -> None:
    for row in json.loads(OURS.read_text(encoding="utf-8")):
        (case,) = read_cases(json.dumps([row]))
        assert not isinstance(case, Exception)
        protocol = find_protocol(case.protocol)
        assert set(case_verdict(protocol, case)["readings"]) <= {reading.id for reading in protocol.readings}
