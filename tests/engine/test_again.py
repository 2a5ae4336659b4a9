"""Triage and doing it again, by the commands beside a running engine: by kind, edited, by destination, by whom."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import FAILURE, OK, USAGE
from engine.cli_again import (
    dead_groups_command,
    dead_replay_command,
    messages_groups_command,
    messages_replay_command,
)


@pytest.fixture
def config(settings_file: Callable[..., Path]) -> Path:
    return settings_file()


def said(command: Callable[..., int], *arguments: Any) -> tuple[int, list[dict[str, Any]]]:
    out, err = io.StringIO(), io.StringIO()
    code = command(*arguments, stdout=out, stderr=err)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def replay(
    config: Path,
    *numbers: int,
    kind: str = "",
    reason: str = "",
    sender: str = "",
    edited: Path | None = None,
    yes: bool = False,
) -> tuple[int, list[dict[str, Any]]]:
    return said(messages_replay_command, config, numbers, kind, reason, sender, edited, "Dr Hoda", True, yes)


async def test_what_failed_alike_is_one_kind_and_is_judged_again_together_once(
    running: Any, hl7: Any, config: Path, rows_of: Any
) -> None:
    odd = [hl7.oru(f"M{n}", unit="", filler=f"F{n}") for n in range(3)]
    await running.tell(*odd, hl7.oru("OTHER", unit="", sender="AUTRE|LABO2"), b"no message at all")
    code, groups = said(messages_groups_command, config, True)
    assert code == OK
    assert sorted((one["count"], one["open"], one["sender"]) for one in groups) == [
        (1, 1, ""),
        (1, 1, "AUTRE|LABO2"),
        (3, 3, "SIL|LABO"),
    ]
    kind = next(one["fingerprint"] for one in groups if one["count"] == 3)
    code, seen = replay(config, kind=kind)
    assert code == OK
    assert [(one["before"] == one["after"], one["alerts"]) for one in seen] == [(True, [])] * 3  # asks nobody twice
    assert rows_of("SELECT count(*) FROM message") == [5]
    code, done = replay(config, kind=kind, yes=True)
    assert (code, [one["message"] for one in done]) == (OK, [1, 2, 3])
    assert rows_of("SELECT replay_of FROM message WHERE replay_of IS NOT NULL ORDER BY id") == [1, 2, 3]
    # Each once: those that were judged again are not open any more, their copies are.
    await running.judged()
    code, _ = replay(config, 1, yes=True)
    assert code == OK
    _, groups = said(messages_groups_command, config, True)
    assert next((one["count"], one["open"]) for one in groups if one["fingerprint"] == kind) == (6, 3)
    assert rows_of("SELECT DISTINCT actor FROM audit WHERE action = 'replay-message'") == ["Dr Hoda"]
    await running.judged()
    assert await running.findings() == []


async def test_an_edited_message_is_judged_beside_its_original_and_a_look_ahead_says_what_it_would_tell(
    running: Any, hl7: Any, config: Path, rows_of: Any, tmp_path: Path, prescriber: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", unit=""))
    await running.settled()
    flags = len(prescriber.flags())
    mended = tmp_path / "mended.hl7"
    mended.write_bytes(hl7.oru("M1", anc="0.84"))
    code, (seen,) = replay(config, 1, edited=mended)
    assert code == OK
    assert seen["before"].startswith("unassessable (unit-missing")
    assert (seen["after"], seen["counts"]) == ("judged", ["count 840/mm3"])
    assert "raised red: ANC-STOP" in seen["alerts"]
    assert rows_of("SELECT count(*) FROM message") == [1]
    assert len(prescriber.flags()) == flags
    code, (done,) = replay(config, 1, edited=mended, yes=True)
    assert (code, done) == (OK, {"message": 1, "copy": 2})
    running.store.arrived.set()
    await running.settled()
    assert rows_of("SELECT disposition, replay_of FROM message ORDER BY id") == [("unassessable", None), ("judged", 1)]
    assert len(rows_of("SELECT raw FROM body")) == 2
    assert len(prescriber.flags()) == flags + 1
    (detail,) = rows_of("SELECT detail FROM audit WHERE action = 'replay-message'")
    assert json.loads(detail) == {"message": 1, "copy": 2, "edited": True}
    assert await running.findings() == []


async def test_nothing_is_judged_again_that_nobody_named(running: Any, hl7: Any, config: Path, tmp_path: Path) -> None:
    await running.tell(hl7.oru("M1"))
    assert replay(config)[0] == FAILURE
    assert replay(config, kind="00000000", yes=True)[0] == FAILURE
    assert replay(config, 1, 2, edited=tmp_path / "x")[0] == USAGE
    assert replay(config, 99, yes=True) == (FAILURE, [{"message": 99, "copy": None}])


async def test_all_that_one_destination_did_not_take_is_sent_again_by_name(
    running: Any, hl7: Any, config: Path, prescriber: Any, rows_of: Any, eventually: Any
) -> None:
    del prescriber.fhir.held["Patient"]["p1"]  # unknown there
    await running.tell(hl7.oru("M1", anc="0.84"))
    await eventually(lambda: rows_of("SELECT count(*) FROM delivery WHERE state = 'dead'") != [0])
    code, groups = said(dead_groups_command, config, True)
    assert (code, [(one["destination"], one["count"]) for one in groups]) == (OK, [("ehr", 1)])
    prescriber.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")

    def again(destination: str, code: str, yes: bool) -> tuple[int, str]:
        out = io.StringIO()
        done = dead_replay_command(config, [], destination, code, "Dr Hoda", yes, stdout=out, stderr=io.StringIO())
        return done, out.getvalue()

    assert again("elsewhere", "", True)[0] == FAILURE
    code, words = again("ehr", "", False)
    assert code == OK
    assert "would replay: 1 of 1" in words
    assert rows_of("SELECT count(*) FROM audit WHERE action = 'replay-dead'") == [0]
    assert rows_of("SELECT count(*) FROM delivery WHERE state = 'dead'") == [1]
    assert again("ehr", groups[0]["code"], True)[0] == OK
    await running.settled()
    assert [flag["status"] for flag in prescriber.flags()] == ["active"]
    assert rows_of("SELECT actor FROM audit WHERE action = 'replay-dead'") == ["Dr Hoda"]
