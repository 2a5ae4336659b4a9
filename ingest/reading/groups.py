"""The order groups of an HL7 v2 message: one walk over its segments, each OBX kept with its OBR or set down in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ingest.reading.names import may_speak_of_neutrophils, speaks_of_neutrophils
from ingest.reading.outcome import LedgerEntry
from ingest.reading.recognition import Recognition
from ingest.reading.shapes import (
    COMMENTS,
    PACKED,
    READ_ALWAYS,
    Known,
    hints,
    is_fragment,
    is_ordinary,
    known_shape,
    learn,
    may_tell,
)
from ingest.reading.site import Site
from ingest.reading.v2fields import is_pending
from ingest.reading.vocabulary import MOST_ROWS, NAMELESS, not_relevant, recognised, vocabulary_of
from wire.er7 import Message, Segment, Separators

__all__ = ["Group", "groups_of", "of_shape", "walked"]

_DOCUMENTS = frozenset(("ED", "RP"))
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
    told: list[Segment] = field(default_factory=list)
    """Notes in which a line does so."""
    observations: int = 0
    nameless: Segment | None = None
    """A number without any code that stands among its rows: nobody knows which line of the report was lost."""
    joined: list[Segment] = field(default_factory=list)
    """Where a count stands inside another segment, or in none: a line end was lost on the way, or one too many came."""


_NUMBERS = frozenset(("NM", "SN"))
_LINES = 400
_LONGEST = 50_000


def groups_of(message: Message, ledger: list[LedgerEntry], site: Site | None = None) -> list[Group]:
    """The groups that hold something to read; every OBX that is in none of them is entered in ``ledger``."""
    known = known_shape(message, site)
    return walked(message, ledger, site) if known is None else of_shape(known, message, ledger, site)


def of_shape(known: Known, message: Message, ledger: list[LedgerEntry], site: Site | None = None) -> list[Group]:
    """As ``groups_of``, of a report whose shape is known: only its rows of interest are looked at."""
    if known.nothing is not None:
        ledger.extend(known.nothing)
        return []
    walk = _Walk(message, ledger, site)
    walk.surroundings("\r".join(known.head), 0, 0)
    if walk.prior:
        return walked(message, ledger, site)
    ledger.extend(known.entries)
    sep = message.separators.field
    for number, line in known.rows:
        walk.observation(line, number, line.split(sep, 4))
    return list(walk.ended(known.observations))


def walked(message: Message, ledger: list[LedgerEntry], site: Site | None = None) -> list[Group]:
    """As ``groups_of``, block by block: the way of a report whose shape is not known yet."""
    dull = vocabulary_of(message.separators, message.codec, site).dull
    sep = message.separators.field
    blocks = message.blocks
    rows = [block.split(sep, 4) for block in blocks]
    # A value holds no separator: what reads ``OBX|`` inside a line is a segment whose beginning nobody sees.
    joined = message.text.count(f"OBX{sep}") >= len(blocks)
    if not joined and _nothing_of_ours(blocks, message.separators, rows, dull, ledger):
        learn(message, site, blocks, rows)
        return []
    walk = _Walk(message, ledger, site)
    find, enter = dull.get, ledger.append
    walk.surroundings(blocks[0], 0, 0)
    prior = walk.prior
    if joined:
        walk.hidden(blocks[0], 0)
    for number, block in enumerate(blocks[1:], 1):
        parts, behind = rows[number], ""
        if "\r" in block:
            line, behind = block.split("\r", 1)
            parts = line.split(sep, 4)
        row = 0
        if prior or len(parts) < 4 or not (entries := find(parts[3])) or number > MOST_ROWS or parts[2] in READ_ALWAYS:
            row = walk.observation(f"OBX{sep.join(parts)}", number, parts)
        else:
            enter(entries[number])
        if joined:
            walk.hidden(block, number)
        if behind:
            walk.surroundings(behind, number, row)
            prior = walk.prior
    if not joined:
        learn(message, site, blocks, rows)
    return list(walk.ended(len(blocks) - 1))


def _nothing_of_ours(
    blocks: list[str],
    marks: Separators,
    rows: list[list[str]],
    dull: dict[str, list[LedgerEntry]],
    ledger: list[LedgerEntry],
) -> bool:
    """A report without a neutrophil, a leukocyte or a document in it: entered in the ledger, and nothing more to do."""
    if not 2 <= len(rows) <= MOST_ROWS or len(min(rows[1:], key=len)) < 4:
        return False
    find = dull.get
    entries = [find(parts[3]) for parts in rows[1:]]
    kinds = {parts[2] for parts in rows[1:]}
    if not all(entries) or not _DOCUMENTS.isdisjoint(kinds):
        return False
    if not COMMENTS.isdisjoint(kinds) and any(p[2] in COMMENTS and hints(p, marks) for p in rows[1:]):
        return False
    if not is_ordinary(blocks[0].split("\r"), marks):
        return False
    for block in blocks[1:]:
        if "\r" in block:
            line, *behind = block.split("\r")
            # A row that ends before its value is none of those that are known.
            if line.count(marks.field) < 4 or not _is_aside(behind, marks):
                return False
    ledger.extend([known[n] for n, known in enumerate(entries, 1) if known])
    return True


def _is_aside(lines: list[str], marks: Separators) -> bool:
    """Lines behind an OBX that change nothing: no other patient or order, and no note that may tell a count."""
    return not any(
        line[:3] in ("OBR", "PID", "ORC") or may_tell(line, marks) or is_fragment(line, marks) for line in lines
    )


class _Walk:
    """Where the walk stands: the group that the next OBX belongs to, and what waits for the next OBR."""

    __slots__ = (
        *("marks", "codec", "ledger", "site", "specimen_first"),
        *("groups", "group", "began", "pid", "orc", "standing", "counts", "prior", "misplaced"),
    )

    def __init__(self, message: Message, ledger: list[LedgerEntry], site: Site | None) -> None:
        self.marks, self.codec, self.ledger = message.separators, message.codec, ledger
        self.site = site
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
        self.misplaced: set[int] = set()

    def observation(self, line: str, number: int, parts: list[str]) -> int:
        """One OBX that the cache does not settle. Its number when it is a row of the group, else 0."""
        code = parts[3] if len(parts) > 3 else ""
        recognition = recognised(code, self.marks, self.codec, self.site)
        if recognition is NAMELESS and len(parts) > 4 and parts[2] in _NUMBERS:
            self.group.nameless = Segment(line, number, self.marks, self.codec)
        if self.prior:
            self.ledger.append(not_relevant(number, "prior-result"))
        elif recognition.claim is not None:
            obx = Segment(line, number, self.marks, self.codec, line.split(self.marks.field))
            if not is_pending(obx):
                self.group.rows.append((obx, recognition))
                return number
            self.ledger.append(not_relevant(number, "pending"))
        elif len(parts) > 3 and (parts[2] in ("ED", "RP") or self._is_packed(parts)):
            self.group.documents.append(Segment(line, number, self.marks, self.codec))
        else:
            if len(parts) > 4 and parts[2] in COMMENTS and self._comment(parts[4]):
                self.group.narratives.append((Segment(line, number, self.marks, self.codec), recognition.reason))
                return 0
            self.ledger.append(not_relevant(number, recognition.reason))
        return 0

    def _is_packed(self, parts: list[str]) -> bool:
        """A document in a row of text."""
        value = parts[4].split(self.marks.field, 2)[1:2] if len(parts) > 4 and parts[2] in COMMENTS else []
        return bool(value) and value[0].startswith(PACKED)

    def hidden(self, block: str, number: int) -> None:
        """Keeps the place of every OBX of ours inside a line. ``number``: the OBX that the block begins with, 0 for none."""
        for part in block.split(f"OBX{self.marks.field}")[1:]:
            fields = part.split(self.marks.field, 3)
            if len(fields) > 2 and recognised(fields[2], self.marks, self.codec, self.site).claim is not None:
                self._misplaced(number)
                return

    def _fragment(self, line: str, number: int) -> None:
        """Keeps the place of a line that is no segment and may be a count, or the rest of one."""
        fields = line.split(self.marks.field, 4)[:4] if self.marks.field in line else ()
        ours = any(recognised(one, self.marks, self.codec, self.site).claim is not None for one in fields if one)
        if ours or self._names_a_count(line):
            self._misplaced(number)

    def _misplaced(self, number: int) -> None:
        """Once a place: behind that OBX, or before the first."""
        if number not in self.misplaced:
            self.misplaced.add(number)
            self.group.joined.append(Segment("OBX" if number else "MSH", number or 1, self.marks, self.codec))

    def _comment(self, behind: str) -> bool:
        """Keeps OBX-5 of a row of text, where it is long enough to be a sentence; True: a line of it may be a count."""
        value = behind.split(self.marks.field, 2)[1:2]
        if not value or len(value[0]) <= 3:
            return False
        text = Segment("", 0, self.marks, self.codec).text(value[0])
        self.group.notes.append(text)
        return self._names_a_count(text)

    def _names_a_count(self, text: str) -> bool:
        text = text[:_LONGEST]
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
            if line[3:4] != self.marks.field:
                self._fragment(line, number)
                continue
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
        if self._names_a_count(note):
            self.group.told.append(segment)
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
            empty = group.obr is not None and not group.observations
            kept = group.rows or group.documents or group.narratives or group.told or group.joined
            if kept or empty or group.nameless is not None:
                yield group
