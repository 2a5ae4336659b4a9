"""What laboratories send after the count: cancelled orders, confirmations without a value; and the profile of a sender."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine.config import ConfigError
from engine.sites import load_sites


def standing(running: Any) -> Any:
    """Current counts, as the store has them: (status, trust)."""
    sql = "SELECT json_extract(body, '$.status'), json_extract(body, '$.trust') FROM result WHERE current ORDER BY id"
    return running.store.read(lambda connection: [tuple(row) for row in connection.exec_driver_sql(sql).fetchall()])


def without_value(raw: bytes, status: str) -> bytes:
    """The same message with OBX-5 and OBX-6 left out."""
    head, obx = raw.decode().rstrip("\r").rsplit("\r", 1)
    fields = obx.split("|")
    fields[5] = fields[6] = ""
    fields[11] = status
    return f"{head}\r{'|'.join(fields)}\r".encode()


async def test_an_order_that_is_cancelled_takes_its_counts_back(running: Any, hl7: Any, before: Any) -> None:
    drawn = before(hours=3)
    count = hl7.oru("M1", anc="0.84", collected=drawn, issued=before(hours=2))
    cancelled = hl7.oru("M2", anc="0.84", collected=drawn, issued=before(hours=1), status="X").rsplit(b"OBX", 1)[0]
    await running.tell(count, cancelled)
    assert await standing(running) == [("cancelled", "established")]
    states = "SELECT state FROM alert WHERE family = 'ANC-STOP'"
    found = await running.store.read(lambda c: [row[0] for row in c.exec_driver_sql(states).fetchall()])
    assert found == ["withdrawn"]


async def test_a_preliminary_count_is_confirmed_without_its_value(running: Any, hl7: Any, before: Any) -> None:
    drawn = before(hours=3)
    first = hl7.oru("M1", anc="2.84", collected=drawn, issued=before(hours=2), status="P")
    again = hl7.oru("M2", anc="2.84", collected=drawn, issued=before(hours=1), status="U")
    await running.tell(first, without_value(again, "U"))
    assert await standing(running) == [("final", "established")]
    assert await running.dispositions() == ["judged", "judged"]


async def test_a_confirmation_of_nothing_is_for_a_person(running: Any, hl7: Any) -> None:
    await running.tell(without_value(hl7.oru("M1", status="V"), "V"))
    assert await running.dispositions() == ["unassessable"]
    families = "SELECT family FROM alert"
    found = await running.store.read(lambda c: [row[0] for row in c.exec_driver_sql(families).fetchall()])
    assert found == ["ANC-REVIEW"]


async def test_a_profile_settles_the_missing_status_of_its_sender(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Path, url: str, hl7: Any
) -> None:
    profile = tmp_path / "sil.toml"
    profile.write_text(
        'sender = "SIL|LABO"\nconfirmed_by = "Dr Hoda"\nconfirmed_on = 2026-11-01\ndefault_status = "final"\n'
    )
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=f'[sites]\nfiles = ["{profile}"]')
    await running.tell(
        hl7.oru("M1", anc="2.84", status=""), hl7.oru("M2", anc="2.50", status="", filler="B2", sender="OTHER|LAB")
    )
    assert await standing(running) == [("final", "established"), ("preliminary", "provisional")]


def test_profiles_that_cannot_be_used_stop_the_engine_before_it_starts(tmp_path: Path) -> None:
    good, twin, nameless, broken = (tmp_path / f"{n}.toml" for n in range(4))
    good.write_text('sender = "SIL|LABO"\n')
    twin.write_text('sender = "SIL|LABO"\n')
    nameless.write_text('zone = "Europe/Paris"\n')
    broken.write_text("zone = 3\n")
    with pytest.raises(ConfigError) as error:
        load_sites([good, twin, nameless, broken, tmp_path / "nowhere.toml"])
    assert len(error.value.problems) == 4
    assert set(load_sites([good])) == {"SIL|LABO"}


def reviews(running: Any) -> Any:
    """``(reason, place)`` of every question for a person."""
    sql = "SELECT json_extract(body, '$.reason'), json_extract(body, '$.where') FROM alert WHERE family = 'ANC-REVIEW'"
    return running.store.read(lambda connection: [tuple(row) for row in connection.exec_driver_sql(sql).fetchall()])


async def test_a_count_whose_segment_lost_its_end_is_asked_about_beside_the_one_that_was_read(
    running: Any, hl7: Any
) -> None:
    raw = hl7.oru("M1", anc="2.84").rstrip(b"\r") + b"OBX|2|NM|751-8^Neutrophils^LN|2|0.40|10*9/L|||||F\r"
    await running.tell(raw)
    assert [status for status, _ in await standing(running)] == ["final"]
    assert await reviews(running) == [("segment-joined", "OBX[1]/segment")]


async def test_an_unreadable_count_of_a_document_is_asked_about_beside_the_one_that_was_read(
    running: Any, hl7: Any
) -> None:
    document = (Path(__file__).parents[2] / "fixtures" / "cda" / "absolute-count.xml").read_text()
    start = document.index('<component><observation classCode="OBS" moodCode="EVN"><code code="26499-4"')
    row = document[start : document.index("</component>", start) + len("</component>")]
    other = row.replace("20261122080500", "20261121080500").replace(' unit="10*9/L"', "")
    data = base64.b64encode(document.replace(row, row + other).encode()).decode()
    head = hl7.oru("M1").decode().rsplit("\rOBX", 1)[0]
    await running.tell(f"{head}\rOBX|1|ED|11502-2^CR^LN||^TEXT^XML^Base64^{data}||||||F\r".encode())
    assert [status for status, _ in await standing(running)] == ["final"]
    assert [reason for reason, _ in await reviews(running)] == ["unit-missing"]
