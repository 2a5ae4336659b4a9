"""What a person does through a running engine: answers, changes of a course, replays; and what follows for the prescriber."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from console.port import Decision, RefusedInput
from engine.clinician import Clinician
from rules.changes import (
    AttestHistory,
    ConfirmBen,
    Deceased,
    InfectionSigns,
    Interrupted,
    Overridden,
    Restarted,
    Started,
    Stopped,
    Transferred,
)
from rules.model import Attestation, CourseState, PriorNeutropenia, StopReason
from store.port import AlertRecord, PatientRecord

PARIS = ZoneInfo("Europe/Paris")
WHO = "Dr Hoda"


def today() -> date:
    return datetime.now(PARIS).date()


def clinician(running: Any) -> Clinician:
    return Clinician(running.store, zone=PARIS, default_protocol="ansm")


async def patient(running: Any, number: str = "405660") -> PatientRecord:
    from rules.model import PatientIdentifier

    found = await running.store.patients([PatientIdentifier(number, "urn:oid:1.2.3")])
    (record,) = found
    assert isinstance(record, PatientRecord)
    return record


async def the_alert(running: Any) -> AlertRecord:
    (entry,) = (await patient(running)).alerts.values()
    return entry


async def changed(running: Any, change: Any) -> None:
    await clinician(running).change_course((await patient(running)).id, change, by=WHO)
    await running.settled()


async def test_an_answer_closes_the_alert_with_who_what_and_why(running: Any, hl7: Any, rows_of: Any) -> None:
    await running.tell(hl7.oru(anc="0.84"))
    entry = await the_alert(running)
    await clinician(running).answer(entry.alert.id, decision=Decision.STOPPED, reason=" given up ", by=" Dr  Hoda ")
    assert (await the_alert(running)).state == "answered"
    assert rows_of("SELECT alert_id, revision, decision, reason, by FROM answer") == [
        (entry.alert.id, 1, "stopped", "given up", "Dr Hoda")
    ]
    assert rows_of("SELECT actor FROM audit WHERE action = 'answer'") == ["Dr Hoda"]
    assert (await running.store.snapshot()).alerts_open == {}


async def test_an_alert_that_is_handed_back_stays_open(running: Any, hl7: Any, rows_of: Any) -> None:
    await running.tell(hl7.oru(anc="0.84"))
    entry = await the_alert(running)
    await clinician(running).answer(entry.alert.id, decision=Decision.NOT_MY_PATIENT, reason="moved", by=WHO)
    assert (await the_alert(running)).state == "open"
    assert rows_of("SELECT decision FROM answer") == ["not-my-patient"]


@pytest.mark.parametrize(
    ("decision", "reason", "by", "refused"),
    [
        (Decision.CONTINUED, " ", WHO, ("reason", "missing")),
        (Decision.DISPUTED, "", WHO, ("reason", "missing")),
        (Decision.NOT_MY_PATIENT, "", WHO, ("reason", "missing")),
        (Decision.STOPPED, "x" * 2001, WHO, ("reason", "too-long")),
        (Decision.STOPPED, "", "  ", ("by", "missing")),
        (Decision.STOPPED, "", "x" * 201, ("by", "too-long")),
        (Decision.NOTED, "", WHO, ("decision", "not-for-this-alert")),
    ],
)
async def test_an_answer_that_cannot_be_taken_says_why_and_changes_nothing(
    running: Any, hl7: Any, rows_of: Any, decision: Decision, reason: str, by: str, refused: tuple[str, str]
) -> None:
    await running.tell(hl7.oru(anc="0.84"))
    entry = await the_alert(running)
    with pytest.raises(RefusedInput) as raised:
        await clinician(running).answer(entry.alert.id, decision=decision, reason=reason, by=by)
    assert (raised.value.field, raised.value.code) == refused
    assert (await the_alert(running)).state == "open"
    assert rows_of("SELECT count(*) FROM answer") == [0]


async def test_an_answer_to_what_a_worse_count_has_overtaken_is_refused(
    running: Any, hl7: Any, before: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=before(hours=5)))
    seen = await the_alert(running)
    await running.tell(hl7.oru("M2", anc="0.40", filler="B2"))
    assert (await the_alert(running)).alert.revision == seen.alert.revision + 1
    with pytest.raises(RefusedInput) as raised:
        await clinician(running).answer(
            seen.alert.id, decision=Decision.STOPPED, reason="", by=WHO, revision=seen.alert.revision
        )
    assert raised.value.code == "changed-meanwhile"
    assert (await the_alert(running)).state == "open"
    assert rows_of("SELECT count(*) FROM answer") == [0]


async def test_an_alert_or_patient_that_is_unknown_is_a_lookup_error(running: Any) -> None:
    with pytest.raises(LookupError):
        await clinician(running).answer("nobody", decision=Decision.NOTED, reason="", by=WHO)
    with pytest.raises(LookupError):
        await clinician(running).change_course("nobody", Deceased(today()), by=WHO)
    with pytest.raises(LookupError):
        await clinician(running).replay_message(4711, by=WHO)


async def test_a_message_is_judged_again_and_who_asked_is_on_record(running: Any, hl7: Any, rows_of: Any) -> None:
    await running.tell(hl7.oru(anc="2.84"))
    (message,) = await running.messages()
    copied = await clinician(running).replay_message(message["id"], by=WHO)
    await running.judged()
    assert copied != message["id"]
    assert rows_of("SELECT actor FROM audit WHERE action = 'replay-message'") == [WHO]


async def test_a_dead_letter_is_sent_again_and_who_asked_is_on_record(
    running: Any, hl7: Any, prescriber: Any, rows_of: Any
) -> None:
    await running.enrol("777")
    await running.tell(hl7.oru("M1", anc="0.84", patient="777^^^CHX&1.2.3&ISO^PI"))
    await running.settled()
    (dead,) = await running.deliveries(state="dead")
    prescriber.add_patient(("urn:oid:1.2.3", "777"), id_="p7")
    assert await clinician(running).replay_dead([dead["id"], 1], by=WHO) == 1
    await running.settled()
    assert await running.deliveries(state="dead") == []
    assert rows_of("SELECT actor FROM audit WHERE action = 'replay-dead'") == [WHO]


async def test_a_course_change_is_on_record_with_who_made_it_and_what_it_was(running: Any, rows_of: Any) -> None:
    await changed(running, ConfirmBen(Attestation("Dr A", today()), "Dr B"))
    record = await patient(running)
    assert record.course.ben == Attestation("Dr A", today())
    assert record.course.ben_second_by == "Dr B"
    (actor, detail) = rows_of("SELECT actor, detail FROM audit WHERE action = 'course:confirmben'")[0]
    assert actor == WHO
    assert '"ben_second_by":"Dr B"' in detail


async def test_a_course_change_that_cannot_be_taken_names_its_field(running: Any) -> None:
    with pytest.raises(RefusedInput) as raised:
        await changed(running, ConfirmBen(Attestation("Dr Béa", today()), "dr  BEA"))
    assert (raised.value.field, raised.value.code) == ("second", "same-person")
