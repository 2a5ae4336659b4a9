"""Rows that tell one measurement more than once: the same again, in another unit, with another value, or unreadable."""

from __future__ import annotations

from decimal import Decimal

from ingest.reading.rows import Fault, Measure, Row

__all__ = ["contradicts", "only", "retells", "same"]

_HALF = Decimal("0.5")


def only(measures: list[Measure]) -> Measure | None:
    """The one measure, repeats of the same value allowed; None when there is none or they differ."""
    if not measures:
        return None
    if len(measures) == 1:
        return measures[0]
    first = min(measures, key=lambda m: m.step)
    return first if all(m is first or same(first, m) for m in measures) else None


def same(a: Measure, b: Measure) -> bool:
    """One count in two notations: equal within the rounding of both, same bound, same status, same time."""
    if a.row.status is not b.row.status or a.row.stamp.at != b.row.stamp.at or a.comparator != b.comparator:
        return False
    if a.value is None or b.value is None:
        return a.value is b.value and a.row.recognition.coding.code == b.row.recognition.coding.code
    return abs(a.value - b.value) <= (a.step + b.step) * _HALF if a.step != b.step else a.value == b.value


def contradicts(m: Measure, other: Measure) -> bool:
    """One measurement told twice with two values, and no status says which of them is the later one."""
    return other is not m and other.row.key == m.row.key and other.row.status is m.row.status


def retells(row: Row, fault: Fault, m: Measure) -> bool:
    """An unreadable row of the very measurement that was read from another: which of them holds is not known.

    Words under the code of the count (``contrôlé au microscope``) are a remark, unless they speak of the specimen.
    """
    if row.key != m.row.key or row.status.withdrawn:
        return False
    words = row.value_sent
    remark = any(c.isalpha() for c in words) and not any(c.isdigit() for c in words)
    return not (remark and fault.code in ("value-not-a-number", "value-coded"))
