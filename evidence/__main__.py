"""``make evidence``: the long trials, one table. ``python -m evidence steps`` runs one of them."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evidence.every_step import FAULTS, Outcome, every_step, may_trace

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


_PARTS: dict[str, Callable[[argparse.Namespace, Console], bool]] = {"steps": _steps}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; none: all")
    parser.add_argument("--only", default="", help="steps: faults whose name holds this")
    parser.add_argument("--most", type=int, default=1000, help="steps: the last n to try of each fault")
    parser.add_argument("--stride", type=int, default=1, help="steps: every so many")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    out = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    good = [_PARTS[part](asked, out) for part in asked.parts or _PARTS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
