"""From one row of a blood count to a measure, or to the reason why there is none.

Rule of the file: code, unit, name, specimen and value speak together. Where they disagree and the unit says what the number
is, the row is provisional; where it does not, a person must look.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from ingest.reading.codes import Dimension
from ingest.reading.recognition import Recognition
from ingest.reading.times import Stamp
from ingest.reading.units import Unit, unit_of
from ingest.reading.values import Number, Refusal
from rules.model import Comparator, OrderReference, ResultStatus

__all__ = ["Fault", "Measure", "Row", "Skip", "measure_of"]


@dataclass(slots=True, kw_only=True)
class Row:
    """One observation as the message has it, before it is judged. ``spoiled``: why its specimen is worth nothing."""

    where: str
    recognition: Recognition
    number: Number | Refusal
    value_sent: str
    value_where: str
    unit: Unit | None
    unit_sent: str
    unit_where: str
    unit_conflict: bool = False
    status: ResultStatus
    doubts: tuple[str, ...] = ()
    specimen: Literal["blood", "fluid", "unknown"] = "unknown"
    spoiled: str = ""
    range_low: Decimal | None = None
    range_high: Decimal | None = None
    stamp: Stamp = Stamp(None)
    issued: Stamp = Stamp(None)
    key: str = ""
    sub_id: str = ""
    order: OrderReference = OrderReference()
    group: object = None
    """Rows of equal group come from one specimen."""


class Measure(NamedTuple):
    """``value``: cells per mm3, or parts of one; None when withdrawn. ``step`` is the smallest step, in the same unit."""

    row: Row
    analyte: str
    dimension: Dimension
    value: Decimal | None
    step: Decimal = Decimal(0)
    comparator: Comparator | None = None
    doubts: tuple[str, ...] = ()


class Fault(NamedTuple):
    """A measurement that is recognisably there and cannot be read."""

    code: str
    where: str
    text: str


class Skip(NamedTuple):
    """Not a measurement of neutrophils in blood."""

    reason: str


_MOST_CELLS = Decimal(100_000)
_MOST_LEUKOCYTES = Decimal(1_000_000)
# A count of cells that is not nought is at least of one cell in the microlitres that an analyser looks at.
_FEWEST_CELLS = Decimal("0.1")
_ONE = Decimal(1)


def measure_of(row: Row) -> Measure | Fault | Skip:
    """Judge one row. ``row.recognition.claim`` must be set."""
    claim = row.recognition.claim
    if claim is None:
        return Skip(row.recognition.reason)
    elsewhere = _elsewhere(row)
    if elsewhere is not None:
        return elsewhere
    if row.status.withdrawn:
        kind = claim.dimension or (row.unit.kind if row.unit else "count")
        return Measure(row=row, analyte=claim.analyte, dimension=kind, value=None)
    if row.spoiled:
        return Fault(row.spoiled, row.where, f"{row.where}: the specimen is not fit for a count")
    number = row.number
    if isinstance(number, Refusal):
        return Fault(number.code, row.value_where, f"{row.value_where}: {number.text}")
    unit = _unit(row, number)
    if isinstance(unit, Fault):
        return unit
    doubts = row.recognition.doubts
    if claim.dimension is not None and claim.dimension != unit.kind:
        doubts = (*doubts, "code-unit-conflict")
    if claim.analyte == "wbc" and unit.kind != "count":
        return Skip("leukocytes")
    return _sized(row, claim.analyte, number, unit, doubts)


def _elsewhere(row: Row) -> Fault | Skip | None:
    if row.specimen != "fluid" and not row.recognition.fluid:
        return None
    if row.recognition.coded and row.recognition.measures_neutrophils:
        return Fault("specimen-conflict", row.where, f"{row.where}: a code for blood on another specimen")
    return Skip("body-fluid")


def _unit(row: Row, number: Number) -> Unit | Fault:
    if row.unit_conflict:
        return Fault("unit-conflict", row.unit_where, f"{row.unit_where}: the unit is given twice and differs")
    unit = row.unit
    if number.unit:
        beside = unit_of(number.unit)
        if beside is None:
            return Fault("value-not-a-number", row.value_where, f"{row.value_where}: text beside the number")
        if row.unit_sent and unit != beside:
            return Fault("unit-conflict", row.unit_where, f"{row.unit_where}: another unit stands beside the value")
        unit = beside
    if unit is None and not row.unit_sent:
        return Fault("unit-missing", row.unit_where, f"{row.unit_where}: no unit, no number")
    if unit is None:
        return Fault("unit-unknown", row.unit_where, f"{row.unit_where}: unknown unit {row.unit_sent[:40]!r}")
    return unit


def _sized(row: Row, analyte: str, number: Number, unit: Unit, doubts: tuple[str, ...]) -> Measure | Fault:
    value = number.value * unit.factor
    step = number.step * unit.factor
    most = _ONE if unit.kind != "count" else _MOST_LEUKOCYTES if analyte == "wbc" else _MOST_CELLS
    if value > most or (unit.kind == "count" and 0 < value < _FEWEST_CELLS):
        size = "larger" if value > most else "smaller"
        return Fault(
            "magnitude-impossible",
            row.value_where,
            f"{row.value_where}: {size} than any such value: is the unit right?",
        )
    if unit.kind == "count":
        if number.point_of_three and unit.factor == 1 and number.value * 1000 <= most:
            return Fault(
                "value-ambiguous",
                row.value_where,
                f"{row.value_where}: a point before three digits: decimals or thousands?",
            )
        if analyte != "bands" and not _in_range_of_blood(row, unit, analyte):
            return Fault(
                "unit-range-conflict", row.unit_where, f"{row.unit_where}: the reference range is not in this unit"
            )
        if unit.factor <= 1 and value < 100 and number.value != number.value.to_integral_value():
            doubts = (*doubts, "unit-suspect")
    return Measure(
        row=row,
        analyte=analyte,
        dimension=unit.kind,
        value=value,
        step=step,
        comparator=number.comparator,
        doubts=doubts,
    )


def _in_range_of_blood(row: Row, unit: Unit, analyte: str) -> bool:
    """False: the laboratory's reference range, in this unit, belongs to no human blood; the unit is wrong by a power."""
    low, high = row.range_low, row.range_high
    if high is not None and high > 0:
        return Decimal(1500) <= high * unit.factor <= (Decimal(90_000) if analyte == "wbc" else Decimal(60_000))
    if low is not None and low > 0:
        return Decimal(100) <= low * unit.factor <= Decimal(20_000)
    return True
