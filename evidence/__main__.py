"""``make evidence``: the long trials, one table. ``python -m evidence steps`` runs one of them."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from evidence.connection import connection
from evidence.every_step import FAULTS, Outcome, every_step, may_trace
from evidence.million import KINDS, million
from evidence.power import power_loss
from evidence.soak import soak
from evidence.takeover import takeover

__all__ = ["main"]

_progress = Console(stderr=True, highlight=False)


def _steps(asked: argparse.Namespace, out: Console) -> bool:
    """Every system call of a kind failing in turn, in either process."""
    if not may_trace():
        out.print("steps: strace is missing or may not trace here; nothing was shown", style="bold red")
        return False
    faults = tuple(fault for fault in FAULTS if asked.only in fault.name)
    table = Table("what fails, in which process", "rounds", "struck", "until untouched", "problems", box=None)

    def told(outcome: Outcome) -> None:
        _progress.print(f"{outcome.fault}: {outcome.struck} of {outcome.rounds}", style="dim")

    with tempfile.TemporaryDirectory(prefix="neutroflag-steps-") as folder:
        done = asyncio.run(every_step(Path(folder), faults, most=asked.most, stride=asked.stride, told=told))
    for one in done:
        ended = "yes" if one.untouched else f"stopped at {one.last}"
        table.add_row(one.fault, str(one.rounds), str(one.struck), ended, "; ".join(one.problems[:2]) or "none")
    table.add_row("together", str(sum(one.rounds for one in done)), str(sum(one.struck for one in done)), "", "")
    out.print(table)
    return not any(one.problems for one in done)


def _power(asked: argparse.Namespace, out: Console) -> bool:
    """Power lost at any moment of a recorded run."""
    if not may_trace():
        out.print("power: strace is missing or may not trace here; nothing was shown", style="bold red")
        return False
    with tempfile.TemporaryDirectory(prefix="neutroflag-power-") as folder:
        found = asyncio.run(power_loss(Path(folder), moments=asked.moments, seed=asked.seed))
    out.print(
        f"power lost after {found.moments} of {found.calls} calls, {found.states} disks opened, "
        f"{found.accepted} acceptances by the end: {len(found.problems)} problems (seed {asked.seed})"
    )
    for problem in found.problems[:10]:
        out.print(problem, style="red", markup=False)
    return not found.problems


def _soak(asked: argparse.Namespace, out: Console) -> bool:
    """A steady load for as long as asked, with a fault every so often."""

    def told(words: str) -> None:
        _progress.print(words, style="dim")

    with tempfile.TemporaryDirectory(prefix="neutroflag-soak-") as folder:
        found = asyncio.run(
            soak(Path(folder), seconds=asked.seconds, rate=asked.rate, fault_every_s=asked.every, told=told)
        )
    memory, files = found.drift()
    table = Table("soak", "", box=None, pad_edge=False, show_header=False)
    for name, value in (
        ("time", f"{found.seconds:,.0f} s"),
        ("accepted", f"{found.accepted:,} ({found.accepted / found.seconds:,.0f}/s), sent again {found.resent:,}"),
        ("faults", ", ".join(f"{name} {number}" for name, number in found.faults.items()) or "none"),
        ("engine started", f"{found.starts} times; its last two processes lived {found.lived_s() / 60:,.0f} min"),
        ("memory of both processes, 2nd and last quarter", memory),
        ("open files of both, 2nd and last quarter", files),
        ("problems", "; ".join(found.problems[:5]) or "none: nothing lost, nothing doubled"),
    ):
        table.add_row(name, value)
    out.print(table)
    return not found.problems


def _million(asked: argparse.Namespace, out: Console) -> bool:
    """So many messages, so many faults, and both sides' counts."""
    if not may_trace():
        out.print("million: strace is missing or may not trace here; nothing was shown", style="bold red")
        return False

    def told(words: str) -> None:
        _progress.print(words, style="dim")

    with tempfile.TemporaryDirectory(prefix="neutroflag-million-") as folder:
        found = uvloop.run(
            million(Path(folder), messages=asked.messages, faults=asked.faults, seed=asked.seed, told=told)
        )
    out.print(_reconciled(found.sent, found.filed))
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, number in sorted(found.faults.items()):
        table.add_row(name, str(number))
    rate = found.sent.total() / found.seconds
    for name, value in (
        ("faults together", f"{found.faults.total():,} (seed {asked.seed})"),
        ("engine started", f"{found.starts:,} times"),
        ("tried again by the laboratories", f"{found.resent:,}"),
        ("notifications delivered, each once", f"{found.alerts:,}"),
        ("time until all was judged and delivered", f"{found.seconds:,.0f} s ({rate:,.0f}/s)"),
        ("load of the machine", f"{min(found.load, default=0):.1f} to {max(found.load, default=0):.1f}"),
        ("db verify", found.verified),
        ("problems", "; ".join(found.problems[:5]) or "none: nothing lost, nothing doubled"),
    ):
        table.add_row(name, value)
    out.print(table)
    return not found.problems


def _reconciled(sent: Counter[str], filed: Counter[tuple[str, str]]) -> Table:
    counts = Table("reconciled", "accepted", "on file", "must end", "have ended so", "copies kept apart", box=None)
    for kind in KINDS:
        of_kind = {end: number for (letter, end), number in filed.items() if letter == kind.letter}
        copies = of_kind.pop("duplicate", 0)
        numbers = (sent[kind.letter], sum(of_kind.values()), of_kind.get(kind.end, 0), copies)
        accepted, on_file, ended, apart = (f"{number:,}" for number in numbers)
        counts.add_row(kind.what, accepted, on_file, kind.end, ended, apart)
    return counts


def _connection(asked: argparse.Namespace, out: Console) -> bool:
    """Many unlike messages on one connection."""
    with tempfile.TemporaryDirectory(prefix="neutroflag-connection-") as folder:
        limit_s = 60 + asked.messages / 50
        found = asyncio.run(connection(Path(folder), messages=asked.messages, rate=asked.pace, limit_s=limit_s))
    quarters = " -> ".join(f"{megabytes:.0f}" for megabytes in found.quarters_mb()) or "too short"
    out.print(
        f"one connection: {found.report.accepted:,} messages accepted in {found.report.seconds:,.0f} s "
        f"({found.report.rate:,.0f}/s); memory of both processes by quarters of the run: {quarters} MB"
    )
    for problem in found.problems:
        out.print(problem, style="red", markup=False)
    return not found.problems


def _takeover(asked: argparse.Namespace, out: Console) -> bool:
    """Of two hosts on PostgreSQL the active one, and its judging process, killed by turns under load."""

    def told(words: str) -> None:
        _progress.print(words, style="dim")

    with tempfile.TemporaryDirectory(prefix="neutroflag-takeover-") as folder:
        found = uvloop.run(
            takeover(Path(folder), messages=asked.messages, rate=asked.rate, kills=asked.kills, told=told)
        )
    out.print(_reconciled(found.sent, found.filed))
    kills = Table("killed", "in hand", "judged by others", "leases taken", "next told", "all, goal 10 s", box=None)
    for kill in found.kills:
        parts = (kill.judged_s, kill.leases_s, kill.told_s, kill.seconds)
        kills.add_row(kill.what, str(kill.in_hand), *("> 60 s" if one is None else f"{one:.1f} s" for one in parts))
    out.print(kills)
    out.print(
        f"{found.sent.total():,} accepted in {found.seconds:,.0f} s, {found.resent:,} tried again; {found.alerts:,} "
        f"notifications delivered, {found.told_again} of them twice under their one id"
    )
    out.print("; ".join(found.problems[:5]) or "nothing lost, nothing doubled", markup=False)
    return not found.problems


_PARTS: dict[str, Callable[[argparse.Namespace, Console], bool]] = {
    "steps": _steps,
    "power": _power,
    "soak": _soak,
    "million": _million,
    "connection": _connection,
    "takeover": _takeover,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; none: all")
    parser.add_argument("--only", default="", help="steps: faults whose name holds this")
    parser.add_argument("--most", type=int, default=1000, help="steps: the last n to try of each fault")
    parser.add_argument("--stride", type=int, default=1, help="steps: every so many")
    parser.add_argument("--moments", type=int, default=1000, help="power: how many moments of the run")
    parser.add_argument("--seed", type=int, default=1, help="power, million: of what chance decides")
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="million, connection, takeover: how many instead"
    )
    parser.add_argument("--faults", type=int, default=1000, help="million: spread over them")
    parser.add_argument("--kills", type=int, default=4, help="takeover: a judging process and a host by turns")
    parser.add_argument("--seconds", type=float, default=3600, help="soak: how long")
    parser.add_argument("--rate", type=float, default=500, help="soak, takeover: messages a second")
    parser.add_argument("--every", type=float, default=60, help="soak: seconds between faults")
    parser.add_argument("--pace", type=float, default=0, help="connection: messages a second; 0: as fast as answered")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Asked to end, it ends what it has started; started in the background of a shell it would not hear SIGINT.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    out = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    good = [_PARTS[part](asked, out) for part in asked.parts or _PARTS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
