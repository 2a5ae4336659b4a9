"""The clock in a running engine: a missing count reaches the prescriber, is in the metrics, and ends with the count."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from engine.config import ConfigError, load
from store import findings

WATCH = "[watch]\nevery_s = 0.2\n"


def overdue(prescriber: Any) -> list[str]:
    return [
        flag["status"]
        for flag in prescriber.flags()
        if any(coding["code"] == "ANC-OVERDUE" for coding in flag["code"]["coding"])
    ]


async def metrics(url: str) -> dict[str, str]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{url}/metrics")).text
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))  # type: ignore[misc]


async def test_a_missing_count_reaches_the_prescriber_once_and_is_closed_by_the_count(
    run_engine: Callable[..., Awaitable[Any]],
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=WATCH)
    await eventually(lambda: overdue(prescriber) == ["active"] and len(prescriber.messages()) == 1)
    await asyncio.sleep(0.6)  # three more sweeps
    assert len(prescriber.messages()) == 1
    assert (await metrics(running.url))["neutroflag_patients_overdue"] == "1.0"
    await running.tell(hl7.oru("M1", anc="2.50"))
    await eventually(lambda: overdue(prescriber) == ["inactive"])
    assert await running.store.read(findings.open_findings) == []
    shown = await metrics(running.url)
    assert shown["neutroflag_patients_overdue"] == "0.0"
    assert 0 <= float(shown['neutroflag_feed_silence_seconds{channel="mllp"}']) < 60
    assert [task["status"] for task in prescriber.tasks()] == ["cancelled"]
    assert await running.findings() == []


async def test_observe_mode_notices_and_tells_nobody(
    run_engine: Callable[..., Awaitable[Any]],
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    prescriber: Any,
    eventually: Any,
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=WATCH, mode="observe")
    await eventually(lambda: running.store.read(findings.open_findings))
    await asyncio.sleep(0.4)
    assert prescriber.flags() == prescriber.tasks() == []
    assert prescriber.messages() == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[watch]\nevry_s = 3\n", "watch.evry_s: unknown key; did you mean every_s?"),
        ("[watch]\nred_h = 0\n", "watch.red_h"),
        ("[[watch.feed]]\nsender = 'A'\nmax_silence = 3\n", "watch.feed.0.max_silence"),
    ],
)
def test_a_misspelt_or_impossible_setting_of_the_clock_is_named(tmp_path: Any, text: str, place: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(place)):
        load(file, {})
