"""A small hospital for trials: an engine that may die and is started anew, a laboratory that insists, a prescriber's system.

Rule of the file: the engine is ``neutroflag serve`` in processes of its own, reached by its doors and looked at through its
database; nothing in it knows that it is on trial.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import httpx2
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from engine.prescriber import Prescriber
from engine.simulate import AUTHORITY, blood_count
from store.check import findings
from wire.ack import read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["NEUTROFLAG", "Story", "World", "family", "free_port", "problems_of", "until"]

NEUTROFLAG = (sys.executable, "-m", "engine.cli")
_SYSTEM = f"urn:oid:{AUTHORITY}"
_ANSWER_S, _START_S = 5.0, 300.0


_ENDS = frozenset({"judged", "unenrolled", "duplicate"})


class Story:
    """What one round tells, and how it must end, whatever failed meanwhile.

    The first patient's stop-level count is corrected to a sound one: told, and taken back. The second's stands: told once.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.corrected, self.stopped = f"EV{2 * number:06d}", f"EV{2 * number + 1:06d}"
        drawn = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=40)

        def count(part: str, anc: int, status: str = "F") -> tuple[str, bytes]:
            name = f"S{number}-{part}"
            told = blood_count(
                control_id=name,
                filler=f"F{number}",
                patient_id=self.corrected,
                anc_per_mm3=anc,
                collected=drawn,
                status=status,
            )
            return name, told

        first = count("first", 840)  # the same bytes twice: built twice, OBR-22 may fall into the next second
        self.messages = [first, first, count("corrected", 2400, "C")]
        self.bundle_name = f"S{number}-fhir"
        self.bundle = _bundle(self.bundle_name, self.stopped, drawn)


def _bundle(name: str, patient: str, drawn: datetime) -> bytes:
    observation = {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:oid:2.999.9", "value": name}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "751-8", "display": "Neutrophils"}]},
        "subject": {"identifier": {"system": _SYSTEM, "value": patient}},
        "effectiveDateTime": drawn.isoformat(),
        "valueQuantity": {"value": 0.4, "unit": "10*9/L", "system": "http://unitsofmeasure.org", "code": "10*9/L"},
    }
    entry = {
        "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000001",
        "resource": observation,
        "request": {"method": "POST", "url": "Observation"},
    }
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "identifier": {"system": "urn:evidence", "value": name},
        "entry": [entry],
    }
    return json.dumps(bundle).encode()


class World:
    """``async with World(folder, stories=N) as world``: a register of two patients a story, and an engine that is kept up."""

    def __init__(
        self,
        folder: Path,
        *,
        stories: int,
        people: int = 0,
        patience_s: float = 90.0,
        wrap: Callable[[list[str]], list[str]] = lambda command: command,
    ) -> None:
        """``people`` more are on the register than the stories need; after ``patience_s`` without an end it is given up."""
        self.folder = folder
        self.database = folder / "neutroflag.db"
        self.config = folder / "neutroflag.toml"
        self.prescriber = Prescriber()
        self.accepted: set[str] = set()
        self.wrong_answers: list[str] = []
        self.starts = 0
        self.patience_s = patience_s
        self._patients = 2 * stories + people
        self._wrap = wrap
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ports = (0, 0)

    async def __aenter__(self) -> Self:
        await self.prescriber.up()
        for number in range(self._patients):
            self.prescriber.add_patient((_SYSTEM, f"EV{number:06d}"), id_=f"EV{number:06d}")
        self._ports = (free_port(), free_port())
        self.config.write_text(self._settings(), encoding="utf-8")
        await asyncio.to_thread(self._enrol)
        self._keeper = asyncio.create_task(self._keep(), name="supervisor")
        await self.judging()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, 30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        await self.prescriber.down()

    def _settings(self) -> str:
        ehr = self.prescriber
        retry = "retry_first_s = 0.05\nretry_longest_s = 0.3\n"
        return (
            f'[store]\nurl = "sqlite:///{self.database}"\n[engine]\nhistory_settle_s = 0.2\n'
            f"[mllp]\nport = {self._ports[0]}\n[http]\nport = {self._ports[1]}\n[watch]\nevery_s = 3600\n"
            f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{ehr.url}"\ntimeout_s = 3\n{retry}'
            f'[[destination]]\nname = "ehr-v2"\nkind = "mllp"\nhost = "127.0.0.1"\nport = {ehr.mllp_port}\n'
            f"timeout_s = 3\n{retry}"
        )

    def _enrol(self) -> None:
        start = (datetime.now(UTC).date() - timedelta(days=40)).isoformat()
        file = self.folder / "register.csv"
        head = "patient_id,authority,family,given,treatment_start,start_confirmed_by,neutropenia_history"
        rows = (f"EV{n:06d},{AUTHORITY},EXEMPLE,Personne,{start},Dr Exemple,none" for n in range(self._patients))
        file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        self.command("patients", "import", str(file), "--by", "evidence")

    def command(self, *arguments: str) -> str:
        """What a command of the product prints, run beside the engine as an operator would."""
        done = subprocess.run(
            [*NEUTROFLAG, *arguments, "--config", str(self.config)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    # The engine, and who keeps it up

    async def _keep(self) -> None:
        """A supervisor: whatever ends is started anew."""
        while True:
            self.starts += 1
            with (self.folder / "events.jsonl").open("ab") as events:
                self._process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
                    self._wrap([*NEUTROFLAG, "serve", "--config", str(self.config)]), stdout=events, stderr=events
                )
            while self._process.poll() is None:  # noqa: ASYNC110  # a process's end is no event of ours
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Everything at once and for good, as a power cut ends it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None:
            for pid in family(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait, 30)

    @contextlib.asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """All processes of the engine stopped, as those of a suspended machine are; then they go on."""
        stopped = family(self.accepting_pid)
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @property
    def mllp_port(self) -> int:
        return self._ports[0]

    @property
    def accepting_pid(self) -> int:
        if self._process is None:
            raise RuntimeError("no engine was started")
        return self._process.pid

    @property
    def judging_pid(self) -> int | None:
        """The child that judges; None while there is none."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.accepting_pid}/task/{self.accepting_pid}/children").read_text().split()
            for child in map(int, children):
                if b"engine.back_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return None

    async def judging(self) -> None:
        """Returns once the engine takes messages and judges them."""
        async with httpx2.AsyncClient(trust_env=False, timeout=3) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx2.HTTPError, ValueError):
                    return (await client.get(f"http://127.0.0.1:{self._ports[1]}/readyz")).status_code == 200
                return False

            await until(ready, "the engine is not ready", limit_s=_START_S)

    # The laboratory

    async def tell(self, story: Story) -> None:
        """Every message is sent until it is accepted, over new connections when one fails."""
        for name, raw in story.messages:
            await self._insist(lambda raw=raw, name=name: self._ask_mllp(name, raw), name)  # type: ignore[misc]
        await self._insist(lambda: self._ask_http(story.bundle), story.bundle_name)

    async def _insist(self, ask: Callable[[], Awaitable[bool]], name: str) -> None:
        async def accepted() -> bool:
            with contextlib.suppress(OSError, TimeoutError, EOFError, httpx2.HTTPError):
                return await ask()
            return False

        await until(accepted, f"{name} is not accepted", pause_s=0.05, limit_s=self.patience_s)
        self.accepted.add(name)

    async def _ask_mllp(self, name: str, raw: bytes) -> bool:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[0])
            try:
                writer.write(frame(raw))
                deframer = Deframer()
                while data := await reader.read(65536):
                    for event in deframer.feed(data):
                        if isinstance(event, Frame):
                            return self._understood(name, event.payload)
                raise EOFError
            finally:
                writer.transport.abort()

    def _understood(self, name: str, payload: bytes) -> bool:
        answer = read_ack(payload)
        if answer is None or answer.control_id != name or answer.code not in ("AA", "AE"):
            self.wrong_answers.append(f"{name} was answered by {answer}")
            return False
        return answer.code == "AA"

    async def _ask_http(self, body: bytes) -> bool:
        async with httpx2.AsyncClient(trust_env=False, timeout=_ANSWER_S) as client:
            headers = {"Content-Type": "application/fhir+json"}
            answer = await client.post(f"http://127.0.0.1:{self._ports[1]}/fhir", content=body, headers=headers)
        if answer.status_code not in (200, 503, 500):
            self.wrong_answers.append(f"the bundle was answered by {answer.status_code}")
        return answer.status_code == 200

    # The end

    async def settled(self) -> None:
        """Everything accepted is judged, and everything to be told has been taken. Patience begins anew with each that is."""
        left = await self._left()
        while any(left):

            async def moved(before: tuple[int, int, int] = left) -> bool:
                return await self._left() != before

            await until(moved, f"{left} not judged, delivered, settled", limit_s=self.patience_s)
            left = await self._left()

    async def _left(self) -> tuple[int, int, int]:
        while True:
            with contextlib.suppress(sqlite3.Error):
                return await asyncio.to_thread(_unfinished, self.database)
            await asyncio.sleep(0.1)

    def problems(self, stories: list[Story], ends: Container[str] = _ENDS) -> list[str]:
        """What is not as it must be; empty when all is well. ``ends``: the dispositions that may be."""
        found = [*self.wrong_answers, *problems_of(self.database, self.accepted, ends=ends)]
        flags = Counter((flag["subject"]["reference"], flag["status"]) for flag in self.prescriber.flags())
        for story in stories:
            for patient, status in ((story.corrected, "inactive"), (story.stopped, "active")):
                told = {key: number for key, number in flags.items() if key[0] == f"Patient/{patient}"}
                if told != {(f"Patient/{patient}", status): 1}:
                    found.append(f"story {story.number}: the flags of {patient} are {told}, not one that is {status}")
        if doubled := self.prescriber.fhir.doubled():
            found.append(f"{doubled} identifiers stand on two resources of the prescriber's system")
        with closing(_looking(self.database)) as connection:
            rows = connection.execute("SELECT destination, control_id, state FROM delivery").fetchall()
        if left := [row for row in rows if row[2] != "delivered"]:
            found.append(f"{len(left)} notifications were not delivered: {left[:3]}")
        if sorted(self.prescriber.messages()) != sorted(row[1] for row in rows if row[0] == "ehr-v2"):
            found.append("the HL7 notifications are not those that the outbox names")
        return found


def problems_of(database: Path, accepted: set[str], *, ends: Container[str] = ()) -> list[str]:
    """Of one database: is it whole, and is every message that was accepted on file once? ``ends``: and has one of these."""
    found: list[str] = []
    engine = create_engine("sqlite://", creator=lambda: _looking(database), poolclass=NullPool)
    with engine.connect() as connection:
        found += [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
        found += findings(connection)
        rows = connection.exec_driver_sql("SELECT control_id, disposition FROM message").fetchall()
    firsts = Counter(str(name).rpartition("|")[2] for name, disposition in rows if disposition != "duplicate")
    found += [f"{name}: accepted, and {firsts[name]} times on file" for name in sorted(accepted) if firsts[name] != 1]
    if ends:
        found += [f"{name}: {end or 'no disposition'}" for name, end in rows if end is None or end not in ends]
    return found


def _looking(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)


def _unfinished(database: Path) -> tuple[int, int, int]:
    with closing(_looking(database)) as connection:
        return (
            connection.execute("SELECT count(*) FROM message WHERE disposition IS NULL").fetchone()[0],
            connection.execute("SELECT count(*) FROM delivery WHERE state = 'waiting'").fetchone()[0],
            connection.execute("SELECT count(*) FROM patient WHERE settle_at IS NOT NULL").fetchone()[0],
        )


def family(pid: int) -> list[int]:
    """A process and all that it has started, the youngest first."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [one for child in children for one in family(int(child))] + [pid]
    return [pid]


async def until(
    condition: Callable[[], Awaitable[bool]], complaint: str, *, limit_s: float, pause_s: float = 0.03
) -> None:
    deadline = time.monotonic() + limit_s
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {limit_s:g} s")
        await asyncio.sleep(pause_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
