"""Bounded searches: whatever is sent, reading returns, and every OBX or Observation ends in exactly one entry."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli_read import line_of
from ingest.reading import Reading, read_file, read_message
from rules.model import Trust

ROOT = Path(__file__).parents[3] / "fixtures"
HEAD = "MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01|M1|P|2.5"
CODES = st.sampled_from(
    [
        "751-8^Neutrophils^LN",
        "770-8^N%^LN",
        "6690-2^WBC^LN",
        "30451-9^Segs^LN",
        "26507-4^Bands^LN",
        "PNN^PNN^L",
        "2951-2^Na^LN",
        "^^",
        "",
        "751-8^Lymphocytes^LN",
        "X^Neutrophils CSF^L",
        "71676-1^N/L^LN",
        '""',
        "30394-1^Gran^LN",
        "11502-2^CR^LN",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "1.25",
            "1,25",
            "1,250",
            "1250",
            "<0.5",
            "<^0.1",
            "55",
            "",
            '""',
            "****",
            "1~2",
            "0",
            "1e9",
            "Prélèvement coagulé",
        ]
    ),
    st.text(max_size=12),
)
UNITS = st.sampled_from(["10*9/L", "/mm3", "%", "G/L", "g/L", "", "10^9/L", "1", '""', "%^^^10*9/L"])
KINDS = st.sampled_from(["NM", "SN", "ST", "TX", "CE", "ED", "", "ZZ"])
STATUS = st.sampled_from(["F", "P", "C", "X", "D", "W", "U", "I", "N", "", "Q", "A"])


@st.composite
def rows(draw: st.DrawFn) -> str:
    fields = [
        "OBX",
        draw(st.sampled_from(["1", "2", "", "7"])),
        draw(KINDS),
        draw(CODES),
        draw(st.sampled_from(["", "1"])),
        draw(VALUES),
        draw(UNITS),
        draw(st.sampled_from(["", "1.5-7.5", "1500-7500"])),
        draw(st.sampled_from(["", "L", "L~A"])),
        "",
        "",
        draw(STATUS),
    ]
    return "|".join(fields[: draw(st.integers(1, len(fields)))])


SEGMENTS = st.one_of(
    rows(),
    rows(),
    st.sampled_from(
        [
            "PID|1||405660^^^CHX^PI",
            "PID|1",
            "OBR|1|P|F|58410-2^NFS^LN|||20261122080500",
            "OBR|1|P|F|CSF^LCR",
            "ORC|CA|P|F",
            "ORC|PR",
            "SPM|1|||CSF^LCR",
            "SPM|1|||BLD" + "|" * 20 + "CLOT",
            "NTE|1||Prélèvement coagulé",
            "NTE|1||agrégats",
            "ZZZ|1",
            "PRT|1",
            "OBR|2",
        ]
    ),
)


def one_entry_each(readings: list[Reading], places: int) -> None:
    entries = [entry.where for reading in readings for entry in reading.ledger]
    assert len(set(entries)) == len(entries) == places


@settings(max_examples=500, deadline=None)
@given(st.lists(SEGMENTS, max_size=14), st.sampled_from(["\r", "\n", "\r\n"]))
def test_every_obx_of_any_message_ends_in_exactly_one_entry(segments: list[str], end: str) -> None:
    # A drawn value may hold a line end of its own: such a text is another message, and no business of this test.
    segments = [segment for segment in segments if segment.isprintable()]
    raw = end.join([HEAD, *segments]).encode()
    reading = read_message(raw, format="hl7v2")
    one_entry_each([reading], sum(segment.startswith("OBX") for segment in segments))
    for result in reading.results:
        assert (result.trust is Trust.PROVISIONAL) == bool(result.doubts) or result.status.value == "preliminary"
        assert result.anc is None or (result.anc.per_mm3 >= 0 and not result.status.withdrawn)
    again = read_message(raw, format="hl7v2")
    assert (again.results, again.problems, sorted(again.ledger)) == (
        reading.results,
        reading.problems,
        sorted(reading.ledger),
    )


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5000),
        st.text(max_size=5),
        st.sampled_from(["final", "751-8", "10*9/L", "#a"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "code",
                    "coding",
                    "valueQuantity",
                    "value",
                    "unit",
                    "subject",
                    "reference",
                    "status",
                    "component",
                    "contained",
                    "resourceType",
                    "id",
                    "system",
                    "text",
                    "entry",
                    "resource",
                    "result",
                    "note",
                    "meta",
                    "identifier",
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "code",
                "valueQuantity",
                "subject",
                "status",
                "component",
                "contained",
                "note",
                "specimen",
                "identifier",
                "meta",
                "effectiveDateTime",
                "referenceRange",
            ]
        ),
        JSON,
        max_size=6,
    ),
    st.sampled_from(["Observation", "DiagnosticReport", "Bundle", "Parameters", "DocumentReference", "Patient"]),
)
def test_any_shape_of_json_is_read_without_an_exception(members: dict[str, Any], kind: str) -> None:
    resource = {"resourceType": kind, **members}
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": resource}, {"resource": members}]}
    for payload in (resource, bundle):
        reading = read_message(json.dumps(payload).encode(), format="fhir")
        line_of("f", 0, reading)
        entries = [entry.where for entry in reading.ledger]
        assert len(set(entries)) == len(entries)


DOCUMENTS = sorted((ROOT / "cda").glob("*.xml"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_document_in_a_message_is_a_problem_and_never_an_exception(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(DOCUMENTS)).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 30))] = data.draw(
            st.sampled_from([b"", b"<", b">", b"&", b'"', b"\xff", b"<!DOCTYPE x>", b"<observation/>", b"&#0;", b"]]>"])
        )
    packed = base64.b64encode(bytes(raw)).decode()
    cut = data.draw(st.integers(0, len(packed)))
    for body in (packed, packed[:cut]):
        message = f"{HEAD}\rPID|1||405660^^^CHX^PI\rOBX|1|ED|11502-2^CR^LN||^TEXT^XML^Base64^{body}||||||F\r"
        reading = read_message(message.encode(), format="hl7v2")
        assert [entry.where for entry in reading.ledger].count("OBX[1]") == 1
        assert len({entry.where for entry in reading.ledger}) == len(reading.ledger)
    read_file(bytes(raw))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "P|1|1|2",
                "P",
                "OBR|1||F|N",
                "OBX|1|NM|PNN~PNN||840|/mm3|||||F",
                "OBX",
                "A|x",
                "A",
                "C|1||agrégats",
                "L|1",
                "\x00",
                "H|~^\\&|x",
                "OBX|1|ST|PNN|",
            ]
        ),
        max_size=8,
    ),
    st.binary(max_size=20),
)
def test_any_lines_of_hprim_are_read_without_an_exception(lines: list[str], noise: bytes) -> None:
    for head in ("H|~^\\&|F.HPR||L||ORU|||C||P|H2.2|2026", "H|\\^&~|F", "H|||", "H|~~~~|F"):
        raw = "\r\n".join([head, *lines]).encode() + noise
        for reading in read_file(raw):
            line_of("f", 0, reading)
