"""``neutroflag patients unmerge``: a merge of two records (ADT^A40) taken back by a named person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from engine.cli import FAILURE, OK, USAGE
from engine.cli_state import _database, _guarded, _one_patient, _settings

__all__ = ["patients_unmerge_command"]


@_guarded
def patients_unmerge_command(
    config: Path | None, key: str, by: str, yes: bool, reason: str = "", *, stdout: TextIO, stderr: TextIO
) -> int:
    """Works beside a running engine. ``key``: any identifier of the patient that both records became."""
    from engine.duty import present_of
    from engine.merge import last_merge
    from engine.unmerge import take_back

    if not by.strip():
        print("--by: a name; taking a merge back is a person's decision", file=stderr)
        return USAGE
    settings = _settings(config)
    with _database(config, write=True) as connection:
        moved = last_merge(connection, _one_patient(connection, key))
        if moved is None:
            print("no merge that stands", file=stderr)
            return FAILURE
        words = f"{len(moved.identifiers)} identifiers and {len(moved.keys)} counts go back to {moved.prior}"
        if not yes:
            print(f"would undo: {words}; say --yes to do it", file=stdout)
            return OK
        now = datetime.now(UTC)
        if (
            take_back(connection, moved, present_of(settings), by=by.strip(), reason=reason.strip(), now=now)
            is not None
        ):
            print("somebody else changed one of the two just now; say it again", file=stderr)
            return FAILURE
    print(f"undone: {words}", file=stdout)
    return OK
