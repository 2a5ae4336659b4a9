"""``neutroflag simulate --region``: a region's week against an engine, and whether its ends are what was sent."""

from __future__ import annotations

import json
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from engine.region import Region, balanced, reconciled
from engine.simulate import fast_run, load, print_report, problem_of

__all__ = ["region_command"]

_JUDGED_WITHIN_S = 600.0


def region_command(
    to: str,
    *,
    rate: float,
    connections: int,
    count: int,
    laboratories: int,
    seed: int,
    against: str,
    register: Path | None,
    allow_remote: bool,
    stdout: TextIO,
    stderr: TextIO,
    limit_s: float = 86_400,
    now: datetime | None = None,
) -> int:
    """``rate`` is the week's mean; its hours differ as a week's do. 0: all accepted, and the sums agree; 1: not; 2: usage."""
    host, port, problem = problem_of(to, rate=rate, connections=connections, count=count, allow_remote=allow_remote)
    if not problem and not 1 <= laboratories <= 2000:
        problem = "--region 1 to 2000"
    if not problem and seed < 0:
        problem = "--seed 0 or more"
    if not problem and against and not against.startswith(("http://", "https://")):
        problem = "--against: write http://HOST:PORT"
    if problem:
        print(problem, file=stderr)
        return 2
    # The same all day: a second run with the same seed says nothing new.
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    region = Region(
        seed=seed, count=count, start=today, laboratories=laboratories, seconds=count / rate if rate else 0.0
    )
    if register is not None:
        people = region.register(register, region.patients, started=today - timedelta(days=40), by="Simulation")
        print(f"{register}: {people} patients", file=stdout)
        return 0
    try:
        before = _state(against) if against else None
        report = fast_run(
            load(
                host,
                port,
                region.build,
                count=count,
                connections=connections,
                due_s=region.due_s if rate else None,
                limit_s=limit_s,
            )
        )
        print_report(report, stdout)
        if rate:
            print(f"peak        {region.peak():.1f} times the mean, on Monday morning", file=stdout)
        for kind, number in sorted(region.told.items()):
            print(f"  {kind:<22}{number:>10}", file=stdout)
        whole = report.accepted == count
        if before is not None:
            whole = _agrees(region, before, against, stdout) and whole
    except OSError as error:
        # urllib's own errors are OSErrors too.
        print(f"{to}: {error.strerror or error}", file=stderr)
        return 1
    return 0 if whole else 1


def _agrees(region: Region, before: dict[str, Any], against: str, out: TextIO) -> bool:
    after = _judged(against)
    lines = reconciled(region.told, before["dispositions"], after["dispositions"])
    print(f"{'ended as':<24}{'sent':>10}{'ended':>10}", file=out)
    for group, sent, ended in lines:
        print(f"  {group:<22}{sent:>10}{ended:>10}{'' if sent == ended else '   DIFFERS'}", file=out)
    return balanced(lines)


def _judged(against: str) -> dict[str, Any]:
    """The engine's state once nothing waits; what it is by then when that does not come."""
    deadline = time.monotonic() + _JUDGED_WITHIN_S
    while True:
        state = _state(against)
        if not state["pending"] or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def _state(against: str) -> dict[str, Any]:
    """Raises OSError when there is no such engine, or when it keeps its numbers for holders of a token."""
    with urllib.request.urlopen(f"{against.rstrip('/')}/readyz", timeout=10) as answer:  # noqa: S310  # http(s), checked
        found: dict[str, Any] = json.load(answer)
    if "dispositions" not in found:
        raise OSError("its numbers are for holders of a token; ask on loopback")
    return found
