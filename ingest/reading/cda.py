"""Reads a CDA R2 laboratory report (CR-BIO, XD-LAB) into rows of a blood count, or into the reasons why not.

Rule of the file: an observation counts only where it is reached through components (section, entry, act, organizer). What
hangs on another observation, or on a ``REFR`` relationship, is a result of another day quoted beside today's: it is entered
in the ledger as such and never read (standards.md, finding 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

from ingest.reading.assembly import Assembly, assemble
from ingest.reading.cdaparts import (
    STATUS,
    codings_of,
    interpretation_of,
    number_in,
    range_in,
    status_of,
    time_of,
    unit_in,
)
from ingest.reading.folding import fold
from ingest.reading.names import is_prior, may_speak_of_neutrophils, speaks_of_neutrophils
from ingest.reading.notes import says_aggregated, says_clotted
from ingest.reading.outcome import Disposition, LedgerEntry, Problem, Reading
from ingest.reading.panels import is_blood_count, is_laboratory_document
from ingest.reading.patients import INS, authority_of, is_test_identity
from ingest.reading.recognition import Recognition, recognise
from ingest.reading.rows import Row
from ingest.reading.site import Site
from ingest.reading.specimens import is_of_another_fluid
from ingest.reading.specimens import specimen_of as kind_of_specimen
from ingest.reading.times import Stamp, stamp_of
from ingest.reading.xmltree import NotXml, local_name, tree_of
from rules.model import OrderReference, PatientIdentifier, ResultStatus

__all__ = ["Document", "document_of", "looks_like_cda", "read_cda"]

_ROOT = tuple("ClinicalDocument".encode(codec) for codec in ("ascii", "utf-16-le", "utf-16-be"))
_LONGEST_LINE = 2_000
_LINKS = ("component", "entry", "entryRelationship")


@dataclass(slots=True)
class Document:
    """One CDA, read. ``unread``: why a neutrophil count may be in it and could not be read, as ``(code, words)``."""

    name: str
    identifiers: tuple[PatientIdentifier, ...]
    rows: list[Row] = field(default_factory=list)
    ledger: list[LedgerEntry] = field(default_factory=list)
    unread: tuple[str, str] | None = None
    doubts: tuple[str, ...] = ()
    """About whom it is."""


def looks_like_cda(raw: bytes) -> bool:
    """By the name of its root, in the encodings that XML begins with."""
    head = raw[:65_536]
    return any(name in head for name in _ROOT)


def read_cda(raw: bytes, *, zone: ZoneInfo | None = None, site: Site | None = None) -> Reading:
    """A CDA that came by itself. Never raises for any bytes; what is no CDA, or carries a DTD, is set aside."""
    found = document_of(raw, zone=zone, site=site)
    if isinstance(found, NotXml):
        problem = Problem(found.code, "$", f"$: {found.text}")
        return Reading(format="cda", disposition="set_aside", problems=(problem,))
    if site is not None:
        found = replace(
            found, identifiers=site.named(found.identifiers), rows=[site.applied(row) for row in found.rows]
        )
    out = Assembly(ledger=list(found.ledger))
    doubts = found.doubts if found.identifiers else ("patient-missing",)
    if is_test_identity(found.identifiers):
        doubts = (*doubts, "test-identity")
    assemble(found.rows, found.identifiers, doubts, out)
    if found.unread is not None:
        code, words = found.unread
        out.problems.append(Problem(code, "ClinicalDocument", f"ClinicalDocument: {words}", found.identifiers))
    disposition: Disposition = "results" if out.results else "unassessable" if out.problems else "not_relevant"
    return Reading(
        format="cda",
        disposition=disposition,
        control_id=found.name,
        message_type="ClinicalDocument",
        results=tuple(out.results),
        problems=tuple(out.problems),
        ledger=tuple(out.ledger),
        identifiers=found.identifiers,
    )


def document_of(
    raw: bytes,
    *,
    zone: ZoneInfo | None = None,
    site: Site | None = None,
    prefix: str = "",
    laboratory: bool = False,
) -> Document | NotXml:
    """The rows of a CDA. ``prefix``: the place of the document in its message (``OBX[1]-5/``).

    ``laboratory``: what carries it says that it is a laboratory's report; else the document's own code does.
    """
    root = tree_of(raw)
    if isinstance(root, NotXml):
        return root
    if local_name(root) != "ClinicalDocument":
        return NotXml("xml-not-read", "XML that is no ClinicalDocument")
    return _Reader(root, zone, site, prefix, laboratory=laboratory).read()


@dataclass(slots=True)
class _Around:
    """What the acts, organizers and specimens around an observation say of it."""

    kinds: frozenset[str] = frozenset()
    """Of its specimens, as far as they are known."""
    status: str = ""
    procedure: ET.Element | None = None
    """The one collection that an act describes; None when it describes none or several."""
    holder: int = 0
    clotted: bool = False
    aggregated: bool = False
    elsewhere: bool = False
    """A section, an act or a battery about somebody else than the patient (``subject``): a donor, a mother, an animal."""


class _Reader:
    """One document's way to its rows."""

    def __init__(
        self, root: ET.Element, zone: ZoneInfo | None, site: Site | None, prefix: str, *, laboratory: bool
    ) -> None:
        self.root, self.zone, self.site, self.prefix, self.laboratory = root, zone, site, prefix, laboratory
        self.numbers = {id(element): n for n, element in enumerate(root.iter("observation"), 1)}
        several = len(root.findall("recordTarget")) > 1
        self.document = Document(
            _identity(root.find("id")), _identifiers(root), doubts=("identity-conflict",) if several else ()
        )
        self.chain = _identity(root.find("setId")) or self.document.name
        self.replaces = any(e.get("typeCode") == "RPLC" for e in root.findall("relatedDocument"))
        self.issued = stamp_of(_value(root.find("effectiveTime")), zone)
        self.texts: dict[str, str] | None = None
        self.keys: set[str] = set()

    def read(self) -> Document:
        reached: set[int] = set()
        for observation, around in self._reached(self.root, _Around(), depth=0):
            reached.add(id(observation))
            self._observation(observation, around)
        for element in self.root.iter("observation"):
            if id(element) not in reached:
                self._enter(element, "prior-result")
        if not any(row.recognition.measures_neutrophils for row in self.document.rows):
            self.document.unread = self._unread()
        return self.document

    def _reached(self, parent: ET.Element, around: _Around, depth: int) -> Iterator[tuple[ET.Element, _Around]]:
        """The observations of the body, through components only; the specimen and the status of what holds them."""
        if depth > 40:
            return
        for link in parent:
            if link.tag not in _LINKS or link.get("typeCode") in ("REFR", "RPLC", "SPRT", "XCRPT"):
                continue
            for child in link:
                if child.tag == "observation":
                    yield child, around
                elif child.tag in ("structuredBody", "section", "act", "organizer"):
                    yield from self._reached(child, self._within(child, around), depth + 1)

    def _within(self, holder: ET.Element, around: _Around) -> _Around:
        elsewhere = around.elsewhere or holder.find("subject") is not None
        if holder.tag not in ("act", "organizer"):
            return replace(around, elsewhere=elsewhere)
        procedures = [p for link in holder if link.tag in _LINKS for p in link.findall("procedure")]
        procedure = procedures[0] if len(procedures) == 1 else None if procedures else around.procedure
        acts = [act for link in holder if link.tag in _LINKS for act in link.findall("act")]
        code = holder.find("statusCode")
        said = (code.get("code") or "") if code is not None else ""
        status = STATUS.get(said)
        notes = [note for act in acts if (note := self._text(act))]
        specimens = _specimens(procedures, holder)
        return _Around(
            kinds=_kinds(specimens) if specimens else around.kinds,
            status=said if status is not None and status.withdrawn else around.status,
            procedure=procedure,
            holder=id(procedure) if procedure is not None else id(holder),
            clotted=around.clotted or any(says_clotted(note) for note in notes),
            aggregated=around.aggregated or any(says_aggregated(note) for note in notes),
            elsewhere=elsewhere,
        )

    def _observation(self, observation: ET.Element, around: _Around) -> None:
        codings, text = codings_of(observation.find("code"))
        if not codings and not text:
            text = self._referred(observation.find("code/originalText"))
        recognition = recognise(codings, text)
        if self.site is not None:
            recognition = self.site.recognised(codings, recognition)
        if recognition.claim is None:
            self._enter(observation, recognition.reason)
        elif around.elsewhere or observation.find("subject") is not None:
            self._enter(observation, "subject-not-a-patient")
        elif observation.get("moodCode", "EVN") != "EVN":
            self._enter(observation, "pending")
        elif observation.get("negationInd") == "true":
            self._enter(observation, "not-asked")
        else:
            self.document.rows.append(self._row(observation, recognition, around))

    def _row(self, observation: ET.Element, recognition: Recognition, around: _Around) -> Row:
        where = self._where(observation)
        number, sent = number_in(observation)
        unit_sent, unit, conflict = unit_in(observation)
        status, doubts = status_of(observation, around.status)
        if status is ResultStatus.FINAL and self.replaces:
            status = ResultStatus.CORRECTED
        stamp = self._time(observation, around)
        specimens = _specimens([], observation)
        said = _kinds(specimens) if specimens else around.kinds
        if len(said) > 1:
            doubts = (*doubts, "specimen-ambiguous")
        notes = list(self._own_notes(observation))
        if around.aggregated or any(says_aggregated(note) for note in notes):
            doubts = (*doubts, "specimen-aggregates")
        low, high = range_in(observation, unit)
        place = f"{where}/value"
        return Row(
            where=where,
            recognition=recognition,
            number=number,
            value_sent=sent,
            value_where=place,
            unit=unit,
            unit_sent=unit_sent,
            unit_where=f"{place}/@unit",
            unit_conflict=conflict,
            status=status,
            doubts=(*doubts, *interpretation_of(observation)),
            specimen="blood" if "blood" in said else "fluid" if said else "unknown",
            spoiled="specimen-clotted" if around.clotted or any(says_clotted(note) for note in notes) else "",
            range_low=low,
            range_high=high,
            stamp=stamp,
            issued=self.issued,
            key=self._key(observation, recognition.coding.code, stamp),
            order=OrderReference(filler=self.chain),
            # Without a collection: one report, one moment, one specimen (a fluid is told by its own code).
            group=around.holder if around.procedure is not None or stamp.at is None else ("", stamp.at),
        )

    def _time(self, observation: ET.Element, around: _Around) -> Stamp:
        """The observation's own time, else that of the collection."""
        for holder in (observation, around.procedure):
            text = time_of(holder)
            if text:
                return stamp_of(text, self.zone)
        return Stamp(None, True, ("collection-time-missing",))

    def _key(self, observation: ET.Element, code: str, stamp: Stamp) -> str:
        """The chain of versions (setId) and the code; a second one of the same code is told apart by its own id or time."""
        key = f"cda|{self.chain}|ANC:{code}|" if self.chain else f"fallback|cda|{stamp.at or ''}|ANC:{code}|"
        if key in self.keys:
            key += _identity(observation.find("id")) or (stamp.at.isoformat() if stamp.at else self._where(observation))
        self.keys.add(key)
        return key

    def _unread(self) -> tuple[str, str] | None:
        """Why a report without a neutrophil observation may hold a count all the same."""
        for section in self.root.iter("section"):
            head = fold(
                f"{_words(section.find('title'))} {' '.join(c.display for c in codings_of(section.find('code'))[0])}"
            )
            for line in _lines(section.find("text")):
                line = line[:_LONGEST_LINE]
                folded = fold(line) if may_speak_of_neutrophils(line) else ""
                if (
                    folded
                    and speaks_of_neutrophils(line)
                    and not is_prior(folded)
                    and not is_of_another_fluid(f"{head} {folded}")
                ):
                    return "narrative-only", "a neutrophil count in the text, without a structured result"
        codings, text = codings_of(self.root.find("code"))
        laboratory = self.laboratory or is_laboratory_document(codings, text) or is_blood_count(codings, text)
        if laboratory and not self.numbers:
            return "document-not-read", "a laboratory report without structured results"
        return None

    def _own_notes(self, observation: ET.Element) -> Iterator[str]:
        for link in observation.findall("entryRelationship"):
            if link.get("typeCode") != "REFR":
                for act in link.findall("act"):
                    yield self._text(act)
        yield self._text(observation)

    def _text(self, act: ET.Element) -> str:
        text = act.find("text")
        return _words(text) or self._referred(text)

    def _referred(self, text: ET.Element | None) -> str:
        """What a ``<reference value="#ID"/>`` points to in the narrative; "" when it points nowhere, as some do."""
        reference = text.find("reference") if text is not None else None
        if reference is None:
            return ""
        if self.texts is None:
            self.texts = {key: _words(e) for e in self.root.iter() if (key := e.get("ID"))}
        return self.texts.get((reference.get("value") or "").lstrip("#"), "")

    def _where(self, observation: ET.Element) -> str:
        return f"{self.prefix}observation[{self.numbers[id(observation)]}]"

    def _enter(self, observation: ET.Element, reason: str) -> None:
        self.document.ledger.append(LedgerEntry(self._where(observation), "not_relevant", reason))


def _identifiers(root: ET.Element) -> tuple[PatientIdentifier, ...]:
    """recordTarget's ids, the establishment's own before the INS; CDA gives them no type."""
    found: list[PatientIdentifier] = []
    for element in root.findall("recordTarget/patientRole/id"):
        value = (element.get("extension") or "").strip()
        if value and len(value) <= 200 and element.get("nullFlavor") is None:
            authority = authority_of("", (element.get("root") or "").strip())
            found.append(PatientIdentifier(value, authority, "INS" if authority.startswith(INS) else ""))
    return tuple(sorted(dict.fromkeys(found), key=lambda i: i.authority.startswith(INS)))


def _identity(element: ET.Element | None) -> str:
    if element is None or element.get("nullFlavor"):
        return ""
    return "^".join(part for part in (element.get("root"), element.get("extension")) if part)


def _value(element: ET.Element | None) -> str:
    return (element.get("value") or "") if element is not None else ""


def _specimens(procedures: list[ET.Element], holder: ET.Element) -> list[ET.Element]:
    """The codes of the specimens that a collection, or what holds the observations, names."""
    found = [
        code for procedure in procedures for code in procedure.findall("participant/participantRole/playingEntity/code")
    ]
    return found + holder.findall("specimen/specimenRole/specimenPlayingEntity/code")


def _kinds(codes: list[ET.Element]) -> frozenset[str]:
    return frozenset(map(_kind, codes)) - {"unknown"}


def _kind(code: ET.Element) -> str:
    codings, text = codings_of(code)
    names: tuple[str, ...] = (*(c.display for c in codings), text)
    return kind_of_specimen(tuple(c.code for c in codings), names)


def _words(element: ET.Element | None) -> str:
    return " ".join("".join(element.itertext()).split()) if element is not None else ""


def _lines(text: ET.Element | None) -> Iterator[str]:
    """The rows and paragraphs of a narrative, each on its own."""
    if text is None:
        return
    blocks = [e for e in text.iter() if e.tag in ("tr", "paragraph", "item")]
    for block in blocks or [text]:
        yield _words(block)
