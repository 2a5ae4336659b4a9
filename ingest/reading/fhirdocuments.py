"""What FHIR carries as documents: presentedForm of a report, content of a DocumentReference, the Binary behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ingest.reading import fhirtypes as t
from ingest.reading.cda import Document
from ingest.reading.documents import cda_in, unpacked
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, decode
from ingest.reading.fhirparts import STATUS, codings_of, recognise_code
from ingest.reading.panels import is_blood_count, is_laboratory_document
from ingest.reading.site import Site
from rules.model import ResultStatus

__all__ = ["Carried", "documents_of"]

_UNREAD = "document-not-read", "a laboratory report as a document"


@dataclass(frozen=True, slots=True)
class Carried:
    """The documents of one resource. ``laboratory``: a blood count may be in them."""

    item: Item
    where: str
    subject: t.Reference | None
    laboratory: bool
    status: ResultStatus
    doubts: tuple[str, ...]
    attachments: tuple[bytes | None, ...]
    fault: tuple[str, str] = _UNREAD

    def read(self, zone: ZoneInfo | None, site: Site | None) -> Iterator[Document | tuple[str, str]]:
        """Each attachment as a CDA, or as ``(code, words)``."""
        for number, raw in enumerate(self.attachments):
            if raw is None:
                yield "document-undecodable", "a laboratory report that does not decode"
            elif raw:
                yield cda_in(raw, zone, site, f"{self.where}[{number}]/", laboratory=self.laboratory)


def documents_of(index: Index) -> Iterator[Carried]:
    """Reports whose results are nowhere but in a document, and document references."""
    for item in index.items:
        try:
            if item.kind == "DiagnosticReport":
                report = decode(item.raw, t.DiagnosticReport)
                if report.presentedForm and not _structured(report, item, index):
                    forms = report.presentedForm
                    yield _carried(index, item, "presentedForm", report.code, report.subject, report.status, forms)
            elif item.kind == "DocumentReference":
                document = decode(item.raw, t.DocumentReference)
                forms = [c.attachment for c in document.content if c.attachment]
                if forms and document.status not in ("entered-in-error", "superseded"):
                    yield _carried(index, item, "content", document.type, document.subject, "final", forms)
        except UNDECODABLE:
            continue


def _structured(report: t.DiagnosticReport, item: Item, index: Index) -> bool:
    """Do its results stand in the payload? Of a blood count, its neutrophils: haemoglobin leaves them to the document."""
    found = [target for r in report.result if r.reference and (target := index.find(r.reference, item))]
    codings, text = codings_of(report.code), (report.code.text or "") if report.code else ""
    if not found or not is_blood_count(codings, text):
        return bool(found)
    return any(_measures_neutrophils(target) for target in found)


def _measures_neutrophils(target: Item) -> bool:
    try:
        observation = decode(target.raw, t.Observation)
    except UNDECODABLE:
        return True
    codes = (observation.code, *(part.code for part in observation.component))
    return any(recognise_code(code).measures_neutrophils for code in codes)


def _carried(
    index: Index,
    item: Item,
    member: str,
    code: t.CodeableConcept | None,
    subject: t.Reference | None,
    status: str | None,
    forms: list[t.Attachment],
) -> Carried:
    codings, text = codings_of(code), (code.text or "") if code else ""
    known = ResultStatus.PRELIMINARY if status == "partial" else STATUS.get(status or "")
    return Carried(
        item=item,
        where=f"{item.where}.{member}",
        subject=subject,
        laboratory=is_laboratory_document(codings, text) or is_blood_count(codings, text),
        status=known or ResultStatus.PRELIMINARY,
        doubts=() if known else ("status-unknown" if status else "status-missing",),
        attachments=tuple(_bytes_of(index, item, form) for form in forms),
    )


def _bytes_of(index: Index, item: Item, form: t.Attachment) -> bytes | None:
    """The attachment's own bytes, or those of the Binary that it points to; b"" when they are elsewhere."""
    data = form.data
    if not data and form.url:
        target = index.find(form.url, item)
        if target is not None and target.kind == "Binary":
            try:
                data = decode(target.raw, t.Binary).data
            except UNDECODABLE:
                return None
    return unpacked(data) if data else b""
