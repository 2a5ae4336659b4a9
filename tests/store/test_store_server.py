"""A server that is killed, stands still or refuses: nothing answered is lost, nothing waits for ever, and it recovers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from store import SchemaOutdated, Store, StoreUnavailable
from store.check import findings


@pytest.fixture
def url(server: Any) -> str:
    found: str = server.fresh()
    return found


async def send(store: Store, envelopes: list[Any]) -> list[Any]:
    """Each once, all at once; what was not stored comes back as the exception."""
    return list(await asyncio.gather(*map(store.accept, envelopes), return_exceptions=True))


async def test_a_server_that_is_killed_in_the_middle_loses_nothing_that_was_answered(
    server: Any, store: Store, envelope: Any, rows_of: Any, eventually: Any
) -> None:
    answered: list[Any] = []
    refused: list[Any] = []

    async def lane(number: int) -> None:
        for n in itertools.count():
            item = envelope(f"M{number}-{n}", f"text {number} {n} " + "x" * 3000)
            try:
                await store.accept(item)
            except StoreUnavailable:
                refused.append(item)
                return
            answered.append(item)

    lanes = [asyncio.create_task(lane(number)) for number in range(32)]
    await eventually(lambda: len(answered) > 100)
    server.postgresql.kill()
    try:
        await asyncio.gather(*lanes)
    finally:
        server.postgresql.start()
    assert len(refused) == 32
    envelopes = answered + refused

    # Without a restart of ours; who got no answer sends again, and is known where it had been stored all the same.
    again = [answer for answer in await send(store, refused) if not isinstance(answer, BaseException)]
    assert len(again) == len(refused)
    first = rows_of("select control_id from message where disposition is null")
    assert sorted(first) == sorted(item.control_id for item in envelopes)
    assert await store.read(findings) == []


async def test_a_server_that_stands_still_stops_nobody_but_those_who_ask_it(
    server: Any, store: Store, envelope: Any
) -> None:
    await store.accept(envelope("M1"))
    server.postgresql.pause()
    try:
        asked = asyncio.create_task(send(store, [envelope("M2")]))
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0.01)
            turns += not asked.done()
        assert turns == 20  # the loop has its turns all the while
        (answer,) = await asked
        assert isinstance(answer, StoreUnavailable)
        assert str(answer) == "the database does not answer"
    finally:
        server.postgresql.resume()
    assert [type(one) for one in await send(store, [envelope("M3")])] != [StoreUnavailable]
    assert await store.read(findings) == []


async def test_a_server_that_stops_and_comes_back_is_used_again_without_a_restart(
    server: Any, store: Store, envelope: Any
) -> None:
    await store.accept(envelope("M1"))
    server.postgresql.stop()
    (answer,) = await send(store, [envelope("M2")])
    assert isinstance(answer, StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        await store.snapshot()
    server.postgresql.start()
    assert (await store.accept(envelope("M2"))).duplicate_of is None
    assert (await store.snapshot()).received == 2


async def test_a_connection_that_was_ended_while_it_rested_costs_nobody_an_answer(
    server: Any, store: Store, envelope: Any
) -> None:
    await store.accept(envelope("M1"))
    await store.snapshot()
    server.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'neutroflag'")
    assert (await store.accept(envelope("M2"))).duplicate_of is None
    assert (await store.snapshot()).received == 2


async def test_a_database_that_became_read_only_says_so_and_takes_again_afterwards(
    server: Any, store: Store, url: str, envelope: Any
) -> None:
    name = url.rpartition("/")[2]
    server.run(f"alter database {name} set default_transaction_read_only = on")
    server.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'neutroflag'")
    (answer,) = await send(store, [envelope("M1")])
    assert str(answer) == "the database is read-only"
    with pytest.raises(StoreUnavailable, match="read-only"):
        await Store(url).open()
    server.run(f"alter database {name} reset default_transaction_read_only")
    server.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'neutroflag'")
    assert (await store.accept(envelope("M1"))).duplicate_of is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("@", "wrong@"), "refuses the password"),
        (lambda url: url.rpartition("/")[0] + "/nowhere", "no such database"),
        (lambda url: url.rpartition(":")[0] + ":1/test", "cannot be reached"),
        (lambda url: url.replace("127.0.0.1", "nowhere.invalid"), "host is unknown"),
    ],
)
async def test_what_cannot_be_opened_says_why(url: str, change: Any, words: str) -> None:
    broken = change(url)
    assert broken != url
    with pytest.raises(StoreUnavailable, match=words):
        await Store(broken).open()


async def test_an_old_schema_is_refused(server: Any, url: str) -> None:
    server.run("update alembic_version set version_num = '0000'", url.rpartition("/")[2])
    with pytest.raises(SchemaOutdated, match="0000"):
        await Store(url).open()


async def test_two_that_set_up_an_empty_database_at_once_both_find_it_whole(server: Any) -> None:
    url = server.empty()
    stores = [Store(url) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in stores))
    assert [(await one.snapshot()).received for one in stores] == [0] * 4
    for one in stores:
        await one.close()


async def test_the_same_message_at_two_doors_at_once_is_stored_once(url: str, envelope: Any, rows_of: Any) -> None:
    doors = [Store(url) for _ in range(4)]
    for door in doors:
        await door.open()
    for n in range(20):
        answers = await asyncio.gather(*(door.accept(envelope(f"M{n}")) for door in doors))
        assert sum(answer.duplicate_of is None for answer in answers) == 1
    assert rows_of("select count(*) from message where disposition is null") == [20]
    assert await doors[0].read(findings) == []
    for door in doors:
        await door.close()


async def test_an_acknowledgement_waits_for_the_disk_even_where_the_server_would_not(server: Any, url: str) -> None:
    server.run(f"alter database {url.rpartition('/')[2]} set synchronous_commit = off")
    store = Store(url)
    await store.open()
    asked = lambda connection: connection.exec_driver_sql("show synchronous_commit").scalar()  # noqa: E731
    assert await store.write(asked) == "on"
    await store.close()


async def test_the_server_looks_soon_whether_a_host_that_says_nothing_is_still_there(server: Any, url: str) -> None:
    """Else a host that lost its power in the middle of a transaction would hold its rows for the two hours of a server's own
    keepalives."""
    store = Store(url)
    await store.open()
    settings = [
        f"tcp_{name}" for name in ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
    ]
    asked = lambda connection: [connection.exec_driver_sql(f"show {name}").scalar() for name in settings]  # noqa: E731
    assert await store.write(asked) == ["3", "1", "4", "7000"]
    await store.close()


async def test_what_a_dead_worker_had_claimed_is_claimed_by_another_after_its_time(
    server: Any, url: str, store: Store, envelope: Any
) -> None:
    for n in range(3):
        await store.accept(envelope(f"M{n}"))
    dead, alive = Store(url, sole=False), Store(url, sole=False)
    await dead.open()
    await alive.open()
    assert len(await dead.claim(9)) == 3
    assert await alive.claim(9) == []
    server.run("update claim set expires_at = 0", url.rpartition("/")[2])
    assert [claim.control_id for claim in await alive.claim(9)] == ["M0", "M1", "M2"]
    assert await dead.lead(["clock"]) == {"clock"}
    assert await alive.lead(["clock"]) == set()
    server.run("update lease set expires_at = 0", url.rpartition("/")[2])
    assert await alive.lead(["clock"]) == {"clock"}
    await dead.close()
    assert await alive.lead(["clock"]) == {"clock"}
    await alive.close()


async def test_text_that_the_server_cannot_hold_costs_no_message(store: Store, envelope: Any, rows_of: Any) -> None:
    await store.accept(envelope("M\x001", "MSH|\x00"))
    assert rows_of("select control_id, length(raw) from message join body on message_id = id") == [("M\ufffd1", 5)]


async def test_who_waits_for_a_message_that_nobody_has_is_told_so(
    server: Any, url: str, store: Store, envelope: Any
) -> None:
    for n in range(3):
        await store.accept(envelope(f"M{n}"))
    dead, alive = Store(url, sole=False), Store(url, sole=False)
    await dead.open()
    await alive.open()
    (first,) = await dead.claim(1)
    second, third = await alive.claim(2)
    spoken_of = {second.message_id: {"a"}, third.message_id: {"b"}}
    # Whom the first one speaks of is not known yet.
    assert await alive.announce(spoken_of) == ({second.message_id, third.message_id}, False)
    assert await dead.announce({first.message_id: {"a"}}) == (set(), False)
    assert await alive.announce(spoken_of) == ({second.message_id}, False)
    oldest = "update claim set expires_at = 0 where message_id = (select min(message_id) from claim)"
    server.run(oldest, url.rpartition("/")[2])
    assert await alive.announce(spoken_of) == ({second.message_id}, True)
    await dead.close()  # gives up what it has
    assert await alive.announce(spoken_of) == ({second.message_id, third.message_id}, True)
    await alive.close()
