"""Every dialect of ``fixtures/dialects`` is read as it was decided, and loses nothing but certainty with a field of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ingest.reading import Reading, read_message
from rules.model import LabResult, ResultStatus, Trust

FILE = Path(__file__).parents[3] / "fixtures" / "dialects" / "rows.toml"
CASES: list[dict[str, Any]] = tomllib.loads(FILE.read_text())["case"]
NAMES = [case["name"] for case in CASES]


def message_of(case: dict[str, Any], rows: list[str]) -> bytes:
    obr = ["OBR", "1", "D1", "F1", case.get("obr4", "NFS^Hémogramme^L"), "", "", "20261122080500", *[""] * 7]
    obr += [case.get("obr15", ""), *[""] * 9, case.get("obr25", "F")]
    marks = case.get("msh2", "^~\\&")
    head = f"MSH|{marks}|SIL|LABO|NF|CHX|20261122101500||ORU^R01|M1|P|2.5"
    segments = [
        f"{head}||||||{case.get('charset', 'UNICODE UTF-8')}",
        case.get("pid", "PID|1||405660^^^CHX&1.2.250.1.999.3&ISO^PI"),
        "|".join(obr),
        *rows,
    ]
    return "\r".join(segments).encode(case.get("encoding", "utf-8"))


def read(case: dict[str, Any], rows: list[str] | None = None) -> Reading:
    return read_message(message_of(case, case["rows"] if rows is None else rows), format="hl7v2")


def said(result: LabResult) -> str:
    anc = result.anc
    text = "-"
    if anc is not None:
        text = f"{anc.comparator or ''}{'~' if anc.derived else ''}{_plain(anc.per_mm3)}"
        text += f"/{_plain(anc.lower_bound)}" if anc.derived else ""
    text += "" if result.status is ResultStatus.FINAL else f" {result.status.value}"
    assert (result.trust is Trust.PROVISIONAL) == bool(result.doubts)
    return text + (f" ? {', '.join(result.doubts)}" if result.doubts else "")


def _plain(number: Any) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_dialect_is_read_as_it_was_decided(case: dict[str, Any]) -> None:
    reading = read(case)
    assert [said(result) for result in reading.results] == case.get("reads", []), case["shows"]
    assert [problem.code for problem in reading.problems] == case.get("problems", []), case["shows"]
    if not case.get("reads"):
        assert reading.disposition == ("unassessable" if case.get("problems") else "not_relevant")
    rows = sum(row.startswith("OBX") for row in case["rows"])
    places = [entry.where for entry in reading.ledger if entry.where.startswith("OBX")]
    assert len(set(places)) == len(places) == rows


@pytest.mark.parametrize("case", [case for case in CASES if case.get("reads")], ids=lambda case: case["name"])
def test_a_dialect_without_code_value_or_unit_makes_no_number(case: dict[str, Any]) -> None:
    whole = read(case)
    # ``>=`` of segmented cells alone stays true when the bands are lost.
    known = {result.anc.per_mm3 for result in whole.results if result.anc is not None}
    for number, row in enumerate(case["rows"]):
        for position in (3, 5, 6):
            fields = row.split("|")
            if fields[0] != "OBX":
                continue
            for value in ("", '""'):
                fields[position] = value
                rows = [*case["rows"][:number], "|".join(fields), *case["rows"][number + 1 :]]
                for result in read(case, rows).results:
                    if result.trust is Trust.ESTABLISHED and result.anc is not None:
                        assert result.anc.per_mm3 in known, (row, position, value)
