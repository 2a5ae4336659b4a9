"""The short way through a report of a known shape gives what the walk over its blocks gives, whatever its fields hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.simulate import blood_count
from ingest.reading import Reading, read_file, read_message
from ingest.reading.groups import Group, groups_of, walked
from ingest.reading.outcome import LedgerEntry
from ingest.reading.shapes import forget, known_dull
from tests.ingest.reading.test_reading_properties import SEGMENTS
from wire.er7 import Message, Segment, parse, peek, split_messages

ROOT = Path(__file__).parents[3] / "fixtures" / "hl7v2"
HEAD = (
    "MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01|M1|P|2.5\rPID|1||405660^^^CHX^PI\r"
    "OBR|1|P|F|58410-2^NFS^LN|||20261122080500"
)


def _line(segment: Segment | None) -> object:
    return (segment.line, segment.number) if segment is not None else None


def _plain(group: Group) -> dict[str, Any]:
    return {
        "around": [_line(group.pid), _line(group.orc), _line(group.obr), [_line(s) for s in group.specimens]],
        "rows": [(_line(segment), recognition) for segment, recognition in group.rows],
        "documents": [_line(segment) for segment in group.documents],
        "notes": (group.notes, group.other_notes, group.row_notes),
        "narratives": [(_line(segment), word) for segment, word in group.narratives],
        "count": (group.observations, _line(group.nameless), [_line(segment) for segment in group.joined]),
    }


def both_ways(message: Message) -> None:
    short: list[LedgerEntry] = []
    slow: list[LedgerEntry] = []
    found = [_plain(group) for group in groups_of(message, short)]
    assert found == [_plain(group) for group in walked(message, slow)]
    assert sorted(short) == sorted(slow)


def known(raw: bytes) -> list[Message]:
    """The messages of a file, each walked until its shape is known."""
    messages = [message for piece in split_messages(raw) if (message := parse(piece)) is not None]
    for message in messages:
        for _ in range(4):
            walked(message, [])
    return messages


FILES = sorted(ROOT.glob("*.hl7"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_fixture_goes_both_ways(file: Path) -> None:
    for message in known(file.read_bytes()):
        both_ways(message)


REPORTS = [
    *(file.read_bytes() for file in FILES),
    blood_count(
        control_id="C1", filler="F1", patient_id="P1", anc_per_mm3=1800, collected=datetime(2026, 11, 22, 8, tzinfo=UTC)
    ),
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_report_whose_lines_were_changed_goes_both_ways(data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(REPORTS))
    known(raw)
    for piece in split_messages(raw):
        lines = piece.replace(b"\n", b"\r").split(b"\r")
        for _ in range(data.draw(st.integers(1, 3)) if len(lines) > 3 else 0):
            at = data.draw(st.integers(1, len(lines)))
            other = lines[data.draw(st.integers(0, len(lines) - 1))]
            added = data.draw(
                st.sampled_from(
                    [
                        other,
                        b"NTE|1||sang coagul\xc3\xa9",
                        b"ORC|PR",
                        b"ORC|pr",
                        b"OBR|2|P2|F2|X^X^L",
                        b"PID|1||9^^^CHX^PI",
                        b"",
                        b" OBX|9",
                    ]
                )
            )
            lines[at - 1 : at] = data.draw(st.sampled_from([[added], [], [*lines[at - 1 : at], added]]))
        message = parse(b"\r".join(lines))
        if message is not None:
            both_ways(message)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["NM", "ST", "TX", "ED", ""]),
            st.sampled_from(["751-8^Neutrophils^LN", "2951-2^Na^LN", "6690-2^WBC^LN", "X^Commentaire^L", ""]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.text(st.characters(exclude_characters="\r\n|", codec="utf-8"), max_size=30), min_size=6, max_size=6),
)
def test_any_values_in_a_known_shape_go_both_ways(rows: list[tuple[str, str]], values: list[str]) -> None:
    def report(said: list[str]) -> bytes:
        found = [f"OBX|{n}|{kind}|{code}||{said[n - 1]}|10*9/L|||||F" for n, (kind, code) in enumerate(rows, 1)]
        return "\r".join([HEAD, *found]).encode()

    known(report(["1"] * 6))
    for said in (values, ["Polynucl\u00e9aires neutrophiles 25 %"] * 6, [""] * 6):
        message = parse(report(said))
        assert message is not None
        both_ways(message)


def test_a_daily_report_with_indented_segments_is_read_every_day() -> None:
    raw = blood_count(
        control_id="M1",
        filler="F1",
        patient_id="405660",
        anc_per_mm3=840,
        collected=datetime(2026, 11, 22, 8, tzinfo=UTC),
        authority="1.2.3",
        family="SPECIMEN",
        given="DOMINIQUE",
    ).replace(b"\rOBX", b"\r OBX")
    for _ in range(5):
        message = parse(raw)
        assert message is not None
        both_ways(message)
        assert sum(group.observations for group in groups_of(message, [])) > 0


def read_cold_and_warm(raw: bytes) -> None:
    """The whole reading, row by row and once its shape is known: not one outcome of it may differ."""
    forget()
    cold = read_file(raw)
    for _ in range(4):
        warm = read_file(raw)
    assert [_ordered(reading) for reading in warm] == [_ordered(reading) for reading in cold]


def _ordered(reading: Reading) -> Reading:
    return structs.replace(reading, ledger=tuple(sorted(reading.ledger)))


CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
MESSAGES = [*FILES, *sorted(path for path in CORPUS.glob("*/*") if path.suffix != ".json")]


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_file_is_read_the_same_once_its_shape_is_known(file: Path) -> None:
    read_cold_and_warm(file.read_bytes())


@settings(max_examples=300, deadline=None)
@given(st.lists(SEGMENTS, max_size=10))
def test_any_message_is_read_the_same_once_its_shape_is_known(segments: list[str]) -> None:
    read_cold_and_warm("\r".join([HEAD, *segments]).encode())


DULL = f"{HEAD}\rOBX|1|NM|2951-2^Sodium \u00e9tal\u00e9^LN||140|mmol/L|||||F\rOBX|2|NM|2823-3^Kalium^LN||4|mmol/L|||||F"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_known_report_that_was_damaged_on_the_way_is_read_as_if_it_were_new(data: st.DataObject) -> None:
    """Lost and added segment ends, another character set than is declared, and bytes in the place of values."""
    whole = data.draw(st.sampled_from([DULL.encode(), DULL.encode("cp1252"), *REPORTS]))
    ours = data.draw(
        st.sampled_from([b"", b"\rOBX|3|NM|751-8^Neutrophils^LN||0.4|10*9/L|||||F", b"\rNTE|1||PNN 0,4 G/L"])
    )
    damaged = whole.rstrip(b"\r\n") + ours
    ends = [at for at in range(len(damaged)) if damaged[at] in b"\r\n" and at > 60]
    if ends and data.draw(st.booleans()):
        at = data.draw(st.sampled_from(ends))
        damaged = damaged[:at] + data.draw(st.sampled_from([b"", b"|", b"\x0b", b"\r ", b"\r\r"])) + damaged[at + 1 :]
    if data.draw(st.booleans()):
        at = data.draw(st.integers(60, len(damaged)))
        damaged = (
            damaged[:at]
            + data.draw(st.sampled_from([b"\xff", b"\xe9", b"OBX|", b"7", b"\x81", b"\rOBX\r", b"\rOBR9", b"\r"]))
            + damaged[at:]
        )
    kind = data.draw(st.sampled_from([b"ORU^R01", b"ORU^R01", b"", b"ADT^A08", b"ORA^R41"]))
    damaged = damaged.replace(b"ORU^R01", kind, 1)
    forget()
    cold = [_ordered(reading) for reading in read_file(damaged)]
    forget()
    for _ in range(4):
        read_file(whole)
    assert [_ordered(reading) for reading in read_file(damaged)] == cold


def test_a_count_inside_a_row_of_a_known_report_is_found() -> None:
    forget()
    for _ in range(5):
        assert read_message(DULL.encode(), format="hl7v2").disposition == "not_relevant"
    header = peek(DULL.encode())
    assert header is not None
    assert known_dull(DULL.encode(), header, None) is not None
    raw = f"{DULL}OBX|3|NM|751-8^Neutrophils^LN||0.4|10*9/L|||||F".encode()
    assert [problem.code for problem in read_message(raw, format="hl7v2").problems] == ["segment-joined"]


def test_an_answer_in_the_rows_of_a_known_report_is_still_an_answer() -> None:
    forget()
    rows = "\rOBR|1|0123456789abcdef|0123456789abcdef|X\rOBX|1|CE|ANC-ANSWER^Answer^99NEUTROFLAG||stopped||||||F"
    unnumbered = (HEAD + rows.replace("0123456789abcdef", "")).encode()
    for _ in range(5):
        assert read_message(unnumbered, format="hl7v2").replies == ()
    for spelt in ("ANC-ANSWER", "ANC\\X2D\\ANSWER", "\\H\\ANC-ANSWER\\N\\"):
        head = HEAD[: HEAD.index("\rOBR")]
        raw = (head + rows.replace("ANC-ANSWER", spelt)).encode()
        for _ in range(5):
            assert [reply.decision for reply in read_message(raw, format="hl7v2").replies] == ["stopped"]


def test_a_note_in_a_known_report_that_tells_a_count_is_seen() -> None:
    forget()
    quiet = (HEAD + "\rNTE|1||Tube conforme\rOBX|1|NM|2951-2^Na^LN||140|mmol/L|||||F").encode()
    for _ in range(5):
        assert read_message(quiet, format="hl7v2").disposition == "not_relevant"
    telling = quiet.replace(b"Tube conforme", "Polynucl\u00e9aires neutrophiles 400/mm3".encode())
    assert [problem.code for problem in read_message(telling, format="hl7v2").problems] == ["narrative-only"]
