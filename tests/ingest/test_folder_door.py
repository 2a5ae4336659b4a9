"""Files laid down in a folder, to a running engine: taken once, whole, and moved to where their outcome says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

Eventually = Callable[..., Awaitable[Any]]


def hprim(drawn: datetime, value: str = "840", *, name: str = "R1.HPR", patient: str = "405660") -> bytes:
    stamp = drawn.astimezone().strftime("%Y%m%d%H%M")
    lines = [
        f"H|~^\\&|{name}||LAB1~LABO EXEMPLE||ORU|||CHX~HOPITAL||P|H2.2~C|{stamp}",
        f"P|1|{patient}|||SPECIMEN~DOMINIQUE||19790328|F",
        f"OBR|1|D1~|B1|NFS~Numération formule~L|R|{stamp}|{stamp}",
        f"OBX|1|NM|PNN~Polynucléaires neutrophiles~L||{value}|/mm3|1500 - 7500|L|||F|||{stamp}",
        "L|1",
    ]
    return ("\r\n".join(lines) + "\r\n").encode("cp850")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "from laboratories"


@pytest.fixture
async def watched(run_engine: Callable[..., Awaitable[Any]], folder: Path) -> Any:
    extra = f'[files]\nfolder = ["{folder}"]\npoll_s = 0.02\nsettle_s = 0.1\nhalf_after_s = 1.5'
    return await run_engine(extra=extra)


def names(folder: Path) -> dict[str, list[str]]:
    """Where every file is, by folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path.name)
    return found


async def test_a_file_is_stored_as_it_was_judged_and_moved_with_its_outcome(
    watched: Any, folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    raw = hprim(before(hours=1))
    (folder / "R1.HPR").write_bytes(raw)
    await eventually(lambda: names(folder) == {"done/unenrolled": ["R1.HPR"]})
    (message,) = await watched.messages()
    assert (message["channel"], message["sender"], message["control_id"]) == ("files", "LAB1|LABO EXEMPLE", "R1.HPR")
    assert (folder / "done" / "unenrolled" / "R1.HPR").read_bytes() == raw
    assert await watched.findings() == []


async def test_a_half_written_file_is_waited_for(
    watched: Any, folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    raw = hprim(before(hours=1))
    with (folder / "R1.HPR").open("wb") as file:
        file.write(raw[:200])
        file.flush()
        await asyncio.sleep(0.5)  # long settled, and still without its last line
        assert names(folder) == {".": ["R1.HPR"]}
        file.write(raw[200:])
    await eventually(lambda: names(folder) == {"done/unenrolled": ["R1.HPR"]})
    assert len(await watched.messages()) == 1


async def test_a_file_whose_end_never_comes_is_set_aside_whole(
    watched: Any, folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    raw = hprim(before(hours=1))[:200]
    (folder / "R1.HPR").write_bytes(raw)
    await eventually(lambda: names(folder) == {"done/set_aside": ["R1.HPR"]})
    assert (folder / "done" / "set_aside" / "R1.HPR").read_bytes() == raw


async def test_the_same_file_again_is_a_duplicate_and_another_of_its_name_is_not(
    watched: Any, folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    drawn = before(hours=1)
    for number, raw in enumerate([hprim(drawn), hprim(drawn), hprim(drawn, "1900")], start=1):
        (folder / "R1.HPR").write_bytes(raw)
        await eventually(lambda number=number: len(names(folder).get("done/unenrolled", [])) == number)
    assert names(folder)["done/unenrolled"] == ["R1.HPR", "R1.HPR.2", "R1.HPR.3"]
    assert sorted(await watched.dispositions()) == ["duplicate", "unenrolled", "unenrolled"]


async def test_what_was_taken_when_the_engine_died_is_stored_once(
    run_engine: Callable[..., Awaitable[Any]], folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    (folder / "taken").mkdir(parents=True)
    (folder / "taken" / "R1.HPR").write_bytes(hprim(before(hours=1)))
    extra = f'[files]\nfolder = ["{folder}"]\npoll_s = 0.02\nsettle_s = 0.1'
    engine = await run_engine(extra=extra)
    await eventually(lambda: names(folder) == {"done/unenrolled": ["R1.HPR"]})
    assert await engine.dispositions() == ["unenrolled"]


async def test_every_format_is_taken_and_unfinished_names_are_left(
    watched: Any, folder: Path, eventually: Eventually, hl7: Any, root: Path
) -> None:
    (folder / "counts.hl7").write_bytes(hl7.oru("A1") + hl7.oru("A2", unit="", filler="B2"))
    (folder / "report.xml").write_bytes((root / "fixtures" / "cda" / "percent-and-leukocytes.xml").read_bytes())
    (folder / "one.json").write_bytes((root / "fixtures" / "fhir" / "observation.json").read_bytes())
    (folder / "noise.bin").write_bytes(os.urandom(64))
    (folder / "R9.HPR.part").write_bytes(b"H|~^\\&|")
    (folder / ".hidden").write_bytes(b"x")
    wanted = {
        ".": [".hidden", "R9.HPR.part"],
        "done/set_aside": ["noise.bin"],
        "done/unassessable": ["counts.hl7"],
        "done/unenrolled": ["one.json", "report.xml"],
    }
    await eventually(lambda: names(folder) == wanted)
    assert len(await watched.messages()) == 5


async def test_a_count_of_a_patient_on_the_register_is_judged(
    watched: Any, folder: Path, eventually: Eventually, before: Callable[..., datetime]
) -> None:
    await watched.enrol("405660", authority="LAB1")
    (folder / "R1.HPR").write_bytes(hprim(before(hours=1), "840"))
    await eventually(lambda: names(folder) == {"done/judged": ["R1.HPR"]})
    await watched.settled()
    assert "delivered" in {row["state"] for row in await watched.deliveries()}
