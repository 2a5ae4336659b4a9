"""Two hosts on one PostgreSQL, killed by turns under load: seconds until the other has taken over, and both sides' counts.

A host is ``neutroflag serve`` with its judging process, ended by one signal to the group. The active one is killed: the one
that keeps the clock and delivers. Laboratories send to either door, as behind a balancer, and insist.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx2
from sqlalchemy import text
from sqlalchemy.engine import Engine

from bench.server import fresh, server
from engine.prescriber import Prescriber
from engine.simulate import AUTHORITY, LABORATORIES, blood_count
from evidence.laboratories import Laboratories
from evidence.million import KINDS, PEOPLE, Messages, when
from evidence.world import NEUTROFLAG, family, free_port, until
from store import database
from store.check import findings

__all__ = ["Kill", "Takeover", "takeover"]

_LANES = 32
_LEASES = 3  # the clock, and two destinations
_PATIENCE_S, _WATCHED_S = 300.0, 60.0


@dataclass(slots=True)
class Kill:
    """What was killed, and after how many seconds others had taken over; None: not within a minute."""

    what: str
    in_hand: int
    """Messages that the dead had claimed and not yet judged."""
    judged_s: float | None = None
    leases_s: float | None = None
    told_s: float | None = None
    """Until the next notification reached each of the prescriber's two faces."""

    @property
    def seconds(self) -> float | None:
        parts = (self.judged_s, self.leases_s, self.told_s)
        return None if None in parts else max(part for part in parts if part is not None)


@dataclass(slots=True)
class Takeover:
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """Accepted, as their senders know it, by kind."""
    filed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """On file by kind and disposition."""
    resent: int = 0
    alerts: int = 0
    told_again: int = 0
    """HL7 notifications that came twice under one MSH-10: those on their way when their host died."""
    problems: list[str] = field(default_factory=list)


async def takeover(
    folder: Path, *, messages: int, rate: float, kills: int, told: Callable[[str], None] = lambda words: None
) -> Takeover:
    """``kills`` by turns: the judging process of the active host, which its host starts anew, and the whole host."""
    done = Takeover()
    with server() as postgresql:
        async with _Region(folder, fresh(postgresql), messages) as region:
            started = time.monotonic()
            labs = Laboratories(region, _Mixed(0), asyncio.Event(), rate=rate, count=messages)
            async with asyncio.TaskGroup() as group:
                for lane in range(_LANES):
                    group.create_task(labs.lane(lane))
                for number in range(kills):
                    at = (number + 0.5) / kills * messages
                    await when(lambda at=at: len(region.accepted) >= at)  # type: ignore[misc]
                    done.kills.append(await (region.kill_host() if number % 2 else region.kill_worker()))
                    told(f"{len(region.accepted):,} accepted, {done.kills[-1]}")
            await region.drained()
            done.seconds = time.monotonic() - started
            done.sent.update(name[0] for name in region.accepted)
            done.resent = labs.resent
            await asyncio.to_thread(region.reconcile, messages, done)
    return done


class _Mixed(Messages):
    """One count in four of those on the register is critical, each of another patient."""

    def registered(self, number: int, lane: int) -> tuple[str, bytes]:
        if number % 4:
            return super().registered(number, lane)
        name = f"R{number}"
        return name, blood_count(
            control_id=name,
            filler=f"F{name}",
            patient_id=f"EV{PEOPLE + number // 4:06d}",
            anc_per_mm3=400,
            collected=self.now - timedelta(hours=1),
            sent=self.now,
            laboratory=LABORATORIES[lane % len(LABORATORIES)],
        )


class _Host:
    def __init__(self, folder: Path, name: str, settings: str) -> None:
        self.port, self.http_port = free_port(), free_port()
        self.config = folder / f"{name}.toml"
        doors = f"[mllp]\nport = {self.port}\n[http]\nport = {self.http_port}\n"
        self.config.write_text(settings + doors, encoding="utf-8")
        self._events = folder / f"{name}.jsonl"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        with self._events.open("ab") as events:
            self.process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
                [*NEUTROFLAG, "serve", "--config", str(self.config)],
                stdout=events,
                stderr=events,
                start_new_session=True,
            )
        async with httpx2.AsyncClient(trust_env=False, timeout=3) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx2.HTTPError, ValueError):
                    return (await client.get(f"http://127.0.0.1:{self.http_port}/readyz")).status_code == 200
                return False

            await until(ready, "a host is not ready", limit_s=_PATIENCE_S)

    def pids(self) -> list[int]:
        return family(self.process.pid) if self.process is not None and self.process.poll() is None else []

    def end(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            self.process.wait(60)


class _Region:
    """A database, two hosts, the prescriber's system; ``Laboratories`` send to one of the doors after the other."""

    def __init__(self, folder: Path, url: str, messages: int) -> None:
        self.accepted: set[str] = set()
        self.wrong_answers: list[str] = []
        self._folder = folder
        self._url = url
        self._people = PEOPLE + messages // 200 + 1
        self._ehr = Prescriber()
        self._hosts: list[_Host] = []
        self._looking: Engine = database.reader(url)

    async def __aenter__(self) -> Self:
        await self._ehr.up()
        for number in range(self._people):
            self._ehr.add_patient((f"urn:oid:{AUTHORITY}", f"EV{number:06d}"), id_=f"EV{number:06d}")
        self._hosts = [_Host(self._folder, name, self._settings()) for name in ("one", "two")]
        self._turns = itertools.cycle(self._hosts)
        await asyncio.to_thread(self._enrol)
        for host in self._hosts:
            await host.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self._hosts:
            await asyncio.to_thread(host.end, signal.SIGTERM)
        await self._ehr.down()
        self._looking.dispose()

    @property
    def mllp_port(self) -> int:
        return next(self._turns).port

    def _settings(self) -> str:
        ehr = self._ehr
        retry = "retry_first_s = 0.05\nretry_longest_s = 0.3\ntimeout_s = 3\n"
        return (
            f'[store]\nurl = "{self._url}"\n[engine]\nhistory_settle_s = 0.2\n[watch]\nevery_s = 3600\n'
            f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{ehr.url}"\n{retry}'
            f'[[destination]]\nname = "ehr-v2"\nkind = "mllp"\nhost = "127.0.0.1"\nport = {ehr.mllp_port}\n{retry}'
        )

    def _enrol(self) -> None:
        start = (datetime.now(UTC).date() - timedelta(days=40)).isoformat()
        file = self._folder / "register.csv"
        head = "patient_id,authority,family,given,treatment_start,start_confirmed_by,neutropenia_history"
        rows = (f"EV{n:06d},{AUTHORITY},EXEMPLE,Personne,{start},Dr Exemple,none" for n in range(self._people))
        file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        self._command("db", "upgrade")
        self._command("patients", "import", str(file), "--by", "evidence")

    def _command(self, *arguments: str) -> None:
        command = [*NEUTROFLAG, *arguments, "--config", str(self._hosts[0].config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}")

    def _rows(self, sql: str, **given: Any) -> list[Any]:
        with self._looking.connect() as connection:
            return list(connection.execute(text(sql), given).fetchall())

    # Killing

    async def kill_worker(self) -> Kill:
        _, pid = await self._active()
        return await self._killed("the active host's judging process", pid, lambda: os.kill(pid, signal.SIGKILL))

    async def kill_host(self) -> Kill:
        host, pid = await self._active()
        found = await self._killed("the active host", pid, lambda: host.end(signal.SIGKILL))
        await host.start()
        return found

    async def _active(self) -> tuple[_Host, int]:
        """The host that keeps the clock, and its judging process, which names itself as the holder."""
        while True:
            for (owner,) in self._rows("SELECT owner FROM lease WHERE name = 'clock'"):
                pid = _pid(owner)
                for host in self._hosts:
                    if pid in host.pids():
                        return host, pid
            await asyncio.sleep(0.05)

    async def _killed(self, what: str, pid: int, kill: Callable[[], None]) -> Kill:
        """Killed with messages in its hands, where it has any within a second."""
        deadline = time.monotonic() + 1.0
        while not self._in_hand(pid) and time.monotonic() < deadline:  # noqa: ASYNC110  # another process's rows
            await asyncio.sleep(0.002)
        kill()
        began = time.monotonic()
        held = self._in_hand(pid)
        flags, notices = len(self._ehr.flags()), len(self._ehr.messages())
        found = Kill(what, len(held))
        while found.seconds is None and time.monotonic() - began < _WATCHED_S:
            await asyncio.sleep(0.02)
            since = time.monotonic() - began
            if found.judged_s is None and not self._pending(held):
                found.judged_s = since
            if found.leases_s is None and len(self._others(pid)) == _LEASES:
                found.leases_s = since
            if found.told_s is None and len(self._ehr.flags()) > flags and len(self._ehr.messages()) > notices:
                found.told_s = since
        return found

    def _in_hand(self, pid: int) -> list[int]:
        rows = self._rows(
            "SELECT claim.message_id, claim.owner FROM claim JOIN message ON message.id = claim.message_id "
            "WHERE message.disposition IS NULL"
        )
        return [number for number, owner in rows if _pid(owner) == pid]

    def _pending(self, numbers: list[int]) -> int:
        sql = "SELECT count(*) FROM message WHERE id = ANY(:numbers) AND disposition IS NULL"
        return int(self._rows(sql, numbers=numbers)[0][0])

    def _others(self, pid: int) -> list[str]:
        rows = self._rows(
            "SELECT name, owner FROM lease WHERE expires_at > extract(epoch FROM clock_timestamp()) * 1000"
        )
        return [name for name, owner in rows if _pid(owner) != pid]

    # The end

    async def drained(self) -> None:
        """Everything accepted is judged, and everything to be told has been taken. Patience begins anew with progress."""
        left = await asyncio.to_thread(self._left)
        while any(left):

            async def moved(before: tuple[int, ...] = left) -> bool:
                return await asyncio.to_thread(self._left) != before

            await until(moved, f"{left} not judged, delivered, settled", limit_s=_PATIENCE_S, pause_s=0.2)
            left = await asyncio.to_thread(self._left)

    def _left(self) -> tuple[int, ...]:
        return tuple(
            self._rows(f"SELECT count(*) FROM {what}")[0][0]  # noqa: S608  # our own words
            for what in (
                "message WHERE disposition IS NULL",
                "delivery WHERE state = 'waiting'",
                "patient WHERE settle_at IS NOT NULL",
            )
        )

    def reconcile(self, messages: int, done: Takeover) -> None:
        done.problems += self.wrong_answers
        with self._looking.connect() as connection:
            done.problems += findings(connection)
        firsts: Counter[str] = Counter()
        for name, end in self._rows("SELECT control_id, disposition FROM message"):
            done.filed[name[0], end] += 1
            if end != "duplicate":
                firsts[name] += 1
        wrong = [f"{name}: accepted, and {firsts[name]} times on file" for name in self.accepted if firsts[name] != 1]
        done.problems += sorted(wrong)
        for kind in KINDS:
            ends = {end: number for (letter, end), number in done.filed.items() if letter == kind.letter}
            ends.pop("duplicate", None)
            if ends != ({kind.end: done.sent[kind.letter]} if done.sent[kind.letter] else {}):
                done.problems.append(f"{kind.what}: {done.sent[kind.letter]} accepted, on file {ends}")
        if len(self.accepted) != messages:
            done.problems.append(f"{messages} were to be sent, {len(self.accepted)} were accepted")
        sent = self._rows("SELECT destination, control_id, state, alert_id FROM delivery")
        done.alerts, done.told_again = len(sent), self._ehr.duplicates
        if left := [row for row in sent if row[2] != "delivered"]:
            done.problems.append(f"{len(left)} notifications were not delivered: {left[:3]}")
        if sorted(self._ehr.messages()) != sorted(row[1] for row in sent if row[0] == "ehr-v2"):
            done.problems.append("the HL7 notifications are not those that the outbox names")
        if doubled := self._ehr.fhir.doubled():
            done.problems.append(f"{doubled} identifiers stand on two resources of the prescriber's system")
        stops = sum(1 for number in range(0, messages, 200))
        if len({row[3] for row in sent}) != stops or len(self._ehr.flags()) != stops:
            done.problems.append(f"{stops} critical counts, {len({row[3] for row in sent})} alerts")


def _pid(owner: str) -> int:
    """An owner's name is host, process, and something drawn."""
    return int(owner.split(":")[-2])
