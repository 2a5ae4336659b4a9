"""Every verdict that the engine has filed comes out the same when it is made again from what was known then."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.cli_shadow import rules_replay


def replay(path: Path) -> tuple[int, dict[str, Any]]:
    out, err = io.StringIO(), io.StringIO()
    code = rules_replay(path, out, err, json=True)
    return code, json.loads(out.getvalue().splitlines()[-1])


async def test_any_stored_verdict_comes_out_the_same(
    running: Any, hl7: Any, before: Callable[..., datetime], settings_file: Callable[..., Path]
) -> None:
    start = before(days=400).date().isoformat()
    await running.enrol("405660", treatment_start=start, start_confirmed_by="Dr A", neutropenia_history="none")
    tell = running.tell
    await tell(
        hl7.oru("R1", anc="2.50", filler="F1", collected=before(days=40)),
        hl7.oru("R2", anc="1.40", filler="F2", collected=before(days=12)),
        hl7.oru("R3", anc="1.45", filler="F3", collected=before(days=5)),
        hl7.oru("R4", anc="0.84", filler="F4", status="P", collected=before(hours=3)),
    )
    await tell(hl7.oru("R5", anc="1.84", filler="F4", status="C", collected=before(hours=3)))
    await tell(hl7.oru("R6", anc="1.60", filler="F2", status="C", collected=before(days=12)))
    await tell(hl7.oru("R7", anc="0.90", filler="F5", collected=before(hours=1)))
    await running.enrol("405660", treatment_start=before(days=300).date().isoformat(), start_confirmed_by="Dr A")
    await tell(hl7.oru("R8", anc="2.00", filler="F6", collected=before(minutes=10)))
    await running.settled()
    path = settings_file()
    code, sums = replay(path)
    assert (code, sums["differs"], sums["unknown"]) == (0, 0, 0)
    assert sums["same"] >= 8


async def test_a_verdict_that_was_tampered_with_is_named(
    running: Any, hl7: Any, before: Callable[..., datetime], settings_file: Callable[..., Path]
) -> None:
    await running.enrol("405660", treatment_start=before(days=400).date().isoformat(), start_confirmed_by="Dr A")
    await running.tell(hl7.oru("R1", anc="0.84", filler="F1", collected=before(hours=3)))
    await running.settled()
    path = settings_file()
    database = running.engine.settings.store.url.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE assessment SET body = replace(body, 'STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE', 'CONTINUE')"
        )
        connection.commit()
    connection.close()
    code, sums = replay(path)
    assert code == 1
    assert sums["differs"] >= 1
