"""The first afternoon: no accounts, on loopback. Every form asks who acts. And: axe-core on every page; pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect


@pytest.fixture(scope="session")
def told(house: Any) -> Any:
    """A ward: steady, falling, stopped, corrected, unreadable."""
    house.enrol("P1", family="STABLE", given="Alix")
    house.enrol("P2", family="MARTIN", given="Camille")
    house.enrol("P3", family="LEGRAND", given="Sacha")
    house.enrol("P4", family="PETIT", given="Noa", treatment_start="2023-02-01")
    for week in range(5, 0, -1):
        house.count("P1", 3200 - 90 * week, days_ago=7 * week - 6.9)
        house.count("P2", 1350 + 260 * week, days_ago=7 * week - 6.9)
        house.count("P3", 500 + 420 * week, days_ago=7 * week - 5)
    house.judged()
    house.count("P2", 1380, days_ago=0.05)
    house.count("P3", 430, days_ago=0.05)
    house.count("P4", 2700, days_ago=20, filler="KOR")
    house.count("P4", 1700, days_ago=20, filler="KOR", status="C")
    house.send(b"no HL7 at all")
    house.judged()
    return house


def patient(page: Any, house: Any, number: str) -> None:
    page.goto(house.url(f"/patients?q={number}"))
    page.locator("main a[href*='/console/patients/']").first.click()


def test_an_open_console_says_so_and_asks_who_acts(told: Any, visit: Any) -> None:
    page = visit()
    page.goto(told.url("/today"))
    page.locator(".alert-row.critical a").first.click()
    page.check("input[name=decision][value=patient-reached]")
    page.click("#answer button")
    # Whoever acts has a name.
    expect(page.locator("#answer")).to_be_visible()
    page.fill("#answer [name=who]", "Dr Camille Exemple")
    page.click("#answer button")
    expect(page.locator(".trail").first).to_contain_text("Dr Camille Exemple")


PAGES = ["/today", "/patients", "/merges", "/messages", "/messages/1", "/dead-letters", "/connections", "/compare"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious(told: Any, visit: Any, serious: Any, path: str, scheme: str) -> None:
    page = visit()
    page.emulate_media(color_scheme=scheme)
    page.goto(told.url(path))
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("part", ["", "/change", "/print", "alert"])
def test_axe_finds_nothing_serious_about_a_patient(told: Any, visit: Any, serious: Any, part: str, scheme: str) -> None:
    page = visit()
    page.emulate_media(color_scheme=scheme)
    patient(page, told, "P3")
    if part == "alert":
        page.locator("main a[href*='/console/alerts/']").first.click()
    elif part:
        page.goto(page.url.split("?")[0] + part)
    assert serious(page) == []


def test_the_login_page_has_no_serious_finding(guarded: Any, visit: Any, serious: Any) -> None:
    page = visit()
    page.goto(guarded.url("/login"))
    assert serious(page) == []


def test_pictures_for_the_readme(told: Any, visit: Any, tmp_path: Path) -> None:
    """``make pictures`` keeps them."""
    folder = Path(os.environ.get("PICTURES", tmp_path))
    page = visit(width=1280, height=860)
    page.goto(told.url("/today"))
    page.screenshot(path=folder / "today.png")
    page.set_viewport_size({"width": 1280, "height": 1560})  # down to the drawing
    patient(page, told, "P3")
    page.screenshot(path=folder / "patient.png")
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(told.url("/messages"))
    page.locator("main table tbody a").nth(1).click()
    page.screenshot(path=folder / "message.png")
    phone = visit(width=390, height=800)
    patient(phone, told, "P3")
    phone.screenshot(path=folder / "phone.png")
    assert len(list(folder.glob("*.png"))) == 4
