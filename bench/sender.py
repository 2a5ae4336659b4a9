"""The load, in a process of its own: ``python -m bench.sender '{"port": 2575, ...}'`` prints what came of it as JSON.

``kind``: ``strangers`` are counts of people who are not on the register, ``irrelevant`` has one of these among a hundred
reports of chemistry, ``alerts`` are stop-level counts of patients ``first`` .. ``first + count`` of the register, one each,
``register`` are sound counts of patients all over a register of ``first``. ``rate`` 0: as fast as it is answered. ``papers``:
over TLS, with the certificates of that folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.papers import sender_context
from bench.pure import chemistry
from engine.simulate import LABORATORIES, LoadReport, blood_count, laboratories, load

__all__ = ["PATIENT", "alerts", "begun", "build_of", "patient_id", "report_of", "sent"]


def begun(port: int, **asked: Any) -> subprocess.Popen[str]:
    """A load on its way, in a process of its own; its report is its output."""
    command = [
        sys.executable,
        "-m",
        "bench.sender",
        json.dumps({"port": port, "first": 0, "rate": 0, "papers": ""} | asked),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603


def sent(port: int, **asked: Any) -> dict[str, Any]:
    """One load, and what came of it."""
    return report_of(begun(port, **asked))


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"bench.sender ended with {process.returncode}")
    report: dict[str, Any] = json.loads(said)
    return report


PATIENT = "BENCH"


def patient_id(number: int) -> str:
    return f"{PATIENT}{number:06d}"


def alerts(run: str, first: int) -> Callable[[int], bytes]:
    drawn = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)

    def build(number: int) -> bytes:
        return blood_count(
            control_id=f"{run}-{number}",
            filler=f"{run}F{number}",
            patient_id=patient_id(first + number),
            anc_per_mm3=400 + number % 50 * 10,
            collected=drawn,
            laboratory=LABORATORIES[number % len(LABORATORIES)],
        )

    return build


def _sound(run: str, patients: int) -> Callable[[int], bytes]:
    drawn = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)

    def build(number: int) -> bytes:
        return blood_count(
            control_id=f"{run}-{number}",
            filler=f"{run}F{number}",
            patient_id=patient_id(number * 7919 % patients),
            anc_per_mm3=2400 + number % 900,
            collected=drawn + timedelta(seconds=number % 60),
            laboratory=LABORATORIES[number % len(LABORATORIES)],
        )

    return build


def _irrelevant(run: str) -> Callable[[int], bytes]:
    counts = laboratories(run)

    def build(number: int) -> bytes:
        if number % 100 == 0:
            return counts(number)
        return chemistry(number).replace(b"|C%d|P|" % number, b"|%b-%d|P|" % (run.encode(), number))

    return build


def build_of(kind: str, run: str, first: int = 0) -> Callable[[int], bytes]:
    """The n-th message of a load."""
    kinds = {
        "alerts": lambda: alerts(run, first),
        "irrelevant": lambda: _irrelevant(run),
        "register": lambda: _sound(run, first),
    }
    return kinds.get(kind, lambda: laboratories(run))()


async def _run(asked: dict[str, Any]) -> tuple[float, LoadReport]:
    build = build_of(asked["kind"], asked["run"], asked["first"])
    # Built beforehand: what is measured is the engine, on cores that both share.
    ready = [build(number) for number in range(asked["count"])]
    started = time.monotonic()
    report = await load(
        "127.0.0.1",
        asked["port"],
        ready.__getitem__,
        count=len(ready),
        connections=asked["connections"],
        rate=asked["rate"],
        limit_s=120,
        tls=sender_context(asked["papers"]),
    )
    return started, report


if __name__ == "__main__":
    import uvloop

    started, report = uvloop.run(_run(json.loads(sys.argv[1])))
    print(
        json.dumps(
            {
                "started": started,
                "sent": report.sent,
                "accepted": report.accepted,
                "rate": report.rate,
                "p50_ms": report.percentile_ms(50),
                "p99_ms": report.percentile_ms(99),
                "errors": dict(report.errors),
            }
        )
    )
