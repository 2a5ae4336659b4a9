"""Reports as their sender writes them every day: known by their rows, so that only those that may be a count are looked at.

Rule of the file: a shape says what reading row by row would say, or nothing. It is made only of rows that were read that
way, and holds for a report only where type and code of every row are the same, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ingest.reading.names import may_speak_of_neutrophils
from ingest.reading.outcome import LedgerEntry
from ingest.reading.site import Site
from ingest.reading.v2replies import may_reply
from ingest.reading.vocabulary import MOST_ROWS, vocabulary_of
from wire.er7 import Message, Separators

__all__ = ["COMMENTS", "READ_ALWAYS", "Known", "forget", "hints", "is_ordinary", "known_shape", "learn", "may_tell"]

# A comment that may speak of the specimen, or tell a count; and a document.
COMMENTS: Final = frozenset(("TX", "FT", "ST"))
READ_ALWAYS: Final = frozenset(("ED", "RP")) | COMMENTS


class _Shape(NamedTuple):
    """The same OBX-1 to OBX-3 in the same order, with nothing in between: ``prefixes``, one a row.

    Each row but those of ``numbers`` ends as ``entries`` says, whatever its value is.
    """

    prefixes: tuple[str, ...]
    numbers: tuple[int, ...]
    entries: tuple[LedgerEntry, ...]


@dataclass(slots=True)
class _Learnt:
    """``shapes``: by how their last OBX begins. ``sightings``: how often a report was walked that may become one."""

    shapes: dict[str, list[_Shape]] = field(default_factory=dict)
    sightings: dict[tuple[str, ...], int] = field(default_factory=dict)
    number: int = 0


class Known(NamedTuple):
    """A report of a known shape. ``head``: what stands before its rows; ``rows``: the lines to look at, by their number.

    ``entries``: of the other rows. ``nothing``: the whole ledger, where no row can be a count, a leukocyte or a document.
    """

    head: list[str]
    rows: list[tuple[int, str]]
    entries: tuple[LedgerEntry, ...]
    observations: int
    nothing: tuple[LedgerEntry, ...] | None


# Through OBX-1, which in most reports is the number of rows: no prefix is shorter than ``OBX||||``.
_BEGINNING = 7
_LEARNT_AFTER = 3
_MOST_SHAPES = 256
_MOST_SIGHTINGS = 1024
_MOST_FEEDS = 64
_learnt: dict[tuple[Separators, str, Site | None], _Learnt] = {}


def known_shape(message: Message, site: Site | None) -> Known | None:
    """The report as one of a known shape, or None: then it is to be read row by row."""
    marks = message.separators
    learnt = _learnt.get((marks, message.codec, site))
    if learnt is None:
        return None
    lines = message.text.split("\r")
    for shape in learnt.shapes.get(lines[-1][:_BEGINNING], ()):
        before = len(lines) - len(shape.prefixes)
        rows = lines[before:]
        if before > 0 and all(map(str.startswith, rows, shape.prefixes)):
            head = lines[:before]
            for line in head:
                if line[:1] == " " or line[:3] == "OBX":
                    return None  # an indented line may be an OBX
            ordinary = is_ordinary(head, marks)
            if ordinary and not shape.numbers:
                return Known(head, [], shape.entries, len(rows), shape.entries)
            looked_at = [(number, rows[number - 1]) for number in shape.numbers]
            more = _remarks(looked_at, message, site) if ordinary else None
            nothing = (*shape.entries, *more) if more is not None else None
            return Known(head, looked_at, shape.entries, len(rows), nothing)
    return None


def is_ordinary(head: list[str], marks: Separators) -> bool:
    """One patient and one order, and no note that may tell a count.

    Two orders may hide a cancelled one; ORC-1 PR gives another reason.
    """
    orders = patients = 0
    sep = marks.field
    for line in head:
        name = line[:4]
        if name == f"OBR{sep}":
            orders += 1
        elif name == f"PID{sep}":
            patients += 1
        elif (name == f"ORC{sep}" and line.startswith("PR", 4)) or may_tell(line, marks):
            return False
    return orders < 2 and patients < 2


def _remarks(rows: list[tuple[int, str]], message: Message, site: Site | None) -> list[LedgerEntry] | None:
    """The entries of rows of text under codes of no interest; None where one of them is more than that."""
    marks = message.separators
    dull = vocabulary_of(marks, message.codec, site).dull
    found: list[LedgerEntry] = []
    for number, line in rows:
        parts = line.split(marks.field, 4)
        entries = dull.get(parts[3]) if parts[2] in COMMENTS else None
        if entries is None or hints(parts, marks):
            return None
        found.append(entries[number])
    return found


def learn(message: Message, site: Site | None, blocks: list[str], rows: list[list[str]]) -> None:
    """Makes a shape of a report that was walked often enough. What stands between its OBX keeps it from being one."""
    if not 2 <= len(blocks) <= MOST_ROWS or len(min(rows[1:], key=len)) < 5:
        return
    marks = message.separators
    if message.text.count("\r") != blocks[0].count("\r") + len(blocks) - 1 or may_reply(message):
        return
    learnt = _learnt_of(marks, message.codec, site)
    prefixes = tuple([f"OBX{marks.field.join(parts[:4])}{marks.field}" for parts in rows[1:]])
    if len(learnt.sightings) > _MOST_SIGHTINGS:
        learnt.sightings.clear()
    times = learnt.sightings[prefixes] = learnt.sightings.get(prefixes, 0) + 1
    if times < _LEARNT_AFTER:
        return
    dull = vocabulary_of(marks, message.codec, site).dull
    numbers: list[int] = []
    entries: list[LedgerEntry] = []
    for number, parts in enumerate(rows[1:], 1):
        known = dull.get(parts[3])
        if known is None or parts[2] in READ_ALWAYS:
            numbers.append(number)
        else:
            entries.append(known[number])
    if learnt.number >= _MOST_SHAPES:
        # Those that are sent today are soon known again.
        learnt.shapes.clear()
        learnt.number = 0
    shape = _Shape(prefixes, tuple(numbers), tuple(entries))
    learnt.shapes.setdefault(prefixes[-1][:_BEGINNING], []).append(shape)
    learnt.number += 1
    learnt.sightings.pop(prefixes)


def forget() -> None:
    """Every report is read row by row again, until it was seen often enough."""
    _learnt.clear()


def _learnt_of(marks: Separators, codec: str, site: Site | None) -> _Learnt:
    found = _learnt.get((marks, codec, site))
    if found is None:
        if len(_learnt) > _MOST_FEEDS:
            _learnt.clear()
        found = _learnt[marks, codec, site] = _Learnt()
    return found


def may_tell(line: str, marks: Separators) -> bool:
    """May this segment be a note that names neutrophils beside a figure?"""
    return line[:3] == "NTE" and (marks.escape in line or may_speak_of_neutrophils(line))


def hints(parts: list[str], marks: Separators) -> bool:
    """May a line of this row of text name neutrophils beside a figure?"""
    value = parts[4].split(marks.field, 2)[1:2] if len(parts) > 4 else []
    return bool(value) and (marks.escape in value[0] or may_speak_of_neutrophils(value[0]))
