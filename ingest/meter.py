"""What a door reports of itself; the engine turns it into metrics and events. Nothing of a patient passes here."""

from __future__ import annotations

import typing

__all__ = ["Judged", "Meter"]


class Meter(typing.Protocol):
    def received(self, channel: str, form: str, disposition: str = "") -> None:
        """One message is durable; its disposition where the door already knows it."""
        ...

    def acknowledged(self, channel: str, seconds: float) -> None:
        """One answer went out, so long after the message's last byte."""
        ...

    def noticed(self, channel: str, event: str, count: int = 1) -> None:
        """Something that an operator should see: noise between frames, an oversize frame, a refused connection."""
        ...


class Judged(typing.Protocol):
    async def __call__(self, message_id: int) -> None:
        """Returns once the message has its disposition."""
        ...
