"""Other ways into the FHIR door: notifications of subscriptions, Parameters of $process-message, CDA documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).parents[2] / "fixtures"


async def post(running: Any, path: str, body: bytes, kind: str = "application/fhir+json") -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(f"{running.url}{path}", content=body, headers={"content-type": kind})


def notification(fhir: Any, kind: str, status: dict[str, Any], *resources: dict[str, Any]) -> bytes:
    return json.dumps(fhir.bundle(kind, status, *resources)).encode()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("history", {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "event-notification"}]}),
        ("history", {"resourceType": "SubscriptionStatus", "status": "active", "type": "event-notification"}),
        (
            "subscription-notification",
            {"resourceType": "SubscriptionStatus", "status": "active", "type": "event-notification"},
        ),
    ],
)
async def test_a_notification_is_an_inlet(running: Any, fhir: Any, kind: str, status: dict[str, Any]) -> None:
    answer = await post(running, "/fhir", notification(fhir, kind, status, fhir.observation("0.840")))
    assert answer.status_code == 200
    await running.judged()
    assert await running.dispositions() == ["judged"]


async def test_a_handshake_is_answered_and_not_relevant(running: Any, fhir: Any) -> None:
    status = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "handshake"}]}
    answer = await post(running, "/fhir", notification(fhir, "history", status))
    assert answer.status_code == 200
    await running.judged()
    assert await running.dispositions() == ["not_relevant"]


async def test_a_rest_hook_with_payload_puts_the_resource(running: Any, fhir: Any) -> None:
    body = json.dumps({**fhir.observation("0.840"), "id": "o1"}).encode()
    async with httpx2.AsyncClient(trust_env=False) as client:
        headers = {"content-type": "application/fhir+json"}
        answer = await client.put(f"{running.url}/fhir/Observation/o1", content=body, headers=headers)
    assert answer.status_code in (200, 201)
    await running.judged()
    assert await running.dispositions() == ["judged"]


async def test_the_content_of_process_message_is_read_from_its_parameters(running: Any, fhir: Any) -> None:
    message = fhir.bundle("message", {"resourceType": "MessageHeader"}, fhir.observation())
    body = {"resourceType": "Parameters", "parameter": [{"name": "content", "resource": message}]}
    answer = await post(running, "/fhir/$process-message", json.dumps(body).encode())
    assert answer.status_code == 200
    await running.judged()
    assert await running.dispositions() == ["judged"]


async def test_a_posted_cda_is_read(running: Any, rows_of: Any) -> None:
    raw = (ROOT / "cda" / "absolute-count.xml").read_bytes().replace(b"1.2.250.1.999.3", b"1.2.3")
    assert (await post(running, "/fhir", raw, "application/xml")).status_code == 200
    await running.judged()
    assert await running.dispositions() == ["judged"]
    assert rows_of("SELECT json_extract(body, '$.status') FROM result") == ["final"]


async def test_a_cda_with_a_dtd_is_kept_and_set_aside(running: Any) -> None:
    raw = (ROOT / "cda" / "dtd.xml").read_bytes()
    assert (await post(running, "/fhir", raw, "text/xml")).status_code == 200
    await running.judged()
    assert await running.dispositions() == ["set_aside"]


async def test_a_report_as_pdf_is_a_task_for_a_person(running: Any, fhir: Any) -> None:
    document = json.loads((ROOT / "fhir" / "document-reference-pdf.json").read_text())
    document["subject"] = fhir.observation()["subject"]
    assert (await post(running, "/fhir/DocumentReference", json.dumps(document).encode())).status_code == 201
    await running.judged()
    assert await running.dispositions() == ["unassessable"]
    sql = "SELECT family FROM alert"
    found = await running.store.read(lambda c: [row[0] for row in c.exec_driver_sql(sql).fetchall()])
    assert found == ["ANC-REVIEW"]
