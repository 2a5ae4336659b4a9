"""Alerts on a second FHIR server that none of us wrote, of another make than HAPI: Medplum's router and repository. Its
versions are no numbers, and a transaction of it takes what it can."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.fhir_terms import Level
from emitters.sink import Delivered, TryAgain
from engine.compose import Engine
from engine.config import load
from rules.model import AlertKind, PatientIdentifier

SCRIPT = Path(__file__).parents[3] / "deploy" / "dev" / "medplum-fhir"
SYSTEM = "urn:oid:1.2.3"


class Medplum:
    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, method: str, path: str, body: Any = None, version: str = "") -> tuple[int, dict[str, Any]]:
        headers = {"content-type": "application/fhir+json"} | ({"if-match": f'W/"{version}"'} if version else {})
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310  # loopback
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def all(self, kind: str, patient: str) -> list[dict[str, Any]]:
        """Of one patient, who is one test's own."""
        _, bundle = self.send("GET", f"/{kind}?_count=1000")
        found = [entry["resource"] for entry in bundle.get("entry", ())]
        return [one for one in found if (one.get("subject") or one.get("for"))["reference"] == f"Patient/{patient}"]

    def patient(self, number: str) -> None:
        body = {"resourceType": "Patient", "id": number, "identifier": [{"system": SYSTEM, "value": number}]}
        assert self.send("PUT", f"/Patient/{number}", body)[0] in (200, 201)

    def changed(self, task_id: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """As another system's screens would: with its version, and again where somebody was quicker."""
        for _ in range(1000):
            _, task = self.send("GET", f"/Task/{task_id}")
            change(task)
            status, answer = self.send("PUT", f"/Task/{task_id}", task, task["meta"]["versionId"])
            if status == 200:
                return
            assert status == 412, answer
        pytest.fail("never the first")


@pytest.fixture(scope="module")
def medplum() -> Iterator[Medplum]:
    if shutil.which("npm") is None:
        pytest.fail("Node.js and npm are needed: apt-get install nodejs npm")
    process = subprocess.Popen([SCRIPT, "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("READY "):
        pytest.fail("the server ended instead of starting")
    yield Medplum(line.split()[1])
    process.kill()
    process.wait()


def sink_of(medplum: Medplum, **settings: Any) -> FhirServer:
    return FhirServer(FhirServerSettings(name="ehr", url=medplum.url, timeout_s=30, **settings))


def about(make: Any, patient: str, number: str) -> dict[str, Any]:
    subject = replace(make.alert().subject, identifiers=(PatientIdentifier(patient, SYSTEM),))
    return {"id": f"alert-{number}", "subject": subject, "result": make.result(key=f"result-{number}")}


@pytest.mark.parametrize("own_ids", [True, False])
@pytest.mark.parametrize("level", list(Level))
async def test_every_level_arrives_is_revised_and_taken_back(
    medplum: Medplum, make: Any, level: Level, own_ids: bool
) -> None:
    """Each notification twice, as a retry after a lost answer would; nothing is there twice."""
    patient = f"{level}-{own_ids}".lower()
    medplum.patient(patient)
    common = about(make, patient, patient)
    sink = sink_of(medplum, level=level, update_create=own_ids)
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
    whole = level in (Level.L2, Level.L3)
    assert [one["status"] for one in medplum.all("Flag", patient)] == ["entered-in-error"] * whole
    assert [one["status"] for one in medplum.all("Task", patient)] == ["entered-in-error"] * whole
    assert len(medplum.all("Observation", patient)) == whole


async def test_a_person_and_the_engine_on_one_task_lose_nothing_of_each_other(medplum: Medplum, make: Any) -> None:
    """Twenty revisions of ours against forty changes of theirs, each side again where the other was quicker."""
    medplum.patient("both")
    common = about(make, "both", "both")
    sink = sink_of(medplum)
    assert isinstance(await sink.send(make.alert(**common), "x" * 20), Delivered)
    ((number, _),) = [(one["id"], one) for one in medplum.all("Task", "both")]

    def noted(note: int) -> Callable[[dict[str, Any]], Any]:
        def change(task: dict[str, Any]) -> None:
            task["status"] = "accepted"
            task.setdefault("note", []).append({"text": f"person {note}"})

        return change

    def person() -> None:
        for note in range(40):
            medplum.changed(number, noted(note))

    async def engine() -> None:
        for revision in range(2, 22):
            while not isinstance(
                answer := await sink.send(make.later(**common, revision=revision), "x" * 20), Delivered
            ):
                assert isinstance(answer, TryAgain), answer

    await asyncio.gather(asyncio.to_thread(person), engine())
    await sink.close()
    (task,) = medplum.all("Task", "both")
    notes = [one["text"] for one in task["note"]]
    assert [note for note in notes if note.startswith("person")] == [f"person {note}" for note in range(40)]
    assert len(notes) == 60
    assert task["status"] == "accepted"
    assert [one["valuePositiveInt"] for one in task["input"] if "valuePositiveInt" in one] == [21]


async def test_a_task_completed_there_closes_the_alert_here(
    medplum: Medplum, tmp_path: Path, enrol_by_csv: Any, hl7: Any, connect: Any, eventually: Any
) -> None:
    medplum.patient("405660")
    database, config = f"sqlite:///{tmp_path / 'neutroflag.db'}", tmp_path / "neutroflag.toml"
    await enrol_by_csv(tmp_path, database, "405660")
    config.write_text(
        f'[store]\nurl = "{database}"\n[mllp]\nport = 0\n[http]\nport = 0\n[[destination]]\nname = "ehr"\nkind = "fhir"\n'
        f'url = "{medplum.url}"\nanswers_every_s = 0.1\n',
        encoding="utf-8",
    )
    engine = Engine(load(config, {}))
    await engine.start()
    try:
        assert engine.mllp is not None
        lab = await connect(engine.mllp.port)
        assert (await lab.ask(hl7.oru("M1", anc="0.40"))).code == "AA"
        await lab.close()
        (task,) = await eventually(lambda: medplum.all("Task", "405660"))

        def decided(task: dict[str, Any]) -> None:
            base = "https://neutroflag.org/fhir"
            kind = {"coding": [{"system": f"{base}/CodeSystem/anc-task-io", "code": "decision"}]}
            code = {"coding": [{"system": f"{base}/CodeSystem/anc-decision", "code": "STOPPED"}]}
            task |= {"status": "completed", "output": [{"type": kind, "valueCodeableConcept": code}]}
            task["note"] = [{"authorString": "Dr Hoda", "text": "stopped"}]

        medplum.changed(task["id"], decided)

        async def answered() -> list[tuple[str, str]]:
            assert engine.store is not None
            rows = await engine.store.read(lambda c: c.exec_driver_sql('SELECT "by", decision FROM answer').fetchall())
            return [tuple(row) for row in rows]

        assert await eventually(answered) == [("Dr Hoda", "stopped")]
    finally:
        await engine.stop()
    assert [one["status"] for one in medplum.all("Task", "405660")] == ["completed"]
    assert [one["status"] for one in medplum.all("Flag", "405660")] == ["active"]
