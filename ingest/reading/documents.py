"""The documents that travel in an OBX (ED): a CDA is read, everything else is a reason why a person must look."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ingest.reading.cda import Document, document_of, looks_like_cda
from ingest.reading.codes import Coding
from ingest.reading.groups import Group
from ingest.reading.orders import Order
from ingest.reading.panels import is_blood_count, is_laboratory_document
from ingest.reading.rows import Row
from ingest.reading.shapes import PACKED
from ingest.reading.site import Site
from ingest.reading.v2fields import status_of
from ingest.reading.xmltree import NotXml
from rules.model import PatientIdentifier, ResultStatus
from wire.er7 import Segment

__all__ = ["Enclosed", "cda_in", "decoded", "documents_in", "may_hold_a_count", "rows_of", "under", "unpacked"]

_NO_DOCUMENT = "document-not-read", "a laboratory report as a document"


class Enclosed(NamedTuple):
    """``fault``: why a count may be in it and was not read, as ``(code, words)``; None: read, or not our business."""

    obx: Segment
    document: Document | None
    fault: tuple[str, str] | None


def documents_in(group: Group, zone: ZoneInfo | None, site: Site | None) -> Iterator[Enclosed]:
    """The documents of one order, each OBX with what could be made of it."""
    for obx in group.documents:
        laboratory = may_hold_a_count(obx, group.obr)
        document, fault = _read(obx, zone, site, laboratory=laboratory)
        if document is not None:
            yield Enclosed(obx, document, document.unread)
        else:
            yield Enclosed(obx, None, fault if laboratory else None)


def cda_in(
    raw: bytes, zone: ZoneInfo | None, site: Site | None, prefix: str, *, laboratory: bool
) -> Document | tuple[str, str]:
    """A CDA, or ``(code, words)`` of why these bytes are none."""
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"<" or not looks_like_cda(raw):
        return _NO_DOCUMENT
    found = document_of(raw, zone=zone, site=site, prefix=prefix, laboratory=laboratory)
    return (found.code, found.text) if isinstance(found, NotXml) else found


def unpacked(data: str) -> bytes | None:
    """Base64, its line breaks and lost padding forgiven; None when it is not that."""
    packed = "".join(data.split())
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _read(
    obx: Segment, zone: ZoneInfo | None, site: Site | None, *, laboratory: bool
) -> tuple[Document | None, tuple[str, str]]:
    """The first CDA among the repetitions of OBX-5 (a PDF may stand beside it), else why there is none."""
    fault = _NO_DOCUMENT
    for repetition in obx.repetitions(5):
        parts = repetition.split(obx.separators.component)
        raw = decoded(parts[-1] if len(parts) < 5 else parts[4], parts[3] if len(parts) > 3 else "", obx)
        if raw is None:
            fault = "document-undecodable", "a laboratory report that does not decode"
            continue
        found = cda_in(raw, zone, site, f"{obx.at(5)}/", laboratory=laboratory)
        if isinstance(found, Document):
            return found, fault
        fault = found
    return None, fault


def decoded(data: str, encoding: str, obx: Segment) -> bytes | None:
    """The bytes of an ED by its encoding (table 0299); None when they are not what it says."""
    match encoding.strip().upper():
        case "BASE64":
            return unpacked(obx.text(data))
        case "HEX":
            try:
                return bytes.fromhex(data)
            except ValueError:
                return None
        case _:
            text = obx.text(data)
            return unpacked(text) if text.startswith(PACKED) else text.encode()


def may_hold_a_count(obx: Segment | None, obr: Segment | None) -> bool:
    for segment, position in ((obx, 3), (obr, 4)):
        if segment is None:
            continue
        parts = [*segment.components(position), *[""] * 6]
        codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
        if is_laboratory_document(codings) or is_blood_count(codings):
            return True
    return False


def rows_of(
    enclosed: Enclosed, order: Order, patient: tuple[PatientIdentifier, ...], sender: str, plain: list[Row]
) -> list[Row]:
    """The document's rows under the status of its OBX, beside the plain rows of the same collection time."""
    document = enclosed.document
    if document is None:
        return []
    status, doubts = status_of(enclosed.obx, order.status)
    doubts = (*doubts, *order.doubts)
    if order.retired and not status.withdrawn:
        doubts = (*doubts, "status-conflict")
    rows = under(document, patient, status, doubts, plain, spoiled=order.spoiled)
    for row in rows:
        if not row.key.startswith("fallback|"):
            row.key = f"{sender}|{row.key}"
    return rows


def under(
    document: Document,
    patient: tuple[PatientIdentifier, ...],
    status: ResultStatus,
    doubts: tuple[str, ...],
    plain: list[Row],
    *,
    spoiled: str = "",
) -> list[Row]:
    """The document's rows under the patient and the status of what carries it."""
    if document.doubts or _contradicts(document.identifiers, patient):
        doubts = (*doubts, "identity-conflict")
    beside = {row.stamp.at: row.group for row in plain if row.stamp.at is not None}
    found = []
    for row in document.rows:
        own = (id(document), row.group)
        group = beside.get(row.stamp.at, own) if row.stamp.at is not None else own
        together = _together(status, row.status)
        found.append(
            replace(row, status=together, doubts=(*row.doubts, *doubts), group=group, spoiled=row.spoiled or spoiled)
        )
    return found


def _together(envelope: ResultStatus, own: ResultStatus) -> ResultStatus:
    """The status of an observation inside a document: what takes back wins, then doubt, then correction."""
    if envelope.withdrawn:
        return envelope
    for status in (ResultStatus.ENTERED_IN_ERROR, ResultStatus.CANCELLED):
        if own is status:
            return own
    for status in (ResultStatus.PRELIMINARY, ResultStatus.CORRECTED):
        if status in (envelope, own):
            return status
    return ResultStatus.FINAL


def _contradicts(document: tuple[PatientIdentifier, ...], message: tuple[PatientIdentifier, ...]) -> bool:
    """Two numbers of one authority: the document is about somebody else than the message."""
    theirs = {i.authority: i.value for i in document if i.authority}
    return any(i.authority in theirs and theirs[i.authority] != i.value for i in message)
