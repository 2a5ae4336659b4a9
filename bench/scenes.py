"""The measurements that need the running engine. Each gives its figures, and in words what was lost."""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.papers import written
from bench.running import receiver as fast_receiver
from bench.running import send, serve
from bench.sender import alerts, begun, report_of
from wire.mllp import frame

__all__ = ["Figures", "at_rest", "critical", "demo", "door_to_door", "intake", "shown"]


@dataclass(frozen=True, slots=True)
class Figures:
    """``rate`` a second, times in ms; None where it was not measured. ``lost`` in words, "" when nothing was."""

    rate: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    judged: float | None = None
    cpu_ms: float | None = None
    """Of all the engine's processes, for each of what is counted: on a shared machine it says more than a rate."""
    lost: str = ""


def intake(connections: int, count: int, kind: str = "strangers", *, secured: bool = False) -> Figures:
    """Counts of people who are not on the register, or mostly what is no count: stored, acknowledged, judged.

    ``secured``: over mutual TLS, bodies sealed. That duplicates are known and the audit is kept cannot be switched off.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        papers = written(folder) if secured else None
        engine = stack.enter_context(serve(folder / "intake", papers=papers))
        asked = {"kind": kind, "connections": connections, "papers": papers.sender if papers is not None else ""}
        # The first messages warm caches and the interpreter.
        warm = send(engine, run="warm", count=200, **asked)
        engine.drained()
        before = engine.cpu_s()
        report = send(engine, run="load", count=count, **asked)
        lost = engine.lost(warm["accepted"] + report["accepted"])
        judged = (time.monotonic() - report["started"]) or 1.0
        if report["accepted"] != count:
            lost = f"{count} asked for, {report['accepted']} accepted {report['errors']} {lost}"
        each_ms = (engine.cpu_s() - before) * 1000 / count
        return Figures(report["rate"], report["p50_ms"], report["p99_ms"], count / judged, each_ms, lost)


def door_to_door(count: int) -> Figures:
    """Every message alerts: MLLP in, judged, posted to a FHIR server that takes it."""
    with tempfile.TemporaryDirectory() as folder, fast_receiver() as fhir, serve(Path(folder) / "door", fhir) as engine:
        engine.enrol(count)
        report = send(engine, kind="alerts", run="door", count=count, connections=16)
        seen = fhir.wait(count)
        lost = engine.lost(count)
        if len(seen) != count:
            lost = f"{count} alerts due, {len(seen)} arrived {lost}"
        rate = len(seen) / (seen[-1] - report["started"]) if seen else 0.0
        return Figures(rate, report["p50_ms"], report["p99_ms"], lost=lost)


_OTHERS_S = 2.0


def critical(count: int, others: int = 0) -> Figures:
    """One critical count after the other, from its last byte to the alert's POST; ``others`` messages a second beside them
    that are none of the register's. ``rate`` is what these were answered at."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fast_receiver() as fhir,
        serve(Path(folder) / "critical", fhir) as engine,
    ):
        engine.enrol(count + 1)
        build = alerts("crit", 0)
        sent = []
        beside = 0
        if others:
            warm = send(engine, kind="strangers", run="warm", count=200, connections=16)
            engine.drained()
            beside = int(others * (count * 0.15 + 2 * _OTHERS_S))
            load = begun(engine.mllp_port, kind="strangers", run="beside", count=beside, connections=16, rate=others)
            beside += warm["accepted"]
            engine.received(warm["accepted"] + 1)
            time.sleep(_OTHERS_S)
        with socket.create_connection(("127.0.0.1", engine.mllp_port)) as door:
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(count + 1):
                block = frame(build(number))
                door.sendall(block)
                sent.append(time.monotonic())
                door.recv(65536)
                time.sleep(0.15 if number else 1.0)
        seen = fhir.wait(count + 1)
        rate = report_of(load)["rate"] if others else None
        lost = engine.lost(count + 1 + beside)
        if len(seen) != len(sent):
            return Figures(lost=f"{len(sent)} critical counts, {len(seen)} alerts {lost}")
        # The first one also greets the server: it is not counted.
        took = sorted((arrived - at) * 1000 for at, arrived in zip(sent[1:], seen[1:], strict=True))
        return Figures(rate, p50_ms=statistics.median(took), p99_ms=took[len(took) * 99 // 100], lost=lost)


def shown(count: int) -> list[float]:
    """Seconds from a critical count's answer until the day's list has its alert; its page asks every two seconds."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "shown") as engine:
        engine.enrol(count)
        build = alerts("shown", 0)
        took = []
        with socket.create_connection(("127.0.0.1", engine.mllp_port)) as door:
            for number in range(count):
                door.sendall(frame(build(number)))
                door.recv(65536)
                started = time.monotonic()
                while len(engine.open_alerts()) <= number and time.monotonic() - started < 30:
                    time.sleep(0.01)
                took.append(time.monotonic() - started)
        return took


def at_rest() -> float:
    """Resident memory of ``serve`` with all its processes, in MB."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "rest") as engine:
        send(engine, kind="strangers", run="rest", count=200, connections=4)
        engine.drained()
        time.sleep(1.5)
        return engine.memory_mb()


def demo() -> tuple[float, float, str]:
    """Seconds until the demo's first alert is at the prescriber and until its end; in words when it failed."""
    started = time.monotonic()
    first = 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "demo", "--once"], stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if not first and re.search(r"  ehr +[A-Z]+ Flag", line):
            first = time.monotonic() - started
    code = process.wait(60)
    return first, time.monotonic() - started, "" if code == 0 else f"the demo ended with {code}: {lines[-1:]}"
