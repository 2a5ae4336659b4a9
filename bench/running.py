"""``neutroflag serve`` and its neighbours as processes, on loopback ports and a database of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.papers import Papers
from bench.quota import Group
from bench.sender import patient_id, sent

__all__ = ["Receiver", "Serve", "cpu_s_of", "receiver", "send", "serve"]

_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Receiver:
    port: int

    def seen(self) -> list[float]:
        found: list[float] = _get(f"http://127.0.0.1:{self.port}/seen")
        return found

    def wait(self, count: int) -> list[float]:
        """The times of all transactions, once there are ``count``; fewer when they do not come."""
        return _until(self.seen, lambda seen: len(seen) >= count)


@dataclass(frozen=True, slots=True)
class Serve:
    """A running engine. Its state is read as an operator would, from ``/readyz``."""

    process: subprocess.Popen[str]
    config: Path
    mllp_port: int
    http_port: int

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = _get(f"http://127.0.0.1:{self.http_port}/readyz")
        return found

    def drained(self) -> dict[str, Any]:
        """The state once everything is judged and delivered, or after the time limit."""
        return _until(self.state, lambda state: not state["pending"] and not state["outbox"])

    def received(self, count: int) -> dict[str, Any]:
        """The state once so many messages were stored."""
        return _until(self.state, lambda state: state["received"] >= count)

    def lost(self, sent: int) -> str:
        """In words, when what was sent is not what was stored and disposed of."""
        state = self.drained()
        disposed = sum(state["dispositions"].values())
        if state["received"] == sent == disposed and not state["outbox"]:
            return ""
        return f"sent {sent}, stored {state['received']}, disposed of {disposed}, outbox {state['outbox']}"

    def enrol(self, count: int) -> None:
        """``count`` patients by CSV, as an operator would; returns when the engine has looked at each of them."""
        start = (datetime.now(UTC).date() - timedelta(days=300)).isoformat()
        file = self.config.with_name("register.csv")
        head = "patient_id,authority,family,given,treatment_start,start_confirmed_by,neutropenia_history"
        rows = (f"{patient_id(number)},2.999.1,BENCH,Nobody,{start},Dr Bench,none" for number in range(count))
        file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        command = [*_NEUTROFLAG, "patients", "import", str(file), "--config", str(self.config), "--by", "bench"]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own command
        database = self.config.with_name("bench.db")
        _until(lambda: _unsettled(database), lambda number: number == 0)

    def open_alerts(self) -> set[str]:
        """The alerts on the console's list of the day, as its page asks for them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/console/today/lists", timeout=10) as answer:
            return set(re.findall(r"/console/alerts/([0-9a-f-]{36})", answer.read().decode()))

    def cpu_s(self) -> float:
        """Processor time that the process and all its children have had so far."""
        return cpu_s_of(self.process.pid)

    def memory_mb(self) -> float:
        """Resident memory of the process and all its children."""
        return sum(_resident_kb(pid) for pid in _family(self.process.pid)) / 1024


_NEUTROFLAG = (sys.executable, "-m", "engine.cli")


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    command = [sys.executable, "-m", "bench.receiver"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield Receiver(int(_line(process.stdout)))
    finally:
        process.communicate("")


@contextlib.contextmanager
def serve(
    directory: Path,
    fhir: Receiver | None = None,
    *,
    settings: str = "",
    url: str = "",
    role: str = "all",
    http_port: int = 0,
    papers: Papers | None = None,
    into: Group | None = None,
) -> Iterator[Serve]:
    """Started on a new SQLite file, or on the database at ``url``; stopped as a supervisor would. ``settings``: more of the
    file, instead of the bench's own watch and destination. ``http_port``: 0 = any that is free.
    ``papers``: the door speaks TLS only, and bodies are sealed. ``into``: the control group that it runs in."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "neutroflag.toml"
    address = url or f"sqlite:///{directory / 'bench.db'}"
    sealed, door = (papers.store, papers.door) if papers is not None else ("", "")
    text = f'[store]\nurl = "{address}"\n{sealed}[engine]\nrole = "{role}"\n[mllp]\nport = 0\n{door}'
    text += f"[http]\nport = {http_port}\n"
    # The people of the bench have no counts before it: their overdue alerts would be delivered among those measured.
    text += settings or "[watch]\nevery_s = 3600\n"
    if fhir is not None:
        text += f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "http://127.0.0.1:{fhir.port}/fhir"\n'
    config.write_text(text, encoding="utf-8")
    with (directory / "events.jsonl").open("w") as events:
        process = subprocess.Popen(  # noqa: S603
            [*_NEUTROFLAG, "serve", "--config", str(config)], stdout=events, stderr=subprocess.PIPE, text=True
        )
        try:
            if into is not None:
                into.take(process.pid)
            faces = _line(process.stderr)
            ports = [int(port) for port in re.findall(r"://127\.0\.0\.1:(\d+)", faces)]
            if len(ports) != (1 if role == "judge" else 2):
                raise RuntimeError(f"neutroflag serve: {faces.strip() or 'ended at once'}")
            engine = Serve(process, config, ports[0], ports[-1])
            # Doors open before judging begins; what is measured is an engine that does both.
            _until(engine.state, lambda state: state.get("judging") or role == "accept")
            yield engine
        finally:
            process.terminate()
            process.wait(30)


def send(engine: Serve, **asked: Any) -> dict[str, Any]:
    """One load from a process of its own; see ``bench.sender``."""
    return sent(engine.mllp_port, **asked)


def _line(stream: Any) -> str:
    return str(stream.readline()) if stream is not None else ""


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # loopback
            return json.loads(answer.read())
    except urllib.error.HTTPError as not_ready:
        # 503 while the judging process starts: the body tells the state all the same.
        return json.loads(not_ready.read())


def _until(look: Any, holds: Any) -> Any:
    deadline = time.monotonic() + _WAIT_S
    while not holds(found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _unsettled(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM patient WHERE settle_at IS NOT NULL").fetchone()[0])


def _family(pid: int) -> Iterator[int]:
    """A process and all its children."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        children = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            children = thread.read_text().split()
        for child in children:
            yield from _family(int(child))


def _resident_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def cpu_s_of(pid: int) -> float:
    """Processor time that a process and all its children have had so far, those that have ended too."""
    ticks = 0
    for one in list(_family(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
