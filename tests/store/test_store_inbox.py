"""Arrivals: durable when answered, each counted, duplicates and conflicts known by name and content."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from store import StoreUnavailable
from store.port import Disposition, MessageDone, Work


async def test_what_is_accepted_is_on_disk_before_the_answer(store: Any, envelope: Any, rows_of: Any) -> None:
    accepted = await store.accept(envelope("M1", "MSH|Ø\r\x1c\x00", raw=b"MSH|\xe9\r\x00\xff"))
    assert rows_of("select message_id, raw from body") == [(accepted.message_id, b"MSH|\xe9\r\x00\xff")]


async def test_the_same_message_again_is_a_duplicate_of_the_first(store: Any, envelope: Any, rows_of: Any) -> None:
    first = await store.accept(envelope("M1"))
    again = await store.accept(envelope("M1"))
    third = await store.accept(envelope("M1"))
    assert first.duplicate_of is None
    assert again.duplicate_of == third.duplicate_of == first.message_id
    assert rows_of(
        "select id, disposition, raw is null from message left join body on message_id = id order by id"
    ) == [
        (1, None, 0),
        (2, "duplicate", 1),
        (3, "duplicate", 1),
    ]


async def test_the_same_name_with_other_content_is_a_message_of_its_own(store: Any, envelope: Any) -> None:
    first = await store.accept(envelope("M1", "MSH|one"))
    other = await store.accept(envelope("M1", "MSH|two"))
    again = await store.accept(envelope("M1", "MSH|two"))
    assert (other.duplicate_of, other.conflicts_with) == (None, first.message_id)
    assert again.duplicate_of == other.message_id


async def test_a_message_without_a_name_is_never_a_duplicate(store: Any, envelope: Any) -> None:
    answers = [await store.accept(envelope("", "the same")) for _ in range(2)]
    assert [answer.duplicate_of for answer in answers] == [None, None]


async def test_duplicates_within_one_commit_are_found_too(store: Any, envelope: Any, rows_of: Any) -> None:
    answers = await asyncio.gather(*(store.accept(envelope("M1")) for _ in range(64)))
    assert sum(answer.duplicate_of is None for answer in answers) == 1
    assert rows_of("select count(*) from message where disposition = 'duplicate'") == [63]


async def test_sixty_four_at_once_are_all_stored_each_under_its_own_number(
    store: Any, envelope: Any, rows_of: Any
) -> None:
    answers = await asyncio.gather(*(store.accept(envelope(f"M{n}", f"text {n}")) for n in range(64)))
    assert sorted(answer.message_id for answer in answers) == list(range(1, 65))
    stored = dict(rows_of("select control_id, raw from message join body on message_id = message.id"))
    assert stored == {f"M{n}": f"text {n}".encode() for n in range(64)}


async def test_a_message_that_the_database_will_not_take_fails_alone(store: Any, envelope: Any, rows_of: Any) -> None:
    envelopes = [envelope(f"M{n}", sender="\ud800" if n == 5 else "SIL|LABO") for n in range(16)]
    answers = await asyncio.gather(*map(store.accept, envelopes), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, BaseException)] == [5]
    assert isinstance(answers[5], StoreUnavailable)
    assert len(rows_of("select id from message")) == 15
    assert (await store.accept(envelope("after"))).duplicate_of is None


async def test_a_caller_that_left_costs_nobody_else_the_answer(store: Any, envelope: Any, rows_of: Any) -> None:
    gone = asyncio.create_task(store.accept(envelope("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    stayed = await store.accept(envelope("stayed"))
    assert stayed.duplicate_of is None
    assert "stayed" in rows_of("select control_id from message")


async def test_claims_come_oldest_first_and_only_once(store: Any, envelope: Any) -> None:
    for n in range(5):
        await store.accept(envelope(f"M{n}", f"text {n}"))
    assert [claim.control_id for claim in await store.claim(2)] == ["M0", "M1"]
    assert [claim.control_id for claim in await store.claim(9)] == ["M2", "M3", "M4"]
    assert await store.claim(9) == []


async def test_a_released_claim_is_claimed_anew(store: Any, envelope: Any) -> None:
    await store.accept(envelope("M1"))
    (claim,) = await store.claim(9)
    store.release([claim.message_id])
    assert [again.message_id for again in await store.claim(9)] == [claim.message_id]


async def test_a_claim_carries_the_bytes_as_they_came(store: Any, envelope: Any, noon: Any) -> None:
    await store.accept(envelope("M1", raw=b"\x0bMSH|\xe9\x00"))
    (claim,) = await store.claim(1)
    assert (claim.raw, claim.received_at, claim.sender) == (b"\x0bMSH|\xe9\x00", noon, "SIL|LABO")


async def test_a_message_the_door_refused_is_kept_and_never_claimed(store: Any, envelope: Any, rows_of: Any) -> None:
    await store.accept(envelope("", "{", refused="structure: $"))
    assert await store.claim(9) == []
    assert rows_of("select disposition, reason, raw from message join body on message_id = message.id") == [
        ("set_aside", "structure: $", b"{")
    ]


async def test_what_has_its_disposition_is_not_claimed_after_a_restart(store: Any, url: str, envelope: Any) -> None:
    from store import Store

    await store.accept(envelope("M1"))
    await store.accept(envelope("M2"))
    claims = await store.claim(9)
    done = MessageDone(message_id=claims[0].message_id, disposition=Disposition.NOT_RELEVANT)
    await store.record(Work(done=[done]))
    await store.close()
    anew = Store(url)
    await anew.open()
    assert [claim.control_id for claim in await anew.claim(9)] == ["M2"]
    await anew.close()


async def test_a_replay_is_a_new_message_with_the_old_bytes(store: Any, envelope: Any, rows_of: Any) -> None:
    first = await store.accept(envelope("M1", "MSH|one"))
    assert await store.replay(first.message_id) == 2
    assert await store.replay(99) is None
    assert rows_of("select id, replay_of, raw from message join body on message_id = message.id order by id") == [
        (1, None, b"MSH|one"),
        (2, 1, b"MSH|one"),
    ]
    assert (await store.accept(envelope("M1", "MSH|one"))).duplicate_of == 1


async def test_a_closed_store_takes_nothing(url: str, envelope: Any) -> None:
    from store import Store

    store = Store(url)
    with pytest.raises(StoreUnavailable):
        await store.accept(envelope("M1"))
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.accept(envelope("M1"))
