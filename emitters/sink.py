"""The seam between the outbox and a destination: one alert goes out, one of three answers comes back.

The failure's class is decided here, where it happens: ``TryAgain`` for what time may heal, ``Refused`` for what
only a person can. Ids and control ids are stable, so sending twice is harmless.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field

from rules.model import Alert

__all__ = ["Answer", "Delivered", "Refused", "Sink", "TryAgain"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination says it has stored the alert. Nobody has read it yet. ``evidence``: its words, no patient data."""

    evidence: str


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Transient or ambiguous. ``after_s``: what the destination asked for (Retry-After), if it did.

    ``down``: the destination as a whole cannot be reached, so others need not be tried now either. ``unsure``: it may have
    been done, or may still be.
    """

    why: str
    after_s: float | None = None
    down: bool = False
    unsure: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Permanent: a dead letter, for a person. ``code`` is short and stable, ``why`` has no patient data in it."""

    code: str
    why: str


Answer = Delivered | TryAgain | Refused


class Sink(typing.Protocol):
    """A destination. ``send`` never raises for what the other side does; cancelling it leaves nothing half open."""

    name: str

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        """Deliver one notification. ``delivery_id`` is the same at every retry (the MSH-10 of a v2 message)."""
        ...

    async def close(self) -> None: ...
