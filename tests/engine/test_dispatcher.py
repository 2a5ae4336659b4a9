"""The dispatcher's promises under the worst interleaving: nothing twice, nothing out of turn. Fakes stand at its ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from emitters.sink import Answer, Delivered, Refused, TryAgain
from engine.dispatcher import Dispatcher, RetryPolicy
from engine.observe import Meters
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, Subject
from store.port import DeliveryOutcome, Waiting
from store.values import encode, to_ms

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def delivery(number: int, patient_id: str | None = "p1") -> Waiting:
    alert = Alert(
        id=f"a{number}",
        revision=1,
        kind=AlertKind.RAISED,
        family=AlertFamily.STOP,
        level=AlertLevel.RED,
        title="stop",
        text="stop",
        subject=Subject(register_id="p1"),
        raised_at=NOW,
        updated_at=NOW,
    )
    return Waiting(number, "ehr", f"c{number}", patient_id, 0, encode(alert))


class Outbox:
    """The outbox's port over a list; ``during_read`` runs between the reading of the rows and its answer."""

    def __init__(self, *rows: Waiting) -> None:
        self.rows = {row.id: row for row in rows}
        self.next_at: dict[int, datetime] = {}
        self.outcomes: list[DeliveryOutcome] = []
        self.during_read: Callable[[], Any] | None = None

    async def due(self, destination: str, now: datetime, limit: int) -> Sequence[Waiting]:
        held = {self.rows[number].patient_id for number, when in self.next_at.items() if when > now}
        rows = [row for row in self.rows.values() if row.patient_id is None or row.patient_id not in held]
        if self.during_read is not None:
            await self.during_read()
        return rows[:limit]

    async def delivered(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        self.outcomes += outcomes
        for item in outcomes:
            if item.state == "waiting":
                self.next_at[item.id] = item.next_at or NOW
            else:
                self.rows.pop(item.id, None)


class Sink:
    name = "ehr"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        self.sent.append(delivery_id)
        await self.gate.wait()
        return self.answers.pop(0) if self.answers else Delivered("ok")

    async def close(self) -> None:
        pass


async def run(outbox: Any, sink: Sink, until: Callable[[], Any], eventually: Any, **policy: Any) -> None:
    given: dict[str, Any] = {"first_s": 0.01, "longest_s": 0.02, "parallel": 2} | policy
    dispatcher = Dispatcher(outbox, sink, RetryPolicy(**given), Meters(), clock=lambda: NOW)
    running = asyncio.create_task(dispatcher.run())
    try:
        await eventually(until)
        await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(Delivered("ok"), ["c1", "c9", "c2"]), (TryAgain("busy", after_s=60), ["c1", "c9"])],
)
async def test_what_ended_while_the_outbox_was_being_read_is_not_sent_again_nor_overtaken(
    eventually: Any, answer: Answer, expected: list[str]
) -> None:
    outbox = Outbox(delivery(1), delivery(2))
    sink = Sink(answer)
    sink.gate.clear()
    first_read = True

    async def end_it() -> None:
        nonlocal first_read
        if first_read:
            first_read = False
            return
        if not sink.gate.is_set():
            sink.gate.set()
            await eventually(lambda: outbox.outcomes)
            outbox.rows[9] = delivery(9, "p9")

    outbox.during_read = end_it
    await run(outbox, sink, lambda: "c9" in sink.sent and len(sink.sent) >= len(expected), eventually)
    assert sink.sent.count("c1") == 1
    assert sorted(sink.sent) == sorted(expected)


async def test_a_fault_of_ours_is_tried_again_and_never_loses_the_row(eventually: Any) -> None:
    class Faulty(Sink):
        async def send(self, alert: Alert, delivery_id: str) -> Answer:
            self.sent.append(delivery_id)
            raise KeyError("patient")

    outbox, sink = Outbox(delivery(1)), Faulty()
    await run(outbox, sink, lambda: outbox.outcomes, eventually)
    (outcome,) = outbox.outcomes[:1]
    assert (outcome.state, outcome.words) == ("waiting", "internal: KeyError")


class FaultyOnce(Outbox):
    """Its first recording fails by a fault of ours."""

    faults = 1

    async def delivered(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        await super().delivered(outcomes)


async def test_an_outcome_that_a_fault_of_ours_kept_from_the_store_is_recorded_later(eventually: Any) -> None:
    outbox = FaultyOnce(delivery(1))
    await run(outbox, Sink(), lambda: outbox.outcomes, eventually)
    assert [item.state for item in outbox.outcomes] == ["delivered"]


async def test_a_refusal_is_a_dead_letter_with_the_destinations_words(eventually: Any) -> None:
    outbox, sink = Outbox(delivery(1)), Sink(Refused("patient-unknown", "no such patient"))
    await run(outbox, sink, lambda: outbox.outcomes, eventually)
    (outcome,) = outbox.outcomes
    assert (outcome.state, outcome.code, outcome.words) == ("dead", "patient-unknown", "no such patient")


async def test_what_is_never_taken_is_given_up_after_its_time(eventually: Any) -> None:
    outbox, sink = Outbox(delivery(1)), Sink(TryAgain("busy"))
    await run(outbox, sink, lambda: outbox.outcomes, eventually, give_up_after=timedelta(seconds=-1))
    assert (outbox.outcomes[0].state, outbox.outcomes[0].code) == ("dead", "exhausted")


async def test_a_patients_notifications_go_one_after_the_other(eventually: Any) -> None:
    outbox, sink = Outbox(*(delivery(n) for n in range(1, 6))), Sink()
    await run(outbox, sink, lambda: len(outbox.outcomes) == 5, eventually, parallel=8)
    assert sink.sent == ["c1", "c2", "c3", "c4", "c5"]


async def test_a_destination_that_is_down_is_tried_with_one_notification_and_costs_none_its_turn(
    eventually: Any,
) -> None:
    outbox = Outbox(*(delivery(n, f"p{n}") for n in range(1, 9)))
    sink = Sink(TryAgain("refused", down=True), TryAgain("refused", down=True))
    await run(outbox, sink, lambda: not outbox.rows, eventually, parallel=1)
    assert sink.sent == ["c1", "c1", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"]


@pytest.mark.parametrize(("attempts", "asked_s", "least", "most"), [
    (1, None, 0.75, 1), (2, None, 1.5, 2), (5, None, 12, 16), (50, None, 225, 300), (1, 60, 60, 60), (1, 1e9, 3600, 3600),
])  # fmt: skip
def test_the_wait_doubles_to_its_longest_and_obeys_the_destination(
    attempts: int, asked_s: float | None, least: float, most: float
) -> None:
    assert least <= RetryPolicy().wait_s(attempts, asked_s) <= most


@pytest.mark.parametrize("steps", range(5))
async def test_being_told_to_stop_in_the_moment_of_waking_ends_it_all_the_same(steps: int) -> None:
    dispatcher = Dispatcher(Outbox(), Sink(), RetryPolicy(), Meters(), clock=lambda: NOW)  # type: ignore[arg-type]
    running = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(0.02)
    dispatcher.wake()
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=20)
    running.cancel()
    assert done


async def test_a_row_that_cannot_be_read_is_a_dead_letter_and_holds_nobody(eventually: Any) -> None:
    outbox, sink = Outbox(delivery(1)._replace(body="{"), delivery(2, "p2")), Sink()
    await run(outbox, sink, lambda: len(outbox.outcomes) == 2, eventually)
    assert sorted((item.id, item.state, item.code) for item in outbox.outcomes) == [
        (1, "dead", "unreadable-row"),
        (2, "delivered", ""),
    ]


async def test_a_dead_letter_that_a_person_sends_again_has_its_whole_time_anew(eventually: Any) -> None:
    """Its alert is long past the time after which one is given up; counted from there it would have one attempt."""
    hour = timedelta(hours=1)
    again = delivery(1)._replace(since_ms=to_ms(NOW + hour))
    outbox, sink = Outbox(again, delivery(2, "p2")), Sink(TryAgain("busy"), TryAgain("busy"))
    await run(outbox, sink, lambda: len(outbox.outcomes) > 1, eventually, give_up_after=-hour / 2)
    ends = {item.id: item.state for item in outbox.outcomes[:2]}
    assert ends == {1: "waiting", 2: "dead"}
