"""What FHIR tells of a count without the count itself: in words, by taking a report back, or by a notification without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from ingest.reading import fhirtypes as t
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, decode
from ingest.reading.fhirparts import codings_of, recognise_code
from ingest.reading.names import may_speak_of_neutrophils, speaks_of_neutrophils
from ingest.reading.panels import is_blood_count, is_laboratory_document

__all__ = ["Told", "in_words", "unsaid"]

_WORDY: Final = re.compile(rb'"(?:note|comments?|valueString|conclusion)"')
_COUNTS: Final = re.compile(rb'"(?:[^"]*/)?(?:Observation|DiagnosticReport)/')
_NOTICES: Final = ("Parameters", "SubscriptionStatus")
_LINES: Final = 400
_LONGEST: Final = 50_000


class Told(NamedTuple):
    """``where`` of ``item``, and the reason for a person as ``(code, words)``."""

    item: Item
    where: str
    code: str
    words: str


def in_words(index: Index, report_of: Callable[[Item], t.DiagnosticReport | None]) -> Iterator[Told]:
    """A blood count whose neutrophils stand in a conclusion, in a note, or in a text under another code."""
    words = "a neutrophil count in words, without a structured result"
    for item in index.items:
        if item.kind not in ("Observation", "DiagnosticReport") or not _WORDY.search(item.raw):
            continue
        try:
            if item.kind == "DiagnosticReport":
                report = decode(item.raw, t.DiagnosticReport)
                if _holds_a_count(report.code) and _names_a_count(report.conclusion, *(n.text for n in report.note)):
                    yield Told(item, f"{item.where}.conclusion", "narrative-only", words)
                continue
            observation = decode(item.raw, t.Observation)
        except UNDECODABLE:
            continue
        notes = (observation.comment, observation.comments, *(note.text for note in observation.note))
        texts = (observation.valueString, *(part.valueString for part in observation.component))
        if not _names_a_count(*notes, *texts):
            continue
        panel = report_of(item)
        around = (observation.code, panel.code if panel is not None else None)
        if recognise_code(observation.code).claim is not None or any(_holds_a_count(code) for code in around):
            yield Told(item, item.where, "narrative-only", words)


def unsaid(index: Index) -> Iterator[Told]:
    """A blood count that is taken back without its results, and a notification of something that it does not carry."""
    for item in index.items:
        if item.kind == "DiagnosticReport":
            try:
                report = decode(item.raw, t.DiagnosticReport)
            except UNDECODABLE:
                continue
            back = report.status == "entered-in-error" or (report.status == "cancelled" and report.result)
            if (
                back
                and _holds_a_count(report.code)
                and not any(r.reference and index.find(r.reference, item) for r in report.result)
            ):
                yield Told(
                    item, item.where, "report-withdrawn", "a blood count is taken back, and its results are not named"
                )
        elif item.kind in _NOTICES and index.bundle is not None and _is_empty(item, index):
            yield Told(item, item.where, "notification-empty", "a notification without the resource that it is about")


def _is_empty(item: Item, index: Index) -> bool:
    if any(other.kind not in _NOTICES for other in index.items):
        return False
    try:
        notice = decode(item.raw, _Notice)
    except UNDECODABLE:
        return False
    said = {notice.type, *(p.valueCode for p in notice.parameter if p.name == "type")}
    return "event-notification" in said and (b'"focus"' not in item.raw or _COUNTS.search(item.raw) is not None)


class _Notice(Struct, frozen=True):
    """SubscriptionStatus, or the Parameters that stand for it in R4."""

    type: str | None = None
    parameter: list[t.Parameter] = []


def _holds_a_count(code: t.CodeableConcept | None) -> bool:
    codings, text = codings_of(code), (code.text or "") if code else ""
    return is_blood_count(codings, text) or is_laboratory_document(codings, text)


def _names_a_count(*texts: str | None) -> bool:
    return any(
        speaks_of_neutrophils(line)
        for text in texts
        if text and may_speak_of_neutrophils(text[:_LONGEST])
        for line in text[:_LONGEST].splitlines()[:_LINES]
    )
