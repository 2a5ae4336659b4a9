"""Judging and delivering in a process of its own, so that the doors never wait for the interpreter.

The store is the seam: the child opens the same database, and nothing clinical passes between the two. Over one socket pair
go, downwards, one byte when messages have arrived; upwards, lines of JSON with what was recorded, the measured times and
the destinations' states. The parent starts a child that died anew; the child ends when its parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.observe import Meters

__all__ = ["BackProcess"]

_REPORT_EVERY_S = 0.5
_SILENT_AFTER_S = 15.0
# It hangs and will not come back. A start on a machine that is out of breath takes half a minute.
_HUNG_AFTER_S = 120.0
# So many deaths within so long mean that starting again does not help.
_DEATHS, _WITHIN_S = 5, 60.0


class BackProcess:
    """The parent's side. ``failed`` is set when the child cannot be kept alive."""

    def __init__(self, settings: Settings, meters: Meters, on_recorded: Callable[[Iterable[int]], None]) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._meters = meters
        self._on_recorded = on_recorded
        self._socket: socket.socket | None = None
        self._destinations: dict[str, str] = {}
        self._heard_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    def start(self) -> None:
        """Does not wait for the child: messages are taken meanwhile, and ``alive`` tells when it judges."""
        self._keeper = asyncio.create_task(self._keep(), name="back-keeper")

    async def stop(self) -> None:
        self._stopping = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)  # the child reads the end, and ends
        if self._keeper is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._keeper), 10)
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """Something was heard lately; a child that hangs is as good as none."""
        return self._heard_at > 0 and time.monotonic() - self._heard_at < _SILENT_AFTER_S

    def destinations(self) -> dict[str, str]:
        return self._destinations

    def wake(self) -> None:
        if self._socket is not None:
            # Full means that the child has wakes enough; gone means that a new child looks for itself.
            with contextlib.suppress(OSError):
                self._socket.send(b"w")

    async def _keep(self) -> None:
        deaths: list[float] = []
        while not self._stopping:
            try:
                await self._one_life()
            except Exception as error:
                # No process, no descriptor, or a child killed before it had read a word: a death like any other.
                self._meters.fault(error, reason="back")
            if self._stopping:
                return
            deaths = [*(at for at in deaths if time.monotonic() - at < _WITHIN_S), time.monotonic()]
            self._meters.event("back_died", level=logging.ERROR, count=len(deaths))
            if len(deaths) >= _DEATHS:
                self.failed.set_result("judging process")
                return
            await asyncio.sleep(0.2 * len(deaths))

    async def _one_life(self) -> None:
        # The folder that holds our packages, for a program that was not installed.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *_python_path()]),
        }
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "engine.back_process",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                )
            try:
                await self._converse(ours)
            finally:
                self._socket = None
                ours.close()  # a child that still lives reads the end, and ends
                await self._process.wait()

    async def _converse(self, ours: socket.socket) -> None:
        """Until the child has no more to say."""
        # Only what was set: a section whose defaults are spelt out would count as asked for.
        ours.sendall(self._settings.model_dump_json(exclude_unset=True).encode() + b"\n")
        ours.setblocking(False)
        self._socket = ours
        reader, writer = await asyncio.open_connection(sock=ours.dup(), limit=8 * 1024 * 1024)
        try:
            while line := await self._next(reader):
                self._hear(json.loads(line))
        finally:
            writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """A report; nothing when the child has ended, or had to be ended."""
        try:
            async with asyncio.timeout(_HUNG_AFTER_S):
                return await reader.readline()
        except TimeoutError:
            self._meters.event("back_hung", level=logging.ERROR)
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
            return b""

    def _hear(self, report: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        if recorded := report.get("recorded"):
            self._on_recorded(recorded)
        self._destinations = report.get("destinations", self._destinations)
        for disposition, number in report.get("disposed", {}).items():
            self._meters.disposed(disposition, number)
        for stage, times in report.get("stages", {}).items():
            for seconds in times:
                self._meters.stage(stage, seconds)


def _python_path() -> list[str]:
    given = os.environ.get("PYTHONPATH", "")
    return [given] if given else []


class _Reporting(Meters):
    """The child's meters: counted here, told to the parent, which shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: dict[str, int] = {}
        self.timed: dict[str, list[float]] = {}

    def disposed(self, disposition: str, count: int = 1) -> None:
        self.counted[disposition] = self.counted.get(disposition, 0) + count

    def stage(self, stage: str, seconds: float) -> None:
        self.timed.setdefault(stage, []).append(round(seconds, 6))

    def take(self) -> dict[str, Any]:
        report = {"disposed": self.counted, "stages": self.timed}
        self.counted, self.timed = {}, {}
        return report


async def _child(end: socket.socket) -> int:
    from engine.back import Back
    from engine.body_keys import arm
    from engine.heap import set_aside_what_stays
    from store import Store

    reader, writer = await asyncio.open_connection(sock=end)
    # The parent decides when to stop: a signal to the whole group is for it to answer.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    settings = Settings.model_validate_json(await reader.readline())
    meters = _Reporting()
    meters.attend(asyncio.get_running_loop())
    arm(settings)
    store = Store(settings.store.url, sole=False)
    await store.open()

    def tell(**report: Any) -> None:
        if not writer.is_closing():
            writer.write(json.dumps(report).encode() + b"\n")

    back = Back(settings, store, meters, on_recorded=lambda ids: tell(recorded=list(ids)))
    back.start()
    set_aside_what_stays()
    over = asyncio.Event()
    listening = asyncio.create_task(_listen(reader, store))
    listening.add_done_callback(lambda _: over.set())
    back.failed.add_done_callback(lambda _: over.set())
    try:
        while not over.is_set():
            tell(destinations=back.destinations(), **meters.take())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _REPORT_EVERY_S)
    finally:
        await back.stop()
        tell(destinations=back.destinations(), **meters.take())
        await store.close()
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
    return 1 if back.failed.done() else 0


async def _listen(reader: asyncio.StreamReader, store: Any) -> None:
    """Each byte: messages have arrived. The end: the parent stops or is gone."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            store.arrived.set()


def _main() -> int:
    from engine.heap import keep_all

    keep_all()
    import uvloop

    from engine.observe import configure

    configure()
    return uvloop.run(_child(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    sys.exit(_main())
