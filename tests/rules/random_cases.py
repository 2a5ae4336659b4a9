"""Random cases in the form of the case files: patients with gaps, stops, low counts and silences, from one seed."""

from __future__ import annotations

import random
from datetime import date, datetime, time, timedelta
from typing import Any

_EDGES = (0, 499, 499.9, 500, 501, 999, 999.9, 1000, 1000.1, 1499, 1499.9, 1500, 1500.1, 2400, 3100)
_TURNS = (0, 1, 7, 119, 125, 126, 127, 133, 200, 363, 364, 365, 500, 729, 730, 731, 732, 1000, 1826)
_GAPS_H = (24, 48, 49, 60, 71, 72, 73, 96, 120, 480, 647, 648, 671, 672, 673, 960, 1680)


def random_case(seed: int, *, protocol: str = "ANSM-2025") -> dict[str, Any]:
    chance = random.Random(seed)
    ben = chance.random() < 0.3
    start = date(2019, 1, 1) + timedelta(days=chance.randrange(2200))
    if chance.random() < 0.05:
        start = date(2020, 2, 29)
    day = chance.choice(_TURNS) + chance.choice((0, 0, 0, 1, -1, chance.randrange(60)))
    today = start + timedelta(days=day - (chance.randrange(20) if chance.random() < 0.1 else 0))
    case: dict[str, Any] = {
        "id": f"R{seed}",
        "protocol": protocol,
        "ben_confirmed": ben,
        "treatment_start": start.isoformat() if chance.random() < 0.96 else None,
        "interruptions": _gaps(chance, start, today),
        "history": _history(chance, start, today, ben),
        "observation": {
            "date": today.isoformat(),
            "anc_per_mm3": None if chance.random() < 0.2 else _value(chance, ben, 0.25),
        },
    }
    if chance.random() < 0.2:
        on = today - timedelta(days=chance.choice((0, 1, 7, 14, 27, 28, 29, 60, 400)))
        case["treatment_stop"] = on.isoformat()
        case["stop_reason"] = chance.choice(("ANC<1000", "ANC<500", "LEGACY_RED", "other", "other"))
    flags = [flag for flag in ("infection_signs", "elderly", "valproate") if chance.random() < 0.06]
    if flags:
        case["clinical_flags"] = flags
    return case


def _value(chance: random.Random, ben: bool, low: float) -> float:
    kind = chance.random()
    if kind < 0.2:
        return chance.choice(_EDGES)
    if kind < 0.2 + low:
        return chance.randrange(500, 1001) if ben else chance.randrange(1000, 1501)
    if kind < 0.23 + low:
        return chance.randrange(0, 1000)
    return chance.randrange(1501, 6000)


def _history(chance: random.Random, start: date, today: date, ben: bool) -> list[dict[str, Any]]:
    span = max((today - start).days, 1)
    rows = []
    low = chance.choice((0.0, 0.0, 0.1, 0.5, 0.9))
    for _ in range(chance.choice((0, 1, 2, 3, 5, 8))):
        back = chance.choice((0, 1, 3, 7, 14, 28, 84, chance.randrange(span + 30)))
        value = _value(chance, ben, low)
        if low < 0.9 and value < 1000 and chance.random() < 0.8:
            value = 2500
        rows.append({"date": (today - timedelta(days=back)).isoformat(), "anc_per_mm3": value})
    return rows


def _gaps(chance: random.Random, start: date, today: date) -> list[dict[str, Any]]:
    """Apart from each other and after the start; now and then without a restart."""
    rows: list[dict[str, Any]] = []
    wanted = chance.choice((0, 0, 1, 1, 2, 3))
    at = datetime.combine(today, time())
    for _ in range(wanted):
        restart = at - timedelta(days=chance.choice((0, 0, 1, 3, 7, 20, 41, 42, 43, 90, 126, 200)))
        last = restart - timedelta(hours=chance.choice(_GAPS_H))
        if last.date() < start:
            break
        timed = chance.random() < 0.5
        rows.append(
            {
                "last_dose": last.isoformat() if timed else last.date().isoformat(),
                "restart": restart.isoformat() if timed else restart.date().isoformat(),
            }
        )
        at = last
    if rows and chance.random() < 0.12:
        rows[0]["restart"] = None
    return rows[::-1]
