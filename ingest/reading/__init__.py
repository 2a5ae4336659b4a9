"""Reading: the bytes of a laboratory's message into neutrophil counts, or into the reasons why there are none.

``read_message`` takes one message, ``read_file`` whatever a file holds. Both are pure and return for any bytes; an exception
from them is a defect of this package, never of the message.
"""

from __future__ import annotations

import re
from typing import Literal, assert_never
from zoneinfo import ZoneInfo

from msgspec import structs

from ingest.reading.cda import looks_like_cda, read_cda
from ingest.reading.fhir import read_fhir
from ingest.reading.hl7v2 import read_hl7v2
from ingest.reading.hprim import head_of_hprim, is_whole, looks_like_hprim, read_hprim
from ingest.reading.outcome import (
    BenFact,
    Confirmation,
    LedgerEntry,
    Merge,
    PatientFact,
    Problem,
    Reading,
    RegisterFact,
    Reply,
    TreatmentFact,
)
from ingest.reading.site import Site, SiteError, parse_site
from wire.er7 import split

__all__ = [
    "BenFact",
    "Confirmation",
    "LedgerEntry",
    "Merge",
    "PatientFact",
    "Problem",
    "Reading",
    "RegisterFact",
    "Reply",
    "Site",
    "SiteError",
    "TreatmentFact",
    "head_of_hprim",
    "is_whole",
    "looks_like_cda",
    "parse_site",
    "read_file",
    "read_message",
    "sniff",
]

_SEGMENT = re.compile(rb"[A-Z][A-Z0-9]{2}\|")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# How nearly every message begins, and no XML.
_PLAIN = (b"M", b"{")
MAX_BYTES = 64 * 1024 * 1024


def sniff(raw: bytes) -> Literal["hl7v2", "fhir", "cda", "hprim", "other"]:
    """By the first bytes: ER7 (or a batch of it), JSON, a ClinicalDocument, or something else."""
    head = raw[:1024].lstrip(b"\xef\xbb\xbf\x0b\x1c\r\n\t \x00")
    if head[:3] in (b"MSH", b"FHS", b"BHS"):
        return "hl7v2"
    if head[:1] in (b"{", b"["):
        return "fhir"
    if head[:1] == b"<" or raw[:2] in _UTF16:
        return "cda" if looks_like_cda(raw) else "other"
    if looks_like_hprim(raw):
        return "hprim"
    # A segment without its MSH is a broken HL7 message rather than something else.
    return "hl7v2" if b"MSH|" in raw or _SEGMENT.match(head) else "other"


def read_message(
    raw: bytes,
    *,
    format: Literal["hl7v2", "fhir", "cda", "hprim"],
    zone: ZoneInfo | None = None,
    site: Site | None = None,
) -> Reading:
    """One message, already split from its batch. ``zone``: for times without an offset; None leaves them naive."""
    if site is not None and site.zone is not None:
        zone = site.zone
    if len(raw) > MAX_BYTES:
        problem = Problem("too-large", "$", "$: larger than any message that is read")
        return Reading(format=format, disposition="set_aside", problems=(problem,))
    if (
        raw[:1] not in _PLAIN
        and format != "cda"
        and raw[:1024].lstrip(b"\xef\xbb\xbf\x0b \t\r\n")[:1] == b"<"
        and looks_like_cda(raw)
    ):
        # The doors name a message after the way that it came.
        format = "cda"
    elif format == "hl7v2" and raw[:1] == b"H" and looks_like_hprim(raw):
        format = "hprim"
    match format:
        case "cda":
            return read_cda(raw, zone=zone, site=site)
        case "hprim":
            return read_hprim(raw, zone=zone, site=site)
        case "hl7v2":
            return read_hl7v2(raw, zone=zone, site=site)
        case "fhir":
            return read_fhir(raw, zone=zone, site=site)
        case _:
            assert_never(format)


def read_file(raw: bytes, *, zone: ZoneInfo | None = None, site: Site | None = None) -> list[Reading]:
    """Every message of a file, in order: a batch gives several, anything unreadable one that is set aside."""
    match sniff(raw):
        case "fhir":
            return [read_message(part, format="fhir", zone=zone, site=site) for part in _lines_of_json(raw)]
        case "cda" | "hprim" as form:
            return [read_message(raw, format=form, zone=zone, site=site)]
        case "other":
            code = "xml-not-read" if raw[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<" else "not-a-message"
            problem = Problem(code, "$", "$: neither HL7 v2 nor FHIR JSON")
            return [Reading(format="other", disposition="set_aside", problems=(problem,))]
    found = split(raw)
    if not found.pieces:
        problem = Problem("msh-missing", "$", "$: a batch without a message")
        return [Reading(format="hl7v2", disposition="set_aside", problems=(problem,))]
    readings = [read_message(piece, format="hl7v2", zone=zone, site=site) for piece in found.pieces]
    if found.mismatches:
        readings[-1] = _with_mismatches(readings[-1], found.mismatches)
    return readings


def _lines_of_json(raw: bytes) -> list[bytes]:
    """A file of one resource a line (NDJSON) gives its lines; any other file is one payload."""
    lines = [line for line in raw.split(b"\n") if line.strip()]
    whole = all(line.lstrip(b"\xef\xbb\xbf \t")[:1] == b"{" and line.rstrip()[-1:] == b"}" for line in lines)
    return lines if whole and len(lines) > 1 else [raw]


def _with_mismatches(reading: Reading, mismatches: list[str]) -> Reading:
    """The batch counts stand beside the last message: what was sent and what arrived differ."""
    found = tuple(Problem("batch-count", text.split(":", 1)[0], text) for text in mismatches)
    return structs.replace(reading, problems=(*reading.problems, *found))
