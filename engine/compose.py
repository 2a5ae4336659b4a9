"""The one place that assembles: settings in, a running engine out."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, assert_never

import uvicorn

from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.fhir_terms import FhirProfile
from emitters.hl7v2 import V2Profile
from emitters.mllp import MllpDestination as MllpSink
from emitters.mllp import MllpSettings
from emitters.sink import Sink
from engine.config import FhirDestination, MllpDestination, Settings
from engine.dispatcher import Dispatcher, RetryPolicy
from engine.http import application
from engine.judge import Judge
from engine.judged import JudgedBoard
from engine.notify import Notifier
from engine.observe import Meters
from engine.worker import Worker
from ingest.fhir_http import FhirDoor
from ingest.hl7_http import Hl7Door
from ingest.mllp import MllpLimits, MllpListener
from store import Store, StoreUnavailable
from store.values import to_ms

__all__ = ["Engine", "PortTaken", "sink_of", "v2_profile"]


class PortTaken(Exception):
    """A face's port cannot be had."""


class Engine:
    """``start`` returns when every door is open; ``stop`` drains: no new messages, what was taken is answered and kept."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.meters = Meters()
        self.mllp: MllpListener | None = None
        self.http_port = 0
        self.store: Store | None = None
        self.worker: Worker | None = None
        self.dispatchers: list[Dispatcher] = []
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._web: uvicorn.Server | None = None
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set with its name when a part that must run for ever ended."""

    async def start(self) -> None:
        """Raises what the store raises on opening, PortTaken, and OSError of a sink's settings."""
        settings = self.settings
        store = Store(settings.store.url)
        await store.open()
        self.store = store
        board = JudgedBoard(store)
        sinks = [sink_of(item, settings) for item in settings.destination]
        if settings.engine.mode == "deliver":
            self.dispatchers = [
                Dispatcher(store, sink, _policy(item), self.meters)
                for item, sink in zip(settings.destination, sinks, strict=True)
            ]
        judge = Judge(
            default_protocol=settings.engine.protocol,
            notifier=Notifier(
                language=settings.locale.language, destinations=tuple(item.name for item in self.dispatchers)
            ),
            zone=settings.zone,
            history_after=timedelta(hours=settings.engine.history_after_hours),
            settle=timedelta(seconds=settings.engine.history_settle_s),
        )
        worker = Worker(
            store,
            judge,
            self.meters,
            zone=settings.zone,
            unenrolled=timedelta(days=settings.register.unenrolled_days),
            on_recorded=board.tell,
            on_alerts=self._wake,
        )
        self.worker = worker
        self._run("worker", worker.run())
        for dispatcher in self.dispatchers:
            self._run(f"dispatcher {dispatcher.name}", dispatcher.run())
        try:
            await self._open_doors(store, board)
        except OSError as error:
            await self.stop()
            raise PortTaken(str(error)) from error

    async def _open_doors(self, store: Store, board: JudgedBoard) -> None:
        settings = self.settings
        if settings.mllp.enabled:
            limits = MllpLimits(
                max_frame_bytes=settings.mllp.max_frame_bytes,
                max_connections=settings.mllp.max_connections,
                idle_timeout_s=settings.mllp.idle_timeout_s,
            )
            self.mllp = MllpListener(store, self.meters, board, new_control_id=_control_id, limits=limits)
            await self.mllp.start(settings.mllp.host, settings.mllp.port)
        if settings.http.enabled:
            doors = [
                FhirDoor(store, self.meters, max_body_bytes=settings.http.max_body_bytes).router,
                Hl7Door(
                    store,
                    self.meters,
                    board,
                    new_control_id=_control_id,
                    max_body_bytes=settings.http.max_body_bytes,
                ).router,
            ]
            app = application(doors, readiness=self.readiness, metrics=self._metrics, meters=self.meters)
            listening = socket.create_server((settings.http.host, settings.http.port), backlog=512)
            # Inherited by what it accepts; without it an answer in two writes waits 40 ms for the peer (Nagle).
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.http_port = listening.getsockname()[1]
            config = uvicorn.Config(
                app, access_log=False, log_config=None, lifespan="off", timeout_graceful_shutdown=5, server_header=False
            )
            web = _Web(config)
            self._web = web
            self._run("http", web.serve(sockets=[listening]))
            await web.open
        self.meters.event(
            "accepting",
            mode=settings.engine.mode,
            host=settings.mllp.host,
            port=self.mllp.port if self.mllp else 0,
        )

    async def stop(self) -> None:
        if self.mllp is not None:
            await self.mllp.stop()
        if self._web is not None:
            self._web.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._tasks["http"]
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self.store is not None:
            await self.store.close()
        self.meters.event("stopped")

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether messages are accepted and judged, and the state in numbers."""
        if self.store is None:
            return False, {"store": "closed"}
        dead = sorted(name for name, task in self._tasks.items() if task.done())
        state: dict[str, Any] = {"mode": self.settings.engine.mode, "ended": dead}
        try:
            snapshot = await self.store.snapshot()
        except StoreUnavailable as error:
            return False, {**state, "store": str(error)}
        state |= {
            "store": "ok",
            "received": snapshot.received,
            "dispositions": snapshot.dispositions,
            "pending": snapshot.pending,
            "alerts_open": snapshot.alerts_open,
            "destinations": {item.name: "down" if item.down else "up" for item in self.dispatchers},
            "outbox": [
                {"destination": name, "state": condition, "count": number}
                for name, condition, number, _ in snapshot.outbox
            ],
        }
        return not dead, state

    async def _metrics(self) -> bytes:
        if self.store is None:
            return b""
        return self.meters.exposition(await self.store.snapshot(), to_ms(datetime.now(UTC)))

    def _wake(self) -> None:
        for dispatcher in self.dispatchers:
            dispatcher.wake()

    def _run(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda ended: self._noticed_end(name, ended))

    def _noticed_end(self, name: str, task: asyncio.Task[Any]) -> None:
        """A loop that should run for ever and did not is worth a restart: a half-dead engine is the worst kind."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.meters.fault(error, reason=name)
        if not self.failed.done() and error is not None:
            self.failed.set_result(name)


class _Web(uvicorn.Server):
    """Signals are the process's business, not the web server's; ``open`` is done once it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.open.set_result(None)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def sink_of(item: FhirDestination | MllpDestination, settings: Settings) -> Sink:
    match item:
        case FhirDestination():
            return FhirServer(
                FhirServerSettings(
                    name=item.name,
                    url=item.url,
                    profile=FhirProfile(
                        engine_id=settings.engine.name, engine_version=version("neutroflag"), owner=item.owner
                    ),
                    patient_systems=item.authorities,
                    timeout_s=item.timeout_s,
                    connections=item.connections,
                )
            )
        case MllpDestination():
            return MllpSink(
                MllpSettings(
                    name=item.name,
                    host=item.host,
                    port=item.port,
                    timeout_s=item.timeout_s,
                    profile=v2_profile(item),
                )
            )
        case other:
            assert_never(other)


def v2_profile(item: MllpDestination) -> V2Profile:
    return V2Profile(
        sending_application=item.sending_application,
        sending_facility=item.sending_facility,
        receiving_application=item.receiving_application,
        receiving_facility=item.receiving_facility,
        version=item.version,
        charset=item.charset,
    )


def _policy(item: FhirDestination | MllpDestination) -> RetryPolicy:
    return RetryPolicy(
        first_s=item.retry_first_s,
        longest_s=item.retry_longest_s,
        give_up_after=timedelta(seconds=item.give_up_after_s),
        parallel=item.connections if isinstance(item, FhirDestination) else 1,
    )


def _control_id() -> str:
    return secrets.token_hex(10)
