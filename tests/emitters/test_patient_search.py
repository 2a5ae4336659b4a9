"""One search for the patients of several alerts: each gets its own, and no more is believed than its own would say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.patient_search import PatientSearch
from emitters.sink import Delivered, Refused
from rules.model import PatientIdentifier

SYSTEM = "urn:oid:1.2.3"


def patient(id_: str, *values: str) -> dict[str, Any]:
    rows = [{"system": SYSTEM, "value": value} for value in values]
    return {"resource": {"resourceType": "Patient", "id": id_, "identifier": rows}}


class Register:
    """A server's patients, and what each search asked for."""

    def __init__(self, *entries: dict[str, Any], together: Any = None) -> None:
        self.entries = entries
        self.together = together
        """What a search for more than one says instead."""
        self.asked: list[list[str]] = []

    async def search(self, asked: Sequence[dict[str, Any]]) -> Any:
        values = [one["value"] for one in asked]
        self.asked.append(values)
        await asyncio.sleep(0)
        if len(values) > 1 and self.together is not None:
            if isinstance(self.together, Exception):
                raise self.together
            return self.together
        found = [one for one in self.entries if {row["value"] for row in one["resource"]["identifier"]} & {*values}]
        return {"resourceType": "Bundle", "type": "searchset", "entry": found}


async def all_of(register: Register, *values: str) -> list[str | Refused]:
    search = PatientSearch(register.search, most=100, keep_s=600)
    return await asyncio.gather(*(search.find((one,), [{"system": SYSTEM, "value": one}]) for one in values))


PEOPLE = [patient(f"p{number}", str(number)) for number in range(40)]


async def test_those_that_wait_are_asked_for_together_and_each_gets_its_own() -> None:
    register = Register(*PEOPLE)
    assert await all_of(register, *map(str, range(40))) == [f"Patient/p{number}" for number in range(40)]
    assert sorted(chain(*register.asked)) == sorted(map(str, range(40)))  # each asked for once
    assert len(register.asked) == 2
    assert max(map(len, register.asked)) == 24


async def test_one_that_is_missing_or_ambiguous_is_asked_for_by_itself_and_harms_no_other() -> None:
    register = Register(*PEOPLE, patient("twin", "7"))
    found = await all_of(register, "6", "7", "8", "nobody", "9")
    assert [one if isinstance(one, str) else one.code for one in found] == [
        "Patient/p6",
        "patient-ambiguous",
        "Patient/p8",
        "patient-not-found",
        "Patient/p9",
    ]
    assert ["7"] in register.asked
    assert ["nobody"] in register.asked


@pytest.mark.parametrize(
    "together",
    [
        Refused("http-400", "HTTP 400"),
        {"resourceType": "Bundle", "entry": [patient("p1", "1")], "link": [{"relation": "next", "url": "x"}]},
        {"resourceType": "Bundle", "entry": [patient("p1", "1")], "total": 3},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient", "identifier": [7]}}]},
        {"resourceType": "Bundle", "entry": [], "link": "odd"},
    ],
)
async def test_what_a_common_search_cannot_say_wholly_each_search_says(together: Any) -> None:
    register = Register(*PEOPLE, together=together)
    assert await all_of(register, "1", "2", "3") == ["Patient/p1", "Patient/p2", "Patient/p3"]


async def test_a_common_search_that_fails_fails_for_those_it_asked_for_and_for_nobody_later() -> None:
    register = Register(*PEOPLE, together=ConnectionError("gone"))
    search = PatientSearch(register.search, most=100, keep_s=600)
    first = await asyncio.gather(
        *(search.find((one,), [{"system": SYSTEM, "value": one}]) for one in ("1", "2")), return_exceptions=True
    )
    assert all(isinstance(one, ConnectionError) for one in first)
    assert await search.find(("1",), [{"system": SYSTEM, "value": "1"}]) == "Patient/p1"


async def test_whoever_stopped_waiting_keeps_nobody_from_their_answer() -> None:
    register = Register(*PEOPLE)
    search = PatientSearch(register.search, most=100, keep_s=600)
    waiting = [asyncio.create_task(search.find((one,), [{"system": SYSTEM, "value": one}])) for one in ("1", "2", "3")]
    await asyncio.sleep(0)
    waiting[1].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert (found[0], found[2]) == ("Patient/p1", "Patient/p3")
    await search.close()


async def test_ten_alerts_at_once_find_their_patients_on_a_server(ehr: Any, make: Any) -> None:
    alerts = []
    for number in range(10):
        ehr.add_patient((SYSTEM, f"x{number}"), id_=f"x{number}")
        subject = replace(make.alert().subject, identifiers=(PatientIdentifier(f"x{number}", SYSTEM),))
        alerts.append(make.alert(id=f"alert-{number}", subject=subject))
    sink = FhirServer(FhirServerSettings(name="ehr", url=ehr.url))
    try:
        answers = await asyncio.gather(*(sink.send(one, "x" * 20) for one in alerts))
        assert all(isinstance(one, Delivered) for one in answers)
        assert {one["subject"]["reference"] for one in ehr.flags()} == {f"Patient/x{number}" for number in range(10)}
        assert {one["identifier"][0]["value"]: one["subject"]["reference"] for one in ehr.flags()} == {
            f"alert-{number}": f"Patient/x{number}" for number in range(10)
        }
        assert ehr.requests["GET"] < 10  # the statement, and a few searches
    finally:
        await sink.close()
