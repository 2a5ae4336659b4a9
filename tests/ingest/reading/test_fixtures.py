"""Every fixture is read as its expectation says, and a missing field never makes a number."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli_read import line_of
from ingest.reading import Reading, read_file
from rules.model import Trust

ROOT = Path(__file__).parents[3] / "fixtures"
CASES = [
    (folder, name)
    for folder in ("hl7v2", "fhir", "cda", "hprim")
    for name in json.loads((ROOT / folder / "expected.json").read_text())["files"]
]
FIELDS = (
    "anc_per_mm3",
    "comparator",
    "derived",
    "lower_bound_per_mm3",
    "status",
    "trust",
    "doubts",
    "collected_at",
    "where",
)


def messages_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line_of(path.name, i, r)) for i, r in enumerate(read_file(path.read_bytes()))]
    return [
        {
            "disposition": line["disposition"],
            "results": [{k: r[k] for k in FIELDS} for r in line["results"]],
            "problems": [[p["code"], p["where"]] for p in line["problems"]],
        }
        for line in lines
    ]


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_fixture_is_read_as_expected(folder: str, name: str) -> None:
    expected = json.loads((ROOT / folder / "expected.json").read_text())["files"][name]
    assert messages_of(ROOT / folder / name) == expected["messages"], expected["shows"]


def test_every_fixture_is_expected() -> None:
    for folder, suffix in (("hl7v2", "*.hl7"), ("fhir", "*.json"), ("cda", "*.xml"), ("hprim", "*.hpr")):
        files = {p.name for p in (ROOT / folder).glob(suffix)} - {"expected.json"}
        assert files == {name for f, name in CASES if f == folder}


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_no_problem_names_the_patient(folder: str, name: str) -> None:
    for reading in read_file((ROOT / folder / name).read_bytes()):
        words = " ".join(f"{p.where} {p.text}" for p in reading.problems)
        assert not any(secret in words for secret in ("405660", "279035121518989", "SPECIMEN", "DOMINIQUE"))


def established(readings: list[Reading]) -> set[str]:
    """Reported counts that may reassure. A ">=" from segmented cells alone stays true when the bands are lost."""
    return {
        f"{r.anc.comparator or ''}{r.anc.per_mm3.normalize():f}"
        for reading in readings
        for r in reading.results
        if r.anc is not None and r.trust is Trust.ESTABLISHED and not r.anc.derived and r.anc.comparator != ">="
    }


def magnitudes(readings: list[Reading]) -> set[str]:
    """As above: segmented cells alone give a bound, which the whole count does not contradict."""
    return {
        f"{r.anc.per_mm3.normalize():f}"
        for reading in readings
        for r in reading.results
        if r.anc and not r.anc.derived and r.anc.comparator != ">="
    }


V2 = [ROOT / folder / name for folder, name in CASES if folder in ("hl7v2", "hprim")]


@pytest.mark.parametrize("path", V2, ids=lambda p: p.stem)
@pytest.mark.parametrize("position", [3, 5, 6])
@pytest.mark.parametrize("how", ["emptied", "dropped"])
def test_a_missing_field_makes_no_number_and_moves_none(path: Path, position: int, how: str) -> None:
    raw = path.read_bytes()
    before = read_file(raw)
    mark = b"@" if b"MSH@" in raw else b"|"
    lines = raw.replace(b"\n", b"\r").split(b"\r")
    for at, line in enumerate(lines):
        if not line.startswith(b"OBX"):
            continue
        fields = line.split(mark)
        if position >= len(fields):
            continue
        if how == "emptied":
            fields[position] = b""
        else:
            del fields[position]
        after = read_file(b"\r".join([*lines[:at], mark.join(fields), *lines[at + 1 :]]))
        assert established(after) <= established(before)
        # Withdrawn by OBX-11 alone: with its field moved, the count of the document shows, and is provisional.
        shown = {"840"} if path.stem == "cda-withdrawn" else set()
        assert magnitudes(after) <= magnitudes(before) | shown


def _spoilt(holder: dict[str, Any]) -> list[dict[str, Any]]:
    """An Observation or a component without its code, its value, its unit; or with an empty one."""
    found = []
    for name in ("code", "valueQuantity", "valueString", "valueInteger"):
        if name in holder:
            kept = {key: value for key, value in holder.items() if key != name}
            found += [kept, {**kept, name: "" if name == "valueString" else {}}]
    quantity = holder.get("valueQuantity")
    if isinstance(quantity, dict):
        for names in (("value",), ("unit", "code", "system")):
            found.append({**holder, "valueQuantity": {k: v for k, v in quantity.items() if k not in names}})
    return found


def _variants(node: Any) -> Iterator[Any]:
    """The document with one observation of it spoilt, every way, one after another."""
    if isinstance(node, dict):
        if node.get("resourceType") == "Observation" or "valueQuantity" in node:
            yield from _spoilt(node)
        for key, value in node.items():
            yield from ({**node, key: other} for other in _variants(value))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from ([*node[:at], other, *node[at + 1 :]] for other in _variants(value))


_NO_TREE = ("not-fhir.json", "xml.json", "duplicate-key.json")
FHIR = [ROOT / "fhir" / name for folder, name in CASES if folder == "fhir" and name not in _NO_TREE]


@pytest.mark.parametrize("path", FHIR, ids=lambda p: p.stem)
def test_an_observation_without_code_value_or_unit_makes_no_number(path: Path) -> None:
    before = read_file(path.read_bytes())
    for other in _variants(json.loads(path.read_text(), parse_float=Decimal, parse_int=Decimal)):
        after = read_file(_KEPT.encode(other))
        assert established(after) <= established(before)
        assert magnitudes(after) <= magnitudes(before)


_KEPT = msgspec.json.Encoder(decimal_format="number")
_MEMBERS = (
    re.compile(rb'(?<=<observation classCode="OBS" moodCode="EVN">)<code [^>]*/>'),
    re.compile(rb"<value [^>]*?/>"),
    re.compile(rb' unit="[^"]*"'),
    re.compile(rb'(?<=<value xsi:type="PQ") value="[^"]*"'),
)


@pytest.mark.parametrize(
    "path", [ROOT / "cda" / name for folder, name in CASES if folder == "cda"], ids=lambda p: p.stem
)
def test_a_document_without_a_code_a_value_or_a_unit_makes_no_number(path: Path) -> None:
    raw = path.read_bytes()
    before = read_file(raw)
    for member in _MEMBERS:
        for found in member.finditer(raw):
            after = read_file(raw[: found.start()] + raw[found.end() :])
            assert established(after) <= established(before), found.group()
            assert magnitudes(after) <= magnitudes(before), found.group()


@pytest.mark.parametrize("path", V2, ids=lambda p: p.stem)
def test_every_obx_leaves_one_entry(path: Path) -> None:
    for reading in read_file(path.read_bytes()):
        assert len({e.where for e in reading.ledger}) == len(reading.ledger)
    raw = path.read_bytes()
    if path.stem not in ("no-msh", "half-a-file"):
        lines = raw.replace(b"\n", b"\r").split(b"\r")
        of_message = [e for r in read_file(raw) for e in r.ledger if "/" not in e.where]
        assert len(of_message) == sum(line.startswith(b"OBX") for line in lines)


_OBSERVATION = re.compile(rb"<(?:\w+:)?observation ")


@pytest.mark.parametrize(
    "path", [ROOT / "cda" / name for folder, name in CASES if folder == "cda"], ids=lambda p: p.stem
)
def test_every_observation_of_a_document_leaves_one_entry(path: Path) -> None:
    raw = path.read_bytes()
    for reading in read_file(raw):
        if reading.disposition != "set_aside":
            assert len({e.where for e in reading.ledger}) == len(reading.ledger) == len(_OBSERVATION.findall(raw))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_fixtures_are_read_without_an_exception(data: st.DataObject) -> None:
    folder, name = data.draw(st.sampled_from(CASES))
    raw = bytearray((ROOT / folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 12))
        raw[at : at + cut] = data.draw(
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b"|", b"^", b"~", b"\r", b'"', b"{", b"[", b"1", b"\xff"])
            )
        )
    for reading in read_file(bytes(raw)):
        assert reading.disposition in ("results", "not_relevant", "unassessable", "set_aside")
        assert (reading.disposition == "results") == bool(reading.results)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(raw: bytes) -> None:
    for data in (raw, b"MSH|^~\\&|" + raw, b'{"resourceType":"Observation",' + raw, b"{" + raw + b"}"):
        for reading in read_file(data):
            line_of("f", 0, reading)
