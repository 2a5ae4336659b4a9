"""Reports as their sender writes them every day: known by their rows, so that only those that may be a count are looked at.

Rule of the file: a shape says what reading row by row would say, or nothing. It is made only of rows that were read that
way, and holds for a report only where type and code of every row are the same, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import Final, NamedTuple

from ingest.reading.names import may_speak_of_neutrophils
from ingest.reading.outcome import LedgerEntry
from ingest.reading.site import Site
from ingest.reading.v2replies import may_reply
from ingest.reading.vocabulary import MOST_ROWS, recognised, vocabulary_of
from wire.er7 import LF, TRAILING, Header, Message, Separators, codecs_of

__all__ = [
    "COMMENTS",
    "PACKED",
    "READ_ALWAYS",
    "Known",
    "forget",
    "hints",
    "is_fragment",
    "is_ordinary",
    "known_dull",
    "known_shape",
    "learn",
    "may_tell",
]

# A comment that may speak of the specimen, or tell a count; and a document.
COMMENTS: Final = frozenset(("TX", "FT", "ST"))
# How an XML document, a CDA and a PDF begin in base64, whatever their OBX-2 and their encoding are called.
PACKED: Final = ("PD94", "PENsaW5pY2FsRG9j", "77u/PD94", "JVBERi0")
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


class _Dull(NamedTuple):
    """A shape of which no row is of any interest, in bytes: it says the same in every character set that the message may be
    read in. ``rows``: each through OBX-3; ``mark``: MSH-1."""

    rows: tuple[bytes, ...]
    entries: tuple[LedgerEntry, ...]
    mark: bytes


# Those in which a byte below 0x80 is always itself, so that bytes can be cut where text would be.
_PLAIN_CODECS: Final = ("utf-8", "cp1252", "cp850", "cp437", "iso8859")
_dull: dict[tuple[str, str, str, Site | None], dict[bytes, list[_Dull]]] = {}
# Through OBX-1, which in most reports is the number of rows: no prefix is shorter than ``OBX||||``.
_BEGINNING = 7
_LEARNT_AFTER = 3
_MOST_SHAPES = 256
_MOST_SIGHTINGS = 1024
_MOST_FEEDS = 64
# Characters of one shape, and of all that is kept of shapes and sightings.
_LONGEST = 32_768
_LONGEST_ROW = 600
_MOST_HELD = 4_000_000
_held = 0
_learnt: dict[tuple[Separators, str, Site | None], _Learnt] = {}


def known_dull(raw: bytes, header: Header, site: Site | None) -> tuple[LedgerEntry, ...] | None:
    """The whole ledger of a report in which nothing can be a count, a leukocyte or a document; None: look closer.

    Not decoded: every row is, byte for byte, one that was read before as dull. An ``OBX`` too many, a note, a second order or
    patient leave it to ``known_shape``.
    """
    found = _dull.get((header.field_separator, header.encoding_characters, header.charset, site))
    if found is None or raw[:3] != b"MSH" or LF in raw:
        return None
    # There is no line feed in it: so these are its lines, in half the time of ``split``.
    lines = BytesIO(raw.replace(b"\r", b"\n")).readlines()
    while not lines[-1].strip(TRAILING):
        lines.pop()
    for shape in found.get(lines[-1][:_BEGINNING], ()):
        before = len(lines) - len(shape.rows)
        if (
            before > 0
            and all(map(bytes.startswith, lines[before:], shape.rows))
            # No OBX but theirs, not in the middle of a line either. Sought from the end, which CPython does faster.
            and len(raw.rsplit(b"OBX")) == len(shape.rows) + 1
            and _is_plain_head(lines[:before], shape.mark)
        ):
            return shape.entries
    return None


def _is_plain_head(head: list[bytes], mark: bytes) -> bool:
    """Segments only, one patient and one order at most, no note, no order of previous results."""
    orders = patients = 0
    for line in head:
        name = line[:3]
        if name == b"OBR":
            orders += 1
        elif name == b"PID":
            patients += 1
        elif name == b"NTE" or line[3:4] != mark or (name == b"ORC" and line[4:6].upper() == b"PR"):
            return False
    return orders < 2 and patients < 2


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
            ordinary = _looked_over(head, marks)
            if ordinary is None or len(message.text.rsplit("OBX")) != len(rows) + 1:
                return None
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
    return _looked_over(head, marks) is True


def _looked_over(head: list[str], marks: Separators) -> bool | None:
    """``is_ordinary``; None where a line of it is, or may be (it is indented), an OBX. One look at each line."""
    orders = patients = 0
    ordinary = True
    for line in head:
        name = line[:3]
        if name == "OBR":
            orders += 1
        elif name == "PID":
            patients += 1
        elif name == "OBX" or line[:1] == " ":
            return None
        elif (
            is_fragment(line, marks)
            or (name == "ORC" and line[4:6].upper() == "PR" and line[3:4] == marks[0])
            or (name == "NTE" and may_tell(line, marks))
        ):
            ordinary = False
    return ordinary and orders < 2 and patients < 2


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
    global _held
    learnt = _learnt_of(marks, message.codec, site)
    prefixes = tuple([f"OBX{marks.field.join(parts[:4])}{marks.field}" for parts in rows[1:]])
    size = sum(map(len, prefixes))
    if size > _LONGEST or len(max(prefixes, key=len)) > _LONGEST_ROW:
        return
    if _held > _MOST_HELD:
        forget()
        learnt = _learnt_of(marks, message.codec, site)
    if prefixes not in learnt.sightings:
        _held += size
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
    if not numbers:
        _learn_dull(message, site, prefixes, shape.entries)
    learnt.shapes.setdefault(prefixes[-1][:_BEGINNING], []).append(shape)
    learnt.number += 1
    learnt.sightings.pop(prefixes)


def _learn_dull(
    message: Message, site: Site | None, prefixes: tuple[str, ...], entries: tuple[LedgerEntry, ...]
) -> None:
    """Only where each row says the same in every character set that a message of this feed may be read in."""
    header, marks = message.header, message.separators
    declared = header.charset.replace(marks.repetition, "~") or (site.charset if site is not None else "")
    codecs = (*codecs_of(declared), "iso8859-1")
    if not marks.field.isascii() or not all(codec.startswith(_PLAIN_CODECS) for codec in codecs):
        return
    rows = [prefix.encode(message.codec) for prefix in prefixes]
    for codec in codecs:
        vocabulary = vocabulary_of(marks, codec, site)
        for row, entry in zip(rows, entries, strict=True):
            try:
                kind, code = row.decode(codec).split(marks.field)[2:4]
            except UnicodeDecodeError:
                continue  # then the message is not read in this one
            recognised(code, marks, codec, site)
            known = vocabulary.dull.get(code)
            if known is None or kind in READ_ALWAYS or entry not in known:
                return
    if len(_dull) > _MOST_FEEDS:
        _dull.clear()
    known_rows = _dull.setdefault((header.field_separator, header.encoding_characters, header.charset, site), {})
    if sum(map(len, known_rows.values())) >= _MOST_SHAPES:
        known_rows.clear()
    shape = _Dull(tuple(rows), entries, marks.field.encode())
    known_rows.setdefault(rows[-1][:_BEGINNING], []).append(shape)


def forget() -> None:
    """Every report is read row by row again, until it was seen often enough."""
    global _held
    _learnt.clear()
    _dull.clear()
    _held = 0


def _learnt_of(marks: Separators, codec: str, site: Site | None) -> _Learnt:
    found = _learnt.get((marks, codec, site))
    if found is None:
        if len(_learnt) > _MOST_FEEDS:
            _learnt.clear()
        found = _learnt[marks, codec, site] = _Learnt()
    return found


def is_fragment(line: str, marks: Separators) -> bool:
    """No segment: what stands behind a line end too many."""
    return line[3:4] != marks[0] and not line.isspace() and line != ""


def may_tell(line: str, marks: Separators) -> bool:
    """May this segment be a note that names neutrophils beside a figure?"""
    return line[:3] == "NTE" and (marks.escape in line or may_speak_of_neutrophils(line))


def hints(parts: list[str], marks: Separators) -> bool:
    """May a line of this row of text name neutrophils beside a figure?"""
    value = parts[4].split(marks.field, 2)[1:2] if len(parts) > 4 else []
    return bool(value) and (
        marks.escape in value[0] or value[0].startswith(PACKED) or may_speak_of_neutrophils(value[0])
    )
