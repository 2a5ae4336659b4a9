"""A share of a core for a process and its children, by the kernel's control groups, version 1 or 2.

That is a host of its own, as far as processor time goes: what a process may have does not depend on who else wants it.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Group", "groups"]

# Short, so that a process that has had its share stands still for milliseconds: it is to be slow, not to hang with a lock.
_PERIOD_US = 10_000


class Group:
    """A process that was put into it and its children share what it may have. No limit at first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._second = (folder / "cpu.max").exists()

    def take(self, pid: int) -> None:
        """Before it has children: they are born into it."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, cores: float) -> None:
        quota = round(cores * _PERIOD_US)
        if self._second:
            (self._folder / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota))

    def free(self) -> None:
        if self._second:
            (self._folder / "cpu.max").write_text("max")
        else:
            (self._folder / "cpu.cfs_quota_us").write_text("-1")


@contextlib.contextmanager
def groups(count: int) -> Iterator[list[Group]]:
    """So many groups, removed at the end, when their processes have ended. OSError: this machine or user cannot have any."""
    made: list[Path] = []
    try:
        above = _above()
        for _ in range(count):
            folder = above / f"neutroflag-bench-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            folder.mkdir()
            made.append(folder)
        yield [Group(folder) for folder in made]
    finally:
        for folder in made:
            _removed(folder)


def _removed(folder: Path) -> None:
    """A child that lost its parent may take a moment to end."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)


def _above() -> Path:
    """The group of this process: a limit on it holds for those below, too."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    mine = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            own = next((path for names, path in mine.items() if "cpu" in names.split(",")), "/")
            return _within(Path(place), own)
        if kind == "cgroup2" and (above := _second(_within(Path(place), mine.get("", "/")))) is not None:
            return above
    raise FileNotFoundError("no control group with a processor's quota")


def _second(above: Path) -> Path | None:
    if "cpu" not in (above / "cgroup.controllers").read_text(encoding="utf-8").split():
        return None
    if "cpu" not in (above / "cgroup.subtree_control").read_text(encoding="utf-8").split():
        (above / "cgroup.subtree_control").write_text("+cpu")
    return above


def _within(mount: Path, own: str) -> Path:
    """In a container the path may be that of the host, and is not there."""
    found = mount / own.lstrip("/")
    return found if found.is_dir() else mount
