"""Power lost at any instant: every write and sync of a run is recorded, and any state a disk could be in is put together.

What was synced is on the disk. Of what was written since, any part may be: none, all, some in any order, the last torn at a
sector. Each such state must open, be whole, and hold every message whose acceptance had been sent by then.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from evidence.world import Story, World, problems_of

__all__ = ["Loss", "power_loss"]

_CALLS = "pwrite64,fdatasync,fsync,ftruncate,write,writev,sendto,sendmsg"
_SECTOR = 512
_LINE = re.compile(r"^(\d+)\s+(.*)$")
_FILE = re.compile(r"^(\w+)\(\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_ACCEPTED = re.compile(rb"MSA\|AA\|(S\d+-\w+)")


@dataclass(frozen=True, slots=True)
class _Write:
    offset: int
    data: bytes
    """None written and ``truncate``: the file ends at ``offset``."""
    truncate: bool = False


@dataclass(slots=True)
class _Disk:
    """One file: what is certainly on the disk, and what was written since."""

    synced: bytearray
    since: list[_Write] = field(default_factory=list)

    def sync(self) -> None:
        for one in self.since:
            _apply(self.synced, one)
        self.since.clear()

    def after_loss(self, chance: random.Random | None, *, everything: bool) -> bytes:
        content = bytearray(self.synced)
        kept = list(self.since) if everything else []
        if chance is not None:
            kept = [one for one in self.since if chance.random() < 0.5]
            chance.shuffle(kept)
            kept = [_torn(one, chance) if chance.random() < 0.3 else one for one in kept]
        for one in kept:
            _apply(content, one)
        return bytes(content)


def _apply(content: bytearray, one: _Write) -> None:
    if one.truncate:
        del content[one.offset :]
        return
    if len(content) < one.offset:
        content.extend(bytes(one.offset - len(content)))
    content[one.offset : one.offset + len(one.data)] = one.data


def _torn(one: _Write, chance: random.Random) -> _Write:
    if one.truncate or len(one.data) <= _SECTOR:
        return one
    return _Write(one.offset, one.data[: chance.randrange(1, -(-len(one.data) // _SECTOR)) * _SECTOR])


@dataclass(slots=True)
class Loss:
    """``moments``: after how many of the run's calls the power was lost; ``states``: disks that were put together."""

    calls: int = 0
    moments: int = 0
    states: int = 0
    accepted: int = 0
    problems: list[str] = field(default_factory=list)


async def power_loss(folder: Path, *, stories: int = 3, moments: int = 300, seed: int = 1) -> Loss:
    log, before = folder / "calls.log", folder / "before"

    def traced(command: list[str]) -> list[str]:
        before.mkdir()
        for file in (world.database, _wal(world.database)):
            if file.exists():
                shutil.copy(file, before / file.name)
        return [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-y",
            "-xx",
            "-s",
            "10000000",
            "-o",
            str(log),
            "-e",
            f"trace={_CALLS}",
            *command,
        ]

    world = World(folder, stories=stories, wrap=traced)
    async with world:
        for number in range(stories):
            await world.tell(Story(number))
        await world.settled()
        await asyncio.sleep(2.5)  # a checkpoint or two
        await world.kill()
    return await asyncio.to_thread(_lost, log, before, world.database, moments, seed)


def _lost(log: Path, before: Path, database: Path, moments: int, seed: int) -> Loss:
    chance, loss = random.Random(seed), Loss()
    calls = list(_calls(log))
    loss.calls = len(calls)
    files = {path.resolve(): _Disk(bytearray(_content(before / path.name))) for path in (database, _wal(database))}
    chosen = set(chance.sample(range(len(calls)), min(moments, len(calls))))
    accepted: set[str] = set()
    for at, (name, path, data, number) in enumerate(calls):
        disk = files.get(Path(path))
        if disk is None:
            accepted.update(found.decode() for found in _ACCEPTED.findall(data))
        elif name == "pwrite64":
            disk.since.append(_Write(number, data))
        elif name == "ftruncate":
            disk.since.append(_Write(number, b"", truncate=True))
        elif name in ("fdatasync", "fsync"):
            disk.sync()
        if at in chosen:
            loss.moments += 1
            _try_states(files, accepted, chance, loss, at)
    loss.accepted = len(accepted)
    return loss


def _try_states(files: dict[Path, _Disk], accepted: set[str], chance: random.Random, loss: Loss, at: int) -> None:
    ways = [(None, False), (None, True), (chance, False), (chance, False)]
    for how, everything in ways:
        with tempfile.TemporaryDirectory(prefix="neutroflag-power-") as place:
            for path, disk in files.items():
                (Path(place) / path.name).write_bytes(disk.after_loss(how, everything=everything))
            loss.states += 1
            (database,) = (Path(place) / path.name for path in files if path.suffix == ".db")
            try:
                with closing(sqlite3.connect(database)) as connection:  # recovers, as the engine's start does
                    connection.execute("SELECT count(*) FROM message").fetchone()
                found = problems_of(database, accepted)
            except sqlite3.Error as error:
                found = [f"{type(error).__name__}: {error}"]
            loss.problems += [f"after call {at}: {problem}" for problem in found]


def _calls(log: Path) -> Iterator[tuple[str, str, bytes, int]]:
    """(call, file or socket, bytes, offset or length) of each call that succeeded, in the order of their ends."""
    begun: dict[str, str] = {}
    with log.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, words = found[1], found[2]
            if words.endswith("<unfinished ...>"):
                begun[thread] = words.removesuffix("<unfinished ...>")
                continue
            if words.startswith("<... "):
                words = begun.pop(thread, "") + words.partition(" resumed>")[2]
            target = _FILE.match(words)
            head, _, result = words.rpartition(" = ")
            if target is None or result.startswith("-"):
                continue
            data = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _TEXT.findall(head))
            number = head.rstrip(" )").rpartition(", ")[2]
            yield target[1], _plain(target[2]), data, int(number) if number.isdigit() else 0


def _plain(path: str) -> str:
    """strace -xx writes the names of files in hexadecimal too."""
    return bytes.fromhex(path.replace("\\x", "")).decode(errors="replace") if path.startswith("\\x") else path


def _wal(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""
