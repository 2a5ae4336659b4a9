"""The MLLP door, in the clear and over TLS: many messages a connection, each stored before it is answered, answers in order.

Framing is ``wire.mllp``, what to answer is ``wire.ack``; here are only sockets, limits and order. While the store is
behind, reading pauses, so that TCP itself holds the senders back; the limits are ``ingest.limits``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import typing
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ingest import envelope
from ingest.access import Senders, common_name
from ingest.limits import SLOWEST, Keeper, MllpLimits
from ingest.meter import Judged, Meter
from store import Accepted, Envelope, Inbox, StoreUnavailable
from wire import ack, er7, mllp

__all__ = ["MllpListener"]

CHANNEL = "mllp"
# Frames that may wait for the store on one connection before it is not read any further.
_AHEAD = 64


# A connection too many is told so in answer to its first frame, and let go after this time in any case.
_TURNED_AWAY, _TURNED_AWAY_S, _TURNED_AWAY_BYTES = 64, 2.0, 64 * 1024
# A connection that does not finish its TLS handshake in time is let go.
_HANDSHAKE_S = 10.0


class MllpListener:
    """Listens on ``host:port`` in the clear, on a port of its own over TLS, or both; port 0 takes a free one, which ``port``
    and ``tls_port`` then tell. The limits hold for both together."""

    def __init__(
        self,
        inbox: Inbox,
        meter: Meter,
        judged: Judged,
        *,
        new_control_id: Callable[[], str],
        limits: MllpLimits | None = None,
    ) -> None:
        self.inbox = inbox
        self.meter = meter
        self.judged = judged
        self.new_control_id = new_control_id
        self.limits = limits or MllpLimits()
        self.keeper = Keeper(self.limits)
        self.connections: set[_Connection] = set()
        self.turned_away = 0
        self._server: asyncio.Server | None = None
        self._tls_server: asyncio.Server | None = None
        self._idle: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), host, port, backlog=512, reuse_address=True
        )
        self._close_idle_ones()

    async def start_tls(self, host: str, port: int, context: ssl.SSLContext, senders: Senders) -> None:
        """``context`` decides whose certificates are good, ``senders`` what their holders may send."""
        self._tls_server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self, senders),
            host,
            port,
            backlog=512,
            reuse_address=True,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_S,
        )
        self._close_idle_ones()

    @property
    def port(self) -> int:
        """0 when it does not listen in the clear."""
        return _port_of(self._server)

    @property
    def tls_port(self) -> int:
        """0 when it does not listen over TLS."""
        return _port_of(self._tls_server)

    def _close_idle_ones(self) -> None:
        if self._idle is None:
            self._idle = asyncio.create_task(self._close_idle(), name="mllp-idle")

    async def stop(self, grace_s: float = 5) -> None:
        """No new connections or frames; what was taken is stored and answered first."""
        servers = [server for server in (self._server, self._tls_server) if server is not None]
        for server in servers:
            server.close()
        if self._idle is not None:
            self._idle.cancel()
        open_now = list(self.connections)
        for connection in open_now:
            connection.drain()
        if open_now:
            await asyncio.wait([connection.ended for connection in open_now], timeout=grace_s)
        for connection in list(self.connections):
            connection.abort()
        for server in servers:
            await server.wait_closed()

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(self.limits.look_every_s)
            now = time.monotonic()
            for connection in list(self.connections):
                if connection.overdue(now):
                    connection.give_up_on_frame()
                elif connection.last_activity < now - self.limits.idle_timeout_s and not connection.busy:
                    self.meter.noticed(CHANNEL, "idle_connection_closed")
                    connection.abort()


def _port_of(server: asyncio.Server | None) -> int:
    return server.sockets[0].getsockname()[1] if server is not None and server.sockets else 0


class _Connection(asyncio.Protocol):
    def __init__(self, listener: MllpListener, senders: Senders | None = None) -> None:
        self._listener = listener
        self._senders = senders
        self._name = ""
        self._refused = False
        self._deframer = mllp.Deframer(listener.limits.max_frame_bytes)
        self._waiting: deque[_Piece] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._paused_since: float | None = None
        self._draining = False
        self._answers_unread = False
        self._may_read_at = 0.0
        self._held = 0
        self._storing = 0
        self._frame_began: float | None = None
        self._host = ""
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
            _keep_alive(raw_socket)
        listener = self._listener
        self._host = str(peer[0]) if peer else ""
        if why := listener.keeper.admits(self._host):
            self._turn_away(why)
            return
        if self._senders is not None:
            self._name = common_name(transport.get_extra_info("peercert"))
            self.peer = f"{self._name}@{self.peer}" if self._name else self.peer
            if not self._senders.knows(self._name):
                listener.meter.noticed(CHANNEL, "certificate_not_allowed")
                listener.keeper.left(self._host)
                self._refused = True
                self._transport.abort()
                return
        listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # What was taken is still stored; only its answer has nobody to go to.
        listener = self._listener
        if self in listener.connections:
            listener.connections.discard(self)
            listener.keeper.left(self._host)
            listener.keeper.forget(self._hold_back)
        for event in self._deframer.close():
            self._notice(event)
        self._transport = None
        self._account()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._refused:  # TLS hands over what had come before the door was shut
            return
        arrived = time.perf_counter()
        self.last_activity = time.monotonic()
        taken = 0
        for event in self._deframer.feed(data):
            if isinstance(event, mllp.Frame):
                pieces = envelope.pieces(event.payload)
                self._waiting.extend(_Piece(piece, arrived) for piece in pieces)
                taken += len(pieces)
            else:
                self._notice(event)
        if not self._deframer.in_frame:
            self._frame_began = None
        elif taken or self._frame_began is None:
            self._frame_began = self.last_activity
        if taken and (wait_s := self._listener.keeper.owed_s(self._host, taken)):
            self._listener.meter.noticed(CHANNEL, "rate_held", taken)
            self._may_read_at = self.last_activity + wait_s
            asyncio.get_running_loop().call_later(wait_s, self._hold_back)
        if self._waiting and self._worker is None and not self._draining:
            self._worker = asyncio.create_task(self._work())
        self._account()
        self._hold_back()

    def pause_writing(self) -> None:
        """The peer does not read its answers: it is not read any further either."""
        self._answers_unread = True
        self._listener.meter.noticed(CHANNEL, "answers_unread")
        self._hold_back()

    def resume_writing(self) -> None:
        self._answers_unread = False
        self._hold_back()

    def _turn_away(self, why: str) -> None:
        """One too many: its first frame is answered "try again", and nothing of it is kept."""
        listener = self._listener
        listener.meter.noticed(CHANNEL, why)
        if listener.turned_away >= _TURNED_AWAY:
            self._refused = True
            self.abort()
            return
        listener.turned_away += 1
        self._deframer = mllp.Deframer(min(_TURNED_AWAY_BYTES, listener.limits.max_frame_bytes))
        self.data_received = self._answer_and_close  # type: ignore[method-assign]
        asyncio.get_running_loop().call_later(_TURNED_AWAY_S, self._turned_away)

    def _answer_and_close(self, data: bytes) -> None:
        for event in self._deframer.feed(data):
            if isinstance(event, mllp.Frame):
                self._try_again(er7.peek(event.payload), "Too many connections, please send again later")
            if isinstance(event, mllp.Frame | mllp.Oversize):
                self.abort()
                return

    def _turned_away(self) -> None:
        self._listener.turned_away -= 1
        self.abort()

    def _try_again(self, header: er7.Header | None, why: str) -> None:
        wanted = ack.answers(header, has_msa=False)
        code: ack.Code = "CE" if wanted.enhanced else "AE"
        error = ack.AckError(207, why)
        self._send(ack.acknowledge(header, code, control_id=self._new_id(), now=datetime.now(UTC), error=error))

    def overdue(self, now: float) -> bool:
        """A frame that has begun and does not get on, while we were willing to read it."""
        if self._frame_began is None or (self._paused_since is not None and not self._listener.keeper.full):
            return False
        allowed_s = self._listener.limits.frame_timeout_s + self._deframer.pending / SLOWEST
        return now - self._frame_began > allowed_s

    def give_up_on_frame(self) -> None:
        """Never stored, so its sender must send it again: it is told so where the frame's head can be read."""
        self._listener.meter.noticed(CHANNEL, "frame_timeout")
        self._try_again(er7.peek(self._deframer.head()), "The frame was not finished in time")
        self.abort()

    def _account(self) -> None:
        """What this connection keeps in memory, for the sum over all."""
        held = self._storing + (self._deframer.pending if self._transport is not None else 0)
        held += sum(len(piece.raw) for piece in self._waiting)
        if held != self._held:
            change, self._held = held - self._held, held
            self._listener.keeper.hold(change)

    def drain(self) -> None:
        """Read nothing more; close once everything taken is answered."""
        self._draining = True
        if self._transport is not None:
            self._transport.pause_reading()
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
        if self._transport is None or self._draining or self._transport.is_closing():
            return
        must_wait = self._must_wait()
        if self._paused_since is None and must_wait:
            self._transport.pause_reading()
            self._paused_since = time.monotonic()
        elif self._paused_since is not None and not must_wait:
            if self._frame_began is not None:  # the time was ours
                self._frame_began += time.monotonic() - self._paused_since
            self._transport.resume_reading()
            self._paused_since = None

    def _must_wait(self) -> bool:
        if len(self._waiting) > (_AHEAD if self._paused_since is None else _AHEAD // 2):
            return True
        if self._answers_unread or self._may_read_at > time.monotonic():
            return True
        if self._listener.keeper.may_read(self._hold_back, in_frame=self._deframer.in_frame):
            return False
        if self._paused_since is None:
            self._listener.meter.noticed(CHANNEL, "memory_held")
        return True

    async def _work(self) -> None:
        try:
            while self._waiting:
                # What a pipelining sender queued meanwhile goes to the store together, and is answered in order.
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AHEAD))]
                self._storing = sum(len(piece.raw) for piece in batch)
                self._hold_back()
                now = datetime.now(UTC)
                read = [self._read(piece, now) for piece in batch]
                if len(batch) == 1:
                    stored: list[Accepted | BaseException] = [await self._store(read[0].item)]
                else:
                    stored = list(await asyncio.gather(*(self._store(one.item) for one in read)))
                for piece, one, outcome in zip(batch, read, stored, strict=True):
                    self._answer(piece, one, outcome)
                self._storing = 0
                self._account()
        except Exception:
            # A fault of ours: what it leaves without an answer, its sender sends again.
            self._listener.meter.noticed(CHANNEL, "internal_error")
            self._waiting.clear()
            self.abort()
            raise
        finally:
            self._worker = None
            self._storing = 0
            self._account()
            self._end_if_drained()

    def _read(self, piece: _Piece, now: datetime) -> _Read:
        header, item = envelope.hl7v2(piece.raw, channel=CHANNEL, peer=self.peer, now=now)
        refusal = self._senders.refusal(self._name, header) if self._senders is not None else None
        if refusal is not None:
            # Kept for a person, without its name: the true sender's message of that name must not pass for a duplicate.
            item = replace(item, refused="sender-not-allowed: MSH-4", dedupe_key=b"")
            self._listener.meter.noticed(CHANNEL, "sender_not_allowed")
        return _Read(header, item, refusal)

    async def _store(self, item: Envelope) -> Accepted | BaseException:
        try:
            return await self._listener.inbox.accept(item)
        except StoreUnavailable as error:
            return error

    def _answer(self, piece: _Piece, one: _Read, outcome: Accepted | BaseException) -> None:
        meter, header, item = self._listener.meter, one.header, one.item
        wanted = ack.answers(header, has_msa=envelope.is_acknowledgement(piece.raw, header))
        code, error = ack.verdict(header)
        if one.refusal is not None:
            code, error = ("CR" if wanted.enhanced else "AR"), one.refusal
        if not isinstance(outcome, Accepted):
            # Not stored: the sender must keep it and try again (table 0357: 207).
            code, error = ("CE" if wanted.enhanced else "AE"), ack.AckError(207, "Not stored, please send again")
            meter.noticed(CHANNEL, "store_unavailable")
        else:
            meter.received(CHANNEL, item.format, outcome.disposition or ("set_aside" if item.refused else ""))
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


def _keep_alive(raw: socket.socket) -> None:
    """A peer that is gone without a word is noticed within two minutes, not in the system's two hours."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@dataclass(frozen=True, slots=True)
class _Piece:
    raw: bytes
    arrived: float


@dataclass(frozen=True, slots=True)
class _Read:
    header: er7.Header | None
    item: Envelope
    refusal: ack.AckError | None
