"""The load, in a process of its own: ``python -m bench.sender '{"port": 2575, ...}'`` prints what came of it as JSON.

``kind``: ``strangers`` are counts of people who are not on the register, ``alerts`` are stop-level counts of patients
``first`` .. ``first + count`` of the register, one each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.simulate import LABORATORIES, LoadReport, blood_count, laboratories, load

__all__ = ["alerts", "patient_id"]


def patient_id(number: int) -> str:
    return f"BENCH{number:06d}"


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


async def _run(asked: dict[str, Any]) -> tuple[float, LoadReport]:
    run = asked["run"]
    build = alerts(run, asked["first"]) if asked["kind"] == "alerts" else laboratories(run)
    # Built beforehand: what is measured is the engine, on cores that both share.
    ready = [build(number) for number in range(asked["count"])]
    started = time.monotonic()
    report = await load(
        "127.0.0.1", asked["port"], ready.__getitem__, count=len(ready), connections=asked["connections"], limit_s=120
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
