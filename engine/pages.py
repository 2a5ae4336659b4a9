"""Assembles the console: what its pages read with, whom they ask to act, and what the engine says of itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, Engine

from console import Console, router
from console.port import SignOn
from engine.clinician import Clinician
from engine.config import Settings
from engine.duty import escalation_of, present_of
from engine.texts import wordings_of
from rules import find_protocol
from store import Store, database

__all__ = ["Pages"]


class Pages:
    """The console of one engine, with a pool of reading connections of its own."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        state: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
        noticed: Callable[[str], None],
    ) -> None:
        def look_ahead(connection: Connection, number: int, raw: bytes) -> dict[str, Any]:
            from engine.again import preview  # all of judging: a start does not wait for it

            return preview(connection, settings, [number], raw)[0].plain()

        self._reader: Engine = database.reader(settings.store.url)
        loopback = _loopback(settings.http.host)
        self.console = Console(
            reader=self._reader,
            actions=Clinician(
                store,
                zone=settings.zone,
                default_protocol=settings.engine.protocol,
                escalation=escalation_of(settings),
                present=present_of(settings),
            ),
            state=state,
            language=settings.locale.language,
            zone=settings.zone,
            mode=settings.engine.mode,
            protocol=find_protocol(settings.engine.protocol).name,
            destinations=tuple(item.name for item in settings.destination),
            loopback=loopback,
            # Off loopback a browser reaches us through TLS, or the settings say in so many words that it does not.
            secure=settings.http.certificate is not None or (not loopback and not settings.console.plain_cookies),
            version=version("neutroflag"),
            clock=lambda: datetime.now(UTC),
            look_ahead=look_ahead,
            write=store.write,
            sign_on=_sign_on(settings),
            wordings=wordings_of(settings),
            noticed=noticed,
        )

    @property
    def router(self) -> APIRouter:
        return router(self.console)

    def close(self) -> None:
        self._reader.dispose()


def _sign_on(settings: Settings) -> SignOn | None:
    if settings.console.oidc is None:
        return None
    from engine.oidc import Oidc

    return Oidc(settings.console.oidc)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
