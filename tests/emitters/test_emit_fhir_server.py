"""The FHIR destination over real sockets: what each answer means, and that a retry never undoes a person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import httpx2
import pytest

from emitters.credentials import Bearer
from emitters.fhir import FhirProfile, Level
from emitters.fhir_answers import read_json, retry_after
from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.sink import Delivered, Refused, TryAgain
from engine.prescriber import HttpFault, Prescriber
from rules.model import AlertFamily, AlertKind, PatientIdentifier, Subject

DELIVERY = "8f0c2b6e7a614c0f9a10"


def server(url: str, **settings) -> FhirServer:
    given = {"name": "ehr", "url": url, "timeout_s": 2.0, "connect_timeout_s": 1.0}
    return FhirServer(FhirServerSettings(**given | settings))


@pytest.fixture
async def sink(ehr: Prescriber) -> AsyncIterator[FhirServer]:
    made = server(ehr.url)
    yield made
    await made.close()


async def send(sink: FhirServer, alert):
    return await sink.send(alert, DELIVERY)


async def test_an_alert_arrives_as_flag_and_task(ehr, sink, make):
    answer = await send(sink, make.alert())
    assert isinstance(answer, Delivered)
    (flag,), (task,) = ehr.flags(), ehr.tasks()
    assert flag["subject"] == task["for"] == {"reference": "Patient/p1"}
    assert task["focus"] == {"reference": f"Flag/{flag['id']}"}
    assert f"Task/{task['id']}" in answer.evidence
    assert "405660" not in answer.evidence


@pytest.mark.parametrize("update_create", [True, False])
async def test_sending_twice_doubles_nothing(make, update_create):
    async with Prescriber(update_create=update_create) as ehr:
        ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"))
        sink = server(ehr.url)
        for _ in range(3):
            assert isinstance(await send(sink, make.alert()), Delivered)
        await sink.close()
        counts = {kind: len(ehr.fhir.all(kind)) for kind in ("Device", "Flag", "Observation", "Task")}
        assert counts == {"Device": 1, "Flag": 1, "Observation": 1, "Task": 1}
        # Without ids of our own a retry may leave a second Provenance; it says the same.
        assert len(ehr.fhir.all("Provenance")) == (1 if update_create else 3)


async def test_a_retry_never_resets_what_a_person_set(ehr, sink, make):
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    ehr.answer(task["id"], "completed", "Dr Hoda")
    assert isinstance(await send(sink, make.alert()), Delivered)
    (task,) = ehr.tasks()
    assert task["status"] == "completed"
    assert task["note"][0]["authorString"] == "Dr Hoda"


async def test_an_answer_lost_after_the_commit_is_made_good_by_the_retry(ehr, sink, make):
    await send(sink, make.alert(id="warm-up"))
    ehr.http_faults.append(HttpFault(status=504, applied=True))
    assert isinstance(await send(sink, make.alert()), TryAgain)
    (task,) = [one for one in ehr.tasks() if "warm-up" not in one["identifier"][0]["value"]]
    ehr.answer(task["id"], "accepted", "Dr Hoda")
    assert isinstance(await send(sink, make.alert()), Delivered)
    assert [one["status"] for one in ehr.tasks()] == ["requested", "accepted"]


async def test_a_revision_keeps_a_persons_status_and_raises_the_priority(ehr, sink, make):
    await send(sink, make.alert(family=AlertFamily.MILD, level="amber"))
    (task,) = ehr.tasks()
    ehr.answer(task["id"], "in-progress", "Dr Hoda")
    for _ in range(2):
        assert isinstance(await send(sink, make.later(family=AlertFamily.MILD, level="red")), Delivered)
    (task,) = ehr.tasks()
    assert (task["status"], task["priority"]) == ("in-progress", "asap")
    assert len(task["note"]) == 2


async def test_a_revision_after_the_answer_asks_once_more(ehr, sink, make):
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    ehr.answer(task["id"], "completed", "Dr Hoda")
    for _ in range(2):
        assert isinstance(await send(sink, make.later()), Delivered)
    assert sorted(one["status"] for one in ehr.tasks()) == ["completed", "requested"]


async def test_an_older_notification_never_overwrites_a_newer_one(ehr, sink, make):
    await send(sink, make.later(revision=3))
    before = ehr.flags()
    assert await send(sink, make.later(revision=2, title="old")) == Delivered("superseded: revision 3 stands")
    assert ehr.flags() == before


async def test_a_person_who_writes_in_between_is_read_again_and_kept(ehr, sink, make):
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    real, calls = ehr.fhir.transaction, []

    def interrupted(bundle):
        calls.append(bundle)
        if len(calls) == 1:
            ehr.answer(task["id"], "accepted", "Dr Hoda")
        return real(bundle)

    ehr.fhir.transaction = interrupted
    assert isinstance(await send(sink, make.later()), Delivered)
    assert len(calls) == 2
    (task,) = ehr.tasks()
    assert task["status"] == "accepted"


@pytest.mark.parametrize("status", [409, 412])
async def test_a_task_that_somebody_keeps_changing_is_left_for_later_and_never_overwritten(ehr, sink, make, status):
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    ehr.answer(task["id"], "accepted", "Dr Hoda")
    ehr.http_faults.extend([HttpFault(status=status)] * 3)
    assert await send(sink, make.later()) == TryAgain("a Task of this alert is being changed by someone")
    assert [one["status"] for one in ehr.tasks()] == ["accepted"]
    assert isinstance(await send(sink, make.later()), Delivered)
    assert [one["status"] for one in ehr.tasks()] == ["accepted"]


@pytest.mark.parametrize("status", ["409 Conflict", "412"])
async def test_a_person_who_was_quicker_is_read_again_where_a_server_says_so_within_a_200(ehr, sink, make, status):
    """Medplum's transactions take what they can: the entry that was overtaken is refused, the others stand."""
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    real, calls = ehr.fhir.transaction, []

    def partly(bundle):
        calls.append(bundle)
        rows = [{"response": {"status": "200"}} for _ in bundle["entry"]]
        if len(calls) > 1:
            return real(bundle)
        ehr.answer(task["id"], "accepted", "Dr Hoda")
        (place,) = [n for n, entry in enumerate(bundle["entry"]) if "ifMatch" in entry["request"]]
        rows[place]["response"]["status"] = status
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": rows}

    ehr.fhir.transaction = partly
    assert isinstance(await send(sink, make.later()), Delivered)
    assert len(calls) == 2
    assert [one["status"] for one in ehr.tasks()] == ["accepted"]


@pytest.mark.parametrize("level", list(Level))
async def test_every_write_of_a_standing_resource_is_conditional_on_its_version(make, level):
    """Whatever becomes of the alert: what a person may have changed is written back with If-Match or not at all."""
    async with Prescriber() as ehr:
        ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"))
        sink = server(ehr.url, level=level)
        real, seen = ehr.fhir.transaction, []

        def watched(bundle):
            seen.extend(bundle["entry"])
            return real(bundle)

        ehr.fhir.transaction = watched
        later = make.later(revision=3, kind=AlertKind.WITHDRAWN, reason="corrected")
        for alert in (make.alert(), make.later(), later):
            assert isinstance(await send(sink, alert), Delivered)
        await sink.close()
        theirs = [
            one["request"]
            for one in seen
            if one["resource"]["resourceType"] in ("Task", "CommunicationRequest", "ServiceRequest")
        ]
        assert all("ifMatch" in one for one in theirs if one["method"] == "PUT")
        assert all("ifNoneExist" in one for one in theirs if one["method"] == "POST")
        assert any("ifMatch" in one for one in theirs) or level is Level.L0


@pytest.mark.parametrize(("reason", "flag", "task"), [
    ("corrected", "inactive", "cancelled"),
    ("entered-in-error", "entered-in-error", "entered-in-error"),
])  # fmt: skip
async def test_a_withdrawal_takes_flag_and_unanswered_task_back(ehr, sink, make, reason, flag, task):
    await send(sink, make.alert())
    for _ in range(2):
        assert isinstance(await send(sink, make.later(kind=AlertKind.WITHDRAWN, reason=reason)), Delivered)
    assert [one["status"] for one in ehr.flags()] == [flag]
    assert [one["status"] for one in ehr.tasks()] == [task]


async def test_a_withdrawal_tells_whoever_acted_once(ehr, sink, make):
    await send(sink, make.alert())
    (task,) = ehr.tasks()
    ehr.answer(task["id"], "completed", "Dr Hoda")
    for _ in range(2):
        await send(sink, make.later(kind=AlertKind.WITHDRAWN, reason="entered-in-error"))
    old, new = ehr.tasks()
    assert old["status"] == "completed"
    assert new["code"]["coding"][0]["code"] == "REVIEW-DECISION"


async def test_many_alerts_at_once_make_one_device_and_lose_none(make):
    async with Prescriber(update_create=False) as ehr:
        ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"))
        sink = server(ehr.url)
        answers = await asyncio.gather(*(send(sink, make.alert(id=f"alert-{n}")) for n in range(40)))
        await sink.close()
        assert all(isinstance(answer, Delivered) for answer in answers)
        assert len(ehr.fhir.all("Device")) == 1
        assert len(ehr.flags()) == len(ehr.tasks()) == 40
        # The forty share one Observation's identifier as well: one result, one Observation.
        assert ehr.fhir.doubled() == 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Refused), (404, Refused), (405, Refused), (410, Refused), (412, Refused), (422, Refused), (501, Refused),
        (302, Refused), (401, TryAgain), (403, TryAgain), (408, TryAgain), (409, TryAgain), (425, TryAgain),
        (429, TryAgain), (500, TryAgain), (502, TryAgain), (503, TryAgain), (504, TryAgain),
    ],
)  # fmt: skip
async def test_each_refusal_has_its_class(ehr, sink, make, status, expected):
    await send(sink, make.alert(id="warm-up"))
    secret = {"severity": "error", "code": "invalid", "diagnostics": "PAT-TROIS 405660"}
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [secret]}).encode()
    ehr.http_faults.append(HttpFault(status=status, body=body))
    answer = await send(sink, make.alert())
    assert type(answer) is expected
    assert f"HTTP {status} (invalid)" in answer.why
    assert "PAT-TROIS" not in answer.why
    assert isinstance(await send(sink, make.alert()), Delivered)


async def test_retry_after_is_honoured_and_bounded(ehr, sink, make):
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(status=429, headers={"retry-after": "17"}))
    assert await send(sink, make.alert()) == TryAgain("HTTP 429", after_s=17.0)
    assert retry_after({"retry-after": "99999999"}) == 3600
    dated = {"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}
    assert retry_after(dated) == 30
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


async def test_lost_credentials_hold_the_alert_and_pause_the_destination(ehr, sink, make):
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(status=401))
    assert await send(sink, make.alert()) == TryAgain("HTTP 401", after_s=60.0, down=True)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b'{"resourceType":"Bundle","type":"transaction-response","entry":[]}',
        b'{"resourceType":"OperationOutcome"}', b'{"resourceType":"Bundle","type":"transaction-response"}',
        b'{"resourceType":"Bundle","type":"transaction-response","entry":[1,2,3,4,5]}', b"\xff\xfe",
        b'{"a":1e99999999}', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_200_that_does_not_say_so_of_every_entry_is_no_delivery(ehr, sink, make, body):
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(status=200, body=body))
    answer = await send(sink, make.alert())
    assert isinstance(answer, TryAgain)
    assert "ambiguous" in answer.why


async def test_an_entry_that_failed_within_a_200_is_no_delivery(ehr, sink, make):
    await send(sink, make.alert())
    rows = [{"response": {"status": "200 OK"}}] * 4 + [{"response": {"status": "422 Unprocessable"}}]
    body = json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": rows}).encode()
    ehr.http_faults.append(HttpFault(status=200, body=body))
    assert isinstance(await send(sink, make.alert()), Refused)


async def test_half_a_body_and_a_late_answer_are_ambiguous(ehr, make):
    sink = server(ehr.url, timeout_s=0.3, connect_timeout_s=0.2)
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(status=200, cut=True))
    assert isinstance(await send(sink, make.alert()), TryAgain)
    ehr.http_faults.append(HttpFault(status=200, delay_s=1.0, applied=True))
    assert await send(sink, make.alert()) == TryAgain("no answer in time: ambiguous")
    await sink.close()


@pytest.mark.parametrize(
    "raw", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{", b"\x00" * 99]
)
async def test_something_that_is_not_a_server_is_tried_again(make, raw):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(raw)
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    sink = server(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/fhir")
    assert isinstance(await send(sink, make.alert()), TryAgain)
    await sink.close()
    listener.close()


async def test_a_server_that_drips_its_answer_is_left(make):
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    listener = await asyncio.start_server(drip, "127.0.0.1", 0)
    sink = server(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/fhir", timeout_s=0.2, connect_timeout_s=0.2)
    assert await send(sink, make.alert()) == TryAgain("no answer in time: ambiguous")
    await sink.close()
    listener.close()


async def test_a_destination_that_goes_down_and_comes_back(ehr, sink, make):
    assert isinstance(await send(sink, make.alert()), Delivered)
    await ehr.down()
    answer = await send(sink, make.later())
    assert isinstance(answer, TryAgain)
    assert answer.down
    await ehr.up()
    assert isinstance(await send(sink, make.later()), Delivered)


async def test_a_server_that_was_down_at_the_start_is_asked_again(make):
    ehr = Prescriber()
    await ehr.up()
    ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"))
    await ehr.down()
    sink = server(ehr.url)
    assert isinstance(await send(sink, make.alert()), TryAgain)
    await ehr.up()
    assert isinstance(await send(sink, make.alert()), Delivered)
    await sink.close()
    await ehr.down()


@pytest.mark.parametrize("version", ["5.0.0", "3.0.2", None])
async def test_another_fhir_is_refused(ehr, sink, make, version):
    ehr.fhir_version = version
    answer = await send(sink, make.alert())
    assert isinstance(answer, Refused)
    assert answer.code == "fhir-version"


async def test_a_patient_nobody_or_several_carry_is_a_dead_letter(ehr, sink, make):
    unknown = replace(make.alert().subject, identifiers=(PatientIdentifier("999", "urn:oid:1.2.3.4.5.6"),))
    assert (await send(sink, make.alert(subject=unknown))).code == "patient-not-found"
    ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"), id_="p2")
    assert (await send(sink, make.alert())).code == "patient-ambiguous"
    assert ehr.flags() == []


async def test_a_merged_duplicate_does_not_make_a_patient_ambiguous(ehr, sink, make):
    link = [{"other": {"reference": "Patient/p1"}, "type": "replaced-by"}]
    ehr.add_patient(("urn:oid:1.2.3.4.5.6", "405660"), id_="p2", link=link)
    assert isinstance(await send(sink, make.alert()), Delivered)
    assert ehr.flags()[0]["subject"] == {"reference": "Patient/p1"}


async def test_a_server_that_ignores_the_search_cannot_choose_the_patient(ehr, sink, make):
    ehr.fhir.search = lambda kind, _: list(ehr.fhir.held[kind].values())
    ehr.add_patient(("urn:oid:9.9", "1"), id_="other")
    assert isinstance(await send(sink, make.alert()), Delivered)
    assert ehr.flags()[0]["subject"] == {"reference": "Patient/p1"}


async def test_an_insured_persons_number_finds_no_patient(ehr, sink, make):
    parent = PatientIdentifier("279035121518989", "urn:oid:1.2.250.1.213.1.4.8", "NH")
    ehr.add_patient((parent.authority, parent.value), id_="parent")
    alone = Subject(register_id="r", identifiers=(parent,))
    assert (await send(sink, make.alert(subject=alone))).code == "patient-not-found"


async def test_a_bare_namespace_is_searched_only_by_the_sites_map(ehr, make):
    subject = Subject(register_id="r", identifiers=(PatientIdentifier("405660", "CHX", "PI"),))
    plain = server(ehr.url)
    assert (await send(plain, make.alert(subject=subject))).code == "patient-not-found"
    mapped = server(ehr.url, patient_systems={"CHX": "urn:oid:1.2.3.4.5.6"}, search_by_post=True)
    assert isinstance(await send(mapped, make.alert(subject=subject)), Delivered)
    await plain.close()
    await mapped.close()


async def test_the_patient_is_looked_up_once(ehr, sink, make):
    for n in range(5):
        await send(sink, make.alert(id=f"a{n}"))
    assert ehr.requests["GET"] == 2  # metadata, patient


@pytest.mark.parametrize("read", [(), (PatientIdentifier("405660", "urn:oid:1.2.3.4.5.6"),)])
async def test_a_review_for_nobody_arrives_and_is_filed_under_nobody(ehr, sink, make, read):
    assert isinstance(await send(sink, make.review(subject=Subject(register_id="", identifiers=read))), Delivered)
    (task,) = ehr.tasks()
    assert "for" not in task
    assert ehr.flags() == []


async def test_credentials_are_asked_for_each_time(ehr, make, tmp_path):
    file = tmp_path / "token"
    file.write_text("one", encoding="utf-8")
    sink = server(ehr.url, credentials=Bearer(file), profile=FhirProfile(owner="Organization/w"))
    assert isinstance(await send(sink, make.alert()), Delivered)
    file.unlink()
    answer = await send(sink, make.later())
    assert isinstance(answer, TryAgain)
    assert answer.why == f"credentials: {file}: No such file or directory"
    await sink.close()


async def test_a_request_that_the_server_carries_out_too_late_does_not_put_an_old_flag_back(ehr, make, eventually):
    sink = server(ehr.url, timeout_s=0.2, connect_timeout_s=0.1, late_s=1.5)
    await sink._greet()
    ehr.http_faults.append(HttpFault(delay_s=1.0, applied=True))
    assert isinstance(await send(sink, make.alert()), TryAgain)
    assert isinstance(await send(sink, make.alert()), Delivered)
    assert isinstance(await send(sink, make.later(kind=AlertKind.WITHDRAWN, reason="corrected")), Delivered)
    assert [flag["status"] for flag in ehr.flags()] == ["inactive"]
    await eventually(lambda: [flag["status"] for flag in ehr.flags()] == ["active"])  # the first request, at last
    await eventually(lambda: [flag["status"] for flag in ehr.flags()] == ["inactive"])
    assert ehr.fhir.doubled() == 0
    await eventually(lambda: not sink._unsure)
    await sink.close()


async def test_cancelling_a_send_leaves_the_destination_usable(ehr, sink, make):
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(delay_s=5))
    sending = asyncio.create_task(send(sink, make.later()))
    await asyncio.sleep(0.1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert isinstance(await send(sink, make.later(revision=3)), Delivered)


def test_json_is_read_with_exact_numbers_or_not_at_all():
    assert str(read_json(b'{"v":0.840}')["v"]) == "0.840"
    assert read_json(b'{"v":1e99999999}') is None
    assert read_json(b'{"v":NaN}') is None
    assert read_json(b"[1]") is None


@pytest.mark.parametrize("body", [
    b'{"v":123456789012345678901234567890}', b'{"v":-0.0,"w":-0,"x":1E5}', b'{"a":"\\ud800"}', b'\xef\xbb\xbf{"a":1}',
    '{"a":"é"}'.encode("utf-16"), b'{"a":1,"a":2}', b'{"a":"\xed\xa0\x80"}',
])  # fmt: skip
def test_all_that_the_standard_library_reads_is_read_the_same(body):
    assert repr(read_json(body)) == repr(json.loads(body, parse_float=Decimal))


@pytest.mark.parametrize(("size", "expected"), [(300_000, "ambiguous"), (5 << 20, "an answer without end")])
async def test_an_answer_is_read_to_its_end_and_never_without_end(ehr, sink, make, size, expected):
    await send(sink, make.alert())
    ehr.http_faults.append(HttpFault(status=200, body=b" " * size))
    answer = await send(sink, make.alert())
    assert isinstance(answer, TryAgain)
    assert expected in answer.why


async def test_the_simulated_server_is_strict_enough_to_contradict_us(ehr):
    async with httpx2.AsyncClient(base_url=ehr.url + "/") as client:
        put = await client.put("Task/t", json={"resourceType": "Task", "status": "requested"})
        assert (put.status_code, put.headers["etag"]) == (201, 'W/"1"')
        stale = await client.put("Task/t", json={"resourceType": "Task"}, headers={"if-match": 'W/"9"'})
        assert stale.status_code == 412
        assert (await client.get("Task/none")).json()["resourceType"] == "OperationOutcome"
        dangling = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Task", "focus": {"reference": "urn:uuid:2"}},
                    "request": {"method": "POST", "url": "Task"}}  # fmt: skip
        good = {
            "fullUrl": "urn:uuid:3",
            "resource": {"resourceType": "Flag"},
            "request": {"method": "POST", "url": "Flag"},
        }
        answer = await client.post(
            ehr.url, json={"resourceType": "Bundle", "type": "transaction", "entry": [good, dangling]}
        )
        assert answer.status_code == 400
        assert ehr.flags() == []
