"""How much the HTTP face takes on: connections, headers and bodies that do not come, requests at once and a second.

Rule of the file: whatever is too much is answered and counted. A peer is an address: behind a proxy all are one, and the
proxy has limits of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.limits import SLOWEST, Keeper, Limits

__all__ = ["Bounded", "HttpLimits", "protocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits(Limits):
    max_requests: int = 256
    """At once; one more is answered 503."""
    max_header_bytes: int = 64 * 1024
    header_timeout_s: float = 10
    """From the connection, or a request's first byte, to the end of its headers."""
    body_timeout_s: float = 60
    """From the end of the headers to that of the body; a long body has longer, at ``SLOWEST`` bytes a second."""


_PASSED_OVER_BYTES = 64 * 1024 * 1024
_LINGER_S = 0.5

Noticed = Callable[[str], None]


class Bounded:
    """ASGI middleware: requests and the bytes of their bodies. What tells of the engine's health is always answered."""

    def __init__(self, app: ASGIApp, keeper: Keeper, limits: HttpLimits, noticed: Noticed) -> None:
        self._app = app
        self._keeper = keeper
        self._limits = limits
        self._noticed = noticed
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/livez", "/readyz", "/metrics"):
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        if wait_s := self._keeper.owed_s(peer, 0):
            self._noticed("peer_request_refused")
            await _answer(429, "Too many requests from this address", wait_s)(scope, receive, send)
            return
        if self._active >= self._limits.max_requests:
            self._noticed("request_refused")
            await _answer(503, "Too many requests at once", 1)(scope, receive, send)
            return
        self._keeper.owed_s(peer, 1)
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            if size := len(message.get("body", b"")):
                held += size
                self._keeper.hold(size)
                if self._keeper.full:
                    self._noticed("held_refused")
                    # The rest is read and let go: a connection that is closed on unread bytes loses its answer.
                    await _passed_over(message, receive)
                    raise HTTPException(503, "Too many bodies at once", {"Retry-After": "5"})
            return message

        self._active += 1
        try:
            await self._app(scope, counted, send)
        finally:
            self._active -= 1
            self._keeper.hold(-held)


async def _passed_over(message: Message, receive: Receive) -> None:
    left = _PASSED_OVER_BYTES
    while message.get("more_body") and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))


def _answer(status: int, words: str, wait_s: float) -> PlainTextResponse:
    return PlainTextResponse(f"{words}\n", status, {"Retry-After": str(math.ceil(wait_s))})


def protocol(keeper: Keeper, limits: HttpLimits, noticed: Noticed) -> type[asyncio.Protocol]:
    """What uvicorn makes one of for each connection."""

    class Connection(_Connection):
        pass

    Connection.keeper, Connection.limits, Connection.noticed = keeper, limits, staticmethod(noticed)
    return Connection


_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class _Connection(HttpToolsProtocol):
    """uvicorn's, which knows no limit of headers and waits for them, and for bodies, without end."""

    keeper: Keeper
    limits: HttpLimits
    noticed: Noticed

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counted = self._over = False
        self._in_head = True
        self._head_bytes = self._body_bytes = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if reason := self.keeper.admits(self._peer):
            self._end(503, reason, "Too many connections")
            return
        self._counted = True
        self._wait(self.limits.header_timeout_s, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._waited()
        if self._counted:
            self._counted = False
            self.keeper.left(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_header_bytes:
            self._end(431, "header_oversize", "The headers are too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._late is None:
            self._wait(self.limits.header_timeout_s, self._no_head)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = self._body_bytes = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.max_header_bytes:
            self._end(431, "header_oversize", "The headers are too long")
        if self._over:
            return
        self._wait(self.limits.body_timeout_s, self._no_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._over:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._waited()
        if not self._over:
            super().on_message_complete()

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._waited()
        self._late = self.loop.call_later(seconds, then)

    def _waited(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _no_head(self) -> None:
        if not self._head_bytes:
            # A browser that connected in advance: there is nothing to answer.
            self._over = True
            self.transport.close()
            return
        self._end(408, "header_timeout", "The headers did not come in time")

    def _no_body(self) -> None:
        limit_s = self.limits.body_timeout_s
        if self.flow.read_paused or self._body_bytes > limit_s * SLOWEST:
            # We are the slow ones, or it comes fast enough: the next stretch is measured anew.
            self._body_bytes = 0
            self._wait(limit_s, self._no_body)
            return
        self._end(408, "body_timeout", "The body did not come in time")

    def _end(self, status: int, event: str, words: str) -> None:
        """An answer if none has begun, and no more."""
        if self._over:
            return
        self._over = True
        self._waited()
        self.noticed(event)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = f"{words}\n".encode()
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(body)}\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        # What still comes is read and let go for a moment: closed on unread bytes, the connection would lose the answer.
        self.loop.call_later(_LINGER_S, self.transport.close)
