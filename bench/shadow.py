"""A database of many patients with long histories, and what a shadow run over all of it takes."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.shadow import shadows
from rules.model import AbsoluteNeutrophilCount, LabResult, PriorNeutropenia, ResultStatus, TreatmentCourse
from store import database
from store.tables import metadata, patient, result
from store.values import encode, to_ms

__all__ = ["shadow_s"]

COUNTS = 50
_BLOCK = 1000


def shadow_s(patients: int) -> tuple[float, int]:
    """(seconds for ``patients`` with 50 counts each, those whose treatment would differ), European before to ANSM."""
    with tempfile.TemporaryDirectory(prefix="neutroflag-shadow-") as folder:
        url = f"sqlite:///{Path(folder) / 'shadow.db'}"
        _fill(url, patients)
        started = time.perf_counter()
        differ = sum(
            one.shadow.treatment is not None
            for _, block in shadows(url, "EU-SMPC-PRE2025", "ANSM-2025")
            for one in block
        )
        return time.perf_counter() - started, differ


def _fill(url: str, patients: int) -> None:
    chance = random.Random(20260908)  # noqa: S311 - invented patients
    engine = database.writer(url)
    with engine.connect() as connection, connection.begin():
        metadata.create_all(connection)
        for first in range(0, patients, _BLOCK):
            rows: list[dict[str, Any]] = []
            courses = []
            for number in range(first, min(first + _BLOCK, patients)):
                name = f"{chance.getrandbits(64):016x}-{number}"
                start = date(2019, 1, 1) + timedelta(days=chance.randrange(900))
                courses.append(_patient_row(name, start))
                rows += _counts(name, number, start, chance)
            connection.execute(patient.insert(), courses)
            # Counts arrive by time, not by patient.
            chance.shuffle(rows)
            connection.execute(result.insert(), rows)
    engine.dispose()


def _patient_row(name: str, start: date) -> dict[str, Any]:
    course = TreatmentCourse(start=start, start_confirmed_by="Dr Bench", prior_neutropenia=PriorNeutropenia.NONE)
    empty = dict.fromkeys(column.name for column in patient.columns if column.nullable)
    fixed = {"id": name, "enrolled": True, "rev": 1, "person": "{}", "owner": "", "created_at": 0, "updated_at": 0}
    text = {
        column.name: ""
        for column in patient.columns
        if not column.nullable and column.name not in (*fixed, "course") and column.server_default is None
    }
    return {**empty, **text, **fixed, "course": encode(course)}


def _counts(name: str, number: int, start: date, chance: random.Random) -> Iterator[dict[str, Any]]:
    """One patient in ten has a mild count once, one in fifty a stop-level one, at the end."""
    low = chance.randrange(COUNTS) if chance.random() < 0.1 else -1
    for at in range(COUNTS):
        day = 7 * at if at < 18 else 126 + 28 * (at - 18)
        value = chance.randrange(1000, 1500) if at == low else chance.randrange(2100, 6000)
        if at == COUNTS - 1 and number % 50 == 0:
            value = 800
        on = start + timedelta(days=day + 1)
        collected = datetime(on.year, on.month, on.day, 7, tzinfo=UTC)
        key = f"{number}-{at}"
        body = LabResult(
            status=ResultStatus.FINAL,
            anc=AbsoluteNeutrophilCount(per_mm3=Decimal(value), reporting_unit=Decimal(10)),
            collected_at=collected,
            key=key,
            code="751-8",
            code_system="http://loinc.org",
            display="Neutrophils [#/volume] in Blood by Automated count",
            value_as_sent=str(value / 1000),
            unit_as_sent="10*9/L",
            where="OBX[4]",
            id=number * COUNTS + at + 1,
        )
        yield {
            "id": body.id,
            "patient_id": name,
            "message_id": body.id,
            "key": key,
            "version": 1,
            "current": True,
            "collected_at": to_ms(collected),
            "body": encode(body),
        }
