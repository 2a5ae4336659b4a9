"""A simulated region: many laboratories of different sizes and dialects, in the mixes that a regional group sees in a week.

Rule of the file: message ``number`` depends on the seed, the day and nothing else, so that a run can be made again, and
what the engine made of it can be told from what was sent. Nobody in these messages exists.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

from engine.simulate import AUTHORITY, LABORATORIES, Laboratory, blood_count, other_analyses

__all__ = ["HOURS", "Kind", "Region", "balanced", "expected", "reconciled"]

Kind = Literal["other analyses", "final", "preliminary", "correction", "sent again"]

_BLOCK: Final = 100
# It has no divisor in common with the block: each step finds another place.
_STEP: Final = 37
_AGAIN_EVERY: Final = 2
"""In one block of so many, one message is a message of before, sent again."""
_AGAIN_WITHIN: Final = 90
# Ten counts in their order: which order each is of, and what the laboratory says of it.
_ORDERS: Final[tuple[tuple[int, Kind, str], ...]] = (
    (0, "final", "F"), (1, "final", "F"), (2, "final", "F"), (3, "preliminary", "P"), (3, "final", "F"),
    (5, "final", "F"), (6, "final", "F"), (6, "correction", "C"), (8, "final", "F"), (9, "final", "F"),
)  # fmt: skip


_COLUMNS: Final = (
    "patient_id", "authority", "family", "given", "birth_date", "sex",
    "treatment_start", "start_confirmed_by", "neutropenia_history",
)  # fmt: skip


def _week() -> tuple[float, ...]:
    """How much of a week's messages come in each of its hours, Monday first. Ours, after the shape of a hospital's working
    day: most between 8 and 13 o'clock, Monday morning one and a half times as much as any other, little on Sunday."""
    days = (1.15, 1.0, 1.0, 1.0, 1.0, 0.45, 0.2)
    hours = (*[0.2] * 6, 0.5, 1.5, 2.5, 3.0, 3.0, 2.6, 2.0, 1.6, 1.6, 1.5, 1.3, 1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
    monday = (*[1.0] * 7, *[1.5] * 4, *[1.0] * 13)
    weights = [
        share * hour * (monday[number] if day == 0 else 1.0)
        for day, share in enumerate(days)
        for number, hour in enumerate(hours)
    ]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


HOURS: Final = _week()
"""Shares of a week's messages by hour; their sum is one."""


@dataclass(slots=True, kw_only=True)
class Region:
    """``build(number)`` gives message ``number`` of ``count``; ``due_s(number)`` when it is due, a week being played in
    ``seconds``. ``told`` counts what was built, by kind. ``relevant``: counts among a hundred messages."""

    seed: int
    count: int
    start: datetime
    laboratories: int = 50
    patients: int = 5000
    relevant: int = 1
    seconds: float = 0
    told: Counter[Kind] = field(default_factory=Counter)

    def build(self, number: int) -> bytes:
        kind, _ = self._kind(number)
        self.told[kind] += 1
        return self._bytes(number)

    def kinds(self) -> Counter[Kind]:
        """What the whole run holds, without building it."""
        return Counter(self._kind(number)[0] for number in range(self.count))

    def due_s(self, number: int) -> float:
        """From the start; 0 when nothing was said of a pace."""
        if not self.seconds:
            return 0.0
        share = number / self.count
        hour = next(at for at, until in enumerate(_UNTIL) if share < until)
        before = _UNTIL[hour - 1] if hour else 0.0
        return self.seconds * (hour + (share - before) / HOURS[hour]) / len(HOURS)

    def peak(self) -> float:
        """The busiest hour's rate over the week's mean."""
        return max(HOURS) * len(HOURS)

    def register(self, file: Path, people: int, *, started: datetime, by: str) -> int:
        """Writes the first ``people`` of its patients as a CSV for ``neutroflag patients import``; how many there are."""
        wanted = min(people, self.patients)
        with file.open("w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(_COLUMNS)
            for number in range(wanted):
                name = (_name(number), AUTHORITY, "EXEMPLE", f"Personne{number}", "1980-01-01", "U")
                rows.writerow([*name, started.date().isoformat(), by, "none"])
        return wanted

    def _kind(self, number: int) -> tuple[Kind, int]:
        """And, of counts, the how manieth it is."""
        block, place = divmod(number, _BLOCK)
        first = self._draw("block", block) % _BLOCK
        places = _places(first, self.relevant)
        if place in places:
            nth = block * self.relevant + places.index(place)
            return _ORDERS[nth % len(_ORDERS)][1], nth
        again = (first + _STEP * self.relevant) % _BLOCK
        if place == again and block % _AGAIN_EVERY == 0 and number >= _AGAIN_WITHIN:
            return "sent again", 0
        return "other analyses", 0

    def _bytes(self, number: int) -> bytes:
        kind, nth = self._kind(number)
        if kind == "sent again":
            return self._bytes(number - 1 - self._draw("again", number) % _AGAIN_WITHIN)
        control_id = f"{self.seed % 0xFFFFFF:X}R{number}"
        sent = self.start + timedelta(seconds=number % 3600)
        if kind == "other analyses":
            drawn = self._draw("other", number)
            return other_analyses(
                control_id=control_id, filler=f"{control_id}F", patient_id=_name(drawn % self.patients),
                collected=self.start - timedelta(minutes=40 + drawn % 20), sent=sent, laboratory=self._laboratory(drawn),
            )  # fmt: skip
        order = nth - nth % len(_ORDERS) + _ORDERS[nth % len(_ORDERS)][0]
        drawn = self._draw("order", order)
        count = _count(drawn)
        return blood_count(
            control_id=control_id,
            filler=f"{self.seed % 0xFFFFFF:X}C{order}",
            patient_id=_name(order % self.patients),
            anc_per_mm3=count * Decimal("0.6") // 10 * 10 if kind == "correction" else count,
            # Of one patient two orders never have one time: the same count at the same time would be one fact.
            collected=self.start - timedelta(minutes=30 + order // self.patients % 1000),
            sent=sent,
            laboratory=self._laboratory(drawn),
            status=_ORDERS[nth % len(_ORDERS)][2],
        )

    def _laboratory(self, drawn: int) -> Laboratory:
        # The square draws the first ones more often: a region has few large laboratories and many small ones.
        share = (drawn >> 20) % 10_000
        return _laboratory(share * share * self.laboratories // 100_000_000)

    def _draw(self, what: str, number: int) -> int:
        text = f"{self.seed}|{what}|{number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@functools.lru_cache(maxsize=4096)
def _places(first: int, relevant: int) -> tuple[int, ...]:
    return tuple(sorted((first + _STEP * at) % _BLOCK for at in range(relevant)))


_UNTIL: Final = (*list(accumulate(HOURS))[:-1], 1.0)


@functools.lru_cache(maxsize=4096)
def _laboratory(number: int) -> Laboratory:
    like = LABORATORIES[number % len(LABORATORIES)]
    return dataclasses.replace(like, facility=f"LABO-EXEMPLE-R{number:04}")


def _name(number: int) -> str:
    return f"SIM{number:07d}"


def _count(drawn: int) -> Decimal:
    """Cells per mm3: in a hundred three are below 1500, one below 1000; in a thousand two below 500."""
    thousandth, rest = drawn % 1000, (drawn >> 12) % 1000
    if thousandth < 2:
        return Decimal(100 + rest * 40 // 1000 * 10)
    if thousandth < 10:
        return Decimal(500 + rest * 50 // 1000 * 10)
    if thousandth < 30:
        return Decimal(1000 + rest * 50 // 1000 * 10)
    return Decimal(1500 + rest * 550 // 1000 * 10)


def expected(told: Counter[Kind]) -> dict[str, int]:
    """By group of dispositions, how many messages must end there."""
    return {
        "not_relevant": told["other analyses"],
        "judged or unenrolled": told["final"] + told["preliminary"] + told["correction"],
        "duplicate": told["sent again"],
    }


def reconciled(told: Counter[Kind], before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int, int]]:
    """(group, sent, ended there since) for each group, and "anything else", of which none was sent."""
    grown = Counter(after)
    grown.subtract(before)
    ended = {
        "not_relevant": grown.pop("not_relevant", 0),
        "judged or unenrolled": grown.pop("judged", 0) + grown.pop("unenrolled", 0),
        "duplicate": grown.pop("duplicate", 0),
    }
    lines = [(group, wanted, ended[group]) for group, wanted in expected(told).items()]
    return [*lines, ("anything else", 0, sum(grown.values()))]


def balanced(lines: Sequence[tuple[str, int, int]]) -> bool:
    return all(sent == ended for _, sent, ended in lines)
