"""The console's pages on a full database, through the real HTTP face of a running engine."""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from bench.filled import COUNTS, Sizes, fill, identifier_of, message_of
from bench.running import receiver, serve
from engine.simulate import LABORATORIES

__all__ = ["PageTime", "pages"]


@dataclass(frozen=True, slots=True)
class PageTime:
    """One page: its first showing, then the median and the slowest of the others, in ms; ``wrong`` in words."""

    what: str
    first_ms: float
    p50_ms: float
    worst_ms: float
    size_kb: float
    wrong: str = ""


def pages(sizes: Sizes, rounds: int) -> Iterator[PageTime]:
    """Builds the database in a folder of this run, starts the engine on it, asks for each page ``rounds`` times."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="neutroflag-bench-") as folder, receiver() as fhir:
        place = Path(folder) / "console"
        place.mkdir()
        fill(place / "bench.db", sizes, now)
        with serve(place, fhir) as engine:
            connection = http.client.HTTPConnection("127.0.0.1", engine.http_port, timeout=60)
            for what, address in _addresses(sizes):
                yield _time(connection, what, address, rounds)
            connection.close()


def _addresses(sizes: Sizes) -> Iterator[tuple[str, str]]:
    critical = 1  # as bench.filled spreads them
    newest = message_of((COUNTS - 1) * sizes.patients + critical, sizes)
    middle = sizes.messages // 2
    yield "strip", "/console/strip"
    yield "today", "/console/today"
    yield "today, critical", "/console/today?level=critical"
    yield "patients", "/console/patients"
    yield "patients, by name", "/console/patients?q=EXEMPLE123"
    yield "patients, by identifier", f"/console/patients?q={identifier_of(critical)}"
    yield "one patient", f"/console/patients/{critical:032x}"
    yield "one patient, to print", f"/console/patients/{critical:032x}/print"
    yield "messages", "/console/messages"
    yield "messages, from the middle", f"/console/messages?before={middle}"
    yield "messages, set aside", "/console/messages?disposition=set_aside"
    sender = quote(f"{LABORATORIES[0].application}|{LABORATORIES[0].facility}")
    yield "messages, of a sender", f"/console/messages?sender={sender}"
    yield "messages, of no sender", "/console/messages?sender=NOBODY%7CNOWHERE"
    yield "messages, by control id", f"/console/messages?control_id=C{middle}"
    yield "messages, by no control id", "/console/messages?control_id=NONE"
    yield "messages, of a patient", f"/console/messages?patient={identifier_of(critical)}"
    yield "one message", f"/console/messages/{newest}"
    yield "one message, set aside", "/console/messages/101"
    yield "dead letters", "/console/dead-letters"
    yield "dead letters, a group", "/console/dead-letters?destination=ehr&code=http-422"
    yield "connections", "/console/connections"
    yield "comparison", "/console/compare"


def _time(connection: http.client.HTTPConnection, what: str, address: str, rounds: int) -> PageTime:
    took, status, size = [], 0, 0
    for _ in range(rounds + 1):
        started = time.perf_counter()
        connection.request("GET", address)
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - started) * 1000)
        status, size = answer.status, len(body)
    wrong = "" if status == 200 else f"console page {what}: status {status}"
    return PageTime(what, took[0], statistics.median(took[1:]), max(took[1:]), size / 1000, wrong)
