"""Recording: a batch in one commit or not at all, ``Stale`` when somebody else was quicker; forgetting strangers."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rules.model import Attestation, PatientIdentifier, Person, TreatmentCourse
from store import database
from store.check import findings
from store.port import Audit, Disposition, MessageDone, Stale, Work


async def test_a_patient_comes_back_as_filed(store: Any, patient: Any, count: Any, noon: Any) -> None:
    record, item = patient()
    record.person = Person(family="SPÉCIMEN", given="Dominique", birth_date=noon.date(), sex="F")
    record.course = TreatmentCourse(start=noon.date(), ben=Attestation("Dr A. Hoda", noon.date()))
    record.settle_at = noon
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)], results=[count()]))
    (found,) = await store.patients([item])
    assert (found.person, found.course, found.settle_at) == (record.person, record.course, noon)
    assert found.identifiers == [item]
    assert found.results["key-7"].result == count().result
    assert (found.rev, found.new) == (1, False)


async def test_an_identifier_of_another_authority_finds_nobody(store: Any, patient: Any) -> None:
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)]))
    assert await store.patients([PatientIdentifier("405660", "urn:oid:9.9")]) == []
    assert [found.id for found in await store.patients([PatientIdentifier("405660", "")])] == ["p1"]


async def test_a_record_that_another_connection_changed_is_stale_and_nothing_is_written(
    store: Any, url: str, patient: Any, count: Any, envelope: Any, rows_of: Any
) -> None:
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)]))
    await store.accept(envelope("M1"))
    (mine,) = await store.patients([item])
    engine = database.writer(url)
    with engine.connect() as other, other.begin():
        other.exec_driver_sql("update patient set rev = rev + 1")
    done = MessageDone(message_id=1, disposition=Disposition.JUDGED)
    answer = await store.record(Work(patients={"p1": mine}, results=[count()], done=[done]))
    assert answer == Stale(("p1",))
    assert rows_of("select id from result") == []
    assert rows_of("select disposition from message") == [None]
    (fresh,) = await store.patients([item])
    assert await store.record(Work(patients={"p1": fresh}, results=[count()], done=[done])) is None
    assert rows_of("select disposition from message") == ["judged"]


async def test_a_new_patient_whose_identifier_was_filed_meanwhile_is_stale(store: Any, patient: Any) -> None:
    first, item = patient("p1")
    second, _ = patient("p2")
    assert await store.record(Work(patients={"p1": first}, identifiers=[("p1", item)])) is None
    assert await store.record(Work(patients={"p2": second}, identifiers=[("p2", item)])) == Stale(("p2",))
    assert [found.id for found in await store.patients([item])] == ["p1"]


async def test_a_batch_that_breaks_a_rule_of_the_database_writes_none_of_it(
    store: Any, patient: Any, count: Any, envelope: Any, rows_of: Any, outgoing: Any
) -> None:
    await store.accept(envelope("M1"))
    record, item = patient()
    work = outgoing(1, 2)
    work.deliveries[1] = dataclasses.replace(work.deliveries[1], control_id="c1")  # the same control id twice
    work.patients["p1"] = record
    work.identifiers.append(("p1", item))
    work.results.append(count())
    work.done.append(MessageDone(message_id=1, disposition=Disposition.JUDGED))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.record(work)
    for table in ("patient", "identifier", "result", "alert", "delivery"):
        assert rows_of(f"select count(*) from {table}") == [0]  # noqa: S608  # our own table names
    assert rows_of("select disposition from message") == [None]
    assert await store.read(findings) == []


async def test_a_batch_that_fails_does_not_take_arrivals_of_the_same_commit_with_it(
    store: Any, envelope: Any, outgoing: Any, rows_of: Any
) -> None:
    bad = outgoing(1, 1)
    answers = await asyncio.gather(
        store.accept(envelope("M1")), store.record(bad), store.accept(envelope("M2")), return_exceptions=True
    )
    assert isinstance(answers[1], Exception)
    assert re.search("(?i)unique", str(answers[1]))
    assert rows_of("select control_id from message order by id") == ["M1", "M2"]


async def test_counters_equal_counts_whatever_happened(store: Any, envelope: Any) -> None:
    for n in range(6):
        await store.accept(envelope(f"M{n % 4}", f"text {n % 4}"))
    await store.accept(envelope("", "{", refused="structure: $"))
    for claim in await store.claim(2):
        done = MessageDone(message_id=claim.message_id, disposition=Disposition.JUDGED)
        await store.record(Work(done=[done]))
    await store.replay(1)
    assert await store.read(findings) == []
    snapshot = await store.snapshot()
    assert snapshot.received == 8
    assert snapshot.dispositions == {"duplicate": 2, "set_aside": 1, "judged": 2}
    assert snapshot.pending == 3


async def test_a_count_that_does_not_add_up_is_found(store: Any, envelope: Any) -> None:
    await store.accept(envelope("M1"))
    await store._writing.run(lambda connection: connection.exec_driver_sql("delete from message"))
    assert await store.read(findings) == ["1 messages were counted in, 0 are on file"]


# Forgetting


async def test_strangers_are_forgotten_whole_and_the_enrolled_are_not_touched(
    store: Any, envelope: Any, patient: Any, count: Any, noon: Any, rows_of: Any
) -> None:
    for n in (1, 2):
        await store.accept(envelope(f"M{n}", f"text {n}"))
    stranger, their = patient("p1", "777", enrolled=False)
    enrolled, item = patient("p2", "405660")
    await store.record(
        Work(
            patients={"p1": stranger, "p2": enrolled},
            identifiers=[("p1", their), ("p2", item)],
            results=[count(7, "p1", 1), count(8, "p2", 2)],
            audits=[Audit(at=noon, actor="x", action="y")],
        )
    )
    later = datetime.now(UTC) + timedelta(days=1)
    assert await store.purge(noon - timedelta(days=9)) == 0
    assert await store.purge(later) == 1
    assert await store.purge(later) == 0
    assert rows_of("select id from patient") == ["p2"]
    assert rows_of("select value from identifier") == ["405660"]
    assert rows_of("select id from result") == [8]
    assert rows_of("select message_id, raw from body") == [(2, b"text 2")]
    assert await store.read(findings) == []


async def test_bytes_in_which_an_enrolled_patient_was_judged_too_are_kept(
    store: Any, envelope: Any, patient: Any, count: Any, rows_of: Any
) -> None:
    await store.accept(envelope("M1", "both"))
    stranger, their = patient("p1", "777", enrolled=False)
    enrolled, item = patient("p2", "405660")
    await store.record(
        Work(
            patients={"p1": stranger, "p2": enrolled},
            identifiers=[("p1", their), ("p2", item)],
            results=[count(7, "p1", 1), count(8, "p2", 1)],
        )
    )
    assert await store.purge(datetime.now(UTC) + timedelta(days=1)) == 1
    assert rows_of("select raw from body") == [b"both"]


async def test_thousands_of_identifiers_at_once_are_found(store: Any, patient: Any) -> None:
    record, item = patient()
    await store.record(Work(patients={"p1": record}, identifiers=[("p1", item)]))
    many = [PatientIdentifier(str(n), "urn:oid:1.2.3") for n in range(40_000)]
    assert await store.patients(many[:10]) == []
    assert [found.id for found in await store.patients([*many, item])] == ["p1"]
