"""What became of each observation of a message, as it is kept: rows of one fate that follow each other are one line.

An irrelevant report of 25 OBX is one line of 70 bytes in place of 25 of together 1,700; whoever asks gets the 25.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final

__all__ = ["packed", "unpacked"]

_NUMBERED: Final = re.compile(r"OBX\[([1-9]\d{0,5})\]", re.ASCII)


def packed(rows: tuple[tuple[str, str, str], ...]) -> bytes:
    """``(where, outcome, reason)`` of each observation as JSON; ``to`` is the last number of a run (``OBX[1]`` to 25).

    >>> packed((("OBX[1]", "judged", ""), ("OBX[2]", "not_relevant", "other"), ("OBX[3]", "not_relevant", "other")))
    b'[{"where":"OBX[1]","outcome":"judged","reason":""},{"where":"OBX[2]","outcome":"not_relevant","reason":"other","to":3}]'
    """
    return _few(rows) if len(rows) <= _FEW else _packed(rows)


def _packed(rows: tuple[tuple[str, str, str], ...]) -> bytes:
    found: list[dict[str, Any]] = []
    following = 0
    for where, outcome, reason in rows:
        match = _NUMBERED.fullmatch(where)
        number = int(match[1]) if match else 0
        last = found[-1] if found else None
        if last and number and number == following and (last["outcome"], last["reason"]) == (outcome, reason):
            last["to"] = number
        else:
            found.append({"where": where, "outcome": outcome, "reason": reason})
        following = number + 1 if number else 0
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


# The same few reports come all day long.
_FEW: Final = 64
_few = lru_cache(maxsize=1024)(_packed)


def unpacked(text: str | bytes | None) -> list[dict[str, Any]]:
    """One object an observation: ``where``, ``outcome``, ``reason``. None: nothing was entered."""
    rows: list[dict[str, Any]] = []
    for line in json.loads(text or "[]"):
        last = line.pop("to", None)
        match = _NUMBERED.fullmatch(line["where"]) if last is not None else None
        if match is None:
            rows.append(line)
        else:
            rows += [{**line, "where": f"OBX[{number}]"} for number in range(int(match[1]), last + 1)]
    return rows
