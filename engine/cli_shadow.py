"""``neutroflag rules shadow`` and ``rules replay``: history under another protocol, and under its own."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zoneinfo import ZoneInfo

from rules import ProtocolError
from rules.explain import plain

if TYPE_CHECKING:
    from engine.shadow import PatientShadow

__all__ = ["rules_replay", "rules_shadow"]


def rules_shadow(
    config: Path | None, old: str, new: str, stdout: TextIO, stderr: TextIO, *, json: bool = False, all_: bool = False
) -> int:
    """One line a patient whose treatment would differ (``all_``: also those with other intervals only), then the sum.

    Exit codes: 0 ok (differences are no failure), 2 usage, 3 no database.
    """
    from engine.config import ConfigError, load
    from engine.shadow import named_or_file, shadows
    from store import database

    try:
        url = load(config).store.url
        names = [named_or_file(name).name for name in (old, new)]
    except (ConfigError, ProtocolError, OSError) as error:
        stderr.write(f"{error}\n")
        return 2
    path = database.file_of(url)
    if path is not None and not path.exists():
        stderr.write(f"{path}: no such database\n")
        return 3
    sums: Counter[str] = Counter()

    def told(one: PatientShadow) -> None:
        sums.update(_sums(one))
        if one.shadow.treatment is not None or (all_ and one.shadow.intervals):
            line = _line(one)
            stdout.write((jsonlib.dumps(line, ensure_ascii=False) if json else _row(line)) + "\n")

    if not json:
        stdout.write(_row(_HEADER) + "\n")
    with _progress(stderr) as bar:
        done = 0
        for total, block in shadows(url, old, new):
            for one in block:
                told(one)
            done += len(block)
            bar(done, total)
    _sum_up(sums, names, stdout, json=json)
    return 0


_COLUMNS = (("patient", 36), ("on", 10), ("anc_per_mm3", 11), ("no_clozapine_under", 5), ("old", 38), ("new", 38))
_HEADER = {"no_clozapine_under": "stops", **{name: name for name, _ in _COLUMNS if name != "no_clozapine_under"}}


def _line(one: PatientShadow) -> dict[str, Any]:
    found = one.shadow.treatment
    if found is None:
        first = one.shadow.first_interval_on
        return {
            "patient": one.patient,
            "on": first.isoformat() if first else None,
            "anc_per_mm3": None,
            "no_clozapine_under": None,
            "old": None,
            "new": None,
            "other_intervals": one.shadow.intervals,
        }
    return {
        "patient": one.patient,
        "on": found.on.isoformat(),
        "anc_per_mm3": plain(found.per_mm3),
        "no_clozapine_under": found.stops,
        "old": found.old.action,
        "new": found.new.action,
        "other_intervals": one.shadow.intervals,
    }


def _row(line: dict[str, Any]) -> str:
    return "  ".join(str(line[name] or "-").ljust(width) for name, width in _COLUMNS).rstrip()


def _sums(one: PatientShadow) -> dict[str, int]:
    found = one.shadow.treatment
    return {
        "patients": 1,
        "counts": one.shadow.counts,
        "no_clozapine_under_old": int(found is not None and found.stops == "old"),
        "no_clozapine_under_new": int(found is not None and found.stops == "new"),
        "other_intervals_only": int(found is None and one.shadow.intervals > 0),
    }


def _sum_up(sums: Counter[str], names: list[str], stdout: TextIO, *, json: bool) -> None:
    if json:
        stdout.write(jsonlib.dumps({"old": names[0], "new": names[1], "sum": dict(sums)}) + "\n")
        return
    stdout.write(
        f"\n{sums['patients']} patients, {sums['counts']} counts: {names[0]} -> {names[1]}\n"
        f"  {sums['no_clozapine_under_old']} stop or are not begun under the old protocol only\n"
        f"  {sums['no_clozapine_under_new']} stop or are not begun under the new protocol only\n"
        f"  {sums['other_intervals_only']} are treated alike and counted at other intervals\n"
    )


def _progress(stderr: TextIO) -> Any:
    """A bar for a person who waits: on a terminal only."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def shown() -> Any:
        with Progress(console=Console(file=stderr), disable=not stderr.isatty(), transient=True) as bar:
            task = bar.add_task("patients", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return shown()


def rules_replay(config: Path | None, stdout: TextIO, stderr: TextIO, *, json: bool = False) -> int:
    """Make every stored verdict again; 1 when one comes out otherwise."""
    from engine.config import ConfigError, load
    from engine.replay import replayed
    from store import database

    try:
        settings = load(config)
    except ConfigError as error:
        stderr.write(f"{error}\n")
        return 2
    path = database.file_of(settings.store.url)
    if path is not None and not path.exists():
        stderr.write(f"{path}: no such database\n")
        return 3
    sums: Counter[str] = Counter()
    with database.reader(settings.store.url).connect() as connection:
        for one in replayed(connection, ZoneInfo(settings.locale.zone)):
            sums[one.outcome] += 1
            if one.outcome == "differs":
                line = {"assessment": one.assessment_id, "patient": one.patient_id, "words": one.words}
                stdout.write((jsonlib.dumps(line) if json else "  ".join(map(str, line.values()))) + "\n")
    if json:
        stdout.write(jsonlib.dumps({name: sums[name] for name in ("same", "differs", "unknown")}) + "\n")
    else:
        told = f"{sums['same']} come out the same, {sums['differs']} otherwise, {sums['unknown']} cannot be made again"
        stdout.write(f"{sums.total()} verdicts: {told}\n")
    return 1 if sums["differs"] else 0
