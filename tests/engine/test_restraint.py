"""What makes no noise: a normal count, the same fact twice; and what does: clozapine handed over after a stop."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from store import listing

PHARMACY = '[routing]\npharmacist = "pharmacy"\nlaboratory = "Organization/lab"\n'


async def alerts(running: Any) -> list[tuple[str, str, str]]:
    rows = await running.store.read(lambda connection: list(listing.alert_rows(connection)))
    return [(row["family"], row["level"], row["state"]) for row in rows]


async def test_a_normal_count_is_its_record_and_the_next_date_and_nothing_else(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any, rows_of: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=PHARMACY)
    assert await running.tell(*(hl7.oru(f"M{n}", anc="2.50", filler=f"B{n}") for n in range(3))) == ["AA"] * 3
    await running.settled()
    assert await alerts(running) == []
    assert await running.deliveries() == []
    assert rows_of("SELECT count(*) FROM step") == [0]
    assert rows_of("SELECT next_due IS NOT NULL FROM patient") == [1]
    assert (prescriber.flags(), prescriber.tasks(), prescriber.messages()) == ([], [], {})


async def test_one_fact_by_hl7_and_by_fhir_is_one_alert(
    running: Any, hl7: Any, fhir: Any, prescriber: Any, before: Any
) -> None:
    drawn = before(hours=2)
    await running.tell(hl7.oru("M1", anc="0.84", collected=drawn))
    async with httpx2.AsyncClient(base_url=running.url) as door:
        for number in range(2):
            found = fhir.observation("0.840", identifier=f"r-{number}", collected=drawn)
            assert (await door.post("/fhir/Observation", json=found)).status_code == 201
    await running.settled()
    assert await alerts(running) == [("ANC-STOP", "red", "open")]
    assert [row["revision"] for row in await running.deliveries()] == [1, 1]
    assert (len(prescriber.flags()), len(prescriber.tasks()), len(prescriber.messages())) == (1, 1, 1)


def dispensing(on: str, *, status: str = "completed", patient: str = "405660") -> dict[str, Any]:
    clozapine = {"coding": [{"system": "http://www.whocc.no/atc", "code": "N05AH02"}]}
    return {
        "resourceType": "MedicationDispense",
        "status": status,
        "medicationCodeableConcept": clozapine,
        "subject": {"identifier": {"system": "urn:oid:1.2.3", "value": patient}},
        "whenHandedOver": on,
    }


@pytest.mark.parametrize(
    ("status", "told"),
    [("completed", True), ("in-progress", True), ("cancelled", False), ("entered-in-error", False)],
)
async def test_clozapine_that_is_handed_over_after_a_stop_is_told_to_the_prescriber_and_to_the_pharmacist(
    run_engine: Any,
    enrol_by_csv: Any,
    tmp_path: Any,
    url: str,
    hl7: Any,
    prescriber: Any,
    rows_of: Any,
    status: str,
    told: bool,
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=PHARMACY)
    today = datetime.now(UTC).date().isoformat()
    async with httpx2.AsyncClient(base_url=running.url) as door:
        # Before any stop a dispensing is the register's ordinary news.
        assert (await door.post("/fhir/MedicationDispense", json=dispensing(today))).status_code == 201
        await running.settled()
        assert await alerts(running) == []
        await running.tell(hl7.oru("M1", anc="0.40"))
        before = rows_of("SELECT course FROM patient")
        for _ in range(2):
            await door.post("/fhir/MedicationDispense", json=dispensing(today, status=status))
        await running.settled()
    assert await alerts(running) == [("ANC-STOP", "critical", "open"), *([("ANC-REVIEW", "critical", "open")] * told)]
    assert rows_of("SELECT course FROM patient") == before
    codes = sorted(one["code"]["coding"][0]["code"] for one in prescriber.tasks())
    # Of the stop and of the dispensing, each with its copy.
    assert codes == sorted(["ACK-STOP", "INFORM-PHARMACIST", *["CHECK-DISPENSING", "INFORM-PHARMACIST"] * told])
    assert {one["owner"]["reference"] for one in prescriber.tasks() if "owner" in one} <= {"Organization/lab"}


async def test_a_count_without_a_unit_asks_the_laboratory_to_call_back(
    run_engine: Any, enrol_by_csv: Any, tmp_path: Any, url: str, hl7: Any, prescriber: Any
) -> None:
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=PHARMACY)
    await running.tell(hl7.oru("M1", anc="1.25", unit=""))
    await running.settled()
    found = {one["code"]["coding"][0]["code"]: one for one in prescriber.tasks()}
    assert found.keys() == {"REVIEW-RESULT", "CALL-BACK"}
    assert found["CALL-BACK"]["owner"] == {"reference": "Organization/lab"}
    assert found["CALL-BACK"]["description"].startswith("Une numération des neutrophiles n'a pas pu être jugée")
    # The copies go where Tasks are; the results inbox gets the alert once.
    assert len(prescriber.messages()) == 1
