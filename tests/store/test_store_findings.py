"""The clock's SQL: findings open once, ends recorded, and every query of a sweep a range of an index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from rules.model import AlertLevel, Assessment, TreatmentCourse
from store import Envelope, Store, feeds, findings
from store.port import EndedFinding, FeedRecord, Finding, Looked, PatientRecord, Stale, Work
from store.register import by_id
from store.statement import Prepared

FOUND = Finding(
    id=1, kind="overdue", subject="p1", patient_id="p1", alert_id="a1", began_at=datetime(2026, 11, 22).astimezone()
)


async def test_an_open_finding_is_listed_until_it_ended_and_may_begin_anew(store: Store) -> None:
    await store.record(
        Work(begun=[FOUND, dataclasses.replace(FOUND, id=2, kind="feed", subject="mllp|LAB", patient_id=None)])
    )
    (feed,) = await store.read(lambda connection: findings.open_findings(connection, "feed"))
    assert (feed["subject"], feed["ended_at"]) == ("mllp|LAB", None)
    assert [row["id"] for row in await store.read(findings.open_findings)] == [1, 2]
    assert await store.read(findings.overdue_count) == 1
    ended = EndedFinding(id=1, at=FOUND.began_at + timedelta(hours=1), body={"end": "arrived"})
    await store.record(Work(ended=[ended], begun=[dataclasses.replace(FOUND, id=3)]))
    assert [row["id"] for row in await store.read(lambda c: findings.open_of(c, "p1"))] == [3]


async def test_a_thing_cannot_be_found_twice_at_once_and_its_commit_is_whole(store: Store, rows_of: Any) -> None:
    await store.record(Work(begun=[FOUND]))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.record(Work(marks={"seen_at": 7}, begun=[dataclasses.replace(FOUND, id=2)]))
    assert rows_of("SELECT id FROM finding") == [1]
    assert rows_of("SELECT * FROM counter WHERE name = 'watch'") == []


async def test_an_end_is_recorded_once(store: Store, rows_of: Any) -> None:
    await store.record(Work(begun=[FOUND]))
    for hours in (1, 2):
        at = FOUND.began_at + timedelta(hours=hours)
        await store.record(Work(ended=[EndedFinding(id=1, at=at, body={"end": str(hours)})]))
    assert rows_of("SELECT body FROM finding") == ['{"end": "1"}']


async def test_what_the_clock_saw_of_a_patient_who_moved_meanwhile_is_not_written(
    store: Store, patient: Callable[..., Any]
) -> None:
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)]))
    (seen,) = await store.read(lambda connection: by_id(connection, ["p1"]))
    (other,) = await store.read(lambda connection: by_id(connection, ["p1"]))
    await store.record(Work(patients={"p1": other}))
    assert await store.record(Work(looked=[_looked(seen)], begun=[FOUND])) == Stale(("p1",))
    assert await store.read(findings.open_findings) == []


async def test_a_new_alert_of_the_clock_makes_a_judgement_made_meanwhile_stale(
    store: Store, patient: Callable[..., Any]
) -> None:
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)]))
    (judged,) = await store.read(lambda connection: by_id(connection, ["p1"]))
    (seen,) = await store.read(lambda connection: by_id(connection, ["p1"]))
    assert await store.record(Work(looked=[_looked(seen, alerts_changed=True)])) is None
    assert await store.record(Work(patients={"p1": judged})) == Stale(("p1",))


async def test_an_alert_that_was_answered_meanwhile_is_not_called_unanswered(
    store: Store, outgoing: Callable[..., Work]
) -> None:
    await store.record(outgoing(1, patient_id=None))
    assert await store.record(Work(unanswered=[("a1", 1)])) is None
    assert await store.record(Work(unanswered=[("a1", 2)])) == Stale((), (), ("a1",))


@pytest.mark.parametrize(
    ("course", "present", "expected"),
    [
        (TreatmentCourse(start=date(2026, 9, 1)), None, "0001-01-01"),
        (TreatmentCourse(start=date(2026, 9, 1)), ("2026-11-20", "2026-11-27"), "2026-11-28"),
        (TreatmentCourse(start=date(2026, 12, 1)), ("2026-11-20", "2026-12-01"), "0001-01-01"),
        (TreatmentCourse(start=date(2026, 9, 1), infection_signs_on=date(2026, 11, 1)), ("2026-11-20", "2026-11-27"),
         "0001-01-01"),
    ],
)  # fmt: skip
async def test_a_changed_patient_says_when_silence_would_be_news(
    store: Store, rows_of: Any, course: TreatmentCourse, present: tuple[str, str] | None, expected: str
) -> None:
    verdict = None
    if present is not None:
        verdict = Assessment(
            protocol="ansm@2025-09",
            category="normal",
            action="CONTINUE",
            alert=AlertLevel.NONE,
            rule="R3",
            citations=(),
            as_of=date.fromisoformat(present[0]),
            next_due=date.fromisoformat(present[1]),
        )
    record = PatientRecord(id="p1", enrolled=True, new=True, course=course, present=verdict)
    await store.record(Work(patients={"p1": record}))
    assert rows_of("SELECT watch_on FROM patient") == [expected]


async def test_nobody_is_missed_who_is_not_on_the_register(store: Store, rows_of: Any) -> None:
    await store.record(Work(patients={"p1": PatientRecord(id="p1", new=True)}))
    assert rows_of("SELECT watch_on FROM patient") == [None]


async def test_feeds_say_who_sends_since_when_and_who_is_silent(store: Store, noon: datetime) -> None:
    one = FeedRecord(
        channel="mllp", sender="LAB", first_at=noon, last_at=noon, messages=3, body={"limit_h": 4.5, "fixed": False}
    )
    two = FeedRecord(channel="fhir", sender="", first_at=noon, last_at=noon, messages=1, body={"limit_h": None})
    found = dataclasses.replace(FOUND, kind="feed", subject="mllp|LAB", patient_id=None)
    await store.record(Work(feeds=[one, two], begun=[found], marks={"message": 4}))
    rows = await store.read(feeds.feeds)
    assert [(row["channel"], row["messages"], row["expected"], row["silent"]) for row in rows] == [
        ("fhir", 1, None, False),
        ("mllp", 3, 4.5, True),
    ]
    assert await store.read(feeds.marks) == {"message": 4}
    assert await store.read(feeds.last_heard) == {"mllp": _ms(noon), "fhir": _ms(noon)}
    assert (await store.snapshot()).heard == {"mllp": _ms(noon), "fhir": _ms(noon)}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def test_messages_are_read_from_where_the_clock_has_got_to(
    store: Store, envelope: Callable[..., Envelope]
) -> None:
    for number in range(5):
        await store.accept(envelope(f"M{number}", f"MSH|{number}"))
    rows = await store.read(lambda connection: feeds.arrived(connection, 2, 2))
    assert [(row[0], row[3]) for row in rows] == [(3, "SIL|LABO"), (4, "SIL|LABO")]


# A sweep never walks a table: SQLite's own account (PostgreSQL's is in test_store_plans)

on_sqlite = pytest.mark.parametrize("each_database", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize(
    ("query", "given", "table", "index"),
    [
        (findings._look, {"today": "2026-11-22", "after": "", "after_id": "", "most": 100},
         "patient", "ix_patient_watch_on"),
        (findings._unanswered, {"now": 1, "after": 0, "after_id": "", "most": 100},
         "alert", "ix_alert_open_answer_by"),
        (findings._open_of, {"wanted": "p1"}, "finding", "ix_finding_patient_id"),
        (feeds._arrived, {"after": 0, "until": 2**62, "most": 100}, "message", "INTEGER PRIMARY KEY"),
    ],
)  # fmt: skip
async def test_every_query_of_a_sweep_is_a_range_of_an_index(
    store: Store, query: Prepared, given: dict[str, Any], table: str, index: str
) -> None:
    plan = await store.read(lambda connection: _plan(connection, query, given))
    assert any(step.startswith(f"SEARCH {table} USING") and index in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan


def _plan(connection: Connection, query: Prepared, given: dict[str, Any]) -> list[str]:
    text = query._text(connection)
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN QUERY PLAN {text.sql}", text.bind(given))
    return [row[3] for row in cursor.fetchall()]


@on_sqlite
@pytest.mark.parametrize("name", ["oldest_pending", "overdue_count", "open_findings", "answered", "oldest_waiting"])
async def test_the_other_readings_walk_no_table_but_the_open_findings(store: Store, name: str) -> None:
    asked: list[tuple[str, Any]] = []

    def look(connection: Connection) -> None:
        from sqlalchemy import event

        engine = connection.engine
        listener = lambda conn, cursor, statement, parameters, *_: asked.append((statement, parameters))  # noqa: E731
        event.listen(engine, "before_cursor_execute", listener)
        extra = {"answered": (100,), "oldest_waiting": ("ehr",), "open_findings": ("overdue",)}.get(name, ())
        getattr(findings, name)(connection, *extra)
        event.remove(engine, "before_cursor_execute", listener)

    await store.read(look)
    ((statement, parameters),) = [item for item in asked if item[0].lstrip().startswith("SELECT")]
    plan = await store.read(
        lambda c: [row[3] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    )
    assert not [step for step in plan if step.startswith("SCAN") and "USING" not in step], plan


def _looked(record: PatientRecord, *, alerts_changed: bool = False) -> Looked:
    return Looked(record=record, watch_on=None, next_due=None, recheck_by=None, alerts_changed=alerts_changed)
