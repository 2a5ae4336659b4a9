"""The commands that triage what failed, and do it again: messages judged anew, notifications sent anew, by a named person."""

from __future__ import annotations

import json as jsonlib
import os
import pwd
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from engine.cli import FAILURE, OK, USAGE
from engine.cli_state import _database, _guarded, _rows, _settings, _Stop

__all__ = [
    "dead_drop_command",
    "dead_groups_command",
    "dead_replay_command",
    "messages_groups_command",
    "messages_replay_command",
]

_MOST = 5000


@_guarded
def messages_groups_command(config: Path | None, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import triage

    with _database(config) as connection:
        columns = ("fingerprint", "count", "open", "disposition", "reason", "sender", "message_type", "last", "last_at")
        _rows(triage.groups(connection), json, columns, stdout)
    return OK


@_guarded
def messages_replay_command(
    config: Path | None,
    numbers: Sequence[int],
    kind: str,
    reason: str,
    sender: str,
    edited: Path | None,
    by: str,
    json: bool,
    yes: bool,
    *,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    from engine.again import again, preview
    from ingest.envelope import pieces
    from store import triage

    other = None
    if edited is not None:
        if len(numbers) != 1 or kind or reason or sender:
            raise _Stop(USAGE, "--edited takes the place of one message: name it, and no other")
        try:
            other = edited.read_bytes()
        except OSError as error:
            raise _Stop(FAILURE, f"{edited}: {error.strerror}") from None
        if len(pieces(other)) > 1:
            raise _Stop(USAGE, f"{edited}: holds several messages; each is judged by itself")
    settings = _settings(config)
    with _database(config, write=yes) as connection:
        chosen = list(numbers) or triage.of_kind(connection, kind=kind, reason=reason, sender=sender, limit=_MOST)
        if not chosen:
            raise _Stop(FAILURE, "no such message: name numbers, or a --kind, --reason or --sender that has open ones")
        if not yes:
            for one in preview(connection, settings, chosen, other):
                line = f"{one.message}: {one.before} -> {one.after}"
                rest = "; ".join((*one.counts, *one.alerts))
                print(jsonlib.dumps(one.plain()) if json else f"{line}; {rest}" if rest else line, file=stdout)
            print(f"{len(chosen)} messages, nothing was written; say --yes to judge them again", file=stderr)
            return OK
        copies = again(connection, chosen, by=_who(by), bytes_instead=other)
    for number, copied in copies.items():
        if json:
            print(jsonlib.dumps({"message": number, "copy": copied}), file=stdout)
        else:
            print(
                f"{number}: " + (f"again as {copied}" if copied else "no such message, or its body is gone"),
                file=stdout,
            )
    return OK if all(copies.values()) else FAILURE


@_guarded
def dead_groups_command(config: Path | None, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import browse
    from store.values import from_ms

    with _database(config) as connection:
        groups = [
            {
                "destination": one.destination,
                "code": one.code,
                "count": one.count,
                "oldest": from_ms(one.oldest_at).isoformat(timespec="seconds"),
                "words": one.words,
            }
            for one in browse.dead_groups(connection)
        ]
    _rows(groups, json, ("destination", "code", "count", "oldest", "words"), stdout)
    return OK


@_guarded
def dead_replay_command(
    config: Path | None,
    numbers: Sequence[int],
    destination: str,
    code: str,
    by: str,
    yes: bool,
    *,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    from store import outbox

    return _change(config, "replay", outbox.replay, "waiting again", numbers, destination, code, by, yes, stdout)


@_guarded
def dead_drop_command(
    config: Path | None, numbers: Sequence[int], by: str, yes: bool, *, stdout: TextIO, stderr: TextIO
) -> int:
    from store import outbox

    def drop(connection: Any, ids: Sequence[int], _now_ms: int) -> list[int]:
        return outbox.drop(connection, ids)

    return _change(config, "drop", drop, "dropped", numbers, "", "", by, yes, stdout)


def _change(
    config: Path | None,
    verb: str,
    act: Callable[[Any, Sequence[int], int], list[int]],
    done: str,
    numbers: Sequence[int],
    destination: str,
    code: str,
    by: str,
    yes: bool,
    stdout: TextIO,
) -> int:
    """Does it and says who did, in one transaction; without ``yes`` the same, undone: what is told is what would be."""
    from store import browse, register
    from store.port import Audit, Work
    from store.values import encode, to_ms

    now = datetime.now(UTC)
    try:
        with _database(config, write=True) as connection:
            chosen = list(numbers)
            if destination:
                codes = (
                    [code] if code else [o.code for o in browse.dead_groups(connection) if o.destination == destination]
                )
                chosen += [number for one in codes for number in browse.dead_ids(connection, destination, one, _MOST)]
            if not chosen:
                raise _Stop(FAILURE, "no such dead letter: name numbers, or a --destination that has some")
            changed = act(connection, sorted(chosen), to_ms(now))
            if changed:
                detail = encode({"deliveries": changed}).encode()
                audit = Audit(at=now, actor=_who(by), action=f"{verb}-dead", detail=detail)
                register.write(connection, Work(audits=[audit]), to_ms(now))
            if not yes:
                raise _Undo
    except _Undo:
        pass
    for number in chosen:
        words = done if number in changed else "no dead letter, or a newer one was sent"
        print(f"{number}: {'would be ' if not yes and number in changed else ''}{words}", file=stdout)
    if not yes:
        print(f"would {verb}: {len(changed)} of {len(chosen)}; say --yes to do it", file=stdout)
        return OK
    return OK if set(changed) == set(chosen) else FAILURE


class _Undo(Exception):
    """Leaves a transaction that was only asked what it would do."""


def _who(by: str) -> str:
    """A person's name as given; else the account that runs the command."""
    name = " ".join(by.split())
    if name:
        return name
    try:
        return f"{pwd.getpwuid(os.getuid()).pw_name} (shell)"
    except KeyError:
        return f"uid {os.getuid()} (shell)"
