"""The demo's picture: a live screen in a terminal, plain lines anywhere else, and the summary at the end.

A level is always a word; colour only repeats it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from engine.demo_outcome import Outcome
from store import Snapshot

__all__ = ["Board", "Delivered", "summary"]

_STYLE = {"critical": "bold white on red", "red": "bold red", "amber": "bold yellow", "info": "cyan"}
_LEVELS = ("critical", "red", "amber", "info")


@dataclass(frozen=True, slots=True)
class Delivered:
    """One destination's deliveries by state. ``held``: how many notifications its receiver says it has."""

    name: str
    kind: str
    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    held: int = 0
    down: bool = False

    @property
    def made(self) -> int:
        return self.delivered + self.waiting + self.dead

    @property
    def complete(self) -> bool:
        return not self.waiting and not self.dead and self.held >= self.delivered


@dataclass(slots=True)
class Board:
    """What is shown now. ``say`` adds an event: to the screen, or as a line at once."""

    out: TextIO
    doors: list[str] = field(default_factory=list)
    snapshot: Snapshot | None = None
    deliveries: Sequence[Delivered] = ()
    events: deque[Text] = field(default_factory=lambda: deque(maxlen=14))
    _live: Live | None = None

    def open(self) -> None:
        console = Console(file=self.out)
        if console.is_terminal:
            self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=8)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, who: str, words: str, level: str = "") -> None:
        at = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-4]
        line = Text.assemble((f"{at}  ", "dim"), (f"{who:<7}", "bold"), (f"{level.upper()} " if level else ""), words)
        if level:
            line.stylize(_STYLE.get(level, ""), len(at) + 9, len(at) + 9 + len(level))
        self.events.append(line)
        if self._live is None:
            print(line.plain, file=self.out, flush=True)

    def _picture(self) -> Group:
        parts: list[Panel | Table] = [Panel("\n".join(self.doors), title="doors", title_align="left")]
        if self.snapshot is not None:
            parts += [self._numbers(self.snapshot), self._destinations()]
        lines = Text("\n").join(self.events)
        lines.no_wrap, lines.overflow = True, "ellipsis"
        parts.append(Panel(lines, title="what happens (Ctrl-C ends)", title_align="left"))
        return Group(*parts)

    def _numbers(self, snapshot: Snapshot) -> Table:
        grid = Table.grid(padding=(0, 2))
        ends = "  ".join(f"{name} {number}" for name, number in sorted(snapshot.dispositions.items()) if number)
        grid.add_row("received", f"{snapshot.received}  =  {ends}  +  pending {snapshot.pending}")
        grid.add_row("alerts", _levels(snapshot))
        return grid

    def _destinations(self) -> Table:
        table = Table("destination", "state", "delivered", "waiting", "dead", box=None, header_style="dim")
        for one in self.deliveries:
            state = Text("DOWN", "bold red") if one.down else Text("up", "green")
            table.add_row(f"{one.name} ({one.kind})", state, str(one.delivered), str(one.waiting), str(one.dead))
        return table


def _levels(snapshot: Snapshot) -> Text:
    words = [
        Text(
            f"{level.upper()} {snapshot.alerts_open.get(level, 0)}",
            _STYLE[level] if level in snapshot.alerts_open else "dim",
        )
        for level in _LEVELS
    ]
    return Text("  ").join(words)


def summary(
    out: TextIO,
    snapshot: Snapshot,
    deliveries: Sequence[Delivered],
    outcomes: Sequence[Outcome],
    remarks: Sequence[str],
    problems: Sequence[str],
) -> None:
    """One screen."""
    console = Console(file=out, width=None if out.isatty() else 118, highlight=False)
    ends = " + ".join(f"{name} {number}" for name, number in sorted(snapshot.dispositions.items()) if number)
    console.print()
    console.print(f"received    {snapshot.received} = {ends or 0}")
    console.print(Text.assemble("alerts      ", _levels(snapshot), "  open"))
    for one in deliveries:
        console.print(f"delivered   {one.delivered} of {one.made} to {one.name} ({one.kind}), which holds {one.held}")
    for remark in remarks:
        console.print(f"            {remark}", style="dim")
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("patient", "category", "action", "level", "due", "engine", "FHIR", "HL7 v2"):
        table.add_column(name, overflow="fold")
    for row in outcomes:
        want = row.patient.expect
        level = Text(want.level.upper() if want.level != "none" else "none", _STYLE.get(want.level, "dim"))
        verdicts = [Text("OK", "green") if not problem else Text("DIFFERS", "bold red") for problem in _channels(row)]
        table.add_row(row.patient.id, want.category, want.action, level, f"+{want.next_due} d", *verdicts)
    console.print()
    console.print(table)
    for row in outcomes:
        for name, problem in zip(("engine", "FHIR", "HL7 v2"), _channels(row), strict=True):
            if problem:
                console.print(f"{row.patient.id}: {name} has {problem}", style="red", markup=False)
    for problem in problems:
        console.print(f"PROBLEM  {problem}", style="bold red", markup=False)


def _channels(row: Outcome) -> tuple[str, str, str]:
    return row.engine, row.fhir, row.v2
