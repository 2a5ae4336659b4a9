"""Leukocytes times a percentage: the count they give, what rounding allows of it, and a reported count held against it."""

from __future__ import annotations

from decimal import Context, Decimal

from ingest.reading.repeats import only
from ingest.reading.rows import Measure
from rules.model import AbsoluteNeutrophilCount

__all__ = ["against", "product"]

_EXACT = Context(prec=80)
_HALF = Decimal("0.5")


def _bounds(part: Measure, band: Measure | None, wbc: Measure) -> tuple[Decimal, Decimal, Decimal]:
    """``(lowest, point, highest)`` of leukocytes times fraction, exact, with half a step of rounding on each input."""
    low_part = point_part = high_part = Decimal(0)
    for m in (part, band):
        if m is not None and m.value is not None:
            half = m.step * _HALF
            low_part += max(m.value - half, Decimal(0))
            point_part += m.value
            high_part += m.value + half
    cells = wbc.value if wbc.value is not None else Decimal(0)
    half = wbc.step * _HALF
    return (
        _EXACT.multiply(low_part, max(cells - half, Decimal(0))),
        _EXACT.multiply(point_part, cells),
        _EXACT.multiply(high_part, cells + half),
    )


def product(part: Measure, band: Measure | None, wbc: Measure, *, whole: bool) -> AbsoluteNeutrophilCount:
    low, point, _ = _bounds(part, band, wbc)
    comparator = part.comparator or wbc.comparator
    if comparator in ("<", "<="):
        low = Decimal(0)
    elif not whole:
        comparator = ">="
    return AbsoluteNeutrophilCount(per_mm3=point, comparator=comparator, derived=True, lower_bound=low)


def against(m: Measure, wbc: Measure, parts: list[Measure]) -> tuple[Decimal | None, list[str]]:
    """The reported count held against the leukocytes: ``(lower bound when they say less, doubts)``."""
    if m.value is None or wbc.value is None or wbc.comparator:
        return None, []
    if m.value - m.step > wbc.value + wbc.step:
        return None, ["exceeds-leukocytes"]
    part = only(parts)
    if part is None or part.value is None or part.comparator:
        return None, []
    low, point, high = _bounds(part, None, wbc)
    # A whole step of slack on the reported side: some analysers cut instead of rounding.
    if low - m.step <= m.value <= high + m.step:
        return None, []
    return (low if point < m.value else None), ["derived-disagrees"]
