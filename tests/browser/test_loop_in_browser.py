"""The way of an alert, as a clinician sees it: passed through a rota, and closed from the prescriber's own system."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import expect


def task_of(prescriber: Any, patient: str, suffix: str) -> dict[str, Any]:
    """This patient's Task, once it is there."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        for task in prescriber.tasks():
            if task["identifier"][0]["value"].endswith(suffix) and task["for"]["reference"] == f"Patient/{patient}":
                return dict(task)
        time.sleep(0.1)
    raise AssertionError(f"no Task {suffix} of {patient}")


def alert_page(page: Any, house: Any, task: dict[str, Any]) -> None:
    page.goto(house.url(f"/alerts/{task['groupIdentifier']['value']}"))


def test_one_left_alone_passes_to_the_next_of_the_rota_and_a_task_completed_there_closes_it(
    ward: Any, visit: Any
) -> None:
    house, prescriber = ward
    house.enrol("L1")
    prescriber.add_patient(("urn:oid:2.999.1", "L1"), id_="L1")
    assert b"|AA|" in house.count("L1", 400)
    first = task_of(prescriber, "L1", ":ack")
    second = task_of(prescriber, "L1", ":ack:2")
    assert first["owner"] == {"reference": "PractitionerRole/psy"}
    assert second["performerType"] == [{"text": "astreinte"}]
    assert second["partOf"] == [{"reference": f"Task/{first['id']}"}]

    page = visit()
    alert_page(page, house, first)
    way = page.locator("section[aria-labelledby=h-way]")
    expect(way).to_contain_text("Transmise au suivant : astreinte")
    expect(way).to_contain_text("Destinataire actuel : astreinte")
    expect(page.locator("#answer")).to_have_count(1)

    prescriber.answer(second["id"], "accepted", "Dr Diallo")
    prescriber.answer(second["id"], "completed", "Dr Diallo", decision="STOPPED")
    limit = time.monotonic() + 60
    while page.locator("#answer").count() and time.monotonic() < limit:
        time.sleep(0.3)
        page.reload()
    expect(page.locator("#answer")).to_have_count(0)
    expect(way).to_contain_text("Close : Dr Diallo")
    expect(page.locator(".trail").first).to_contain_text("Dr Diallo")
    page.goto(house.url("/today"))
    expect(page.locator(".alert-row", has_text="FAMILLEL1")).to_have_count(0)
