"""The keys of message bodies: from a file or a command to the database's ring, and their rotation."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.config import ConfigError, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from store.keyholders import Holder
    from store.seal import Ring

__all__ = ["arm", "db_rekey_command", "ring_for"]

_COMMAND_S = 30


def arm(settings: Settings) -> None:
    """From now on this process seals and opens the bodies of the settings' database. Raises ConfigError."""
    from store import seal

    seal.use(settings.store.url, ring_for(settings))


def ring_for(settings: Settings) -> Ring | None:
    """None: bodies are kept in the clear. Raises ConfigError, which names the place and never a key."""
    section = settings.store
    if section.key_file is None and not section.key_command:
        return None
    from store import seal

    place = "store.key_file" if section.key_file is not None else "store.key_command"
    try:
        return seal.ring_of(_printed(section.key_command) if section.key_file is None else _read(section.key_file))
    except OSError as error:
        raise ConfigError([f"{place}: {error.filename or section.key_command[0]}: {error.strerror}"]) from None
    except ValueError as error:
        raise ConfigError([f"{place}: {error}"]) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("not text") from None


def _printed(command: tuple[str, ...]) -> str:
    # The operator's own command, without a shell; what it says of itself is not shown: it may hold the key.
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not end within {_COMMAND_S} s") from None
    if done.returncode:
        raise ValueError(f"{command[0]} ended with {done.returncode}")
    try:
        return done.stdout.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not text") from None


def _behind(holders: Sequence[Holder], current: str) -> str:
    names = ", ".join(f"{one.owner} ({one.key_id}, counts for {one.for_s} s more)" for one in holders)
    return f"engines that do not seal with {current} yet: {names}; restart them with it, then rekey"


def db_rekey_command(config: Path | None, batch: int, *, stdout: TextIO, stderr: TextIO) -> int:
    from engine.cli import FAILURE, OK, USAGE
    from engine.cli_state import _database, _Stop
    from store import keyholders, seal

    done = 0
    broken: list[int] = []
    after: int | None = 0
    try:
        with _database(config) as connection:
            current = seal.of(connection).current
            if not current:
                raise _Stop(USAGE, "store.key_file or store.key_command names no key")
            if not seal.known(connection, current):
                raise _Stop(
                    FAILURE, f"no engine has started with the key {current} yet: (re)start it first, then rekey"
                )
            if behind := keyholders.others(connection, current):
                raise _Stop(FAILURE, _behind(behind, current))
        while after is not None:
            with _database(config, write=True) as connection:
                keyholders.turning(connection)
                after, sealed, failed = seal.rekey(connection, after, batch)
            done += sealed
            broken += failed
        with _database(config, write=True) as connection:
            keyholders.turning(connection)
            behind = keyholders.others(connection, current)
            gone = seal.retire(connection, kept={one.key_id for one in behind})
    except _Stop as stop:
        print(stop, file=stderr)
        return stop.code
    print(f"{done} bodies sealed with {current}", file=stdout)
    for name in gone:
        print(f"{name}: no body needs it any more", file=stdout)
    if behind:
        print(_behind(behind, current), file=stderr)
    for number in broken:
        print(f"message {number}: the body cannot be opened, and was left as it is", file=stderr)
    return FAILURE if broken or behind else OK
