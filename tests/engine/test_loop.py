"""From an alert to a person's answer, through the doors: Tasks read back, notified and sent, HL7 v2 answers, the rota."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from console.port import Decision
from emitters.hl7v2 import filler_number
from engine.prescriber import HttpFault
from store import listing, steps

ROTA = """
[routing]
owner = "psychiatrist"
pharmacist = "pharmacy"
[rota]
[[rota.role]]
name = "psychiatrist"
fhir = "PractitionerRole/psy"
[[rota.role]]
name = "on-call"
[[rota.role]]
name = "pharmacy"
fhir = "Organization/pharmacy"
[[rota.shift]]
role = "psychiatrist"
[[rota.shift]]
role = "on-call"
"""
FAST = """
[watch]
every_s = 0.2
critical_h = 0.0004
critical_again_h = 0.0004
"""


async def way(running: Any, alert_id: str) -> list[str]:
    return [step.state for step in await running.store.read(lambda c: steps.of(c, alert_id))]


async def alert_of(running: Any, family: str = "ANC-STOP") -> dict[str, Any]:
    rows = await running.store.read(lambda c: list(listing.alert_rows(c)))
    (found,) = [row for row in rows if row["family"] == family]
    return dict(found)


def task_of(prescriber: Any, suffix: str = ":ack") -> dict[str, Any]:
    (found,) = [one for one in prescriber.tasks() if one["identifier"][0]["value"].endswith(suffix)]
    return dict(found)


async def state_is(running: Any, state: str, eventually: Any, family: str = "ANC-STOP") -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        rows = await running.store.read(lambda c: list(listing.alert_rows(c)))
        found = [row for row in rows if row["family"] == family]
        return dict(found[0]) if found and found[0]["state"] == state else None

    return dict(await eventually(reached))


async def test_a_task_completed_on_the_server_closes_the_alert_here(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    task = task_of(prescriber)
    prescriber.answer(task["id"], "accepted", "Dr Hoda")
    found = await alert_of(running)
    await eventually(lambda: rows_of("SELECT count(*) FROM step WHERE state = 'seen'") == [1])
    assert (await alert_of(running))["state"] == "open"
    prescriber.answer(task["id"], "completed", "Dr Hoda", decision="STOPPED")
    await state_is(running, "answered", eventually)
    assert rows_of('SELECT "by", decision FROM answer') == [("Dr Hoda", "stopped")]
    assert {row["channel"] for row in await running.messages() if row["reason"] == "answer"} == {"answers"}
    # What was answered is not asked again, and the reading of it twice is one. Nothing else of it stood open anywhere.
    await running.settled()
    assert await way(running, found["id"]) == ["made", "sent", "stored", "sent", "stored", "seen", "answered", "closed"]
    assert rows_of("SELECT count(*) FROM answer") == [1]
    assert len(prescriber.tasks()) == 1
    assert await running.findings() == []


@pytest.mark.parametrize("way_in", ["put", "notification"])
async def test_a_task_that_the_server_sends_to_our_door_is_an_answer_once(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any, fhir: Any, way_in: str
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    task = prescriber.answer(task_of(prescriber)["id"], "completed", "Dr Hoda", decision="ALREADY-STOPPED")
    async with httpx2.AsyncClient(base_url=running.url) as door:
        for _ in range(2):
            if way_in == "put":
                answer = await door.put(f"/fhir/Task/{task['id']}", json=task)
            else:
                status = {"resourceType": "Parameters"}
                answer = await door.post("/fhir", json=fhir.bundle("history", status, task))
            assert answer.status_code in (200, 201), answer.text
    await state_is(running, "answered", eventually)
    await running.settled()
    assert rows_of("SELECT decision FROM answer") == ["stopped"]


async def test_a_decision_without_its_reason_is_no_answer(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    task = task_of(prescriber)
    task |= {"status": "completed", "owner": {"display": "Dr Hoda"}}
    task["output"] = [{"type": {"text": "decision"}, "valueCode": "CONTINUED-JUSTIFIED"}]
    prescriber.fhir._store("Task", task["id"], task)
    await eventually(lambda: rows_of("SELECT count(*) FROM step WHERE state = 'seen'") == [1])
    assert (await alert_of(running))["state"] == "open"
    prescriber.answer(task["id"], "completed", "Dr Hoda", reason="benign, repeated count 1.9")
    await state_is(running, "answered", eventually)
    assert rows_of("SELECT decision, reason FROM answer") == [("continued", "benign, repeated count 1.9")]


async def test_a_stop_closed_without_a_decision_leaves_the_question_what_was_decided(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any
) -> None:
    """A person's status ends the alert; that it was closed says nothing of the drug."""
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    prescriber.answer(task_of(prescriber)["id"], "completed", "Dr Hoda")
    await state_is(running, "answered", eventually)
    asked = await alert_of(running, "ANC-REVIEW")
    assert (asked["state"], asked["level"]) == ("open", "critical")
    assert rows_of("SELECT decision, reason FROM answer") == [("noted", "completed without a stated decision")]
    await eventually(lambda: len(prescriber.tasks()) == 2)
    question = prescriber.tasks()[1]
    assert question["code"]["coding"][0]["code"] == "REVIEW-DECISION"
    assert question["priority"] == "stat"
    assert question["description"].startswith("L'alerte d'arrêt a été close par Dr Hoda sans dire")
    # Closed once more without a word, and by one that is none of ours: it stays.
    for decision in ("", "DONE"):
        prescriber.answer(question["id"], "completed", "Dr Hoda", decision=decision)
        seen = 1 if not decision else 2
        await eventually(
            lambda seen=seen: rows_of("SELECT count(*) FROM step WHERE evidence LIKE '%: without a decision'") == [seen]
        )
    assert (await alert_of(running, "ANC-REVIEW"))["state"] == "open"
    prescriber.answer(question["id"], "completed", "Dr Hoda", decision="STOPPED")
    await state_is(running, "answered", eventually, "ANC-REVIEW")
    await running.settled()
    assert len(prescriber.tasks()) == 2


@pytest.mark.parametrize("where", ["console", "task", "task without a reason"])
async def test_the_question_ends_too_when_the_decision_is_said_of_the_closed_stop(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any, where: str
) -> None:
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    task = task_of(prescriber)
    prescriber.answer(task["id"], "completed", "Dr Hoda")
    await state_is(running, "open", eventually, "ANC-REVIEW")
    stop = await alert_of(running)
    assert stop["state"] == "answered"
    if where == "console":
        async with httpx2.AsyncClient(base_url=running.url) as door:
            page = await door.get(f"/console/alerts/{stop['id']}")
            asked = (await alert_of(running, "ANC-REVIEW"))["id"]
            assert f"/console/alerts/{asked}#answer" in page.text
            question = (await door.get(f"/console/alerts/{asked}")).text
            assert "<h1>DÉCISION NON PRÉCISÉE : ARRÊT IMMÉDIAT" in question
            assert "Numération des PNN illisible" not in question
        await running.engine._pages.console.actions.answer(
            stop["id"], decision=Decision.STOPPED, reason="", by="Dr Hoda"
        )
    else:
        decision = "STOPPED" if where == "task" else "CONTINUED-JUSTIFIED"
        changed = prescriber.answer(task["id"], "completed", "Dr Hoda", decision=decision)
        if where != "task":
            changed.pop("note")
            prescriber.fhir._store("Task", task["id"], changed)
            await eventually(
                lambda: rows_of("SELECT count(*) FROM step WHERE evidence LIKE '%: continued without a reason'")
            )
            assert (await alert_of(running, "ANC-REVIEW"))["state"] == "open"
            return
    await state_is(running, "answered", eventually, "ANC-REVIEW")
    await running.settled()
    assert rows_of("SELECT decision FROM answer ORDER BY id") == ["noted", "stopped"]
    assert [step for step in await way(running, stop["id"]) if step == "answered"] == ["answered"] * 2
    assert [one["status"] for one in prescriber.tasks()] == ["completed", "cancelled"]
    assert await running.findings() == []


async def test_the_question_what_was_decided_ends_when_a_worse_count_asks_anew(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, before: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=before(hours=5)))
    await running.settled()
    prescriber.answer(task_of(prescriber)["id"], "completed", "Dr Hoda")
    await state_is(running, "open", eventually, "ANC-REVIEW")
    await running.tell(hl7.oru("M2", anc="0.30", filler="B2", collected=before(hours=1)))
    assert (await alert_of(running))["state"] == "open"
    assert (await alert_of(running, "ANC-REVIEW"))["state"] == "withdrawn"
    await running.settled()
    assert [one["status"] for one in prescriber.tasks()] == ["completed", "cancelled", "requested"]


async def test_an_answer_to_older_words_does_not_close_a_worse_count(
    running: Any, hl7: Any, prescriber: Any, eventually: Any, rows_of: Any, before: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=before(hours=5)))
    await running.settled()
    task = prescriber.answer(task_of(prescriber)["id"], "completed", "Dr Hoda", decision="STOPPED")
    await state_is(running, "answered", eventually)
    # A worse one opens it again; the old Task, sent once more under another version, answers nothing new.
    await running.tell(hl7.oru("M2", anc="0.30", filler="B2", collected=before(hours=1)))
    assert (await alert_of(running))["state"] == "open"
    async with httpx2.AsyncClient(base_url=running.url) as door:
        await door.put(f"/fhir/Task/{task['id']}", json=task | {"meta": {"versionId": "77"}})
    await running.judged()
    assert (await alert_of(running))["state"] == "open"
    assert rows_of("SELECT count(*) FROM answer") == [1]


def v2_answer(hl7: Any, number: str, decision: str, *, kind: str = "ORU^R01^ORU_R01", reason: str = "") -> bytes:
    lines = [
        f"MSH|^~\\&|EHR|CHX|NEUTROFLAG|CHX|{hl7.stamp(hl7_now())}||{kind}|A1|P|2.5",
        f"OBR|1||{number}^NEUTROFLAG|ANC-ALERT^^99NEUTROFLAG",
        f"OBX|1|CE|ANC-ANSWER^Answer^99NEUTROFLAG||{decision}^^99NEUTROFLAG||||||F|||||10001^HODA^Claire",
        *([f"OBX|2|ST|ANC-ANSWER-REASON^Reason^99NEUTROFLAG||{reason}||||||F"] if reason else []),
    ]
    return ("\r".join(lines) + "\r").encode()


def hl7_now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


async def test_an_hl7_answer_under_our_order_number_closes_the_alert(
    running: Any, hl7: Any, rows_of: Any, eventually: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    number = filler_number((await alert_of(running))["id"])
    assert await running.tell(v2_answer(hl7, number, "STOPPED")) == ["AA"]
    await state_is(running, "answered", eventually)
    assert rows_of('SELECT "by", decision FROM answer') == [("Claire HODA", "stopped")]
    assert rows_of("SELECT disposition, reason FROM message WHERE control_id = 'A1'") == [("not_relevant", "answer")]


async def test_the_pharmacists_copy_has_a_number_of_its_own_and_its_answer_closes_nothing(
    run_engine: Any,
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
) -> None:
    both = 'for = { recipient = ["prescriber", "pharmacist"] }\n'  # of the last destination, ehr-v2
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=both + '[routing]\npharmacist = "Organization/pharmacy"\n')
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    number = filler_number((await alert_of(running))["id"])
    sent = [raw.decode().split("OBR|1||")[1].partition("^")[0] for raw in prescriber.messages().values()]
    assert sorted(sent) == sorted([number, f"{number[:15]}p"])
    controls = rows_of("SELECT control_id FROM delivery WHERE destination = 'ehr-v2' AND recipient = 'pharmacist'")
    head = f"|^~\\&|EHR|CHX|NEUTROFLAG|CHX|{hl7.stamp(hl7_now())}||"
    receipt = f"MSH{head}ZAM^Z03|R1|P|2.5\rMSA|AA|{controls[0]}\r".encode()
    await running.tell(v2_answer(hl7, f"{number[:15]}p", "STOPPED"), receipt)
    await eventually(
        lambda: rows_of("SELECT count(*) FROM step WHERE who LIKE 'pharmacist%' AND state = 'seen'") == [1]
    )
    assert rows_of("SELECT who FROM step WHERE state = 'answered'") == ["pharmacist Claire HODA"]
    assert rows_of("SELECT seen_at FROM alert") == [None]  # whoever must answer has not seen it for that
    assert (await alert_of(running))["state"] == "open"
    assert rows_of("SELECT count(*) FROM answer") == [0]


async def test_the_laboratory_is_asked_to_call_back_about_a_derived_count_near_a_threshold(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra='[routing]\nlaboratory = "Organization/laboratory"\n')
    # 2.1 G/L times 48 % is 1008; at worst it is below 1000.
    raw = hl7.oru("M1", anc="2.1", code="6690-2^Leukocytes^LN")
    raw += b"OBX|2|NM|26511-6^Neutrophils %^LN||48|%|||||F|||\r"
    await running.tell(raw)
    await running.settled()
    tasks = {one["code"]["coding"][0]["code"]: one for one in prescriber.tasks()}
    assert set(tasks) == {"CALL-BACK", "ACK-STOP"}
    call = tasks.pop("CALL-BACK")
    assert call["owner"] == {"reference": "Organization/laboratory"}
    assert "Rappeler le prescripteur avec la valeur absolue et son unité" in call["description"]
    (asked,) = tasks.values()
    assert asked.get("owner") != call["owner"]
    assert call["groupIdentifier"] == asked["groupIdentifier"]


async def test_read_receipts_and_alert_acknowledgements_are_seen_and_close_nothing(
    running: Any, hl7: Any, rows_of: Any, eventually: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    (control_id,) = rows_of("SELECT control_id FROM delivery WHERE destination = 'ehr-v2'")
    number = filler_number((await alert_of(running))["id"])
    head = f"|^~\\&|EHR|CHX|NEUTROFLAG|CHX|{hl7.stamp(hl7_now())}||"
    receipt = f"MSH{head}ZAM^Z03|R1|P|2.5\rMSA|AA|{control_id}\r".encode()
    r41 = f"MSH{head}ORU^R41^ORU_R41|R2|P|2.6\rOBR|1||{number}^NEUTROFLAG|ALARM\rPRT|1|UC||AAP|20001^DIALLO^Awa\r".encode()
    assert await running.tell(receipt, r41) == ["AA", "AA"]
    await eventually(lambda: rows_of("SELECT who FROM step WHERE state = 'seen' ORDER BY id") == ["", "Awa DIALLO"])
    assert (await alert_of(running))["state"] == "open"
    # Under a number that is nobody's, and with a decision that is none of ours.
    await running.tell(v2_answer(hl7, "0" * 16, "STOPPED"))
    assert rows_of("SELECT count(*) FROM answer") == [0]


async def _with_rota(run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, extra: str) -> Any:
    await enrol_by_csv(tmp_path, url, "405660")
    return await run_engine(extra=extra)


async def test_one_left_alone_passes_through_the_rota_until_somebody_answers(
    run_engine: Callable[..., Any],
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
) -> None:
    running = await _with_rota(run_engine, enrol_by_csv, tmp_path, url, ROTA + FAST)
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.judged()
    number = (await alert_of(running))["id"]

    def tasks(kind: str) -> list[dict[str, Any]]:
        return [one for one in prescriber.tasks() if one["identifier"][0]["value"].startswith(f"{number}:{kind}")]

    await eventually(lambda: len(tasks("ack")) >= 3)  # two owners, and once more the first
    asked = tasks("ack")
    owners = [one.get("owner", {}).get("reference") or one["performerType"][0]["text"] for one in asked]
    assert owners[:3] == ["PractitionerRole/psy", "on-call", "PractitionerRole/psy"]
    assert "partOf" not in asked[0]
    assert [one["partOf"][0]["reference"] for one in asked[1:3]] == [f"Task/{one['id']}" for one in asked[:2]]
    assert asked[0]["businessStatus"]["coding"][0]["code"] == "ESCALATED"
    assert asked[0]["status"] == "requested"
    assert {one["priority"] for one in asked} == {"stat"}
    (copy,) = tasks("pharmacist")
    assert copy["owner"] == {"reference": "Organization/pharmacy"}
    assert copy["code"]["coding"][0]["code"] == "INFORM-PHARMACIST"
    # The first owner answers at last, on the Task that is theirs.
    prescriber.answer(asked[0]["id"], "completed", "Dr Hoda", decision="STOPPED")
    found = await state_is(running, "answered", eventually)
    taken = await way(running, found["id"])
    assert taken.count("escalated") == found["escalation"]
    assert taken.count("closed") == 1
    unanswered = f"SELECT count(*) FROM finding WHERE ended_at IS NULL AND subject = '{number}'"  # noqa: S608
    await eventually(lambda: rows_of(unanswered) == [0])
    assert (await alert_of(running))["escalation"] == found["escalation"]
    assert prescriber.fhir.doubled() == 0


async def test_a_task_that_is_handed_back_goes_to_the_next_owner_at_once(
    run_engine: Callable[..., Any],
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
) -> None:
    running = await _with_rota(run_engine, enrol_by_csv, tmp_path, url, ROTA)
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    first = task_of(prescriber)
    prescriber.answer(first["id"], "rejected", "Dr Hoda", reason="not my patient")
    await eventually(lambda: len(prescriber.tasks()) == 3)
    second = task_of(prescriber, ":ack:2")
    assert second["performerType"] == [{"text": "on-call"}]
    assert second["description"].startswith("Cette alerte attend une réponse")
    assert (await alert_of(running))["state"] == "open"
    # Handing back what has passed on already asks nobody again.
    prescriber.answer(first["id"], "rejected", "Dr Hoda", reason="still not mine")
    await eventually(lambda: rows_of("SELECT count(*) FROM step WHERE state = 'handed-back'") == [2])
    await running.settled()
    assert (await alert_of(running))["escalation"] == 1


async def test_the_way_is_shown_by_the_command(
    running: Any, hl7: Any, settings_file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from engine.cli_alerts import alerts_list_command, alerts_show_command
    from engine.cli_state import patients_show_command

    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    file = settings_file()
    assert alerts_list_command(file, True, "open", "", 0, stdout=sys.stdout, stderr=sys.stderr) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["family"], row["state"], row["escalation"]) == ("ANC-STOP", "open", 0)
    assert alerts_show_command(file, row["id"], True, stdout=sys.stdout, stderr=sys.stderr) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [step["state"] for step in whole["steps"]] == ["made", "sent", "stored", "sent", "stored"]
    assert patients_show_command(file, "405660", True, stdout=sys.stdout, stderr=sys.stderr) == 0
    (shown,) = json.loads(capsys.readouterr().out.splitlines()[-1])["alerts"]
    assert shown["steps"] == whole["steps"]
    assert alerts_show_command(file, "nobody's", True, stdout=sys.stdout, stderr=sys.stderr) == 1


async def _with_two_owners(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any, eventually: Any, *extra: str
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """A stop that was handed back once, and its Tasks: of the first owner, of the second one, and the pharmacist's."""
    running = await _with_rota(run_engine, enrol_by_csv, tmp_path, url, "".join((*extra, ROTA)))
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    async with httpx2.AsyncClient(base_url=running.url) as door:
        first = task_of(prescriber)
        handed_back = first | {"status": "rejected", "meta": {"versionId": "9"}}
        await door.put(f"/fhir/Task/{first['id']}", json=handed_back)
    await eventually(lambda: len(prescriber.tasks()) == 3)
    await running.settled()
    return running, tasks_by_kind(prescriber)


def tasks_by_kind(prescriber: Any) -> dict[str, dict[str, Any]]:
    return {one["identifier"][0]["value"][36:]: one for one in prescriber.tasks()}


async def test_an_answer_closes_what_earlier_owners_hold_and_tells_the_pharmacist(
    run_engine: Any,
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
) -> None:
    running, held = await _with_two_owners(run_engine, enrol_by_csv, tmp_path, url, hl7, prescriber, eventually)
    assert {name: one["status"] for name, one in held.items()} == dict.fromkeys(
        (":ack", ":pharmacist", ":ack:2"), "requested"
    )
    prescriber.answer(held[":ack:2"]["id"], "completed", "Dr Hoda", decision="STOPPED")
    found = await state_is(running, "answered", eventually)
    await running.settled()
    after = tasks_by_kind(prescriber)
    assert {name: one["status"] for name, one in after.items()} == {
        ":ack": "cancelled",
        ":pharmacist": "requested",  # told what must not be handed over, and has not said that it was read
        ":ack:2": "completed",
    }
    assert after[":ack"]["statusReason"]["coding"][0]["code"] == "ANSWERED-ELSEWHERE"
    assert after[":ack"]["businessStatus"]["coding"][0]["code"] == "ACKNOWLEDGED"
    assert "par Dr Hoda : Clozapine arrêtée" in after[":ack"]["note"][-1]["text"]
    assert after[":pharmacist"]["note"][-1] == after[":ack"]["note"][-1]
    assert after[":ack:2"]["meta"]["versionId"] == "2"  # the answer itself is nobody's to write again
    assert [one["status"] for one in prescriber.flags()] == ["active"]
    # The HL7 v2 inbox was told of the alert and of its passing on, and not of the answer.
    assert rows_of("SELECT count(*) FROM delivery WHERE destination = 'ehr-v2'") == [2]
    assert found["state"] == "answered"
    # Read back, our own ending of a Task answers nothing.
    await eventually(lambda: rows_of("SELECT count(*) FROM step WHERE state = 'closed'") == [1])
    assert rows_of("SELECT count(*) FROM answer") == [1]


async def test_a_task_that_a_person_has_taken_up_keeps_its_status(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    running, held = await _with_two_owners(run_engine, enrol_by_csv, tmp_path, url, hl7, prescriber, eventually)
    prescriber.answer(held[":ack"]["id"], "in-progress", "Dr Diallo")
    number = filler_number((await alert_of(running))["id"])
    assert await running.tell(v2_answer(hl7, number, "STOPPED")) == ["AA"]
    await state_is(running, "answered", eventually)
    await running.settled()
    after = tasks_by_kind(prescriber)
    assert {name: one["status"] for name, one in after.items()} == {
        ":ack": "in-progress",
        ":pharmacist": "requested",
        ":ack:2": "cancelled",
    }
    assert after[":ack"]["businessStatus"]["coding"][0]["code"] == "ACKNOWLEDGED"
    assert "par Claire HODA" in after[":ack"]["note"][-1]["text"]


async def test_an_answer_in_the_console_ends_the_tasks_and_tells_a_v2_inbox_that_wants_it(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    wants = "tell_answers = true\n"  # of the last destination, ehr-v2
    running, _ = await _with_two_owners(run_engine, enrol_by_csv, tmp_path, url, hl7, prescriber, eventually, wants)
    found = await alert_of(running)
    pages = running.engine._pages
    await pages.console.actions.answer(
        found["id"], decision=Decision.CONTINUED, reason="benign, repeated", by="Dr Hoda", revision=2
    )
    await running.settled()
    assert {name: one["status"] for name, one in tasks_by_kind(prescriber).items()} == {
        ":ack": "cancelled",
        ":pharmacist": "requested",
        ":ack:2": "cancelled",
    }
    (told,) = [raw.decode() for raw in prescriber.messages().values() if b"ANC-ANSWERED" in raw]
    assert "ALERTE RÉPONDUE" in told
    assert "par Dr Hoda : Traitement poursuivi" in told
    # A worse count is a new question: who has closed theirs is asked beside it.
    await running.tell(hl7.oru("M2", anc="0.20", filler="B2"))
    await running.settled()
    assert (await alert_of(running))["state"] == "open"
    assert [name for name, one in tasks_by_kind(prescriber).items() if one["status"] == "requested"] == [
        ":pharmacist",
        ":ack:4",
    ]


async def test_what_an_answer_ends_is_ended_once_though_the_destination_was_down_and_the_engine_restarted(
    run_engine: Any,
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
) -> None:
    running, held = await _with_two_owners(run_engine, enrol_by_csv, tmp_path, url, hl7, prescriber, eventually)
    await prescriber.down()
    number = filler_number((await alert_of(running))["id"])
    await running.tell(v2_answer(hl7, number, "STOPPED"))
    await state_is(running, "answered", eventually)
    await running.engine.stop()
    await prescriber.up()
    # Written, and its answer lost: the next attempt finds nothing more to do.
    prescriber.http_faults.append(HttpFault(status=500, applied=True))
    again = await run_engine(extra=ROTA)
    await again.settled()
    after = tasks_by_kind(prescriber)
    assert {name: one["status"] for name, one in after.items()} == {
        ":ack": "cancelled",
        ":pharmacist": "requested",
        ":ack:2": "cancelled",
    }
    for name, one in after.items():
        assert int(one["meta"]["versionId"]) == int(held[name]["meta"]["versionId"]) + 1, name
    assert rows_of("SELECT DISTINCT state FROM delivery") == ["delivered"]
