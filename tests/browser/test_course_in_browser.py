"""Every form that changes a course of treatment, filled in a browser; and what is refused, said beside its field."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

PARIS = ZoneInfo("Europe/Paris")
PASSWORD = "a long password of a test"  # noqa: S105  # of the test's own accounts


def day(ago: float) -> str:
    return (datetime.now(PARIS) - timedelta(days=ago)).date().isoformat()


def moment(ago: float) -> str:
    return (datetime.now(PARIS) - timedelta(days=ago)).strftime("%Y-%m-%dT%H:%M")


# form, what is filled in, and first a form that must precede it.
GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "interruption": ({"last_dose": moment(5)}, ""),
    "restart": ({"at": moment(1)}, "interruption"),
    "stop": ({"on": day(1), "reason": "other"}, ""),
    "infection": ({"on": day(0)}, ""),
    "history": ({"history": "mild", "on": day(3)}, ""),
    "ben": ({"on": day(3), "second": "dr.leroy", "second_password": PASSWORD}, ""),
    "override": (
        {"kind": "shorter-interval", "days": "5", "reason": "Contrôle rapproché", "expires": day(-30)},
        "",
    ),
    "transfer": ({"on": day(1), "to": "CHU de Lyon"}, ""),
    "lost": ({"on": day(1)}, ""),
    "resume": ({"on": day(0)}, "lost"),
    "death": ({"on": day(1)}, ""),
}
# form, what is filled in, the field that must be named.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("interruption", {"last_dose": moment(-3)}, "last_dose"),
    ("restart", {"at": moment(1)}, ""),
    ("stop", {"on": day(-4), "reason": "other"}, "on"),
    ("infection", {"on": day(-2)}, "on"),
    ("ben", {"on": day(3), "second": "Dr.Martin", "second_password": PASSWORD}, "second"),
    ("ben", {"on": day(3), "second": "dr.leroy", "second_password": "wrong"}, "second_password"),
    (
        "override",
        {"kind": "shorter-interval", "days": "5", "reason": "x", "expires": day(2)},
        "expires",
    ),
    ("death", {"on": day(-1)}, "on"),
]


def fill(page: Any, kind: str, fields: dict[str, Any]) -> None:
    form = page.locator(f"form[action$='/{kind}']")
    for fold in form.locator("xpath=ancestor::details").all():
        if fold.get_attribute("open") is None:
            fold.locator("summary").first.click()
    for name, value in fields.items():
        place = form.locator(f"[name={name}]")
        if place.evaluate("e => e.tagName") == "SELECT":
            place.select_option(value)
        else:
            place.fill(value)
    form.locator("button").last.click()


def open_forms(page: Any, house: Any, number: str) -> str:
    page.goto(house.url("/patients"))
    page.fill("main input[name=q]", number)
    page.keyboard.press("Enter")
    page.click(f"main a:has-text('FAMILLE{number}')")
    address = str(page.url).split("?")[0]
    page.goto(f"{address}/change")
    return address


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_change_is_recorded_with_its_author(guarded: Any, visit: Any, log_in: Any, kind: str) -> None:
    fields, first = GOOD[kind]
    number = f"C{kind.upper()}"
    guarded.enrol(number)
    guarded.count(number, 2600, days_ago=2)
    guarded.judged()
    page = visit()
    log_in(page, guarded, "dr.martin")
    address = open_forms(page, guarded, number)
    if first:
        fill(page, first, GOOD[first][0])
        page.wait_for_url(re.compile(r"/patients/[^/]+(\?|$)"))
        page.goto(f"{address}/change")
    fill(page, kind, fields)
    page.wait_for_url(re.compile(r"/patients/[^/]+(\?|$)"))
    expect(page.locator(".notice").first).to_be_visible()
    expect(page.locator("main")).to_contain_text("dr.martin")


def test_a_treatment_is_begun(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("CSTART", treatment_start="", start_confirmed_by="")
    page = visit()
    log_in(page, guarded, "dr.martin")
    open_forms(page, guarded, "CSTART")
    fill(page, "start", {"on": day(0)})
    page.wait_for_url(re.compile(r"/patients/[^/]+(\?|$)"))
    expect(page.locator("main")).to_contain_text("dr.martin")


@pytest.mark.parametrize(("kind", "fields", "named"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_is_refused_beside_its_field(
    guarded: Any, visit: Any, log_in: Any, kind: str, fields: dict[str, Any], named: str
) -> None:
    number = "CREFUSED"
    guarded.enrol(number)
    page = visit()
    log_in(page, guarded, "dr.martin")
    address = open_forms(page, guarded, number)
    # What the page itself would refuse is sent all the same: the engine is the one that must.
    page.locator(f"form[action$='/{kind}']").evaluate("form => { form.noValidate = true }")
    fill(page, kind, fields)
    expect(page.locator(".notice.bad")).to_be_visible()
    assert page.url.startswith(address)
    if named:
        field = page.locator(f"form[action$='/{kind}'] [name={named}]")
        assert field.get_attribute("aria-invalid") == "true"
        if named != "second_password":
            kept = next((value for key, value in fields.items() if key == named), "")
            assert field.input_value() == kept


def test_a_patient_dies_and_is_not_alerted_on_any_more(guarded: Any, visit: Any, log_in: Any) -> None:
    guarded.enrol("CDEAD")
    page = visit()
    log_in(page, guarded, "dr.martin")
    open_forms(page, guarded, "CDEAD")
    fill(page, "death", {"on": day(0)})
    page.wait_for_url(re.compile(r"/patients/[^/]+(\?|$)"))
    guarded.count("CDEAD", 300)
    guarded.judged()
    page.goto(guarded.url("/today"))
    expect(page.locator("main")).not_to_contain_text("FAMILLECDEAD")
