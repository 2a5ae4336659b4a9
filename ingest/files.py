"""The folder door: files that a laboratory lays down (HPRIM Santé, HL7 v2, FHIR JSON, CDA), each picked up once, whole.

Rule of the file: a file is taken by a rename into ``taken/`` once it has stopped growing, stored, and only then moved to
``done/<disposition>/``. A crash in between leaves it in ``taken/``: it is stored again after the start, and is a duplicate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingest import envelope
from ingest.meter import Judged, Meter
from ingest.reading import head_of_hprim, is_whole, sniff
from store import Envelope, Inbox, StoreUnavailable
from store.values import message_name

__all__ = ["CHANNEL", "FolderDoor", "FolderLimits"]

CHANNEL: Final = "files"
_TAKEN, _DONE, _REFUSED = "taken", "done", "refused"
# What senders call a file that they have not finished.
_UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".writing", ".lock", "~")
_EDGE = 4096
# The outcome of a file of several messages is the one that somebody must look at.
_FIRST_TO_SAY = ("set_aside", "unassessable", "judged", "unenrolled", "not_relevant", "duplicate")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderLimits:
    """``settle_s``: unchanged for so long, a whole file is taken; ``half_after_s``: one without its last line, too."""

    poll_s: float = 1.0
    settle_s: float = 2.0
    half_after_s: float = 120.0
    max_file_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _State:
    size: int
    modified_ns: int

    @staticmethod
    def of(path: Path) -> _State:
        found = path.stat(follow_symlinks=False)
        return _State(found.st_size, found.st_mtime_ns)


class FolderDoor:
    """One folder. ``outcome``: the disposition of a message that has been judged."""

    def __init__(
        self,
        folder: Path,
        inbox: Inbox,
        meter: Meter,
        judged: Judged,
        outcome: Callable[[int], Awaitable[str]],
        limits: FolderLimits | None = None,
    ) -> None:
        self._folder, self._inbox, self._meter = folder, inbox, meter
        self._judged, self._outcome = judged, outcome
        self._limits = limits or FolderLimits()
        self._seen: dict[str, tuple[_State, float]] = {}
        self._waiting: dict[Path, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Makes the folders. Raises OSError where they cannot be made or written to."""
        for name in (_TAKEN, _DONE, _REFUSED):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.create_task(self._run(), name=f"files {self._folder}")
        return self._loop

    async def stop(self) -> None:
        """What was taken and is not stored stays in ``taken/`` for the next start."""
        tasks = [*self._waiting.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                for path in await asyncio.to_thread(self._look):
                    await self._take(path)
            except OSError:
                # A share that is gone for a while comes back; its files are still there.
                self._meter.noticed(CHANNEL, "folder_unreadable")
            except StoreUnavailable:
                self._meter.noticed(CHANNEL, "store_unavailable")
            await asyncio.sleep(self._limits.poll_s)

    def _look(self) -> list[Path]:
        """Renames what has settled into ``taken/``; all that waits there, the oldest first."""
        now = time.monotonic()
        present: dict[str, tuple[_State, float]] = {}
        for entry in os.scandir(self._folder):
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            path = Path(entry.path)
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_file(follow_symlinks=False):
                    continue
                state = _State.of(path)
                before = self._seen.get(entry.name)
                since = before[1] if before is not None and before[0] == state else now
                if self._settled(path, state, now - since):
                    self._pick_up(path, state)
                else:
                    present[entry.name] = (state, since)
        self._seen = present
        taken = [Path(entry.path) for entry in os.scandir(self._folder / _TAKEN) if entry.is_file()]
        ready = [path for path in taken if path not in self._waiting]
        return sorted(ready, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _settled(self, path: Path, state: _State, quiet_s: float) -> bool:
        if quiet_s < self._limits.settle_s:
            return False
        if quiet_s >= self._limits.half_after_s or state.size > self._limits.max_file_bytes:
            return True
        with path.open("rb") as file:
            head = file.read(_EDGE)
            file.seek(max(0, state.size - _EDGE))
            return is_whole(head, file.read(_EDGE))

    def _pick_up(self, path: Path, state: _State) -> None:
        if state.size > self._limits.max_file_bytes:
            self._meter.noticed(CHANNEL, "file_oversize")
            path.rename(_free(self._folder / _REFUSED, path.name))
            return
        path.rename(_free(self._folder / _TAKEN, path.name))

    async def _take(self, path: Path) -> None:
        raw = await asyncio.to_thread(_read_whole, path)
        if raw is None:
            return  # its writer still holds it: looked at again
        numbers: list[int] = []
        for item in envelopes(raw, folder=str(self._folder), now=datetime.now(UTC)):
            stored = await self._inbox.accept(item)
            self._meter.received(CHANNEL, item.format, stored.disposition)
            numbers.append(stored.duplicate_of or stored.message_id)
        task = asyncio.create_task(self._finish(path, numbers))
        self._waiting[path] = task
        task.add_done_callback(lambda _: self._waiting.pop(path, None))

    async def _finish(self, path: Path, numbers: list[int]) -> None:
        """Moves a stored file to where its outcome says, once that is known."""
        said = set()
        try:
            for number in numbers:
                await self._judged(number)
                said.add(await self._outcome(number))
            outcome = next((name for name in _FIRST_TO_SAY if name in said), "stored")
            await asyncio.to_thread(_move, path, self._folder / _DONE / outcome)
        except (OSError, StoreUnavailable):
            # Still in ``taken/``: found there again, and known by its bytes.
            self._meter.noticed(CHANNEL, "file_not_moved")


def envelopes(raw: bytes, *, folder: str, now: datetime) -> list[Envelope]:
    """The messages of a file. HL7 v2 goes by its MSH-10; anything else is the same again when its bytes are."""
    kind = sniff(raw)
    if kind == "hl7v2":
        return [envelope.hl7v2(piece, channel=CHANNEL, peer=folder, now=now)[1] for piece in envelope.pieces(raw)]
    digest = hashlib.blake2b(raw, digest_size=32).digest()
    sender, control_id = head_of_hprim(raw) if kind == "hprim" else ("", "")
    item = envelope.fhir(raw, channel=CHANNEL, peer=folder, now=now, sender=sender, control_id=control_id)
    # A file that a laboratory writes again under the same name is another file.
    name = message_name("file", sender, digest.hex())
    return [replace(item, format="hl7v2" if kind in ("hprim", "other") else "fhir", dedupe_key=name)]


def _read_whole(path: Path) -> bytes | None:
    """The bytes of a file that nobody changed meanwhile; None when somebody did."""
    before = _State.of(path)
    raw = path.read_bytes()
    return raw if _State.of(path) == before and len(raw) == before.size else None


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path.rename(_free(folder, path.name))


def _free(folder: Path, name: str) -> Path:
    """A name that is not taken: laboratories use theirs again."""
    target, number = folder / name, 1
    while target.exists():
        number += 1
        target = folder / f"{name}.{number}"
    return target
