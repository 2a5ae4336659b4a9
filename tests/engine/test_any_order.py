"""Whatever the order in which a patient's results arrive, and however often: the end is that of the history in its order.

Preliminary, final, corrected and withdrawn versions of several counts, some of them told by a second channel (FHIR over HTTP,
or over Kafka) under its own key, arrive shuffled, doubled and late, through the real store and worker. Random by seed.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.back import Back
from engine.config import load
from engine.observe import Meters
from ingest import envelope
from ingest.fhir_http import stored_as
from store import Store
from store.check import findings

VALUES = ("0.40", "0.70", "1.20", "1.45", "2.50", "3.10")


@dataclass(frozen=True)
class Told:
    """One version as one channel tells it. ``at``: its place in the true order."""

    at: datetime
    channel: str
    raw: bytes


def history(seed: int, now: datetime, hl7: Any, fhir: Any) -> list[Told]:
    """Counts a few hours apart; each a preliminary value perhaps, a final one, corrections, perhaps a withdrawal."""
    chance = random.Random(seed)
    told: list[Told] = []
    for number in range(chance.randint(2, 4)):
        drawn = now - timedelta(hours=20 - 5 * number)
        second = chance.random() < 0.4
        channel = chance.choice(("fhir", "kafka"))
        versions = [("P", chance.choice(VALUES))] if not second and chance.random() < 0.5 else []
        versions.append(("F", chance.choice(VALUES)))
        versions += [("C", chance.choice(VALUES)) for _ in range(chance.randint(0, 2))]
        if not second and chance.random() < 0.25:
            versions.append((chance.choice("WD"), versions[-1][1]))
        for step, (status, value) in enumerate(versions):
            issued = drawn + timedelta(minutes=10 + 10 * step)
            raw = hl7.oru(
                f"N{number}V{step}", anc=value, filler=f"B{number}", status=status, collected=drawn, issued=issued
            )
            told.append(Told(issued, "mllp", raw))
            if second:
                named = {"F": "final", "C": "corrected"}[status]
                observation = fhir.observation(value, identifier=f"r-{number}", collected=drawn, status=named)
                observation["issued"] = issued.isoformat()
                body = json.dumps(observation).encode()
                told.append(Told(issued + timedelta(seconds=1), channel, body))
    return sorted(told, key=lambda one: one.at)


async def end_of(folder: Path, url: str, arrivals: list[Told], chance: random.Random, now: datetime) -> Any:
    """What stands after these arrivals: (counts, present state, open stops), and what is wrong with the account."""
    config = folder / "neutroflag.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[engine]\nhistory_settle_s = 0.05\n[watch]\nevery_s = 3600\n')
    store = Store(url)
    await store.open()
    back = Back(load(config, {}), store, Meters(), on_recorded=lambda ids: None)
    back.start()

    async def judged() -> None:
        async with asyncio.timeout(60):
            while (await store.snapshot()).pending or await store.settling(now + timedelta(days=1), 5):
                store.arrived.set()
                await asyncio.sleep(0.01)

    try:
        for one in arrivals:
            if one.channel == "mllp":
                item = envelope.hl7v2(one.raw, channel="mllp", peer="", now=now)[1]
            elif one.channel == "kafka":
                item = stored_as(one.raw, channel="kafka", peer="lab.results[0]@1")
            else:
                item = envelope.fhir(one.raw, channel="fhir", peer="10.0.0.7:50122", now=now)
            await store.accept(item)
            if chance.random() < 0.3:
                await judged()
        await judged()
        assert not back.failed.done()
        assert await store.read(findings) == []
        return await store.read(_standing)
    finally:
        await back.stop()
        await store.close()


def _standing(connection: Any) -> Any:
    bodies = [json.loads(row[0]) for row in connection.exec_driver_sql("SELECT body FROM result WHERE current")]
    counts = {(body["collected_at"][:16], Decimal(body["anc"]["per_mm3"])) for body in bodies if _stands(body)}
    rows = connection.exec_driver_sql("SELECT present FROM patient WHERE enrolled AND present IS NOT NULL")
    state = [(one["category"], one["action"]) for one in (json.loads(row[0]) for row in rows) if one]
    stops = connection.exec_driver_sql(
        "SELECT level, count(*) FROM alert WHERE state = 'open' AND family = 'ANC-STOP' GROUP BY level"
    ).fetchall()
    ends = Counter(row[0] for row in connection.exec_driver_sql("SELECT disposition FROM message"))
    return {"counts": counts, "present": state, "stops": [tuple(row) for row in stops]}, ends


def _stands(body: dict[str, Any]) -> bool:
    return bool(body["anc"]) and body["status"] not in ("cancelled", "entered-in-error")


@pytest.fixture
def copies(tmp_path: Path, request: Any) -> Callable[[str], str]:
    """``copies(template)``: a new database with what stands in that one."""

    def make(template: str) -> str:
        if template.startswith("postgresql"):
            server = request.getfixturevalue("postgresql")
            url: str = server.copy(template)
            request.addfinalizer(functools.partial(server.drop, url))
            return url
        file = tmp_path / f"{uuid.uuid4().hex}.db"
        shutil.copy(template.removeprefix("sqlite:///"), file)
        return f"sqlite:///{file}"

    return make


@pytest.mark.parametrize(
    ("each_database", "seed"),
    [*(("sqlite", seed) for seed in (0, 1, 2, 3, 24, 114)), *(("postgresql", seed) for seed in (5, 6))],
    indirect=["each_database"],
)
async def test_arrival_in_any_order_ends_as_the_history_in_its_own(
    each_database: str, seed: int, tmp_path: Path, hl7: Any, fhir: Any, before: Any, enrol_by_csv: Any, copies: Any
) -> None:
    chance, now = random.Random(1000 + seed), before()
    await enrol_by_csv(tmp_path, each_database, "405660")
    told = history(seed, now, hl7, fhir)
    truth, _ = await end_of(tmp_path, copies(each_database), told, chance, now)
    for _ in range(2):
        again = [one for one in told if one.channel == "mllp" and chance.random() < 0.3]
        arrivals = [*told, *again]
        chance.shuffle(arrivals)
        found, ends = await end_of(tmp_path, copies(each_database), arrivals, chance, now)
        order = [(one.channel, one.raw[-120:]) for one in arrivals]
        assert found == truth, order
        assert ends["duplicate"] == len(again)
        assert set(ends) <= {"judged", "duplicate"}
