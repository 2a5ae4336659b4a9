"""Laboratories that insist: steady connections, one message in flight on each; what has no answer is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import typing
from collections.abc import Callable

from wire.ack import read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["Door", "Laboratories"]

_ANSWER_S, _PAUSE_S = 10.0, 0.2


class Door(typing.Protocol):
    """Where they send, and what they hold as accepted."""

    accepted: set[str]
    wrong_answers: list[str]

    @property
    def mllp_port(self) -> int:
        """Asked for with each new connection."""
        ...


class Laboratories:
    """``build`` gives the name and the bytes of the n-th message. ``rate`` a second; 0: as fast as they are answered.
    They end after ``count`` messages, or once ``over`` is set; what is in hand then is still brought to its acceptance."""

    def __init__(
        self,
        world: Door,
        build: Callable[[int, int], tuple[str, bytes]],
        over: asyncio.Event,
        *,
        rate: float = 0,
        count: int | None = None,
    ) -> None:
        self.resent = 0
        self.most: int | None = None
        """So many may have been begun by now."""
        self._world, self._build, self._over, self._rate = world, build, over, rate
        self._numbers = itertools.count() if count is None else iter(range(count))
        self._began = time.monotonic()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection, in the middle of whatever goes over it."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def lane(self, number: int) -> None:
        left = await self._next(number)
        while left is not None:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._world.mllp_port)
                self._writers.add(writer)
                try:
                    while left is not None:
                        async with asyncio.timeout(_ANSWER_S):
                            if writer.is_closing():
                                raise EOFError
                            writer.write(frame(left[1]))
                            accepted = await self._answered(reader, left[0])
                        if accepted:
                            self._world.accepted.add(left[0])
                            left = await self._next(number)
                        else:
                            self.resent += 1
                            await asyncio.sleep(_PAUSE_S)
                    return
                finally:
                    self._writers.discard(writer)
                    writer.transport.abort()
            self.resent += 1
            await asyncio.sleep(_PAUSE_S)

    async def _next(self, lane: int) -> tuple[str, bytes] | None:
        if self._over.is_set() or (number := next(self._numbers, None)) is None:
            return None
        while self.most is not None and number >= self.most:  # noqa: ASYNC110  # what raises it knows no waiters
            await asyncio.sleep(0.02)
        if self._rate:
            await asyncio.sleep(max(0.0, self._began + number / self._rate - time.monotonic()))
        return self._build(number, lane)

    async def _answered(self, reader: asyncio.StreamReader, name: str) -> bool:
        deframer = Deframer()
        while data := await reader.read(65536):
            for event in deframer.feed(data):
                if isinstance(event, Frame):
                    answer = read_ack(event.payload)
                    if answer is None or answer.control_id != name:
                        self._world.wrong_answers.append(f"{name} was answered by {answer}")
                    return answer is not None and answer.control_id == name and answer.code == "AA"
        raise EOFError
