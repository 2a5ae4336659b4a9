"""The demo plays to its end, and what the prescriber's systems hold is what the cast's table says."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from engine import demo
from engine.demo_outcome import Held, compare, read_v2
from engine.demo_table import cast, events, register
from engine.register_csv import parse
from rules.model import AlertLevel, Assessment


def test_the_demo_ends_by_itself_with_everything_delivered_as_the_table_says():
    out = io.StringIO()
    assert demo.run(once=True, stdout=out) == 0, out.getvalue()
    text = out.getvalue()
    assert "PROBLEM" not in text
    assert "DIFFERS" not in text
    assert re.findall(r"^DEMO-\S+ .* OK +OK +OK *$", text, re.MULTILINE).__len__() == len(cast())
    received = re.search(r"^received +(\d+) = (.*)$", text, re.MULTILINE)
    assert received is not None
    assert int(received[1]) == sum(int(number) for number in re.findall(r" (\d+)", " " + received[2]))
    for name in ("ehr (FHIR)", "ehr-v2 (HL7 v2)"):
        delivered = re.search(
            rf"^delivered +(\d+) of (\d+) to {re.escape(name)}, which holds (\d+)$", text, re.MULTILINE
        )
        assert delivered is not None
        assert delivered[1] == delivered[2] == delivered[3]
    assert "CRITICAL Flag + Task  DEMO-CRITICAL" in text
    assert "1 alert taken back" in text


def test_a_site_s_environment_does_not_reach_the_demo(monkeypatch, tmp_path):
    # The address of a real database must not be where invented patients are written.
    monkeypatch.setenv("NEUTROFLAG_STORE__URL", f"sqlite:///{tmp_path / 'real.db'}")
    with demo._own_settings_only():
        assert "NEUTROFLAG_STORE__URL" not in os.environ
    assert os.environ["NEUTROFLAG_STORE__URL"].endswith("real.db")


def test_the_demo_takes_free_ports_when_the_customary_ones_are_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert demo._port(taken.getsockname()[1]) == 0


def test_without_once_the_demo_runs_until_it_is_told_to_stop(tmp_path: Path):
    file = tmp_path / "out.txt"
    with file.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "engine.cli", "demo"], stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 30
    while "counts of the last 90 days" not in file.read_text() and time.monotonic() < deadline:
        assert process.poll() is None, file.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0, file.read_text()
    assert "mllp://127.0.0.1:" in file.read_text()


def test_the_register_of_the_cast_is_one_that_the_import_takes():
    rows, complaints = parse(register(date(2026, 11, 22)).encode(), date(2026, 11, 22))
    assert complaints == []
    assert {row.identifier.value for row in rows} == {patient.id for patient in cast()}
    assert all(row.identifier.authority == "urn:oid:2.999.1" for row in rows)


def test_every_patient_of_the_cast_has_a_live_event():
    assert {event.patient for event in events() if event.what == "count"} == {patient.id for patient in cast()}


@pytest.mark.parametrize("spoilt", ["family", "level", "state", "due"])
def test_an_alert_that_differs_in_anything_is_told(spoilt):
    (mild,) = (patient for patient in cast() if patient.id == "DEMO-MILD")
    right = Held("ANC-MILD", "amber", "open", "2026-12-20")
    wrong = Held(**{name: getattr(right, name) for name in ("family", "level", "state", "due")} | {spoilt: "x"})
    (row,) = compare([mild], {}, {mild.id: [right]}, {mild.id: [wrong]}, date(2026, 11, 22))
    assert (row.engine, row.fhir) == ("no verdict", "")
    assert row.v2
    assert not row.ok


def test_an_alert_too_many_or_too_few_is_told():
    (steady,) = (patient for patient in cast() if patient.id == "DEMO-STEADY")
    verdict = Assessment(
        protocol="ansm@2025-09", category="normal", action="CONTINUE", alert=AlertLevel.NONE, rule="R3c", citations=(),
        next_due=date(2027, 2, 14),
    )  # fmt: skip
    review = Held("ANC-REVIEW", "amber", "open", "", "unit-missing")
    mild = Held("ANC-MILD", "amber", "open", "2026-12-20")
    (row,) = compare([steady], {steady.id: verdict}, {steady.id: [review, mild]}, {}, date(2026, 11, 22))
    assert row.engine == ""
    assert "ANC-MILD" in row.fhir
    assert row.v2 == "nothing"


def test_what_is_no_alert_reads_as_unreadable():
    assert read_v2(b"MSH|^~\\&|A\r")[2].family == "unreadable"
