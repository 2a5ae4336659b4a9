"""What the strip on every page says: whether the engine accepts and delivers, what waits, which alerts are open.

All of it comes from the engine's own standing and from four indexed look-ups; no page counts messages for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.browse import Standing

__all__ = ["Strip", "strip_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """``engine``: ``accepting``, ``not-judging`` or ``failed``. ``delivery``: ``delivering``, ``observing``,
    ``no-destination`` or ``down`` with the names of those that do not answer."""

    engine: str
    delivery: str
    down: tuple[str, ...]
    standing: Standing

    @property
    def is_well(self) -> bool:
        return self.engine == "accepting" and self.delivery != "down"


def strip_of(ready: bool, state: Mapping[str, Any], standing: Standing, *, mode: str, destinations: int) -> Strip:
    """``state``: as ``/readyz`` tells it."""
    down = tuple(sorted(name for name, how in state.get("destinations", {}).items() if how == "down"))
    engine = "accepting" if ready else "failed" if state.get("ended") else "not-judging"
    if mode == "observe":
        delivery = "observing"
    elif not destinations:
        delivery = "no-destination"
    else:
        delivery = "down" if down else "delivering"
    return Strip(engine=engine, delivery=delivery, down=down, standing=standing)
