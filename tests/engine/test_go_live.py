"""Going live: observe mode tells nobody and keeps what it would have said; the switch tells the present state once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.compose import Engine
from engine.config import load
from store import Store
from store.observed import WouldHaveSent, any_observed, would_have_sent

NO_DESTINATION = """
[store]
url = "{url}"
[engine]
mode = "observe"
history_settle_s = 0.2
[mllp]
port = 0
[http]
enabled = false
"""


async def kept_back(running: Any, **wanted: Any) -> list[WouldHaveSent]:
    return await running.store.read(lambda connection: would_have_sent(connection, 0, 100, **wanted))


async def in_observe_mode_everything_is_judged(run_engine: Any, hl7: Any, before: Any) -> Any:
    running = await run_engine(mode="observe")
    await running.enrol()
    await running.enrol("777")
    codes = await running.tell(
        hl7.oru("M1", anc="1.30", filler="B1", collected=before(hours=4)),
        hl7.oru("M2", anc="0.84", filler="B2", collected=before(hours=3)),
        hl7.oru("M3", anc="2.9", filler="B3", patient="777^^^CHX&1.2.3&ISO^PI"),
        hl7.oru("M4", anc="0.777", unit="", filler="B4"),
    )
    assert codes == ["AA"] * 4
    await running.settled()
    return running


async def test_observe_mode_keeps_what_it_would_have_sent_and_sends_nothing(
    run_engine: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    running = await in_observe_mode_everything_is_judged(run_engine, hl7, before)
    kept = await kept_back(running)
    assert [(row.level, row.kind, row.anc_per_mm3) for row in kept] == [
        ("amber", "raised", "1300"), ("red", "raised", "840"), ("amber", "raised", None),
    ]  # fmt: skip
    assert {row.destinations for row in kept} == {("ehr", "ehr-v2")}
    stop = next(row for row in kept if row.family == "ANC-STOP")
    assert (stop.level, stop.anc_per_mm3, stop.revision) == ("red", "840", 1)
    assert [row.id for row in await kept_back(running, level="red")] == [stop.id]
    assert [row.id for row in await kept_back(running, newest_first=True)] == [row.id for row in reversed(kept)]
    assert (prescriber.flags(), prescriber.tasks(), list(prescriber.messages())) == ([], [], [])
    snapshot = await running.store.snapshot()
    assert snapshot.outbox == []
    assert await running.findings() == []


async def test_pages_of_what_would_have_been_sent_neither_repeat_nor_skip(
    run_engine: Any, hl7: Any, before: Any
) -> None:
    running = await in_observe_mode_everything_is_judged(run_engine, hl7, before)
    whole = [row.id for row in await kept_back(running)]
    paged, after = [], 0
    while page := await running.store.read(lambda connection, after=after: would_have_sent(connection, after, 1)):
        paged.append(page[0].id)
        after = page[0].id
    assert paged == whole


async def test_after_the_switch_each_open_alert_is_told_once_and_the_past_is_not(
    run_engine: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    running = await in_observe_mode_everything_is_judged(run_engine, hl7, before)
    kept = await kept_back(running)
    await running.engine.stop()
    live = await run_engine(mode="deliver")
    await live.settled()
    open_alerts = sum((await live.store.snapshot()).alerts_open.values())
    sent = [row for row in await live.deliveries() if row["state"] != "observed"]
    assert {(row["alert_id"], row["destination"]) for row in sent} == {
        (row["alert_id"], name) for row in sent for name in ("ehr", "ehr-v2")
    }
    assert len(sent) == 2 * open_alerts
    assert await kept_back(live) == kept
    assert len({row["control_id"] for row in await live.deliveries()}) == len(await live.deliveries())
    assert len(prescriber.messages()) == len([row for row in sent if row["destination"] == "ehr-v2"])
    await live.engine.stop()
    again = await run_engine(mode="deliver")
    await again.settled()
    assert [row for row in await again.deliveries() if row["state"] != "observed"] == sent


async def test_what_was_withdrawn_while_observing_is_withdrawn_outside_after_the_switch(
    run_engine: Any, hl7: Any, prescriber: Any, before: Any, eventually: Any
) -> None:
    running = await run_engine(mode="deliver")
    await running.enrol()
    drawn = before(hours=3)
    await running.tell(hl7.oru("M1", anc="0.84", collected=drawn))
    await running.settled()
    assert [flag["status"] for flag in prescriber.flags()] == ["active"]
    await running.engine.stop()
    observing = await run_engine(mode="observe")
    await observing.tell(hl7.oru("M2", anc="2.84", collected=drawn, status="C"))
    await observing.engine.stop()
    assert [flag["status"] for flag in prescriber.flags()] == ["active"]
    live = await run_engine(mode="deliver")
    await eventually(lambda: [flag["status"] for flag in prescriber.flags()] != ["active"])
    await live.settled()


async def test_an_alert_that_was_withdrawn_before_anybody_was_told_is_told_to_nobody(
    run_engine: Any, hl7: Any, prescriber: Any, before: Any
) -> None:
    drawn = before(hours=3)
    observing = await run_engine(mode="observe")
    await observing.enrol()
    await observing.tell(
        hl7.oru("M1", anc="0.84", collected=drawn), hl7.oru("M2", anc="2.84", collected=drawn, status="C")
    )
    await observing.engine.stop()
    live = await run_engine(mode="deliver")
    await live.tell()
    await live.settled()
    told = [row for row in await live.deliveries() if row["state"] != "observed"]
    assert [row for row in await kept_back(live) if row.kind == "withdrawn"]
    assert not any(flag["status"] == "entered-in-error" for flag in prescriber.flags())
    withdrawn = {row.alert_id for row in await kept_back(live) if row.kind == "withdrawn"}
    assert [row for row in told if row["alert_id"] in withdrawn] == []


async def test_without_a_destination_observe_mode_still_keeps_what_it_would_have_sent(
    tmp_path: Path, url: str, hl7: Any, connect: Any, enrol_by_csv: Any, eventually: Any
) -> None:
    file = tmp_path / "observe.toml"
    file.write_text(NO_DESTINATION.format(url=url))
    await enrol_by_csv(tmp_path, url, "405660")
    engine = Engine(load(file, {}))
    await engine.start()
    assert engine.mllp is not None
    lab = await connect(engine.mllp.port)
    await lab.ask(hl7.oru("M1", anc="0.84"))
    await lab.close()
    store: Store = engine.store  # type: ignore[assignment]  # started above
    rows: list[WouldHaveSent] = []

    async def kept() -> bool:
        rows[:] = await store.read(lambda connection: would_have_sent(connection, 0, 10, "red"))
        return bool(rows)

    await eventually(kept)
    assert rows[0].destinations == ()
    assert await store.read(any_observed)
    await engine.stop()
