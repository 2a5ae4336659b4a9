"""An HTTP application on a port: uvicorn inside a program that has a life of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

__all__ = ["Web"]

_LOOK_EVERY_S = 0.002


class Web:
    """``open`` returns once it answers; ``close`` once every answer is given, or ``grace_s`` is over."""

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        tls: ssl.SSLContext | None = None,
        grace_s: int = 5,
        on_lost: Callable[[], None] | None = None,
        protocol: type[asyncio.Protocol] | None = None,
    ) -> None:
        """``on_lost`` is called when it ends without having been told to. ``protocol``: of each connection."""
        self.port = 0
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=grace_s,
            server_header=False,
            http=protocol or "httptools",
        )
        config.load()
        # Our own context: uvicorn would build one from file names, with another minimum version.
        config.ssl = tls
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self._on_lost = on_lost

    async def open(self, host: str, port: int) -> None:
        """Port 0 takes a free one. Raises OSError."""
        listening = _listening(host, port)
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="http")
        self._serving.add_done_callback(self._ended)
        await asyncio.wait([self._serving, self._server.open], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            await self._serving
            raise OSError("the web server ended at its start")

    async def close(self) -> None:
        self._server.leave.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)

    def _ended(self, _task: asyncio.Task[None]) -> None:
        if self._on_lost is not None and not self._server.leave.is_set():
            self._on_lost()


class _Server(uvicorn.Server):
    """Leaves the process's signals to the program that it is part of, and ends as soon as it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leave = asyncio.Event()
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.open.set_result(None)

    async def main_loop(self) -> None:
        second = 0
        while not self.leave.is_set():
            await self.on_tick(second * 10)  # renews the Date header
            second += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leave.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which rests a tenth of a second at each step, whatever there is to wait for."""
        for one in (*self.servers, *(sockets or ())):
            one.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # uvicorn says nothing
                    await asyncio.sleep(_LOOK_EVERY_S)
                for listening in self.servers:
                    await listening.wait_closed()
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()


def _listening(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's algorithm off only on sockets that say TCP: an answer in two
    # writes would wait 40 ms for the peer.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener
