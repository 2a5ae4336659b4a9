"""``make bench``: what each part costs on this machine, in one table. Exit 1 only when a message was lost."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import disk, judging, kafka, machine, outbox, pure, quota, region, restart, scenes, server, watch
from bench.scenes import Figures
from bench.shadow import COUNTS, shadow_s

_PARTS = (
    *("pure", "clock", "rest", "shown", "critical", "through", "restart"),
    *("outbox", "postgresql", "judges", "kafka", "region", "disk", "demo", "shadow", "console"),
)


class _Bench:
    def __init__(self, quick: bool, patients: int) -> None:
        self.patients = patients
        self.runs = 1 if quick else 3
        self.share = 4 if quick else 1
        self.out = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
        self.progress = Console(stderr=True, highlight=False)
        self.lost: list[str] = []
        self.machine = _machine()
        self.table = Table("what", "median", "goal", "runs", box=None, pad_edge=False, header_style="dim")
        self.table.columns[1].justify = "right"

    def row(self, what: str, median: str, goal: str = "", runs: str = "") -> None:
        self.table.add_row(what, median, goal, runs)

    def scene(self, what: str, measure: Callable[[], Figures]) -> Figures:
        self.progress.print(what, style="dim")
        figures = measure()
        if figures.lost:
            self.lost.append(f"{what}: {figures.lost}")
        return figures

    def through(self) -> None:
        """The machine, and what goes through the engine, by turns: on a shared machine each minute is another machine."""
        share = self.share
        asked: dict[str, Callable[[], Figures]] = {
            "64 connections": lambda: scenes.intake(64, 4000 // share),
            "1 connection": lambda: scenes.intake(1, 1200 // share),
            "secured": lambda: scenes.intake(64, 4000 // share, secured=True),
            "irrelevant": lambda: scenes.intake(64, 4000 // share, "irrelevant"),
            "door to door": lambda: scenes.door_to_door(900 // share),
        }
        machines: list[machine.Machine] = []
        found: dict[str, list[Figures]] = {what: [] for what in asked}
        for number in range(1, self.runs + 1):
            self.progress.print(f"the machine alone, run {number}", style="dim")
            machines.append(machine.measured(share))
            for what, measure in asked.items():
                found[what].append(self.scene(f"{what}, run {number}", measure))
        self._machine(machines)
        for what, goal in (("64 connections", "2,500/s"), ("1 connection", "800/s")):
            self.row(f"durable intake, {what}, 25-OBX counts", *_rates([one.rate for one in found[what]], goal))
            self.row("    answer, p50 / p99", *_pairs(found[what]))
            self.row("    judged too, not on the register", *_rates([one.judged for one in found[what]], ""))
        pairs = list(zip(found["secured"], found["64 connections"], strict=True))
        of_plain = [(one.rate or 0) / (that.rate or 1) for one, that in pairs]
        self.row(
            "durable intake, 64 connections, TLS and sealed bodies", *_rates([one.rate for one in found["secured"]], "")
        )
        self.row("    of the same in the clear, in turn", *_shares(of_plain, ">= 60 %"))
        costs = [f"{one.cpu_ms or 0:.2f} / {that.cpu_ms or 0:.2f}" for one, that in pairs]
        self.row(
            "    the engine's processor time a message, judged too: secured / clear",
            costs[0] + " ms",
            "",
            "  ".join(costs),
        )
        alone = [(one.rate or 0) / that.commits for one, that in zip(found["1 connection"], machines, strict=True)]
        self.row("    1 connection, of SQLite's own commits", *_shares(alone, ""))
        self.row(
            "durable intake, 64 connections, 99 of 100 irrelevant",
            *_rates([one.rate for one in found["irrelevant"]], "as counts, less 20 %"),
        )
        self.row("    judged too", *_rates([one.judged for one in found["irrelevant"]], ""))
        self.row(
            "door to door: in, judged, POSTed, each an alert",
            *_rates([one.rate for one in found["door to door"]], "300/s"),
        )

    def outbox(self) -> None:
        """What waits goes out: how fast to a destination that costs nothing, and what waiting costs."""
        count = 10_000 // self.share
        for what, kind in (("FHIR transactions", "fhir"), ("HL7 v2 over one connection", "mllp")):
            found = [
                self.scene(f"delivering {what}, run {number}", lambda kind=kind: outbox.delivering(kind, count))  # type: ignore[misc]
                for number in range(1, self.runs + 1)
            ]
            self.row(f"alerts delivered: {what}", *_rates([one.rate for one in found], "1,000/s"))
            costs = [one.cpu_ms for one in found if one.cpu_ms is not None]
            runs = "  ".join(f"{one:.2f}" for one in costs)
            self.row("    processor time of the engine for each", f"{statistics.median(costs):.2f} ms", "", runs)
        few, many = 100, 100_000 // self.share
        self.progress.print(f"memory with {many:,} alerts waiting", style="dim")
        memory = outbox.waiting_mb(few), outbox.waiting_mb(many)
        shown = f"{memory[0]:.0f} / {memory[1]:.0f} MB"
        # SQLite keeps up to 16 MB of pages a connection, however many rows there are.
        self.row(f"memory, destination down: {few} / {many:,} alerts waiting", shown, "the same + page caches", "1")

    def postgresql(self) -> None:
        """The same messages into SQLite and into PostgreSQL, by turns, and what the server does raw."""
        share = self.share
        with server.server() as found:
            asked: dict[str, Callable[[], Figures]] = {
                "SQLite, 64 connections": lambda: scenes.intake(64, 3000 // share),
                "PostgreSQL, 64 connections": lambda: server.intake(server.fresh(found), 64, 3000 // share),
                "PostgreSQL, 64 connections, two judging": lambda: server.intake(
                    server.fresh(found), 64, 3000 // share, 2
                ),
                "PostgreSQL, 1 connection": lambda: server.intake(server.fresh(found), 1, 800 // share),
            }
            seen: dict[str, list[Figures]] = {what: [] for what in asked}
            raw: list[float | None] = []
            for number in range(1, self.runs + 1):
                raw.append(server.raw_copy(server.fresh(found)))
                for what, measure in asked.items():
                    seen[what].append(self.scene(f"{what}, run {number}", measure))
        self.row("PostgreSQL raw: COPY in committed groups of 64", *_rates(raw, ""))
        for what, figures in seen.items():
            goal = "4,000/s" if what == "PostgreSQL, 64 connections" else ""
            self.row(f"durable intake, {what}", *_rates([one.rate for one in figures], goal))
            self.row("    answer, p50 / p99", *_pairs(figures))
            self.row("    judged too, not on the register", *_rates([one.judged for one in figures], ""))

    def judges(self) -> None:
        """What waits in the inbox, judged by one, two and three engines that have the same share of a core each."""
        # Twenty full batches of one engine: of fewer, a batch more or less would be seen.
        cores, many, count = 0.3, (1, 2, 3), 2_560
        try:
            with quota.groups(1) as (group,):
                group.limit(cores)
        except OSError as error:
            self.row("judged by two engines, of one", "no cgroup", ">= 1.6 times", str(error))
            return
        alone: list[list[float]] = []
        with server.server() as found:
            for kind, what in {"register": "on the register", "strangers": "not on the register"}.items():
                waiting = judging.backlog(found, kind, count * 3)
                seen: list[list[judging.Judging]] = []
                for run in range(1, self.runs + 1):
                    self.progress.print(f"judging, {what}, run {run}", style="dim")
                    seen.append([judging.measured(found, waiting, count, number, cores) for number in many])
                    alone.append([judging.loops(number, cores) for number in many])
                self.lost += [f"judging, {what}: {one.lost}" for by in seen for one in by if one.lost]
                rates = [by[0].rate for by in seen]
                self.row(f"judged, {what}: one engine, {cores:.0%} of a core", *_rates(rates, ""))
                for place, name, goal in ((1, "two", ">= 1.6 times"), (2, "three", "")):
                    self.row(
                        f"    {name} such engines, of one", *_times([by[place].rate / by[0].rate for by in seen], goal)
                    )
                    costs = [f"{by[place].engines:.2f} / {by[place].server:.2f} / {by[place].idle:.2f}" for by in seen]
                    self.row("        cores: theirs / PostgreSQL / idle", costs[0], "", "  ".join(costs))
        for place, name in ((1, "two"), (2, "three")):
            self.row(f"machine: {name} busy loops so held, of one", *_times([by[place] / by[0] for by in alone], ""))

    def kafka(self) -> None:
        """A topic that is full, drained and judged, on either store; the broker shares the machine."""
        mixes = {"irrelevant": "99 of 100 irrelevant", "strangers": "counts, not on the register"}
        count = 12_000 // self.share
        with kafka.broker() as bootstrap, server.server() as found:
            for kind, what in mixes.items():
                for store in ("SQLite", "PostgreSQL"):
                    seen = [
                        self.scene(
                            f"Kafka, {what}, {store}, run {number}",
                            lambda kind=kind, store=store: kafka.drained(  # type: ignore[misc]
                                bootstrap, kind, count, server.fresh(found) if store == "PostgreSQL" else ""
                            ),
                        )
                        for number in range(1, self.runs + 1)
                    ]
                    self.row(f"Kafka in, judged: {what}, {store}", *_rates([one.judged for one in seen], "2,500/s"))
                    costs = [one.cpu_ms for one in seen if one.cpu_ms is not None]
                    runs = "  ".join(f"{one:.2f}" for one in costs)
                    self.row(
                        "    processor time of the engine for each", f"{statistics.median(costs):.2f} ms", "", runs
                    )

    def region(self) -> None:
        """The same on a store of years and on one that holds the load's patients alone, by turns."""
        small, large = 2_000, self.patients // self.share
        count = 4_000 // self.share
        with server.server() as found, tempfile.TemporaryDirectory() as folder:
            for store in ("SQLite", "PostgreSQL"):
                urls = {}
                for patients in (small, large):
                    self.progress.print(f"{store} with {patients:,} patients", style="dim")
                    path = f"sqlite:///{folder}/{patients}.db"
                    urls[patients] = path if store == "SQLite" else server.fresh(found)
                    region.fill(urls[patients], patients)
                seen: dict[int, list[region.Region]] = {small: [], large: []}
                for number in range(1, self.runs + 1):
                    for patients, url in urls.items():
                        self.progress.print(f"{store}, {patients:,} patients, run {number}", style="dim")
                        seen[patients].append(region.measured(url, patients, count, f"r{number}"))
                self.lost += [f"{store}, region: {one.lost}" for of in seen.values() for one in of if one.lost]
                pairs = list(zip(seen[large], seen[small], strict=True))
                self.row(f"{store}: {large:,} patients, {large * 12:,} counts, of {small:,} and theirs", "", "", "")
                for what, goal, shares in (
                    ("intake", ">= 80 %", [one.intake / that.intake for one, that in pairs]),
                    ("judged, patients on the register", ">= 80 %", [one.judged / that.judged for one, that in pairs]),
                ):
                    self.row(f"    {what}", *_shares(shares, goal))
                rates = "  ".join(f"{one.intake:,.0f} / {one.judged:,.0f}" for one in seen[large])
                self.row("    intake / judged a second, with all", rates.split("  ")[0] + "/s", "", rates)
                took = "  ".join(f"{one.sweep_s:.2f} / {that.sweep_s:.2f}" for one, that in pairs)
                self.row("    a sweep that looks at 200, with all / with few", took.split("  ")[0] + " s", "", took)

    def _machine(self, found: list[machine.Machine]) -> None:
        syncs = [one.sync_ms for one in found]
        runs = "  ".join(f"{one:.2f}" for one in syncs)
        self.row("machine: one fdatasync of 8 KB, p50", f"{statistics.median(syncs):.2f} ms", "", runs)
        self.row("machine: SQLite FULL, one row a commit", *_rates([one.commits for one in found], ""))
        self.row("machine: MLLP echo, nothing kept", *_rates([one.echo for one in found], ""))

    def critical(self) -> None:
        idle = self.scene("a critical count, idle", lambda: scenes.critical(80 // self.share))
        self.row("critical count, idle: last byte to POST", *_pairs([idle], "p99 <= 50 ms"))
        loaded = self.scene("a critical count under load", lambda: scenes.critical(80 // self.share, others=1000))
        self.row("critical count, 1,000 other messages a second", *_pairs([loaded], "p99 <= 250 ms"))
        self.row("    the others were answered at", *_rates([loaded.rate], "1,000/s"))

    def shown(self) -> None:
        self.progress.print("a new alert in the console", style="dim")
        took = sorted(scenes.shown(20 // self.share))
        slowest = f"{statistics.median(took):.2f} / {took[-1]:.2f} s"
        self.row(
            "a new alert on the day's list, p50 / slowest; its page asks every 2 s", slowest, "<= 1 s, so 3 s", "1"
        )

    def restart(self) -> None:
        """By turns, for what a start costs on a busy machine is the machine's."""
        rows = 1_000_000 // self.share**2
        with tempfile.TemporaryDirectory() as new, tempfile.TemporaryDirectory() as full:
            self.progress.print(f"a backlog of {rows:,} messages", style="dim")
            restart.backlog(Path(full) / "bench.db", rows)
            found: dict[str, list[tuple[float, float]]] = {new: [], full: []}
            for number in range(self.runs):
                for folder, took in found.items():
                    self.progress.print(f"restart, run {number + 1}", style="dim")
                    took += restart.restarts(Path(folder), 1)
        for what, folder, goal in ((f"{rows:,} messages to judge", full, "<= 3 s"), ("a new database", new, "")):
            runs = "  ".join(f"{wall:.2f}" for wall, _ in found[folder])
            wall, own = (statistics.median(part) for part in zip(*found[folder], strict=True))
            self.row(f"kill -9 to the next AA, {what}", f"{wall:.2f} s", goal, runs)
            self.row("    of it the processor's time of the process that accepts", f"{own:.2f} s")

    def rest(self) -> None:
        self.progress.print("memory at rest", style="dim")
        self.row("memory of serve at rest, all processes", f"{scenes.at_rest():.0f} MB", "< 250 MB", "1")

    def clock(self) -> None:
        self.progress.print("overdue sweep", style="dim")
        patients = 1_000_000 // self.share
        found = watch.overdue_sweep(patients)
        if found.missed:
            self.lost.append(f"overdue sweep: {found.missed} overdue patients were not told")
        took = f"{found.first_s:.2f} / {found.idle_s:.2f} s"
        self.row(f"overdue sweep over {patients:,} patients, 200 new / none", took, "<= 2 s", "1")

    def pure(self) -> None:
        rounds = 2000 // self.share
        for what, goal, measure in (
            ("needed fields of a 25-OBX blood count", "<= 40 µs", pure.fields_us),
            ("    the same, read whole: what each row is, and the ledger", "", pure.read_us),
            ("read an irrelevant 25-OBX report", "<= 10 µs", pure.irrelevant_us),
            ("read a FHIR Observation", "<= 30 µs", pure.observation_us),
            ("assess with ten years of history", "<= 200 µs", pure.assess_us),
        ):
            self.progress.print(what, style="dim")
            self.row(what, f"{measure(rounds):.0f} µs", goal, f"{rounds} calls")

    def console(self) -> None:
        """Each page of the console on a full database."""
        from bench.console import pages
        from bench.filled import Sizes

        sizes = Sizes() if self.share == 1 else Sizes(messages=100_000, patients=1_000, dead=200)
        self.progress.print(f"console: {sizes.messages:,} messages, {sizes.patients:,} patients", style="dim")
        for page in pages(sizes, 20 // self.share):
            if page.wrong:
                self.lost.append(page.wrong)
            shown = f"{page.p50_ms:.0f} / {page.worst_ms:.0f} ms"
            rest = f"first {page.first_ms:.0f} ms, {page.size_kb:.0f} kB"
            self.row(f"console page {page.what}: p50 / slowest", shown, "<= 150 ms", rest)

    def shadow(self) -> None:
        patients = 10_000 // self.share
        self.progress.print(f"shadow of {patients} patients", style="dim")
        seconds, differ = shadow_s(patients)
        self.row(
            f"shadow: {patients:,} patients x {COUNTS} counts, both protocols, all cores",
            f"{seconds:.1f} s",
            f"{120 * patients / 100_000:.0f} s (100,000: 2 min)",
            f"{differ} differ",
        )

    def demo(self) -> None:
        self.progress.print("make demo", style="dim")
        first, whole, wrong = scenes.demo()
        if wrong:
            self.lost.append(wrong)
        self.row("demo, warm: first alert / end", f"{first:.1f} s / {whole:.1f} s", "", "1")

    def disk(self) -> None:
        """What a message leaves on disk, by how it ended."""
        for end in disk.ENDS:
            self.progress.print(f"bytes of a message that ends as {end}", style="dim")
            sizes = [disk.bytes_of(end, 2000 // self.share, postgresql=on) for on in (False, True)]
            shown = " / ".join(f"{size:,.0f}" for size in sizes)
            self.row(f"bytes on disk, {end}: SQLite / PostgreSQL", shown, "", "1")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    load = os.getloadavg()[0]
    return (
        f"NeutroFlag {version('neutroflag')} on {platform.node()}: {os.cpu_count()} cores, {model}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )


def _rates(found: list[float | None], goal: str) -> tuple[str, str, str]:
    rates = [one for one in found if one is not None]
    return f"{statistics.median(rates):,.0f}/s", goal, "  ".join(f"{one:,.0f}" for one in rates)


def _shares(found: list[float], goal: str) -> tuple[str, str, str]:
    return f"{statistics.median(found):.0%}", goal, "  ".join(f"{one:.0%}" for one in found)


def _times(found: list[float], goal: str) -> tuple[str, str, str]:
    return f"{statistics.median(found):.2f} times", goal, "  ".join(f"{one:.2f}" for one in found)


def _pairs(found: list[Figures], goal: str = "") -> tuple[str, str, str]:
    halves = [one.p50_ms for one in found if one.p50_ms is not None]
    tails = [one.p99_ms for one in found if one.p99_ms is not None]
    if not halves or not tails:
        return "lost", goal, ""
    runs = "  ".join(f"{a:.1f} / {b:.1f}" for a, b in zip(halves, tails, strict=True))
    return f"{statistics.median(halves):.1f} / {statistics.median(tails):.1f} ms", goal, runs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--no-console", action="store_true", help="without the console's pages on a full database")
    parser.add_argument("--no-shadow", action="store_true", help="without the replay of history under another protocol")
    parser.add_argument("--patients", type=int, default=1_000_000, help="region: of the store of years")
    parser.add_argument("--only", action="append", choices=_PARTS, help="this part, and others that are named so")
    asked = parser.parse_args()
    bench = _Bench(asked.quick, asked.patients)
    left_out = {"shadow": asked.no_shadow, "console": asked.no_console}
    for name in asked.only or [name for name in _PARTS if not left_out.get(name)]:
        getattr(bench, name)()
    bench.out.print(bench.machine)
    bench.out.print(bench.table)
    for words in bench.lost:
        bench.out.print(f"LOST  {words}", style="bold red", markup=False)
    return 1 if bench.lost else 0


if __name__ == "__main__":
    sys.exit(main())
