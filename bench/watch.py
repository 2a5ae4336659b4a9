"""What the clock costs on a large register: one sweep over a million patients, some of whom have become overdue."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from engine.config import WatchSection
from engine.notify import Notifier
from engine.observe import Meters, configure
from engine.present import Present
from engine.watch import Watch
from rules.model import PriorNeutropenia, TreatmentCourse
from store import Store
from store.findings import overdue_count
from store.port import PatientRecord, Work
from store.values import encode

__all__ = ["Sweep", "overdue_sweep"]

_PARIS = ZoneInfo("Europe/Paris")
_NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


class Sweep(NamedTuple):
    """``first_s`` finds the overdue and tells them, ``idle_s`` finds nothing new. ``missed``: overdue and not told."""

    first_s: float
    idle_s: float
    missed: int


def overdue_sweep(patients: int = 1_000_000, overdue: int = 200) -> Sweep:
    """``patients`` on the register, ``overdue`` of them since yesterday; the others are due later."""
    configure(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clock.db"
        return asyncio.run(_sweep(path, patients, overdue))


async def _sweep(path: Path, patients: int, overdue: int) -> Sweep:
    store = Store(f"sqlite:///{path}")
    await store.open()
    try:
        course = TreatmentCourse(start=date(2026, 11, 16), prior_neutropenia=PriorNeutropenia.NONE)
        await store.record(Work(patients={"seed": PatientRecord(id="seed", enrolled=True, new=True, course=course)}))
        await asyncio.to_thread(_fill, path, patients, overdue, encode(course))
        present = Present(
            default_protocol="ansm",
            notifier=Notifier(language="fr", destinations=("ehr",)),
            zone=_PARIS,
            history_after=timedelta(days=1),
            settle=timedelta(0),
        )
        watch = Watch(
            store,
            present,
            Meters(),
            WatchSection(),
            destinations=lambda: {"ehr": "up"},
            on_alerts=lambda: None,
            clock=lambda: _NOW,
        )
        took = []
        for _ in range(2):
            started = time.perf_counter()
            await watch.sweep()
            took.append(time.perf_counter() - started)
        return Sweep(took[0], took[1], overdue - await store.read(overdue_count))
    finally:
        await store.close()


def _fill(path: Path, patients: int, overdue: int, course: str) -> None:
    """Rows as the register writes them; straight into the file, since writing a million is not what is measured."""
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(patient)")]
    seed = dict(zip(names, connection.execute("SELECT * FROM patient").fetchone(), strict=True))
    connection.execute("DELETE FROM patient")
    today = _NOW.date()

    def row(number: int) -> list[object]:
        late = number < overdue
        due = today - timedelta(days=1) if late else today + timedelta(days=number % 84)
        given = seed | {
            "id": f"{number:08d}-0000-4000-8000-000000000000",
            "course": course,
            "next_due": due.isoformat(),
            "watch_on": (due + timedelta(days=1)).isoformat(),
        }
        return [given[name] for name in names]

    marks = ", ".join("?" for _ in names)
    connection.executemany(f"INSERT INTO patient VALUES ({marks})", map(row, range(patients)))  # noqa: S608
    connection.commit()
    connection.close()


if __name__ == "__main__":
    print(json.dumps(overdue_sweep()._asdict()))
