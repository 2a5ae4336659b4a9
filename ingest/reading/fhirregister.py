"""What a FHIR payload tells the register of patients: who, on clozapine since when, BEN confirmed or not.

Rule of the file: facts, not decisions. Clozapine by text alone is a candidate; BEN is never inferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from ingest.reading import fhirtypes as t
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, decode, identifiers_of, subject_of
from ingest.reading.outcome import BenFact, PatientFact, RegisterFact, TreatmentFact
from ingest.reading.patients import order_identifiers
from ingest.reading.times import date_of
from rules.model import PatientIdentifier

__all__ = ["register_facts"]

# clinical.md 4.2. A code without its system is a candidate: 2626 is many things.
_CLOZAPINE = {
    ("http://www.whocc.no/atc", "N05AH02"),
    ("urn:oid:2.16.840.1.113883.6.73", "N05AH02"),
    ("http://snomed.info/sct", "387568001"),
    ("http://www.nlm.nih.gov/research/umls/rxnorm", "2626"),
}
_CANDIDATE_CODES = frozenset(("N05AH02", "387568001"))
_NAMED = re.compile(
    r"clozapin|cloza|leponex|clozaril|zaponex|denzapine|fazaclo|versacloz|klozapol|azaleptin|лепонекс", re.IGNORECASE
)
_USES = ("MedicationStatement", "MedicationRequest", "MedicationDispense", "MedicationAdministration")


def register_facts(index: Index) -> Iterator[RegisterFact]:
    for item in index.items:
        try:
            if item.kind == "Patient":
                yield _patient(decode(item.raw, t.Patient), item)
            elif item.kind in _USES:
                fact = _treatment(decode(item.raw, t.MedicationUse), item, index)
                if fact is not None:
                    yield fact
            elif item.kind == "Condition":
                ben = _ben(decode(item.raw, t.Condition), item, index)
                if ben is not None:
                    yield ben
        except UNDECODABLE:
            if item.where not in index.malformed:
                index.malformed.append(item.where)


def _patient(patient: t.Patient, item: Item) -> PatientFact:
    preferred = {"official": 0, "usual": 1}
    name = min(patient.name, key=lambda n: preferred.get(n.use or "", 2), default=t.HumanName())
    family = " ".join(name.family) if isinstance(name.family, list) else name.family
    references = [item.full_url, f"Patient/{item.id}" if item.id else ""]
    return PatientFact(
        identifiers=order_identifiers(identifiers_of(patient.identifier)),
        family=family or name.text or "",
        given=" ".join(name.given),
        birth_date=date_of(patient.birthDate or ""),
        sex=patient.gender or "",
        deceased=bytes(patient.deceasedBoolean) == b"true" or bool(patient.deceasedDateTime),
        references=tuple(r for r in references if r),
        where=item.where,
    )


def _medication(use: t.MedicationUse, item: Item, index: Index) -> t.CodeableConcept | None:
    if use.medicationCodeableConcept is not None:
        return use.medicationCodeableConcept
    wrapped = use.medication or t.Concept()
    if wrapped.concept is not None:
        return wrapped.concept
    reference = use.medicationReference or wrapped.reference
    if reference is None or not reference.reference:
        return t.CodeableConcept(text=reference.display) if reference else None
    target = index.find(reference.reference, item)
    if target is None or target.kind != "Medication":
        return t.CodeableConcept(text=reference.display)
    return decode(target.raw, t.Medication).code


def _treatment(use: t.MedicationUse, item: Item, index: Index) -> TreatmentFact | None:
    concept = _medication(use, item, index)
    if concept is None:
        return None
    coded = any(((c.system or "").rstrip("/"), c.code) in _CLOZAPINE for c in concept.coding)
    if not coded:
        words = [concept.text or "", *(c.display or "" for c in concept.coding)]
        bare = any(c.code in _CANDIDATE_CODES for c in concept.coding)
        if not bare and not any(_NAMED.search(w) for w in words):
            return None
    start, end = _window(use)
    ended = use.status == "stopped" or (use.status == "completed" and item.kind == "MedicationStatement")
    return TreatmentFact(
        identifiers=subject_of(index, use.subject, item)[0],
        resource_type=item.kind,
        status=use.status or "",
        start=start,
        stopped_on=end if ended else None,
        confirmed_by=_named(use.recorder, use.requester, *_sources(use)),
        candidate=not coded,
        where=item.where,
    )


def _window(use: t.MedicationUse) -> tuple[date | None, date | None]:
    """``(first day, last day)``: the stated period, else the dosage's bounds, else the earliest date of the paper."""
    periods = [use.effectivePeriod] + [
        d.timing.repeat.boundsPeriod for d in use.dosageInstruction if d.timing and d.timing.repeat
    ]
    starts = [day for p in periods if p and p.start and (day := date_of(p.start))]
    ends = [day for p in periods if p and p.end and (day := date_of(p.end))]
    papers = (use.effectiveDateTime, use.authoredOn, use.whenHandedOver)
    fallback = [day for p in papers if p and (day := date_of(p))]
    return (min(starts) if starts else min(fallback, default=None)), (max(ends) if ends else None)


def _sources(use: t.MedicationUse) -> list[t.Reference | None]:
    source = use.informationSource
    return list(source) if isinstance(source, list) else [source]


def _named(*references: t.Reference | None) -> str:
    """The first professional named; a patient confirms nothing here."""
    for reference in references:
        if reference is None or (reference.reference or "").startswith(("Patient/", "RelatedPerson/")):
            continue
        identifier = reference.identifier.value if reference.identifier else None
        name = reference.display or identifier or reference.reference
        if name:
            return name
    return ""


def _ben(condition: t.Condition, item: Item, index: Index) -> BenFact | None:
    codings = condition.code.coding if condition.code else []
    if not any(c.code == "BEN" and (c.system or "").endswith("/CodeSystem/anc-context") for c in codings):
        return None
    status = condition.verificationStatus
    said = {c.code for c in status.coding} if isinstance(status, t.CodeableConcept) else {status}
    who = _named(condition.asserter, condition.recorder)
    known: tuple[PatientIdentifier, ...] = subject_of(index, condition.subject, item)[0]
    return BenFact(
        identifiers=known,
        confirmed="confirmed" in said and bool(who),
        withdrawn=bool(said & {"entered-in-error", "refuted"}),
        confirmed_on=date_of(condition.recordedDate or condition.assertedDate or ""),
        confirmed_by=who,
        where=item.where,
    )
