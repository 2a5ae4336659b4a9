"""Slows down who tries passwords: failures counted in memory by name and by peer, for a bounded number of them."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

__all__ = ["Throttle"]


@dataclass(slots=True, kw_only=True)
class Throttle:
    """``limit`` failures within ``window_s`` close a key until the oldest of them is that long ago.

    Nothing is locked for good: a locked account would be a way to keep a clinician out.
    """

    limit: int
    window_s: float = 300
    keys: int = 10_000
    _failures: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def wait_s(self, key: str, now: float) -> int:
        """Whole seconds until the next try may be made; 0: now."""
        failures = self._failures.get(key)
        if failures is None:
            return 0
        while failures and failures[0] <= now - self.window_s:
            failures.popleft()
        if not failures:
            del self._failures[key]
        return math.ceil(failures[0] + self.window_s - now) if len(failures) >= self.limit else 0

    def failed(self, key: str, now: float) -> None:
        failures = self._failures.setdefault(key, deque(maxlen=self.limit))
        failures.append(now)
        self._failures.move_to_end(key)
        if len(self._failures) > self.keys:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)

    def forgive(self, key: str) -> None:
        """The last try was none of the bad ones: it counts no more, and the others stand."""
        failures = self._failures.get(key)
        if failures:
            failures.pop()
