"""Doubt may alarm, never reassure: what provisional evidence, and what a milder later count, must not do."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

PARIS = ZoneInfo("Europe/Paris")


def standing(running: Any) -> Any:
    """Current counts, as the store has them: (value, status, trust)."""

    def look(connection: Any) -> list[tuple[str, str, str]]:
        rows = connection.exec_driver_sql("SELECT body FROM result WHERE current ORDER BY id").fetchall()
        bodies = [json.loads(row[0]) for row in rows]
        return [(body["anc"]["per_mm3"] if body["anc"] else "", body["status"], body["trust"]) for body in bodies]

    return running.store.read(look)


def alerts(running: Any) -> Any:
    def look(connection: Any) -> list[tuple[str, str, str]]:
        sql = "SELECT family, level, state FROM alert ORDER BY raised_at, family"
        return [tuple(row) for row in connection.exec_driver_sql(sql).fetchall()]

    return running.store.read(look)


async def test_a_preliminary_restatement_does_not_replace_a_final_stop_count(
    running: Any, hl7: Any, before: Any
) -> None:
    drawn = before(hours=3)
    await running.tell(
        hl7.oru("M1", anc="0.84", filler="B1", collected=drawn, issued=before(hours=2)),
        hl7.oru("M2", anc="2.84", filler="B1", collected=drawn, issued=before(hours=1), status="P"),
    )
    assert [(value, status) for value, status, _ in await standing(running)] == [("840.00", "final")]
    assert await alerts(running) == [("ANC-STOP", "red", "open")]


async def test_a_preliminary_restatement_that_is_worse_alarms(running: Any, hl7: Any, before: Any) -> None:
    drawn = before(hours=3)
    await running.tell(
        hl7.oru("M1", anc="2.84", filler="B1", collected=drawn, issued=before(hours=2)),
        hl7.oru("M2", anc="0.40", filler="B1", collected=drawn, issued=before(hours=1), status="P"),
    )
    assert ("ANC-STOP", "critical", "open") in await alerts(running)
    assert [(value, status) for value, status, _ in await standing(running)] == [("2840.00", "final")]


async def test_a_withdrawal_of_doubtful_identity_withdraws_nothing_and_asks_a_person(
    running: Any, hl7: Any, before: Any
) -> None:
    drawn = before(hours=3)
    doubtful = hl7.oru("M2", anc='""', filler="B1", collected=drawn, issued=before(hours=1), status="W")
    # PID-32 DOUT: the identity is in doubt (French table 0445).
    doubtful = doubtful.replace(b"|19790328|F\r", b"|19790328|F" + b"|" * 24 + b"DOUT\r")
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=drawn, issued=before(hours=2)), doubtful)
    assert sorted(await alerts(running)) == [("ANC-REVIEW", "amber", "open"), ("ANC-STOP", "red", "open")]


async def test_a_recovered_count_after_a_stop_is_told_beside_the_stop_and_does_not_lower_it(
    running: Any, hl7: Any, before: Any, prescriber: Any
) -> None:
    await running.tell(
        hl7.oru("M1", anc="0.40", filler="B1", collected=before(hours=23)),
        hl7.oru("M2", anc="2.40", filler="B2", collected=before(hours=-0)),
    )
    await running.settled()
    found = await alerts(running)
    assert ("ANC-STOP", "critical", "open") in found
    assert [task["priority"] for task in prescriber.tasks() if task["code"]["coding"][0]["code"] == "ACK-STOP"] == [
        "stat"
    ]


async def test_a_provisional_count_in_loaded_history_satisfies_no_due_test(running: Any, hl7: Any, before: Any) -> None:
    await running.tell(
        hl7.oru("M1", anc="2.40", filler="B1", collected=before(days=40)),
        hl7.oru("M2", anc="2.50", filler="B2", collected=before(days=3), status="P"),
    )
    await running.settled()
    (record,) = await running.store.patients_by_id(await running.store.read(_everybody))
    assert record.present is not None
    assert record.present.as_of == before(days=40).astimezone(PARIS).date()


def _everybody(connection: Any) -> list[str]:
    return [row[0] for row in connection.exec_driver_sql("SELECT id FROM patient WHERE enrolled").fetchall()]
