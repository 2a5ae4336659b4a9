"""The value of a result's record: exact, pseudonymous, and as docs/asyncapi.yaml says."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from emitters.kafka_results import RESULT_SCHEMA, ResultRecord, value_of
from rules.model import (
    AbsoluteNeutrophilCount,
    LabResult,
    OrderReference,
    PatientIdentifier,
    ResultStatus,
    Trust,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SOUND = LabResult(
    status=ResultStatus.FINAL,
    anc=AbsoluteNeutrophilCount(per_mm3=Decimal("1250.50")),
    collected_at=NOON,
    key="SIL|LABO|B2001|751-8|",
    code="751-8",
    code_system="http://loinc.org",
    display="Neutrophils of DOMINIQUE",
    value_as_sent="1.2505",
    identifiers=(PatientIdentifier("405660", "urn:oid:1.2.3", "PI"),),
    order=OrderReference(filler="B2001^SIL"),
)


def record(result: LabResult = SOUND, **other: Any) -> ResultRecord:
    given: dict[str, Any] = {"result_id": 7, "patient_id": "p1", "version": 2, "current": True, "result": result}
    return ResultRecord(**given | other)


def told(one: ResultRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(value_of(one))
    return found


@pytest.fixture(scope="module")
def payload() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    spec = yaml.safe_load((root / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = spec["channels"]["results"]["messages"]["result"]["payload"]
    return found


def test_a_count_is_written_exactly_and_names_its_version() -> None:
    said = told(record())
    assert (said["schema"], said["result_id"], said["patient"], said["version"]) == (RESULT_SCHEMA, "7", "p1", 2)
    assert (said["anc_per_mm3"], said["collected_at"]) == ("1250.5", "2026-11-22T12:00:00+00:00")


@pytest.mark.parametrize("secret", ["405660", "1.2.3", "B2001", "SIL", "DOMINIQUE"])
def test_nothing_in_it_names_the_patient_or_the_order(secret: str) -> None:
    assert secret not in value_of(record()).decode()


def test_all_versions_of_a_measurement_have_one_name_and_those_of_two_patients_have_two() -> None:
    names = {told(record(version=number))["measurement"] for number in (1, 2, 3)}
    assert len(names) == 1
    assert told(record(patient_id="p2"))["measurement"] not in names


def test_a_measurement_that_goes_on_under_another_channels_name_says_which_it_was() -> None:
    renamed = dataclasses.replace(SOUND, key="other", also=(SOUND.key,))
    assert told(record(renamed))["also_known_as"] == [told(record())["measurement"]]


@pytest.mark.parametrize("status", [ResultStatus.CANCELLED, ResultStatus.ENTERED_IN_ERROR])
def test_a_withdrawn_count_has_no_number(status: ResultStatus) -> None:
    said = told(record(dataclasses.replace(SOUND, status=status)))
    assert (said["anc_per_mm3"], said["status"]) == (None, status.value)


@pytest.mark.parametrize(
    "result",
    [
        SOUND,
        dataclasses.replace(SOUND, status=ResultStatus.CANCELLED, anc=None, collected_at=None),
        dataclasses.replace(
            SOUND,
            trust=Trust.PROVISIONAL,
            doubts=("code-unit-conflict",),
            anc=AbsoluteNeutrophilCount(per_mm3=Decimal(400), comparator="<", derived=True, lower_bound=Decimal(380)),
            issued_at=NOON,
        ),
    ],
)
def test_each_value_is_as_the_asyncapi_file_says(result: LabResult, payload: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(payload).validate(told(record(result)))
    assert set(told(record(result))) == set(payload["properties"]) == set(payload["required"])
