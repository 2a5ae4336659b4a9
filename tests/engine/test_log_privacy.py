"""The grep test: a served engine meets recognisable people at every door, and what it says of itself names none of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine.observe import Meters
from engine.prescriber import AckFault, HttpFault, Prescriber
from wire.ack import AckError, acknowledge
from wire.er7 import peek
from wire.mllp import frame

FAMILY, GIVEN, MRN, FILLER, CONTROL = "ZZYGMUNTOWSKA", "QWERTINETTE", "98765432101", "FILL77881", "CTRLZZ99"
ADDRESS, PHONE, NIR, NOTE, VALUE = "GLYCINES77", "0612345699", "252127512345678", "fevrePALUDISME", "0.4379137"
PASSWORD = "hunter2-hunter2-hunter2"  # noqa: S105
SECRETS = (
    *(FAMILY, GIVEN, MRN, FILLER, CONTROL, ADDRESS, PHONE, NIR, NOTE, PASSWORD),
    *("19521217", "1952-12-17", "17/12/1952", "4379137", "437.9137"),
)
SYSTEM = "urn:oid:1.2.3"


def oru(
    control: str, *, anc: str = VALUE, unit: str = "10*9/L", when: str, patient: str = MRN, tail: str = ""
) -> bytes:
    return (
        f"MSH|^~\\&|SIL|LABO|N|CHX|{when}||ORU^R01^ORU_R01|{CONTROL}{control}|P|2.5|||||FRA|UNICODE UTF-8\r"
        f"PID|1||{patient}^^^CHX&1.2.3&ISO^PI~{NIR}^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.8&ISO^INS||{FAMILY}^{GIVEN}"
        f"^^^^^L||19521217|F|||{ADDRESS}^^PARIS||{PHONE}\r"
        f"OBR|1|D1|{FILLER}^SIL|58410-2^Hemogramme^LN|||{when}|||||||||||||||{when}|||F\r"
        f"OBX|1|NM|751-8^Neutrophils^LN||{anc}|{unit}|||||F|||\r"
        f"NTE|1||{NOTE} {FAMILY}\r{tail}"
    ).encode()


def observation(**changed: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:oid:1.2.9", "value": FILLER}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "751-8"}], "text": NOTE},
        "subject": {"identifier": {"system": SYSTEM, "value": MRN}, "display": f"{GIVEN} {FAMILY}"},
        "effectiveDateTime": "2026-11-20T08:00:00+01:00",
        "valueQuantity": {
            "value": 0.4379137,
            "unit": "10*9/L",
            "system": "http://unitsofmeasure.org",
            "code": "10*9/L",
        },
        "note": [{"text": f"{NOTE} {FAMILY} 1952-12-17"}],
    } | changed


@dataclass
class Served:
    """``neutroflag serve`` as an operator runs it; ``said`` is all that it wrote."""

    process: asyncio.subprocess.Process
    log: Path
    mllp_port: int
    url: str
    database: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def rows(self, sql: str, *values: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            found = connection.execute(sql, values).fetchall()
            connection.commit()
        return found

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 20)


@pytest.fixture
async def served(
    settings_file: Callable[..., Path],
    enrol_by_csv: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    url: str,
    eventually: Callable[..., Awaitable[Any]],
) -> AsyncIterator[Served]:
    await enrol_by_csv(tmp_path, url, MRN, family=FAMILY, given=GIVEN, birth_date="1952-12-17")
    log = tmp_path / "said.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.cli", "serve", "--config", str(settings_file())),
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )
    faces = await eventually(
        lambda: re.search(r"mllp://127\.0\.0\.1:(\d+)\s+(http://127\.0\.0\.1:\d+)", log.read_text()), 40
    )
    found = Served(process, log, int(faces[1]), faces[2], tmp_path / "neutroflag.db")
    yield found
    await found.stop()


def unkind(prescriber: Prescriber) -> None:
    """Destinations whose answers quote the patient, in every way that fails."""
    outcome = {
        "resourceType": "OperationOutcome",
        "text": {"status": "generated", "div": f"<div>{FAMILY}</div>"},
        "issue": [
            {"severity": "error", "code": "invalid", "diagnostics": f"{GIVEN} {FAMILY} {MRN}", "expression": [NOTE]}
        ],
    }
    body = json.dumps(outcome).encode()
    prescriber.http_faults.extend(
        [
            HttpFault(status=503, body=body),
            HttpFault(status=200, body=f"<html>{FAMILY}".encode()),
            HttpFault(status=500, body=body, cut=True),
            HttpFault(status=422, body=body, headers={"X-Patient": MRN, "Location": f"/Patient/{MRN}"}),
        ]
    )
    error = AckError(207, f"{FAMILY} {MRN}")
    words = acknowledge(peek(oru("9", when="20261120080000")), "AE", control_id=MRN, now=_now(), error=error)
    prescriber.ack_faults.extend(
        [
            AckFault(raw=frame(words)),
            AckFault(code="AE"),
            AckFault(hang_up=True),
            AckFault(raw=f"{FAMILY} {MRN}".encode()),
            AckFault(code="AR"),
        ]
    )


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


async def feed_mllp(served: Served, hl7: Any, before: Callable[..., Any]) -> None:
    when = [hl7.stamp(before(hours=hours)) for hours in range(1, 12)]
    good = oru("A", when=when[0])
    for raw in (
        frame(good),
        frame(good),  # a duplicate
        frame(oru("A", anc="2.11", when=when[0])),  # the same name, other content
        frame(oru("B", anc=NOTE, when=when[1])),
        frame(oru("C", unit=FAMILY, when=when[2])),
        frame(oru("D", when=f"{MRN}")),
        frame(oru("E", patient=f"{MRN}^{FAMILY}", when=when[3])),
        frame(oru("F", patient="", when=when[4])),
        frame(oru("G", when=when[5]).replace(b"ORU^R01^ORU_R01", FAMILY.encode())),
        frame(oru("H", when=when[6]).replace(b"UNICODE UTF-8", FAMILY.encode())),
        frame(oru("I", when=when[7]).replace(b"|P|2.5|", f"|{MRN}|{FAMILY}|".encode())),
        frame(oru("J", when=when[8], tail=f"OBX|{FAMILY}\rZZZ|{MRN}\r\xff\xfe{NOTE}\r")),
        frame(oru("K", anc="9" * 400, when=when[8])),
        frame(f"{FAMILY} {MRN} no HL7 at all".encode()),
        frame(f'{{"resourceType": "{FAMILY}", "id": "{MRN}"'.encode()),
        frame(f"<ClinicalDocument><name>{FAMILY}</name><id>{MRN}".encode()),
        frame(b"\xff\xfe" + FAMILY.encode("utf-16-le")),
        frame(hl7.other("ADT^A40", f"{CONTROL}L").replace(b"SPECIMEN", FAMILY.encode())),
        frame(hl7.other("QRY^A19", f"{CONTROL}M").replace(b"SPECIMEN", FAMILY.encode())),
        f"{FAMILY} noise {MRN}".encode(),
        b"\x0b" + f"{FAMILY} never ends".encode(),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.mllp_port)
        writer.write(raw)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(65536), 5 if raw.endswith(b"\x1c\r") else 0.2)
        writer.close()


async def feed_http(client: httpx2.AsyncClient, before: Callable[..., Any]) -> None:
    posts: list[tuple[str, Any]] = [
        ("/fhir/Observation", observation(effectiveDateTime=before(hours=2).isoformat())),
        ("/fhir/Observation", observation(valueQuantity={"value": FAMILY, "unit": MRN})),
        ("/fhir/Observation", observation(status=FAMILY, effectiveDateTime=NOTE)),
        ("/fhir/Observation", {"resourceType": FAMILY, "id": MRN}),
        (f"/fhir/{FAMILY}/{MRN}", observation()),
        (f"/fhir/Patient?identifier={SYSTEM}|{MRN}", observation()),
        ("/fhir", {"resourceType": "Bundle", "type": FAMILY, "entry": []}),
        ("/fhir", {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": observation()}, {"x": NOTE}]}),
        ("/fhir", {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": FAMILY}}]}),
    ]
    for path, body in posts:
        await client.post(path, json=body)
    await client.put(f"/fhir/Observation/{MRN}", json=observation(id=MRN))
    await client.post("/fhir/Observation", content=f'{{"resourceType": "Observation", "{FAMILY}": {MRN}')
    await client.post("/fhir", content=b'{"resourceType": "\xff' + FAMILY.encode())
    await client.post("/hl7", content=oru("W", when="20261120080000"))
    await client.post("/hl7", content=f"{FAMILY}|{MRN}".encode())
    # The register by FHIR, other formats, and tokens that name somebody.
    person = {"resourceType": "Patient", "id": MRN, "name": [{"family": FAMILY}], "birthDate": NOTE}
    taken = {"resourceType": "MedicationStatement", "status": FAMILY, "subject": {"reference": f"Patient/{MRN}"}}
    for register in (person, person | {"birthDate": "1952-12-17"}, taken, taken | {"effectivePeriod": {"start": MRN}}):
        await client.post(f"/fhir/{register['resourceType']}", json=register)
    cda = f'<ClinicalDocument xmlns="urn:hl7-org:v3"><id root="1.2.3" extension="{MRN}"/><title>{FAMILY}</title>'
    for document in (cda, f"{cda}</ClinicalDocument>", f'<!DOCTYPE x [<!ENTITY a "{FAMILY}">]>{cda}&a;'):
        await client.post("/fhir", content=document, headers={"Content-Type": "application/xml"})
    head = f"H|~^\\&|{MRN}||LABO|||ORU|||N||P|H2.1^C|20261120"
    hprim = f"{head}\rP|1|{MRN}|||{FAMILY}^{GIVEN}||19521217|F\rOBX|1|NM|PNN||{NOTE}|"
    await client.post("/hl7", content=hprim)
    for token in (MRN, f"eyJhbGciOiJub25lIn0.{FAMILY}.{MRN}", f"{FAMILY} {MRN}"):
        await client.post("/fhir/Observation", json=observation(), headers={"Authorization": f"Bearer {token}"})
    await client.get(f"/fhir/Patient/{MRN}?name={FAMILY}")
    await client.get(f"/{FAMILY}/{MRN}", headers={"User-Agent": FAMILY, "Cookie": f"x={MRN}", "Referer": MRN})


async def feed_console(client: httpx2.AsyncClient, patient_id: str) -> None:
    for path in (
        "/console",
        f"/console/patients?q={FAMILY}",
        f"/console/patients/{patient_id}",
        f"/console/patients/{MRN}",
        f"/console/messages?control_id={CONTROL}&patient={MRN}",
        "/console/messages/1",
        f"/console/messages/{MRN}",
        f"/console/login?next=/console/{MRN}",
    ):
        await client.get(path, follow_redirects=True)
    form = {"name": FAMILY, "password": PASSWORD, "csrf": MRN, "reason": NOTE, "by": FAMILY, "on": "1952-12-17"}
    page = await client.get("/console/login", follow_redirects=True)
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    for token in (MRN, csrf[1] if csrf else ""):
        for path in ("/console/login", "/console/logout", "/console/language", f"/console/patients/{patient_id}/stop"):
            await client.post(path, data={**form, "csrf": token})
        await client.post(f"/console/alerts/{MRN}/answer", data={**form, "csrf": token, "decision": NOTE})


async def test_nothing_of_a_patient_is_in_logs_metrics_or_health(
    served: Served,
    prescriber: Prescriber,
    hl7: Any,
    before: Callable[..., Any],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    prescriber.add_patient((SYSTEM, MRN), id_=MRN, name=[{"family": FAMILY}])
    unkind(prescriber)
    [(patient_id,)] = served.rows("SELECT patient_id FROM identifier WHERE value = ?", MRN)
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client:
        await feed_mllp(served, hl7, before)
        await feed_http(client, before)
        await eventually(lambda: served.rows("SELECT count(*) FROM message WHERE disposition IS NULL") == [(0,)], 40)
        await eventually(lambda: served.rows("SELECT count(*) FROM delivery WHERE state = 'dead'") != [(0,)], 40)
        await feed_console(client, patient_id)
        # Faults of ours too: rows that cannot be read back, met by the judge, the clock and the pages.
        served.rows("UPDATE patient SET course = ?, person = ?", f'"{FAMILY}"', f'{{"family": {MRN}}}')
        served.rows("UPDATE alert SET body = ?", f'{{"{FAMILY}": "{MRN}"}}')
        await client.post("/hl7", content=oru("X", when=hl7.stamp(before(hours=13))))
        await feed_console(client, patient_id)
        await eventually(lambda: '"fault"' in served.said, 40)
        told = [(await client.get(path)).text for path in ("/metrics", "/readyz", "/livez", "/openapi.json")]
    # It did meet them: this test would otherwise pass of itself.
    [(met,)] = served.rows("SELECT count(*) FROM body WHERE instr(CAST(raw AS TEXT), ?)", FAMILY)
    assert met > 15
    assert served.process.returncode is None
    assert "neutroflag_messages_received_total" in told[0]
    await served.stop()
    said = served.said
    assert '"event":' in said.replace('"event": ', '"event":')
    found = {secret for secret in SECRETS for text in (said, *told) if secret.lower() in text.lower()}
    assert found == set(), [line for line in said.splitlines() if any(one.lower() in line.lower() for one in found)][:5]


class Told(Meters):
    """Keeps what it is told of faults."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[tuple[str, dict[str, Any]]] = []

    def fault(self, error: BaseException, **fields: Any) -> None:
        self.faults.append((type(error).__name__, fields))


async def test_what_fails_where_nobody_waits_for_it_is_told_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, meters = asyncio.get_running_loop(), Told()
    before = loop.get_exception_handler()

    async def fails() -> None:
        raise ValueError(FAMILY)

    meters.attend(loop)
    try:
        task = loop.create_task(fails())
        await asyncio.wait([task])
        del task
        gc.collect()
    finally:
        loop.set_exception_handler(before)
    assert meters.faults == [("ValueError", {"reason": "Task exception was never retrieved"})]
    assert FAMILY not in caplog.text
