"""The outbox of results: filed with the results, a batch at a time, the same batch until it is known to be published."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from store import publications
from store.port import Work


@pytest.fixture
def filed(store: Any, patient: Any, count: Any) -> Any:
    """``filed(7, 8)``: results with these numbers of one patient, for the destination ``topic``."""

    async def file(*numbers: int, enrolled: bool = True, doubts: tuple[str, ...] = (), late: bool = False) -> None:
        record, item = patient(f"p{numbers[0]}", f"40566{numbers[0]}", enrolled=enrolled)
        results = [count(number, record.id) for number in numbers]
        for one in results:
            one.result = dataclasses.replace(one.result, doubts=doubts)
        work = Work(patients={record.id: record}, identifiers=[(record.id, item)], publish_to=("topic",))
        (work.late if late else work.results).extend(results)
        assert await store.record(work) is None

    return file


async def batch(store: Any, limit: int = 10, of: str = "topic") -> tuple[str, list[int]]:
    number, rows = await store.write(lambda connection: publications.batch(connection, of, limit))
    return number, [row.result_id for row in rows]


async def test_a_batch_stays_the_same_until_it_is_known_to_be_published(store: Any, filed: Any) -> None:
    await filed(7, 8, 9)
    number, ids = await batch(store, 2)
    assert ids == [7, 8]
    await filed(10)
    assert await batch(store) == (number, [7, 8])  # found again, whatever came since
    await store.write(lambda connection: publications.published(connection, "topic", number))
    second, ids = await batch(store)
    assert (second != number, ids) == (True, [9, 10])
    await store.write(lambda connection: publications.published(connection, "topic", second))
    assert await batch(store) == ("", [])


async def test_what_waits_is_counted_and_is_of_one_destination(store: Any, filed: Any) -> None:
    await filed(7, 8)
    assert [row[:3] for row in (await store.snapshot()).outbox] == [("topic/results", "waiting", 2)]
    assert await batch(store, of="another") == ("", [])


@pytest.mark.parametrize(
    ("how", "current"),
    [
        ({}, [True]),
        ({"late": True}, [False]),
        ({"enrolled": False}, []),
        ({"doubts": ("test-message",)}, []),
    ],
)
async def test_only_real_results_of_people_on_the_register_are_published(
    store: Any, filed: Any, how: dict[str, Any], current: list[bool]
) -> None:
    await filed(7, **how)
    _, rows = await store.write(lambda connection: publications.batch(connection, "topic", 10))
    assert [row.current for row in rows] == current


async def test_without_a_topic_nothing_is_kept_for_one(store: Any, patient: Any, count: Any) -> None:
    record, item = patient()
    work = Work(patients={record.id: record}, identifiers=[(record.id, item)], results=[count(7)])
    assert await store.record(work) is None
    assert (await batch(store), (await store.snapshot()).outbox) == (("", []), [])
