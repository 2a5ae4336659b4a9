"""Senders that are held to the standard: their messages judged by hl7apy and ``fhir.resources`` beside our own reading.

A strict sender's message that breaks its standard is read all the same, and nothing in it is more than provisional.
"""

from __future__ import annotations

import re
from dataclasses import replace

from msgspec import structs

from emitters.check import judge_fhir, judge_v2
from ingest.reading import Problem, Reading
from rules.model import Trust
from wire.er7 import split

__all__ = ["held_to", "violations"]

_MOST = 20
# hl7apy holds a document to the 65,536 characters that chapter 2.A gives as a length, and that every report exceeds.
_ENCLOSED = re.compile(rb"(?<=Base64\^)[A-Za-z0-9+/=]{200,}", re.IGNORECASE)
_UNREADABLE = "hl7apy could not read it: "
_ELEMENT = re.compile(r"\b(?:element|Bundle\S*|child) ([A-Z][\w.]{1,80})")


def violations(raw: bytes, form: str) -> list[str]:
    """What the libraries say against one message, without a value of it; [] when it is sound. Tens of milliseconds."""
    try:
        match form:
            case "hl7v2":
                # A warning is about a table that sites and nations extend.
                judged = judge_v2(_ENCLOSED.sub(b"AAAA", raw))
                return [_wordless(text) for text in judged if not text.startswith("Warning")]
            case "fhir":
                return [_wordless(text) for text in judge_fhir(raw)]
    except Exception as error:
        return [f"cannot be judged: {type(error).__name__}"]
    return []


def held_to(reading: Reading, raw: bytes, index: int = 0) -> Reading:
    """``reading`` under the strict setting of its sender; ``raw`` is the file it came in, ``index`` its place there."""
    if reading.disposition == "set_aside":
        return reading
    pieces = split(raw).pieces if reading.format == "hl7v2" else [raw]
    found = violations(pieces[index] if index < len(pieces) else raw, reading.format)
    if not found:
        return reading
    problems = tuple(Problem("strict", "$", f"$: {text}") for text in found[:_MOST])
    doubted = tuple(
        replace(result, trust=Trust.PROVISIONAL, doubts=(*result.doubts, "strict-violation"))
        for result in reading.results
    )
    ledger = tuple(
        entry._replace(outcome="provisional", reason="strict-violation") if entry.outcome == "result" else entry
        for entry in reading.ledger
    )
    return structs.replace(reading, results=doubted, problems=(*reading.problems, *problems), ledger=ledger)


def _wordless(text: str) -> str:
    """The complaint without contents, which may be a patient's: the kind of fault, or the element that it is about."""
    if text.startswith(_UNREADABLE):
        return _UNREADABLE + text.removeprefix(_UNREADABLE).split(":", 1)[0]
    element = _ELEMENT.search(text)
    if "alue" in text:
        return f"a value that is not allowed in {element[1]}" if element else "a value that is not allowed"
    return text[:160]
