"""The count as it was judged, as a FHIR Observation of ours that points to the laboratory's by its order number."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from emitters.counts import UCUM_UNIT, giga_per_litre, letter
from emitters.fhir_terms import BASE, Resource, coding, concept, fhir_id, instant, quoted, reference
from rules.english import ENGLISH
from rules.model import AbsoluteNeutrophilCount, Alert, LabResult, ResultStatus
from rules.words import Words

__all__ = ["count", "observation", "result_key"]

_LOINC: Final = "http://loinc.org"
_ANC: Final = coding(_LOINC, "26499-4", "Neutrophils [#/volume] in Blood")
_LABORATORIES: Final = concept(coding("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory"))
_INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_LETTERS: Final = {mark: concept(coding(_INTERPRETATION, mark)) for mark in ("LL", "L", "N")}
_FILLER: Final = concept(coding("http://terminology.hl7.org/CodeSystem/v2-0203", "FILL"))


def result_key(alert: Alert, result: LabResult) -> str:
    # The laboratory's key may hold its order numbers: hashed, so that ours tells nothing. Scoped to the patient, since
    # a result posted on the wrong one and re-posted on the right one must not be moved between them.
    return fhir_id("result", f"{alert.subject.register_id}|{result.key or f'{alert.id}|{result.collected_at}'}")


def observation(alert: Alert, result: LabResult, patient: str, device: str, words: Words) -> Resource:
    """The count as it was judged: ours, normalised, pointing to the laboratory's by its order number."""
    mark = letter(alert, result.anc) if result.anc is not None else None
    found = count(result, patient, mark, words)
    found["device"] = reference(device)
    source = _laboratory_order(result)
    if source is not None:
        found["derivedFrom"] = [{"type": "Observation", "identifier": source}]
    return found


def count(result: LabResult, patient: str, mark: str | None = None, words: Words = ENGLISH) -> Resource:
    """``mark``: its interpretation (LL, L, N)."""
    found: Resource = {
        "resourceType": "Observation",
        "status": result.status.value,
        "category": [_LABORATORIES],
        "code": _codes(result),
        "subject": reference(patient),
    }
    if result.collected_at is not None:
        found["effectiveDateTime"] = _effective(result.collected_at, result.time_known)
    if result.issued_at is not None and result.issued_at.tzinfo is not None:
        found["issued"] = instant(result.issued_at)
    if result.anc is None or result.status.withdrawn:
        reason = "not-performed" if result.status is ResultStatus.CANCELLED else "unknown"
        found["dataAbsentReason"] = concept(coding(_ABSENT, reason))
    else:
        found |= _measured(result.anc, mark, words)
    if result.doubts:
        found["note"] = [{"text": f"{result.trust.value}: {', '.join(result.doubts)}"}]
    return found


def _measured(anc: AbsoluteNeutrophilCount, mark: str | None, words: Words) -> Resource:
    quantity: Resource = {
        "value": giga_per_litre(anc.per_mm3),
        "unit": UCUM_UNIT,
        "system": "http://unitsofmeasure.org",
        "code": UCUM_UNIT,
    }
    if anc.comparator is not None:
        quantity["comparator"] = anc.comparator
    measured: Resource = {"valueQuantity": quantity}
    if mark is not None:
        measured["interpretation"] = [_LETTERS[mark]]
    if anc.derived:
        text = words.computed
        if anc.lower_bound is not None:
            worst = str(giga_per_litre(anc.lower_bound)).replace(".", words.decimal_mark)
            text = words.computed_worst.format(value=f"{worst} {UCUM_UNIT}")
        measured["method"] = {"text": text}
    return measured


def _codes(result: LabResult) -> Resource:
    """LOINC 26499-4 and the laboratory's own code, unless that one names something else (a percentage)."""
    text = result.display or _ANC["display"]
    derived = result.anc is not None and result.anc.derived
    own_code_in_doubt = derived or "code-unit-conflict" in result.doubts
    if not result.code or own_code_in_doubt or (result.code_system == _LOINC and result.code == _ANC["code"]):
        return concept(_ANC, text=text)
    local: Resource = {"code": result.code}
    if result.code_system:
        system = result.code_system
        local["system"] = system if ":" in system else f"{BASE}/laboratory-codes/{quoted(system)}"
    if result.display:
        local["display"] = result.display
    return concept(_ANC, local, text=text)


def _effective(at: datetime, time_known: bool) -> str:
    # FHIR wants an offset beside a time; where none was stated only the day is certain.
    return instant(at) if time_known and at.tzinfo is not None else at.date().isoformat()


def _laboratory_order(result: LabResult) -> Resource | None:
    """The filler order number as an identifier; EI components, where it came with them, name who gave it."""
    if not result.order.filler:
        return None
    value, namespace, oid, kind = [*result.order.filler.split("^"), "", "", ""][:4]
    found: Resource = {"type": _FILLER, "value": value or result.order.filler}
    if oid and kind == "ISO":
        found["system"] = f"urn:oid:{oid}"
    elif namespace:
        found["assigner"] = {"display": namespace}
    return found
