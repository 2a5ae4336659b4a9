"""What a person does through a running engine: answers, changes of a course, replays; and what follows for the prescriber."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from console.port import Decision, RefusedInput
from engine.clinician import Clinician
from engine.compose import Engine
from engine.config import load
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


# What follows at the prescriber's


def of_family(prescriber: Any, family: str) -> list[dict[str, Any]]:
    return [flag for flag in prescriber.flags() if family in str(flag["code"])]


async def test_signs_of_infection_ask_for_a_count_at_once_with_no_count_on_file(running: Any, prescriber: Any) -> None:
    await changed(running, InfectionSigns(today()))
    entry = await the_alert(running)
    assert (entry.alert.family.value, entry.alert.level.value) == ("ANC-OVERDUE", "red")
    assert entry.alert.assessment is not None
    assert entry.alert.assessment.action == "OBTAIN_ANC_IMMEDIATELY"
    assert (await patient(running)).present == entry.alert.assessment
    assert [flag["status"] for flag in of_family(prescriber, "ANC-OVERDUE")] == ["active"]


async def test_signs_of_infection_ask_for_a_count_at_once_after_an_old_count(
    running: Any, hl7: Any, before: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru(anc="2.84", collected=before(hours=30)))
    await running.settled()
    await changed(running, InfectionSigns(today()))
    assert (await the_alert(running)).alert.level.value == "red"
    assert rows_of("SELECT next_due FROM patient WHERE enrolled") == [today().isoformat()]
    await changed(running, InfectionSigns(None))
    found = await patient(running)
    assert found.present is not None
    assert found.present.next_due != today()


async def test_a_restart_against_r5_is_recorded_and_alarms(running: Any, prescriber: Any) -> None:
    await changed(running, Stopped(today() - timedelta(days=3), StopReason.ANC_BELOW_1000))
    assert (await patient(running)).alerts == {}
    await changed(running, Restarted(datetime.now(PARIS).replace(tzinfo=None)))
    entry = await the_alert(running)
    assert (entry.alert.family.value, entry.alert.level.value) == ("ANC-STOP", "critical")
    assert entry.alert.assessment is not None
    assert entry.alert.assessment.category == "contraindicated"
    assert [flag["status"] for flag in of_family(prescriber, "ANC-STOP")] == ["active"]


async def test_an_earlier_stop_level_neutropenia_of_a_treated_patient_alarms(running: Any) -> None:
    await changed(running, AttestHistory(PriorNeutropenia.STOP_LEVEL, Attestation(WHO, today())))
    assert (await the_alert(running)).alert.level.value == "critical"


async def test_a_stop_moves_the_next_count_to_a_week_from_it(running: Any, hl7: Any, rows_of: Any) -> None:
    await running.enrol("405660", treatment_start="2020-01-06")
    await running.tell(hl7.oru(anc="2.84"))
    await running.settled()
    assert rows_of("SELECT next_due FROM patient WHERE enrolled") != [(today() + timedelta(days=7)).isoformat()]
    await changed(running, Stopped(today(), StopReason.OTHER))
    assert rows_of("SELECT next_due FROM patient WHERE enrolled") == [(today() + timedelta(days=7)).isoformat()]


async def test_a_shorter_interval_moves_the_next_count_and_the_pages_may_say_why(
    running: Any, hl7: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru(anc="2.84"))
    expires = today() + timedelta(days=30)
    await clinician(running).change_course(
        (await patient(running)).id,
        Overridden("shorter-interval", "asked for", expires, Attestation(WHO, today()), days=3),
        by=WHO,
    )

    async def looked_at() -> bool:
        found = await patient(running)
        return found.settle_at == datetime(expires.year, expires.month, expires.day, tzinfo=PARIS)

    for _ in range(200):
        running.store.arrived.set()
        if await looked_at():
            break
        await asyncio.sleep(0.02)
    assert await looked_at()
    found = await patient(running)
    assert found.present is not None
    assert "override-shorter-interval" in found.present.remarks
    due = rows_of("SELECT next_due FROM patient WHERE enrolled")
    assert due in ([(today() + timedelta(days=n)).isoformat()] for n in (2, 3))


async def test_an_override_beyond_the_protocol_is_refused_with_the_patients_own_interval(running: Any) -> None:
    for number, refused in ((8, ("days", "longer-than-protocol")), (0, ("days", "below-one"))):
        with pytest.raises(RefusedInput) as raised:
            await changed(
                running,
                Overridden(
                    "shorter-interval", "asked for", today() + timedelta(days=9), Attestation(WHO, today()), days=number
                ),
            )
        assert (raised.value.field, raised.value.code) == refused
    with pytest.raises(RefusedInput) as raised:
        await changed(
            running,
            Overridden(
                "borderline-not-history",
                "at the border",
                today() + timedelta(days=9),
                Attestation(WHO, today()),
                value_on=today(),
            ),
        )
    assert (raised.value.field, raised.value.code) == ("value_on", "not-borderline")


async def test_a_worse_count_opens_an_answered_alert_again(
    running: Any, hl7: Any, before: Any, prescriber: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="1.30", filler="B1", collected=before(hours=6)))
    first = await the_alert(running)
    await clinician(running).answer(first.alert.id, decision=Decision.NOTED, reason="", by=WHO)
    await running.tell(hl7.oru("M2", anc="1.29", filler="B2", collected=before(hours=5)))
    assert (await the_alert(running)).state == "answered"
    await running.tell(hl7.oru("M3", anc="0.84", filler="B3", collected=before(hours=4)))
    states = {e.alert.family.value: e.state for e in (await patient(running)).alerts.values()}
    assert states == {"ANC-MILD": "answered", "ANC-STOP": "open"}


async def test_a_further_red_count_opens_an_answered_stop_again_and_a_milder_one_leaves_it(
    running: Any, hl7: Any, before: Any, rows_of: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=before(hours=8)))
    stop = await the_alert(running)
    await clinician(running).answer(stop.alert.id, decision=Decision.STOPPED, reason="", by=WHO)
    await changed(running, Stopped(today(), StopReason.ANC_BELOW_1000))
    assert (await patient(running)).alerts[stop.alert.id].state == "answered"
    await running.tell(hl7.oru("M2", anc="0.45", filler="B2", collected=before(minutes=50)))
    again = (await patient(running)).alerts[stop.alert.id]
    assert (again.state, again.alert.level.value) == ("open", "critical")
    assert again.alert.raised_at > stop.alert.raised_at
    assert rows_of("SELECT state FROM alert WHERE family = 'ANC-STOP'") == ["open"]


async def test_a_milder_count_after_an_answered_stop_is_told_beside_it(running: Any, hl7: Any, before: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1", collected=before(days=2)))
    await running.settled()
    stop = await the_alert(running)
    await clinician(running).answer(stop.alert.id, decision=Decision.STOPPED, reason="", by=WHO)
    await running.tell(hl7.oru("M2", anc="2.50", filler="B2"))
    await running.settled()
    alerts = (await patient(running)).alerts
    assert sorted(entry.alert.family.value for entry in alerts.values()) == ["ANC-SCHEDULE", "ANC-STOP"]
    assert alerts[stop.alert.id].alert.level.value == "red"
    assert alerts[stop.alert.id].state == "answered"


async def test_an_answered_alert_that_the_laboratory_takes_back_leaves_a_task_for_a_person(
    running: Any, hl7: Any, before: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84"))
    stop = await the_alert(running)
    await clinician(running).answer(stop.alert.id, decision=Decision.STOPPED, reason="", by=WHO)
    await running.tell(hl7.oru("M2", anc="2.84", status="C", issued=datetime.now(UTC)))
    alerts = (await patient(running)).alerts
    assert alerts[stop.alert.id].state == "withdrawn"
    (task,) = [entry for entry in alerts.values() if entry.alert.family.value == "ANC-REVIEW"]
    assert (task.state, task.alert.reason) == ("open", "answered-alert-withdrawn")
    assert "RETIRÉE APRÈS RÉPONSE" in task.alert.title
    # Said on the page of the stop that was taken back, it ends the question that is left of it; then nothing asks any more.
    await clinician(running).answer(stop.alert.id, decision=Decision.PATIENT_REACHED, reason="", by=WHO)
    alerts = (await patient(running)).alerts
    assert alerts[task.alert.id].state == "answered"
    assert alerts[stop.alert.id].state == "withdrawn"
    with pytest.raises(RefusedInput) as raised:
        await clinician(running).answer(stop.alert.id, decision=Decision.STOPPED, reason="", by=WHO)
    assert raised.value.code == "withdrawn"


async def test_an_unanswered_alert_that_is_taken_back_leaves_no_task(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="1.20"))
    await running.tell(hl7.oru("M2", anc="2.84", status="C", issued=datetime.now(UTC)))
    assert {entry.state for entry in (await patient(running)).alerts.values()} == {"withdrawn"}


async def test_a_stop_that_is_taken_back_leaves_its_decision_to_be_reviewed(running: Any, hl7: Any) -> None:
    """Nobody has answered it; that does not say that nobody has read it, and stopped the treatment."""
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.tell(hl7.oru("M2", anc="2.84", status="C", issued=datetime.now(UTC)))
    found = {(entry.alert.family.value, entry.state) for entry in (await patient(running)).alerts.values()}
    assert found == {("ANC-STOP", "withdrawn"), ("ANC-REVIEW", "open")}


async def test_a_death_answers_what_is_open_and_silences_what_comes(running: Any, hl7: Any, rows_of: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1"))
    await changed(running, Deceased(today()))
    assert (await the_alert(running)).state == "answered"
    assert rows_of("SELECT by, reason FROM answer") == [(WHO, "deceased")]
    await running.tell(hl7.oru("M2", anc="0.30", filler="B2"))
    assert (await the_alert(running)).alert.revision == 1
    with pytest.raises(RefusedInput) as raised:
        await changed(running, InfectionSigns(today()))
    assert raised.value.code == "deceased"


async def test_a_transfer_holds_the_alerts_until_the_receiver_has_accepted(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", filler="B1"))
    await changed(running, Transferred(today(), "CHU", accepted=False))
    assert (await the_alert(running)).state == "open"
    assert (await patient(running)).course.state is CourseState.ACTIVE
    await changed(running, Transferred(today(), "CHU", accepted=True))
    assert (await the_alert(running)).state == "answered"
    assert (await patient(running)).course.state is CourseState.TRANSFERRED


async def test_answers_and_changes_hold_against_judgements_of_the_same_moment(
    running: Any, hl7: Any, before: Any, rows_of: Any
) -> None:
    # A count after the signs: without one they would make the mild count a red one, wherever the hour puts it and the
    # counts that follow on one day, whose lowest is judged; and a red alert opens an answered amber one again.
    await running.enrol(last_anc_on=(today() - timedelta(days=2)).isoformat(), last_anc_per_mm3="2500")
    await running.tell(hl7.oru("M0", anc="1.40", filler="B0", collected=before(hours=20)))
    entry = await the_alert(running)
    number = (await patient(running)).id

    async def feed() -> None:
        for n in range(8):
            await running.tell(hl7.oru(f"N{n}", anc=f"2.{n}0", filler=f"C{n}", collected=before(hours=10 - n)))

    async def act() -> None:
        await clinician(running).answer(entry.alert.id, decision=Decision.NOTED, reason="", by=WHO)
        for n in range(8):
            await clinician(running).change_course(number, InfectionSigns(today() - timedelta(days=n + 2)), by=WHO)

    await asyncio.gather(feed(), act())
    await running.settled()
    assert (await patient(running)).course.infection_signs_on == today() - timedelta(days=9)
    assert len((await patient(running)).results) == 10
    assert rows_of("SELECT state FROM alert WHERE family = 'ANC-MILD'") == ["answered"]
    assert rows_of("SELECT count(*) FROM audit WHERE action = 'course:infectionsigns'") == [8]
    assert await running.findings() == []


async def test_only_a_start_puts_somebody_on_the_register(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="2.84", patient="900^^^CHX&1.2.3&ISO^PI"))
    number = (await patient(running, "900")).id
    with pytest.raises(RefusedInput) as raised:
        await clinician(running).change_course(number, Interrupted(datetime(2026, 1, 1)), by=WHO)  # noqa: DTZ001
    assert (raised.value.field, raised.value.code) == ("", "not-enrolled")
    await clinician(running).change_course(number, Started(today()), by=WHO)
    record = await patient(running, "900")
    assert record.enrolled
    assert (record.course.start, record.course.start_confirmed_by) == (today(), WHO)


async def test_a_later_import_takes_back_nothing_that_a_form_recorded(running: Any) -> None:
    await changed(running, ConfirmBen(Attestation("Dr A", today()), "Dr B"))
    await changed(running, Stopped(today() - timedelta(days=3), StopReason.ANC_BELOW_500))
    await changed(running, Restarted(datetime.now(PARIS).replace(tzinfo=None)))
    await changed(running, Transferred(today(), "CHU", accepted=False))
    before = (await patient(running)).course
    assert before.reexposed_on == today()
    await running.enrol("405660")
    assert (await patient(running)).course == before


async def test_a_count_from_before_a_recorded_stop_does_not_move_the_next_one_away(
    running: Any, hl7: Any, before: Any, rows_of: Any
) -> None:
    await running.enrol("405660", treatment_start="2020-01-06")
    await changed(running, Stopped(today(), StopReason.OTHER))
    await running.tell(hl7.oru(anc="2.84", collected=before(hours=23)))
    await running.settled()
    due = rows_of("SELECT next_due FROM patient WHERE enrolled")
    assert due == [(today() + timedelta(days=7)).isoformat()]


async def test_the_process_that_judges_hears_of_a_change_at_once(
    settings_file: Any, tmp_path: Path, url: str, enrol_by_csv: Any, eventually: Any, rows_of: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    engine = Engine(load(settings_file(), {}), separate=True)
    await engine.start()
    try:
        await eventually(lambda: rows_of("SELECT present FROM patient") != [None], 60)
        assert engine.store is not None
        (number,) = rows_of("SELECT id FROM patient")
        acting = Clinician(engine.store, zone=PARIS, default_protocol="ansm")
        await acting.change_course(number, InfectionSigns(today()), by=WHO)
        await eventually(lambda: rows_of("SELECT level, state FROM alert"))
        assert rows_of("SELECT family, level, state FROM alert") == [("ANC-OVERDUE", "red", "open")]
        (alert,) = rows_of("SELECT id FROM alert")
        await acting.answer(alert, decision=Decision.COUNT_ORDERED, reason="", by=WHO)
        assert rows_of("SELECT state FROM alert") == ["answered"]
    finally:
        await engine.stop()
