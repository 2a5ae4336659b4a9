"""What the words beside a count say of its specimen: clotted, its cells stuck together, haemolysed.

Rule of the file: phrases, not words; a denial before or behind one takes it back.
"""

from __future__ import annotations

import re

from wire.memo import memo

__all__ = ["says_aggregated", "says_clotted", "says_haemolysed"]

_CLOTTED = re.compile(
    r"(?:pr[eé]l[eè]vement|[eé]chantillon|tube|sang|specimen|sample|blood|probe|blut|campione|muestra|amostra|prelievo|monster)"
    r"\W+(?:\w+\W+){0,3}?(?:coagul|clott|caill|geronnen|gestold)|"
    r"(?:clotted|geronnene|gestold)\s+(?:blood|sample|specimen|probe|monster)|caillots?\b|\bclots?\b|\bclotted\b(?!\s+factor)|"
    r"\bcoagul[eé]e?s?\b|\bcoagulat[oa]\b|\bcoagulad[oa]\b|\bcoaguli\b",
    re.IGNORECASE,
)
# Cells that stick together are counted as one, or not at all; said of platelets it spoils the leukocytes beside them.
_AGGREGATED = re.compile(
    r"\bagr[eé]gats?\b|\bagr[eé]g[eé]e?s?\b|\bamas\b.{0,20}plaquett|\baggregat(?:es|i|e|ed|ion of)\b|\bagregados?\b|"
    r"\bclump(?:s|ed|ing)\b",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"\b(?:no|not|non|pas|sans|without|nicht)\b|\bun-", re.IGNORECASE)
_DENIED_AFTER = re.compile(r"[^.:=\r\n]{0,25}[:=]\s*(?:non|no|none|nil|0|absen\w*|n[eé]g\w*|kein\w*)\b", re.IGNORECASE)
_LONGEST = 4000
_DENIED = re.compile(
    r"\b(?:no|not|non|pas|sans|without|kein\w*|nicht|absence|absent\w*)\b\W*(?:\w+\W+){0,2}\Z", re.IGNORECASE
)
_HAEMOLYSED = re.compile(r"\bHEM\b|H(?:A?E|É)MOLY", re.IGNORECASE)


@memo(2048)
def says_clotted(note: str) -> bool:
    """A phrase that says the specimen clotted, unless a denial stands before it."""
    return _says(_CLOTTED, note)


@memo(2048)
def says_aggregated(note: str) -> bool:
    """A phrase that says the cells stuck together, unless a denial stands before it."""
    return _says(_AGGREGATED, note)


def _says(phrase: re.Pattern[str], note: str) -> bool:
    if len(note) > _LONGEST:
        return False
    for match in phrase.finditer(note):
        before = note[max(0, match.start() - 30) : match.start()]
        denied = _DENIED.search(before) or _DENIAL.search(match.group()) or _DENIED_AFTER.match(note, match.end())
        if not denied:
            return True
    return False


def says_haemolysed(condition: str) -> bool:
    """A coded specimen condition or its text (table 0493)."""
    return bool(_HAEMOLYSED.search(condition))
