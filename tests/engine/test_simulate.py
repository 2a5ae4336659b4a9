"""The simulated laboratories: readable counts, a bounded load whose every message is accounted for, and messages by hand."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from engine.sending import send_command
from engine.simulate import LABORATORIES, blood_count, laboratories, load, simulate_command
from ingest.reading import read_message
from rules.model import ResultStatus, Trust

DRAWN = datetime(2026, 11, 22, 7, 40, tzinfo=UTC)


@pytest.mark.parametrize("laboratory", LABORATORIES, ids=lambda lab: lab.application)
@pytest.mark.parametrize("count", [400, 1000, 1500, 3470])
def test_each_laboratory_s_count_is_read_exactly(laboratory, count):
    raw = blood_count(
        control_id="A1", filler="F1", patient_id="P1", anc_per_mm3=count, collected=DRAWN, laboratory=laboratory
    )
    reading = read_message(raw, format="hl7v2")
    (result,) = reading.results
    assert result.anc is not None
    assert (result.anc.per_mm3, result.trust, result.status) == (Decimal(count), Trust.ESTABLISHED, ResultStatus.FINAL)
    assert (result.collected_at, reading.control_id) == (DRAWN, "A1")
    assert raw.count(b"\rOBX|") == 25
    assert 5000 < len(raw) < 6500


def test_a_count_without_unit_is_a_question_for_a_person():
    raw = blood_count(control_id="A1", filler="F1", patient_id="P1", anc_per_mm3=3000, collected=DRAWN, unit="")
    reading = read_message(raw, format="hl7v2")
    assert [problem.code for problem in reading.problems] == ["unit-missing"]
    assert all(result.trust is Trust.PROVISIONAL for result in reading.results)


def test_the_same_arguments_give_the_same_bytes():
    first, second = (
        blood_count(control_id="A", filler="F", patient_id="P", anc_per_mm3=Decimal(2500), collected=DRAWN, sent=DRAWN)
        for _ in range(2)
    )
    assert first == second


def test_control_ids_of_a_load_are_unique_and_fit_msh_10():
    ids = {laboratories("0a1b2c3d")(number).split(b"|", 10)[9] for number in range(500)}
    assert len(ids) == 500
    assert max(map(len, ids)) <= 20


async def test_every_message_of_a_load_is_answered_and_has_its_disposition(running):
    report = await load("127.0.0.1", running.mllp_port, laboratories("load1"), count=300, connections=8)
    await running.judged()
    snapshot = await running.store.snapshot()
    assert (report.sent, report.answered, report.accepted, dict(report.errors)) == (300, 300, 300, {})
    assert snapshot.received == 300
    assert sum(snapshot.dispositions.values()) == 300
    assert 0 < report.percentile_ms(50) <= report.percentile_ms(99)


async def test_a_rate_is_kept(running):
    report = await load("127.0.0.1", running.mllp_port, laboratories("load2"), count=40, connections=4, rate=100)
    assert report.answered == 40
    # The last message is due 0.39 s after the first; a load that ignored its rate would be done far earlier.
    assert report.seconds >= 0.39


async def test_a_listener_that_hangs_up_is_an_error_and_not_an_endless_wait():
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        report = await load("127.0.0.1", port, laboratories("load3"), count=10, connections=2, limit_s=10)
    assert report.answered == 0


async def test_a_listener_that_never_answers_ends_with_the_time_limit():
    async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    report = await load("127.0.0.1", port, laboratories("load4"), count=10, connections=2, limit_s=0.3)
    server.close()
    assert report.answered == 0
    assert report.sent == 2
    assert any("not finished" in words for words in report.errors)


@pytest.mark.parametrize(
    ("to", "asked", "said"),
    [
        ("http://127.0.0.1:1", {}, "mllp://HOST:PORT"),
        ("mllp://127.0.0.1", {}, "mllp://HOST:PORT"),
        ("mllp://127.0.0.1:99999", {}, "mllp://HOST:PORT"),
        ("mllp://192.0.2.1:2575", {}, "--allow-remote"),
        ("mllp://127.0.0.1:1", {"count": 0}, "--count"),
        ("mllp://127.0.0.1:1", {"connections": 0}, "--count"),
    ],
)
def test_a_load_that_cannot_or_must_not_be_made_is_refused(to, asked, said):
    err = io.StringIO()
    wanted = {"rate": 0, "connections": 1, "count": 1} | asked
    assert simulate_command(to, **wanted, stdout=io.StringIO(), stderr=err) == 2
    assert said in err.getvalue()


def test_nobody_listening_is_said_plainly():
    err = io.StringIO()
    assert simulate_command("mllp://127.0.0.1:1", rate=0, connections=1, count=1, stdout=io.StringIO(), stderr=err) == 1
    assert "mllp://127.0.0.1:1" in err.getvalue()


async def test_the_command_prints_rate_and_times(running):
    out = io.StringIO()
    to = f"mllp://127.0.0.1:{running.mllp_port}"
    code = await asyncio.to_thread(
        simulate_command, to, rate=0, connections=2, count=20, stdout=out, stderr=io.StringIO()
    )
    assert code == 0
    assert "AA 20" in out.getvalue()
    for word in ("rate", "p50", "p95", "p99"):
        assert word in out.getvalue()


# neutroflag send


async def _sent(to: str, *files: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return await asyncio.to_thread(send_command, files, to, out, err), out.getvalue(), err.getvalue()


async def test_each_message_of_a_batch_is_sent_and_each_answer_printed(running, hl7, tmp_path):
    file = tmp_path / "batch.hl7"
    file.write_bytes(hl7.oru("B1") + hl7.oru("B2", filler="B2002"))
    code, out, err = await _sent(f"mllp://127.0.0.1:{running.mllp_port}", file)
    assert code == 0, err
    assert out.count("  MSA|AA|") == 2
    assert "2 of 2 accepted" in err


async def test_a_refused_message_makes_the_exit_code_1(running, tmp_path):
    file = tmp_path / "odd.hl7"
    file.write_bytes(b"this is not HL7")
    code, out, _ = await _sent(f"mllp://127.0.0.1:{running.mllp_port}", file)
    assert code == 1
    assert "AR" in out


async def test_a_message_that_wants_no_answer_is_not_waited_for(running, hl7, tmp_path):
    file = tmp_path / "quiet.hl7"
    file.write_bytes(hl7.oru("Q1", accept="NE", application="NE"))
    code, out, _ = await _sent(f"mllp://127.0.0.1:{running.mllp_port}", file)
    assert code == 0
    assert "no answer asked for" in out


async def test_fhir_goes_to_the_fhir_door_and_its_outcome_is_printed(running, fhir, as_json, tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(as_json(fhir.observation()))
    bad.write_bytes(as_json({"resourceType": "Spaceship"}))
    assert (await _sent(running.url, good))[:2] == (
        0,
        f"{good}: HTTP 201 Created\n  information informational Stored\n",
    )
    code, out, _ = await _sent(f"{running.url}/fhir", bad)
    assert code == 1
    assert "HTTP 404" in out
    assert "not-supported" in out


async def test_hl7_goes_over_http_too(running, hl7, tmp_path):
    file = tmp_path / "one.hl7"
    file.write_bytes(hl7.oru("H1"))
    code, out, _ = await _sent(f"{running.url}/hl7", file)
    assert code == 0
    assert "MSA|AA|H1" in out


@pytest.mark.parametrize("to", ["127.0.0.1:2575", "mllp://127.0.0.1", "ftp://127.0.0.1:21"])
async def test_an_address_that_is_none_is_refused(to, tmp_path):
    file = tmp_path / "x.hl7"
    file.write_bytes(b"MSH|")
    assert (await _sent(to, file))[0] == 2


async def test_a_file_that_is_not_there_and_fhir_over_mllp_are_refused(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"resourceType": "Observation"}))
    assert (await _sent("mllp://127.0.0.1:1", tmp_path / "none"))[0] == 2
    assert (await _sent("mllp://127.0.0.1:1", file))[0] == 2


@pytest.mark.parametrize("to", ["mllp://127.0.0.1:1", "http://127.0.0.1:1"])
async def test_a_door_that_is_closed_is_said_plainly(to, hl7, tmp_path):
    file = tmp_path / "x.hl7"
    file.write_bytes(hl7.oru())
    code, _, err = await _sent(to, file)
    assert code == 1
    assert to in err
