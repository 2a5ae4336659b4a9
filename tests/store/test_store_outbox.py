"""The outbox: each patient in order, each retry at its time, and nothing leaves but as delivered or as a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from store import database, outbox, schema
from store.port import DeliveryOutcome
from store.values import decode_alert, to_ms


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=5)


def outcome(number: int, state: str, next_at: datetime | None = None) -> DeliveryOutcome:
    return DeliveryOutcome(id=number, state=state, attempts=1, at=datetime.now(UTC), next_at=next_at, code="x")


async def due(store: Any, when: datetime, destination: str = "ehr") -> list[int]:
    return [item.id for item in await store.due(destination, when, 10)]


async def test_what_is_due_comes_oldest_first_for_its_own_destination(store: Any, outgoing: Any, alert: Any) -> None:
    await store.record(outgoing(1, 2))
    await store.record(outgoing(3, destination="other"))
    assert await due(store, soon()) == [1, 2]
    assert await due(store, soon(), "other") == [3]
    (first, _) = await store.due("ehr", soon(), 10)
    assert (first.control_id, decode_alert(first.body)) == ("c1", alert("a1"))


async def test_a_patients_later_notification_waits_for_the_earlier_one(store: Any, outgoing: Any) -> None:
    await store.record(outgoing(1, 2))
    await store.record(outgoing(3, patient_id="p2"))
    later = soon() + timedelta(minutes=1)
    await store.delivered([outcome(1, "waiting", later)])
    assert await due(store, soon()) == [3]
    assert await due(store, later) == [1, 2, 3]


async def test_a_notification_about_nobody_waits_for_none(store: Any, outgoing: Any) -> None:
    await store.record(outgoing(1, 2, patient_id=None))
    await store.delivered([outcome(1, "waiting", soon() + timedelta(minutes=1))])
    assert await due(store, soon()) == [2]


async def test_what_was_delivered_is_not_due_again(store: Any, outgoing: Any) -> None:
    await store.record(outgoing(1, 2))
    await store.delivered([outcome(1, "delivered")])
    assert await due(store, soon()) == [2]


@pytest.mark.parametrize("state", ["delivered", "dead"])
async def test_an_end_is_an_end_whatever_is_reported_later(store: Any, outgoing: Any, rows_of: Any, state: str) -> None:
    await store.record(outgoing(1))
    await store.delivered([outcome(1, state)])
    await store.delivered([outcome(1, "waiting", soon())])
    assert rows_of("select state from delivery") == [state]


async def test_a_dead_letter_is_listed_and_goes_again_under_the_same_ids(
    store: Any, outgoing: Any, rows_of: Any
) -> None:
    await store.record(outgoing(1, 2))
    await store.delivered([outcome(1, "dead")])
    assert await due(store, soon()) == [2]
    now = to_ms(datetime.now(UTC))
    assert await store._writing.run(lambda connection: outbox.replay(connection, [1, 2, 99], now)) == [1]
    (again, _) = await store.due("ehr", soon(), 10)
    assert (again.id, again.control_id, again.attempts) == (1, "c1", 0)
    assert rows_of("select code from delivery where id = 1") == [None]


async def test_only_a_dead_letter_can_be_dropped(store: Any, outgoing: Any, rows_of: Any) -> None:
    await store.record(outgoing(1, 2))
    await store.delivered([outcome(1, "dead")])
    assert await store._writing.run(lambda connection: outbox.drop(connection, [1, 2])) == [1]
    assert rows_of("select id from delivery") == [2]
    assert rows_of("select id, state from alert order by id") == [("a1", "open"), ("a2", "open")]


async def test_the_backlog_names_what_waits_and_what_is_dead(store: Any, outgoing: Any) -> None:
    await store.record(outgoing(1, 2, 3))
    await store.delivered([outcome(1, "dead"), outcome(2, "delivered")])
    backlog = [(name, state, number) for name, state, number, _ in (await store.snapshot()).outbox]
    assert sorted(backlog) == [("ehr", "dead", 1), ("ehr", "waiting", 1)]


def test_what_an_alert_or_a_patient_waits_for_is_looked_up_by_them_alone(tmp_path: Path) -> None:
    """Looked up by destination, the next of 100,000 that wait for a system which is down would cost minutes."""
    engine = database.writer(f"sqlite:///{tmp_path / 'plan.db'}")
    with engine.connect() as connection, connection.begin():
        schema.upgrade(connection)
        text = outbox._due._text(connection)
        rows = connection.connection.cursor().execute(
            f"EXPLAIN QUERY PLAN {text.sql}", text.bind({"destination": "ehr", "now": 5, "most": 40})
        )
        inner = [row[3] for row in rows if row[3].startswith("SEARCH earlier ")]
    engine.dispose()
    assert len(inner) == 2
    assert ["alert_id=?" in line or "patient_id=?" in line for line in inner] == [True, True], inner
