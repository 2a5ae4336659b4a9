"""One fact, told by two channels under two keys: a correction through either of them reaches it."""

from __future__ import annotations

import json
from typing import Any

import pytest


def counts(running: Any) -> Any:
    """Current counts as the store has them: (value, status)."""

    def look(connection: Any) -> list[tuple[str, str]]:
        rows = connection.exec_driver_sql("SELECT body FROM result WHERE current ORDER BY id").fetchall()
        bodies = [json.loads(row[0]) for row in rows]
        return [(body["anc"]["per_mm3"] if body["anc"] else "", body["status"]) for body in bodies]

    return running.store.read(look)


@pytest.mark.parametrize("apart", [True, False], ids=["a message at a time", "in one batch"])
async def test_the_second_channel_corrects_what_the_first_one_told(
    running: Any, hl7: Any, before: Any, apart: bool
) -> None:
    drawn = before(hours=3)
    messages = [
        hl7.oru("M1", anc="0.84", filler="B1", collected=drawn),
        hl7.oru("M2", anc="0.84", filler="OTHER-1", collected=drawn),
        hl7.oru("M3", anc="2.84", filler="OTHER-1", collected=drawn, status="C"),
    ]
    if apart:
        for message in messages:
            await running.tell(message)
    else:
        await running.tell(*messages)
    assert await counts(running) == [("2840.00", "corrected")]


async def test_the_first_channel_still_finds_it_after_the_second_has_corrected_it(
    running: Any, hl7: Any, before: Any
) -> None:
    drawn = before(hours=3)
    for message in (
        hl7.oru("M1", anc="0.84", filler="B1", collected=drawn),
        hl7.oru("M2", anc="0.84", filler="OTHER-1", collected=drawn),
        hl7.oru("M3", anc="2.84", filler="OTHER-1", collected=drawn, status="C"),
        hl7.oru("M4", anc="2.94", filler="B1", collected=drawn, status="C"),
    ):
        await running.tell(message)
    assert await counts(running) == [("2940.00", "corrected")]


async def test_another_value_that_is_no_correction_is_kept_beside_it(running: Any, hl7: Any, before: Any) -> None:
    drawn = before(hours=3)
    for message in (
        hl7.oru("M1", anc="0.84", filler="B1", collected=drawn),
        hl7.oru("M2", anc="0.84", filler="OTHER-1", collected=drawn),
        hl7.oru("M3", anc="2.84", filler="OTHER-1", collected=drawn),
    ):
        await running.tell(message)
    assert [value for value, _ in await counts(running)] == ["840.00", "2840.00"]
