"""Importing a register as a hospital does: what would change first, each refusal by line and column, all or nothing."""

from __future__ import annotations

import csv
import functools
import json
import stat
import time
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.register_csv import ImportReport, import_csv, parse, write_report
from store import database, schema

TODAY = date(2026, 11, 22)
HEAD = "patient_id,authority,family,birth_date,sex,treatment_start,neutropenia_history,stopped_on,stop_reason,owner"


@pytest.fixture
def register(url: str) -> str:
    with database.writer(url).connect() as connection, connection.begin():
        schema.upgrade(connection)
    return url


def written(path: Path, *rows: str, head: str = HEAD) -> Path:
    file = path / "register.csv"
    file.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return file


def imported(file: Path, url: str, **options: Any) -> ImportReport:
    return import_csv(file, url, actor="Dr Hoda", zone=ZoneInfo("Europe/Paris"), **options)


def test_all_that_is_wrong_is_said_and_no_value_is_repeated() -> None:
    text = (
        f"{HEAD}\n1,,SECRETNAME,31/01/1980,X,2026-13-01,often,,,\n,,B,,,,,,,\n3,,C,1980-01-31,F,,,2026-01-01,tired,\n"
    )
    rows, complaints = parse(text.encode(), TODAY)
    assert rows == []
    assert [(item.line, item.column) for item in complaints] == [
        (2, "neutropenia_history"), (2, "treatment_start"), (2, "birth_date"), (2, "sex"),
        (3, "patient_id"), (4, "stop_reason"),
    ]  # fmt: skip
    assert not any("SECRETNAME" in item.text or "31/01/1980" in item.text for item in complaints)


@pytest.mark.parametrize(
    "raw",
    [
        "patient_id\tfamily\n1\tÉluard\n".encode("utf-16"),
        "sep=;\npatient_id;family\n1;Éluard\n".encode("cp1252"),
        "patient_id;family\r1;Éluard\r".encode("cp1252"),
    ],
)
def test_other_spreadsheets_files_are_read_too(raw: bytes) -> None:
    (row,), wrong = parse(raw, TODAY)
    assert (row.person.family, wrong) == ("Éluard", [])


@pytest.mark.parametrize("raw", [b"PK\x03\x04\x14\x00", b"patient_id\n\x00\x00\n", b"\xff\xfea"])
def test_what_is_no_text_is_said_to_be_none(raw: bytes) -> None:
    rows, (complaint,) = parse(raw, TODAY)
    assert (rows, complaint.column) == ([], "file")


def test_a_line_is_counted_as_an_editor_counts_it() -> None:
    _, (complaint,) = parse(b'patient_id,family,sex\n1,"two\nlines",F\n2,B,X\n', TODAY)
    assert complaint.line == 4


def test_a_file_without_header_repeats_no_cell() -> None:
    _, complaints = parse(b"405660,SPECIMEN Dominique\n405661,B\n", TODAY)
    assert [(item.column, item.text) for item in complaints] == [
        ("patient_id", "this column is missing"), ("column 1", "unknown column"), ("column 2", "unknown column"),
    ]  # fmt: skip


def test_a_planned_start_is_taken_and_said() -> None:
    (row,), wrong = parse(f"{HEAD}\n1,,A,,,2026-12-24,,,,\n".encode(), TODAY)
    assert wrong == []
    assert [str(note) for note in row.notes] == [
        "line 2, treatment_start: lies in the future: taken as a planned start"
    ]


def test_a_dry_run_tells_new_changed_and_unchanged_and_writes_nothing(
    tmp_path: Path, register: str, rows_of: Any
) -> None:
    one, two = "1,1.2.3,A,1980-01-01,F,2026-01-05,,,,", "2,1.2.3,B,1981-01-01,M,2026-01-05,,,,"
    imported(written(tmp_path, one, two), register)
    before = rows_of("select id, rev from patient order by id")
    file = written(tmp_path, one, two.replace("01-05", "02-05").replace(",B,", ",C,"), "3,1.2.3,D,,,,,,,")
    report = imported(file, register, dry_run=True)
    assert (report.enrolled, report.updated, report.unchanged) == (1, 1, 1)
    assert [(item.line, item.kind) for item in report.changes] == [(3, "changed"), (4, "new")]
    assert report.changes[0].columns == ("family", "treatment_start")
    assert rows_of("select id, rev from patient order by id") == before
    done = imported(file, register)
    assert (done.changes, done.unchanged) == (report.changes, 1)
    assert imported(file, register).unchanged == 3
    assert len(rows_of("select id from audit")) == 4


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (",2026-03-02,ANC<1000,", ",2026-03-02,other,", "stop_reason: on file is a stop for the count"),
        ("stop-level,,,", "mild,,,", "neutropenia_history: milder than what is on file"),
    ],
)
def test_a_file_takes_no_warning_back(
    tmp_path: Path, register: str, rows_of: Any, first: str, second: str, said: str
) -> None:
    start = "1,1.2.3,A,1980-01-01,F,2026-01-05,"
    imported(written(tmp_path, start + first), register)
    before = rows_of("select course from patient")
    report = imported(written(tmp_path, start + second, "2,1.2.3,B,,,,,,,"), register)
    assert said in str(report.complaints[0])
    assert rows_of("select course from patient") == before


def test_the_protocol_on_file_stays_where_the_file_names_none(tmp_path: Path, register: str, rows_of: Any) -> None:
    imported(written(tmp_path, "1,1.2.3,A,,,,,,,"), register, default_protocol="ansm@2025-09")
    imported(written(tmp_path, "1,1.2.3,B,,,,,,,"), register, default_protocol="ansm")
    (course,) = rows_of("select course from patient")
    assert json.loads(course)["protocol"] == "ansm@2025-09"


def test_a_patient_changed_by_somebody_else_meanwhile_is_read_again(tmp_path: Path, register: str, url: str) -> None:
    imported(written(tmp_path, "1,1.2.3,A,,,,,,,"), register)
    moved: list[int] = []

    def somebody_else(done: int, total: int) -> None:
        if not moved:
            with database.writer(url).connect() as other, other.begin():
                other.exec_driver_sql("update patient set rev = rev + 1, owner = 'theirs'")
            moved.append(done)

    report = imported(written(tmp_path, "1,1.2.3,B,,,,,,,"), register, progress=somebody_else)
    assert report.updated == 1
    with database.reader(url).connect() as reader:
        assert tuple(reader.exec_driver_sql("select owner, rev from patient").one()) == ("theirs", 3)


def test_ten_thousand_rows_are_imported_at_once(tmp_path: Path, register: str, rows_of: Any) -> None:
    rows = [f"{number},1.2.3,N{number},1980-01-01,F,2026-01-05,,,," for number in range(10_000)]
    seen: list[int] = []
    started = time.monotonic()
    report = imported(written(tmp_path, *rows), register, progress=lambda done, total: seen.append(done))
    assert (report.enrolled, seen[-1]) == (10_000, 10_000)
    assert time.monotonic() - started < 60  # a hang, not a benchmark
    assert rows_of("select count(*) from patient") == [10_000]
    assert imported(tmp_path / "register.csv", register).unchanged == 10_000


def test_the_report_lists_each_refusal_and_overwrites_nothing(tmp_path: Path, register: str) -> None:
    report = imported(written(tmp_path, "1,,A,yesterday,,,,,,", "1,,B,,X,,none,,,", "2,,C,,,,none,,,"), register)
    out = tmp_path / "refused.csv"
    write_report(out, report)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with out.open(encoding="utf-8-sig", newline="") as read:
        rows = list(csv.DictReader(read))
    assert [(row["kind"], row["line"], row["column"]) for row in rows] == [
        ("refused", "2", "birth_date"), ("refused", "3", "sex"), ("refused", "3", "patient_id"),
        ("note", "4", "neutropenia_history"),
    ]  # fmt: skip
    with pytest.raises(FileExistsError):
        write_report(out, report)


def test_the_command_says_what_was_refused_and_that_nothing_was_imported(
    tmp_path: Path, url: str, neutroflag: Any
) -> None:
    config = tmp_path / "n.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    run = functools.partial(neutroflag, "patients", "import", config=config)
    file = written(tmp_path, "1,,A,yesterday,,,,,,", "2,,B,,,,,,,")
    refused = run(file, "--report", tmp_path / "refused.csv")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "line 2, birth_date" in refused.stderr
    assert refused.stderr.endswith("1 refused, nothing was imported\n")
    assert (tmp_path / "refused.csv").exists()
    assert run(file, "--report", tmp_path / "refused.csv").returncode == 1
    file = written(tmp_path, "2,,B,,,,,,,", "3,,C,,,,,,,")
    (tmp_path / "neutroflag.db").unlink()
    dry = run(file, "--dry-run")
    assert not (tmp_path / "neutroflag.db").exists()
    assert dry.stdout.splitlines() == [
        "line 2: new: family", "line 3: new: family",
        "2 rows: 2 would be enrolled, 0 would be updated, 0 unchanged; nothing was written",
    ]  # fmt: skip
    done = run(file)
    assert done.stdout == "2 rows: 2 were enrolled, 0 were updated, 0 unchanged\n"
    assert run(tmp_path / "none.csv").returncode == 1
