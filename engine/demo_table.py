"""The demo's cast, read from its folder: who is on the register, what happens, and what must come of it.

The folder is ``fixtures/demo`` in a checkout and ``engine/demo_cast`` in the installed package.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

__all__ = ["Event", "Expected", "ExpectedAlert", "Patient", "cast", "events", "folder", "register"]

_DAY = re.compile(r"\{(-?\d+)\}")


@dataclass(frozen=True, slots=True)
class ExpectedAlert:
    """``next_due`` in days from the day of the demo; None for an alert that was taken back."""

    family: str
    level: str
    state: str = "open"
    next_due: int | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """A patient's present state at the end of the demo."""

    category: str
    action: str
    level: str
    next_due: int


@dataclass(frozen=True, slots=True)
class Patient:
    """``history``: (day, cells per mm3) of counts before the demo. ``live`` comes during it, ``corrected`` after that."""

    id: str
    shows: str
    laboratory: int
    history: tuple[tuple[int, int], ...]
    live: int
    corrected: int | None
    expect: Expected
    alerts: tuple[ExpectedAlert, ...]
    review: str
    """The coded reason of the REVIEW task that must stand beside the alerts; "" for none."""


@dataclass(frozen=True, slots=True)
class Event:
    """``answer``: the acknowledgement code that the laboratory must get."""

    what: str
    patient: str = ""
    answer: str = ""


def folder() -> Path:
    here = Path(__file__).resolve().parent
    for place in (here / "demo_cast", here.parent / "fixtures" / "demo"):
        if (place / "cast.toml").is_file():
            return place
    raise FileNotFoundError("the demo's cast (cast.toml) is not installed")


def _document() -> dict[str, Any]:
    return tomllib.loads((folder() / "cast.toml").read_text(encoding="utf-8"))


def cast() -> tuple[Patient, ...]:
    return tuple(
        Patient(
            id=row["id"],
            shows=row["shows"],
            laboratory=row["laboratory"],
            history=tuple((day, count) for day, count in row["history"]),
            live=row["live"],
            corrected=row.get("corrected"),
            expect=Expected(**row["expect"]),
            alerts=tuple(ExpectedAlert(**alert) for alert in row.get("alerts", ())),
            review=row.get("review", ""),
        )
        for row in _document()["patient"]
    )


def events() -> tuple[Event, ...]:
    return tuple(Event(**row) for row in _document()["event"])


def register(day: date) -> str:
    """The register as CSV, with ``{-45}`` replaced by the day 45 days before ``day``."""
    text = (folder() / "register.csv").read_text(encoding="utf-8")
    return _DAY.sub(lambda match: (day + timedelta(days=int(match[1]))).isoformat(), text)
