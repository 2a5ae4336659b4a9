"""A great many messages on one connection that is never closed: memory stays where it was (field-notes, ipf #47).

Few of them are alike: other rows in another order, codes that were never seen before, long notes, now and then a count.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from engine.simulate import LoadReport, blood_count, load
from evidence.soak import resident_kb
from evidence.world import World

__all__ = ["Held", "connection"]

_LOOK_EVERY_S: Final = 1.0
# What allocators keep between two quarters of a run is not growth.
_SLACK: Final = 1.05


@dataclass(slots=True)
class Held:
    report: LoadReport = field(default_factory=LoadReport)
    looks: list[int] = field(default_factory=list)
    """Resident kB of both processes, one a second while messages came."""
    problems: list[str] = field(default_factory=list)

    def quarters_mb(self) -> list[float]:
        """The median of each quarter of the run; empty when it was too short."""
        size = len(self.looks) // 4
        return [statistics.median(self.looks[n * size : (n + 1) * size]) / 1024 for n in range(4)] if size else []


async def connection(folder: Path, *, messages: int, rate: float, limit_s: float) -> Held:
    """``rate`` 0: as fast as they are answered, one in flight."""
    done, over = Held(), asyncio.Event()
    async with World(folder, stories=1) as world:

        async def look() -> None:
            while not over.is_set():
                pids = [pid for pid in (world.accepting_pid, world.judging_pid) if pid is not None]
                done.looks.append(sum(resident_kb(pid) for pid in pids))
                await asyncio.sleep(_LOOK_EVERY_S)

        looking = asyncio.create_task(look())
        done.report = await load(
            "127.0.0.1", world.mllp_port, message_of, count=messages, connections=1, rate=rate, limit_s=limit_s
        )
        over.set()
        await looking
        await world.settled()
        if world.starts != 1:
            done.problems.append(f"the engine was started {world.starts} times")
    if done.report.accepted != messages or done.report.errors:
        done.problems.append(f"{done.report.accepted:,} of {messages:,} accepted {dict(done.report.errors)}")
    quarters = done.quarters_mb()
    if quarters and quarters[3] > quarters[1] * _SLACK:
        done.problems.append(f"memory grew from {quarters[1]:.0f} to {quarters[3]:.0f} MB")
    return done


_ANALYTES: Final = [f"{1000 + n}-{n % 10}^Analyte {n}^LN^A{n}^Dosage {n} (sérum)^L" for n in range(400)]


def message_of(number: int) -> bytes:
    """The message of that number: the same in every run."""
    draw = random.Random(number)
    drawn = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    if number % 100 == 0:
        return blood_count(
            control_id=f"M{number}",
            filler=f"MF{number}",
            patient_id=f"STRANGER{number}",
            anc_per_mm3=400 + number % 4000,
            collected=drawn,
        )
    codes = draw.sample(_ANALYTES, draw.randint(3, 20))
    if number % 20 == 0:
        codes.append(f"NEW{number}^Never seen before {number}^L")
    rows = [
        f"OBX|{place}|NM|{code}||{draw.randint(1, 999)}.{draw.randint(0, 9)}|mmol/L|1-100||||F"
        for place, code in enumerate(codes, 1)
    ]
    note = f"NTE|1||{'remarque ' * draw.randint(1, 300)}" if number % 7 == 0 else "NTE|1||Sans remarque"
    head = [
        f"MSH|^~\\&|SIM{number % 9}|LABO|NF|CHX|{drawn:%Y%m%d%H%M%S}+0000||ORU^R01|M{number}|P|2.5||||||UNICODE UTF-8",
        f"PID|1||SOMEBODY{number}^^^HOPITAL-EXEMPLE&2.999.1&ISO^PI",
        f"OBR|1|MP{number}|MF{number}|24323-8^Bilan^LN|||{drawn:%Y%m%d%H%M%S}+0000",
        note,
    ]
    return ("\r".join([*head, *rows]) + "\r").encode()
