"""The order groups of an HL7 v2 message: one walk over its segments, each OBX kept with its OBR or set down in the ledger.

Rule of the file: what says nothing of neutrophils or leukocytes is decided on OBX-3 alone, from a cache; it is the way of
99 OBX in 100, and costs one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.reading.codes import Coding, Recognition, may_speak_of_neutrophils, recognise, speaks_of_neutrophils
from ingest.reading.outcome import LedgerEntry
from ingest.reading.site import Site
from ingest.reading.v2fields import is_pending
from wire.er7 import Message, Segment, Separators

__all__ = ["Group", "groups_of", "not_relevant", "walked"]

# A document, or a comment that may speak of the specimen.
_READ_ALWAYS = frozenset(("ED", "RP", "TX", "FT", "ST"))
_DOCUMENTS = frozenset(("ED", "RP"))
_COMMENTS = frozenset(("TX", "FT", "ST"))
_CONTEXT = frozenset(("PID", "ORC", "OBR", "SPM", "NTE"))


@dataclass(slots=True)
class Group:
    """One OBR with what stands around it."""

    pid: Segment | None
    orc: Segment | None = None
    obr: Segment | None = None
    specimens: list[Segment] = field(default_factory=list)
    rows: list[tuple[Segment, Recognition]] = field(default_factory=list)
    documents: list[Segment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is said of the whole order: NTE of its OBR, and comments sent as an OBX of text."""
    other_notes: list[str] = field(default_factory=list)
    """NTE of its other rows."""
    row_notes: dict[int, list[str]] = field(default_factory=dict)
    narratives: list[tuple[Segment, str]] = field(default_factory=list)
    """Rows of text in which a line names neutrophils beside a figure, each with its word for the ledger otherwise."""
    observations: int = 0
    nameless: bool = False
    """A number without any code stands among its rows: nobody knows which line of the report was lost."""


class _Shape(NamedTuple):
    """A report as its sender writes it every day: the same OBX-2 and OBX-3 in the same order, with nothing in between.

    Where ``matches`` does, each row but those of ``numbers`` (its groups) ends as ``entries`` says, whatever its value is.
    """

    matches: Callable[[str, int], re.Match[str] | None]
    numbers: tuple[int, ...]
    entries: tuple[LedgerEntry, ...]
    rows: int


class _Seen(NamedTuple):
    """The raw OBX-3 seen so far under one set of separators: of no interest (their ledger entries by place), and others.

    ``shapes``: by how their first OBX begins. ``sightings``: how often a report was walked that may become one.
    """

    dull: dict[str, list[LedgerEntry]]
    recognised: dict[str, Recognition]
    shapes: dict[str, list[_Shape]]
    sightings: dict[tuple[str, ...], int]


_NAMELESS = Recognition(None, (), False, Coding(""), False, "code-missing")
_SEEN_LIMIT = 8192
_SHARED = 501
_REPEATS = 4
_NUMBERS = frozenset(("NM", "SN"))
_LINES = 400
# Plain dictionaries, looked up once a message by its separators: most OBX of a feed are decided here and nowhere else.
_seen: dict[tuple[Separators, str, Site | None], _Seen] = {}
_entries: dict[str, list[LedgerEntry]] = {}


def _seen_under(marks: Separators, codec: str, site: Site | None) -> _Seen:
    found = _seen.get((marks, codec, site))
    if found is None:
        if len(_seen) > 64:
            _seen.clear()
        found = _seen[marks, codec, site] = _Seen({}, {}, {}, {})
    if len(found.recognised) > _SEEN_LIMIT:
        found.recognised.clear()
        found.dull.clear()
    return found


def _shared(reason: str) -> list[LedgerEntry]:
    """One shared entry for each place and reason."""
    made = _entries.get(reason)
    if made is None:
        made = [LedgerEntry(f"OBX[{n}]", "not_relevant", reason) for n in range(_SHARED)]
        _entries[reason] = made
    return made


def not_relevant(number: int, reason: str) -> LedgerEntry:
    """The ledger's word on the OBX of that number."""
    return _shared(reason)[number] if number < _SHARED else LedgerEntry(f"OBX[{number}]", "not_relevant", reason)


def _recognise(text: str, marks: Separators, codec: str, site: Site | None) -> Recognition:
    """The claims of a raw OBX-3: both triplets and the original text."""
    segment = Segment("", 0, marks, codec)
    codings: tuple[Coding, ...] = ()
    words = ""
    for repeat in text.split(marks.repetition)[:_REPEATS]:
        parts = [*segment.split_components(repeat), *[""] * 12]
        # CWE of v2.7 has a second alternate triplet behind its original text (component 9).
        codings += tuple(Coding(*parts[i : i + 3]) for i in (0, 3, 9) if parts[i] or parts[i + 1])
        words = words or parts[8]
    if not codings and not words:
        return _NAMELESS
    found = recognise(codings, words)
    return site.recognised(codings, found) if site is not None else found


def groups_of(message: Message, ledger: list[LedgerEntry], site: Site | None = None) -> list[Group]:
    """The groups that hold something to read; every OBX that is in none of them is entered in ``ledger``."""
    seen = _seen_under(message.separators, message.codec, site)
    found = _by_shape(message, seen, ledger, site)
    return found if found is not None else walked(message, ledger, site)


def walked(message: Message, ledger: list[LedgerEntry], site: Site | None = None) -> list[Group]:
    """As ``groups_of``, block by block: the way of a report whose shape is not known yet."""
    seen = _seen_under(message.separators, message.codec, site)
    sep = message.separators.field
    blocks = message.blocks
    rows = [block.split(sep, 4) for block in blocks]
    if _nothing_of_ours(blocks, message.separators, rows, seen.dull, ledger):
        _learn(message, seen, blocks, rows)
        return []
    walk = _Walk(message, ledger, site)
    find, enter = seen.dull.get, ledger.append
    walk.surroundings(blocks[0], 0, 0)
    prior = walk.prior
    for number, block in enumerate(blocks[1:], 1):
        parts, behind = rows[number], ""
        if "\r" in block:
            line, behind = block.split("\r", 1)
            parts = line.split(sep, 4)
        row = 0
        if prior or len(parts) < 4 or not (entries := find(parts[3])) or number >= _SHARED or parts[2] in _READ_ALWAYS:
            row = walk.observation(f"OBX{sep.join(parts)}", number, parts)
        else:
            enter(entries[number])
        if behind:
            walk.surroundings(behind, number, row)
            prior = walk.prior
    _learn(message, seen, blocks, rows)
    return list(walk.ended(len(blocks) - 1))


_BEGINNING = 48
_LEARNT_AFTER = 3
_MOST_SHAPES = 64
_MOST_SIGHTINGS = 256


def _learn(message: Message, seen: _Seen, blocks: list[str], rows: list[list[str]]) -> None:
    """Makes a shape of a report that was walked often enough. What stands between its OBX keeps it from being one."""
    if not 2 <= len(blocks) < _SHARED or len(min(rows[1:], key=len)) < 5 or len(seen.shapes) >= _MOST_SHAPES:
        return
    text, sep = message.text, message.separators.field
    if text.count("\r") != blocks[0].count("\r") + len(blocks) - 1:
        return
    prefixes = tuple([sep.join(parts[:4]) for parts in rows[1:]])
    if len(seen.sightings) > _MOST_SIGHTINGS:
        seen.sightings.clear()
    times = seen.sightings[prefixes] = seen.sightings.get(prefixes, 0) + 1
    if times < _LEARNT_AFTER:
        return
    pattern, numbers, entries = [], [], []
    for number, (prefix, parts) in enumerate(zip(prefixes, rows[1:], strict=True), 1):
        known = seen.dull.get(parts[3])
        row = re.escape(prefix + sep) + "[^\r]*"
        if known is None or parts[2] in _READ_ALWAYS:
            numbers.append(number)
            row = f"({row})"
        else:
            entries.append(known[number])
        pattern.append("\rOBX" + row)
    shape = _Shape(re.compile("".join(pattern) + r"\Z").match, tuple(numbers), tuple(entries), len(prefixes))
    at = text.index("\rOBX")
    seen.shapes.setdefault(text[at : at + _BEGINNING], []).append(shape)
    seen.sightings.pop(prefixes)


def _by_shape(message: Message, seen: _Seen, ledger: list[LedgerEntry], site: Site | None) -> list[Group] | None:
    """The same as ``_walked`` gives, at one match for the whole report; None: of no shape that is known."""
    text = message.text
    at = text.find("\rOBX")
    for shape in seen.shapes.get(text[at : at + _BEGINNING], ()) if at >= 0 else ():
        match = shape.matches(text, at)
        if match is None:
            continue
        head, sep = text[:at], message.separators.field
        if "\r " in head:
            return None  # an indented line, which may be an OBX
        rows = [line.split(sep, 4) for line in match.groups()]
        if not rows or (
            all(p[2] in _COMMENTS and seen.dull.get(p[3]) and not _hints(p, message.separators) for p in rows)
        ):
            if not _ordinary([head], sep):
                return None
            ledger.extend(shape.entries)
            ledger.extend([seen.dull[p[3]][number] for number, p in zip(shape.numbers, rows, strict=True)])
            return []
        walk = _Walk(message, ledger, site)
        walk.surroundings(head, 0, 0)
        if walk.prior:
            return None
        ledger.extend(shape.entries)
        for number, parts, line in zip(shape.numbers, rows, match.groups(), strict=True):
            walk.observation(f"OBX{line}", number, parts)
        return list(walk.ended(shape.rows))
    return None


def _ordinary(blocks: list[str], sep: str) -> bool:
    """One patient, one order, before its OBX. Two orders may hide a cancelled one; ORC-1 PR gives another reason."""
    head = blocks[0]
    if head.count(f"\rOBR{sep}") > 1 or head.count(f"\rPID{sep}") > 1 or f"\rORC{sep}PR" in head:
        return False
    context = (f"\rOBR{sep}", f"\rPID{sep}", f"\rORC{sep}")
    return not any(mark in block for block in blocks[1:] if "\r" in block for mark in context)


def _hints(parts: list[str], marks: Separators) -> bool:
    """May a line of this row of text name neutrophils beside a figure?"""
    value = parts[4].split(marks.field, 2)[1:2] if len(parts) > 4 else []
    return bool(value) and (marks.escape in value[0] or may_speak_of_neutrophils(value[0]))


def _nothing_of_ours(
    blocks: list[str],
    marks: Separators,
    rows: list[list[str]],
    dull: dict[str, list[LedgerEntry]],
    ledger: list[LedgerEntry],
) -> bool:
    """A report without a neutrophil, a leukocyte or a document in it: entered in the ledger, and nothing more to do."""
    if not 2 <= len(rows) < _SHARED or len(min(rows[1:], key=len)) < 4:
        return False
    find = dull.get
    entries = [find(parts[3]) for parts in rows[1:]]
    kinds = {parts[2] for parts in rows[1:]}
    if not all(entries) or not _DOCUMENTS.isdisjoint(kinds):
        return False
    if not _COMMENTS.isdisjoint(kinds) and any(p[2] in _COMMENTS and _hints(p, marks) for p in rows[1:]):
        return False
    if not _ordinary(blocks, marks.field):
        return False
    ledger.extend([known[n] for n, known in enumerate(entries, 1) if known])
    return True


class _Walk:
    """Where the walk stands: the group that the next OBX belongs to, and what waits for the next OBR."""

    __slots__ = (
        *("marks", "codec", "ledger", "site", "seen", "specimen_first"),
        *("groups", "group", "began", "pid", "orc", "standing", "counts", "prior"),
    )

    def __init__(self, message: Message, ledger: list[LedgerEntry], site: Site | None) -> None:
        self.marks, self.codec, self.ledger = message.separators, message.codec, ledger
        self.site = site
        self.seen = _seen_under(self.marks, self.codec, site)
        # In an OUL the SPM stands before the OBR that it belongs to.
        self.specimen_first = message.header.message_code == "OUL"
        self.groups: list[Group] = []
        self.group = Group(None)
        self.began = 0
        self.pid: Segment | None = None
        self.orc: Segment | None = None
        self.standing: list[Segment] = []
        self.counts: dict[str, int] = {}
        self.prior = False

    def observation(self, line: str, number: int, parts: list[str]) -> int:
        """One OBX that the cache does not settle. Its number when it is a row of the group, else 0."""
        code = parts[3] if len(parts) > 3 else ""
        recognition = self.seen.recognised.get(code)
        if recognition is None:
            recognition = self.seen.recognised[code] = _recognise(code, self.marks, self.codec, self.site)
            if recognition.claim is None and recognition is not _NAMELESS:
                self.seen.dull[code] = _shared(recognition.reason)
        if recognition is _NAMELESS and len(parts) > 4 and parts[2] in _NUMBERS:
            self.group.nameless = True
        if self.prior:
            self.ledger.append(not_relevant(number, "prior-result"))
        elif recognition.claim is not None:
            obx = Segment(line, number, self.marks, self.codec, line.split(self.marks.field))
            if not is_pending(obx):
                self.group.rows.append((obx, recognition))
                return number
            self.ledger.append(not_relevant(number, "pending"))
        elif len(parts) > 3 and parts[2] in ("ED", "RP"):
            self.group.documents.append(Segment(line, number, self.marks, self.codec))
        else:
            if len(parts) > 4 and parts[2] in _COMMENTS and self._comment(parts[4]):
                self.group.narratives.append((Segment(line, number, self.marks, self.codec), recognition.reason))
                return 0
            self.ledger.append(not_relevant(number, recognition.reason))
        return 0

    def _comment(self, behind: str) -> bool:
        """Keeps OBX-5 of a row of text, where it is long enough to be a sentence; True: a line of it may be a count."""
        value = behind.split(self.marks.field, 2)[1:2]
        if not value or len(value[0]) <= 3:
            return False
        text = Segment("", 0, self.marks, self.codec).text(value[0])
        self.group.notes.append(text)
        if not may_speak_of_neutrophils(text):
            return False
        lines = text.replace(self.marks.repetition, "\n").split("\n")
        return any(speaks_of_neutrophils(line) for line in lines[:_LINES])

    def surroundings(self, text: str, number: int, row: int) -> None:
        """Segments that are no OBX. ``number``: the OBX so far; ``row``: the one just before, if it is a row."""
        self.group.observations = number - self.began
        elsewhere = number > 0
        for line in text.split("\r"):
            name = line[:3]
            if name not in _CONTEXT:
                continue
            place = self.counts[name] = self.counts.get(name, 0) + 1
            segment = Segment(line, place, self.marks, self.codec)
            if name == "NTE":
                self._note(segment, row, elsewhere=elsewhere)
            else:
                row, elsewhere = 0, False
                self._context(name, segment, number)

    def _note(self, segment: Segment, row: int, *, elsewhere: bool) -> None:
        """``elsewhere``: the note stands under an OBX that is no row of ours."""
        note = segment.text(segment.field(3))
        if not note:
            return
        if row:
            self.group.row_notes.setdefault(row, []).append(note)
        else:
            (self.group.other_notes if elsewhere else self.group.notes).append(note)

    def _context(self, name: str, segment: Segment, number: int) -> None:
        if name == "PID":
            self.pid, self.orc, self.prior = segment, None, False
            self._open(Group(segment), number)
        elif name == "ORC":
            self.orc = segment
            # ORC-1 PR: previous results that travel with a new one (table 0119).
            self.prior = segment.field(1).upper() == "PR"
        elif name == "OBR":
            self._open(Group(self.pid, self.orc, segment), number)
            if self.specimen_first:
                self.group.specimens = list(self.standing)
            if self.orc is None:
                self.prior = False
            self.orc = None
        elif self.specimen_first:
            if self.group.observations or self.group.obr is not None:
                self.standing = []
            self.standing.append(segment)
        else:
            self.group.specimens.append(segment)
        if not self.groups:
            self.groups.append(self.group)

    def _open(self, group: Group, number: int) -> None:
        if not self.groups and self.group.observations:
            # OBX before any PID or OBR: nobody's, and not to be lost for that.
            self.groups.append(self.group)
        self.group, self.began = group, number
        self.groups.append(group)

    def ended(self, number: int) -> Iterator[Group]:
        self.group.observations = number - self.began
        for group in self.groups or (self.group,):
            if group.rows or group.documents or group.narratives or (group.obr is not None and not group.observations):
                yield group
