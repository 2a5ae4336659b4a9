"""Who waits for a message's disposition (the application acknowledgement of enhanced mode)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sqlalchemy import select

from store import Store, StoreUnavailable
from store.tables import message

__all__ = ["JudgedBoard"]

_POLL_S = 0.2


class JudgedBoard:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def __call__(self, message_id: int) -> None:
        """Returns once the message has its disposition; survives any order of asking and judging."""
        future = self._waiting.get(message_id)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting[message_id] = future
        if await self._already(message_id):
            self.tell([message_id])
        while self._store.shared and not future.done():
            # Another engine may be the one that judges it, and tells nobody here.
            await asyncio.wait({future}, timeout=_POLL_S)
            if not future.done() and await self._already(message_id):
                self.tell([message_id])
        await asyncio.shield(future)

    async def outcome(self, message_id: int) -> str:
        """The disposition of a message; "" while it has none."""
        query = select(message.c.disposition).where(message.c.id == message_id)
        return await self._store.read(lambda connection: connection.scalar(query)) or ""

    def tell(self, message_ids: Iterable[int]) -> None:
        if self._waiting:
            for number in message_ids:
                future = self._waiting.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(None)

    async def _already(self, message_id: int) -> bool:
        query = select(message.c.disposition).where(message.c.id == message_id)
        try:
            return await self._store.read(lambda connection: connection.scalar(query)) is not None
        except StoreUnavailable:
            return False  # it will be told when the store is back and the message judged
