"""A simulated region: the same seed gives the same week, in the mixes that it promises, and its report reconciles."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.cli_region import region_command
from engine.region import HOURS, Region, balanced, reconciled
from ingest.reading import read_message
from rules.model import ResultStatus

DAY = datetime(2026, 11, 23, tzinfo=UTC)


def region(**other: Any) -> Region:
    return Region(**{"seed": 7, "count": 4000, "start": DAY, "laboratories": 40, "patients": 30} | other)


def test_the_same_seed_gives_the_same_bytes_in_any_order_and_another_seed_others() -> None:
    first, second = region(), region()
    forwards = [first.build(number) for number in range(400)]
    backwards = [second.build(number) for number in reversed(range(400))]
    assert forwards == backwards[::-1]
    assert not set(forwards) & {region(seed=8).build(number) for number in range(400)}


@pytest.mark.parametrize(("relevant", "counts"), [(1, 40), (5, 200), (100, 4000)])
def test_of_a_hundred_messages_so_many_are_counts(relevant: int, counts: int) -> None:
    kinds = region(relevant=relevant).kinds()
    assert kinds["final"] + kinds["preliminary"] + kinds["correction"] == counts
    assert kinds["preliminary"] == kinds["correction"] == counts // 10
    assert sum(kinds.values()) == 4000


def test_each_message_is_read_as_what_it_was_sent_for() -> None:
    of = region(relevant=20, count=600)
    seen: dict[bytes, str] = {}
    status = {
        "final": ResultStatus.FINAL,
        "preliminary": ResultStatus.PRELIMINARY,
        "correction": ResultStatus.CORRECTED,
    }
    for number in range(of.count):
        before = of.told.copy()
        raw = of.build(number)
        (kind,) = of.told - before
        if kind == "sent again":
            assert raw in seen
            continue
        assert raw not in seen
        seen[raw] = kind
        reading = read_message(raw, format="hl7v2")
        assert [result.status for result in reading.results] == ([status[kind]] if kind in status else [])
        assert reading.problems == ()
    assert of.told == of.kinds()
    assert len(set(of.told)) == 5


def test_what_follows_a_preliminary_or_a_count_is_of_the_same_order() -> None:
    of = region(relevant=10, count=200)
    keys: dict[str, list[str]] = {}
    for number in range(of.count):
        for result in read_message(of.build(number), format="hl7v2").results:
            keys.setdefault(result.key, []).append(result.status.value)
    assert Counter(tuple(dict.fromkeys(said)) for said in keys.values()) == {
        ("final",): 12, ("preliminary", "final"): 2, ("final", "corrected"): 2,
    }  # fmt: skip


def test_a_few_laboratories_are_large_and_many_small() -> None:
    of = region()
    senders = Counter(of.build(number).split(b"|")[3] for number in range(2000))
    assert len(senders) > 35
    ranked = [number for _, number in senders.most_common()]
    assert sum(ranked[:10]) > 2000 * 0.4


def test_monday_morning_is_the_peak_and_everything_comes_within_the_week() -> None:
    of = region(seconds=168.0)
    due = [of.due_s(number) for number in range(of.count)]
    assert due == sorted(due)
    assert 0 <= due[0] < due[-1] < 168
    by_hour = Counter(int(at) for at in due)
    assert by_hour.most_common(1)[0][0] in range(8, 12)
    assert abs(sum(HOURS) - 1) < 1e-9
    assert of.peak() == pytest.approx(by_hour.most_common(1)[0][1] / (of.count / 168), rel=0.05)


def test_a_message_that_ended_elsewhere_is_seen_in_the_sums() -> None:
    of = region(count=200)
    for number in range(200):
        of.build(number)
    good = {"not_relevant": of.told["other analyses"] + 5, "unenrolled": 2, "duplicate": of.told["sent again"]}
    assert balanced(reconciled(of.told, {"not_relevant": 5}, good))
    assert not balanced(reconciled(of.told, {}, good))
    assert not balanced(reconciled(of.told, {"not_relevant": 5}, good | {"set_aside": 1}))


async def command(running: Any, out: io.StringIO, **other: Any) -> int:
    given: dict[str, Any] = {
        "rate": 0, "connections": 4, "count": 400, "laboratories": 12, "seed": 3, "against": running.url,
        "register": None, "allow_remote": False, "stdout": out, "stderr": out,
    }  # fmt: skip
    return await asyncio.to_thread(region_command, f"mllp://127.0.0.1:{running.mllp_port}", **given | other)


async def test_the_report_reconciles_with_a_running_engine_and_a_second_run_is_all_duplicates(running: Any) -> None:
    out = io.StringIO()
    assert await command(running, out) == 0, out.getvalue()
    first = (await running.store.snapshot()).dispositions
    assert sum(first.values()) == 400
    assert first["not_relevant"] > 390
    again = io.StringIO()
    assert await command(running, again) == 1
    assert "DIFFERS" in again.getvalue()
    assert (await running.store.snapshot()).dispositions["duplicate"] == first["duplicate"] + 400
    assert await running.findings() == []


async def test_its_patients_can_be_put_on_the_register(running: Any, tmp_path: Path) -> None:
    from engine.register_csv import import_csv

    file, out = tmp_path / "region.csv", io.StringIO()
    assert await command(running, out, register=file) == 0
    assert "5000 patients" in out.getvalue()
    few = tmp_path / "few.csv"
    few.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")
    report = await asyncio.to_thread(
        import_csv, few, running.engine.settings.store.url, actor="Dr Hoda", zone=running.engine.settings.zone
    )
    assert (report.enrolled, report.complaints) == (3, [])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"laboratories": 2001}, "--region"),
        ({"seed": -1}, "--seed"),
        ({"against": "x"}, "--against"),
        ({"count": 0}, "--count"),
    ],
)
async def test_a_region_that_cannot_be_played_is_refused(running: Any, asked: dict[str, Any], said: str) -> None:
    out = io.StringIO()
    assert await command(running, out, **asked) == 2
    assert said in out.getvalue()
