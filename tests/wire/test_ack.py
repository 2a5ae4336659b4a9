"""Acknowledgements: which, whether, and in what words, for every version; held against two other implementations."""

from datetime import UTC, datetime

import hl7
import pytest
from hl7apy.parser import parse_message
from hl7apy.validation import Validator
from hypothesis import given
from hypothesis import strategies as st

from wire.ack import AckError, acknowledge, answers, read_ack, verdict
from wire.er7 import Header, peek

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
VERSIONS = ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"]


def header(
    version: str = "2.5", kind: str = "ORU^R01^ORU_R01", accept: str = "", application: str = "", **more: str
) -> Header:
    marks = more.get("marks", "^~\\&")
    found = peek(
        f"MSH|{marks}|SIL|LABO|NF|CHX|20261122||{kind}|ID-1|P|{version}|||{accept}|{application}||8859/1\r".encode(
            "latin-1"
        )
    )
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("code", ["AA", "AR"])
def test_an_answer_is_valid_in_every_version(version: str, code: str) -> None:
    error = None if code == "AA" else AckError(200, "Queries are not answered", ("MSH", "1", "9"))
    raw = acknowledge(header(version), "AA" if code == "AA" else "AR", control_id="OUT1", now=NOW, error=error)
    text = raw.decode("latin-1")
    theirs = hl7.parse(text)
    assert str(theirs["MSA"][0][2]) == "ID-1"
    assert str(theirs["MSH"][0][3]) == "NF"
    assert str(theirs["MSH"][0][5]) == "SIL"
    assert str(theirs["MSH"][0][12]) == version
    assert str(theirs["MSH"][0][18]) == "8859/1"
    parsed = parse_message(text, find_groups=True)
    assert parsed.msa.msa_1.value == code
    if version not in ("2.3", "2.3.1"):
        assert Validator.validate(parsed)
    ours = read_ack(raw)
    assert ours is not None
    assert (ours.code, ours.control_id) == (code, "ID-1")
    assert ours.errors == (() if error is None else ("200",))


def test_old_versions_carry_the_words_in_msa_3_and_new_ones_in_err() -> None:
    error = AckError(207, "disk full | retry")
    old = acknowledge(header("2.3"), "AE", control_id="1", now=NOW, error=error).decode()
    new = acknowledge(header("2.5.1"), "AE", control_id="1", now=NOW, error=error).decode()
    assert "MSA|AE|ID-1|disk full \\F\\ retry\r" in old
    assert "ERR|^^^207&Application internal error&HL70357" in old
    assert "MSA|AE|ID-1\r" in new
    assert "ERR|||207^Application internal error^HL70357|E||||disk full \\F\\ retry" in new


def test_the_separators_of_the_sender_are_kept() -> None:
    found = peek(b"MSH@~&#\\@SIL@LABO@NF@CHX@2026@@ORU~R01@X1@P@2.4\r")
    raw = acknowledge(found, "AA", control_id="1", now=NOW)
    assert raw.startswith(b"MSH@~&#\\@NF@CHX@SIL@LABO@")
    assert b"@ACK~R01~ACK@" in raw
    assert b"MSA@AA@X1\r" in raw


def test_an_unreadable_header_is_answered_all_the_same() -> None:
    code, error = verdict(None)
    raw = acknowledge(None, code, control_id="1", now=NOW, error=error)
    assert code == "AR"
    assert b"\rMSA|AR\r" in raw
    assert b"100^Segment sequence error" in raw


@pytest.mark.parametrize("kind", ["QRY^A19", "QBP^Q11", "ORM^O01", "OML^O21", "RDE^O11", "OMG^O19"])
def test_queries_and_orders_are_refused(kind: str) -> None:
    code, error = verdict(header(kind=kind))
    assert (code, error.condition if error else 0) == ("AR", 200)
    assert verdict(header(kind=kind, accept="AL"))[0] == "CR"


@pytest.mark.parametrize("kind", ["ORU^R01", "OUL^R22", "ADT^A40", "MDM^T02", "DFT^P03", "XYZ^Z01"])
def test_what_is_stored_is_accepted(kind: str) -> None:
    assert verdict(header(kind=kind)) == ("AA", None)
    assert verdict(header(kind=kind, accept="AL", application="NE")) == ("CA", None)


def test_original_mode_answers_once_and_enhanced_mode_as_asked() -> None:
    original = answers(header())
    assert not original.enhanced
    assert original.wants_application("AA")
    assert not original.wants_accept("CA")
    enhanced = answers(header(accept="AL", application="ER"))
    assert enhanced.wants_accept("CA")
    assert not enhanced.wants_application("AA")
    assert enhanced.wants_application("AE")
    success = answers(header(accept="SU"))
    assert success.wants_accept("CA")
    assert not success.wants_accept("CE")
    never = answers(header(accept="NE", application="NE"))
    assert not never.wants_accept("CR")
    assert not never.wants_application("AR")


def test_an_acknowledgement_is_never_acknowledged() -> None:
    for wanted in (answers(header(kind="ACK^R01^ACK", accept="AL")), answers(header(), has_msa=True)):
        assert not wanted.wants_accept("CA")
        assert not wanted.wants_application("AA")


def test_answers_are_read_with_any_line_end() -> None:
    ack = read_ack(
        b"\x0bMSH|^~\\&|A|B|C|D|2026||ACK^R01|9|P|2.3\nMSA|ae|ID-1|too late\nERR|OBX^2^5^102&Data type error&HL70357\n\x1c\r"
    )
    assert ack is not None
    assert (ack.code, ack.control_id, ack.errors, ack.accepted) == ("AE", "ID-1", ("102",), False)
    assert "too late" in ack.text
    assert read_ack(b"MSH|^~\\&|A\rPID|1") is None
    assert read_ack(b"") is None


@pytest.mark.parametrize("version", ["2³5", "", "two", "2..5", "2.5.1.9.9"])
def test_a_version_that_nobody_knows_is_answered(version: str) -> None:
    assert b"MSA|AA|ID-1" in acknowledge(header(version), "AA", control_id="1", now=NOW)


@given(st.binary(max_size=120))
def test_any_bytes_get_an_answer(raw: bytes) -> None:
    for data in (raw, b"MSH" + raw, b"MSH|^~\\&|" + raw):
        found = peek(data)
        code, error = verdict(found)
        answer = read_ack(acknowledge(found, code, control_id="1", now=NOW, error=error))
        assert answer is not None or found is not None
        answers(found)
