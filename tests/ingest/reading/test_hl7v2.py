"""HL7 v2 messages: identity, keys, grouping, statuses, times."""

import base64
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from ingest.reading import Reading, read_file, read_message
from rules.model import OrderReference, PatientIdentifier, ResultStatus, Trust

MSH = "MSH|^~\\&|SIL|LABO|NF|CHX|20261122101605||ORU^R01^ORU_R01|ID1|P|2.5"
PID = "PID|1|OLD|279035121518989^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.8&ISO^INS~V77^^^CHX^VN~405660^^^CHX&1.2.3&ISO^PI||A^B"
OBR = "OBR|1|D1^CHX|B1^SIL^1.2.9^ISO|58410-2^NFS^LN|||20261122080500"
ANC = "OBX|1|NM|751-8^Neutrophils^LN|a|1.25|10*9/L|||||F"


def read(*segments: str, zone: ZoneInfo | None = None) -> Reading:
    return read_message("\r".join(segments).encode(), format="hl7v2", zone=zone)


def test_the_establishment_s_identifier_comes_first_and_a_visit_is_no_patient() -> None:
    result = read(MSH, PID, OBR, ANC).results[0]
    assert result.identifiers == (
        PatientIdentifier("405660", "urn:oid:1.2.3", "PI"),
        PatientIdentifier("279035121518989", "urn:oid:1.2.250.1.213.1.4.8", "INS"),
    )


def test_pid_2_and_pid_19_are_never_matched_on() -> None:
    result = read(MSH, "PID|1|OLD|||A^B||||||||||||||ACC|SSN", OBR, ANC).results[0]
    assert result.identifiers == ()
    assert result.doubts == ("patient-missing",)
    assert result.trust is Trust.PROVISIONAL


def test_the_key_holds_sender_order_code_and_sub_id_but_no_time() -> None:
    first = read(MSH, PID, OBR, ANC).results[0]
    later = read(MSH, PID, OBR.replace("080500", "090000"), ANC).results[0]
    assert first.key == later.key == "SIL|LABO|B1@urn:oid:1.2.9|ANC:751-8|a"
    assert first.order == OrderReference(placer="D1@CHX", filler="B1@urn:oid:1.2.9")


def test_without_a_filler_number_the_key_says_that_it_is_a_fallback() -> None:
    for obr in ("OBR|1|D1||NFS|||20261122080500", "OBR|1|||NFS|||20261122080500"):
        assert read(MSH, PID, obr, ANC).results[0].key.startswith("fallback|")
    assert (
        read(MSH, PID, "ORC|RE||B7^SIL", "OBR|1|||NFS|||20261122080500", ANC)
        .results[0]
        .key.startswith("SIL|LABO|B7@SIL|")
    )


def test_the_zone_is_applied_only_where_no_offset_is_stated() -> None:
    paris = ZoneInfo("Europe/Paris")
    assert read(MSH, PID, OBR, ANC).results[0].collected_at == datetime(2026, 11, 22, 8, 5)  # noqa: DTZ001 - naive
    local = read(MSH, PID, OBR, ANC, zone=paris).results[0]
    assert local.collected_at == datetime(2026, 11, 22, 8, 5, tzinfo=paris)
    stated = read(MSH, PID, OBR.replace("080500", "080500-0500"), ANC, zone=paris).results[0]
    assert stated.collected_at == datetime(2026, 11, 22, 8, 5, tzinfo=timezone(timedelta(hours=-5)))


def test_the_repeated_hour_of_october_is_a_doubt_once_a_zone_is_known() -> None:
    result = read(
        MSH, PID, OBR.replace("20261122080500", "20261025023000"), ANC, zone=ZoneInfo("Europe/Paris")
    ).results[0]
    assert "time-ambiguous" in result.doubts
    assert result.collected_at is not None
    assert result.collected_at.fold == 0


def test_obx_14_wins_over_obr_7_over_spm_17_and_nothing_else_is_a_collection_time() -> None:
    own = ANC + "|||20261122073000"
    assert read(MSH, PID, OBR, own).results[0].collected_at == datetime(2026, 11, 22, 7, 30)  # noqa: DTZ001 - naive
    bare = "OBR|1|D1|B1|NFS" + "|" * 18 + "20261122100000"
    spm = "SPM|1|||BLD" + "|" * 13 + "20261122070000^20261122070100"
    assert read(MSH, PID, bare, ANC, spm).results[0].collected_at == datetime(2026, 11, 22, 7)  # noqa: DTZ001 - naive
    none = read(MSH, PID, bare, ANC).results[0]
    assert none.collected_at is None
    assert none.doubts == ("collection-time-missing",)
    assert none.issued_at == datetime(2026, 11, 22, 10)  # noqa: DTZ001 - naive


def test_an_iso_date_is_read_too() -> None:
    obr = OBR.replace("20261122080500", "2026-11-22T08:05:00+01:00")
    found = read(MSH, PID, obr, ANC).results[0].collected_at
    assert found is not None
    assert found.isoformat() == "2026-11-22T08:05:00+01:00"


def test_several_patients_in_one_message_stay_apart() -> None:
    other = PID.replace("405660", "999999")
    second = ANC.replace("1.25", "0.40")
    reading = read(MSH, PID, OBR, ANC, other, OBR.replace("B1", "B2"), second)
    assert [(r.identifiers[0].value, r.anc.per_mm3 if r.anc else None) for r in reading.results] == [
        ("405660", Decimal(1250)),
        ("999999", Decimal(400)),
    ]


def test_a_percentage_of_one_patient_never_meets_the_leukocytes_of_another() -> None:
    wbc = "OBX|1|NM|6690-2^Leukocytes^LN||5.0|10*9/L|||||F"
    percent = "OBX|1|NM|770-8^Neutrophils %^LN||50|%|||||F"
    reading = read(MSH, PID, OBR, wbc, PID.replace("405660", "999999"), OBR.replace("B1", "B2"), percent)
    assert reading.results == ()
    assert [(p.code, p.identifiers[0].value) for p in reading.problems] == [("percent-without-leukocytes", "999999")]


def test_the_leukocytes_of_another_time_derive_nothing() -> None:
    wbc = "OBX|1|NM|6690-2^Leukocytes^LN||5.0|10*9/L|||||F|||20261121080000"
    percent = "OBX|2|NM|770-8^Neutrophils %^LN||50|%|||||F"
    assert read(MSH, PID, OBR, wbc, percent).disposition == "unassessable"


def test_a_derived_count_has_the_worst_status_of_its_inputs() -> None:
    wbc = "OBX|1|NM|6690-2^Leukocytes^LN||5.0|10*9/L|||||P"
    percent = "OBX|2|NM|770-8^Neutrophils %^LN||50|%|||||F"
    result = read(MSH, PID, OBR, wbc, percent).results[0]
    assert result.status is ResultStatus.PRELIMINARY
    assert result.trust is Trust.PROVISIONAL


def test_a_derived_count_beside_an_unreadable_reported_one_is_provisional() -> None:
    rows = ["OBX|1|NM|6690-2^W^LN||5.0|10*9/L|||||F", "OBX|2|NM|770-8^N %^LN||20|%|||||F", ANC.replace("10*9/L", "")]
    reading = read(MSH, PID, OBR, *rows)
    assert [(r.anc.per_mm3 if r.anc else None, r.doubts) for r in reading.results] == [
        (Decimal(1000), ("reported-count-unreadable",))
    ]
    assert [p.code for p in reading.problems] == ["unit-missing"]


def test_a_reported_count_that_the_formula_contradicts_is_provisional_with_the_lower_bound() -> None:
    rows = ["OBX|1|NM|6690-2^W^LN||5.0|10*9/L|||||F", "OBX|2|NM|770-8^N %^LN||10|%|||||F", ANC.replace("1.25", "2.50")]
    result = read(MSH, PID, OBR, *rows).results[0]
    assert result.anc is not None
    assert (result.anc.per_mm3, result.anc.lower_bound, result.doubts) == (
        Decimal(2500),
        Decimal("470.25"),
        ("derived-disagrees",),
    )


def test_more_neutrophils_than_leukocytes_is_a_doubt() -> None:
    result = read(MSH, PID, OBR, "OBX|1|NM|6690-2^W^LN||1.0|10*9/L|||||F", ANC).results[0]
    assert result.doubts == ("exceeds-leukocytes",)


def test_two_counts_that_differ_are_two_results() -> None:
    manual = ANC.replace("751-8", "753-4").replace("1.25", "0.90")
    assert [r.anc.per_mm3 for r in read(MSH, PID, OBR, ANC, manual).results if r.anc] == [Decimal(1250), Decimal(900)]


def test_repeated_values_in_one_field_are_refused_unless_they_are_one() -> None:
    assert read(MSH, PID, OBR, ANC.replace("1.25", "1.25~1.25")).results
    assert [p.code for p in read(MSH, PID, OBR, ANC.replace("1.25", "1.25~55")).problems] == ["value-repeated"]


def test_a_truncated_value_is_refused() -> None:
    cut = read(MSH.replace("^~\\&", "^~\\&#"), PID, OBR, ANC.replace("1.25", "1.2#"))
    assert [p.code for p in cut.problems] == ["value-truncated"]


def test_a_test_message_is_no_production() -> None:
    reading = read(MSH.replace("|P|", "|T|"), PID, OBR, ANC)
    assert not reading.production
    assert reading.results[0].doubts == ("test-message",)
    assert read(MSH.replace("|P|", "||"), PID, OBR, ANC).production


def test_an_oul_takes_the_specimen_that_stands_before_its_order() -> None:
    head = MSH.replace("ORU^R01^ORU_R01", "OUL^R22^OUL_R22")
    csf = "SPM|1|||CSF^Cerebrospinal fluid"
    blood = "SPM|2|||BLD^Blood"
    reading = read(head, PID, csf, OBR, ANC, blood, OBR.replace("B1", "B2"), ANC)
    assert [r.where for r in reading.results] == ["OBX[2]"]
    assert [p.code for p in reading.problems] == ["specimen-conflict"]


def test_a_radiology_document_is_not_our_business() -> None:
    obx = "OBX|1|ED|18748-4^Radio thorax^LN||^APPLICATION^PDF^Base64^JVBERi0=||||||F"
    assert read(MSH, PID, "OBR|1|D|B|RAD^Radio thorax", obx).disposition == "not_relevant"


def test_a_lonely_broken_message_in_a_batch_does_not_cost_the_others() -> None:
    good = "\r".join([MSH, PID, OBR, ANC])
    readings = read_file(("MSH|&&&&|x\rPID|1\r" + good).encode())
    assert [r.disposition for r in readings] == ["set_aside", "results"]


def test_what_was_read_before_changes_no_reading() -> None:
    # The second PID leaves the order without an OBX.
    segments = (MSH, "PID|1||77^^^CHX^PI", OBR, PID, "OBX|1|NM|2345-7^Glucose^LN||5.1|mmol/L|||||F")
    first = read(*segments)
    assert [i.value for i in first.identifiers] == ["77"]
    assert read(*segments) == first


def test_one_document_twice_with_two_values_is_doubted_both_times() -> None:
    document = (Path(__file__).parents[3] / "fixtures" / "cda" / "absolute-count.xml").read_bytes()
    packed = (base64.b64encode(one).decode() for one in (document, document.replace(b'"0.84"', b'"0.74"')))
    rows = (f"OBX|{n}|ED|11502-2^CR^LN||^TEXT^XML^Base64^{data}||||||F" for n, data in enumerate(packed, 1))
    found = read(MSH, PID, OBR, *rows).results
    assert [(result.anc.per_mm3 if result.anc else None, result.doubts) for result in found] == [
        (Decimal(840), ("counts-differ",)),
        (Decimal(740), ("counts-differ",)),
    ]


def test_a_count_before_any_pid_is_nobodys_and_is_not_lost() -> None:
    raw = (
        b"MSH|^~\\&|LIS|LAB|N|H|20261122||ORU^R01|X1|P|2.5\r"
        b"OBX|1|NM|26499-4^PNN^LN||0.84|G/L|||||F\r"
        b"PID|1||900001^^^CHX&1.2.3.4.5&ISO^PI\r"
        b"OBR|1|P|F|58410-2^NFS^LN|||20261122\r"
    )
    reading = read_message(raw, format="hl7v2")
    (result,) = reading.results
    assert result.identifiers == ()
    assert "patient-missing" in result.doubts
    assert [entry.where for entry in reading.ledger] == ["OBX[1]"]
