"""Killed at any moment, the engine has lost nothing that it acknowledged and sends nothing a reader takes for two alerts.

Several rounds of: serve, load over several connections, kill -9, serve again, resend what had no AA, reconcile.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

LABS, ROUNDS, PATIENTS = 4, 3, 8
COUNTS = ("0.40", "0.84", "1.20", "2.50")


@pytest.fixture
def url(each_database: str) -> str:
    """Promised on both."""
    return each_database


class Served:
    """``neutroflag serve`` as a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, url: str) -> None:
        self.process, self.port, self.url = process, port, url

    @classmethod
    async def start(cls, config: Path) -> Served:
        arguments = [sys.executable, "-m", "engine.cli", "serve", "--config", str(config)]
        process = await asyncio.to_thread(
            subprocess.Popen, arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        said = (await asyncio.to_thread(process.stderr.readline)).decode()
        found = re.search(r"mllp://127\.0\.0\.1:(\d+) +(http://\S+)", said)
        assert found, said
        return cls(process, int(found[1]), found[2])

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.communicate)

    async def stop(self) -> int:
        self.process.terminate()
        await asyncio.to_thread(self.process.communicate, timeout=30)
        return self.process.returncode


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def load(port: int, connect: Any, unsent: list[tuple[str, bytes]], accepted: set[str]) -> None:
    """Sends from the front of the list until it is empty or the engine is gone."""
    lab = await connect(port)
    try:
        while unsent:
            control_id, raw = unsent.pop(0)
            try:
                ack = await lab.ask(raw)
            except (ConnectionError, TimeoutError):
                unsent.append((control_id, raw))
                raise
            assert (ack.code, ack.control_id) == ("AA", control_id)
            accepted.add(control_id)
    except (ConnectionError, TimeoutError):
        return
    finally:
        await lab.close()


@pytest.mark.slow
async def test_kill_9_under_load_loses_nothing_and_doubles_nothing(
    settings_file: Any,
    prescriber: Any,
    hl7: Any,
    before: Any,
    connect: Any,
    tmp_path: Path,
    url: str,
    rows_of: Any,
    eventually: Any,
    enrol_by_csv: Any,
) -> None:
    chance = random.Random(20261122)
    config = settings_file()
    for number in range(PATIENTS):
        prescriber.add_patient(("urn:oid:1.2.3", f"P{number}"), id_=f"p{number}")
        await enrol_by_csv(tmp_path, url, f"P{number}")
    sent: dict[str, bytes] = {}
    accepted: set[str] = set()
    unsent: list[tuple[str, bytes]] = []
    for round_ in range(ROUNDS):
        for n in range(60):
            control_id = f"R{round_}N{n}"
            sent[control_id] = hl7.oru(
                control_id,
                anc=chance.choice(COUNTS),
                filler=f"F{control_id}",
                patient=f"P{n % PATIENTS}^^^CHX&1.2.3&ISO^PI",
                collected=before(minutes=300 - round_ * 90 - n // PATIENTS * 5),
            )
            unsent.append((control_id, sent[control_id]))
        served = await Served.start(config)
        loads = [asyncio.create_task(load(served.port, connect, unsent, accepted)) for _ in range(LABS)]
        await asyncio.sleep(0.1 + chance.random() * 0.6)
        await served.kill()
        await asyncio.gather(*loads)

    served = await Served.start(config)
    await asyncio.gather(*(load(served.port, connect, unsent, accepted) for _ in range(LABS)))
    assert unsent == []

    async def drained() -> bool:
        return bool(await asyncio.to_thread(rows_of, _WAITING) == [(0, 0, 0)])

    await eventually(drained, limit_s=60)
    assert await served.stop() == 0

    # In: every message acknowledged is on file once, whatever was sent twice is a duplicate of it.
    listed = [json.loads(line) for line in command(config, "messages", "list", "--json").stdout.splitlines()]
    firsts = Counter(row["control_id"] for row in listed if row["disposition"] != "duplicate")
    assert accepted == set(sent)
    assert firsts == dict.fromkeys(sent, 1)
    assert {row["disposition"] for row in listed} <= {"judged", "duplicate"}

    # Out: every notification arrived; on the FHIR side each alert is one Flag, on the v2 side each MSH-10 is one message.
    outbox = rows_of("select destination, control_id, state from delivery")
    assert {state for _, _, state in outbox} == {"delivered"}
    v2 = [control_id for destination, control_id, _ in outbox if destination == "ehr-v2"]
    assert sorted(prescriber.messages()) == sorted(v2)
    assert v2
    assert prescriber.fhir.doubled() == 0

    verified = command(config, "db", "verify")
    assert verified.returncode == 0, verified.stdout


# Every message judged, every notification taken and every patient looked at.
_WAITING = (
    "select (select count(*) from message where disposition is null), "
    "(select count(*) from delivery where state = 'waiting'), "
    "(select count(*) from patient where settle_at is not null)"
)
