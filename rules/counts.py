"""A patient's established counts, one a day and oldest first.

A judgement of ten years reads a handful of some 150 counts: they are kept as bare days and values, and a ``Count`` is made
when one is read. Only what a bare value cannot say (a sign, a derived count, leukocytes) is kept whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple, overload

__all__ = ["NO_COUNTS", "UNCOUNTED", "Count", "Counts"]

UNCOUNTED = Decimal("Infinity")
"""Leukocytes that nobody counted: above every threshold, so that they lower nothing."""


class Count(NamedTuple):
    """One day's count. ``per_mm3`` is what is compared: the reported value, or the lower bound of a derived one.

    ``just_below``: reported as "<x" (A-22). ``absolute``: reported as such, not derived and not a lower bound, so that it
    can make a ban permanent (B-25). ``upper``: what rounding allows at best.
    """

    on: date
    per_mm3: Decimal
    just_below: bool
    absolute: bool
    upper: Decimal
    leukocytes: Decimal = UNCOUNTED
    """Per mm3; only protocols with bands of leukocytes read them."""


class Counts(Sequence[Count]):
    """Frozen by custom: ``days`` rise strictly, ``values`` stand beside them, ``whole`` holds the counts that say more.

    ``whole`` may hold other days too: it is shared with the sequence that this one was cut from.
    """

    __slots__ = ("days", "values", "whole")

    def __init__(self, days: list[date], values: list[Decimal], whole: dict[date, Count]) -> None:
        self.days = days
        self.values = values
        self.whole = whole

    @classmethod
    def of(cls, counts: Iterable[Count]) -> Counts:
        """Counts of different days, oldest first."""
        kept = list(counts)
        return cls([c.on for c in kept], [c.per_mm3 for c in kept], {c.on: c for c in kept})

    def __len__(self) -> int:
        return len(self.days)

    @overload
    def __getitem__(self, at: int) -> Count: ...
    @overload
    def __getitem__(self, at: slice) -> Counts: ...
    def __getitem__(self, at: int | slice) -> Count | Counts:
        if isinstance(at, slice):
            return Counts(self.days[at], self.values[at], self.whole)
        on = self.days[at]
        if on in self.whole:
            return self.whole[on]
        value = self.values[at]
        return Count(on, value, False, True, value)

    def until(self, day: date) -> Counts:
        """Those before ``day``."""
        return self[: bisect_left(self.days, day)]

    def after(self, day: date) -> Counts:
        return self[bisect_right(self.days, day) :]

    def lowest(self) -> Count | None:
        """A count no higher than any of these, in anything: what it clears, all clear."""
        if not self.days:
            return None
        low = min(self.values)
        if not self.whole:
            return Count(self.days[0], low, False, True, low)
        more = [self.whole[on] for on in self.days if on in self.whole]
        fewest = min((c.leukocytes for c in more), default=UNCOUNTED)
        return Count(self.days[0], low, any(c.just_below for c in more), True, low, fewest)


NO_COUNTS = Counts([], [], {})
