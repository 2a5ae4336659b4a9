"""What operators do in a browser: find a message, follow its stages, send a dead letter again; and who may not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

PAGES = {
    "patients": ("/today", "/patients"),
    "messages": ("/messages", "/dead-letters", "/connections", "/compare"),
}
MAY = {
    "dr.martin": {"patients"},
    "ops": {"messages"},
    "audit": {"patients", "messages"},
    "root": {"patients", "messages"},
}


def test_a_message_is_found_and_its_stages_stand_side_by_side(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("O1")
    guarded.count("O1", 1300)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "ops")
    page.goto(guarded.url("/messages?disposition=judged"))
    page.locator("main table tbody a").first.click()
    page.wait_for_url(re.compile(r"/messages/\d+"))
    expect(page.locator("main")).to_contain_text("MSH|")
    expect(page.locator("main")).to_contain_text("OBX[")


def test_what_was_never_a_message_is_seen_with_its_reason(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.send(b"this is no HL7")
    guarded.judged()
    page = visit()
    log_in(page, guarded, "ops")
    page.goto(guarded.url("/messages?disposition=set_aside"))
    page.locator("main table tbody a").first.click()
    expect(page.locator("main")).to_contain_text("this is no HL7")


def test_a_message_is_judged_again(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("O2")
    guarded.count("O2", 2500)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "ops")
    page.goto(guarded.url("/messages?disposition=judged"))
    page.locator("main table tbody a").first.click()
    before = page.url
    page.locator("form[action$='/replay'] button").click()
    page.wait_for_url(re.compile(r"/messages/\d+"))
    expect(page.locator(".notice").first).to_be_visible()
    assert page.url != before


@pytest.mark.parametrize("name", sorted(MAY))
def test_each_role_sees_its_pages_and_no_other(guarded: Any, visit: Any, log_in: Any, name: str) -> None:
    page = visit()
    log_in(page, guarded, name)
    for right, paths in PAGES.items():
        for path in paths:
            answer = page.goto(guarded.url(path))
            assert answer is not None
            assert answer.status == (200 if right in MAY[name] else 403), (name, path)


def test_who_is_not_logged_in_comes_to_the_login_and_then_to_where_they_wanted(
    guarded: Any, visit: Any, log_in: Any
) -> None:
    page = visit()
    page.goto(guarded.url("/connections"))
    assert "/console/login" in page.url
    page.fill("input[name=name]", "ops")
    page.fill("input[name=password]", "wrong")
    page.click("main button[type=submit]")
    expect(page.locator("[role=alert]:visible").first).to_be_visible()
    page.fill("input[name=name]", "ops")
    page.fill("input[name=password]", "a long password of a test")
    page.click("main button[type=submit]")
    page.wait_for_url(re.compile(r"/console/connections"))


def test_the_language_is_the_visitors_choice(guarded: Any, visit: Any, log_in: Any) -> None:
    page = visit()
    log_in(page, guarded, "root")
    page.goto(guarded.url("/today"))
    assert page.locator("html").get_attribute("lang") == "fr"
    page.locator("form[action$='/language'] button").first.click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.goto(guarded.url("/connections"))
    assert page.locator("html").get_attribute("lang") == "en"
