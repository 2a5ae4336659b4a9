"""The operators' searches: pages by key, exact names, and a bounded look where no index leads."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from store import Envelope, browse
from store.browse import Wanted
from store.purge import Kind, sweep, unenrolled
from store.values import message_name


async def send(store: Any, count: int, *, sender: str = "SIL|LABO", first: int = 1) -> None:
    for number in range(first, first + count):
        raw = f"{sender} {number}".encode()
        await store.accept(
            Envelope(
                channel="mllp",
                format="hl7v2",
                raw=raw,
                received_at=datetime.now(UTC),
                content_hash=hashlib.blake2b(raw, digest_size=32).digest(),
                dedupe_key=message_name("hl7v2", sender, f"C{number}"),
                sender=sender,
                control_id=f"C{number}",
            )
        )


async def pages(store: Any, wanted: Wanted, **how: Any) -> list[list[int]]:
    """The numbers of each page, until there is no further one."""
    found, before = [], None
    while True:
        start = before
        page = await store.read(lambda connection, at=start: browse.messages(connection, wanted, before=at, **how))
        found.append([row["id"] for row in page.rows])
        before = page.before
        if before is None:
            return found


async def test_pages_hold_each_message_once_newest_first(store: Any) -> None:
    await send(store, 7)
    assert await pages(store, Wanted(), limit=3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert await pages(store, Wanted(disposition="pending"), limit=7) == [[7, 6, 5, 4, 3, 2, 1]]


async def test_a_search_out_of_time_says_how_far_it_looked_and_goes_on_from_there(store: Any) -> None:
    await send(store, 1, sender="RARE|ONE")
    await send(store, 9, first=2)
    wanted = Wanted(sender="RARE|ONE")
    page = await store.read(lambda connection: browse.messages(connection, wanted, time_s=0, piece=4))
    assert (list(page.rows), page.before) == ([], 7)
    assert page.looked_back_to is not None
    assert await pages(store, wanted, time_s=0, piece=4) == [[], [], [1]]
    assert await pages(store, wanted) == [[1]]


async def test_a_search_in_an_empty_database_ends(store: Any) -> None:
    assert await pages(store, Wanted(sender="RARE|ONE")) == [[]]
    assert await pages(store, Wanted(control_id="C1")) == [[]]
    assert await pages(store, Wanted(patient="1")) == [[]]


async def test_a_control_id_of_a_known_sender_is_found_by_its_name_however_old(store: Any) -> None:
    await send(store, 5)
    await store.write(
        lambda connection: connection.execute(text("INSERT INTO feed VALUES ('mllp', 'SIL|LABO', 0, 0, 5, '{}')"))
    )
    page = await store.read(lambda connection: browse.messages(connection, Wanted(control_id="C1"), time_s=0, piece=1))
    assert [row["id"] for row in page.rows] == [1]
    assert (page.before, page.looked_back_to) == (None, None)


@pytest.mark.parametrize("each_database", ["sqlite"], indirect=True)
async def test_no_look_of_the_pages_walks_messages_or_deliveries_from_end_to_end(store: Any) -> None:
    """SQLite's own account of each query: by an index, or newest first with a bound."""
    looks = (
        browse.standing,
        browse.failed,
        browse.dead_groups,
        browse.observed_count,
        lambda connection: browse.outgoing(connection, ["ehr"]),
        lambda connection: browse.dead(connection, "ehr", "AE"),
        lambda connection: browse.messages(connection, Wanted(disposition="judged")),
        lambda connection: browse.messages(connection, Wanted(disposition="set_aside", reason="x")),
        lambda connection: browse.messages(connection, Wanted(patient="405660")),
    )
    for look in looks:
        for step in await store.read(lambda connection, look=look: plan(connection, look)):
            walks = step.startswith(("SCAN message", "SCAN delivery")) and not step.endswith(
                ("ix_delivery_dead", "ix_message_pending")  # of what waits or failed alone
            )
            assert not walks, step


@pytest.mark.parametrize("each_database", ["sqlite"], indirect=True)
async def test_no_sweep_walks_what_was_let_go_before(store: Any) -> None:
    """SQLite uses an index of some rows only where the query says its condition in the same words."""
    for kind in Kind:
        if kind.value.endswith("_bodies"):
            steps = await store.read(
                lambda connection, kind=kind: plan(connection, lambda c: sweep(c, kind, 0, 0, 200))
            )
            assert steps == ["SEARCH message USING INDEX ix_message_kept (disposition=? AND kept=? AND id>?)"]
    steps = await store.read(lambda connection: plan(connection, lambda c: unenrolled(c, 0, 200)))
    assert "SEARCH patient USING INDEX ix_patient_unenrolled (updated_at<?)" in steps
    assert "SEARCH message USING INDEX ix_message_unenrolled_body (disposition=? AND received_at<?)" in steps


def plan(connection: Connection, look: Any) -> list[str]:
    driver = connection.connection.driver_connection
    statements: list[str] = []
    assert driver is not None
    driver.set_trace_callback(statements.append)
    look(connection)
    driver.set_trace_callback(None)
    asked = [sql for sql in statements if sql.startswith("SELECT")]
    assert asked
    return [row[3] for sql in asked for row in driver.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
