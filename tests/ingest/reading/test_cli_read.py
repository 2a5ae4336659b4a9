"""``neutroflag read``: the lines of the contract and its exit codes."""

import io
import json
from decimal import Decimal
from pathlib import Path

from engine.cli_read import decimal_text, read_command

FIXTURES = Path(__file__).parents[3] / "fixtures" / "hl7v2"


def run(*paths: Path, strict: bool = False) -> tuple[int, list[dict[str, object]], str]:
    out, err = io.StringIO(), io.StringIO()
    code = read_command(paths, out, err, strict)
    return code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


def test_a_line_has_exactly_the_members_of_the_contract() -> None:
    code, lines, _ = run(FIXTURES / "plain.hl7")
    assert code == 0
    assert lines == [
        {
            "file": str(FIXTURES / "plain.hl7"),
            "index": 0,
            "format": "hl7v2",
            "control_id": "PLAIN",
            "disposition": "results",
            "results": [
                {
                    "kind": "ANC",
                    "anc_per_mm3": "1250",
                    "comparator": None,
                    "derived": False,
                    "lower_bound_per_mm3": None,
                    "status": "final",
                    "trust": "established",
                    "doubts": [],
                    "patient": {"value": "405660", "authority": "urn:oid:1.2.250.1.999.3", "type": "PI"},
                    "collected_at": "2026-11-22T08:05:00+01:00",
                    "code": "751-8",
                    "code_system": "http://loinc.org",
                    "display": "Neutrophils",
                    "value_as_sent": "1.25",
                    "unit_as_sent": "10*9/L",
                    "where": "OBX[2]",
                }
            ],
            "ledger": [
                {"where": "OBX[1]", "outcome": "not_relevant", "reason": "leukocytes"},
                {"where": "OBX[2]", "outcome": "result", "reason": ""},
                {"where": "OBX[3]", "outcome": "not_relevant", "reason": "count-reported"},
                {"where": "OBX[4]", "outcome": "not_relevant", "reason": "other-analyte"},
                {"where": "OBX[5]", "outcome": "not_relevant", "reason": "other-analyte"},
            ],
            "problems": [],
        }
    ]


def test_a_batch_gives_a_line_a_message() -> None:
    _, lines, _ = run(FIXTURES / "batch.hl7")
    assert [(line["index"], line["control_id"]) for line in lines] == [(0, "B1"), (1, "B2")]


def test_strict_says_that_something_was_not_read() -> None:
    assert run(FIXTURES / "no-unit.hl7")[0] == 0
    assert run(FIXTURES / "no-unit.hl7", strict=True)[0] == 4
    assert run(FIXTURES / "no-msh.hl7", strict=True)[0] == 4
    assert run(FIXTURES / "plain.hl7", strict=True)[0] == 0


def test_a_missing_file_fails_and_the_others_are_read() -> None:
    code, lines, words = run(FIXTURES / "nowhere.hl7", FIXTURES / "plain.hl7")
    assert code == 1
    assert len(lines) == 1
    assert "nowhere.hl7: no such file" in words


def test_a_folder_is_walked_in_order(tmp_path: Path) -> None:
    for name in ("b.hl7", "a.hl7"):
        (tmp_path / name).write_bytes((FIXTURES / "plain.hl7").read_bytes())
    _, lines, _ = run(tmp_path)
    assert [Path(str(line["file"])).name for line in lines] == ["a.hl7", "b.hl7"]


def test_decimals_have_no_exponent_and_no_trailing_zeros() -> None:
    assert [decimal_text(Decimal(t)) for t in ("1E+3", "0.840", "0.00", "1250.0", "973.7500")] == [
        "1000",
        "0.84",
        "0",
        "1250",
        "973.75",
    ]
