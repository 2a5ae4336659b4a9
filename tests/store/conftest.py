"""Envelopes and records whose every part a test may name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from rules.model import (
    AbsoluteNeutrophilCount,
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    LabResult,
    PatientIdentifier,
    ResultStatus,
    Subject,
)
from store import Envelope
from store.port import Delivery, PatientRecord, ResultRecord, Work

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def url(each_database: str) -> str:
    """The store's contract is the same on both."""
    return each_database


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def envelope() -> Callable[..., Envelope]:
    def make(control_id: str = "M1", text: str = "MSH|one", **other: Any) -> Envelope:
        given: dict[str, Any] = {
            "channel": "mllp",
            "format": "hl7v2",
            "raw": text.encode(),
            "received_at": NOON,
            "content_hash": hashlib.blake2b(text.encode(), digest_size=32).digest(),
            "dedupe_key": control_id.encode(),
            "sender": "SIL|LABO",
            "control_id": control_id,
        }
        return Envelope(**given | other)

    return make


@pytest.fixture
def patient() -> Callable[..., tuple[PatientRecord, PatientIdentifier]]:
    def make(number: str = "p1", value: str = "405660", *, enrolled: bool = True) -> Any:
        item = PatientIdentifier(value, "urn:oid:1.2.3", "PI")
        return PatientRecord(id=number, enrolled=enrolled, new=True, identifiers=[item]), item

    return make


@pytest.fixture
def count() -> Callable[..., ResultRecord]:
    def make(number: int = 7, patient_id: str = "p1", message_id: int = 1, per_mm3: str = "840") -> ResultRecord:
        result = LabResult(
            status=ResultStatus.FINAL,
            anc=AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3)),
            collected_at=NOON,
            key=f"key-{number}",
            id=number,
        )
        return ResultRecord(
            id=number, patient_id=patient_id, message_id=message_id, key=result.key, version=1, result=result
        )

    return make


@pytest.fixture
def alert() -> Callable[..., Alert]:
    def make(number: str = "a1", revision: int = 1) -> Alert:
        return Alert(
            id=number,
            revision=revision,
            kind=AlertKind.RAISED,
            family=AlertFamily.STOP,
            level=AlertLevel.RED,
            title="stop",
            text="stop",
            subject=Subject(register_id="p1"),
            raised_at=NOON,
            updated_at=NOON,
        )

    return make


@pytest.fixture
def outgoing(alert: Callable[..., Alert]) -> Callable[..., Work]:
    """Work that holds one alert and its delivery to each destination."""
    from store.port import AlertRecord

    def make(*numbers: int, patient_id: str | None = "p1", destination: str = "ehr") -> Work:
        work = Work()
        for number in numbers:
            what = alert(f"a{number}")
            work.alerts.append(AlertRecord(alert=what, patient_id=patient_id))
            work.deliveries.append(
                Delivery(id=number, destination=destination, control_id=f"c{number}", alert=what, patient_id=patient_id)
            )
        return work

    return make
