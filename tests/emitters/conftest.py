"""Alerts to send: one builder, whose defaults are a critical stop of 840 /mm3 that the laboratory calls 0.840 G/L."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from pyfhircheck import Validator
from pyfhircheck.config import ValidatorConfig

from emitters.fhir import encode
from engine.prescriber import Prescriber
from rules.model import (
    AbsoluteNeutrophilCount,
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    Assessment,
    Citation,
    LabResult,
    OrderReference,
    PatientIdentifier,
    Person,
    ResultStatus,
    Subject,
)

PARIS = timezone(timedelta(hours=1))
IPP = PatientIdentifier("405660", "urn:oid:1.2.3.4.5.6", "PI")

MakeAlert = Callable[..., Alert]


def _count(per_mm3: str, **other: Any) -> AbsoluteNeutrophilCount:
    return AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3), **other)


def _result(**other: Any) -> LabResult:
    given: dict[str, Any] = {
        "status": ResultStatus.FINAL,
        "anc": _count("840", reporting_unit=Decimal(10)),
        "collected_at": datetime(2026, 11, 22, 8, 5, tzinfo=PARIS),
        "issued_at": datetime(2026, 11, 22, 10, 12, tzinfo=PARIS),
        "identifiers": (IPP,),
        "key": "SIL-Y|labo|1001-E1|ANC|1",
        "code": "PNN",
        "code_system": "99SIL",
        "display": "Polynucléaires neutrophiles",
        "value_as_sent": "0.840",
        "unit_as_sent": "G/L",
        "sub_id": "1",
        "where": "OBX[2]",
        "order": OrderReference(placer="98765431^SIL", filler="1001-E1^labo"),
    }
    return LabResult(**given | other)


def _assessment(**other: Any) -> Assessment:
    given: dict[str, Any] = {
        "protocol": "ansm@2025-09",
        "category": "moderate",
        "action": "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE",
        "alert": AlertLevel.CRITICAL,
        "rule": "R5",
        "citations": (Citation("ansm", "Actions", "doivent immediatement arreter le traitement"),),
        "next_due": date(2026, 11, 23),
        "family": AlertFamily.STOP,
        "threshold_per_mm3": Decimal(1000),
    }
    return Assessment(**given | other)


def _alert(**other: Any) -> Alert:
    given: dict[str, Any] = {
        "id": "a32b4821-51a4-5253-b956-d3b932eed8fc",
        "revision": 1,
        "kind": AlertKind.RAISED,
        "family": AlertFamily.STOP,
        "level": AlertLevel.CRITICAL,
        "title": "PNN 0,84 G/L : arrêter la clozapine immédiatement",
        "text": "PNN 840/mm3 < 1000/mm3 & en baisse.\nNe pas réexposer ; NFS demain.",
        "subject": Subject(
            register_id="reg-17",
            identifiers=(IPP, PatientIdentifier("279035121518989", "urn:oid:1.2.250.1.213.1.4.10", "INS")),
            person=Person(family="PAT-TROIS", given="DOMINIQUE", birth_date=date(1979, 3, 28), sex="F"),
            owner="PractitionerRole/psy1",
        ),
        "raised_at": datetime(2026, 11, 22, 10, 16, 5, tzinfo=PARIS),
        "updated_at": datetime(2026, 11, 22, 10, 16, 5, tzinfo=PARIS),
        "assessment": _assessment(),
        "result": _result(),
        "source": "SIL-Y|labo|MSG000123",
    }
    return Alert(**given | other)


def _review(**other: Any) -> Alert:
    given: dict[str, Any] = {
        "family": AlertFamily.REVIEW,
        "level": AlertLevel.AMBER,
        "title": "Résultat de PNN illisible",
        "text": "L'unité manque.",
        "assessment": None,
        "result": None,
        "reason": "unit-missing",
        "where": "OBX[2]-6",
    }
    return _alert(**given | other)


def _later(**other: Any) -> Alert:
    """Revision 2 of the same alert, two hours on."""
    given: dict[str, Any] = {
        "revision": 2,
        "kind": AlertKind.UPDATED,
        "updated_at": datetime(2026, 11, 22, 12, 16, 5, tzinfo=PARIS),
    }
    return _alert(**given | other)


class Make:
    """What a test says in its own words, with everything else at its default."""

    alert = staticmethod(_alert)
    assessment = staticmethod(_assessment)
    count = staticmethod(_count)
    later = staticmethod(_later)
    result = staticmethod(_result)
    review = staticmethod(_review)
    ipp = IPP


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture
async def ehr() -> AsyncIterator[Prescriber]:
    async with Prescriber() as system:
        system.add_patient(("urn:oid:1.2.3.4.5.6", "405660"), id_="p1")
        yield system


@pytest.fixture
def every_alert() -> list[Alert]:
    """One of each family, level, kind and reason."""
    found = []
    for family, level, kind in product(AlertFamily, AlertLevel, AlertKind):
        build = _review if family is AlertFamily.REVIEW else _alert
        for reason in ("corrected", "entered-in-error") if kind is AlertKind.WITHDRAWN else ("",):
            found.append(build(family=family, level=level, kind=kind, **({"reason": reason} if reason else {})))
    return found


@pytest.fixture
def foreign_errors() -> Callable[[dict[str, Any]], list[str]]:
    """pyfhircheck knows required bindings; references out of the bundle and our own extensions are not its business."""

    def judge(bundle: dict[str, Any]) -> list[str]:
        validator = Validator(ValidatorConfig())
        errors = []
        for one in json.loads(encode(bundle))["entry"]:
            errors += [
                f"{issue.path}: {issue.code} {issue.message}"
                for issue in validator.validate_resource(one["resource"]).errors
            ]
        # It knows the codes that R4B's short text names, and that ends with "+": the official definitions, by which
        # deploy/dev/fhir-validate judges the golden files, have all of observation-status and of task-status.
        shortened = tuple(
            f"{kind}.status: terminology.required Code '{code}'"
            for kind, code in (("DetectedIssue", "corrected"), ("Observation", "corrected"), ("Task", "cancelled"))
        )
        return [error for error in errors if "reference" not in error.lower() and not error.startswith(shortened)]

    return judge
