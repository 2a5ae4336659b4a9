"""How much one listener takes on: connections by peer and in all, messages a second by peer, bytes held in all.

Rule of the file: nothing is dropped. What is too much is refused with an answer, or waits unread where it came from.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from wire import mllp

__all__ = ["SLOWEST", "Keeper", "Limits", "MllpLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of any listener."""

    max_connections: int = 4096
    max_connections_per_peer: int = 1024
    max_messages_per_s: float = 0
    """Of one peer; 0: as fast as the store takes them."""
    max_held_bytes: int = 256 * 1024 * 1024
    """Of what has begun or waits for the store, over all connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MllpLimits(Limits):
    max_frame_bytes: int = mllp.DEFAULT_LIMIT
    idle_timeout_s: float = 900
    frame_timeout_s: float = 60
    """From the first byte of a frame to its last; a long frame has longer, at ``SLOWEST`` bytes a second."""

    @property
    def look_every_s(self) -> float:
        return min(self.idle_timeout_s / 4, self.frame_timeout_s / 4, 30)


SLOWEST = 16 * 1024
_MOST_PEERS = 10_000


class Keeper:
    """What the limits are held against. A peer is an address: its connections share its allowance."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held_bytes = 0
        self._open: Counter[str] = Counter()
        self._paid_until: dict[str, float] = {}
        self._waiting: set[Callable[[], None]] = set()
        self._going_on: Callable[[], None] | None = None
        """The one that may finish its frame although there is no room: else many halves would wait for each other."""

    def admits(self, peer: str) -> str:
        """Takes a connection in; else why not."""
        if self._open.total() >= self.limits.max_connections:
            return "connection_refused"
        if self._open[peer] >= self.limits.max_connections_per_peer:
            return "peer_connection_refused"
        self._open[peer] += 1
        return ""

    def left(self, peer: str) -> None:
        self._open[peer] -= 1
        if self._open[peer] <= 0:
            del self._open[peer]
            # What is owed is owed by the address: whoever connects anew for each message waits all the same.
            if self._paid_until.get(peer, 0.0) <= time.monotonic():
                self._paid_until.pop(peer, None)

    def owed_s(self, peer: str, messages: int) -> float:
        """How long this peer must wait after so many more messages: a second's worth may come at once."""
        rate = self.limits.max_messages_per_s
        if not rate:
            return 0.0
        now = time.monotonic()
        if len(self._paid_until) > _MOST_PEERS:
            self._paid_until = {one: until for one, until in self._paid_until.items() if until > now}
        self._paid_until[peer] = until = max(self._paid_until.get(peer, 0.0), now - 1.0) + messages / rate
        return max(0.0, until - now)

    @property
    def full(self) -> bool:
        return self.held_bytes > self.limits.max_held_bytes

    def hold(self, change: int) -> None:
        """So many bytes more, or fewer, are held; whoever waits for room is called when there is some."""
        self.held_bytes += change
        if change < 0 and not self.full:
            self._wake()

    def may_read(self, call: Callable[[], None], *, in_frame: bool) -> bool:
        """Whether there is room; if not, ``call`` is called when there is."""
        if not in_frame:
            self._ended(call)
        if not self.full:
            return True
        if in_frame and self._going_on in (None, call):
            self._going_on = call
            return True
        self._waiting.add(call)
        return False

    def forget(self, call: Callable[[], None]) -> None:
        self._waiting.discard(call)
        self._ended(call)

    def _ended(self, call: Callable[[], None]) -> None:
        if self._going_on == call:
            self._going_on = None
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            one()
