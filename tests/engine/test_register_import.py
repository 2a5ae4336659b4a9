"""The register by CSV: all rows or none, and a complaint names line and column without repeating a patient's data."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from engine.register_csv import authority, import_csv, parse
from rules.model import Attestation, CompleteStop, PatientIdentifier, StopReason
from store import Store, database, schema

TODAY = date(2026, 11, 22)


def complaints(text: str) -> list[str]:
    return [str(item) for item in parse(text.encode(), TODAY)[1]]


def test_a_row_becomes_a_patient_with_a_course() -> None:
    head = "patient_id,authority,family,birth_date,treatment_start,last_anc_on,last_anc_per_mm3,interruptions\n"
    line = "0012,1.2.3,Müller,1980-01-31,2026-01-05,2026-11-02,2400.5,2026-03-01/2026-03-04;2026-06-01\n"
    (row,), wrong = parse((head + line).encode(), TODAY)
    assert wrong == []
    assert (row.identifier.value, row.identifier.authority, row.identifier.type) == ("0012", "urn:oid:1.2.3", "PI")
    assert row.course.start == date(2026, 1, 5)
    assert row.last_anc == (date(2026, 11, 2), Decimal("2400.5"))
    assert [pause.restart is None for pause in row.course.interruptions] == [False, True]


@pytest.mark.parametrize(
    "raw",
    [
        "patient_id;family\n1;Éluard\n".encode("cp1252"),
        "patient_id;family\r\n1;Éluard\r\n".encode(),
        "patient_id,family\n1,Éluard\n".encode("utf-8-sig"),
    ],
)
def test_files_as_spreadsheets_write_them_are_read(raw: bytes) -> None:
    (row,), wrong = parse(raw, TODAY)
    assert (row.person.family, wrong) == ("Éluard", [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("family\nX\n", "line 1, patient_id: this column is missing"),
        ("patient_id,familly\n1,X\n", "line 1, familly: unknown column; did you mean family?"),
        ("patient_id,patient_id\n1,1\n", "line 1, patient_id: the column stands there twice"),
        ("patient_id,sex\n1\n", "line 2, row: 1 fields where the header has 2"),
        ("patient_id,sex\n,F\n", "line 2, patient_id: missing"),
        (
            "patient_id,birth_date\n1,31/01/1980\n",
            "line 2, birth_date: write the date as 2026-11-22, year first: which of 03/04 is the month cannot be known",
        ),
        ("patient_id,birth_date\n1,next week\n", "line 2, birth_date: write the date as 2026-11-22"),
        ("patient_id,birth_date\n1,2026-02-30\n", "line 2, birth_date: no such day in the calendar"),
        ("patient_id,birth_date\n1,0198-02-03\n", "line 2, birth_date: lies before 1900"),
        ("patient_id,treatment_start\n1,2028-01-31\n", "line 2, treatment_start: lies more than a year in the future"),
        (
            "patient_id,birth_date,treatment_start\n1,2001-01-31,2000-01-31\n",
            "line 2, treatment_start: before the date of birth",
        ),
        (
            "patient_id,stopped_on,stop_reason\n1,2026-11-01,tired\n",
            "line 2, stop_reason: one of ANC<1000, ANC<500, LEGACY_RED, other",
        ),
        ("patient_id,stop_reason\n1,other\n", "line 2, stopped_on: a stop reason without the day of the stop"),
        (
            "patient_id,interruptions\n1,2026-03-01/2026-03-09;2026-03-08/2026-03-10\n",
            "line 2, interruptions: interruptions overlap or are not in order",
        ),
        (
            "patient_id,interruptions\n1,2026-03-01;2026-03-08/2026-03-10\n",
            "line 2, interruptions: interruptions overlap or are not in order",
        ),
        (
            "patient_id,interruptions,stopped_on,stop_reason\n1,2026-03-04/2026-03-09,2026-03-02,other\n",
            "line 2, interruptions: after the complete stop",
        ),
        ("patient_id,interruptions\n1,2026-12-04\n", "line 2, interruptions: lies in the future"),
        ("patient_id,sex\n1,X\n", "line 2, sex: one of F, M, O (other), U (unknown)"),
        (
            "patient_id,id_type\n1,VN\n",
            "line 2, id_type: names an account, a visit or an insured person, who need not be the patient",
        ),
        (
            "patient_id,last_anc_on,last_anc_per_mm3\n1,2026-11-01,2.4\n",
            "line 2, last_anc_per_mm3: looks like G/L; write cells per mm3, such as 2400",
        ),
        (
            'patient_id,family\n1,"X\n2,Y\n',
            "line 2, row: a quotation mark that is never closed; nothing after it was read",
        ),
        ("", "line 1, patient_id: the file is empty: the first line must name the columns"),
        ("patient_id,birth_date\n1,2027-01-31\n", "line 2, birth_date: lies in the future"),
        ("patient_id\n1\n\n1\n", "line 4, patient_id: the same patient as on line 2"),
        (
            "patient_id,interruptions\n1,2026-03-04/2026-03-01\n",
            "line 2, interruptions: a restart before its last dose",
        ),
        (
            "patient_id,treatment_start,interruptions\n1,2026-03-01,2026-02-01\n",
            "line 2, interruptions: before the first dose",
        ),
        ("patient_id,last_anc_on\n1,2026-11-01\n", "line 2, last_anc_per_mm3: count and day belong together"),
        (
            'patient_id,last_anc_on,last_anc_per_mm3\n1,2026-11-01,"2,4"\n',
            "line 2, last_anc_per_mm3: cells per mm3, such as 2400",
        ),
        (
            "patient_id,ben_confirmed_on\n1,2026-11-01\n",
            "line 2, ben_confirmed_by: who confirmed it and when belong together",
        ),
        ("patient_id,protocol\n1,nonesuch\n", "line 2, protocol: no such protocol; `neutroflag rules list` names them"),
        (
            "patient_id,neutropenia_history\n1,often\n",
            "line 2, neutropenia_history: one of none, mild, stop-level, unknown",
        ),
    ],
)
def test_a_complaint_names_line_and_column(text: str, said: str) -> None:
    assert complaints(text) == [said]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1.2.3", "urn:oid:1.2.3"),
        ("urn:oid:1.2.3", "urn:oid:1.2.3"),
        ("CHX&1.2.3&ISO", "urn:oid:1.2.3"),
        ("CHX", "CHX"),
    ],
)
def test_one_authority_has_one_name(given: str, expected: str) -> None:
    assert authority(given) == expected


def test_one_wrong_row_keeps_the_whole_file_out(tmp_path: Path, url: str) -> None:
    with database.writer(url).connect() as connection, connection.begin():
        schema.upgrade(connection)
    file = tmp_path / "register.csv"
    file.write_text("patient_id,birth_date\n1,1980-01-01\n2,yesterday\n", encoding="utf-8")
    zone = ZoneInfo("Europe/Paris")
    report = import_csv(file, url, actor="Dr Hoda", zone=zone)
    assert not report.written
    file.write_text("patient_id,birth_date\n1,1980-01-01\n2,1980-01-02\n", encoding="utf-8")
    assert import_csv(file, url, actor="Dr Hoda", zone=zone, dry_run=True).enrolled == 2
    assert import_csv(file, url, actor="Dr Hoda", zone=zone).enrolled == 2
    assert import_csv(file, url, actor="Dr Hoda", zone=zone).unchanged == 2


async def test_an_empty_cell_takes_back_nothing_that_is_on_file(tmp_path: Path, url: str) -> None:
    head = "patient_id,authority,treatment_start,stopped_on,stop_reason,ben_confirmed_on,ben_confirmed_by"
    for number, row in enumerate(
        ("405660,1.2.3,2026-01-05,2026-03-02,ANC<1000,2025-12-01,Dr Who", "405660,1.2.3,2026-01-05,,,,")
    ):
        file = tmp_path / f"{number}.csv"
        file.write_text(f"{head}\n{row}\n")
        if not number:
            with database.writer(url).connect() as connection, connection.begin():
                schema.upgrade(connection)
        assert import_csv(file, url, actor="test", zone=ZoneInfo("Europe/Paris")).written
    store = Store(url)
    await store.open()
    (record,) = await store.patients([PatientIdentifier("405660", "urn:oid:1.2.3", "PI")])
    await store.close()
    assert record.course.stop == CompleteStop(date(2026, 3, 2), StopReason.ANC_BELOW_1000)
    assert record.course.ben == Attestation("Dr Who", date(2025, 12, 1))
