"""The rules against a second reading of the text that shares no code with them, over thousands of random patients."""

from __future__ import annotations

import importlib.util
import json
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rules.cases import CaseError, case_verdict, read_case
from rules.packaged import find_protocol

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """A module beside this file; the test tree is no package."""
    spec = importlib.util.spec_from_file_location(f"tests_rules_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ORACLE, RANDOM = load("oracle_ansm"), load("random_cases")


def answered(row: dict[str, Any]) -> dict[str, Any]:
    exact = json.loads(json.dumps(row), parse_float=Decimal)
    line = case_verdict(find_protocol("ansm"), read_case(exact))
    return {field: line[field] for field in ORACLE.FIELDS}


@pytest.mark.parametrize("block", range(8))
def test_the_rules_and_the_slow_reading_agree_on_random_patients(block: int) -> None:
    for seed in range(block * 1000, block * 1000 + 1000):
        row = RANDOM.random_case(seed)
        assert answered(row) == ORACLE.judge(row), json.dumps(row)


def test_random_patients_meet_every_verdict_of_the_protocol() -> None:
    met = {ORACLE.judge(RANDOM.random_case(seed))["action"] for seed in range(3000)}
    never = {"CONTINUE_TWICE_WEEKLY"}
    assert len(met) == 20
    assert not met & never


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["id"]) for row in json.loads((HERE / "cases-ansm.json").read_text())]
)
def test_the_slow_reading_meets_the_worked_cases_too(row: dict[str, Any]) -> None:
    found = ORACLE.judge(row)
    expected = {"recommended_recheck_by": None, "weekly_until": None, **row["expected"]}
    assert {field: found[field] for field in expected} == expected


GOOD: dict[str, Any] = {
    "id": "X",
    "protocol": "ansm",
    "treatment_start": "2026-01-05",
    "observation": {"date": "2026-08-03", "anc_per_mm3": 3000},
}


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        (
            {"interruptions": [{"last_dose": "2026-03-10", "restart": "2026-03-09"}]},
            "interruptions[1].restart",
            "2026-03-09 is before the last dose of 2026-03-10",
        ),
        (
            {
                "interruptions": [
                    {"last_dose": "2026-05-01", "restart": "2026-05-09"},
                    {"last_dose": "2026-04-01", "restart": "2026-05-02"},
                ]
            },
            "interruptions[1].last_dose",
            "overlaps interruptions[2]",
        ),
        (
            {"interruptions": [{"last_dose": "2026-03-10", "restart": None}, {"last_dose": "2026-04-10"}]},
            "interruptions[2].last_dose",
            "overlaps interruptions[1]",
        ),
        (
            {"interruptions": [{"last_dose": "2025-03-10", "restart": "2025-03-20"}]},
            "interruptions[1].last_dose",
            "before the start of 2026-01-05",
        ),
        (
            {"interruptions": [{"last_dose": "2026-03-10", "restart": "2026-03-20", "gap_days": 4}]},
            "interruptions[1].gap_days",
            "4 is not the time from the last dose to the restart",
        ),
        ({"interruptions": [{"last_dose": "2026-03-10", "back": 1}]}, "interruptions[1].back", "unknown field"),
        ({"treatment_start": "2027-01-05"}, "treatment_start", "2027-01-05 is in the future"),
        ({"history": [{"date": "2026-03-10", "count": 1}]}, "history[1].count", "unknown field"),
    ],
)
def test_a_course_that_contradicts_itself_is_refused_by_name(change: dict[str, Any], place: str, reason: str) -> None:
    with pytest.raises(CaseError) as refused:
        read_case({**GOOD, **change})
    assert (refused.value.case, refused.value.field) == ("X", place)
    assert reason in refused.value.reason


def test_part_days_of_a_gap_may_be_rounded_either_way() -> None:
    for said in (2, 3, 2.5):
        gap = {"last_dose": "2026-03-10T20:00", "restart": "2026-03-13T08:00", "gap_days": said}
        read_case(json.loads(json.dumps({**GOOD, "interruptions": [gap]}), parse_float=Decimal))
    with pytest.raises(CaseError, match="gap_days"):
        read_case({**GOOD, "interruptions": [{**gap, "gap_days": 1}]})


def test_a_restart_on_the_day_of_the_last_dose_and_a_planned_start_are_sound() -> None:
    gaps = [{"last_dose": "2026-03-10T18:00", "restart": "2026-03-10"}, {"last_dose": "2026-03-11", "restart": None}]
    read_case({**GOOD, "interruptions": gaps})
    read_case({**GOOD, "treatment_start": "2026-08-20"})
