"""``neutroflag read``: what the engine understands of each message, one JSON object a line; no state.

stdout is data, stderr is progress. Exit 0 ok, 1 a path could not be read, 4 with ``strict`` when some input was set aside or
unassessable.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import msgspec

from ingest.reading import LedgerEntry, Reading, Site, SiteError, parse_site, read_file
from ingest.reading.suggest import suggest
from rules.model import LabResult

__all__ = ["decimal_text", "line_of", "load_site", "read_command", "suggest_command"]

_NUMBERED = re.compile(r"([^\d]+)(\d*)")


def read_command(
    paths: Iterable[str | Path],
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    strict: bool = False,
    *,
    zone: ZoneInfo | None = None,
    site: Path | None = None,
) -> int:
    """Read every file, directories walked in sorted order, and print one line a message. ``site``: a sender's profile."""
    out, err = stdout or sys.stdout, stderr or sys.stderr
    failed = unread = False
    profile = None
    if site is not None:
        profile = load_site(site, err)
        if profile is None:
            return 1
    for path in map(Path, paths):
        if not path.exists():
            print(f"{path}: no such file or directory", file=err)
            failed = True
            continue
        for file in _files(path):
            try:
                raw = file.read_bytes()
            except OSError as error:
                print(f"{file}: {error.strerror or 'cannot be read'}", file=err)
                failed = True
                continue
            for index, reading in enumerate(read_file(raw, zone=zone, site=profile)):
                if profile is not None and profile.strict:
                    from engine.strict import held_to  # its libraries take a second to load

                    reading = held_to(reading, raw, index)
                out.write(line_of(str(file), index, reading) + "\n")
                unread = unread or reading.disposition in ("set_aside", "unassessable")
    if failed:
        return 1
    return 4 if strict and unread else 0


def load_site(path: Path, err: TextIO) -> Site | None:
    """The profile of a file; None, with every reason on ``err``, when it cannot be used."""
    try:
        return parse_site(path.read_text(encoding="utf-8"))
    except SiteError as error:
        for problem in error.problems:
            print(f"{path}: {problem}", file=err)
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path}: {getattr(error, 'strerror', None) or 'cannot be read'}", file=err)
    return None


def suggest_command(paths: Iterable[Path], stdout: TextIO, stderr: TextIO) -> int:
    """``neutroflag site suggest``: the draft of a profile, from samples."""
    missing = [path for path in paths if not path.exists()]
    for path in missing:
        print(f"{path}: no such file or directory", file=stderr)
    if missing:
        return 1
    stdout.write(suggest(file.read_bytes() for path in paths for file in _files(path)))
    return 0


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    else:
        yield path


def line_of(file: str, index: int, reading: Reading) -> str:
    """The JSON object of one message, as the contract has it."""
    return msgspec.json.encode(
        {
            "file": file,
            "index": index,
            "format": _format(reading),
            "control_id": reading.control_id,
            "disposition": reading.disposition,
            "results": [_result(r) for r in reading.results],
            "ledger": [
                {"where": entry.where, "outcome": entry.outcome, "reason": entry.reason}
                for entry in sorted(reading.ledger, key=_place)
            ],
            "problems": [{"code": p.code, "where": p.where, "text": p.text} for p in reading.problems],
        }
    ).decode()


def _place(entry: LedgerEntry) -> list[tuple[str, int]]:
    """``OBX[10]`` after ``OBX[9]``."""
    return [(words, int(number or 0)) for words, number in _NUMBERED.findall(entry.where)]


def _format(reading: Reading) -> str:
    """The contract knows four; what is none of them is named after the door that it would have come by."""
    if reading.format != "other":
        return reading.format
    return "cda" if any(problem.code.startswith("xml") for problem in reading.problems) else "hl7v2"


def _result(result: LabResult) -> dict[str, Any]:
    anc = result.anc
    patient = result.identifiers[0] if result.identifiers else None
    return {
        "kind": "ANC",
        "anc_per_mm3": decimal_text(anc.per_mm3) if anc else None,
        "comparator": anc.comparator if anc else None,
        "derived": anc.derived if anc else False,
        "lower_bound_per_mm3": decimal_text(anc.lower_bound) if anc and anc.lower_bound is not None else None,
        "status": result.status.value,
        "trust": result.trust.value,
        "doubts": list(result.doubts),
        "patient": {"value": patient.value, "authority": patient.authority, "type": patient.type} if patient else None,
        "collected_at": _time(result),
        "code": result.code,
        "code_system": result.code_system,
        "display": result.display,
        "value_as_sent": result.value_as_sent,
        "unit_as_sent": result.unit_as_sent,
        "where": result.where,
    }


def _time(result: LabResult) -> str | None:
    if result.collected_at is None:
        return None
    return result.collected_at.isoformat() if result.time_known else result.collected_at.date().isoformat()


def decimal_text(value: Decimal) -> str:
    """Exact, without exponent and without trailing zeros.

    >>> decimal_text(Decimal("1.250E+3")), decimal_text(Decimal("0.840")), decimal_text(Decimal("0.00"))
    ('1250', '0.84', '0')
    """
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
