"""Two engines on one PostgreSQL, one killed under load: the other takes over, and nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from store import Store, listing
from store.check import findings

LABS, PATIENTS, MESSAGES = 4, 6, 90
COUNTS = ("0.40", "0.84", "1.20", "2.50")


async def load_messages(ports: list[int], connect: Any, unsent: list[tuple[str, bytes]], accepted: set[str]) -> None:
    """To the first door that answers, as behind a load balancer, until everything was acknowledged."""
    while unsent:
        for port in ports:
            with contextlib.suppress(ConnectionError, TimeoutError, OSError):
                lab = await connect(port)
                try:
                    while unsent:
                        control_id, raw = unsent.pop(0)
                        try:
                            ack = await lab.ask(raw)
                        except (ConnectionError, TimeoutError):
                            unsent.insert(0, (control_id, raw))
                            raise
                        if ack.code == "AA":
                            accepted.add(control_id)
                        else:
                            assert ack.code == "AE"
                            unsent.insert(0, (control_id, raw))
                finally:
                    await lab.close()


@pytest.mark.slow
async def test_a_host_that_dies_under_load_is_followed_by_the_other_and_nothing_is_lost_or_doubled(
    hosts: list[Any], start_host: Any, configs: Any, postgresql_url: str, prescriber: Any, connect: Any, hl7: Any,
    enrol_by_csv: Any, tmp_path: Path, eventually: Any,
) -> None:  # fmt: skip
    for number in range(PATIENTS):
        prescriber.add_patient(("urn:oid:1.2.3", f"4056{number:02}"), id_=f"p{number}")
        await enrol_by_csv(tmp_path, postgresql_url, f"4056{number:02}")
    config = configs("host", "all")
    hosts += [await start_host(config), await start_host(config)]
    first, second = hosts
    sent = {
        f"M{number}": hl7.oru(
            f"M{number}",
            anc=COUNTS[number % len(COUNTS)],
            patient=f"4056{number % PATIENTS:02}^^^CHX&1.2.3&ISO^PI",
            filler=f"F{number}",
        )
        for number in range(MESSAGES)
    }
    accepted: set[str] = set()
    parts = [[item for at, item in enumerate(sent.items()) if at % LABS == lab] for lab in range(LABS)]
    ports = ([first.port, second.port], [second.port, first.port])
    labs = [asyncio.create_task(load_messages(ports[at % 2], connect, part, accepted)) for at, part in enumerate(parts)]
    await eventually(lambda: len(accepted) > MESSAGES // 3, limit_s=60)
    await first.kill()
    await asyncio.wait_for(asyncio.gather(*labs), 120)
    assert accepted == set(sent)

    store = Store(postgresql_url, sole=False)
    await store.open()

    async def drained() -> bool:
        state = await store.snapshot()
        return state.pending == 0 and not [row for row in state.outbox if row[1] == "waiting"]

    await eventually(drained, limit_s=90)
    assert await store.read(findings) == []
    rows = await store.read(lambda connection: list(listing.messages(connection)))
    firsts = Counter(row["control_id"] for row in rows if row["disposition"] != "duplicate")
    assert firsts == dict.fromkeys(sent, 1)
    outbox = await store.read(lambda connection: list(listing.deliveries(connection)))
    await store.close()
    assert {row["state"] for row in outbox} == {"delivered"}
    v2 = sorted(row["control_id"] for row in outbox if row["destination"] == "ehr-v2")
    assert v2
    # At most the one on its way when the host died came twice, under one id; for a reader it is one message.
    assert sorted(set(prescriber.messages())) == v2
    assert prescriber.fhir.doubled() == 0


async def test_doors_without_judges_and_a_judge_without_doors_do_the_whole_work_together(
    hosts: list[Any], start_host: Any, configs: Any, postgresql_url: str, prescriber: Any, connect: Any, hl7: Any,
    enrol_by_csv: Any, tmp_path: Path, eventually: Any,
) -> None:  # fmt: skip
    await enrol_by_csv(tmp_path, postgresql_url, "405660")
    hosts += [await start_host(configs(f"door{n}", "accept")) for n in range(2)]
    labs = [await connect(host.port) for host in hosts]
    for number, lab in enumerate(labs):
        assert (await lab.ask(hl7.oru(f"M{number}", anc="0.40", filler=f"F{number}"))).code == "AA"
        await lab.close()
    hosts.append(await start_host(configs("judge", "judge")))
    await eventually(lambda: len(set(prescriber.messages())) >= 1, limit_s=60)
    store = Store(postgresql_url, sole=False)

    async def judged() -> bool:
        return (await store.snapshot()).dispositions == {"judged": 2}

    await eventually(judged, limit_s=60)
