"""ADT^A40 to a running engine: two records become one, and a named person takes it back."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from engine.cli_merge import patients_unmerge_command
from rules.model import PatientIdentifier
from store.port import PatientRecord

OLD, NEW = "405660^^^CHX&1.2.3&ISO^PI", "777001^^^CHX&1.2.3&ISO^PI"


def a40(
    survivor: str = NEW, prior: str = OLD, *, control_id: str = "A40-1", processing: str = "P", pid32: str = ""
) -> bytes:
    pid = f"PID|1||{survivor}||SPECIMEN^DOMINIQUE^^^^^L||19790328|F{'|' * 24}{pid32}"
    head = f"MSH|^~\\&|DPI|CHX|NEUTROFLAG|CHX|20261122101605+0100||ADT^A40^ADT_A39|{control_id}|{processing}|2.5"
    return f"{head}\rEVN|A40|20261122101605+0100\r{pid}\rMRG|{prior}\r".encode()


async def record_of(running: Any, value: str) -> PatientRecord | None:
    found = await running.store.patients([PatientIdentifier(value, "urn:oid:1.2.3")])
    return found[0] if found else None


def open_families(record: PatientRecord | None) -> list[str]:
    assert record is not None
    return sorted(entry.alert.family.value for entry in record.alerts.values() if entry.state == "open")


def unmerge(settings: Path, key: str, by: str = "Dr Hoda", *, yes: bool = True) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    return patients_unmerge_command(settings, key, by, yes, stdout=out, stderr=err), out.getvalue() + err.getvalue()


async def test_counts_alerts_and_the_place_on_the_register_move_to_the_survivor(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.70"))
    prior = await record_of(running, "405660")
    assert "ANC-STOP" in open_families(prior)
    assert prior is not None
    await running.tell(hl7.oru("M2", anc="2.50", patient=NEW, filler="B9"), a40())
    survivor = await record_of(running, "405660")
    assert survivor is not None
    assert survivor.id != prior.id
    assert survivor.enrolled
    assert survivor.course == prior.course
    assert {item.value for item in survivor.identifiers} == {"405660", "777001"}
    assert len(survivor.results) == 2
    assert "ANC-STOP" in open_families(survivor)
    (left,) = await running.store.patients_by_id([prior.id])
    assert (left.enrolled, left.results, left.identifiers, open_families(left)) == (False, {}, [], [])
    assert "patients-merged" in {row["reason"] for row in await running.messages()}
    # What comes later under the old number is the survivor's.
    await running.tell(hl7.oru("M3", anc="0.60", filler="B10"))
    again = await record_of(running, "777001")
    assert again is not None
    assert len(again.results) == 3
    assert await running.findings() == []


async def test_a_question_goes_on_under_the_survivor_as_it_was_worded_and_as_urgent(
    running: Any, hl7: Any, prescriber: Any, eventually: Any
) -> None:
    prescriber.add_patient(("urn:oid:1.2.3", "777001"), id_="p2")
    await running.tell(hl7.oru("M1", anc="0.40"))
    await running.settled()
    (task,) = prescriber.tasks()
    prescriber.answer(task["id"], "completed", "Dr Hoda")  # and no decision

    async def asked() -> bool:
        return open_families(await record_of(running, "405660")) == ["ANC-REVIEW"]

    await eventually(asked)
    await running.tell(hl7.oru("M2", anc="2.50", patient=NEW, filler="B9"), a40())
    survivor = await record_of(running, "777001")
    assert survivor is not None
    (question,) = [entry.alert for entry in survivor.alerts.values() if entry.alert.family.value == "ANC-REVIEW"]
    assert (question.level.value, question.reason, question.revision) == ("critical", "decision-not-stated", 1)
    assert question.title.startswith("DÉCISION NON PRÉCISÉE : ARRÊT IMMÉDIAT")
    assert "été close par Dr Hoda sans dire" in question.text
    assert await running.findings() == []


async def test_a_merge_is_told_once_however_often_it_is_sent(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.70"), hl7.oru("M2", patient=NEW, filler="B9"), a40())
    before = len(await running.deliveries())
    await running.tell(a40(control_id="A40-2"))
    assert len(await running.deliveries()) == before


async def test_an_unknown_prior_number_becomes_another_name(running: Any, hl7: Any) -> None:
    await running.tell(
        a40(survivor=OLD, prior="888^^^CHX&1.2.3&ISO^PI"), hl7.oru("M1", patient="888^^^CHX&1.2.3&ISO^PI")
    )
    record = await record_of(running, "405660")
    assert record is not None
    assert record.enrolled
    assert len(record.results) == 1


@pytest.mark.parametrize("message", [a40(processing="T"), a40(prior=""), a40(survivor=OLD), a40(prior="888^^^X^AN")])
async def test_a_test_message_or_one_without_two_patients_moves_nothing(running: Any, hl7: Any, message: bytes) -> None:
    await running.tell(hl7.oru("M1"), hl7.oru("M2", patient=NEW, filler="B9"), message)
    prior, survivor = await record_of(running, "405660"), await record_of(running, "777001")
    assert prior is not None
    assert survivor is not None
    assert prior.id != survivor.id
    assert prior.enrolled


async def test_a_doubtful_identity_is_a_task_and_moves_nothing(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1"), hl7.oru("M2", patient=NEW, filler="B9"), a40(pid32="DOUT"))
    prior = await record_of(running, "405660")
    assert prior is not None
    assert prior.enrolled
    assert [entry.alert.reason for entry in prior.alerts.values() if entry.alert.reason] == ["merge-doubtful"]


async def test_a_merge_is_taken_back_by_a_named_person(
    running: Any, hl7: Any, settings_file: Callable[..., Path], before: Callable[..., datetime]
) -> None:
    await running.tell(hl7.oru("M1", anc="0.70"))
    prior = await record_of(running, "405660")
    await running.tell(hl7.oru("M2", patient=NEW, filler="B9"), a40(), hl7.oru("M3", anc="0.80", filler="B10"))
    settings = settings_file()
    assert unmerge(settings, "777001", by=" ")[0] == 2
    code, words = unmerge(settings, "777001", yes=False)
    assert code == 0
    assert words.startswith("would undo: 1 identifiers and 1 counts")
    assert (await record_of(running, "405660")).id != prior.id  # type: ignore[union-attr]
    assert unmerge(settings, "777001")[0] == 0
    back, other = await record_of(running, "405660"), await record_of(running, "777001")
    assert back is not None
    assert other is not None
    assert prior is not None
    assert (back.id, back.enrolled, back.course, len(back.results)) == (prior.id, True, prior.course, 2)
    assert "ANC-STOP" in open_families(back)
    assert (other.enrolled, len(other.results), open_families(other)) == (False, 1, [])
    assert unmerge(settings, "777001") == (1, "no merge that stands\n")
    assert await running.findings() == []


async def test_two_courses_of_one_person_are_for_a_person_to_compare(running: Any, hl7: Any) -> None:
    await running.enrol("777001")
    await running.tell(hl7.oru("M1", anc="0.70"), a40())
    survivor = await record_of(running, "405660")
    assert survivor is not None
    assert survivor.enrolled
    assert "merge-two-courses" in {entry.alert.reason for entry in survivor.alerts.values()}
    assert "ANC-STOP" in open_families(survivor)
