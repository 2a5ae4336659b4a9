"""The raw OBX-3 of a feed, recognised once each, and the entry that an OBX of no interest leaves in the ledger.

Rule of the file: what says nothing of neutrophils or leukocytes is decided on OBX-3 alone; it is the way of 99 OBX in 100,
and costs one look-up.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ingest.reading.codes import Coding
from ingest.reading.outcome import LedgerEntry
from ingest.reading.recognition import Recognition, recognise
from ingest.reading.site import Site
from wire.er7 import NULL, Segment, Separators
from wire.memo import LONGEST

__all__ = ["MOST_ROWS", "NAMELESS", "Vocabulary", "not_relevant", "recognised", "vocabulary_of"]


class Vocabulary(NamedTuple):
    """The raw OBX-3 seen so far under one set of separators: of no interest (their ledger entries by place), and others."""

    dull: dict[str, list[LedgerEntry]]
    recognised: dict[str, Recognition]


NAMELESS: Final = Recognition(None, (), False, Coding(""), False, "code-missing")
MOST_ROWS: Final = 500
_LIMIT = 8192
_MOST_FEEDS = 64
_REPEATS = 4
# Characters of all raw OBX-3 that are kept.
_MOST_HELD = 2_000_000
_held = 0
# Plain dictionaries, looked up once a message by its separators: most OBX of a feed are decided here and nowhere else.
_known: dict[tuple[Separators, str, Site | None], Vocabulary] = {}
_entries: dict[str, list[LedgerEntry]] = {}


def vocabulary_of(marks: Separators, codec: str, site: Site | None) -> Vocabulary:
    """What is known so far of the OBX-3 that are written and read so."""
    found = _known.get((marks, codec, site))
    if found is None:
        if len(_known) > _MOST_FEEDS:
            _known.clear()
        found = _known[marks, codec, site] = Vocabulary({}, {})
    if len(found.recognised) > _LIMIT:
        found.recognised.clear()
        found.dull.clear()
    return found


def recognised(text: str, marks: Separators, codec: str, site: Site | None) -> Recognition:
    """The claims of a raw OBX-3, both triplets and the original text; kept, and what is dull among them for ``dull``."""
    global _held
    vocabulary = vocabulary_of(marks, codec, site)
    found = vocabulary.recognised.get(text)
    if found is None:
        found = _recognise(text, marks, codec, site)
        if len(text) > LONGEST:
            return found
        _held += len(text)
        if _held > _MOST_HELD:
            # Strangers, or a change of dialect: what is sent today is soon known again.
            _known.clear()
            _held = len(text)
            vocabulary = vocabulary_of(marks, codec, site)
        vocabulary.recognised[text] = found
        if found.claim is None and found is not NAMELESS:
            vocabulary.dull[text] = _shared(found.reason)
    return found


def not_relevant(number: int, reason: str) -> LedgerEntry:
    """The ledger's word on the OBX of that number."""
    return _shared(reason)[number] if number <= MOST_ROWS else LedgerEntry(f"OBX[{number}]", "not_relevant", reason)


def _shared(reason: str) -> list[LedgerEntry]:
    """One shared entry for each place and reason."""
    made = _entries.get(reason)
    if made is None:
        made = [LedgerEntry(f"OBX[{n}]", "not_relevant", reason) for n in range(MOST_ROWS + 1)]
        _entries[reason] = made
    return made


def _recognise(text: str, marks: Separators, codec: str, site: Site | None) -> Recognition:
    segment = Segment("", 0, marks, codec)
    codings: tuple[Coding, ...] = ()
    words = ""
    for repeat in text.split(marks.repetition)[:_REPEATS]:
        parts = ["" if part == NULL else part for part in segment.split_components(repeat)] + [""] * 12
        # CWE of v2.7 has a second alternate triplet behind its original text (component 9).
        codings += tuple(Coding(*parts[i : i + 3]) for i in (0, 3, 9) if parts[i] or parts[i + 1])
        words = words or parts[8]
    if not codings and not words:
        return NAMELESS
    found = recognise(codings, words)
    return site.recognised(codings, found) if site is not None else found
