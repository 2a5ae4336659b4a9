"""Each metric, label and value that the alert rules and the dashboard name is one that a running engine exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rules.model import AlertLevel
from store.port import Disposition

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(neutroflag_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"')
BY = re.compile(r"\bby \(([^)]*)\)")
# Prometheus adds these by itself: who was asked, and whether it answered.
ITS_OWN = {"job", "instance", "le"}


def rules() -> Iterator[dict[str, Any]]:
    text = (ROOT / "deploy" / "prometheus" / "neutroflag.rules.yaml").read_text(encoding="utf-8")
    for group in yaml.safe_load(text)["groups"]:
        yield from group["rules"]


def dashboard() -> dict[str, Any]:
    text = (ROOT / "deploy" / "grafana" / "neutroflag.dashboard.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def expressions() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


async def test_everything_that_is_named_is_exported_by_a_running_engine(
    run_engine: Any, hl7: Any, eventually: Any
) -> None:
    running = await run_engine(extra="[watch]\nevery_s = 0.2\n")
    await running.enrol()
    del running.prescriber.fhir.held["Patient"]["p1"]  # a dead letter to be
    lab = await running.lab()
    await lab.write(b"noise")
    await lab.close()
    await running.tell(hl7.oru("M1", anc="0.40"), hl7.oru("M2", unit="", filler="B2"), b"no message")
    exported: dict[str, set[str]] = {}

    async def everything() -> bool:
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{running.url}/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                exported.setdefault(sample.name, set()).update(sample.labels)
        # What comes last: the clock's look at the feeds, a refused notification.
        return {"neutroflag_feed_silence_seconds", "neutroflag_outbox_messages"} <= set(exported)

    await eventually(everything)
    named: dict[str, set[str]] = {}
    for where, expression in expressions().items():
        names = METRIC.findall(expression)
        assert names or where == "NeutroFlagHostDown", where
        grouped = {label.strip() for labels in BY.findall(expression) for label in labels.split(",")}
        for name, matchers in names:
            wanted = {label for label, _, _ in MATCHER.findall(matchers)} | grouped
            assert name in exported, f"{where}: nobody exports {name}"
            assert wanted - ITS_OWN <= exported[name], f"{where}: {name} has no {wanted - ITS_OWN - exported[name]}"
            named.setdefault(name, set())
    assert len(named) > 8


def test_the_values_that_are_named_are_values_that_there_are() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "ingest").rglob("*.py"))
    known = {
        "disposition": {one.value for one in Disposition},
        "level": {one.value for one in AlertLevel},
        "state": {"waiting", "dead"},
    }
    for where, expression in expressions().items():
        for _, matchers in METRIC.findall(expression):
            for label, _, value in MATCHER.findall(matchers):
                for one in value.split("|"):
                    if label == "event":
                        assert f'"{one}"' in sources, f"{where}: no door says {one}"
                    elif label in known:
                        assert one in known[label], f"{where}: {label} is never {one}"


def test_each_alert_says_what_to_do_and_the_runbook_knows_it() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["labels"]["runbook"] in runbook, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_gauges_of_the_store_are_never_added_up_over_engines() -> None:
    """Each engine on one database tells the same number."""
    gauges = "messages_pending|outbox_messages|outbox_oldest_seconds|alerts_open|patients_overdue|feed_silence_seconds"
    for where, expression in expressions().items():
        assert not re.search(rf"\bsum\s*(by \([^)]*\)\s*)?\(\s*neutroflag_({gauges})", expression), where


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: panel["title"])
def test_each_panel_stands_in_its_own_place(panel: dict[str, Any]) -> None:
    mine = panel["gridPos"]
    assert mine["x"] + mine["w"] <= 24
    for other in dashboard()["panels"]:
        theirs = other["gridPos"]
        apart = (
            mine["x"] + mine["w"] <= theirs["x"]
            or theirs["x"] + theirs["w"] <= mine["x"]
            or mine["y"] + mine["h"] <= theirs["y"]
            or theirs["y"] + theirs["h"] <= mine["y"]
        )
        assert other["id"] == panel["id"] or apart
