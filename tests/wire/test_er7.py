"""ER7: headers, splitting, escapes, character sets, addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.er7 import content_hash, decode, parse, peek, separators, split, split_messages, unescape

MSH = b"MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01^ORU_R01|ID1|P|2.5.1|||AL|NE||UNICODE UTF-8"
MARKS = separators("|", "^~\\&")


def test_a_header_is_read_without_the_rest() -> None:
    header = peek(MSH + b"\rPID|1\xff")
    assert header is not None
    assert (header.sending_application, header.sending_facility, header.control_id) == ("SIL", "LABO", "ID1")
    assert (header.message_code, header.trigger, header.structure) == ("ORU", "R01", "ORU_R01")
    assert (header.processing_id, header.version, header.accept_ack, header.application_ack) == (
        "P",
        "2.5.1",
        "AL",
        "NE",
    )
    assert header.charset == "UNICODE UTF-8"


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\x0b", b"\r\n", b"  "])
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_ends_and_leading_bytes_do_not_matter(before: bytes, end: bytes) -> None:
    message = parse(before + end.join([MSH, b"PID|1||X", b"OBX|1|NM|a||1"]) + end + b"\x1c\r")
    assert message is not None
    assert [s.name for s in message.segments()] == ["MSH", "PID", "OBX"]


@pytest.mark.parametrize("raw", [b"", b"MSH", b"MSHA|", b"PID|1", b"MSH\r", b"\x00\x01", b"MSH "])
def test_what_has_no_msh_has_no_header(raw: bytes) -> None:
    assert peek(raw) is None
    assert parse(raw) is None


@pytest.mark.parametrize(
    ("given_marks", "component", "repetition", "escape", "subcomponent", "truncation"),
    [
        ("^~\\&", "^", "~", "\\", "&", ""),
        ("^~", "^", "~", "\\", "&", ""),
        ("^~\\", "^", "~", "\\", "&", ""),
        ("^~\\&#", "^", "~", "\\", "&", "#"),
        ("~^\\&", "~", "^", "\\", "&", ""),
    ],
)
def test_separators_come_from_msh_2(
    given_marks: str, component: str, repetition: str, escape: str, subcomponent: str, truncation: str
) -> None:
    marks = separators("|", given_marks)
    assert marks == ("|", component, repetition, escape, subcomponent, truncation)
    assert marks.distinct


def test_separators_that_are_one_are_not_distinct() -> None:
    assert not separators("|", "&&&&").distinct


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"10\S\9/L", "10^9/L"),
        (r"a\F\b\T\c\R\d\E\e", "a|b&c~d\\e"),
        (r"\X0D\x", "\rx"),
        (r"\XC3A9\t\XC3A9\ ", "été "),
        (r"one\.br\two", "one\ntwo"),
        (r"\Zab\ kept", r"\Zab\ kept"),
        ("lone \\ backslash", "lone \\ backslash"),
        (r"\H\bold\N\ ", "bold "),
        (r"\XZZ\ ", r"\XZZ\ "),
    ],
)
def test_escapes_are_undone_once_and_unknown_ones_kept(text: str, read: str) -> None:
    assert unescape(text, MARKS) == read


@given(st.text(max_size=60))
def test_unescaping_never_raises(text: str) -> None:
    unescape(text, MARKS)


@pytest.mark.parametrize(
    ("declared", "raw", "codec"),
    [
        ("8859/1", "é".encode("latin-1"), "iso8859-1"),
        ("8859/15", "€".encode("iso8859-15"), "iso8859-15"),
        ("UNICODE UTF-8", "é".encode(), "utf-8"),
        ("UTF8", "é".encode(), "utf-8"),
        ("ISO-8859-1", "é".encode("latin-1"), "iso8859-1"),
        ("WINDOWS-1252", "é".encode("cp1252"), "cp1252"),
        ("", "é".encode("cp1252"), "cp1252"),
        ("UNICODE UTF-8", "é".encode("latin-1"), "cp1252"),
        ("ASCII", "é".encode(), "utf-8"),
        ("NONSENSE", "é".encode(), "utf-8"),
    ],
)
def test_the_declared_set_then_utf8_then_cp1252(declared: str, raw: bytes, codec: str) -> None:
    text, used = decode(raw, declared)
    assert used == codec
    assert len(text) == 1


@given(st.binary(max_size=80))
def test_no_byte_is_lost_in_decoding(raw: bytes) -> None:
    text, codec = decode(raw)
    assert text.encode(codec) == raw


def test_addresses_count_segments_of_one_name() -> None:
    message = parse(MSH + b"\rOBX|7|NM|a||1\rNTE|1\rOBX|7|NM|b^c||2~3^4")
    assert message is not None
    second = list(message.segments("OBX"))[1]
    assert (second.at(), second.at(5), second.at(5, 1)) == ("OBX[2]", "OBX[2]-5", "OBX[2]-5.1")
    assert second.component(3, 2) == "c"
    assert second.repetitions(5) == ["2", "3^4"]
    assert second.components(5, 1) == ["3", "4"]
    assert second.field(40) == ""


def test_null_is_not_empty() -> None:
    message = parse(MSH + b'\rPID|1|""||')
    assert message is not None
    pid = message.segment("PID")
    assert pid is not None
    assert pid.is_null(2)
    assert not pid.is_null(3)
    assert pid.component(2) == ""


def test_batches_fall_into_messages_and_counts_are_compared() -> None:
    raw = b"\r".join(
        [b"FHS|^~\\&", b"BHS|^~\\&", MSH, b"PID|1", MSH.replace(b"ID1", b"ID2"), b"PID|2", b"BTS|3", b"FTS|1"]
    )
    found = split(raw)
    assert [peek(p).control_id for p in found.pieces] == ["ID1", "ID2"]  # type: ignore[union-attr]
    assert found.mismatches == ["BTS-1: 3 messages announced, 2 found"]
    assert all(b"BTS" not in p and b"FHS" not in p for p in found.pieces)


def test_text_before_the_first_msh_is_one_unreadable_piece() -> None:
    assert split_messages(b"garbage\rPID|1\r" + MSH) == [b"garbage\rPID|1", MSH]
    assert split_messages(b"nothing here") == [b"nothing here"]
    assert split_messages(b"") == []


def test_several_mllp_blocks_in_a_file_are_several_messages() -> None:
    assert split_messages(b"\x0b" + MSH + b"\r\x1c\r\x0b" + MSH + b"\r\x1c\r") == [MSH, MSH]


def test_the_hash_ignores_time_control_id_and_line_ends_only() -> None:
    body = b"\rOBX|1|NM|751-8||1.2"
    again = MSH.replace(b"ID1", b"ID9").replace(b"20261122", b"20261123")
    assert content_hash(MSH + body) == content_hash(again + body)
    assert content_hash(MSH + body) == content_hash(b"\x0b" + MSH + body.replace(b"\r", b"\r\n") + b"\x1c\r")
    assert content_hash(MSH + body) != content_hash(MSH + body.replace(b"1.2", b"1.3"))
    assert content_hash(MSH + body) != content_hash(MSH.replace(b"LABO", b"LAB2") + body)


@given(st.binary(max_size=200))
def test_any_bytes_may_be_peeked_parsed_split_and_hashed(raw: bytes) -> None:
    for data in (raw, MSH + raw, b"MSH" + raw):
        peek(data)
        parse(data)
        split(data)
        content_hash(data)
