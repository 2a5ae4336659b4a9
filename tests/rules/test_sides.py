"""Every rule and every reading of a protocol has a case on both sides of its boundary, and this is read from the data."""

from __future__ import annotations

import ast
import json
import tomllib
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rules import assess, find_protocol, packaged
from rules.cases import case_verdict, read_cases
from rules.model import Assessment, PriorNeutropenia, TreatmentCourse
from rules.protocol import MonitoringProtocol
from rules.trace import grounds_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SIDES: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((HERE / "sides.toml").read_text(encoding="utf-8"))
CASES = {
    row["id"]: row
    for name in ("cases-ansm.json", "cases-other.json")
    for row in json.loads((HERE / name).read_text(encoding="utf-8"))
}


def named(protocol: MonitoringProtocol) -> set[str]:
    return {grounds.rule for grounds in grounds_of(protocol)} | {reading.id for reading in protocol.readings}


def answer(name: str) -> dict[str, Any]:
    """The verdict with its dates as days from the count, so that two patients can be compared."""
    row = CASES[name]
    (case,) = read_cases(json.dumps([row], default=str))
    assert not isinstance(case, Exception)
    line = case_verdict(find_protocol(case.protocol), case)
    dates = {
        field: None if line[field] is None else (date.fromisoformat(line[field]) - case.as_of).days
        for field in ("next_due", "recommended_recheck_by", "weekly_until")
    }
    return {**{field: line[field] for field in ("category", "action", "alert")}, **dates}


@pytest.mark.parametrize("protocol", packaged(), ids=lambda p: p.name)
def test_every_rule_and_reading_of_the_file_is_named_and_no_other(protocol: MonitoringProtocol) -> None:
    assert set(SIDES[protocol.name]) == named(protocol)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        pytest.param(sides["inside"], sides["outside"], id=f"{protocol}-{name}")
        for protocol, rows in SIDES.items()
        for name, sides in rows.items()
        if "tests" not in sides
    ],
)
def test_the_two_sides_of_a_boundary_are_answered_otherwise(inside: str, outside: str) -> None:
    assert answer(inside) != answer(outside)


def test_the_tests_that_stand_in_for_cases_exist() -> None:
    for rows in SIDES.values():
        for sides in rows.values():
            for place in sides.get("tests", ()):
                path, _, function = place.partition("::")
                tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
                assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, place


def test_the_elderly_begin_at_the_birthday_that_the_protocol_names() -> None:
    birthday = date(2026, 8, 3)
    course = TreatmentCourse(
        start=date(2026, 1, 5), prior_neutropenia=PriorNeutropenia.NONE, birth_date=birthday.replace(year=1961)
    )
    (row,) = read_cases(
        json.dumps([{"id": "x", "protocol": "ansm", "observation": {"date": "2026-08-03", "anc_per_mm3": 3000}}])
    )
    assert not isinstance(row, Exception)
    assert row.result is not None
    for day, said in ((birthday, True), (birthday - timedelta(days=1), False)):
        found = assess(find_protocol("ansm"), course, (), row.result, day)
        assert isinstance(found, Assessment)
        assert ("elderly" in found.remarks) is said


def test_no_case_says_what_it_is_about_without_a_rule_or_reading_that_exists() -> None:
    known = {name for protocol in packaged() for name in named(protocol)}
    for name, row in CASES.items():
        for cited in str(row.get("rule_citation", "")).split(", "):
            assert not cited or cited in known, (name, cited)


def test_counts_of_cases_stay_exact_decimals() -> None:
    assert Decimal("999.9") == Decimal(str(CASES["GP-999.9"]["observation"]["anc_per_mm3"]))
