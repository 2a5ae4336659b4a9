"""Alerts on a FHIR server that none of us wrote, killed and started again in between: none missing, none doubled, no person's
status overwritten. ``NEUTROFLAG_ALERTS=10000`` is the long form."""

from __future__ import annotations

import asyncio
import csv
import os
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.fhir_terms import FhirProfile, Level
from emitters.sink import Delivered
from engine.compose import Engine
from engine.config import load
from engine.register_csv import import_csv
from rules.model import AlertKind, PatientIdentifier
from store import schema
from store.database import writer

ALERTS = int(os.environ.get("NEUTROFLAG_ALERTS", "200"))
SYSTEM = "urn:oid:1.2.3"
GROUP = 200
MORE = ("DetectedIssue", "CommunicationRequest", "ServiceRequest")
"""What L3 has besides."""
PATIENCE_S = 900 + ALERTS
"""So that it ends; how long it takes is no matter of this test."""


def patient_id(number: int) -> str:
    return f"{700000 + number}"


def register(folder: Path, url: str, zone: Any) -> None:
    file = folder / "register.csv"
    start = (date.today() - timedelta(days=40)).isoformat()  # noqa: DTZ011  # days, not instants
    lately = (date.today() - timedelta(days=2)).isoformat()  # noqa: DTZ011  # so that nobody is overdue
    columns = {
        "authority": "1.2.3", "family": "SPECIMEN", "given": "DOMINIQUE", "birth_date": "1979-03-28", "sex": "F",
        "treatment_start": start, "start_confirmed_by": "Dr Hoda", "neutropenia_history": "none",
        "last_anc_on": lately, "last_anc_per_mm3": "3000",
    }  # fmt: skip
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.DictWriter(out, ["patient_id", *columns])
        rows.writeheader()
        rows.writerows({"patient_id": patient_id(number), **columns} for number in range(ALERTS))
    with writer(url).connect() as connection, connection.begin():
        schema.upgrade(connection)
    import_csv(file, url, actor="Dr Hoda", zone=zone)


def patients(hapi: Any) -> None:
    for first in range(0, ALERTS, GROUP):
        entries = [
            {
                "resource": {
                    "resourceType": "Patient",
                    "id": f"p{number}",
                    "identifier": [{"system": SYSTEM, "value": patient_id(number)}],
                },
                "request": {"method": "PUT", "url": f"Patient/p{number}"},
            }
            for number in range(first, min(first + GROUP, ALERTS))
        ]
        hapi.send("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})


async def tell(engine: Engine, hl7: Any, connect: Any, control: str, numbers: range, anc: str, **more: Any) -> None:
    assert engine.mllp is not None
    lab = await connect(engine.mllp.port)
    for number in numbers:
        raw = hl7.oru(
            f"{control}{number}",
            anc=anc,
            patient=f"{patient_id(number)}^^^CHX&1.2.3&ISO^PI",
            filler=f"F{control}{number}",
            **more,
        )
        assert (await lab.ask(raw)).code == "AA"
    await lab.close()


async def delivered(engine: Engine) -> int:
    assert engine.store is not None
    snapshot = await engine.store.snapshot()
    if snapshot.pending:
        return 0
    waiting = sum(row[2] for row in snapshot.outbox if row[1] == "waiting")
    dead = sum(row[2] for row in snapshot.outbox if row[1] == "dead")
    assert dead == 0, "a notification became a dead letter"
    return waiting == 0


@pytest.mark.parametrize("level", ["L2", "L3"] if ALERTS <= 1000 else ["L2"])
async def test_kill_and_restart_leave_exactly_the_expected_flags_and_tasks(
    hapi: Any, hl7: Any, connect: Any, before: Any, eventually: Any, tmp_path: Path, level: str
) -> None:
    url = f"sqlite:///{tmp_path}/neutroflag.db"
    settings = tmp_path / "neutroflag.toml"
    settings.write_text(
        f"""
[store]
url = "{url}"
[engine]
name = "engine-{level}"
history_settle_s = 0.2
[mllp]
port = 0
[http]
port = 0
[[destination]]
name = "ehr"
kind = "fhir"
url = "{hapi.url}"
level = "{level}"
timeout_s = 60
retry_first_s = 0.2
retry_longest_s = 2
""",
        encoding="utf-8",
    )
    chosen = load(settings, {})
    await asyncio.to_thread(register, tmp_path, url, chosen.zone)
    await asyncio.to_thread(patients, hapi)
    known = {kind: {one["id"] for one in hapi.all(kind)} for kind in ("Flag", "Task", *MORE)}

    def made(kind: str) -> list[dict[str, Any]]:
        """Of the stops alone: the clock tells of the server that is down."""
        code = {"Flag": "ANC-STOP", "Task": "ACK-STOP"}[kind]
        return [
            one for one in hapi.all(kind) if one["id"] not in known[kind] and one["code"]["coding"][0]["code"] == code
        ]

    engine = Engine(chosen)
    await engine.start()
    try:
        third = ALERTS // 3

        async def some_arrived() -> bool:
            assert engine.store is not None
            snapshot = await engine.store.snapshot()
            waiting = sum(row[2] for row in snapshot.outbox if row[1] == "waiting")
            return snapshot.alerts_open.get("red", 0) - waiting > third // 2

        # Killed while deliveries are under way, and down while the rest arrive from the laboratory.
        sending = asyncio.create_task(tell(engine, hl7, connect, "A", range(ALERTS), "0.84", collected=before(hours=2)))
        await eventually(some_arrived, PATIENCE_S)
        await asyncio.sleep(1)
        await asyncio.to_thread(hapi.kill)
        await sending
        await asyncio.to_thread(hapi.start)
        await eventually(lambda: delivered(engine), PATIENCE_S)

        tasks = made("Task")
        assert len(tasks) == ALERTS
        answered = tasks[: third or 1]
        for number, task in enumerate(answered):
            status = ("completed", "accepted", "rejected")[number % 3]
            decided = {"output": [{"type": {"text": "decision"}, "valueString": "STOPPED"}]} if number % 3 == 0 else {}
            hapi.send("PUT", f"/Task/{task['id']}", {**task, "status": status, **decided})

        # The next day's counts are worse: an update of every alert, again with a kill in the middle.
        sending = asyncio.create_task(tell(engine, hl7, connect, "B", range(ALERTS), "0.40", collected=before(hours=1)))
        await asyncio.sleep(2)
        await asyncio.to_thread(hapi.kill)
        await sending
        await asyncio.to_thread(hapi.start)
        await eventually(lambda: delivered(engine), PATIENCE_S)
    finally:
        await engine.stop()

    flags = made("Flag")
    assert len(flags) == ALERTS
    assert len({one["subject"]["reference"] for one in flags}) == ALERTS
    assert {one["status"] for one in flags} == {"active"}
    assert all("0,4 G/L" in one["code"]["text"] for one in flags)
    after = {one["id"]: one for one in made("Task")}
    for number, task in enumerate(answered):
        assert after[task["id"]]["status"] == ("completed", "accepted", "rejected")[number % 3]
    # Whoever had closed theirs is asked anew beside it, once; nobody else has a second Task.
    closed = sum(1 for number in range(len(answered)) if number % 3 != 1)
    assert len(after) == ALERTS + closed
    per_alert = Counter(one["groupIdentifier"]["value"] for one in after.values())
    assert Counter(per_alert.values()) == Counter({1: ALERTS - closed, 2: closed})
    identifiers = Counter(one["identifier"][0]["value"] for one in [*flags, *after.values()])
    assert max(identifiers.values()) == 1
    if level == "L3":
        only_once(hapi, known)


def only_once(hapi: Any, known: dict[str, set[str]]) -> None:
    """One issue and one proposed count an alert, and one message that still is to be read; each identifier once."""
    found = {kind: [one for one in hapi.all(kind) if one["id"] not in known[kind]] for kind in MORE}
    names = Counter((kind, one["identifier"][0]["value"]) for kind in MORE for one in found[kind])
    assert max(names.values()) == 1
    assert len(found["DetectedIssue"]) == ALERTS
    assert len(found["ServiceRequest"]) == ALERTS
    assert {one["status"] for one in found["ServiceRequest"]} == {"active"}
    standing = [one for one in found["CommunicationRequest"] if one["status"] == "active"]
    per_alert = Counter(one["identifier"][0]["value"].rpartition(":")[0] for one in standing)
    assert len(per_alert) == ALERTS
    assert set(per_alert.values()) == {1}


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("own_ids", [True, False])
async def test_every_level_arrives_is_revised_and_taken_back(hapi: Any, make: Any, level: Level, own_ids: bool) -> None:
    """Each notification twice, as a retry after a lost answer would; a foreign server finds no fault in any."""
    for path, body in (
        ("/Patient/x1", {"resourceType": "Patient", "id": "x1", "identifier": [{"system": SYSTEM, "value": "x1"}]}),
        ("/PractitionerRole/psy1", {"resourceType": "PractitionerRole", "id": "psy1", "active": True}),
    ):
        hapi.send("PUT", path, body)
    number = f"{level}-{own_ids}"
    subject = replace(make.alert().subject, identifiers=(PatientIdentifier("x1", SYSTEM),))
    common = {"id": f"alert-{number}", "subject": subject, "result": make.result(key=f"result-{number}")}
    sink = FhirServer(
        FhirServerSettings(
            name="ehr", url=hapi.url, timeout_s=60, level=level, update_create=own_ids, profile=FhirProfile()
        )
    )
    try:
        for alert in (
            make.alert(**common),
            make.later(**common),
            make.later(**common, revision=3, kind=AlertKind.WITHDRAWN, reason="entered-in-error"),
        ):
            for _ in range(2):
                answer = await sink.send(alert, "x" * 20)
                assert isinstance(answer, Delivered), answer
    finally:
        await sink.close()
