"""Assembles the console: what its pages read with, whom they ask to act, and what the engine says of itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Engine

from console import Console, Decision, RefusedInput, router
from engine.config import Settings
from rules import find_protocol
from rules.changes import CourseChange
from store import Store, database, outbox
from store.values import to_ms

__all__ = ["Pages"]


class Pages:
    """The console of one engine, with a pool of reading connections of its own."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        state: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
    ) -> None:
        self._reader: Engine = database.reader(settings.store.url)
        loopback = _loopback(settings.http.host)
        self.console = Console(
            reader=self._reader,
            actions=_Replays(store),
            state=state,
            language=settings.locale.language,
            zone=settings.zone,
            mode=settings.engine.mode,
            protocol=find_protocol(settings.engine.protocol).name,
            destinations=tuple(item.name for item in settings.destination),
            loopback=loopback,
            # Off loopback a browser reaches us through TLS, or the settings say in so many words that it does not.
            secure=not loopback and not settings.console.plain_cookies,
            version=version("neutroflag"),
            clock=lambda: datetime.now(UTC),
            write=store.write,
        )

    @property
    def router(self) -> APIRouter:
        return router(self.console)

    def close(self) -> None:
        self._reader.dispose()


class _Replays:
    """What operators may do; clinicians' acts are not served yet."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def answer(
        self, alert_id: str, *, decision: Decision, reason: str, by: str, revision: int | None = None
    ) -> None:
        raise RefusedInput("", "not-served")

    async def change_course(self, patient_id: str, change: CourseChange, *, by: str) -> None:
        raise RefusedInput("", "not-served")

    async def replay_message(self, message_id: int, *, by: str) -> int:
        copied = await self._store.replay(message_id)
        if copied is None:
            raise RefusedInput("", "body-gone")
        return copied

    async def replay_dead(self, ids: Sequence[int], *, by: str) -> int:
        now_ms = to_ms(datetime.now(UTC))
        again = await self._store.write(lambda connection: outbox.replay(connection, ids, now_ms))
        return len(again)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
