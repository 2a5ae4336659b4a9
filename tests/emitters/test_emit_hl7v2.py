"""What the v2 alert says, judged by hl7apy (STRICT) and read back by python-hl7."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import product

import hl7
import pytest

from emitters.check import judge_v2
from emitters.hl7v2 import CHARSETS, V2Profile, alert_message, filler_number
from rules.model import (
    AlertFamily,
    AlertKind,
    AlertLevel,
    PatientIdentifier,
    Person,
    ResultStatus,
    Subject,
)

CONTROL_ID = "8f0c2b6e7a614c0f9a10"


def build(alert, **profile: str) -> bytes:
    return alert_message(alert, control_id=CONTROL_ID, profile=V2Profile(**profile))


def read(message: bytes, codec: str = "utf-8") -> hl7.Message:
    return hl7.parse(message.decode(codec))


def observations(message: bytes) -> dict[str, hl7.Segment]:
    return {str(row[3][0][0]): row for row in read(message).segments("OBX")}


def every_alert(make):
    for family, kind in product(AlertFamily, AlertKind):
        build_alert = make.review if family is AlertFamily.REVIEW else make.alert
        for reason in ("corrected", "entered-in-error") if kind is AlertKind.WITHDRAWN else ("",):
            yield build_alert(family=family, kind=kind, **({"reason": reason} if reason else {}))


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7"])
def test_a_stop_is_valid_in_every_version(make, version):
    assert judge_v2(build(make.alert(), version=version)) == []


def test_every_family_and_kind_is_valid(make):
    for alert in every_alert(make):
        assert judge_v2(build(alert)) == [], (alert.family, alert.kind, alert.reason)


def test_the_judge_does_complain():
    message = b"MSH|^~\\&|A|B|C|D|20261122101605||ORU^R01^ORU_R01|1|P|2.5\rPID|1||1||X\rOBX|1|NM||||||||||\r"
    assert judge_v2(message) != []
    assert judge_v2(b"nothing") == ["no readable MSH"]


def test_the_stop_says_all_that_it_must(make):
    message = build(make.alert())
    parsed = read(message)
    assert str(parsed.segment("MSH")[10]) == CONTROL_ID
    assert [str(parsed.segment("MSH")[n]) for n in (3, 9, 11, 12, 17, 18)] == [
        "NEUTROFLAG", "ORU^R01^ORU_R01", "P", "2.5", "FRA", "UNICODE UTF-8",
    ]  # fmt: skip
    assert (
        str(parsed.segment("PID")[3]) == "405660^^^&1.2.3.4.5.6&ISO^PI~279035121518989^^^&1.2.250.1.213.1.4.10&ISO^INS"
    )
    assert str(parsed.segment("PID")[5]) == "PAT-TROIS^DOMINIQUE^^^^^L"
    order = parsed.segment("OBR")
    assert str(order[3]) == "a32b482151a45253^NEUTROFLAG"
    assert str(order[7]) == "20261122080500+0100"
    assert str(order[25]) == "F"
    assert str(order[29]) == "98765431&SIL^1001-E1&labo"
    rows = observations(message)
    assert str(rows["ANC-DECISION"][5]).startswith("ANC-STOP^")
    count = rows["26499-4"]
    assert [str(count[n]) for n in (2, 4, 5, 6, 7, 8, 11)] == ["NM", "1", "0.84", "10*9/L^^UCUM", ">=1", "LL", "F"]
    assert str(rows["ANC-NEXT-DUE"][5]) == "20261123"
    assert str(rows["ANC-RULE"][5]) == "R5 ansm@2025-09"


def test_a_comparator_is_a_structured_numeric(make):
    count = observations(build(make.alert(result=make.result(anc=make.count("100", comparator="<")))))["26499-4"]
    assert (str(count[2]), str(count[5])) == ("SN", "<^0.1")


def test_separators_and_line_ends_in_a_text_stay_text(make):
    nasty = "a|b^c&d~e\\f\r\nMSH|^~\\&|x\x0b\x1c\x00\u2028end"
    message = build(make.alert(title=nasty, text=nasty))
    assert b"\x0b" not in message
    assert b"\x1c" not in message
    assert message.count(b"MSH|") == 1
    text = observations(message)["ANC-TEXT"]
    lines = [hl7.parse(message.decode()).unescape(str(line)) for line in text[5]]
    assert lines[0] == "a|b^c&d~e\\f"
    assert lines[1].startswith("MSH|^~\\&|x")
    assert judge_v2(message) == []


def test_identifiers_go_back_to_cx(make):
    subject = Subject(
        register_id="r",
        identifiers=(
            PatientIdentifier("1", "urn:oid:1.2", "PI"),
            PatientIdentifier("2", "https://hospital.example/ipp", "MR"),
            PatientIdentifier("3", "CHX", "PI"),
            PatientIdentifier("4"),
        ),
    )
    parsed = read(build(make.alert(subject=subject))).segment("PID")
    assert str(parsed[3]) == "1^^^&1.2&ISO^PI~2^^^&https://hospital.example/ipp&URI^MR~3^^^CHX^PI~4"
    assert str(parsed[5]) == "^^^^^^U"


def test_an_unreadable_patient_is_no_pid(make):
    message = build(make.review(subject=Subject(register_id="", person=Person())))
    assert b"\rPID" not in message
    assert judge_v2(message) == []
    rows = observations(message)
    assert str(rows["ANC-DECISION"][5]).startswith("ANC-REVIEW^")
    assert str(rows["ANC-REASON"][5]).startswith("unit-missing^")
    assert "26499-4" not in rows
    assert "OBX[2]-6" in str(rows["ANC-TEXT"][5])


def test_a_revision_is_a_correction_of_the_same_filler_number(make):
    first, second = build(make.alert()), build(make.later())
    assert str(read(first).segment("OBR")[3]) == str(read(second).segment("OBR")[3])
    assert str(read(second).segment("OBR")[25]) == "C"
    assert {str(row[11]) for row in read(second).segments("OBX")} == {"C"}


def test_an_alert_withdrawn_for_a_corrected_result_says_so_in_words(make):
    message = build(make.later(kind=AlertKind.WITHDRAWN, reason="corrected"))
    rows = observations(message)
    assert str(read(message).segment("OBR")[25]) == "C"
    assert str(rows["ANC-DECISION"][5]).startswith("ANC-WITHDRAWN^ALERTE ANNULÉE")
    assert str(rows["ANC-TEXT"][5]).startswith("ALERTE ANNULÉE~")


def test_what_no_longer_holds_is_taken_back_row_by_row(make):
    gone = make.later(
        kind=AlertKind.WITHDRAWN,
        reason="entered-in-error",
        result=make.result(status=ResultStatus.ENTERED_IN_ERROR, anc=None),
        assessment=None,
    )
    message = build(gone)
    assert judge_v2(message) == []
    rows = observations(message)
    assert [str(rows["26499-4"][n]) for n in (4, 5, 11)] == ["1", "", "W"]
    assert [str(rows["ANC-NEXT-DUE"][n]) for n in (5, 11)] == ["", "W"]
    no_date = observations(build(make.later(assessment=make.assessment(next_due=None))))
    assert [str(no_date["ANC-NEXT-DUE"][n]) for n in (5, 11)] == ["", "D"]
    assert str(no_date["ANC-DECISION"][11]) == "C"


@pytest.mark.parametrize(("status", "letter"), [(ResultStatus.ENTERED_IN_ERROR, "W"), (ResultStatus.CANCELLED, "D")])
def test_an_alert_that_never_should_have_been_leaves_a_visible_text(make, status, letter):
    gone = make.later(kind=AlertKind.WITHDRAWN, reason="entered-in-error", result=make.result(status=status))
    message = build(gone)
    rows = observations(message)
    assert str(read(message).segment("OBR")[25]) == "X"
    assert str(rows["ANC-DECISION"][11]) == letter
    assert str(rows["26499-4"][11]) == letter
    assert str(rows["ANC-TEXT"][11]) == "C"
    assert str(rows["ANC-TEXT"][5]).startswith("ALERTE ANNULÉE~")


@pytest.mark.parametrize("charset", [name for name in CHARSETS if name])
def test_no_character_makes_a_message_fail(make, charset):
    alert = make.alert(title="PNN ≤ 0,5 × 10⁹/L – « stop » œ € Łukasz 漢 \udc80", text="é\u00a0è\u202f1")
    message = build(alert, charset=charset)
    text = message.decode(CHARSETS[charset])
    assert charset.encode() in message.split(b"\r")[0]
    assert "PNN " in text
    if charset == "8859/15":
        assert "PNN <= 0,5 × 109/L - « stop » œ € " in text


def test_a_substitute_is_never_a_separator(make):
    # Full-width forms decompose to the ASCII separators.
    parsed = read(build(make.alert(title="a｜b＾c＆d～e＼f"), charset="8859/15"), "iso8859-15")
    assert str(parsed.segments("OBX")[2][5][0]) == "a?b?c?d?e?f"


def test_times_carry_their_offset_only_where_there_is_one(make):
    naive = make.result(collected_at=datetime(2026, 11, 22, 8, 5))  # noqa: DTZ001 - the point of the test
    assert str(read(build(make.alert(result=naive))).segment("OBR")[7]) == "20261122080500"
    west = make.result(collected_at=datetime(2026, 11, 22, 8, 5, tzinfo=timezone(-timedelta(hours=3, minutes=30))))
    assert str(read(build(make.alert(result=west))).segment("OBR")[7]) == "20261122080500-0330"
    day = make.result(time_known=False)
    assert str(read(build(make.alert(result=day))).segment("OBR")[7]) == "20261122"


def test_test_data_is_marked_as_test(make):
    assert str(read(build(make.alert(production=False))).segment("MSH")[11]) == "T"


def test_english_is_spoken_where_it_is_asked_for(make):
    assert b"Monitoring aid" in build(make.alert(language="en"))


def test_the_same_alert_gives_the_same_bytes(make):
    assert build(make.alert()) == build(make.alert())


def test_the_level_shows_in_the_decisions_flag(make):
    flags = [str(observations(build(make.alert(level=level)))["ANC-DECISION"][8]) for level in AlertLevel]
    assert flags == ["", "", "A", "AA", "AA"]


@pytest.mark.parametrize("bad", ["", "x" * 21, "a|b", "a\rb"])
def test_a_control_id_that_could_not_come_back_is_refused(make, bad):
    with pytest.raises(ValueError, match="control id"):
        alert_message(make.alert(), control_id=bad, profile=V2Profile())


def test_a_profile_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="charset"):
        V2Profile(charset="EBCDIC")
    with pytest.raises(ValueError, match="version"):
        V2Profile(version="3")


def test_the_reference_range_is_the_threshold_and_absent_without_one(make):
    without = replace(make.assessment(), threshold_per_mm3=None)
    assert str(observations(build(make.alert(assessment=without)))["26499-4"][7]) == ""
    mild = replace(make.assessment(), threshold_per_mm3=Decimal(1500))
    assert str(observations(build(make.alert(assessment=mild)))["26499-4"][7]) == ">=1.5"


@pytest.mark.parametrize(
    ("recipient", "number"), [("pharmacist", "a32b482151a4525p"), ("laboratory", "a32b482151a4525l")]
)
def test_a_copy_has_a_number_of_its_own_that_is_no_alerts(make, recipient, number):
    copy = make.alert(recipient=recipient)
    assert f"|{number}^NEUTROFLAG|" in build(copy).decode()
    assert f"|{number}.1^NEUTROFLAG|" in build(copy, shape="MDM_T02").decode()
    assert judge_v2(build(copy)) == []


def test_filler_numbers_fit_and_differ():
    assert filler_number("a32b4821-51a4-5253-b956-d3b932eed8fc") == "a32b482151a45253"


def test_importing_the_emitters_does_no_heavy_work():
    before = set(sys.modules)
    importlib.import_module("emitters.check")
    assert not any(name.startswith(("hl7apy", "fhir.resources")) for name in set(sys.modules) - before)


def test_a_long_sentence_is_broken_between_words_so_that_a_strict_receiver_takes_it(make):
    sentence = " ".join(["PNN\u00a0<1000/mm3 (1.0x10^9/L)"] * 30)
    message = build(replace(make.alert(), text=f"Titre\n{sentence}"))
    assert judge_v2(message) == []
    row = next(row for row in message.decode().split("\r") if "ANC-TEXT" in row)
    pieces = row.split("|")[5].split("~")
    assert max(map(len, pieces)) <= 199
    assert " ".join(pieces[2:]).replace("\\S\\", "^") == sentence
