"""What laboratories send after the count: cancelled orders, confirmations without a value; and the profile of a sender."""

from __future__ import annotations

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
