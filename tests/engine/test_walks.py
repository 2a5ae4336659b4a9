"""SQLite's own account of everything that a running engine asks: nothing walks a table of years from end to end."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

# What grows with the years. The lists of the moment (claims, leases, publications, what waits) may be walked.
_OF_YEARS = {
    *("message", "body", "ledger", "result", "assessment", "patient", "identifier"),
    *("alert", "delivery", "answer", "step", "audit", "finding"),
}


@pytest.fixture
def asked() -> Iterator[set[str]]:
    """Every statement of this process from now on, with its values."""
    found: set[str] = set()

    def trace(connection: Any, _: Any) -> None:
        connection.set_trace_callback(found.add)

    event.listen(Pool, "connect", trace)
    yield found
    event.remove(Pool, "connect", trace)


async def test_nothing_that_an_engine_does_by_itself_walks_what_grows_with_the_years(
    asked: set[str],
    run_engine: Callable[..., Awaitable[Any]],
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    eventually: Any,
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(
        extra="[watch]\nevery_s = 0.2\n[retention]\n"
        + "".join(
            f"{name}_days = 1\n" for name in ("judged_body", "set_aside_body", "not_relevant", "delivered", "audit")
        )
    )
    first = hl7.oru("M1", anc="0.40", filler="A1")
    await running.tell(first, first, hl7.oru("M2", anc="2.50", filler="A2", patient="999"), b"MSH|^~\\&|broken")
    await running.settled()
    await running.tell(hl7.oru("M3", anc="1.40", filler="A1", status="C"))
    await running.settled()
    await running.store.purge(datetime.now(UTC) + timedelta(days=60))
    # Retention has come to its last kind, and the clock has looked.
    await eventually(
        lambda: any("audit.action != " in one for one in asked) and any("watch_on" in one for one in asked)
    )
    assert any("message.kept = 1" in one for one in asked)
    path = url.partition("///")[2]
    walks = set()
    with sqlite3.connect(path) as connection:
        for statement in asked:
            if statement.split(None, 1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"):
                steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
                walks |= {step for step in steps if _walks(step, statement)}
    assert len(asked) > 100
    assert walks == set()


def _walks(step: str, statement: str) -> bool:
    found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
    if found is None or found[1] not in _OF_YEARS or found[2] == "ix_message_pending":
        return False
    # The first of an order is no walk.
    return not (found[2] and statement.rstrip().endswith("LIMIT 1 OFFSET 0"))
