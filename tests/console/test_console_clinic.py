"""The clinicians' pages over real HTTP, against a running engine that a laboratory sends to."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest
from argon2 import PasswordHasher

from store import accounts
from store.values import name_key

Page = Callable[..., Awaitable[str]]
Act = Callable[..., Awaitable[httpx2.Response]]
HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery staple"  # noqa: S105
PARIS = ZoneInfo("Europe/Paris")


def today() -> date:
    return datetime.now(PARIS).date()


def in_days(days: int) -> str:
    return (today() + timedelta(days=days)).isoformat()


def words_of(text: str) -> str:
    """What a reader sees: no tags, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


def section(text: str, name: str) -> str:
    """The words of one section of the day's list."""
    found = re.search(rf'aria-labelledby="h-{name}">(.*?)</section>', text, re.S)
    assert found, name
    return words_of(found[1])


@pytest.fixture
def page(browser: httpx2.AsyncClient) -> Page:
    async def look(path: str, **query: Any) -> str:
        answer = await browser.get(f"/console/{path}", params=query or None)
        assert answer.status_code == 200, answer.text
        return answer.text

    return look


@pytest.fixture
def act(browser: httpx2.AsyncClient) -> Act:
    """Sends a form with the token of the page it stands on."""

    async def send(path: str, page: str, /, **fields: Any) -> httpx2.Response:
        token = re.search(r'name="csrf" value="([^"]+)"', (await browser.get(f"/console/{page}")).text)
        assert token
        return await browser.post(f"/console/{path}", data={"csrf": token[1], **fields})

    return send


@pytest.fixture
def patient_id(page: Page) -> Callable[..., Awaitable[str]]:
    """The register id of an identifier, found as a person would: by the search."""

    async def find(value: str = "405660") -> str:
        found = re.search(r'href="/console/patients/([^"/?]+)"', await page("patients", q=value))
        assert found, value
        return found[1]

    return find


@pytest.fixture
def first_alert(page: Page) -> Callable[[], Awaitable[str]]:
    async def find() -> str:
        found = re.search(r'href="/console/alerts/([^"#]+)"', await page("today"))
        assert found
        return found[1]

    return find


# The day's list


async def test_an_empty_day_says_so_in_every_section(page: Page) -> None:
    text = await page("today")
    assert "No open alert" in section(text, "alerts")
    assert "Everything could be read" in section(text, "unreadable")
    assert "No baseline is missing" in section(text, "baselines")


async def test_a_critical_count_stands_first_with_its_age_its_patient_and_what_to_do(
    running: Any, hl7: Any, page: Page
) -> None:
    await running.enrol("500001", family="Martin", given="Camille")
    mild = hl7.oru("M1", anc="1.3", patient="500001^^^CHX&1.2.3&ISO^PI", filler="B1")
    await running.tell(mild, hl7.oru("M2", anc="0.4", filler="B2"))
    found = section(await page("today"), "alerts")
    assert found.index("Critical") < found.index("Amber")
    assert "Stop clozapine immediately and do not re-expose the patient" in found
    assert "SPECIMEN DOMINIQUE" in found
    assert "0.4 G/L" in found
    assert re.search(r"for \d+ s", found)


async def test_while_no_stop_is_recorded_the_list_says_stop_and_not_monitoring(
    running: Any, hl7: Any, page: Page, before: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.9", filler="B1", collected=before(days=4)))
    await running.tell(hl7.oru("M2", anc="0.4", filler="B2"))
    found = section(await page("today"), "alerts")
    assert "CLOZAPINE STOP NOT RECORDED" in found
    assert "if clozapine is still taken, stop it immediately" in found
    assert "Monitoring after the stop" not in found


async def test_the_list_that_renews_itself_is_the_same_list(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    whole, part = await page("today"), await page("today/lists")
    assert 'id="lists"' in part
    assert "<html" not in part
    assert section(whole, "due") == section(part, "due")
    assert 'data-hx-get="/console/today/lists"' in whole


async def test_a_level_can_be_looked_at_alone(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    assert "STOP clozapine" in section(await page("today", level="critical"), "alerts")
    assert "No open alert" in section(await page("today", level="amber"), "alerts")
    assert "STOP clozapine" in section(await page("today", level="nonsense"), "alerts")


async def test_who_is_due_soon_and_who_is_overdue_stand_apart(running: Any, hl7: Any, page: Page, before: Any) -> None:
    await running.enrol("500001", family="Retard", given="Lou")
    late = hl7.oru("M1", patient="500001^^^CHX&1.2.3&ISO^PI", filler="B1", collected=before(days=9))
    await running.tell(late, hl7.oru("M2", filler="B2"))
    await running.settled()
    text = await page("today")
    assert "SPECIMEN DOMINIQUE" in section(text, "due")
    assert "in 7 days" in section(text, "due")
    assert "Retard Lou" in section(text, "overdue")
    assert "2 days late" in section(text, "overdue")
    assert "Retard" not in section(text, "due")


@pytest.mark.parametrize(("days", "level"), [(10, "amber"), (11, "red")])
async def test_a_weekly_count_is_red_once_it_is_more_than_three_days_late(
    running: Any, hl7: Any, rows_of: Any, page: Page, before: Any, days: int, level: str
) -> None:
    await running.tell(hl7.oru("M1", collected=before(days=days)))
    await running.settled()
    (number,) = rows_of("SELECT id FROM patient")
    for address in ("today", f"patients/{number}"):
        badge = re.search(r'<span class="badge (\w+)">(?:(?!</span>).)*days late', await page(address), re.DOTALL)
        assert badge is not None
        assert badge[1] == level


async def test_a_count_that_nobody_could_read_asks_for_a_person(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru(unit=""))
    found = section(await page("today"), "unreadable")
    assert "No unit" in found
    assert "OBX[1]-6" in found


async def test_a_planned_start_without_its_count_is_listed(running: Any, page: Page) -> None:
    await running.enrol("500003", family="Bernard", treatment_start=in_days(10))
    assert "Bernard" in section(await page("today"), "baselines")
    assert "Bernard" not in section(await page("today"), "due")


# Finding a patient


@pytest.mark.parametrize("query", ["500001", "lév", "LEVE", "levêque zo"])
async def test_a_patient_is_found_by_identifier_or_by_what_the_name_begins_with(
    running: Any, page: Page, query: str
) -> None:
    await running.enrol("500001", family="Lévêque", given="Zoé")
    found = words_of(await page("patients", q=query))
    assert "Lévêque Zoé" in found
    assert "SPECIMEN" not in found


@pytest.mark.parametrize("query", ["veque", "50000", "%", "' or 1=1 --", "́"])
async def test_what_finds_nobody_says_so(running: Any, page: Page, query: str) -> None:
    await running.enrol("500001", family="Lévêque")
    assert f"Nobody for “{query}”" in words_of(await page("patients", q=query))


async def test_many_patients_come_in_pages_and_each_once(running: Any, page: Page) -> None:
    def add(connection: Any) -> None:
        columns = "id, enrolled, rev, person, sort_name, owner, course, created_at, updated_at"
        for number in range(120):
            person = f'{{"family":"Foule{number % 7}","given":"G{number}"}}'
            key = name_key(f"Foule{number % 7}")
            connection.exec_driver_sql(
                f"insert into patient ({columns}) values (?, 1, 1, ?, ?, '', '{{}}', 0, 0)",  # noqa: S608
                (f"p{number:03}", person, key),
            )

    await running.store.write(add)
    seen: list[str] = []
    query = {"q": "foule"}
    while True:
        text = await page("patients", **query)
        seen += re.findall(r'href="/console/patients/(p\d+)"', text)
        onward = re.search(r'rel="next" href="[^"]*after=([^"]+)"', text)
        if onward is None:
            break
        query["after"] = onward[1]
    assert len(seen) == 120 == len(set(seen))


@pytest.mark.parametrize(
    "path", ["patients/nobody", "patients/nobody/print", "patients/nobody/change", "alerts/nothing"]
)
async def test_an_unknown_patient_or_alert_is_nothing_at_this_address(browser: httpx2.AsyncClient, path: str) -> None:
    assert (await browser.get(f"/console/{path}")).status_code == 404


# One patient


async def test_a_patient_s_page_shows_the_course_the_counts_and_the_sentence(
    running: Any, hl7: Any, page: Page, patient_id: Any
) -> None:
    await running.tell(hl7.oru("M7", anc="2.5"))
    text = await page(f"patients/{await patient_id()}")
    found = words_of(text)
    assert "SPECIMEN DOMINIQUE" in found
    assert "5 completed weeks" in found
    assert "2.5 G/L (2500/mm³)" in found
    assert "SIL|LABO M7" in found
    assert "Une fois par semaine pendant les 18 premieres semaines de traitement" in found
    assert "contacter immediatement son medecin si des signes" in found, "the reminder of signs of infection"
    assert text.count('role="img"') == 2, "one drawing for a desk, one for a phone"
    assert re.search(r"<desc[^>]*>[^<]*values from", text)


async def test_the_drawing_and_the_table_hold_the_same_corrected_count(
    running: Any, hl7: Any, page: Page, patient_id: Any, before: Any
) -> None:
    when = before(hours=3)
    await running.tell(
        hl7.oru("M1", anc="0.9", filler="B9", collected=when),
        hl7.oru("M2", anc="3.9", filler="B9", collected=when, status="C"),
    )
    text = await page(f"patients/{await patient_id()}")
    table = text[text.index('<table class="folds counts">') :]
    assert re.search(r"<del>.*?0\.9.*?</del>.*?replaced by.*?3\.9", table, re.S)
    assert "corrected" in table
    assert text.count('class="value struck"') == 2
    assert "Withdrawn" in words_of(text), "the alert on the wrong value is among the past ones"


async def test_what_the_laboratory_took_back_is_struck_out_with_nothing_in_its_place(
    running: Any, hl7: Any, page: Page, patient_id: Any, before: Any
) -> None:
    when = before(hours=3)
    await running.tell(
        hl7.oru("M1", anc="2.9", filler="B9", collected=when),
        hl7.oru("M2", anc="", filler="B9", collected=when, status="W"),
    )
    table = (await page(f"patients/{await patient_id()}")).split('<table class="folds counts">')[1]
    assert re.search(r"<del>.*?2\.9", table, re.S)
    assert "replaced by" not in table


async def test_a_stop_level_count_leaves_its_ban_on_the_page(
    running: Any, hl7: Any, page: Page, patient_id: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    assert "Never to be re-exposed to clozapine" in words_of(await page(f"patients/{await patient_id()}"))


async def test_the_printed_sheet_says_when_and_by_whom(running: Any, hl7: Any, page: Page, patient_id: Any) -> None:
    await running.tell(hl7.oru(anc="2.5"))
    text = await page(f"patients/{await patient_id()}/print")
    assert re.search(r"Printed \d+ \w+ \d{4} \d\d:\d\d by somebody without an account", words_of(text))
    assert text.count('role="img"') == 1
    assert "Monitoring schedule" in text
    assert "/console/messages/" not in text.split("<article")[1]


async def test_a_page_that_shows_a_name_with_signs_in_it_shows_them_as_text(
    running: Any, page: Page, patient_id: Any
) -> None:
    await running.enrol("500666", family="<script>alert(1)</script>")
    text = await page(f"patients/{await patient_id('500666')}")
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


async def test_pages_carry_no_style_and_no_script_of_their_own(
    running: Any, hl7: Any, page: Page, patient_id: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    number = await patient_id()
    for path in ("today", "patients", f"patients/{number}", f"patients/{number}/print", f"patients/{number}/change"):
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=", await page(path)), path


async def test_every_page_is_there_in_french(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, page: Page, patient_id: Any, first_alert: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    number, alert = await patient_id(), await first_alert()
    browser.cookies.set("neutroflag_language", "fr")
    for path, words in {
        "today": "Alertes à traiter",
        "patients": "Patients suivis",
        f"patients/{number}": "Ne jamais réexposer à la clozapine",
        f"patients/{number}/print": "Imprimé le",
        f"patients/{number}/change": "Neutropénie bénigne ethnique confirmée",
        f"alerts/{alert}": "Répondre à cette alerte",
    }.items():
        browser.cookies.clear()
        browser.cookies.set("neutroflag_language", "fr")
        assert words in words_of(await page(path))


# Answering


async def test_an_answer_closes_the_alert_and_stands_on_the_patient_s_page(
    running: Any, hl7: Any, page: Page, act: Act, first_alert: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    alert = await first_alert()
    answer = await act(
        f"alerts/{alert}/answer", f"alerts/{alert}", decision="stopped", reason="told at 9", who="Dr Hoda"
    )
    assert answer.status_code == 303
    where = answer.headers["location"]
    assert re.fullmatch(r"/console/patients/[^/]+\?done=answered", where)
    found = words_of(await page(where.removeprefix("/console/")))
    assert "The answer is recorded" in found
    assert "Clozapine stopped : told at 9 Dr Hoda" in found
    assert "No open alert" in section(await page("today"), "alerts")
    again = await page(f"alerts/{alert}")
    assert "no longer waits for an answer" in words_of(again)
    assert "<textarea" not in again


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"decision": "continued", "reason": " ", "who": "Dr Hoda"}, "reason"),
        ({"decision": "", "reason": "x", "who": "Dr Hoda"}, "decision"),
        ({"decision": "stopped", "reason": "", "who": " "}, "who"),
        ({"decision": "shrugged", "reason": "", "who": "Dr Hoda"}, "decision"),
        ({"decision": "noted", "reason": "", "who": "Dr Hoda"}, "decision"),
    ],
)
async def test_an_answer_that_cannot_be_taken_comes_back_with_its_values_and_says_where(
    running: Any, hl7: Any, act: Act, first_alert: Any, page: Page, given: dict[str, str], field: str
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    alert = await first_alert()
    answer = await act(f"alerts/{alert}/answer", f"alerts/{alert}", **given)
    assert answer.status_code == 422
    assert f'id="{field}-error"' in answer.text
    assert "Nothing was recorded" in answer.text
    assert not given["who"].strip() or 'value="Dr Hoda"' in answer.text
    assert "STOP clozapine" in section(await page("today"), "alerts")


async def test_nobody_answers_an_alert_that_has_got_worse_since_it_was_read(
    running: Any, hl7: Any, act: Act, first_alert: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.9", filler="B1"))
    alert = await first_alert()
    await running.tell(hl7.oru("M2", anc="0.4", filler="B2"))
    answer = await act(
        f"alerts/{alert}/answer", f"alerts/{alert}", decision="stopped", reason="", who="Dr Hoda", revision="1"
    )
    assert answer.status_code == 422
    assert "The record has changed since this page was opened" in words_of(answer.text)
    assert "0.4 G/L" in words_of(answer.text)


async def test_an_alert_shows_what_was_sent_where_and_that_this_is_no_reader(
    running: Any, hl7: Any, page: Page, first_alert: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    await running.settled()
    found = words_of(await page(f"alerts/{await first_alert()}"))
    assert "delivered to the system" in found
    assert "ehr-v2" in found
    assert "not read by a person" in found
    assert "Les patients presentant des PNN <1000/mm3" in found


async def test_an_unreadable_count_of_nobody_known_is_answered_on_its_own_page(
    running: Any, hl7: Any, page: Page, act: Act
) -> None:
    await running.tell(hl7.oru(unit="", pid=False))
    found = re.search(r'href="/console/alerts/([^"#]+)"', await page("today"))
    assert found
    answer = await act(
        f"alerts/{found[1]}/answer", f"alerts/{found[1]}", decision="count-ordered", reason="", who="Dr Hoda"
    )
    assert answer.headers["location"] == f"/console/alerts/{found[1]}?done=answered"


# Changing a course


async def taken(act: Act, number: str, kind: str, /, **fields: str) -> httpx2.Response:
    return await act(f"patients/{number}/{kind}", f"patients/{number}/change", **{"who": "Dr Hoda", **fields})


def at(days: int, clock: str = "08:00") -> str:
    return f"{in_days(days)}T{clock}"


async def test_every_form_of_the_course_is_taken_and_said_back(
    running: Any, page: Page, act: Act, patient_id: Any, eventually: Any
) -> None:
    number = await patient_id()
    steps = [
        ("start", {"on": in_days(-41)}, "The first dose is recorded"),
        ("history", {"history": "mild", "on": in_days(-41)}, "The earlier history is recorded"),
        ("interruption", {"last_dose": at(-12)}, "The interruption is recorded"),
        ("restart", {"at": at(-7)}, "The restart is recorded"),
        ("infection", {"on": in_days(-1)}, "The signs of infection are recorded"),
        ("infection", {"over": "yes"}, "The signs of infection are recorded"),
        ("ben", {"on": in_days(-3), "second": "Pr Kone"}, "The confirmation is recorded"),
        (
            "override",
            {"kind": "shorter-interval", "days": "5", "reason": "asked for", "expires": in_days(30)},
            "override",
        ),
        ("transfer", {"on": in_days(0), "to": "CMP Nord"}, "The transfer is recorded"),
        ("resume", {"on": in_days(0)}, "The return to monitoring is recorded"),
        ("lost", {"on": in_days(0)}, "lost to follow-up"),
        ("resume", {"on": in_days(0)}, "The return to monitoring is recorded"),
        ("stop", {"on": in_days(0), "reason": "other"}, "The stop is recorded"),
        ("death", {"on": in_days(0)}, "The death is recorded"),
    ]
    for kind, fields, said in steps:
        answer = await taken(act, number, kind, **fields)
        assert answer.status_code == 303, (kind, words_of(answer.text))
        assert answer.headers["location"] == f"/console/patients/{number}?done={kind}"
        assert said in words_of(await page(f"patients/{number}", done=kind))
    await eventually(running.settled_register)
    found = words_of(await page(f"patients/{number}"))
    assert "Deceased" in found
    assert "Pr Kone" in found
    assert found.count("Dr Hoda") >= len(steps), "each change names its author"


@pytest.mark.parametrize(
    ("kind", "fields", "field", "words"),
    [
        ("start", {"on": in_days(1)}, "on", "lies in the future"),
        ("start", {"on": ""}, "on", "Fill this in"),
        ("start", {"on": "31/12/2026"}, "on", "Not a date"),
        ("interruption", {"last_dose": at(2)}, "last_dose", "lies in the future"),
        ("interruption", {"last_dose": "yesterday"}, "last_dose", "Not a day and time"),
        ("restart", {"at": at(-1)}, "at", "No interruption or stop"),
        ("stop", {"on": in_days(-60), "reason": "other"}, "on", "Before the first dose"),
        ("stop", {"on": in_days(0), "reason": ""}, "reason", "Fill this in"),
        ("ben", {"on": in_days(0), "second": " dr  HODA"}, "second", "must not be the first one"),
        ("ben", {"on": in_days(0), "second": ""}, "second", "Fill this in"),
        ("history", {"history": "perhaps", "on": in_days(0)}, "history", "one of the answers offered"),
        (
            "override",
            {"kind": "shorter-interval", "days": "400", "reason": "r", "expires": in_days(9)},
            "days",
            "Longer than the protocol",
        ),
        ("override", {"kind": "shorter-interval", "reason": "r", "expires": in_days(9)}, "days", "Fill this in"),
        (
            "override",
            {"kind": "shorter-interval", "days": "5", "reason": "r", "expires": in_days(-1)},
            "expires",
            "must lie in the future",
        ),
        ("transfer", {"on": in_days(0), "to": ""}, "to", "Fill this in"),
        ("death", {"on": in_days(3)}, "on", "lies in the future"),
        ("lost", {"on": in_days(0), "who": ""}, "who", "Fill this in"),
    ],
)
async def test_a_change_that_cannot_be_taken_says_why_beside_its_field_and_keeps_what_was_entered(
    running: Any, act: Act, patient_id: Any, kind: str, fields: dict[str, str], field: str, words: str
) -> None:
    number = await patient_id()
    answer = await taken(act, number, kind, **fields)
    assert answer.status_code == 422
    found = re.search(rf'id="{kind}-{field}-error">(.*?)</span>\s*</div>', answer.text, re.S)
    assert found, words_of(answer.text)
    assert words in words_of(found[1])
    assert re.search(rf'<details class="form-card" id="form-{kind}" open>', answer.text)
    for name, value in fields.items():
        assert value in ("", "perhaps") or html.escape(value) in answer.text, name


async def test_a_restart_before_its_stop_is_refused(act: Act, patient_id: Any) -> None:
    number = await patient_id()
    assert (await taken(act, number, "interruption", last_dose=at(-5))).status_code == 303
    answer = await taken(act, number, "restart", at=at(-6))
    assert answer.status_code == 422
    assert "The restart must come after" in words_of(answer.text)


async def test_signs_of_infection_ask_for_a_count_at_once(
    running: Any, hl7: Any, page: Page, act: Act, patient_id: Any, eventually: Any, before: Any
) -> None:
    await running.tell(hl7.oru(anc="2.5", collected=before(days=2)))
    number = await patient_id()
    assert (await taken(act, number, "infection", on=in_days(0))).status_code == 303

    async def asked() -> bool:
        return "count the neutrophils immediately" in words_of(await page(f"patients/{number}"))

    await eventually(asked)
    assert "Signs of infection since" in await page(f"patients/{number}")


@pytest.mark.parametrize("path", ["alerts/nothing/answer", "patients/nobody/stop", "patients/nobody/juggle"])
async def test_what_is_not_there_cannot_be_changed(act: Act, patient_id: Any, path: str) -> None:
    answer = await act(
        path, f"patients/{await patient_id()}/change", decision="stopped", reason="other", on=in_days(0), who="Dr Hoda"
    )
    assert answer.status_code == 404


async def test_a_refused_form_s_address_leads_back_to_its_form(browser: httpx2.AsyncClient, patient_id: Any) -> None:
    number = await patient_id()
    answer = await browser.get(f"/console/patients/{number}/stop")
    assert answer.headers["location"] == f"/console/patients/{number}/change?kind=stop"
    assert (await browser.get(f"/console/patients/{number}/juggle")).status_code == 404
    assert (await browser.get("/console/alerts/a/answer")).headers["location"] == "/console/alerts/a"


# Who may


@pytest.fixture
async def people(running: Any) -> None:
    """Accounts of several roles."""

    def add(connection: Any) -> None:
        for name, role in {"hoda": "clinician", "kone": "clinician", "audit": "auditor", "ops": "operator"}.items():
            accounts.add(connection, name, password_hash=HASHER.hash(PASSWORD), role=role, at_ms=0, actor="test")

    await running.store.write(add)


async def log_in(browser: httpx2.AsyncClient, name: str) -> None:
    token = re.search(r'name="csrf" value="([^"]+)"', (await browser.get("/console/login")).text)
    assert token
    answer = await browser.post("/console/login", data={"csrf": token[1], "name": name, "password": PASSWORD})
    assert answer.status_code == 303


async def test_an_auditor_reads_and_finds_nothing_to_press(
    running: Any, hl7: Any, people: None, browser: httpx2.AsyncClient, page: Page, patient_id: Any, first_alert: Any
) -> None:
    await running.tell(hl7.oru(anc="0.4"))
    await log_in(browser, "audit")
    number, alert = await patient_id(), await first_alert()
    assert f"/console/patients/{number}/change" not in await page(f"patients/{number}")
    assert "not answer it" in words_of(await page(f"alerts/{alert}"))
    assert (await browser.get(f"/console/patients/{number}/change")).status_code == 403
    for path in (f"alerts/{alert}/answer", f"patients/{number}/stop"):
        assert (await browser.post(f"/console/{path}", data={"csrf": "x"})).status_code == 403


async def test_an_operator_sees_no_patient(people: None, browser: httpx2.AsyncClient) -> None:
    await log_in(browser, "ops")
    for path in ("today", "today/lists", "patients", "patients/x", "patients/x/print", "alerts/x"):
        assert (await browser.get(f"/console/{path}")).status_code == 403, path


async def test_a_form_without_the_page_s_token_changes_nothing(browser: httpx2.AsyncClient, patient_id: Any) -> None:
    answer = await browser.post(f"/console/patients/{await patient_id()}/death", data={"on": in_days(0), "who": "x"})
    assert answer.status_code == 403


async def test_with_accounts_the_second_person_gives_a_password_of_their_own(
    running: Any, people: None, browser: httpx2.AsyncClient, act: Act, page: Page, patient_id: Any
) -> None:
    await log_in(browser, "hoda")
    number = await patient_id()

    async def confirmed(second: str, password: str) -> httpx2.Response:
        return await act(
            f"patients/{number}/ben",
            f"patients/{number}/change",
            on=in_days(0),
            second=second,
            second_password=password,
            who="somebody else",
        )

    for second, password in (("kone", "misremembered"), ("nobody", PASSWORD), ("audit", PASSWORD), ("ops", PASSWORD)):
        answer = await confirmed(second, password)
        assert answer.status_code == 422
        assert 'id="ben-second_password-error"' in answer.text
        assert password not in answer.text
    same = await confirmed("hoda", PASSWORD)
    assert (same.status_code, 'id="ben-second-error"' in same.text) == (422, True)
    assert (await confirmed("kone", PASSWORD)).status_code == 303
    found = words_of(await page(f"patients/{number}"))
    assert "hoda, kone" in found
    assert "somebody else" not in found, "an account acts under its own name"


async def test_the_second_person_s_password_cannot_be_guessed_for_long(
    people: None, browser: httpx2.AsyncClient, act: Act, patient_id: Any
) -> None:
    await log_in(browser, "hoda")
    number = await patient_id()
    for _ in range(11):
        answer = await act(
            f"patients/{number}/ben",
            f"patients/{number}/change",
            on=in_days(0),
            second="kone",
            second_password="guess",
        )
    assert "Too many attempts" in words_of(answer.text)


# Indexes


async def test_no_query_of_these_pages_walks_a_table(running: Any, hl7: Any, patient_id: Any) -> None:
    from sqlalchemy import event

    from store import clinic, database

    await running.tell(hl7.oru(anc="0.4"))
    number = await patient_id()
    plans: list[str] = []
    engine = database.reader(running.engine.settings.store.url)

    @event.listens_for(engine, "before_cursor_execute")
    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in plan)

    with engine.connect() as connection:
        clinic.open_alerts(connection, 50)
        clinic.unreadable(connection, 50)
        clinic.due(connection, today(), 7, 50)
        clinic.overdue(connection, today(), 50)
        clinic.missing_baselines(connection, today(), 50)
        clinic.search(connection, "spec")
        clinic.search(connection, "405660")
        clinic.search(connection, "", after=number)
        clinic.patient_file(connection, number)
        clinic.alert_file(connection, "x")
    engine.dispose()
    walked = [plan for plan in plans if plan.startswith("SCAN") and "USING" not in plan]
    assert plans
    assert walked == []
