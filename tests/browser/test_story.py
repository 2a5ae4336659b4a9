"""The whole story of a critical count, from the laboratory's message to a named person's answer, as a clinician sees it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect


def patient_page(page: Any, house: Any, number: str) -> str:
    """Finds the patient by identifier as a clinician would; the address of the page."""
    page.goto(house.url("/patients"))
    page.fill("main input[name=q]", number)
    page.keyboard.press("Enter")
    page.click(f"main a:has-text('FAMILLE{number}')")
    return str(page.url)


def test_a_critical_count_shows_by_itself_and_is_answered_by_a_named_person(
    guarded: Any, visit: Any, log_in: Any
) -> None:
    guarded.enrol("S1")
    page = visit()
    log_in(page, guarded, "dr.martin")
    page.goto(guarded.url("/today"))
    expect(page.locator("#h-alerts")).to_be_visible()
    before = len(guarded.receiver.seen())

    assert b"|AA|" in guarded.count("S1", 400)
    row = page.locator(".alert-row.critical", has_text="FAMILLES1")
    # By itself: the page is not asked for again. How long it takes is measured by the bench.
    expect(row).to_be_visible(timeout=10_000)

    # The strip tells it on every page, and the prescriber's system has it.
    expect(page.locator("#strip")).to_contain_text("1")
    assert len(guarded.receiver.wait(before + 1)) > before

    row.locator("a").first.click()
    expect(page.locator(".alert-value")).to_contain_text("0,4")
    expect(page.locator(".as-sent")).to_contain_text("ANSM", ignore_case=True)
    expect(page.locator("blockquote.cite").first).to_contain_text("PNN")

    page.check("input[name=decision][value=stopped]")
    page.fill("textarea[name=reason]", "Clozapine arrêtée, patient joint au téléphone.")
    page.click("#answer button")
    expect(page.locator(".trail").first).to_contain_text("dr.martin")
    expect(page.locator("#answer")).to_have_count(0)

    page.goto(guarded.url("/today"))
    expect(page.locator(".alert-row", has_text="FAMILLES1")).to_have_count(0)


def test_the_patient_page_draws_the_counts_and_says_the_same_in_a_table(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("S2")
    for days, value in ((30, 3100), (20, 2400), (10, 1400)):
        guarded.count("S2", value, days_ago=days)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "dr.martin")
    patient_page(page, guarded, "S2")
    drawing = page.locator("svg[role=img]").first
    expect(drawing).to_be_visible()
    assert drawing.locator("title").first.text_content()
    expect(page.locator("main table").first).to_contain_text("1,4")
    expect(page.locator("main")).to_contain_text(re.compile("infection", re.IGNORECASE))


def test_a_correction_is_seen_as_one(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("S3")
    guarded.count("S3", 900, filler="COR1", days_ago=0.2)
    guarded.judged()
    guarded.count("S3", 2900, filler="COR1", days_ago=0.2, status="C")
    guarded.judged()
    page = visit()
    log_in(page, guarded, "dr.leroy")
    patient_page(page, guarded, "S3")
    expect(page.locator("main s, main del, main .struck").first).to_be_visible()
    expect(page.locator("main")).to_contain_text("2,9")


def test_an_unanswered_form_is_said_beside_its_field_and_keeps_what_was_written(
    guarded: Any, visit: Any, log_in: Any
) -> None:
    guarded.enrol("S4")
    guarded.count("S4", 450)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "dr.martin")
    page.goto(guarded.url("/today"))
    page.locator(".alert-row", has_text="FAMILLES4").locator("a").first.click()
    page.check("input[name=decision][value=disputed]")  # needs a reason
    page.click("#answer button")
    expect(page.locator(".notice.bad")).to_be_visible()
    expect(page.locator("input[name=decision][value=disputed]")).to_be_checked()


def test_by_keyboard_alone(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("S5")
    guarded.count("S5", 420)
    guarded.judged()
    page = visit()
    page.goto(guarded.url("/login"))
    page.focus("input[name=name]")
    page.keyboard.type("dr.martin")
    page.keyboard.press("Tab")
    page.keyboard.type("a long password of a test")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/console/(?!login)"))
    page.goto(guarded.url("/today"))
    # The first stop is the link past the navigation.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#content"
    reach(page, "document.activeElement.closest('.alert-row')?.textContent.includes('FAMILLES5')")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/console/alerts/"))
    reach(page, "document.activeElement.name === 'decision'")
    page.keyboard.press("Space")
    reach(page, "document.activeElement.name === 'reason'")
    page.keyboard.type("Vu avec le service.")
    reach(page, "document.activeElement.matches('#answer button')")
    page.keyboard.press("Enter")
    expect(page.locator(".trail").first).to_contain_text("dr.martin")


def reach(page: Any, where: str) -> None:
    """Tabs until the focus is where ``where`` says."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(where):
            return
    pytest.fail(f"not reached by keyboard: {where}")


def test_without_scripts_everything_works(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("S6")
    guarded.count("S6", 440)
    guarded.judged()
    page = visit(scripts=False)
    log_in(page, guarded, "dr.martin")
    page.goto(guarded.url("/today"))
    page.locator(".alert-row", has_text="FAMILLES6").locator("a").first.click()
    page.check("input[name=decision][value=patient-reached]")
    page.click("#answer button")
    expect(page.locator(".trail").first).to_contain_text("dr.martin")


@pytest.mark.parametrize("path", ["/today", "/patients", "/messages", "/dead-letters", "/connections", "/compare"])
def test_a_phone_shows_every_page_without_scrolling_sideways(guarded: Any, visit: Any, log_in: Any, path: str) -> None:
    page = visit(width=360, height=740)
    log_in(page, guarded, "root")
    page.goto(guarded.url(path))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_print_is_one_patient_on_paper(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("S7")
    guarded.count("S7", 2600)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "dr.martin")
    address = patient_page(page, guarded, "S7")
    page.goto(address.split("?")[0] + "/print")
    page.emulate_media(media="print")
    assert page.pdf(format="A4").startswith(b"%PDF")
    expect(page.locator("body")).to_contain_text("FAMILLES7")
    expect(page.locator("body")).to_contain_text("dr.martin")
    expect(page.locator("nav:visible")).to_have_count(0)
