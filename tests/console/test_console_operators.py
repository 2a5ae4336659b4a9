"""The operators' pages over real HTTP, against a running engine with a laboratory and a prescriber's system."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher

from console import words
from console.raw_text import readable
from store import accounts

Page = Callable[..., Awaitable[str]]
HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
def page(browser: httpx2.AsyncClient) -> Page:
    async def look(path: str, **query: Any) -> str:
        answer = await browser.get(path, params=query or None)
        assert answer.status_code == 200, answer.text
        return answer.text

    return look


def numbers(text: str) -> list[int]:
    """The messages of a listing, in its order."""
    return [int(found) for found in re.findall(r'<tr id="m(\d+)">', text)]


def words_of(text: str) -> str:
    """What a reader sees: no tags, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


async def post(browser: httpx2.AsyncClient, path: str, start: str, **fields: Any) -> httpx2.Response:
    """Sends a form with the token of the page it stands on."""
    text = (await browser.get(start)).text
    token = re.search(r'name="csrf" value="([^"]+)"', text)
    assert token, text
    return await browser.post(path, data={"csrf": token[1], **fields})


async def test_the_console_leads_to_the_day_s_list_where_everything_is_open(browser: httpx2.AsyncClient) -> None:
    answer = await browser.get("/console")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/today")


async def test_a_page_allows_no_script_of_its_own_and_is_not_kept(browser: httpx2.AsyncClient) -> None:
    answer = await browser.get("/console/messages")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|https?://", answer.text)


async def test_what_pages_load_is_served_with_its_type_and_not_sent_twice(browser: httpx2.AsyncClient) -> None:
    kinds = {"neutroflag.css": "text/css", "htmx.min.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = await browser.get(f"/console/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        again = await browser.get(f"/console/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304


async def test_an_address_that_leads_nowhere_says_so_in_words(browser: httpx2.AsyncClient) -> None:
    for path in ("/console/nowhere", "/console/messages/999", "/console/messages/x", "/console/static/..%2fport.py"):
        answer = await browser.get(path)
        assert answer.status_code == 404
        assert "Nothing at this address" in answer.text


async def test_the_language_is_the_visitor_s_choice_and_leads_back_to_the_page(browser: httpx2.AsyncClient) -> None:
    browser.cookies.clear()
    chosen = await browser.post("/console/language", data={"language": "fr", "back": "/console/messages?sender=A"})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/console/messages?sender=A")
    assert '<html lang="fr">' in (await browser.get("/console/messages")).text
    away = await browser.post("/console/language", data={"language": "fr", "back": "https://elsewhere.example/console"})
    assert away.headers["location"] == "/console"


async def test_the_strip_tells_of_a_critical_count_as_soon_as_it_is_judged(running: Any, hl7: Any, page: Page) -> None:
    before = words_of(await page("/console/strip"))
    assert "Accepts and judges" in before
    assert "0 critical" in before
    await running.tell(hl7.oru(anc="0.40"))
    after = await page("/console/strip")
    assert "1 critical" in words_of(after)
    assert 'href="/console/today?level=critical"' in after
    assert "1 critical" in words_of(await page("/console/messages"))


async def test_the_strip_names_a_destination_that_does_not_answer(
    running: Any, hl7: Any, page: Page, eventually: Any
) -> None:
    await running.prescriber.down()
    await running.tell(hl7.oru(anc="0.40"))

    async def told() -> bool:
        return "does not answer" in (await page("/console/strip"))

    await eventually(told)
    strip = words_of(await page("/console/strip"))
    assert re.search(r"Oldest undelivered: \d+ s", strip)
    assert "Does not answer" in words_of(await page("/console/connections"))


async def test_messages_are_listed_newest_first_with_their_end(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("M1"), hl7.other("ADT^A08", "M2"), b"nonsense", hl7.oru("M1"))
    text = await page("/console/messages")
    assert numbers(text) == [4, 3, 2, 1]
    seen = words_of(text)
    for expected in ("4 received", "Judged 1", "Not relevant 1", "Set aside 1", "Duplicate 1", "msh-missing"):
        assert expected in seen


async def test_filters_of_messages_combine(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(
        hl7.oru("A1", sender="SIL|LABO"),
        hl7.oru("A2", sender="GLIMS|CHU", filler="F2"),
        hl7.oru("A3", sender="GLIMS|CHU", filler="F3", patient="999^^^CHX&1.2.3&ISO^PI"),
        hl7.other("ADT^A08", "A4"),
    )

    async def found(**wanted: str) -> list[int]:
        return numbers(await page("/console/messages", **wanted))

    assert await found(disposition="judged") == [2, 1]
    assert await found(sender="GLIMS|CHU") == [3, 2]
    assert await found(sender="GLIMS|CHU", disposition="unenrolled") == [3]
    assert await found(control_id="A1") == [1]
    assert await found(control_id="A1", sender="GLIMS|CHU") == []
    assert await found(patient="999") == [3]
    assert await found(patient="405660", sender="SIL|LABO") == [1]
    assert await found(patient="nobody") == []
    assert await found(disposition="no such end") == []
    assert "Check the spelling" in await page("/console/messages", control_id="none")


async def test_older_messages_stand_behind_a_link_each_of_them_once(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(*(hl7.other("ADT^A08", f"P{number}") for number in range(120)))
    address, seen = "/console/messages", []
    while address:
        text = await page(address)
        seen += numbers(text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        address = html.unescape(following[1]) if following else ""
    assert seen == list(range(120, 0, -1))


async def test_one_message_is_shown_through_its_stages(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("STAGES", anc="0.84"))
    await running.settled()
    seen = words_of(await page("/console/messages/1"))
    for expected in (
        "MSH |^~\\&|SIL|LABO|",
        "840 /mm³",
        "0.84 10*9/L",
        "OBX[1] judged",
        "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE",
        "Les patients presentant des PNN <1000/mm3",
        "ARRÊT IMMÉDIAT",
        "ehr-v2 Delivered",
        "MSA-1 AA",
    ):
        assert expected in seen


async def test_what_could_not_be_read_is_shown_with_its_reason_and_its_task(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("NOUNIT", unit=""))
    await running.settled()
    seen = words_of(await page("/console/messages/1"))
    assert "Unassessable unit-missing" in seen
    assert "ehr Delivered" in seen


async def test_nothing_in_a_message_becomes_part_of_the_page(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("<script>alert(1)</script>", name='<img src=x onerror="alert(1)">'))
    for path in ("/console/messages", "/console/messages/1"):
        text = await page(path)
        assert "<script>alert" not in text
        assert "<img" not in text


async def test_control_characters_are_shown_by_their_pictures() -> None:
    shown = readable(b"MSH|^~\\&|A\x07B\x00\x7f\rPID|\xe2\x80\xaeC", "hl7v2")
    assert shown.segments == (("MSH", "|^~\\&|A\u2407B\u2400\u2421"), ("PID", "|\\u202eC"))


async def test_json_is_laid_out_with_its_numbers_as_they_were_written() -> None:
    assert readable(b'{"value":0.840,"n":1e3}', "fhir").text == '{\n  "value": 0.840,\n  "n": 1e3\n}'
    assert readable(b'{"cut', "fhir").text == '{"cut'


async def test_a_duplicate_points_to_the_message_that_keeps_the_bytes(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("M1"), hl7.oru("M1"))
    text = await page("/console/messages/2")
    assert "A duplicate: the bytes are those of" in text
    assert 'href="/console/messages/1"' in text
    assert "/replay" not in text


async def test_a_body_that_was_removed_is_said_to_be_removed(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(hl7.oru("M1"))
    await running.store.write(lambda connection: connection.exec_driver_sql("DELETE FROM body"))
    assert "cannot be opened" in await page("/console/messages/1")
    await running.store.write(lambda connection: connection.exec_driver_sql("UPDATE message SET kept = false"))
    assert "The body was removed" in await page("/console/messages/1")


async def test_a_message_is_judged_again_in_the_name_of_a_person(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, page: Page
) -> None:
    await running.tell(hl7.oru("M1"))
    refused = await post(browser, "/console/messages/1/replay", "/console/messages/1", by=" ")
    assert "problem=by-missing" in refused.headers["location"]
    assert "give your name" in (await browser.get(refused.headers["location"])).text
    done = await post(browser, "/console/messages/1/replay", "/console/messages/1", by="Op Erator")
    assert done.headers["location"] == "/console/messages/2?done=replay"
    await running.judged()
    assert numbers(await page("/console/messages")) == [2, 1]
    assert numbers(await page("/console/messages", control_id="M1")) == [2, 1]
    assert "Repeats message" in await page("/console/messages/2")
    assert 'href="/console/messages/2"' in await page("/console/messages/1")


async def test_a_form_from_elsewhere_changes_nothing(running: Any, hl7: Any, browser: httpx2.AsyncClient) -> None:
    await running.tell(hl7.oru("M1"))
    answer = await browser.post("/console/messages/1/replay", data={"csrf": "guessed", "by": "Op"})
    assert answer.status_code == 403
    assert len(await running.messages()) == 1


async def test_dead_letters_stand_in_groups_and_a_group_is_sent_again(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, page: Page
) -> None:
    # Nobody at the prescriber's carries this identifier.
    await running.enrol("405699")
    await running.tell(hl7.oru("M1", anc="0.84", patient="405699^^^CHX&1.2.3&ISO^PI"))
    await running.settled()
    text = await page("/console/dead-letters")
    assert "ehr patient-not-found" in words_of(text)
    assert "undelivered" in words_of(await page("/console/strip"))
    opened = await page("/console/dead-letters", destination="ehr", code="patient-not-found")
    letters = re.findall(r'name="id" value="(\d+)"', opened)
    assert letters
    running.prescriber.add_patient(("urn:oid:1.2.3", "405699"), id_="p2")
    done = await post(
        browser, "/console/dead-letters/replay", "/console/dead-letters",
        destination="ehr", code="patient-not-found", whole="1", by="Op Erator",
    )  # fmt: skip
    assert f"again={len(letters)}&asked={len(letters)}" in done.headers["location"]
    await running.settled()
    assert "Everything was delivered" in await page("/console/dead-letters")


async def test_chosen_dead_letters_are_sent_again_and_choosing_none_says_so(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, page: Page
) -> None:
    await running.enrol("405699")
    await running.tell(hl7.oru("M1", anc="0.84", patient="405699^^^CHX&1.2.3&ISO^PI"))
    await running.settled()
    group = "/console/dead-letters?destination=ehr&code=patient-not-found"
    none = await post(browser, "/console/dead-letters/replay", group, by="Op")
    assert "Nothing was chosen" in (await browser.get(none.headers["location"])).text
    number = re.findall(r'name="id" value="(\d+)"', (await browser.get(group)).text)[0]
    running.prescriber.add_patient(("urn:oid:1.2.3", "405699"), id_="p2")
    done = await post(browser, "/console/dead-letters/replay", group, id=number, by="Op")
    assert "1 of 1 wait again" in words_of((await browser.get(done.headers["location"])).text)


async def test_messages_that_nobody_could_read_are_grouped_by_reason(running: Any, hl7: Any, page: Page) -> None:
    await running.tell(b"nonsense", b"more nonsense", hl7.oru("U1", unit=""))
    text = await page("/console/dead-letters")
    assert re.search(r"Set aside msh-missing: MSH\[1\] 2 ", words_of(text))
    address = re.search(r'href="(/console/messages\?disposition=set_aside[^"]+)"', text)
    assert address
    assert numbers(await page(html.unescape(address[1]))) == [2, 1]


async def test_connections_tell_who_speaks_and_who_answers(running: Any, hl7: Any, page: Page) -> None:
    assert "Nobody has sent anything yet" in await page("/console/connections")
    await running.tell(hl7.oru("M1", anc="0.84"))
    await running.settled()
    seen = words_of(await page("/console/connections"))
    assert "ehr Answers" in seen
    assert "ehr-v2 Answers" in seen
    assert "SIL|LABO mllp Speaks" in seen


async def test_in_deliver_mode_the_comparison_explains_itself(page: Page) -> None:
    assert "This page serves the go-live" in await page("/console/compare")


async def test_observe_mode_shows_what_would_have_been_sent_and_gives_it_as_csv(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    watching = await run_engine(mode="observe")
    await watching.tell(hl7.oru("M1", anc="0.40"))
    async with httpx2.AsyncClient(
        base_url=watching.url, trust_env=False, timeout=20, cookies={"neutroflag_language": "en"}
    ) as browser:
        today = datetime.now(watching.engine.settings.zone).date().isoformat()
        for query in ("", "?level=critical", f"?day={today}"):
            seen = words_of((await browser.get(f"/console/compare{query}")).text)
            assert "405660 Critical ARRÊT IMMÉDIAT" in seen
            assert "Observes, delivers nothing" in seen
            assert "Observe mode: 1 notifications kept back" in seen
        for query in ("?level=info", "?day=2020-01-01"):
            assert "405660" not in (await browser.get(f"/console/compare{query}")).text
        assert "Write YYYY-MM-DD" in (await browser.get("/console/compare?day=tomorrow")).text
        table = (await browser.get("/console/compare.csv?level=critical")).text.removeprefix("\ufeff")
        (row,) = csv.DictReader(io.StringIO(table), delimiter=";")
        assert (row["patient"], row["level"], row["anc_per_mm3"]) == ("405660", "critical", "400")
        assert "Observed, not sent" in (await browser.get("/console/messages/1")).text
    assert not watching.prescriber.flags()


async def test_each_role_sees_its_own_pages(running: Any) -> None:
    at = int(datetime.now(UTC).timestamp() * 1000)
    for name, role in (("ops", "operator"), ("doc", "clinician"), ("eye", "auditor")):
        hashed = HASHER.hash("a long password")
        await running.store.write(
            lambda connection, name=name, role=role, hashed=hashed: accounts.add(
                connection, name, password_hash=hashed, role=role, at_ms=at, actor="test"
            )
        )
    expected = {
        "ops": ("/console/messages", 200, 403),
        "doc": ("/console/today", 403, 200),
        "eye": ("/console/today", 200, 200),
    }
    for name, (home, messages, today) in expected.items():
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False, timeout=20) as client:
            login = await post(
                client, "/console/login", "/console/login", name=name, password="a long password", next=""
            )
            assert login.status_code == 303
            assert (await client.get("/console")).headers["location"] == home
            assert (await client.get("/console/messages")).status_code == messages
            assert (await client.get("/console/today")).status_code == today
            assert ("/console/messages" in (await client.get(home)).text) is (messages == 200)
            refused = await post(client, "/console/messages/1/replay", home)
            assert refused.status_code == (404 if name == "ops" else 403)


def test_words_claimed_by_two_files_or_lacking_a_language_are_refused() -> None:
    with pytest.raises(ValueError, match="claimed twice: a"):
        words._merged({"a": ("b", "c")}, {"a": ("d", "e")})
    with pytest.raises(ValueError, match="lack a language: a"):
        words._merged({"a": ("b", "")})
