"""``neutroflag alerts list | show``: what is open, who is asked, and every step of an alert's way to its answer."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TextIO

from engine.cli import OK
from engine.cli_state import database_of, guarded, no_such, print_rows

__all__ = ["alerts_list_command", "alerts_show_command"]

_LISTED = ("id", "family", "level", "state", "raised_at", "asked", "escalation", "answer_by", "seen_at")
_STEPS = ("at", "revision", "state", "destination", "who", "evidence")


@guarded
def alerts_list_command(
    config: Path | None, json: bool, state: str, level: str, limit: int, *, stdout: TextIO, stderr: TextIO
) -> int:
    from store import listing

    with database_of(config) as connection:
        print_rows(listing.alert_rows(connection, state=state, level=level, limit=limit), json, _LISTED, stdout)
    return OK


@guarded
def alerts_show_command(config: Path | None, alert_id: str, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import listing

    with database_of(config) as connection:
        whole = listing.alert_whole(connection, alert_id)
    if whole is None:
        raise no_such(f"no alert {alert_id}")
    if json:
        print(jsonlib.dumps(whole, ensure_ascii=False), file=stdout)
        return OK
    print(f"{whole['title']}\n{whole['text']}\n", file=stdout)
    asked = (whole.get("asked") or [whole["subject"].get("owner", "")])[-1:] or [""]
    print(f"{whole['state']}, revision {whole['revision']}, asked: {asked[0] or 'the default owner'}\n", file=stdout)
    print_rows(whole["steps"], False, _STEPS, stdout)
    return OK
