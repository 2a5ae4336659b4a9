"""The functions behind ``neutroflag assess`` and ``neutroflag rules``."""

from __future__ import annotations

import io
import json
from pathlib import Path

from engine.cli_rules import assess_command, rules_check, rules_list, rules_show

OURS = Path(__file__).parent / "cases-ansm.json"


def test_assess_prints_one_line_a_case() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert assess_command(OURS, out, err) == 0
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == len(json.loads(OURS.read_text()))
    assert {"id", "protocol", "category", "action", "next_due", "alert", "rule", "citations"} <= set(lines[0])
    assert err.getvalue() == ""


def test_a_case_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    good = json.loads(OURS.read_text())[0]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps([{**good, "id": "X", "protocol": "FDA-1999"}, {**good, "id": "Y", "odd": 1}, good]))
    out, err = io.StringIO(), io.StringIO()
    assert assess_command(path, out, err) == 1
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["code"], second["code"], third["category"]) == ("protocol-unknown", "case-unreadable", "severe")
    assert "case Y: odd: unknown field" in err.getvalue()


def test_a_file_that_is_no_array_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text("{}")
    out, err = io.StringIO(), io.StringIO()
    assert assess_command(path, out, err) == 2
    assert assess_command(tmp_path / "none.json", out, err) == 2
    assert out.getvalue() == ""


def test_list_and_check_know_the_packaged_protocols() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_list(out, err) == 0
    assert rules_check(out, err) == 0
    assert "ok  ansm@2025-09" in out.getvalue()


def test_check_refuses_a_faulty_file_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('id = "x"')
    out, err = io.StringIO(), io.StringIO()
    assert rules_check(out, err, paths=(path,)) == 1
    assert "source is missing" in err.getvalue()


def test_show_reads_like_the_recommendation() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_show("ANSM-2025", out, err) == 0
    page = out.getvalue()
    for part in ("first dose: ANC >= 1500", ">= 1000, <= 1500", "from 18 weeks", "A-1", "Eosinophils", "Sources"):
        assert part in page
    assert rules_show("nothing", out, err) == 2
    assert rules_show("ansm", out, err, language="de") == 2


def test_show_speaks_french() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_show("ansm", out, err, language="fr") == 0
    assert "Avant la première prise : PNN >= 1500" in out.getvalue()


def test_show_as_json_is_one_object() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_show("ansm", out, err, json=True) == 0
    assert json.loads(out.getvalue())["protocol"] == "ansm@2025-09"
