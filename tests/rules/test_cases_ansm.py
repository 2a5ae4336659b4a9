"""Worked cases of the ANSM protocol: ours beside this file, and the shared ones next to the repository where present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rules.cases import Case, CaseError, case_verdict, read_cases
from rules.packaged import find_protocol

HERE = Path(__file__).parent
OURS = HERE / "cases-ansm.json"
# Answers worked out on paper before the rules were asked: the corners where two sentences meet. Of the references too.
DERIVED = HERE / "cases-derived.json"
SHARED = HERE.parents[2] / "shared" / "cases" / "ansm-2025.json"


def _rows(path: Path) -> list[Any]:
    if not path.exists():
        return [pytest.param(None, None, id="absent", marks=pytest.mark.skip(reason=f"{path.name} is not here"))]
    text = path.read_text(encoding="utf-8")
    return [pytest.param(row, case, id=row["id"]) for row, case in zip(json.loads(text), read_cases(text), strict=True)]


@pytest.mark.parametrize(("row", "case"), [*_rows(OURS), *_rows(DERIVED), *_rows(SHARED)])
def test_a_worked_case_is_met_exactly(row: dict[str, Any], case: Case) -> None:
    line = case_verdict(find_protocol(case.protocol), case)
    expected = {"recommended_recheck_by": None, "weekly_until": None, **row["expected"]}
    assert {field: line[field] for field in expected} == expected


@pytest.mark.parametrize(
    ("row", "case"),
    [p for p in [*_rows(OURS), *_rows(SHARED)] if p.values[0] and "expected_if_upper_bound_exclusive" in p.values[0]],
)
def test_the_borderline_reading_can_be_switched(row: dict[str, Any], case: Case) -> None:
    protocol = find_protocol(case.protocol, {"mild_upper_bound_inclusive": False})
    line = case_verdict(protocol, case)
    expected = row["expected_if_upper_bound_exclusive"]
    assert {field: line[field] for field in expected} == expected


def test_an_unknown_field_is_refused_by_case_and_field() -> None:
    (found,) = read_cases(
        '[{"id": "X", "protocol": "ansm", "observation": {"date": "2026-01-01", "anc_per_mm3": 1}, "dose": 3}]'
    )
    assert isinstance(found, CaseError)
    assert str(found) == "case X: dose: unknown field"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("observation", '{"date": "2026-13-01", "anc_per_mm3": 1}', "observation.date: not a date"),
        ("observation", '{"date": "2026-01-01", "anc_per_mm3": 1e99999999}', "not a cell count"),
        ("observation", '{"date": "2026-01-01", "anc_per_mm3": true}', "not a number"),
        ("observation", "7", "observation: must be an object"),
        ("ben_confirmed", '"yes"', "ben_confirmed: must be true or false"),
        ("observation", '{"date": "2026-01-01", "anc_per_mm3": "<<5"}', "observation.anc_per_mm3: not a number: '<5'"),
        (
            "observation",
            '{"date": "2026-01-01", "anc_per_mm3": "<5", "comparator": "<"}',
            "observation.comparator: beside the sign of '<5'",
        ),
        ("clinical_flags", '["tall"]', "unknown flag 'tall'"),
        ("stop_reason", '"ANC<1000"', "without treatment_stop"),
    ],
)
def test_a_case_that_cannot_be_read_says_where(field: str, value: str, reason: str) -> None:
    fields = {"id": '"X"', "protocol": '"ansm"', "observation": '{"date": "2026-01-01", "anc_per_mm3": 3000}'}
    fields[field] = value
    text = "[{" + ", ".join(f'"{name}": {shown}' for name, shown in fields.items()) + "}]"
    (found,) = read_cases(text)
    assert isinstance(found, CaseError)
    assert reason in str(found)


def test_a_decimal_count_stays_exact() -> None:
    (case,) = read_cases(
        '[{"id": "X", "protocol": "ansm", "observation": {"date": "2026-01-01", "anc_per_mm3": 999.9999999}}]'
    )
    assert isinstance(case, Case)
    assert case.result is not None
    assert case.result.anc is not None
    assert str(case.result.anc.per_mm3) == "999.9999999"
