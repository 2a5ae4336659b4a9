"""The FHIR and the HL7 door over HTTP, on a real engine: what is answered, and that it is on file before."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome

from tests.plain import PLAIN
from wire.ack import read_ack

JSON = {"content-type": "application/fhir+json"}


class Client:
    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(
        self, path: str, content: Any, method: str = "POST", headers: dict[str, str] = JSON
    ) -> httpx2.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        async with httpx2.AsyncClient(verify=PLAIN, trust_env=False) as client:
            return await client.request(method, f"{self._url}{path}", content=body, headers=headers)


@pytest.fixture
async def send(running: Any) -> Client:
    return Client(running.url)


def outcome(answer: httpx2.Response) -> dict[str, Any]:
    """The one issue of an OperationOutcome that FHIR's own model takes."""
    assert answer.headers["content-type"].startswith("application/fhir+json")
    OperationOutcome.model_validate_json(answer.content)
    (issue,) = answer.json()["issue"]
    return issue


# FHIR


async def test_an_observation_is_created_where_the_answer_says(send: Client, running: Any, fhir: Any) -> None:
    body = json.dumps(fhir.observation()).encode()
    answer = await send("/fhir/Observation", body)
    assert answer.status_code == 201
    assert answer.headers["location"].startswith("/fhir/Observation/")
    assert answer.headers["location"].endswith("/_history/1")
    assert outcome(answer)["severity"] == "information"
    (row,) = await running.messages()
    assert (row["channel"], row["format"], row["message_type"], row["size"]) == (
        "fhir",
        "fhir",
        "Observation",
        len(body),
    )


async def test_an_update_keeps_the_id_it_names(send: Client, fhir: Any) -> None:
    answer = await send("/fhir/Observation/anc-1", fhir.observation() | {"id": "anc-1"}, "PUT")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/fhir/Observation/anc-1/_history/1"


async def test_an_update_under_another_id_is_refused(send: Client, fhir: Any) -> None:
    answer = await send("/fhir/Observation/anc-1", fhir.observation() | {"id": "anc-2"}, "PUT")
    assert answer.status_code == 400
    assert outcome(answer)["expression"] == ["Observation.id"]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_each_entry_of_a_transaction_or_batch_is_answered(send: Client, fhir: Any, kind: str) -> None:
    bundle = fhir.bundle(kind, fhir.observation(identifier="a"), fhir.observation(identifier="b"))
    answer = await send("/fhir", bundle)
    assert answer.status_code == 200
    Bundle.model_validate_json(answer.content)
    assert answer.json()["type"] == f"{kind}-response"
    responses = [entry["response"] for entry in answer.json()["entry"]]
    assert [response["status"] for response in responses] == ["201 Created", "201 Created"]
    assert len({response["location"] for response in responses}) == 2


async def test_a_transaction_with_an_entry_that_cannot_be_done_is_refused_whole(send: Client, fhir: Any) -> None:
    bundle = fhir.bundle("transaction", fhir.observation(), fhir.observation())
    bundle["entry"][1]["request"]["method"] = "DELETE"
    answer = await send("/fhir", bundle)
    assert answer.status_code == 405
    assert outcome(answer)["expression"] == ["Bundle.entry[1].request.method"]


async def test_a_message_is_answered_with_a_message(send: Client, fhir: Any) -> None:
    header = {
        "resourceType": "MessageHeader",
        "id": "11111111-2222-4333-8444-555555555555",
        "eventCoding": {"system": "http://example.org/events", "code": "lab-result"},
        "source": {"endpoint": "urn:oid:1.2.3.4"},
    }
    answer = await send("/fhir/$process-message", fhir.bundle("message", header, fhir.observation()))
    assert answer.status_code == 200
    Bundle.model_validate_json(answer.content)
    first = answer.json()["entry"][0]["resource"]
    assert first["resourceType"] == "MessageHeader"
    assert first["response"]["identifier"] == header["id"]
    assert first["response"]["code"] == "ok"


async def test_a_message_without_its_header_is_refused(send: Client, fhir: Any) -> None:
    answer = await send("/fhir", fhir.bundle("message", fhir.observation()))
    assert answer.status_code == 400
    assert outcome(answer)["expression"] == ["Bundle.entry[0].resource"]


async def test_a_collection_is_stored_as_one(send: Client, fhir: Any) -> None:
    answer = await send("/fhir", fhir.bundle("collection", fhir.observation()))
    assert answer.status_code == 201
    assert answer.headers["location"].startswith("/fhir/Bundle/")


async def test_a_bundle_sent_again_under_its_identifier_is_answered_as_before(
    send: Client, running: Any, fhir: Any
) -> None:
    bundle = fhir.bundle("transaction", fhir.observation(), identifier={"system": "urn:x", "value": "b-1"})
    first, again = await send("/fhir", bundle), await send("/fhir", bundle)
    assert first.json() == again.json()
    await running.judged()
    assert await running.dispositions() == ["judged", "duplicate"]


async def test_what_is_not_json_is_refused_by_its_place_and_kept(send: Client, running: Any, rows_of: Any) -> None:
    answer = await send("/fhir/Observation", b'{"resourceType": "Observation", oops')
    assert answer.status_code == 400
    assert "byte 32" in outcome(answer)["diagnostics"]
    assert rows_of("select disposition, raw from message join body on message_id = message.id") == [
        ("set_aside", b'{"resourceType": "Observation", oops'),
    ]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        (b"{}", 400, "resourceType"),
        (b'{"resourceType": 7}', 400, "resourceType"),
        (b'{"resourceType": "Nonsense"}', 404, "resourceType"),
        (b'{"resourceType": "Practitioner"}', 404, "resourceType"),
        (b'{"resourceType": "Bundle"}', 400, "Bundle.type"),
        (b'{"resourceType": "Bundle", "type": "transaction-response"}', 400, "Bundle.type"),
        (b'{"resourceType": "Bundle", "type": 3}', 400, "Bundle.type"),
        (b'{"resourceType": "Bundle", "type": "batch", "entry": [{"resource": 3}]}', 400, "Bundle.entry[0].resource"),
        (
            b'{"resourceType": "Bundle", "type": "batch", "entry": [{"resource": {"resourceType": "Nonsense"}}]}',
            400,
            "Bundle.entry[0].resource.resourceType",
        ),
        (
            b'{"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Patient"}}]}',
            400,
            "Bundle.entry[0].request",
        ),
        (b'{"resourceType": "Bundle", "type": "batch", "identifier": [1]}', 400, "Bundle.identifier"),
    ],
)
async def test_what_cannot_be_taken_is_refused_naming_the_place(
    send: Client, running: Any, body: bytes, status: int, place: str | None
) -> None:
    answer = await send("/fhir", body)
    assert answer.status_code == status
    assert outcome(answer).get("expression") == ([place] if place else None)
    assert await running.dispositions() == ["set_aside"]
    assert await running.findings() == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"resourceType": "Bundle", "type": "transactio\x91", "entry": []}', "Bundle.type"),
        (b'{"resourceType": "Bundle", "type": "batch", "identifier": {"value": "\xff"}}', "Bundle.identifier"),
        (b'{"resourceType": "Bundle", "type": "batch", "entry": [{"resource": {"id": "\xff"}}]}', "Bundle.entry"),
    ],
)
async def test_a_bundle_that_is_not_utf_8_inside_is_refused_and_kept(
    send: Client, rows_of: Any, body: bytes, place: str
) -> None:
    answer = await send("/fhir", body)
    assert answer.status_code == 400
    assert outcome(answer)["expression"] == [place]
    assert rows_of("select disposition, raw from message join body on message_id = message.id") == [("set_aside", body)]


async def test_an_answer_repeats_nothing_of_the_body(send: Client) -> None:
    bodies = [
        b'{"resourceType": "DUPONT-Jeanne"}',
        b'{"resourceType": "Bundle", "type": "DUPONT-Jeanne"}',
        b'{"resourceType": "Bundle", "type": "batch", "entry": "DUPONT-Jeanne"}',
        b'{"resourceType": "Patient", DUPONT-Jeanne',
    ]
    for body in bodies:
        assert b"DUPONT" not in (await send("/fhir", body)).content


async def test_the_address_and_the_body_must_name_one_type(send: Client, fhir: Any) -> None:
    answer = await send("/fhir/Patient", fhir.observation())
    assert answer.status_code == 400
    assert outcome(answer)["expression"] == ["resourceType"]


async def test_xml_is_not_taken(send: Client, running: Any) -> None:
    answer = await send("/fhir", b"<Bundle/>", headers={"content-type": "application/fhir+xml"})
    assert answer.status_code == 415
    assert outcome(answer)["code"] == "not-supported"
    assert await running.dispositions() == ["set_aside"]


async def test_a_body_beyond_the_limit_is_refused(run_engine: Any, fhir: Any) -> None:
    running = await run_engine(extra="")
    small = Client(running.url)
    limit = running.engine.settings.http.max_body_bytes
    answer = await small("/fhir", b"x" * (limit + 1))
    assert answer.status_code == 413
    assert outcome(answer)["code"] == "too-long"
    assert (await small("/hl7", b"x" * (limit + 1))).status_code == 413
    assert await running.messages() == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/fhir/Observation/1"), ("DELETE", "/fhir/Observation/1")])
async def test_what_is_not_offered_is_said(send: Client, method: str, path: str) -> None:
    answer = await send(path, b"", method)
    assert answer.status_code == 405
    assert outcome(answer)["code"] == "not-supported"


async def test_the_capability_statement_says_what_is_taken(send: Client) -> None:
    answer = await send("/fhir/metadata", b"", "GET")
    assert answer.status_code == 200
    statement = CapabilityStatement.model_validate_json(answer.content)
    assert statement.fhirVersion == "4.0.1"
    taken = {resource["type"] for resource in answer.json()["rest"][0]["resource"]}
    assert {"Observation", "Patient", "MedicationStatement", "Condition"} <= taken
    for kind in taken:
        refused = await send(f"/fhir/{kind}", {"resourceType": kind})
        assert refused.status_code == 201, kind


async def test_decimals_reach_the_file_as_they_were_written(send: Client, running: Any, rows_of: Any) -> None:
    body = b'{"resourceType":"Observation","valueQuantity":{"value":0.8400}}'
    await send("/fhir/Observation", body)
    assert rows_of("select raw from body") == [body]


# HL7 over HTTP

ER7 = {"content-type": "application/hl7-v2"}


async def test_an_er7_message_gets_its_acknowledgement(send: Client, running: Any, hl7: Any) -> None:
    answer = await send("/hl7", hl7.oru("M1"), headers=ER7)
    assert answer.status_code == 200
    ack = read_ack(answer.content)
    assert ack is not None
    assert (ack.code, ack.control_id) == ("AA", "M1")
    await running.judged()
    assert [(row["channel"], row["disposition"]) for row in await running.messages()] == [("hl7", "judged")]


@pytest.mark.parametrize(
    ("kind", "status", "code"), [("QBP^Q11", 400, "AR"), ("ORM^O01", 400, "AR"), ("ADT^A01", 200, "AA")]
)
async def test_the_status_says_what_the_acknowledgement_says(
    send: Client, hl7: Any, kind: str, status: int, code: str
) -> None:
    answer = await send("/hl7", hl7.other(kind, "M1"), headers=ER7)
    ack = read_ack(answer.content)
    assert ack is not None
    assert (answer.status_code, ack.code, ack.control_id) == (status, code, "M1")


async def test_what_is_no_message_is_rejected_and_kept(send: Client, running: Any) -> None:
    answer = await send("/hl7", b"hello", headers=ER7)
    ack = read_ack(answer.content)
    assert ack is not None
    assert (answer.status_code, ack.code, ack.control_id, ack.errors) == (400, "AR", "", ("100",))
    await running.judged()
    assert await running.dispositions() == ["set_aside"]


async def test_a_sender_that_wants_no_answer_gets_none(send: Client, running: Any, hl7: Any) -> None:
    answer = await send("/hl7", hl7.oru("M1", accept="NE", application="NE"), headers=ER7)
    assert (answer.status_code, answer.content) == (204, b"")
    await running.judged()
    assert await running.dispositions() == ["judged"]


async def test_an_application_answer_over_http_means_that_it_was_judged(send: Client, running: Any, hl7: Any) -> None:
    answer = await send("/hl7", hl7.oru("M1", accept="NE", application="AL"), headers=ER7)
    ack = read_ack(answer.content)
    assert ack is not None
    assert ack.code == "AA"
    assert await running.dispositions() == ["judged"]


async def test_one_message_by_mllp_and_again_by_http_is_a_duplicate(send: Client, running: Any, hl7: Any) -> None:
    raw = hl7.oru("M1")
    await running.tell(raw)
    await send("/hl7", raw, headers=ER7)
    assert await running.dispositions() == ["judged", "duplicate"]


# Health


async def test_the_engine_says_that_it_lives_and_is_ready(send: Client, running: Any, hl7: Any) -> None:
    assert (await send("/livez", b"", "GET")).text == "ok\n"
    await running.tell(hl7.oru("M1"))
    ready = await send("/readyz", b"", "GET")
    assert ready.status_code == 200
    assert ready.json()["received"] == 1
    assert ready.json()["dispositions"] == {"judged": 1}


async def test_the_metrics_count_what_came_and_how_it_ended(send: Client, running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    text = (await send("/metrics", b"", "GET")).text
    assert 'neutroflag_messages_received_total{channel="mllp",format="hl7v2"} 1.0' in text
    assert 'neutroflag_dispositions_total{disposition="judged"} 1.0' in text
    assert 'neutroflag_alerts_open{level="red"} 1.0' in text
    assert "405660" not in text
