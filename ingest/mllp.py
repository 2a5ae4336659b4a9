"""The MLLP door: many messages a connection, each stored before it is answered, answers in order.

Framing is ``wire.mllp``, what to answer is ``wire.ack``; here are only sockets, limits and order. While the store is
behind, reading pauses, so that TCP itself holds the senders back.
"""

from __future__ import annotations

import asyncio
import socket
import time
import typing
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest import envelope
from ingest.meter import Judged, Meter
from store import Accepted, Envelope, Inbox, StoreUnavailable
from wire import ack, er7, mllp

__all__ = ["MllpLimits", "MllpListener"]

CHANNEL = "mllp"
# Frames that may wait for the store on one connection before it is not read any further.
_AHEAD = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MllpLimits:
    max_frame_bytes: int = mllp.DEFAULT_LIMIT
    max_connections: int = 1024
    idle_timeout_s: float = 900


class MllpListener:
    """Listens on ``host:port``; port 0 takes a free one, which ``port`` then tells."""

    def __init__(
        self,
        inbox: Inbox,
        meter: Meter,
        judged: Judged,
        *,
        new_control_id: Callable[[], str],
        limits: MllpLimits = MllpLimits(),
    ) -> None:
        self.inbox = inbox
        self.meter = meter
        self.judged = judged
        self.new_control_id = new_control_id
        self.limits = limits
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._idle: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=512, reuse_address=True)
        self._idle = asyncio.create_task(self._close_idle(), name="mllp-idle")

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("not listening")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self, grace_s: float = 5) -> None:
        """No new connections or frames; what was taken is stored and answered first."""
        if self._server is None:
            return
        self._server.close()
        if self._idle is not None:
            self._idle.cancel()
        open_now = list(self.connections)
        for connection in open_now:
            connection.drain()
        if open_now:
            await asyncio.wait([connection.ended for connection in open_now], timeout=grace_s)
        for connection in list(self.connections):
            connection.abort()
        await self._server.wait_closed()

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self.limits.idle_timeout_s / 4, 30))
            deadline = time.monotonic() - self.limits.idle_timeout_s
            for connection in list(self.connections):
                if connection.last_activity < deadline and not connection.busy:
                    self.meter.noticed(CHANNEL, "idle_connection_closed")
                    connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, listener: MllpListener) -> None:
        self._listener = listener
        self._deframer = mllp.Deframer(listener.limits.max_frame_bytes)
        self._waiting: deque[_Piece] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._draining = False
        self.peer = ""
        self.last_activity = time.monotonic()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def busy(self) -> bool:
        return self._worker is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = typing.cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else ""
        raw_socket = transport.get_extra_info("socket")
        if raw_socket is not None:
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener = self._listener
        if len(listener.connections) >= listener.limits.max_connections:
            listener.meter.noticed(CHANNEL, "connection_refused")
            self._transport.close()
            return
        listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # What was taken is still stored; only its answer has nobody to go to.
        self._listener.connections.discard(self)
        for event in self._deframer.close():
            self._notice(event)
        self._transport = None
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        arrived = time.perf_counter()
        self.last_activity = time.monotonic()
        for event in self._deframer.feed(data):
            if isinstance(event, mllp.Frame):
                self._waiting.extend(_Piece(piece, arrived) for piece in envelope.pieces(event.payload))
            else:
                self._notice(event)
        if self._waiting and self._worker is None and not self._draining:
            self._worker = asyncio.create_task(self._work())
        self._hold_back()

    def drain(self) -> None:
        """Read nothing more; close once everything taken is answered."""
        self._draining = True
        if self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._draining and self._worker is None and not self._waiting and not self._later:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _notice(self, event: mllp.Event) -> None:
        meter = self._listener.meter
        match event:
            case mllp.Noise(count):
                meter.noticed(CHANNEL, "noise_bytes", count)
            case mllp.Restarted():
                meter.noticed(CHANNEL, "frame_restarted")
            case mllp.Oversize():
                meter.noticed(CHANNEL, "frame_oversize")
                error = ack.AckError(199, f"Frame exceeds {event.limit} bytes")
                self._send(ack.acknowledge(None, "AR", control_id=self._new_id(), now=datetime.now(UTC), error=error))
            case mllp.Frame():
                pass

    def _hold_back(self) -> None:
        if self._transport is None or self._draining:
            return
        if not self._paused and len(self._waiting) > _AHEAD:
            self._transport.pause_reading()
            self._paused = True
        elif self._paused and len(self._waiting) <= _AHEAD // 2:
            self._transport.resume_reading()
            self._paused = False

    async def _work(self) -> None:
        try:
            while self._waiting:
                # What a pipelining sender queued meanwhile goes to the store together, and is answered in order.
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AHEAD))]
                self._hold_back()
                now = datetime.now(UTC)
                read = [envelope.hl7v2(piece.raw, channel=CHANNEL, peer=self.peer, now=now) for piece in batch]
                if len(batch) == 1:
                    stored: list[Accepted | BaseException] = [await self._store(read[0][1])]
                else:
                    stored = list(await asyncio.gather(*(self._store(item) for _, item in read)))
                for piece, (header, item), outcome in zip(batch, read, stored, strict=True):
                    self._answer(piece, header, item, outcome)
        finally:
            self._worker = None
            self._end_if_drained()

    async def _store(self, item: Envelope) -> Accepted | BaseException:
        try:
            return await self._listener.inbox.accept(item)
        except StoreUnavailable as error:
            return error

    def _answer(
        self, piece: _Piece, header: er7.Header | None, item: Envelope, outcome: Accepted | BaseException
    ) -> None:
        meter = self._listener.meter
        wanted = ack.answers(header, has_msa=envelope.is_acknowledgement(piece.raw, header))
        code, error = ack.verdict(header)
        if not isinstance(outcome, Accepted):
            # Not stored: the sender must keep it and try again (table 0357: 207).
            code, error = ("CE" if wanted.enhanced else "AE"), ack.AckError(207, "Not stored, please send again")
            meter.noticed(CHANNEL, "store_unavailable")
        else:
            meter.received(CHANNEL, item.format, outcome.disposition)
        now = datetime.now(UTC)
        if wanted.enhanced:
            if wanted.wants_accept(code):
                self._send(ack.acknowledge(header, code, control_id=self._new_id(), now=now, error=error))
            if isinstance(outcome, Accepted):
                self._promise_application_answer(header, wanted, code, error, outcome)
        elif wanted.wants_application(code):
            self._send(ack.acknowledge(header, code, control_id=self._new_id(), now=now, error=error))
        meter.acknowledged(CHANNEL, time.perf_counter() - piece.arrived)

    def _promise_application_answer(
        self,
        header: er7.Header | None,
        wanted: ack.Answers,
        accept_code: ack.Code,
        error: ack.AckError | None,
        stored: Accepted,
    ) -> None:
        code: ack.Code = "AR" if accept_code == "CR" else "AA"
        if wanted.wants_application(code):
            task = asyncio.create_task(self._answer_when_judged(header, code, error, stored))
            self._later.add(task)
            task.add_done_callback(self._answered_later)

    def _answered_later(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        self._end_if_drained()

    async def _answer_when_judged(
        self, header: er7.Header | None, code: ack.Code, error: ack.AckError | None, stored: Accepted
    ) -> None:
        await self._listener.judged(stored.duplicate_of or stored.message_id)
        self._send(ack.acknowledge(header, code, control_id=self._new_id(), now=datetime.now(UTC), error=error))

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(mllp.frame(answer))
            self.last_activity = time.monotonic()

    def _new_id(self) -> str:
        return self._listener.new_control_id()


@dataclass(frozen=True, slots=True)
class _Piece:
    raw: bytes
    arrived: float
