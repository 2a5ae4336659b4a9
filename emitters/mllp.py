"""An HL7 v2 system over MLLP as a destination: one connection kept open, one message in flight, its own ACK awaited.

A late acknowledgement must never be credited to the next message (Mirth connect #1441): MSA-2 must equal our MSH-10,
and after a time-out the connection is closed. Sending again uses the same MSH-10, so a receiver can see a duplicate.

Failure classes: no connection -> try again, the destination is down; time-out, hang-up, AE/CE -> try again;
AR/CR -> a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from emitters.hl7v2 import V2Profile, alert_message
from emitters.sink import Answer, Delivered, Refused, TryAgain
from rules.model import Alert
from wire.ack import Ack, read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["MllpDestination", "MllpSettings"]

_ACK_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MllpSettings:
    """``enhanced`` asks for an accept acknowledgement (MSH-15 AL, MSH-16 NE): CA is then the delivery."""

    name: str
    host: str
    port: int
    profile: V2Profile = field(default_factory=V2Profile)
    tls: ssl.SSLContext | None = None
    timeout_s: float = 15.0
    connect_timeout_s: float = 3.0
    enhanced: bool = False


class MllpDestination:
    """A ``Sink``. Concurrent sends queue up: MLLP answers in order, and only one message may be unanswered."""

    def __init__(self, settings: MllpSettings) -> None:
        self.name = settings.name
        self.stray: Counter[str] = Counter()
        """Answers that were not to our message, by kind (``other-id``, ``no-msa``, ``noise``), for the operator."""
        self._settings = settings
        self._profile = replace(settings.profile, accept_ack="AL") if settings.enhanced else settings.profile
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._deframer = Deframer(_ACK_LIMIT)

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        """Deliver one notification; ``delivery_id`` is its MSH-10 at every try."""
        try:
            message = alert_message(alert, control_id=delivery_id, profile=self._profile)
        except ValueError as error:
            return Refused("unwritable", str(error))
        async with self._turn:
            return await self._exchange(frame(message), delivery_id)

    async def close(self) -> None:
        async with self._turn:
            self._drop()

    async def _exchange(self, block: bytes, control_id: str) -> Answer:
        answered = False
        try:
            reused = self._usable()
            ack = await self._once(block, control_id)
            if ack is None and reused:
                # The peer had hung up while we were idle: not worth a back-off. The same MSH-10 makes it harmless.
                self._drop()
                ack = await self._once(block, control_id)
            answered = ack is not None
            return _meaning(ack) if ack is not None else TryAgain("the connection ended without an answer: ambiguous")
        except _Unreachable as error:
            return TryAgain(f"no connection ({error})", down=True)
        except TimeoutError:
            return TryAgain("no acknowledgement in time: ambiguous")
        except OSError as error:
            return TryAgain(f"the connection broke ({type(error).__name__}): ambiguous")
        finally:
            # Whatever ended otherwise than by our answer, cancelling too, may be followed by a late one.
            if not answered:
                self._drop()

    async def _once(self, block: bytes, control_id: str) -> Ack | None:
        """Write the block and wait for its answer; None when the peer hung up first."""
        reader, writer = self._streams or await self._connect()
        async with asyncio.timeout(self._settings.timeout_s):
            try:
                writer.write(block)
                await writer.drain()
                return await self._answer(reader, control_id)
            except (ConnectionError, ssl.SSLError):
                return None

    async def _answer(self, reader: asyncio.StreamReader, control_id: str) -> Ack | None:
        while data := await reader.read(65536):
            for event in self._deframer.feed(data):
                if not isinstance(event, Frame):
                    self.stray["noise"] += 1
                    continue
                ack = read_ack(event.payload)
                if ack is None:
                    self.stray["no-msa"] += 1
                elif ack.control_id == control_id:
                    # MSA-2 echoes MSH-10 (HL7 v2.5, 2.15.8.2).
                    return ack
                else:
                    self.stray["other-id"] += 1
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        settings = self._settings
        self._deframer = Deframer(_ACK_LIMIT)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                name = settings.host if settings.tls else None
                self._streams = await asyncio.open_connection(
                    settings.host, settings.port, ssl=settings.tls, server_hostname=name
                )
        except (OSError, TimeoutError) as error:
            raise _Unreachable(type(error).__name__) from None
        return self._streams

    def _usable(self) -> bool:
        """Is there a connection from before? One that the peer has closed, or left in mid-frame, is dropped."""
        if self._streams is None:
            return False
        reader, writer = self._streams
        if reader.at_eof() or writer.is_closing() or self._deframer.in_frame:
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            with contextlib.suppress(RuntimeError):
                # abort, not close: unsent bytes of a message given up must not leave later.
                streams[1].transport.abort()


class _Unreachable(Exception):
    """No connection could be made."""


def _meaning(ack: Ack) -> Answer:
    # MSA-3 and ERR-7/8 are free text and may name the patient: only codes are kept.
    codes = [code for code in ack.errors if re.fullmatch(r"\d{1,6}", code)][:5]
    words = f"MSA-1 {ack.code}" + (f" ({', '.join(codes)})" if codes else "")
    if ack.accepted:
        return Delivered(words)
    if ack.rejected:
        return Refused(ack.code.lower(), words)
    if ack.code in ("AE", "CE"):
        return TryAgain(words)
    return TryAgain("an acknowledgement with an unknown code")
