"""Reads FHIR JSON (a resource or a Bundle; STU3, R4, R4B) into results, or into the reasons why not.

Rule of the file: every Observation, contained ones and components included, leaves an entry in the ledger; the decimals are
those of the document, digit by digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from ingest.reading import fhirtypes as t
from ingest.reading.assembly import Assembly, assemble
from ingest.reading.documents import under
from ingest.reading.fhirdocuments import documents_of
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, NotFhir, decode, has_duplicate_keys, lay_out, subject_of
from ingest.reading.fhirparts import (
    codings_of,
    decoded_specimen,
    doubts_of_notes,
    has_value,
    is_test,
    key_of,
    number_in,
    order_in,
    range_in,
    recognise_code,
    specimen_kind,
    spoiled_by,
    status_of,
    unit_in,
)
from ingest.reading.fhirregister import register_facts
from ingest.reading.fhirtasks import replies_in
from ingest.reading.fhirtold import in_words, unsaid
from ingest.reading.outcome import LedgerEntry, Problem, Reading
from ingest.reading.patients import is_ins_by_oid_alone, is_test_identity
from ingest.reading.recognition import Recognition
from ingest.reading.rows import Row
from ingest.reading.site import Site
from ingest.reading.times import Stamp, stamp_of
from rules.model import PatientIdentifier

__all__ = ["read_fhir"]

_HINT = re.compile(
    rb"neutro|\bPNN\b|\bNEUT?\b|751-8|26499-4|753-4|770-8|26511-6|23761-0|71676-1|30451-9", re.IGNORECASE
)
_DOUBTFUL = re.compile(rb'"code"\s*:\s*"(?:DOUT|DOUA|DPOT|COLP|COLV|USUR|FICT)"')
_ByPatient = dict[tuple[tuple[PatientIdentifier, ...], tuple[str, ...]], list[Row]]
# ``specimen-in-process`` is R6's.
_AWAITED = ("registered", "specimen-in-process", None)
_MOST_COMPONENTS = 500
_NONE: frozenset[int] = frozenset()
_NOT_PATIENTS = ("Group", "Device", "Location", "Substance", "Procedure", "Organization", "Medication")


def read_fhir(raw: bytes, *, zone: ZoneInfo | None = None, site: Site | None = None) -> Reading:
    """One payload. Never raises for any bytes; what is no FHIR JSON is set aside."""
    body = raw.strip(b"\xef\xbb\xbf \t\r\n")
    if body[:1] == b"<":
        return _set_aside(NotFhir("xml-not-read", "$", "$: FHIR XML is not read"))
    index = lay_out(body)
    if isinstance(index, NotFhir):
        return _set_aside(index)
    if index.bundle is not None and index.malformed and not index.items:
        return _set_aside(NotFhir("not-fhir", index.malformed[0], f"{index.malformed[0]}: not a FHIR resource"))
    return _Reader(index, zone, site).read()


def _set_aside(why: NotFhir) -> Reading:
    return Reading(format="fhir", disposition="set_aside", problems=(Problem(why.code, why.where, why.text),))


class _Around(NamedTuple):
    """What an Observation says for all of its components. ``reference``: to its specimen."""

    report: t.DiagnosticReport | None
    specimen: Literal["blood", "fluid", "unknown"]
    spoiled: str
    doubts: tuple[str, ...]
    stamp: Stamp
    reference: str


class _Reader:
    """One payload's way to a Reading; holds what the resources share."""

    __slots__ = (
        "control_id",
        "doubtful",
        "identifiers",
        "index",
        "kind",
        "out",
        "pending",
        "production",
        "reports",
        "sender",
        "site",
        "zone",
    )

    def __init__(self, index: Index, zone: ZoneInfo | None, site: Site | None) -> None:
        self.index, self.zone, self.site = index, zone, site
        self.out = Assembly()
        self.doubtful: dict[int, bool] = {}
        self.reports: dict[int, tuple[t.DiagnosticReport, Item]] = {}
        self.sender = ""
        self.production = True
        self.identifiers: dict[PatientIdentifier, None] = {}
        self.pending: list[tuple[PatientIdentifier, ...]] = []
        bundle = index.bundle
        self.kind = f"Bundle/{bundle.type}" if bundle and bundle.type else "Bundle" if bundle else index.items[-1].kind
        self.control_id = _control_id(bundle) if bundle else index.items[-1].id
        self._look_around(bundle.meta if bundle else None)

    def read(self) -> Reading:
        by_patient: _ByPatient = {}
        outdated = _outdated(self.index) if len(self.index.items) > 1 else _NONE
        for item in self.index.items:
            if id(item) in outdated:
                self._not_relevant(item.where, "older-version")
            elif item.kind == "Observation":
                for known, doubts, row in self._rows(item):
                    by_patient.setdefault((known, doubts), []).append(row)
        alone = len(self.index.items) == 1 and self.index.items[0].kind == "Observation"
        unread = [] if alone else self._documents(by_patient)
        for (known, doubts), rows in by_patient.items():
            if self.site is not None:
                known, rows = self.site.named(known), [self.site.applied(row) for row in rows]
            self._note(known)
            if not self.production:
                doubts = (*doubts, "test-message")
            assemble(rows, known, doubts, self.out)
        if not alone or not self.out.results:
            self._settle_words(unread, alone=alone)
        facts = () if alone else tuple(register_facts(self.index))
        replies = () if alone else tuple(replies_in(self.index))
        disposition: Literal["results", "unassessable", "not_relevant"] = (
            "results" if self.out.results else "unassessable" if self.out.problems else "not_relevant"
        )
        if self.index.malformed:
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
            register=facts,
            replies=replies,
            pending=tuple(self.pending),
            production=self.production,
        )

    def _look_around(self, meta: t.Meta | None) -> None:
        if is_test(meta):
            self.production = False
        for item in self.index.items:
            try:
                if item.kind == "MessageHeader":
                    header = decode(item.raw, t.MessageHeader)
                    source = header.source or t.Source()
                    self.sender = source.endpoint or source.endpointUrl or source.name or ""
                    self.control_id = self.control_id or header.id or ""
                    if is_test(header.meta):
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
        self.identifiers |= dict.fromkeys(known)

    def _rows(self, item: Item) -> Iterator[tuple[tuple[PatientIdentifier, ...], tuple[str, ...], Row]]:
        try:
            observation = decode(item.raw, t.Observation)
        except UNDECODABLE:
            self._unreadable(item, "structure", "not the shape of an Observation")
            return
        parts: list[tuple[str, t.Component]] = [(item.where, observation)]
        if len(observation.component) > _MOST_COMPONENTS:
            self._unreadable(item, "structure", "more components than any panel has")
            return
        if observation.component:
            parts += [(f"{item.where}.component[{n}]", c) for n, c in enumerate(observation.component)]
        relevant: list[tuple[str, t.Component, Recognition]] = []
        for where, part in parts:
            recognition = recognise_code(part.code)
            if self.site is not None:
                recognition = self.site.recognised(codings_of(part.code), recognition)
            if part is observation and observation.component and not has_value(part):
                self._not_relevant(where, "panel")
            elif recognition.claim is None:
                self._not_relevant(where, recognition.reason)
            elif observation.status in _AWAITED and not has_value(part):
                self._not_relevant(where, "pending")
                known, doubts = self._patient(observation, item)
                if known and not doubts and observation.status == "registered":
                    self.pending.append(known)
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
        report = self._report(item) if self.reports or item.parent is not None else None
        specimen_item = self._specimen(observation, report, item)
        specimen = decoded_specimen(specimen_item)
        reference = observation.specimen.reference if observation.specimen is not None else None
        around = _Around(
            report,
            specimen_kind(specimen, observation),
            spoiled_by(specimen, observation, report),
            doubts_of_notes(observation, report),
            self._collected(observation, specimen, report),
            reference or (specimen_item.where if specimen_item is not None else ""),
        )
        for where, part, recognition in relevant:
            yield known, doubts, self._row(where, part, recognition, observation, item, around)

    def _not_relevant(self, where: str, reason: str) -> None:
        self.out.ledger.append(LedgerEntry(where, "not_relevant", reason))

    def _unreadable(self, item: Item, code: str, words: str, places: list[str] | None = None) -> None:
        if not _HINT.search(item.raw):
            for where in places or [item.where]:
                self._not_relevant(where, code)
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
        if subject is None and (report := self._report(item)) is not None:
            subject = report.subject
        if subject is not None and (subject.reference or subject.type) and _is_no_patient(subject):
            return None, ()
        known, patient = subject_of(self.index, subject, item)
        return known, self._doubts(known, patient)

    def _doubts(self, known: tuple[PatientIdentifier, ...], patient: Item | None) -> tuple[str, ...]:
        doubts: list[str] = []
        if not known:
            doubts.append("patient-missing")
        if self.production and is_test_identity(known):
            doubts.append("test-identity")
        if is_ins_by_oid_alone(known) or (patient is not None and self._is_doubtful(patient)):
            doubts.append("identity-doubtful")
        return tuple(doubts)

    def _is_doubtful(self, patient: Item) -> bool:
        found = self.doubtful.get(id(patient))
        if found is None:
            found = b"identity-reliability" in patient.raw and _DOUBTFUL.search(patient.raw) is not None
            self.doubtful[id(patient)] = found
        return found

    def _report(self, item: Item) -> t.DiagnosticReport | None:
        found = self.reports.get(id(item))
        if found is not None:
            return found[0]
        if item.parent is not None and item.parent.kind == "DiagnosticReport":
            try:
                return item.parent.decoded(t.DiagnosticReport)
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
        around: _Around,
    ) -> Row:
        number, sent, value_member = number_in(part)
        unit_sent, unit, conflict = unit_in(part.valueQuantity)
        status, doubts = status_of(observation, part, around.report)
        doubts += around.doubts
        stamp = around.stamp
        low, high = range_in(part, unit) if part.referenceRange else (None, None)
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
            specimen=around.specimen,
            spoiled=around.spoiled,
            range_low=low,
            range_high=high,
            stamp=stamp,
            issued=stamp_of(observation.issued, self.zone) if observation.issued else Stamp(None),
            key=key_of(observation, item, recognition.coding.code, where),
            order=order_in(observation, around.report, self.index, item),
            group=(around.reference, stamp.at) if stamp.at is not None else id(item),
        )

    def _specimen(self, observation: t.Observation, report: t.DiagnosticReport | None, item: Item) -> Item | None:
        if observation.specimen is None and report is None:
            return None
        references = [observation.specimen] if observation.specimen else []
        if not references and report is not None and len(report.specimen) == 1:
            references = list(report.specimen)
        for reference in references:
            target = self.index.find(reference.reference, item) if reference.reference else None
            if target is not None and target.kind == "Specimen":
                return target
        return None

    def _collected(
        self, observation: t.Observation, specimen: t.Specimen | None, report: t.DiagnosticReport | None
    ) -> Stamp:
        """effective[x], else the specimen's collection, else the report's own effective[x]; never issued."""
        if observation.effectiveDateTime:
            return stamp_of(observation.effectiveDateTime, self.zone)
        period = observation.effectivePeriod or t.Period()
        collection = (specimen.collection if specimen else None) or t.Collection()
        text = (
            observation.effectiveInstant
            or period.start
            or period.end
            or _only_event(observation.effectiveTiming)
            or collection.collectedDateTime
            or (collection.collectedPeriod or t.Period()).start
            or (report.effectiveDateTime if report else None)
            or ((report.effectivePeriod or t.Period()).start if report else None)
        )
        return stamp_of(text, self.zone) if text else Stamp(None, True, ("collection-time-missing",))

    def _documents(self, by_patient: _ByPatient) -> list[Problem]:
        """Reads what reports carry as documents; returns why the others are for a person, should no count be found."""
        problems: list[Problem] = []
        for carried in documents_of(self.index):
            known, patient = subject_of(self.index, carried.subject, carried.item)
            fault: tuple[str, str] | None = carried.fault
            for document in carried.read(self.zone, self.site):
                if isinstance(document, tuple):
                    fault = document
                    continue
                fault = document.unread
                self.out.ledger += document.ledger
                whose = known or document.identifiers
                beside = by_patient.setdefault((whose, self._doubts(whose, patient)), [])
                beside += under(document, whose, carried.status, carried.doubts, beside)
                break
            if fault is not None and carried.laboratory:
                self._note(known)
                code, words = fault
                problems.append(Problem(code, carried.where, f"{carried.where}: {words}", known))
        return problems

    def _settle_words(self, unread: list[Problem], *, alone: bool) -> None:
        """Documents that were not read, counts that are there in words only, or are only spoken of: for a person.

        Each where nothing was read or refused of the same patient: one's count says nothing of another's document.
        """
        known = {i for result in self.out.results for i in result.identifiers}
        for problem in unread:
            if known.isdisjoint(problem.identifiers) and (problem.identifiers or not self.out.results):
                self.out.problems.append(problem)
                self.out.ledger.append(LedgerEntry(problem.where, "unassessable", problem.code))
        known.update(i for problem in self.out.problems for i in problem.identifiers)
        anything = bool(self.out.results or self.out.problems)
        told = [] if alone else list(unsaid(self.index))
        for one in in_words(self.index, self._report):
            whose = self._whose(one.item)
            if known.isdisjoint(whose) and (whose or not anything):
                told.append(one)
        entries = {where: LedgerEntry(where, "unassessable", code) for _, where, code, _ in told}
        if entries:
            self.out.ledger = [one for one in self.out.ledger if one.where not in entries]
            self.out.ledger += entries.values()
        for item, where, code, words in told:
            whose = self._whose(item)
            self._note(whose)
            self.out.problems.append(Problem(code, where, f"{where}: {words}", whose))

    def _malformed(self) -> None:
        for where in dict.fromkeys(self.index.malformed):
            self.out.problems.append(Problem("structure", where, f"{where}: not a FHIR resource"))


def _is_no_patient(subject: t.Reference) -> bool:
    """A group, a device, a place: by the reference's own type, else by the type that it names."""
    kind = subject.type or "/".join((subject.reference or "").rsplit("/", 2)[-2:]).partition("/")[0]
    return kind in _NOT_PATIENTS


def _only_event(timing: t.Timing | None) -> str | None:
    """The moment of a timing that names one."""
    events = timing.event if timing is not None else []
    return events[0] if len(events) == 1 else None


class _OnlySubject(Struct, frozen=True):
    subject: t.Reference | None = None


def _control_id(bundle: t.Bundle) -> str:
    identifier = (
        bundle.identifier[0] if isinstance(bundle.identifier, list) and bundle.identifier else bundle.identifier
    )
    value = identifier.value if isinstance(identifier, t.Identifier) else None
    return value or bundle.id or ""


def _outdated(index: Index) -> set[int]:
    """The older versions of Observations of which a payload (a history, a notification) holds several."""
    versions: dict[str, list[Item]] = {}
    for item in index.items:
        if item.kind == "Observation" and item.id and item.parent is None:
            versions.setdefault(item.full_url.split("/_history/", 1)[0] or item.id, []).append(item)
    return {id(item) for several in versions.values() if len(several) > 1 for item in _but_the_newest(several, index)}


def _but_the_newest(several: list[Item], index: Index) -> list[Item]:
    """By versionId or lastUpdated; where neither says it, a history begins with the newest (FHIR R4, http.html#history)."""
    ages: list[tuple[str, int]] = []
    for item in several:
        try:
            meta = decode(item.raw, _OnlyMeta).meta or t.Meta()
        except UNDECODABLE:
            return []
        number = int(meta.versionId) if meta.versionId and meta.versionId.isascii() and meta.versionId.isdigit() else -1
        ages.append((meta.lastUpdated or "", number))
    if len({number for _, number in ages}) == len(several):
        newest = max(range(len(several)), key=lambda n: ages[n][1])
    elif len({at for at, _ in ages}) == len(several):
        newest = max(range(len(several)), key=lambda n: ages[n][0])
    elif index.bundle is not None and index.bundle.type == "history":
        newest = 0
    else:
        return []
    return [item for n, item in enumerate(several) if n != newest]


class _OnlyMeta(Struct, frozen=True):
    meta: t.Meta | None = None
