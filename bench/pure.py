"""What reading and judging cost without any input or output, in microseconds a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from engine.simulate import blood_count
from ingest.reading import read_message
from rules import assess, packaged
from rules.model import AbsoluteNeutrophilCount, LabResult, PriorNeutropenia, ResultStatus, TreatmentCourse
from wire import er7

__all__ = ["assess_us", "chemistry", "fields_us", "irrelevant_us", "observation_us", "read_us"]

_PARIS = ZoneInfo("Europe/Paris")
_DRAWN = datetime(2026, 11, 22, 7, 40, tzinfo=UTC)


def read_us(rounds: int) -> float:
    """One blood count of 25 OBX; each with its own identifiers, so that nothing is found in a cache by luck."""
    ready = [
        blood_count(control_id=f"R{n}", filler=f"F{n}", patient_id=f"P{n}", anc_per_mm3=1800 + n, collected=_DRAWN)
        for n in range(rounds)
    ]
    return _median_us(lambda n: read_message(ready[n], format="hl7v2", zone=_PARIS), rounds)


def fields_us(rounds: int) -> float:
    """The same count's fields that a reading needs (type, code, value, unit, status of each OBX; patient, times): without any
    judgement of what they mean, and without a ledger."""
    ready = [
        blood_count(control_id=f"R{n}", filler=f"F{n}", patient_id=f"P{n}", anc_per_mm3=1800 + n, collected=_DRAWN)
        for n in range(rounds)
    ]
    return _median_us(lambda n: _fields(ready[n]), rounds)


def _fields(raw: bytes) -> list[object]:
    message = er7.parse(raw)
    if message is None:
        raise ValueError("not a message")
    found: list[object] = []
    for segment in message.segments():
        match segment.name:
            case "OBX":
                row = segment.fields
                found.append((row[2], row[3], row[5], row[6], row[11]))
            case "PID":
                found.append(segment.repetitions(3))
            case "OBR":
                found.append((segment.field(3), segment.field(7)))
    return found


def irrelevant_us(rounds: int) -> float:
    """One chemistry report of 25 OBX."""
    ready = [chemistry(n) for n in range(rounds)]
    return _median_us(lambda n: read_message(ready[n], format="hl7v2", zone=_PARIS), rounds)


def observation_us(rounds: int) -> float:
    """One FHIR Observation."""
    ready = [_observation(n) for n in range(rounds)]
    return _median_us(lambda n: read_message(ready[n], format="fhir", zone=_PARIS), rounds)


def assess_us(rounds: int) -> float:
    """One mild count of a patient with ten years of weekly, then monthly counts."""
    start = date(2016, 11, 1)
    days = [*range(0, 126, 7), *range(126, 3650, 28)]
    history = [_result(start + timedelta(days=day), 2500 + day % 900, f"h{day}") for day in days]
    course = TreatmentCourse(
        start=start, start_confirmed_by="Dr Bench", prior_neutropenia=PriorNeutropenia.NONE, birth_date=date(1980, 1, 1)
    )
    protocol = next(one for one in packaged() if one.id == "ansm")
    on = date(2026, 11, 22)
    result = _result(on, 1300, "now")
    return _median_us(lambda _: assess(protocol, course, history, result, on), rounds)


def _median_us(call: Callable[[int], object], rounds: int) -> float:
    call(0)
    took = []
    for number in range(rounds):
        started = time.perf_counter()
        call(number)
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e6


def _result(on: date, count: int, key: str) -> LabResult:
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(count)),
        collected_at=datetime(on.year, on.month, on.day, 8, tzinfo=_PARIS),
        key=key,
    )


_ANALYTES = (
    "2951-2^Sodium", "2823-3^Potassium", "2075-0^Chlorure", "1963-8^Bicarbonate", "2345-7^Glucose", "3094-0^Urée",
    "2160-0^Créatinine", "17861-6^Calcium", "2777-1^Phosphate", "2885-2^Protéines", "1751-7^Albumine", "1975-2^Bilirubine",
    "1920-8^ASAT", "1742-6^ALAT", "6768-6^Phosphatases alcalines", "2324-2^Gamma GT", "2532-0^LDH", "2157-6^CK",
    "1988-5^Protéine C réactive", "2093-3^Cholestérol", "2571-8^Triglycérides", "2085-9^HDL", "13457-7^LDL",
    "3084-1^Urates", "2601-3^Magnésium",
)  # fmt: skip


def chemistry(number: int) -> bytes:
    rows = [
        f"OBX|{n}|NM|{name}^LN^LOCAL{n}^{name.partition('^')[2]} (sérum)^L|1|{n}.5|mmol/L^mmol/L^UCUM|1-100||||F||||"
        "LABO-EXEMPLE^Laboratoire simulé|TECH-EXEMPLE^Simulé|SPECTRO^Spectrophotométrie^99SIM|AUTOMATE-02^99SIM"
        for n, name in enumerate(_ANALYTES, start=1)
    ]
    head = [
        f"MSH|^~\\&|SIMLAB-NORD|LABO-EXEMPLE-1|NEUTROFLAG|HOPITAL-EXEMPLE|20261122084000+0100||ORU^R01|C{number}|P|2.5",
        f"PID|1||P{number}^^^HOPITAL-EXEMPLE&2.999.1&ISO^PI||EXEMPLE^Chimie^^^^^L||19800101|U",
        f"OBR|1|PC{number}|C{number}|24323-8^Bilan biochimique^LN|||20261122074000+0100||||||||^^Sang",
    ]
    return ("\r".join([*head, *rows]) + "\r").encode()


_OBSERVATION = (
    '{"resourceType":"Observation","id":"o-N","status":"final","identifier":[{"system":"urn:oid:2.999.2","value":"r-N"}],'
    '"code":{"coding":[{"system":"http://loinc.org","code":"751-8","display":"Neutrophils"}]},'
    '"subject":{"identifier":{"system":"urn:oid:2.999.1","value":"P-N"}},"effectiveDateTime":"2026-11-22T07:40:00Z",'
    '"valueQuantity":{"value":2.50,"unit":"10*9/L","system":"http://unitsofmeasure.org","code":"10*9/L"}}'
)


def _observation(number: int) -> bytes:
    return _OBSERVATION.replace("-N", str(number)).encode()
