"""What a stop alert rests on, told in different orders: the end is the same, a lower level is told as a correction, and no
correction of one count hides another one that requires the stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from engine.notify import Notifier
from engine.stops import Stops, settle
from rules.model import (
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    CompleteStop,
    StopReason,
    Subject,
    TreatmentCourse,
)
from store.port import AlertRecord, PatientRecord, Work

from .test_watch_month import DAY, HOUR, MONDAY, Clinic

EVENING, MORNING = MONDAY + 23 * HOUR, MONDAY + 29 * HOUR
"""Of two days; all is told within a day of both."""


@pytest.fixture
async def ward(url: str) -> AsyncIterator[Clinic]:
    clinic = Clinic(url)
    clinic.now = MONDAY + 32 * HOUR
    await clinic.open()
    yield clinic
    await clinic.close()


async def tell(
    ward: Clinic, hl7: Any, filler: str, anc: str, drawn: datetime, *, status: str = "F", step: int = 0, who: str = "P"
) -> None:
    """``step``: the version, each issued later than those before."""
    ward.number += 1
    issued = drawn + timedelta(minutes=10 + step)
    raw = hl7.oru(
        f"M{ward.number}",
        anc=anc,
        patient=f"{who}^^^CHX&1.2.3&ISO^PI",
        filler=f"{who}{filler}",
        status=status,
        collected=drawn,
        issued=issued,
    )
    await ward.message("LAB", raw=raw, relevant=True)


async def stops(ward: Clinic, who: str = "P") -> list[tuple[str, str]]:
    """(state, level) of the patient's stop alerts, by episode."""
    sql = (
        "SELECT state, level FROM alert WHERE family = 'ANC-STOP' AND patient_id = :who "
        "ORDER BY json_extract(body, '$.assessment.episode_on')"
    )
    return [tuple(row) for row in await ward.store.read(lambda c: c.exec_driver_sql(sql, {"who": who}).fetchall())]


async def open_stops(ward: Clinic, who: str) -> list[str]:
    return [level for state, level in await stops(ward, who) if state == "open"]


async def test_a_critical_count_that_is_corrected_to_red_is_told_as_a_correction_and_as_urgently(
    ward: Clinic, hl7: Any
) -> None:
    await ward.enrol("P", start=(MONDAY - 40 * DAY).date())
    await tell(ward, hl7, "1", "0.40", MORNING)
    await tell(ward, hl7, "1", "0.70", MORNING, status="C", step=1)
    assert await stops(ward) == [("open", "red")]
    rows = await ward.told("level", "urgency", "kind", "title", "text", "question", "answer_by")
    first, second = rows
    assert first[:3] == ("critical", "none", "raised")
    assert second[:3] == ("red", "critical", "updated")
    assert second[3].startswith("CORRIGÉ, l'alerte demeure : ARRÊT IMMÉDIAT")
    assert "0,7 G/L" in second[3]
    # What was told before is said, and the question stays the one that was asked.
    said = second[4].split("\n")[0]
    assert "« Alerte critique »" in said
    assert "0,4 G/L" in said
    assert "revoir avec le patient" in said
    assert second[5:] == first[5:]


async def test_another_count_that_still_requires_the_stop_holds_it(ward: Clinic, hl7: Any) -> None:
    """Whichever of the two the laboratory takes back first: while one stands the stop is open, at its level."""
    for who, first in (("A", "1"), ("B", "2")):
        await ward.enrol(who, start=(MONDAY - 40 * DAY).date())
        counts = {"1": ("0.70", EVENING), "2": ("0.40", MORNING)}
        for filler, (anc, drawn) in counts.items():
            await tell(ward, hl7, filler, anc, drawn, who=who)
        assert await open_stops(ward, who) == ["critical"]
        (second,) = counts.keys() - {first}
        await tell(ward, hl7, first, "2.50", counts[first][1], status="C", step=1, who=who)
        assert await open_stops(ward, who) == [{"1": "red", "2": "critical"}[second]]
        await tell(ward, hl7, second, "2.60", counts[second][1], status="C", step=1, who=who)
        assert await open_stops(ward, who) == []


@pytest.mark.parametrize("late", ["by hours", "by days"])
async def test_an_earlier_count_that_comes_late_takes_the_stop_to_its_day_and_asks_once(
    ward: Clinic, hl7: Any, late: str
) -> None:
    await ward.enrol("P", start=(MONDAY - 40 * DAY).date())
    await tell(ward, hl7, "2", "0.40", MORNING)
    if late == "by days":
        ward.now += 3 * DAY
    await tell(ward, hl7, "1", "0.70", EVENING)
    await ward.settled()
    assert await stops(ward) == [("open", "critical"), ("withdrawn", "critical")]
    told = await ward.told("family", "kind", "level", "reason")
    assert told[0] == ("ANC-STOP", "raised", "critical", "")
    assert told[-1] == ("ANC-STOP", "withdrawn", "critical", "ended")


async def test_every_order_of_two_counts_and_their_corrections_ends_alike(ward: Clinic, hl7: Any) -> None:
    facts = [
        ("1", "0.40", EVENING, "F", 0),
        ("1", "0.80", EVENING, "C", 1),
        ("2", "0.40", MORNING, "P", 0),
        ("2", "1.20", MORNING, "F", 1),
    ]
    ends = set()
    for number, order in enumerate(permutations(facts)):
        who = f"P{number}"
        await ward.enrol(who, start=(MONDAY - 40 * DAY).date())
        for filler, anc, drawn, status, step in order:
            await tell(ward, hl7, filler, anc, drawn, status=status, step=step, who=who)
        ends.add(tuple(await open_stops(ward, who)))
    assert ends == {("red",)}


async def test_a_count_that_is_corrected_to_a_dangerous_one_takes_back_what_was_reported_first(
    ward: Clinic, hl7: Any
) -> None:
    await ward.enrol("P", start=(MONDAY - 40 * DAY).date())
    await tell(ward, hl7, "1", "2.50", EVENING)
    assert await ward.told() == []
    await tell(ward, hl7, "1", "0.84", EVENING, status="C", step=1)
    (said,) = await ward.told("text")
    assert "avait d'abord rendu cette numération à 2,5 G/L (2500/mm3)" in said
    assert "ne doit pas rassurer" in said
    # Upwards it takes back nothing of the kind: what was reported first alarmed.
    await tell(ward, hl7, "1", "0.90", EVENING, status="C", step=2)
    assert "rassurer" not in (await ward.told("text"))[-1]


async def test_a_doubtful_milder_restatement_of_a_stop_lowers_and_adds_nothing(ward: Clinic, hl7: Any) -> None:
    await ward.enrol("P", start=(MONDAY - 40 * DAY).date())
    await tell(ward, hl7, "1", "0.40", MORNING)
    await tell(ward, hl7, "1", "0.70", MORNING, status="P", step=1)
    assert await ward.told("family", "level") == [("ANC-STOP", "critical")]
    assert await stops(ward) == [("open", "critical")]


async def test_a_stop_that_is_on_record_is_not_told_anew_by_a_later_count(ward: Clinic, hl7: Any) -> None:
    """Somebody has acted on the counts up to it; one after it is told as what it is."""
    stop = CompleteStop(on=MONDAY.date(), reason=StopReason.ANC_BELOW_1000)
    await ward.enrol("P", start=(MONDAY - 40 * DAY).date(), stop=stop)
    for number, (day, anc) in enumerate(((1, "2.30"), (-3, "0.70"), (-1, "0.90"))):
        await tell(ward, hl7, str(number), anc, MONDAY + day * DAY + 8 * HOUR)
    await ward.settled()
    await tell(ward, hl7, "9", "2.40", MONDAY + 31 * HOUR)
    assert {level for _, level in await stops(ward)} <= {"amber"}
    await tell(ward, hl7, "10", "0.40", MONDAY + 31.5 * HOUR)
    assert await open_stops(ward, "P") == ["critical"]


@pytest.mark.parametrize(("state", "level", "left"), [
    ("open", AlertLevel.CRITICAL, "withdrawn"),
    ("open", AlertLevel.RED, "open"),
    ("answered", AlertLevel.CRITICAL, "open"),
    ("withdrawn", AlertLevel.CRITICAL, "open"),
])  # fmt: skip
def test_a_stop_ends_for_another_only_while_that_one_asks_as_gravely(
    make_alert: Any, state: str, level: AlertLevel, left: str
) -> None:
    """The count behind an open critical stop is told under another day; what became of that alert decides."""
    record = PatientRecord(
        id="P", enrolled=True, course=TreatmentCourse(stop=CompleteStop(on=MONDAY.date(), reason=StopReason.OTHER))
    )
    record.alerts = {
        "later": AlertRecord(
            alert=make_alert("later", AlertLevel.CRITICAL), patient_id="P", state="open", result_key="B2"
        ),
        "first": AlertRecord(alert=make_alert("first", level), patient_id="P", state=state, result_key="B1"),
    }
    found = Stops(worst={}, own={"B2": ("first", AlertLevel.CRITICAL)})
    notifier = Notifier(language="fr", destinations=("ehr",))
    settle(notifier, record, found, "B1", source="", now=MONDAY, work=Work())
    assert record.alerts["later"].state == left


@pytest.fixture
def make_alert() -> Any:
    def make(number: str, level: AlertLevel) -> Alert:
        return Alert(
            id=number, revision=1, kind=AlertKind.RAISED, family=AlertFamily.STOP, level=level, title="STOP", text="Stop.",
            subject=Subject(register_id="P"), raised_at=MONDAY, updated_at=MONDAY,
        )  # fmt: skip

    return make
