"""Retention: what its time is over goes in small batches, what anything open refers to stays, and in = out afterwards."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest

from rules.model import AlertFamily
from store.check import findings
from store.port import AlertRecord, Audit, Delivery, DeliveryOutcome, Disposition, MessageDone, Work
from store.purge import Kind, Swept, sweep
from store.values import to_ms


@pytest.fixture
def later(noon: Any) -> int:
    return to_ms(noon + timedelta(days=1))


async def filed(store: Any, envelope: Any, *ends: tuple[str, str], reason: str = "") -> None:
    """Messages with these (control id, disposition)."""
    for control_id, disposition in ends:
        accepted = await store.accept(envelope(control_id, text=f"MSH|{control_id}"))
        done = MessageDone(message_id=accepted.message_id, disposition=Disposition(disposition), reason=reason)
        assert await store.record(Work(done=[done])) is None


async def swept(store: Any, kind: Kind, before_ms: int, limit: int = 100, after: int = 0) -> Swept:
    answer: Swept = await store.write(lambda connection: sweep(connection, kind, after, before_ms, limit))
    return answer


BODIES = "select message_id from body order by message_id"


async def test_each_kind_of_body_goes_by_itself_and_the_message_stays_counted(
    store: Any, envelope: Any, rows_of: Any, later: int
) -> None:
    await filed(
        store, envelope,
        ("M1", "not_relevant"), ("M2", "judged"), ("M3", "unassessable"), ("M4", "set_aside"),
    )  # fmt: skip
    await filed(store, envelope, ("M5", "not_relevant"), reason="register")
    for kind, left in (
        (Kind.NOT_RELEVANT_BODIES, [2, 3, 4, 5]),
        (Kind.JUDGED_BODIES, [3, 4, 5]),
        (Kind.UNASSESSABLE_BODIES, [4, 5]),
        (Kind.SET_ASIDE_BODIES, [5]),
        (Kind.REGISTER_BODIES, []),
    ):
        assert await swept(store, kind, later) == Swept(None, 1)
        assert rows_of(BODIES) == left
    assert await store.read(findings) == []


async def test_what_is_younger_or_has_no_disposition_stays(
    store: Any, envelope: Any, rows_of: Any, noon: Any, later: int
) -> None:
    await filed(store, envelope, ("M1", "not_relevant"))
    await store.accept(envelope("M2", text="MSH|two"))
    assert await swept(store, Kind.NOT_RELEVANT_BODIES, to_ms(noon)) == Swept(None, 0)
    assert await swept(store, Kind.NOT_RELEVANT_BODIES, later) == Swept(None, 1)
    assert rows_of(BODIES) == [2]


async def test_a_sweep_goes_on_where_the_last_batch_ended(store: Any, envelope: Any, rows_of: Any, later: int) -> None:
    await filed(store, envelope, *((f"M{number}", "not_relevant") for number in range(5)))
    assert await swept(store, Kind.NOT_RELEVANT_BODIES, later, limit=2) == Swept(2, 2)
    assert await swept(store, Kind.NOT_RELEVANT_BODIES, later, limit=2, after=2) == Swept(4, 2)
    assert await swept(store, Kind.NOT_RELEVANT_BODIES, later, limit=2, after=4) == Swept(None, 1)
    assert rows_of(BODIES) == []


@pytest.mark.parametrize(("state", "left"), [("open", [1]), ("answered", []), ("withdrawn", [])])
async def test_the_bodies_of_a_patient_with_an_open_alert_stay(
    store: Any, envelope: Any, patient: Any, count: Any, alert: Any, rows_of: Any, later: int, state: str, left: Any
) -> None:
    await filed(store, envelope, ("M1", "judged"))
    record, item = patient()
    await store.record(
        Work(
            patients={"p1": record}, identifiers=[("p1", item)], results=[count(message_id=1)],
            alerts=[AlertRecord(alert=alert(), patient_id="p1", state=state)],
        )
    )  # fmt: skip
    await swept(store, Kind.JUDGED_BODIES, later)
    assert rows_of(BODIES) == left


async def test_the_bodies_of_a_patient_with_an_open_finding_stay(
    store: Any, envelope: Any, patient: Any, count: Any, rows_of: Any, later: int
) -> None:
    await filed(store, envelope, ("M1", "judged"))
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)], results=[count(message_id=1)]))
    insert = (
        "insert into finding (id, kind, subject, patient_id, began_at, ended_at, body)"
        " values (1, 'overdue', 'p1', 'p1', 0, {}, '{{}}')"
    )
    await store.write(lambda connection: connection.exec_driver_sql(insert.format("null")))
    await swept(store, Kind.JUDGED_BODIES, later)
    assert rows_of(BODIES) == [1]
    await store.write(lambda connection: connection.exec_driver_sql("update finding set ended_at = 1"))
    await swept(store, Kind.JUDGED_BODIES, later)
    assert rows_of(BODIES) == []


@pytest.mark.parametrize("named_by", ["number", "content"])
async def test_the_body_of_a_count_that_a_person_is_asked_to_look_up_stays(
    store: Any, envelope: Any, alert: Any, rows_of: Any, later: int, named_by: str
) -> None:
    import dataclasses

    await filed(store, envelope, ("M1", "unassessable"), ("M2", "unassessable"))
    named = "1" if named_by == "number" else hashlib.blake2b(b"MSH|M1", digest_size=16).hexdigest()
    what = dataclasses.replace(alert(), family=AlertFamily.REVIEW)
    key = f"SIL|LABO|{named}|OBX[2]-6|unit-missing"
    await store.record(Work(alerts=[AlertRecord(alert=what, patient_id=None, result_key=key)]))
    assert (await swept(store, Kind.UNASSESSABLE_BODIES, later)).removed == 1
    assert rows_of(BODIES) == [1]


async def test_the_body_behind_an_undisposed_replay_stays(store: Any, envelope: Any, rows_of: Any, later: int) -> None:
    await filed(store, envelope, ("M1", "not_relevant"))
    assert await store.replay(1) == 2
    await swept(store, Kind.NOT_RELEVANT_BODIES, later)
    assert rows_of(BODIES) == [1, 2]


async def test_duplicates_go_and_in_still_equals_out(store: Any, envelope: Any, rows_of: Any, later: int) -> None:
    for _ in range(3):
        await store.accept(envelope("M1"))
    await filed(store, envelope, ("M2", "not_relevant"))
    assert await swept(store, Kind.DUPLICATES, later) == Swept(None, 2)
    assert rows_of("select id from message") == [1, 4]
    assert await store.read(findings) == []
    assert (await store.accept(envelope("M1"))).duplicate_of == 1


async def test_irrelevant_messages_go_whole_but_for_what_something_names(
    store: Any, envelope: Any, rows_of: Any, later: int
) -> None:
    await filed(store, envelope, *((f"M{number}", "not_relevant") for number in range(1, 4)), ("R", "not_relevant"))
    await store.write(lambda c: c.exec_driver_sql("update message set reason = 'register' where control_id = 'R'"))
    assert (await store.accept(envelope("M2", text="MSH|M2"))).duplicate_of == 2
    assert await store.replay(3) == 6
    await store.record(Work(done=[MessageDone(message_id=6, disposition=Disposition.NOT_RELEVANT)]))
    assert (await swept(store, Kind.NOT_RELEVANT, later)).removed == 1
    assert rows_of("select id from message order by id") == [2, 3, 4, 5, 6]
    assert 1 not in rows_of("select message_id from ledger union select message_id from body")
    assert await store.read(findings) == []
    assert (await store.accept(envelope("M1", text="MSH|M1"))).duplicate_of is None


async def test_the_last_message_stays_so_that_no_number_is_given_twice(store: Any, envelope: Any, later: int) -> None:
    await store.accept(envelope("M1"))
    await store.accept(envelope("M1"))
    assert await swept(store, Kind.DUPLICATES, later) == Swept(None, 0)
    assert (await store.accept(envelope("M3", text="other"))).message_id == 3


@pytest.mark.parametrize(("state", "removed"), [("open", 0), ("withdrawn", 1)])
async def test_a_delivered_notification_stays_while_its_alert_is_open(
    store: Any, outgoing: Any, noon: Any, rows_of: Any, state: str, removed: int
) -> None:
    work = outgoing(1)
    work.alerts[0].state = state
    await store.record(work)
    await store.delivered([DeliveryOutcome(id=1, state="delivered", attempts=1, at=noon)])
    assert (await swept(store, Kind.DELIVERED, to_ms(noon) + 1)).removed == removed
    assert len(rows_of("select id from delivery")) == 1 - removed


@pytest.mark.parametrize("state", ["waiting", "dead"])
async def test_what_waits_and_what_is_dead_is_never_removed(
    store: Any, outgoing: Any, noon: Any, rows_of: Any, state: str
) -> None:
    work = outgoing(1)
    work.alerts[0].state = "withdrawn"
    await store.record(work)
    await store.delivered([DeliveryOutcome(id=1, state=state, attempts=1, at=noon)])
    for kind in Kind:
        assert (await swept(store, kind, to_ms(noon + timedelta(days=9999)))).removed == 0
    assert rows_of("select state from delivery") == [state]


async def test_observed_notifications_go_but_for_those_of_open_alerts(
    store: Any, alert: Any, rows_of: Any, noon: Any
) -> None:
    work = Work()
    for number, state in ((1, "withdrawn"), (2, "open")):
        what = alert(f"a{number}")
        work.alerts.append(AlertRecord(alert=what, patient_id=None, state=state))
        work.deliveries.append(
            Delivery(
                id=number, destination="ehr", control_id=f"c{number}", alert=what, patient_id=None, state="observed"
            )
        )
    await store.record(work)
    assert (await swept(store, Kind.OBSERVED, to_ms(noon + timedelta(days=9999)))).removed == 1
    assert rows_of("select id from delivery") == [2]


async def test_the_audit_of_a_patient_with_an_open_alert_stays(
    store: Any, patient: Any, alert: Any, rows_of: Any, noon: Any, later: int
) -> None:
    record, item = patient()
    work = Work(patients={"p1": record}, identifiers=[("p1", item)])
    work.alerts.append(AlertRecord(alert=alert(), patient_id="p1"))
    work.audits += [Audit(at=noon, actor="Dr A", action="ben", patient_id=number) for number in ("p1", None)]
    await store.record(work)
    assert (await swept(store, Kind.AUDIT, later)).removed == 1
    assert rows_of("select patient_id, action from audit order by seq") == [("p1", "ben"), (None, "removed")]
