"""The one place that assembles: settings in, a running engine out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine import tls
from engine.body_keys import arm
from engine.config import Settings, is_loopback
from engine.headers import Guarded
from engine.judged import JudgedBoard
from engine.observe import Meters
from engine.tokens import access_of
from engine.web import Web
from engine.web_limits import Bounded, HttpLimits, protocol
from ingest.access import Access, Senders
from ingest.files import FolderDoor, FolderLimits
from ingest.limits import Keeper, MllpLimits
from ingest.mllp import MllpListener
from store import Store, StoreUnavailable, trail
from store.values import to_ms

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from engine.back import Back
    from engine.back_process import BackProcess
    from engine.pages import Pages
    from ingest.kafka import KafkaInlet

__all__ = ["Engine", "PortTaken"]


class PortTaken(Exception):
    """A face's port cannot be had."""


class Engine:
    """``start`` returns when every door is open; ``stop`` drains: no new messages, what was taken is answered and kept."""

    def __init__(self, settings: Settings, *, separate: bool = False) -> None:
        self.settings = settings
        self.separate = separate
        self.meters = Meters()
        self.mllp: MllpListener | None = None
        self._folders: list[FolderDoor] = []
        self.http_port = 0
        self.app: FastAPI | None = None
        self.store: Store | None = None
        self._back: Back | BackProcess | None = None
        self._web: Web | None = None
        self._pages: Pages | None = None
        self._kafka: KafkaInlet | None = None
        self._reading: asyncio.Task[None] | None = None
        self._mllp_tls: ssl.SSLContext | None = None
        self._http_tls: ssl.SSLContext | None = None
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set with its name when a part that must run for ever ended."""

    async def start(self) -> None:
        """Raises what the store raises on opening, and PortTaken."""
        arm(self.settings)
        store = Store(self.settings.store.url)
        await store.open()
        self.store = store
        board = JudgedBoard(store)
        if self.settings.engine.role != "accept":
            self._back = self._open_back(store, board)
            self._back.failed.add_done_callback(lambda ended: self._fail(ended.result()))
        try:
            await self._open_doors(store, board)
        except OSError as error:
            await self.stop()
            raise PortTaken(str(error)) from error

    def _open_back(self, store: Store, board: JudgedBoard) -> Back | BackProcess:
        if self.separate:
            from engine.back_process import BackProcess

            process = BackProcess(self.settings, self.meters, on_recorded=board.tell)
            process.start()
            store.on_arrivals = process.wake
            return process
        from engine.back import Back

        back = Back(self.settings, store, self.meters, on_recorded=board.tell)
        back.start()
        return back

    async def _open_doors(self, store: Store, board: JudgedBoard) -> None:
        settings = self.settings
        accepts = settings.engine.role != "judge"
        if settings.mllp.enabled and accepts:
            limits = MllpLimits(
                max_frame_bytes=settings.mllp.max_frame_bytes,
                max_connections=settings.mllp.max_connections,
                max_connections_per_peer=settings.mllp.max_connections_per_peer,
                max_messages_per_s=settings.mllp.max_messages_per_s,
                max_held_bytes=settings.mllp.max_held_bytes,
                frame_timeout_s=settings.mllp.frame_timeout_s,
                idle_timeout_s=settings.mllp.idle_timeout_s,
            )
            self.mllp = MllpListener(store, self.meters, board, new_control_id=_control_id, limits=limits)
            if settings.mllp.plaintext:
                await self.mllp.start(settings.mllp.host, settings.mllp.port)
            context = self._mllp_tls = tls.mllp_server(settings.mllp)
            if context is not None and settings.mllp.tls_port is not None:
                senders = Senders(settings.mllp.allow)
                await self.mllp.start_tls(settings.mllp.host, settings.mllp.tls_port, context, senders)
        if settings.http.enabled:
            # The web framework takes longer to load than everything else: the other doors answer meanwhile.
            self.app = await asyncio.to_thread(self._application, store, board, access_of(settings))
            secure = self._http_tls = tls.http_server(settings.http)
            self._web = self._bounded(self.app, secure)
            await self._web.open(settings.http.host, settings.http.port)
            self.http_port = self._web.port
        if accepts:
            self._open_kafka(store)
            self._open_folders(store, board)
        await self._note_audit()
        self.meters.event(
            "accepting",
            mode=settings.engine.mode,
            host=settings.mllp.host,
            port=self.mllp.port if self.mllp else 0,
        )

    def _application(self, store: Store, board: JudgedBoard, access: Access) -> FastAPI:
        from engine.http import application
        from engine.keys import keys_router

        settings = self.settings
        doors = self._http_doors(store, board, access) if settings.engine.role != "judge" else []
        doors.append(keys_router(settings, self.meters))
        handlers: dict[type[Exception], Any] = {}
        if settings.console.enabled:
            from console import handlers as console_handlers
            from engine.pages import Pages

            self._pages = Pages(settings, store, self._standing, lambda event: self.meters.noticed("console", event))
            doors.append(self._pages.router)
            handlers = console_handlers()
        everybody = is_loopback(settings.http.host) or settings.http.allow_anonymous
        return application(
            doors,
            readiness=self.readiness,
            metrics=self._metrics,
            meters=self.meters,
            may_measure=lambda request: everybody or access.named(request, "metrics") is not None,
            handlers=handlers,
        )

    def _bounded(self, app: FastAPI, secure: ssl.SSLContext | None) -> Web:
        http = self.settings.http
        limits = HttpLimits(
            max_connections=http.max_connections,
            max_connections_per_peer=http.max_connections_per_peer,
            max_messages_per_s=http.max_requests_per_s,
            max_held_bytes=http.max_held_bytes,
            max_requests=http.max_requests,
            max_header_bytes=http.max_header_bytes,
            header_timeout_s=http.header_timeout_s,
            body_timeout_s=http.body_timeout_s,
        )
        keeper = Keeper(limits)

        def noticed(event: str) -> None:
            self.meters.noticed("http", event)

        return Web(
            Guarded(Bounded(app, keeper, limits, noticed), tls=secure is not None),
            tls=secure,
            on_lost=lambda: self._fail("http"),
            protocol=protocol(keeper, limits, noticed),
        )

    def _open_folders(self, store: Store, board: JudgedBoard) -> None:
        files = self.settings.files
        limits = FolderLimits(
            poll_s=files.poll_s,
            settle_s=files.settle_s,
            half_after_s=files.half_after_s,
            max_file_bytes=files.max_file_bytes,
        )
        for folder in files.folder:
            door = FolderDoor(folder, store, self.meters, board, board.outcome, limits)
            task = door.start()
            self._folders.append(door)
            task.add_done_callback(lambda ended: None if ended.cancelled() else self._fail("files"))

    def _open_kafka(self, store: Store) -> None:
        section = self.settings.kafka
        if not section.bootstrap:
            return
        # The client is loaded where there is a broker to read from.
        from engine.kafka import security
        from ingest.kafka import KafkaInlet, KafkaSource

        source = KafkaSource(
            bootstrap=section.bootstrap,
            topics=section.topics,
            group=section.group,
            security=security(section),
            max_records=section.max_records,
            session_timeout_ms=int(section.session_timeout_s * 1000),
        )
        self._kafka = KafkaInlet(store, self.meters, source)
        self._reading = asyncio.create_task(self._kafka.run(), name="kafka")
        self._reading.add_done_callback(self._kafka_ended)

    def _kafka_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.meters.fault(error, reason="kafka")
        self._fail("kafka")

    def _http_doors(self, store: Store, board: JudgedBoard, access: Access) -> list[APIRouter]:
        from ingest.fhir_http import FhirDoor
        from ingest.hl7_http import Hl7Door

        limit = self.settings.http.max_body_bytes
        return [
            FhirDoor(store, self.meters, max_body_bytes=limit, access=access, smart=access.smart).router,
            Hl7Door(store, self.meters, board, new_control_id=_control_id, max_body_bytes=limit, access=access).router,
        ]

    async def stop(self) -> None:
        for door in self._folders:
            await door.stop()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self.mllp is not None:
            await self.mllp.stop()
        if self._web is not None:
            await self._web.close()
        if self._pages is not None:
            self._pages.close()
        if self._back is not None:
            await self._back.stop()
        if self.store is not None:
            await self._note_audit()
            await self.store.close()
        self.meters.event("stopped")

    async def _note_audit(self) -> None:
        """The head of the audit's chain goes to the log: what is cut off its end later is missed there."""
        if self.store is not None:
            with contextlib.suppress(StoreUnavailable):
                entries, link = await self.store.read(trail.head)
                self.meters.event("audit_head", count=entries, code=link)

    def renew_certificates(self) -> bool:
        """As the files are now; False, and everything as it was, when something is wrong with them."""
        problems = tls.renew(self.settings, self._mllp_tls, self._http_tls)
        for _ in problems:
            self.meters.event("certificate_refused", level=logging.ERROR)
        if not problems:
            self.meters.event("certificates_renewed")
        return not problems

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether messages are accepted and judged, and the state in numbers."""
        if self.store is None:
            return False, {"store": "closed"}
        ready, state = await self._standing()
        try:
            await self.store.takes()
            snapshot = await self.store.snapshot()
        except StoreUnavailable as error:
            return False, {**state, "store": str(error)}
        state |= {
            "store": "ok",
            "received": snapshot.received,
            "dispositions": snapshot.dispositions,
            "pending": snapshot.pending,
            "alerts_open": snapshot.alerts_open,
            "outbox": [
                {"destination": name, "state": condition, "count": number}
                for name, condition, number, _ in snapshot.outbox
            ],
        }
        return ready, state

    async def _standing(self) -> tuple[bool, dict[str, Any]]:
        """The same without a look into the store: asked for with every page of the console."""
        ended = [self.failed.result()] if self.failed.done() else []
        accepts_only = self.settings.engine.role == "accept"
        judging = self._back is not None and not self._back.failed.done() and self._back_answers()
        return (judging or accepts_only) and not ended, {
            "mode": self.settings.engine.mode,
            "role": self.settings.engine.role,
            "ended": ended,
            "judging": judging,
            "destinations": self._back.destinations() if self._back else {},
            **({"kafka": self._kafka.standing()} if self._kafka else {}),
        }

    def _back_answers(self) -> bool:
        from engine.back_process import BackProcess

        return self._back.alive if isinstance(self._back, BackProcess) else True

    async def _metrics(self) -> bytes:
        if self.store is None:
            return b""
        return self.meters.exposition(await self.store.snapshot(), to_ms(datetime.now(UTC)))

    def _fail(self, name: str) -> None:
        if not self.failed.done():
            self.failed.set_result(name)


def _control_id() -> str:
    return secrets.token_hex(10)
