"""Reads FHIR JSON (a resource or a Bundle; STU3, R4, R4B) into results, or into the reasons why not.

Rule of the file: every Observation, contained ones and components included, leaves an entry in the ledger; the decimals are
those of the document, digit by digit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from ingest.reading import fhirtypes as t
from ingest.reading.assembly import Assembly, assemble
from ingest.reading.codes import Coding, Recognition, is_blood_count, is_laboratory_document, recognise, specimen_of
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, NotFhir, decode, has_duplicate_keys, lay_out, subject_of
from ingest.reading.fhirregister import register_facts
from ingest.reading.outcome import LedgerEntry, Problem, Reading
from ingest.reading.patients import is_test_identity
from ingest.reading.rows import Row
from ingest.reading.times import Stamp, stamp_of
from ingest.reading.units import Unit, unit_of
from ingest.reading.values import Number, Refusal, number_of, number_of_json
from rules.model import Comparator, OrderReference, PatientIdentifier, ResultStatus

__all__ = ["read_fhir"]

_STATUS = {
    "registered": ResultStatus.PRELIMINARY,
    "preliminary": ResultStatus.PRELIMINARY,
    "final": ResultStatus.FINAL,
    "appended": ResultStatus.FINAL,
    "amended": ResultStatus.CORRECTED,
    "corrected": ResultStatus.CORRECTED,
    "cancelled": ResultStatus.CANCELLED,
    "entered-in-error": ResultStatus.ENTERED_IN_ERROR,
}
_COMPARATORS: dict[str, Comparator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_HINT = re.compile(
    rb"neutro|\bPNN\b|\bNEUT?\b|751-8|26499-4|753-4|770-8|26511-6|23761-0|71676-1|30451-9", re.IGNORECASE
)
_DIRECTIONS = frozenset(("L", "LL", "H", "HH", "N", "<", ">"))
_DOUBTFUL = re.compile(rb'"code"\s*:\s*"(?:DOUT|DOUA|DPOT|COLP|COLV|USUR|FICT)"')
_NOT_PATIENTS = ("Group/", "Device/", "Location/")


def read_fhir(raw: bytes, *, zone: ZoneInfo | None = None) -> Reading:
    """One payload. Never raises for any bytes; what is no FHIR JSON is set aside."""
    body = raw.strip(b"\xef\xbb\xbf \t\r\n")
    if body[:1] == b"<":
        return _set_aside(NotFhir("xml-not-read", "$", "$: FHIR XML is not read"))
    index = lay_out(body)
    if isinstance(index, NotFhir):
        return _set_aside(index)
    if index.bundle is not None and index.malformed and not index.items:
        return _set_aside(NotFhir("not-fhir", index.malformed[0], f"{index.malformed[0]}: not a FHIR resource"))
    return _Reader(index, zone).read()


def _set_aside(why: NotFhir) -> Reading:
    return Reading(format="fhir", disposition="set_aside", problems=(Problem(why.code, why.where, why.text),))


class _Reader:
    """One payload's way to a Reading; holds what the resources share."""

    __slots__ = ("control_id", "identifiers", "index", "kind", "out", "production", "reports", "sender", "zone")

    def __init__(self, index: Index, zone: ZoneInfo | None) -> None:
        self.index, self.zone = index, zone
        self.out = Assembly()
        self.reports: dict[int, tuple[t.DiagnosticReport, Item]] = {}
        self.sender = ""
        self.production = True
        self.identifiers: list[PatientIdentifier] = []
        bundle = index.bundle
        self.kind = f"Bundle/{bundle.type}" if bundle and bundle.type else "Bundle" if bundle else index.items[-1].kind
        self.control_id = _control_id(bundle) if bundle else index.items[-1].id
        self._look_around(bundle.meta if bundle else None)

    def read(self) -> Reading:
        by_patient: dict[tuple[tuple[PatientIdentifier, ...], tuple[str, ...]], list[Row]] = {}
        for item in self.index.items:
            if item.kind == "Observation":
                for known, doubts, row in self._rows(item):
                    by_patient.setdefault((known, doubts), []).append(row)
        for (known, doubts), rows in by_patient.items():
            self._note(known)
            if not self.production:
                doubts = (*doubts, "test-message")
            assemble(rows, known, doubts, self.out)
        self._documents()
        facts = list(register_facts(self.index))
        disposition: Literal["results", "unassessable", "not_relevant"] = (
            "results" if self.out.results else "unassessable" if self.out.problems else "not_relevant"
        )
        self._malformed()
        return Reading(
            format="fhir",
            disposition=disposition,
            control_id=self.control_id,
            sender=self.sender,
            message_type=self.kind,
            results=tuple(self.out.results),
            problems=tuple(self.out.problems),
            ledger=tuple(self.out.ledger),
            identifiers=tuple(self.identifiers),
            register=tuple(facts),
            production=self.production,
        )

    def _look_around(self, meta: t.Meta | None) -> None:
        if _is_test(meta):
            self.production = False
        for item in self.index.items:
            try:
                if item.kind == "MessageHeader":
                    header = decode(item.raw, t.MessageHeader)
                    source = header.source or t.Source()
                    self.sender = source.endpoint or source.name or ""
                    self.control_id = self.control_id or header.id or ""
                    if _is_test(header.meta):
                        self.production = False
                elif item.kind == "DiagnosticReport":
                    report = decode(item.raw, t.DiagnosticReport)
                    for reference in report.result:
                        target = self.index.find(reference.reference, item) if reference.reference else None
                        if target is not None:
                            self.reports.setdefault(id(target), (report, item))
            except UNDECODABLE:
                self.index.malformed.append(item.where)

    def _note(self, known: tuple[PatientIdentifier, ...]) -> None:
        self.identifiers += [i for i in known if i not in self.identifiers]

    def _rows(self, item: Item) -> Iterator[tuple[tuple[PatientIdentifier, ...], tuple[str, ...], Row]]:
        try:
            observation = decode(item.raw, t.Observation)
        except UNDECODABLE:
            self._unreadable(item, "structure", "not the shape of an Observation")
            return
        parts: list[tuple[str, t.Component]] = [(item.where, observation)]
        parts += [(f"{item.where}.component[{n}]", c) for n, c in enumerate(observation.component)]
        relevant: list[tuple[str, t.Component, Recognition]] = []
        for where, part in parts:
            recognition = _recognise(part.code)
            if part is observation and observation.component and not _has_value(part):
                self._not_relevant(where, "panel")
            elif recognition.claim is None:
                self._not_relevant(where, recognition.reason)
            elif observation.status in ("registered", None) and not _has_value(part):
                self._not_relevant(where, "pending")
            else:
                relevant.append((where, part, recognition))
        if not relevant:
            return
        if has_duplicate_keys(item.raw):
            self._unreadable(item, "duplicate-key", "a JSON object names one member twice", [w for w, _, _ in relevant])
            return
        known, doubts = self._patient(observation, item)
        if known is None:
            for where, _, _ in relevant:
                self._not_relevant(where, "subject-not-a-patient")
            return
        for where, part, recognition in relevant:
            yield known, doubts, self._row(where, part, recognition, observation, item, known)

    def _not_relevant(self, where: str, reason: str) -> None:
        self.out.ledger.append(LedgerEntry(where, "not_relevant", reason))

    def _unreadable(self, item: Item, code: str, words: str, places: list[str] | None = None) -> None:
        if not _HINT.search(item.raw):
            self._not_relevant(item.where, code)
            return
        for where in places or [item.where]:
            self.out.ledger.append(LedgerEntry(where, "unassessable", code))
        self.out.problems.append(Problem(code, item.where, f"{item.where}: {words}", self._whose(item)))

    def _whose(self, item: Item) -> tuple[PatientIdentifier, ...]:
        """The patient of a resource whose other members could not be read."""
        try:
            subject = decode(item.raw, _OnlySubject).subject
        except UNDECODABLE:
            return ()
        return subject_of(self.index, subject, item)[0]

    def _patient(
        self, observation: t.Observation, item: Item
    ) -> tuple[tuple[PatientIdentifier, ...] | None, tuple[str, ...]]:
        subject = observation.subject
        report = self._report(item)
        if subject is None and report is not None:
            subject = report.subject
        if subject is not None and (subject.reference or "").startswith(_NOT_PATIENTS):
            return None, ()
        known, patient = subject_of(self.index, subject, item)
        doubts: list[str] = []
        if not known:
            doubts.append("patient-missing")
        if self.production and is_test_identity(known):
            doubts.append("test-identity")
        if patient is not None and b"identity-reliability" in patient.raw and _DOUBTFUL.search(patient.raw):
            doubts.append("identity-doubtful")
        return known, tuple(doubts)

    def _report(self, item: Item) -> t.DiagnosticReport | None:
        found = self.reports.get(id(item))
        if found is not None:
            return found[0]
        if item.parent is not None and item.parent.kind == "DiagnosticReport":
            try:
                return decode(item.parent.raw, t.DiagnosticReport)
            except UNDECODABLE:
                return None
        return None

    def _row(
        self,
        where: str,
        part: t.Component,
        recognition: Recognition,
        observation: t.Observation,
        item: Item,
        known: tuple[PatientIdentifier, ...],
    ) -> Row:
        report = self._report(item)
        number, sent, value_member = _number(part)
        unit_sent, unit, conflict = _unit(part.valueQuantity)
        status, doubts = _status(observation, part, report)
        specimen_item = self._specimen(observation, report, item)
        specimen = _decoded_specimen(specimen_item)
        stamp = self._collected(observation, specimen)
        low, high = _range(part, observation)
        reference = (observation.specimen or t.Reference()).reference or (specimen_item.where if specimen_item else "")
        return Row(
            where=where,
            recognition=recognition,
            number=number,
            value_sent=sent,
            value_where=f"{where}.{value_member}",
            unit=unit,
            unit_sent=unit_sent,
            unit_where=f"{where}.{value_member}",
            unit_conflict=conflict,
            status=status,
            doubts=doubts,
            specimen=_specimen_kind(specimen, observation),
            spoiled=_spoiled(specimen),
            range_low=low,
            range_high=high,
            stamp=stamp,
            issued=stamp_of(observation.issued, self.zone) if observation.issued else Stamp(None),
            key=_key(observation, item, recognition.coding.code, where),
            order=_order(observation, report),
            group=(reference, stamp.at) if stamp.at is not None else id(item),
        )

    def _specimen(self, observation: t.Observation, report: t.DiagnosticReport | None, item: Item) -> Item | None:
        references = [observation.specimen] if observation.specimen else []
        if not references and report is not None and len(report.specimen) == 1:
            references = list(report.specimen)
        for reference in references:
            target = self.index.find(reference.reference, item) if reference.reference else None
            if target is not None and target.kind == "Specimen":
                return target
        return None

    def _collected(self, observation: t.Observation, specimen: t.Specimen | None) -> Stamp:
        period = observation.effectivePeriod or t.Period()
        collection = (specimen.collection if specimen else None) or t.Collection()
        text = (
            observation.effectiveDateTime
            or observation.effectiveInstant
            or period.start
            or collection.collectedDateTime
            or (collection.collectedPeriod or t.Period()).start
        )
        return stamp_of(text, self.zone) if text else Stamp(None, True, ("collection-time-missing",))

    def _documents(self) -> None:
        """A laboratory report whose blood count is only in its presentedForm."""
        if self.out.results:
            return
        for item in self.index.items:
            if item.kind != "DiagnosticReport":
                continue
            try:
                report = decode(item.raw, t.DiagnosticReport)
            except UNDECODABLE:
                continue
            codings = _codings(report.code)
            if (
                report.presentedForm
                and not report.result
                and (is_laboratory_document(codings) or is_blood_count(codings))
            ):
                where = f"{item.where}.presentedForm"
                known = subject_of(self.index, report.subject, item)[0]
                self._note(known)
                self.out.problems.append(
                    Problem("document-not-read", where, f"{where}: a laboratory report as a document", known)
                )

    def _malformed(self) -> None:
        for where in dict.fromkeys(self.index.malformed):
            self.out.problems.append(Problem("structure", where, f"{where}: not a FHIR resource"))


class _OnlySubject(Struct, frozen=True):
    subject: t.Reference | None = None


def _control_id(bundle: t.Bundle) -> str:
    identifier = (
        bundle.identifier[0] if isinstance(bundle.identifier, list) and bundle.identifier else bundle.identifier
    )
    value = identifier.value if isinstance(identifier, t.Identifier) else None
    return value or bundle.id or ""


def _is_test(meta: t.Meta | None) -> bool:
    if meta is None:
        return False
    tagged = any(c.code in ("T", "D") and (c.system or "").endswith("v2-0103") for c in meta.tag)
    return tagged or any(c.code == "HTEST" for c in (*meta.security, *meta.tag))


def _codings(code: t.CodeableConcept | None) -> tuple[Coding, ...]:
    if code is None:
        return ()
    return tuple(Coding(c.code or "", c.display or "", c.system or "") for c in code.coding)


def _recognise(code: t.CodeableConcept | None) -> Recognition:
    return recognise(_codings(code), (code.text or "") if code else "")


def _has_value(part: t.Component) -> bool:
    others = (part.valueInteger, part.valueCodeableConcept, part.valueRange, part.valueRatio, part.valueBoolean)
    more = (part.valueSampledData, part.valueAttachment)
    quantity = part.valueQuantity is not None and t.present(part.valueQuantity.value)
    return quantity or part.valueString is not None or any(t.present(v) for v in (*others, *more))


def _number(part: t.Component) -> tuple[Number | Refusal, str, str]:
    """``(number or refusal, as sent, member)``."""
    quantity = part.valueQuantity
    if quantity is not None and t.present(quantity.value):
        token = bytes(quantity.value).decode("utf-8", "replace")
        number = number_of_json(token)
        sent = f"{quantity.comparator or ''}{token[:40]}"
        if isinstance(number, Number) and quantity.comparator:
            comparator = _COMPARATORS.get(quantity.comparator)
            if comparator is None:
                return Refusal("value-comparator", "unknown comparator"), sent, "valueQuantity"
            number = number._replace(comparator=comparator)
        return number, sent, "valueQuantity"
    if part.valueString is not None:
        return number_of(part.valueString), part.valueString[:200], "valueString"
    if t.present(part.valueInteger):
        token = bytes(part.valueInteger).decode("utf-8", "replace")
        return number_of_json(token), token[:40], "valueInteger"
    if part.dataAbsentReason is not None:
        return Refusal("value-absent", "the laboratory gives a reason in place of a value"), "", "dataAbsentReason"
    if _has_value(part):
        return Refusal("value-type", "a value type that holds no count"), "", "value"
    return Refusal("value-missing", "no value"), "", "value"


@lru_cache(maxsize=1024)
def _unit_of_quantity(code: str, system: str, text: str) -> tuple[str, Unit | None, bool]:
    by_code, by_text = unit_of(code), unit_of(text)
    sent = code or text
    if by_code is not None and by_text is not None and by_code != by_text:
        return sent, None, True
    if by_code is None and code and ("unitsofmeasure" in system or by_text is None):
        return sent, None, False
    return sent, by_code or by_text, False


def _unit(quantity: t.Quantity | None) -> tuple[str, Unit | None, bool]:
    if quantity is None:
        return "", None, False
    return _unit_of_quantity(quantity.code or "", quantity.system or "", quantity.unit or "")


def _status(
    observation: t.Observation, part: t.Component, report: t.DiagnosticReport | None
) -> tuple[ResultStatus, tuple[str, ...]]:
    status = _STATUS.get(observation.status or "")
    if status is None:
        return ResultStatus.PRELIMINARY, ("status-unknown" if observation.status else "status-missing",)
    doubts: list[str] = []
    if status is ResultStatus.PRELIMINARY:
        doubts.append("status-preliminary")
    if report is not None and report.status in ("cancelled", "entered-in-error") and not status.withdrawn:
        doubts.append("status-conflict")
    if t.present(observation.modifierExtension):
        doubts.append("modifier-extension")
    if _is_test(observation.meta):
        doubts.append("test-message")
    given = part.interpretation or observation.interpretation or []
    said = {c.code for i in (given if isinstance(given, list) else [given]) for c in i.coding}
    if "A" in said and said & _DIRECTIONS:
        doubts.append("analyser-suspect")
    return status, tuple(doubts)


def _decoded_specimen(item: Item | None) -> t.Specimen | None:
    if item is None:
        return None
    try:
        return decode(item.raw, t.Specimen)
    except UNDECODABLE:
        return None


def _specimen_kind(specimen: t.Specimen | None, observation: t.Observation) -> Literal["blood", "fluid", "unknown"]:
    concept = specimen.type if specimen else None
    display = (observation.specimen.display or "") if observation.specimen else ""
    codes = tuple(c.code or "" for c in concept.coding) if concept else ()
    names = (*(c.display or "" for c in concept.coding), concept.text or "") if concept else ()
    return specimen_of(codes, (*names, display))


def _spoiled(specimen: t.Specimen | None) -> str:
    if specimen is None:
        return ""
    words = " ".join(
        text for c in specimen.condition for text in (c.text or "", *(f"{g.code} {g.display}" for g in c.coding))
    ).upper()
    if "CLOT" in words or "COAGUL" in words:
        return "specimen-clotted"
    return "specimen-rejected" if specimen.status in ("unsatisfactory", "entered-in-error") else ""


def _range(part: t.Component, observation: t.Observation) -> tuple[Decimal | None, Decimal | None]:
    """The one reference range, where it is in the value's own unit."""
    ranges = part.referenceRange
    if len(ranges) != 1 or part.valueQuantity is None:
        return None, None
    own = part.valueQuantity
    bounds: list[Decimal | None] = []
    for side in (ranges[0].low, ranges[0].high):
        if side is None or not t.present(side.value) or (side.code or side.unit) not in (own.code, own.unit, None):
            bounds.append(None)
            continue
        number = number_of_json(bytes(side.value).decode("utf-8", "replace"))
        bounds.append(number.value if isinstance(number, Number) else None)
    return bounds[0], bounds[1]


def _key(observation: t.Observation, item: Item, code: str, where: str) -> str:
    """Observation.identifier, else the resource's own name, else its content; never its time."""
    component = where[where.rindex(".component[") :] if ".component[" in where else ""
    tail = f"|ANC:{code}{component}"
    for identifier in observation.identifier:
        if identifier.value:
            return f"{identifier.system or ''}|{identifier.value}{tail}"
    if item.id and item.parent is None:
        return f"Observation/{item.id}{tail}"
    if item.full_url:
        return f"{item.full_url}{tail}"
    return f"content:{hashlib.blake2b(item.raw, digest_size=16).hexdigest()}{tail}"


def _order(observation: t.Observation, report: t.DiagnosticReport | None) -> OrderReference:
    found = {"PLAC": "", "FILL": ""}
    for identifier in (*observation.identifier, *(report.identifier if report else ())):
        for coding in identifier.type.coding if identifier.type else ():
            if coding.code in found and not found[coding.code]:
                found[coding.code] = identifier.value or ""
    return OrderReference(placer=found["PLAC"], filler=found["FILL"])
