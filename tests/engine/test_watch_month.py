"""A month by a clock that steps: what does not come is told once, and ends once. Real store, real judging, real hours."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.config import WatchSection
from engine.judge import Judge
from engine.notify import Notifier
from engine.observe import Meters
from engine.present import Present
from engine.rota import DAYS, HOLIDAY, Role, Rota, Shift
from engine.routing import Routing, Rule
from engine.watch import Watch
from engine.worker import Worker
from rules.model import (
    CompleteStop,
    CourseState,
    PatientIdentifier,
    Person,
    PriorNeutropenia,
    StopReason,
    TreatmentCourse,
)
from store import Envelope, Store, feeds
from store.port import DeliveryOutcome, PatientRecord, Work
from store.register import by_id
from store.values import from_ms

PARIS = ZoneInfo("Europe/Paris")
MONDAY = datetime(2026, 9, 7, 0, 0, tzinfo=PARIS)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clinic:
    """An engine's back without its loops' waiting: a clock that is set, a laboratory, and the sweeps."""

    def __init__(
        self,
        url: str,
        *,
        mode: str = "deliver",
        destinations: tuple[str, ...] = ("ehr", "v2"),
        rota: Rota | None = None,
    ) -> None:
        self.url, self.now = url, MONDAY
        self.routing = Routing(rules=tuple(Rule(name) for name in destinations), rota=rota) if rota else None
        self.observe, self.names = mode == "observe", destinations
        self.states = dict.fromkeys(destinations, "up")
        self.settings = WatchSection()
        self.number = 0

    async def open(self) -> None:
        """Also a restart: everything but the database is new."""
        self.store = Store(self.url)
        await self.store.open()
        notifier = Notifier(language="fr", destinations=self.names, observe=self.observe, routing=self.routing)
        self.present = Present(
            default_protocol="ansm",
            notifier=notifier,
            zone=PARIS,
            history_after=DAY,
            settle=timedelta(0),
        )
        self.meters = Meters()
        self.worker = Worker(
            self.store,
            Judge(present=self.present, zone=PARIS),
            self.meters,
            zone=PARIS,
            unenrolled=timedelta(days=400),
            on_recorded=lambda _: None,
            on_alerts=lambda: None,
            clock=self.clock,
        )
        self.watch = Watch(
            self.store,
            self.present,
            self.meters,
            self.settings,
            destinations=lambda: {} if self.observe else self.states,
            on_alerts=lambda: None,
            clock=self.clock,
        )
        self.judging = asyncio.create_task(self.worker.run())

    async def close(self) -> None:
        self.judging.cancel()
        await asyncio.gather(self.judging, return_exceptions=True)
        await self.store.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    def clock(self) -> datetime:
        return self.now.astimezone(UTC)

    def hours(self, days: float, *, step: int = 1) -> Iterator[datetime]:
        """Steps the clock hour by hour, or by so many."""
        for _ in range(int(days * 24 / step)):
            self.now = (self.now.astimezone(UTC) + step * HOUR).astimezone(PARIS)
            yield self.now

    async def enrol(self, number: str, **course: Any) -> None:
        given: dict[str, Any] = {"prior_neutropenia": PriorNeutropenia.NONE} | course
        record = PatientRecord(
            id=number, enrolled=True, new=True, person=Person(family=number), course=TreatmentCourse(**given)
        )
        item = PatientIdentifier(number, "urn:oid:1.2.3", "PI")
        await self.store.record(Work(patients={number: record}, identifiers=[(number, item)]))

    async def change(self, number: str, **course: Any) -> None:
        (record,) = await self.store.read(lambda connection: by_id(connection, [number]))
        record.course = dataclasses.replace(record.course, **course)
        record.settle_at = self.clock()
        await self.store.record(Work(patients={number: record}))
        await self.settled()

    async def count(self, hl7: Any, number: str, anc: str = "2.50", *, status: str = "F") -> None:
        self.number += 1
        raw = hl7.oru(
            f"M{self.number}",
            anc=anc,
            patient=f"{number}^^^CHX&1.2.3&ISO^PI",
            filler=f"B{self.number}",
            collected=self.now - timedelta(minutes=30),
            status=status,
        )
        await self.message("LAB", raw=raw, relevant=True)

    async def message(self, sender: str, *, raw: bytes = b"MSH|", relevant: bool = False) -> None:
        self.number += 1
        await self.store.accept(
            Envelope(
                channel="mllp",
                format="hl7v2",
                raw=raw,
                received_at=self.clock(),
                content_hash=hashlib.blake2b(raw).digest(),
                sender=sender,
                refused="" if relevant else "not of interest here",
            )
        )
        if relevant:
            await self.judged()

    async def judged(self) -> None:
        async with asyncio.timeout(20):
            while (await self.store.snapshot()).pending:  # noqa: ASYNC110  # the worker tells nobody here
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """The present state of everybody whose register entry changed was looked at."""
        self.store.arrived.set()
        async with asyncio.timeout(20):
            while await self.store.settling(self.clock(), 10):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def sweep(self) -> None:
        """With destinations that take everything."""
        await self.watch.sweep()
        await self.deliver()

    async def deliver(self, *names: str) -> None:
        """Everything that waits for these destinations is taken."""
        for name in names or self.names:
            for row in await self.store.due(name, self.clock(), 10_000):
                done = DeliveryOutcome(id=row.id, state="delivered", attempts=1, at=self.clock())
                await self.store.delivered([done])

    async def told(self, *columns: str) -> list[Any]:
        """Notifications for the first destination, in the order in which they were made."""
        names = ", ".join(f"json_extract(body, '$.{name}')" for name in columns or ("family", "kind"))
        sql = f"SELECT {names} FROM delivery WHERE destination = '{self.names[0]}' ORDER BY id"  # noqa: S608
        rows = await self.store.read(lambda connection: connection.exec_driver_sql(sql).fetchall())
        return [tuple(row) if len(row) > 1 else row[0] for row in rows]

    async def findings(self) -> list[tuple[str, str, str | None]]:
        """(kind, subject, how it ended), in the order in which they began."""
        sql = "SELECT kind, subject, json_extract(body, '$.end') FROM finding ORDER BY began_at, id"
        return [tuple(r) for r in await self.store.read(lambda c: c.exec_driver_sql(sql).fetchall())]


@pytest.fixture
async def clinic(url: str) -> AsyncIterator[Clinic]:
    made = Clinic(url)
    await made.open()
    yield made
    await made.close()


# Missing counts


async def test_over_a_month_each_missed_count_is_told_once_and_ends_with_the_count(clinic: Clinic, hl7: Any) -> None:
    """Weekly counts on Mondays at 8: one patient comes always, one misses the third Monday and comes ten days later, one
    stops coming. The treatment began a week before."""
    start = (MONDAY - 7 * DAY).date()
    for number in ("always", "late", "gone"):
        await clinic.enrol(number, start=start)
    for now in clinic.hours(30, step=2):
        day = (now - MONDAY).days
        if now.hour == 8 and day % 7 == 0:
            await clinic.count(hl7, "always")
            if day < 14 or day >= 28:
                await clinic.count(hl7, "late")
            if day < 7:
                await clinic.count(hl7, "gone")
        if now.hour == 8 and day == 24:
            await clinic.count(hl7, "late")
        await clinic.sweep()
        if day == 16 and now.hour == 12:
            await clinic.restart()
    overdue = [row for row in await clinic.findings() if row[0] == "overdue"]
    # Due on day 7 ("gone") and on day 14 ("late", last counted on day 7); overdue on the day after.
    assert overdue == [("overdue", "gone", None), ("overdue", "late", "arrived")]
    told = await clinic.told("subject.person.family", "family", "kind", "level", "escalation")
    # Besides, each was asked for again while nobody answered.
    assert [row[:4] for row in told if row[1] == "ANC-OVERDUE" and (row[4] == 0 or row[2] == "withdrawn")] == [
        ("gone", "ANC-OVERDUE", "raised", "amber"),
        ("gone", "ANC-OVERDUE", "updated", "red"),  # more than three days late in a weekly phase (B-11)
        ("late", "ANC-OVERDUE", "raised", "amber"),
        ("late", "ANC-OVERDUE", "updated", "red"),
        ("late", "ANC-OVERDUE", "withdrawn", "red"),
    ]
    assert [row[4] for row in told if row[0] == "late"][-2:] == [max(row[4] for row in told if row[0] == "late")] * 2
    assert {row[0] for row in told} == {"gone", "late"}
    assert len(told) == len(set(await clinic.told("id", "revision")))


async def test_a_count_in_doubt_ends_no_reminder(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    await clinic.sweep()
    await clinic.count(hl7, "p1", status="P")
    clinic.now += HOUR
    await clinic.sweep()
    assert await clinic.findings() == [("overdue", "p1", None)]
    await clinic.count(hl7, "p1", status="F")
    await clinic.sweep()
    assert await clinic.findings() == [("overdue", "p1", "arrived")]
    assert [row[1] for row in await clinic.told() if row[0] == "ANC-OVERDUE"][-1] == "withdrawn"


async def test_a_reminder_whose_count_is_taken_back_begins_anew(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    await clinic.sweep()
    await clinic.count(hl7, "p1")
    await clinic.sweep()
    taken_back = hl7.oru(
        "W1", anc='""', patient="p1^^^CHX&1.2.3&ISO^PI", filler="B1", collected=clinic.now - HOUR / 2, status="W"
    )
    await clinic.message("LAB", raw=taken_back, relevant=True)
    await clinic.sweep()
    assert await clinic.findings() == [("overdue", "p1", "arrived"), ("overdue", "p1", None)]
    assert [row[1] for row in await clinic.told() if row[0] == "ANC-OVERDUE"] == ["raised", "withdrawn", "raised"]


async def test_death_silences_and_a_stop_that_is_over_expects_nothing(clinic: Clinic) -> None:
    for number in ("dead", "left"):
        await clinic.enrol(number, start=(MONDAY - 20 * DAY).date())
    await clinic.sweep()
    await clinic.change("dead", state=CourseState.DECEASED)
    await clinic.change("left", stop=CompleteStop((MONDAY - 2 * DAY).date(), StopReason.OTHER))
    await clinic.sweep()
    assert [row for row in await clinic.findings() if row[0] == "overdue"] == [
        ("overdue", "dead", "changed"),
        ("overdue", "left", "changed"),
    ]
    for _ in clinic.hours(2):
        await clinic.sweep()
    told = await clinic.told("subject.person.family", "kind")
    assert [row for row in told if row[0] == "dead"] == [("dead", "raised"), ("dead", "withdrawn")]


async def test_a_treatment_that_is_banned_for_ever_is_told_once(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 3 * DAY).date(), prior_neutropenia=PriorNeutropenia.STOP_LEVEL)
    for now in clinic.hours(5):
        if now.hour == 9 and now.weekday() == 2:
            await clinic.count(hl7, "p1")
        await clinic.sweep()
    assert [row for row in await clinic.findings() if row[0] == "reexposed"] == [("reexposed", "p1", None)]
    told = await clinic.told("family", "kind")
    assert told.count(("ANC-STOP", "raised")) <= 2  # the clock's, and the count's own


async def test_who_was_transferred_is_the_receivers_to_miss_and_who_is_lost_is_told_of_no_more(clinic: Clinic) -> None:
    for number, state in (("moved", CourseState.TRANSFERRED), ("lost", CourseState.LOST)):
        await clinic.enrol(number, start=(MONDAY - 6 * DAY).date())
        await clinic.change(number, state=state)
    await clinic.enrol("lost late", start=(MONDAY - 20 * DAY).date())
    await clinic.sweep()
    await clinic.change("lost late", state=CourseState.LOST)
    for _ in clinic.hours(6):
        await clinic.sweep()
    assert [row for row in await clinic.findings() if row[0] == "overdue"] == [("overdue", "lost late", None)]


async def test_signs_of_infection_without_a_count_are_told_at_once_and_end_with_it(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 7 * DAY).date())
    clinic.now += 9 * HOUR
    await clinic.count(hl7, "p1")
    clinic.now += DAY
    await clinic.change("p1", infection_signs_on=clinic.now.date())
    for _ in clinic.hours(3):
        await clinic.sweep()
    assert [row for row in await clinic.findings() if row[0] != "unanswered"] == [("signs", "p1", None)]
    await clinic.count(hl7, "p1")
    await clinic.sweep()
    assert [row for row in await clinic.findings() if row[0] != "unanswered"] == [("signs", "p1", "arrived")]


# Planned starts


async def test_a_planned_start_without_baseline_is_told_once_when_a_count_would_hold(clinic: Clinic, hl7: Any) -> None:
    for number in ("counted", "forgotten"):
        await clinic.enrol(number, start=(MONDAY + 20 * DAY).date())
    begun: dict[str, int] = {}
    for now in clinic.hours(30, step=2):
        day = (now - MONDAY).days
        if now.hour == 8 and day == 15:
            await clinic.count(hl7, "counted")
        if now.hour == 8 and day >= 21 and day % 7 == 0:
            await clinic.count(hl7, "counted")
        await clinic.sweep()
        for kind, subject, _ in await clinic.findings() if now.hour == 12 else ():
            begun.setdefault(f"{kind} {subject}", day)
        if day == 12 and now.hour == 4:
            await clinic.restart()
    found = [row for row in await clinic.findings() if row[0] != "unanswered"]
    # A baseline holds ten days (B-18); without one, the first count under treatment is due a week after the start.
    assert found == [
        ("baseline", "counted", "arrived"),
        ("baseline", "forgotten", None),
        ("overdue", "forgotten", None),
    ]
    assert begun["baseline counted"] == begun["baseline forgotten"] == 10
    assert begun["overdue forgotten"] == 28
    told = await clinic.told("subject.person.family", "family", "kind", "escalation")
    assert [row for row in told if row[0] == "counted"] == [
        ("counted", "ANC-START", "raised", 0),
        ("counted", "ANC-START", "updated", 1),  # unanswered for three days
        ("counted", "ANC-START", "updated", 2),  # and for another
        ("counted", "ANC-START", "updated", 3),
        ("counted", "ANC-START", "withdrawn", 3),
    ]
    assert told.count(("forgotten", "ANC-START", "raised", 0)) == 1


# Feeds


def working_hours(now: datetime) -> bool:
    """Monday to Friday from seven to seven, Saturday morning."""
    return (now.weekday() < 5 and 7 <= now.hour < 19) or (now.weekday() == 5 and 8 <= now.hour < 12)


async def test_a_laboratory_that_rests_at_night_and_on_sunday_is_silent_only_when_it_is(clinic: Clinic) -> None:
    chance = random.Random(3)  # the same month each time
    outage = (MONDAY + 23 * DAY + 10 * HOUR, MONDAY + 24 * DAY + 9 * HOUR)  # Wednesday at ten to Thursday at nine
    first: datetime | None = None
    last: datetime | None = None
    for now in clinic.hours(30):
        if working_hours(now) and not outage[0] <= now < outage[1]:
            sent = chance.choice((0, 1, 1, 2, 2, 3, 3, 4))
            await asyncio.gather(*(clinic.message("SIL|LABO") for _ in range(sent)))
        await clinic.sweep()
        found = await clinic.findings()
        if found and first is None:
            first = now
        if found and found[0][2] and last is None:
            last = now
        if now == MONDAY + 23 * DAY + 20 * HOUR:
            await clinic.restart()
            clinic.watch._deaf = None  # the restart took no time by this clock
    assert await clinic.findings() == [("feed", "mllp|SIL|LABO", "heard")]
    assert first is not None
    assert last is not None
    assert outage[0] + 3 * HOUR <= first <= outage[0] + 7 * HOUR
    assert outage[1] <= last <= outage[1] + 2 * HOUR
    told = await clinic.told("reason", "kind", "subject.register_id")
    assert told == [("feed-silent", "raised", ""), ("feed-silent", "withdrawn", "")]
    (feed,) = await clinic.store.read(feeds.feeds)
    assert (feed["channel"], feed["sender"], feed["silent"]) == ("mllp", "SIL|LABO", False)
    assert feed["expected"] >= 3


async def test_a_sender_is_not_judged_before_its_rhythm_is_known(clinic: Clinic) -> None:
    for now in clinic.hours(3):
        if working_hours(now):
            await clinic.message("SIL|LABO")
    for now in clinic.hours(30):
        if now.hour % 6 == 0:
            await clinic.sweep()
    assert await clinic.findings() == []
    (feed,) = await clinic.store.read(feeds.feeds)
    assert feed["expected"] is None


async def test_a_sender_with_a_limit_of_its_own_is_judged_by_it(clinic: Clinic) -> None:
    clinic.settings = WatchSection.model_validate({"feed": [{"sender": "SIL|LABO", "max_silence_h": 5}]})
    await clinic.restart()
    await clinic.message("SIL|LABO")
    await clinic.message("OTHER|LABO")
    counts = []
    for _ in clinic.hours(0.5):
        await clinic.sweep()
        counts.append(len(await clinic.findings()))
    assert counts == [0] * 5 + [1] * 7
    assert await clinic.findings() == [("feed", "mllp|SIL|LABO", None)]


async def test_time_in_which_the_engine_was_off_is_nobodys_silence(clinic: Clinic) -> None:
    clinic.settings = WatchSection.model_validate({"feed": [{"sender": "SIL|LABO", "max_silence_h": 5}]})
    await clinic.restart()
    await clinic.message("SIL|LABO")
    for _ in clinic.hours(1 / 12):
        await clinic.sweep()
    await clinic.close()
    clinic.now += 3 * DAY
    await clinic.open()
    await clinic.sweep()
    assert await clinic.findings() == []
    for _ in clinic.hours(4 / 24):
        await clinic.sweep()
    assert await clinic.findings() == [("feed", "mllp|SIL|LABO", None)]


async def test_what_came_is_read_once_and_counted_as_it_was(clinic: Clinic) -> None:
    for now in clinic.hours(0.5):
        await clinic.message("A" if now.hour % 2 else "B")
        await clinic.sweep()
        if now.hour == 6:
            await clinic.restart()
    rows = await clinic.store.read(feeds.feeds)
    assert [(row["sender"], row["messages"]) for row in rows] == [("A", 6), ("B", 6)]
    assert (await clinic.store.read(feeds.marks))["message"] == 12


# Destinations and answers


async def test_a_destination_that_is_down_is_told_to_the_other_once_and_its_return_too(clinic: Clinic) -> None:
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    begun = []
    for step in range(200):
        await clinic.watch.sweep()
        begun.append(len([row for row in await clinic.findings() if row[0] == "destination"]))
        await clinic.deliver("ehr")
        if step == 30:
            await clinic.restart()
        if step >= 60:
            await clinic.deliver("v2")
        clinic.now += timedelta(minutes=1)
    assert begun == [0] * 11 + [1] * 189
    assert await clinic.findings() == [("overdue", "p1", None), ("destination", "v2", "up")]
    assert await clinic.told("reason", "kind", "subject.register_id") == [
        ("", "raised", "p1"),
        ("destination-down", "raised", ""),
        ("destination-down", "withdrawn", ""),
    ]
    sql = "SELECT destination, count(*) FROM delivery GROUP BY destination ORDER BY destination"
    rows = await clinic.store.read(lambda connection: connection.exec_driver_sql(sql).fetchall())
    assert [tuple(row) for row in rows] == [("ehr", 3), ("v2", 1)]


async def test_a_critical_alert_is_told_again_every_hour_until_somebody_answers(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 3 * DAY).date())
    await clinic.count(hl7, "p1", "0.30")
    begun = []
    for step in range(100):
        clinic.now += timedelta(minutes=5)
        await clinic.sweep()
        begun.append(len(await clinic.findings()))
        if step in (5, 20):
            await clinic.restart()
    assert begun == [0] * 11 + [1] * 89
    told = await clinic.told("kind", "revision", "level", "title")
    assert [row[:3] for row in told] == [
        ("raised", 1, "critical"),
        *(("updated", number, "critical") for number in range(2, 10)),  # 500 minutes
    ]
    assert len({row[3] for row in told[1:]}) == 1
    assert told[1][3].startswith("SANS RÉPONSE depuis le 07/09/2026 à 00:00 : ")
    answer = "UPDATE alert SET state = 'answered'"
    await clinic.store._writing.run(lambda connection: connection.exec_driver_sql(answer))
    await clinic.sweep()
    assert await clinic.findings() == [("unanswered", told_id(await clinic.told("id", "revision")), "answered")]
    for _ in clinic.hours(1):
        await clinic.sweep()
    assert [row[0] for row in await clinic.findings()] == ["unanswered", "overdue"]  # the control after a stop


def told_id(rows: list[Any]) -> str:
    return str(rows[0][0])


async def test_information_waits_for_no_answer(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 130 * DAY).date())
    await clinic.count(hl7, "p1", "2.50")
    assert await clinic.told("level") == ["info"]
    for now in clinic.hours(10):
        if now.hour % 6 == 0:
            await clinic.sweep()
    assert await clinic.findings() == []


# A rota


async def test_two_weeks_of_nobody_pass_a_stop_through_the_rota_once_an_hour_whatever_dies(url: str, hl7: Any) -> None:
    """The consultant by day, somebody on call by night and on Sunday, the head always: a stop that nobody answers is asked
    of each in turn. The process is ended and begun anew at odd hours."""
    days = frozenset(DAYS[:6])
    rota = Rota(
        zone=PARIS,
        roles=(Role("consultant", "PractitionerRole/c"), Role("on-call"), Role("head")),
        shifts=(
            Shift("consultant", days, 8 * 60, 18 * 60),
            Shift("on-call", days, 18 * 60, 8 * 60),
            Shift("on-call", frozenset((DAYS[6], HOLIDAY))),
            Shift("on-call", frozenset((DAYS[0],)), 0, 8 * 60),
            Shift("head", frozenset((*DAYS, HOLIDAY))),
        ),
        calendar="FR",
    )
    assert rota.gaps() == []
    clinic, dice = Clinic(url, rota=rota), random.Random(7)  # picks the hours of the kills
    await clinic.open()
    await clinic.enrol("p1", start=(MONDAY - 3 * DAY).date())
    await clinic.count(hl7, "p1", "0.30")
    begun = clinic.now
    for _ in clinic.hours(14):
        await clinic.sweep()
        if clinic.now.hour == 3:
            await clinic.sweep()  # a second look at the same hour adds nothing
        if dice.random() < 0.03:
            await clinic.restart()
    stop = "(SELECT id FROM alert WHERE family = 'ANC-STOP')"
    sql = f"SELECT at, who, revision FROM step WHERE state = 'escalated' AND alert_id = {stop} ORDER BY id"  # noqa: S608
    taken = await clinic.store.read(lambda connection: connection.exec_driver_sql(sql).fetchall())
    assert [from_ms(row[0]) for row in taken] == [begun.astimezone(UTC) + HOUR * n for n in range(1, 337)]
    assert [row[2] for row in taken] == list(range(2, 338))
    asked = [rota.first("", begun), *(row[1] for row in taken)]
    for before, owner, row in zip(asked, asked[1:], taken, strict=False):
        assert owner in rota.on_duty(from_ms(row[0]))
        assert owner != before  # two are there at every hour
    told = await clinic.told("family", "revision", "subject.owner")
    stops = [row for row in told if row[0] == "ANC-STOP"]
    assert [row[1] for row in stops] == list(range(1, 338))
    assert {row[2] for row in stops} == {"PractitionerRole/c", "on-call", "head"}
    assert [row[0] for row in await clinic.findings()].count("unanswered") <= 2  # the stop, and the control after it
    await clinic.close()


# A specimen that is in the laboratory


def pending(hl7: Any, number: str, drawn: datetime) -> bytes:
    raw: bytes = hl7.oru("P1", anc="", patient=f"{number}^^^CHX&1.2.3&ISO^PI", filler="B9", collected=drawn, status="I")
    return raw


async def test_a_specimen_in_the_laboratory_silences_overdue_for_a_day_and_no_longer(clinic: Clinic, hl7: Any) -> None:
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    await clinic.message("LAB", raw=pending(hl7, "p1", clinic.now), relevant=True)
    begun = None
    for now in clinic.hours(2):
        if now.hour == 9:  # the laboratory says so again: it buys no more time
            await clinic.message("LAB", raw=pending(hl7, "p1", now) + b"NTE|1||again", relevant=True)
        await clinic.sweep()
        if begun is None and await clinic.findings():
            begun = now
    assert begun == MONDAY + DAY
    assert [row for row in await clinic.findings() if row[0] == "overdue"] == [("overdue", "p1", None)]


async def test_a_reminder_that_stands_is_not_asked_again_while_the_specimen_is_in_the_laboratory(
    clinic: Clinic, hl7: Any
) -> None:
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    await clinic.sweep()
    assert await clinic.told("kind", "level") == [("raised", "red")]
    await clinic.message("LAB", raw=pending(hl7, "p1", clinic.now), relevant=True)
    for _ in clinic.hours(20 / 24):
        await clinic.sweep()
    assert len(await clinic.told("kind")) == 1
    await clinic.count(hl7, "p1")
    await clinic.sweep()
    assert await clinic.findings() == [("overdue", "p1", "arrived")]
    assert await clinic.told("kind") == ["raised", "withdrawn"]


# Observe


async def test_in_observe_mode_findings_are_kept_and_nobody_is_told(url: str) -> None:
    clinic = Clinic(url, mode="observe")
    await clinic.open()
    await clinic.enrol("p1", start=(MONDAY - 20 * DAY).date())
    for _ in clinic.hours(3):
        await clinic.sweep()
    assert await clinic.findings() == [("overdue", "p1", None)]
    states = await clinic.store.read(lambda c: c.exec_driver_sql("SELECT DISTINCT state FROM delivery").fetchall())
    assert [row[0] for row in states] == ["observed"]
    await clinic.close()
