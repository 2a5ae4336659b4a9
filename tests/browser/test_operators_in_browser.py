"""What operators do in a browser: find a message, follow its stages, send a dead letter again; and who may not."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect

PAGES = {
    "patients": ("/today", "/patients", "/merges"),
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


def cx(patient: str) -> str:
    return f"{patient}^^^X&2.999.1&ISO^PI"


def sent(house: Any, number: str, patient: str, *, unit: str, anc: str = "2.50") -> None:
    when = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    house.send(
        f"MSH|^~\\&|SIL|LABO|N|CHX|{when}||ORU^R01^ORU_R01|{number}|P|2.5|||||FRA|UNICODE UTF-8\r"
        f"PID|1||{cx(patient)}||SPECIMEN^DOMINIQUE^^^^^L||19790328|F\r"
        f"OBR|1|D1|{number}^SIL|58410-2^Hemogramme^LN|||{when}|||||||||||||||{when}|||F\r"
        f"OBX|1|NM|751-8^Neutrophils^LN||{anc}|{unit}|||||F|||\r".encode()
    )


def test_what_could_not_be_read_is_edited_looked_at_and_judged(
    guarded: Any, visit: Any, log_in: Any, serious: Any
) -> None:
    guarded.enrol("O3")
    sent(guarded, "EDIT1", "O3", unit="")
    guarded.judged()
    page = visit(scripts=False)
    log_in(page, guarded, "ops")
    page.goto(guarded.url("/messages?control_id=EDIT1"))
    page.locator("main table tbody a").first.click()
    original = page.url
    page.locator("a[href$='/edit']").click()
    text = page.locator("textarea").input_value()
    assert "|2.50||" in text
    page.fill("textarea", text.replace("|2.50||", "|2.50|10*9/L|"))
    page.locator("button[value=look]").click()
    expect(page.locator("#seen")).to_contain_text("2500/mm3")
    page.locator("button[value=replay]").click()
    page.wait_for_url(re.compile(r"done=edited"))
    assert page.url.split("?")[0] != original
    expect(page.locator("main")).to_contain_text("10*9/L")
    whole = visit()
    log_in(whole, guarded, "ops")
    whole.goto(original + "/edit")
    assert serious(whole) == []
    # Who only looks is offered nothing to edit, and may not.
    other = visit()
    log_in(other, guarded, "audit")
    other.goto(original)
    expect(other.locator("a[href$='/edit']")).to_have_count(0)
    answer = other.goto(original + "/edit")
    assert answer is not None
    assert answer.status == 403


def test_a_merge_is_undone_by_who_may_answer(guarded: Any, visit: Any, log_in: Any, serious: Any) -> None:
    guarded.enrol("O4")
    sent(guarded, "MERGE1", "O4", unit="10*9/L")
    sent(guarded, "MERGE2", "O5", unit="10*9/L", anc="2.40")
    guarded.send(
        (
            "MSH|^~\\&|DPI|CHX|N|CHX|20261122101605+0100||ADT^A40^ADT_A39|A40-B|P|2.5\rEVN|A40|20261122101605+0100\r"
            f"PID|1||{cx('O5')}||SPECIMEN^DOMINIQUE^^^^^L||19790328|F\rMRG|{cx('O4')}\r"
        ).encode()
    )
    guarded.judged()
    page = visit(scripts=False)
    log_in(page, guarded, "dr.martin")
    page.goto(guarded.url("/merges"))
    page.fill("textarea[name=reason]", "two people")
    page.locator("form[action$='/undo'] button").click()
    page.wait_for_url(re.compile(r"done=undone"))
    expect(page.locator("main")).to_contain_text("two people")
    whole = visit()
    log_in(whole, guarded, "audit")
    whole.goto(guarded.url("/merges"))
    assert serious(whole) == []
    ops = visit()
    log_in(ops, guarded, "ops")
    answer = ops.goto(guarded.url("/merges"))
    assert answer is not None
    assert answer.status == 403
