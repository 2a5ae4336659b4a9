"""FHIR senders that prove nothing: what one calls Patient/1 or Observation/1 is not what another calls so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.identity import sender_of
from ingest import envelope
from store.port import Claim

HERE, THERE = "10.0.0.7:50122", "10.0.0.8:40100"


def patient(identifier: str = "") -> dict[str, Any]:
    given = {"identifier": [{"system": "urn:oid:1.2.3", "value": identifier}]} if identifier else {}
    return {"resourceType": "Patient", "id": "1", "name": [{"family": "SPECIMEN"}], **given}


def statement() -> dict[str, Any]:
    return {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": {"coding": [{"system": "http://www.whocc.no/atc", "code": "N05AH02"}]},
        "subject": {"reference": "Patient/1"},
        "effectivePeriod": {"start": "2026-07-01"},
    }


@pytest.fixture
def tell(running: Any) -> Any:
    """Stores bodies as the FHIR door does for a peer without a token, and waits until they are judged."""

    async def told(peer: str, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            raw = json.dumps(body).encode()
            await running.store.accept(envelope.fhir(raw, channel="fhir", peer=peer, now=datetime.now(UTC)))
        await running.settled()

    return told


def bare(fhir: Any, anc: str, **changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = fhir.observation(anc) | {"id": "1", "subject": {"reference": "Patient/1"}}
    del found["identifier"]
    return found | changed


def people(rows_of: Any) -> list[Any]:
    rows: list[Any] = rows_of(
        "SELECT authority, count(DISTINCT patient_id) FROM identifier WHERE value = 'Patient/1' GROUP BY authority"
    )
    return rows


async def test_two_addresses_that_call_somebody_patient_1_mean_two_people(tell: Any, fhir: Any, rows_of: Any) -> None:
    await tell(HERE, patient(), statement(), bare(fhir, "2.5"))
    await tell(THERE, patient(), statement(), bare(fhir, "0.4"))
    assert people(rows_of) == [("urn:neutroflag:fhir:@10.0.0.7", 1), ("urn:neutroflag:fhir:@10.0.0.8", 1)]
    found = rows_of("SELECT patient_id, json_extract(body, '$.anc.per_mm3'), json_extract(body, '$.trust') FROM result")
    assert sorted((float(row[1]), row[2]) for row in found) == [(400, "established"), (2500, "established")]
    assert len({row[0] for row in found}) == 2
    # The stop is of the one whose count it is.
    stopped = {row[0] for row in found if float(row[1]) == 400}
    assert set(rows_of("SELECT patient_id FROM alert WHERE family = 'ANC-STOP' AND state = 'open'")) == stopped


async def test_another_port_of_the_same_address_is_the_same_sender(tell: Any, fhir: Any, rows_of: Any) -> None:
    await tell(HERE, patient(), statement())
    await tell("10.0.0.7:50999", bare(fhir, "0.4"))
    assert rows_of("SELECT json_extract(body, '$.trust') FROM result") == ["established"]
    assert rows_of("SELECT count(*) FROM alert WHERE family = 'ANC-STOP' AND state = 'open'") == [1]


@pytest.mark.parametrize(("anc", "stops"), [("0.4", 1), ("2.5", 0)])
async def test_a_count_by_a_name_that_only_another_address_gave_may_alarm_and_never_reassures(
    tell: Any, fhir: Any, rows_of: Any, anc: str, stops: int
) -> None:
    await tell(HERE, patient(), statement())
    await tell(THERE, bare(fhir, anc))
    [(trust, doubts)] = rows_of("SELECT json_extract(body, '$.trust'), json_extract(body, '$.doubts') FROM result")
    assert (trust, json.loads(doubts)) == ("provisional", ["sender-unproven"])
    assert rows_of("SELECT count(*) FROM alert WHERE family = 'ANC-STOP' AND state = 'open'") == [stops]
    assert people(rows_of) == [("urn:neutroflag:fhir:@10.0.0.7", 1)]


async def test_a_treatment_by_a_name_that_only_another_address_gave_is_a_task(tell: Any, rows_of: Any) -> None:
    await tell(HERE, patient(), statement())
    ended = statement() | {"status": "stopped", "effectivePeriod": {"start": "2026-07-01", "end": "2026-10-01"}}
    await tell(THERE, ended)
    tasks = rows_of("SELECT json_extract(body, '$.reason') FROM alert WHERE family = 'ANC-REVIEW' AND state = 'open'")
    assert "sender-unproven" in tasks


async def test_two_results_called_observation_1_of_one_patient_are_two_counts(
    tell: Any, fhir: Any, rows_of: Any, before: Any
) -> None:
    known = {"subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "405660"}}}
    earlier = before(hours=3).isoformat()
    await tell(HERE, bare(fhir, "0.4", effectiveDateTime=earlier, **known))
    await tell(THERE, bare(fhir, "2.5", **known))
    found = rows_of("SELECT json_extract(body, '$.anc.per_mm3') FROM result WHERE current ORDER BY collected_at")
    assert [float(one) for one in found] == [400, 2500]
    # The other laboratory's sound count has not taken the stop back.
    assert rows_of("SELECT count(*) FROM alert WHERE family = 'ANC-STOP' AND state = 'open'") == [1]
    # The same sender's does correct its own.
    await tell(HERE, bare(fhir, "2.4", effectiveDateTime=earlier, status="corrected", **known))
    found = rows_of("SELECT json_extract(body, '$.anc.per_mm3') FROM result WHERE current ORDER BY collected_at")
    assert [float(one) for one in found] == [2400, 2500]


@pytest.mark.parametrize(
    ("channel", "peer", "sender", "whose"),
    [
        ("fhir", "10.0.0.7:50122", "", "@10.0.0.7"),
        ("fhir", "::1:50122", "", "@::1"),
        ("fhir", "lab1@10.0.0.7:50122", "lab1", "lab1"),
        ("kafka", "lab.results[0]@17", "", "@lab.results"),
        ("files", "/srv/in", "", "@/srv/in"),
        ("fhir", "", "", "@"),
    ],
)
def test_whose_bare_references_they_are(channel: str, peer: str, sender: str, whose: str) -> None:
    claim = Claim(
        message_id=1,
        format="fhir",
        channel=channel,
        sender=sender,
        control_id="",
        received_at=datetime.now(UTC),
        raw=b"",
        peer=peer,
    )
    assert sender_of(claim) == whose
