"""The members of an Observation, its report and its specimen, read into what a row of a blood count needs."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, TypeVar

from ingest.reading import fhirtypes as t
from ingest.reading.codes import Coding
from ingest.reading.fhirindex import UNDECODABLE, Index, Item
from ingest.reading.notes import says_aggregated, says_clotted, says_haemolysed
from ingest.reading.recognition import Recognition, recognise
from ingest.reading.specimens import specimen_of
from ingest.reading.units import Unit, unit_of
from ingest.reading.v2fields import range_of
from ingest.reading.values import Number, Refusal, number_of, number_of_json
from rules.model import Comparator, OrderReference, ResultStatus
from wire.memo import LONGEST

T = TypeVar("T")

__all__ = [
    "STATUS",
    "codings_of",
    "decoded_specimen",
    "doubts_of_notes",
    "has_value",
    "is_test",
    "key_of",
    "number_in",
    "order_in",
    "range_in",
    "recognise_code",
    "specimen_kind",
    "spoiled_by",
    "status_of",
    "unit_in",
]

STATUS = {
    "registered": ResultStatus.PRELIMINARY,
    "preliminary": ResultStatus.PRELIMINARY,
    "final": ResultStatus.FINAL,
    "appended": ResultStatus.FINAL,
    "amended": ResultStatus.CORRECTED,
    "corrected": ResultStatus.CORRECTED,
    "cancelled": ResultStatus.CANCELLED,
    "entered-in-error": ResultStatus.ENTERED_IN_ERROR,
}
# DiagnosticReport.status beside which a result stands; of R5 too. A word that no table knows may mean "not validated".
_REPORTED = frozenset(
    (None, "registered", "partial", "preliminary", "modified", "final", "amended", "corrected", "appended", "unknown")
)
_COMPARATORS: dict[str, Comparator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_DIRECTIONS = frozenset(("L", "LL", "H", "HH", "N", "<", ">"))


def is_test(meta: t.Meta | None) -> bool:
    if meta is None:
        return False
    tagged = any(c.code in ("T", "D") and (c.system or "").endswith("v2-0103") for c in meta.tag)
    return tagged or any(c.code == "HTEST" for c in (*meta.security, *meta.tag))


def codings_of(code: t.CodeableConcept | None) -> tuple[Coding, ...]:
    if code is None:
        return ()
    return tuple([Coding(c.code or "", c.display or "", c.system or "") for c in code.coding])


def recognise_code(code: t.CodeableConcept | None) -> Recognition:
    return recognise(codings_of(code), (code.text or "") if code else "")


def has_value(part: t.Component) -> bool:
    others = (part.valueInteger, part.valueCodeableConcept, part.valueRange, part.valueRatio, part.valueBoolean)
    more = (part.valueSampledData, part.valueAttachment)
    quantity = part.valueQuantity is not None and t.present(part.valueQuantity.value)
    return quantity or part.valueString is not None or any(t.present(v) for v in (*others, *more))


def number_in(part: t.Component) -> tuple[Number | Refusal, str, str]:
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
    if has_value(part):
        return Refusal("value-type", "a value type that holds no count"), "", "value"
    return Refusal("value-missing", "no value"), "", "value"


def _unit_of(code: str, system: str, text: str) -> tuple[str, Unit | None, bool]:
    by_code, by_text = unit_of(code), unit_of(text)
    sent = code or text
    if by_code is not None and by_text is not None and by_code != by_text:
        return sent, None, True
    if by_code is None and code and ("unitsofmeasure" in system or by_text is None):
        return sent, None, False
    return sent, by_code or by_text, False


_known_unit = lru_cache(maxsize=1024)(_unit_of)


def unit_in(quantity: t.Quantity | None) -> tuple[str, Unit | None, bool]:
    if quantity is None:
        return "", None, False
    code, system, text = quantity.code or "", quantity.system or "", quantity.unit or ""
    return (_known_unit if len(code) + len(system) + len(text) <= LONGEST else _unit_of)(code, system, text)


def status_of(
    observation: t.Observation, part: t.Component, report: t.DiagnosticReport | None
) -> tuple[ResultStatus, tuple[str, ...]]:
    status = STATUS.get(observation.status or "")
    if status is None:
        return ResultStatus.PRELIMINARY, ("status-unknown" if observation.status else "status-missing",)
    doubts: list[str] = []
    if status is ResultStatus.PRELIMINARY:
        doubts.append("status-preliminary")
    if report is not None and report.status not in _REPORTED and not status.withdrawn:
        doubts.append("status-conflict")
    if part.dataAbsentReason is not None and has_value(part):
        # obs-6: a reason for there being no value, beside a value.
        doubts.append("value-absent")
    if t.present(observation.modifierExtension):
        doubts.append("modifier-extension")
    if is_test(observation.meta):
        doubts.append("test-message")
    given = part.interpretation or observation.interpretation
    if given:
        said = {c.code for i in (given if isinstance(given, list) else [given]) for c in i.coding}
        if "A" in said and said & _DIRECTIONS:
            doubts.append("analyser-suspect")
    return status, tuple(doubts)


def decoded_specimen(item: Item | None) -> t.Specimen | None:
    if item is None:
        return None
    try:
        return item.decoded(t.Specimen)
    except UNDECODABLE:
        return None


def specimen_kind(specimen: t.Specimen | None, observation: t.Observation) -> Literal["blood", "fluid", "unknown"]:
    if specimen is None and observation.specimen is None and observation.bodySite is None:
        return "unknown"
    concept = specimen.type if specimen else None
    display = (observation.specimen.display or "") if observation.specimen else ""
    codes = tuple(c.code or "" for c in concept.coding) if concept else ()
    names = (*(c.display or "" for c in concept.coding), concept.text or "") if concept else ()
    site = observation.bodySite
    elsewhere = (*(c.display or "" for c in site.coding), site.text or "") if site else ()
    return specimen_of(codes, (*names, display, *elsewhere))


def spoiled_by(
    specimen: t.Specimen | None, observation: t.Observation, report: t.DiagnosticReport | None
) -> Literal["", "specimen-clotted", "specimen-haemolysed", "specimen-rejected"]:
    """Why the specimen is worth nothing, by its condition and the notes beside the count; "" when it is fit."""
    words = _condition(specimen) if specimen else ""
    notes = _notes(observation, report, specimen)
    if "CLOT" in words or "COAGUL" in words or (notes and any(map(says_clotted, notes))):
        return "specimen-clotted"
    if words and says_haemolysed(words):
        return "specimen-haemolysed"
    return "specimen-rejected" if specimen and specimen.status in ("unsatisfactory", "entered-in-error") else ""


def doubts_of_notes(observation: t.Observation, report: t.DiagnosticReport | None) -> tuple[str, ...]:
    notes = _notes(observation, report, None)
    return ("specimen-aggregates",) if notes and any(map(says_aggregated, notes)) else ()


def _condition(specimen: t.Specimen) -> str:
    return " ".join(
        text for c in specimen.condition for text in (c.text or "", *(f"{g.code} {g.display}" for g in c.coding))
    ).upper()


def _notes(observation: t.Observation, report: t.DiagnosticReport | None, specimen: t.Specimen | None) -> Sequence[str]:
    if report is None and specimen is None and not (observation.note or observation.comment or observation.comments):
        return ()
    found = [note.text for note in (*observation.note, *(specimen.note if specimen else ()))]
    found += [observation.comment, observation.comments, report.conclusion if report else None]
    return [text for text in found if text]


def range_in(part: t.Component, unit: Unit | None) -> tuple[Decimal | None, Decimal | None]:
    """The one reference range, where it is in the value's own unit."""
    ranges = part.referenceRange
    if len(ranges) != 1 or part.valueQuantity is None:
        return None, None
    own, given = part.valueQuantity, ranges[0]
    if given.low is None and given.high is None:
        return range_of(given.text or "", unit)
    bounds: list[Decimal | None] = []
    for side in (given.low, given.high):
        if side is None or not t.present(side.value) or (side.code or side.unit) not in (own.code, own.unit, None):
            bounds.append(None)
            continue
        number = number_of_json(bytes(side.value).decode("utf-8", "replace"))
        bounds.append(number.value if isinstance(number, Number) else None)
    return bounds[0], bounds[1]


def key_of(observation: t.Observation, item: Item, code: str, where: str) -> str:
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
    return f"content:{item.content}{tail}"


_NO_ORDER: Final = OrderReference()


def order_in(observation: t.Observation, report: t.DiagnosticReport | None, index: Index, item: Item) -> OrderReference:
    alone = report is None and not observation.basedOn and observation.encounter is None
    if alone and not [1 for identifier in observation.identifier if identifier.type is not None]:
        return _NO_ORDER
    found = {"PLAC": "", "FILL": ""}
    for identifier in (*observation.identifier, *(report.identifier if report else ())):
        for coding in identifier.type.coding if identifier.type else ():
            if coding.code in found and not found[coding.code]:
                found[coding.code] = identifier.value or ""
    return OrderReference(
        placer=found["PLAC"],
        filler=found["FILL"],
        ward=_ward(observation, index, item),
        prescriber=_prescriber(observation, index, item),
    )


def _prescriber(observation: t.Observation, index: Index, item: Item) -> str:
    """Who ordered it: the requester of the ServiceRequest that came along."""
    for reference in observation.basedOn:
        order = index.find(reference.reference, item) if reference.reference else None
        if order is not None and order.kind == "ServiceRequest":
            return _called(_decoded(order, t.ServiceRequest, t.ServiceRequest()).requester)
    return ""


def _ward(observation: t.Observation, index: Index, item: Item) -> str:
    """Where the patient is: the last location of the Encounter that came along."""
    reference = observation.encounter.reference if observation.encounter else None
    stay = index.find(reference, item) if reference else None
    if stay is None or stay.kind != "Encounter":
        return ""
    places = _decoded(stay, t.Encounter, t.Encounter()).location
    return _called(places[-1].location) if places else ""


def _decoded(item: Item, kind: type[T], instead: T) -> T:
    try:
        return item.decoded(kind)
    except UNDECODABLE:
        return instead


def _called(reference: t.Reference | None) -> str:
    """By its identifier, else as it is referred to, else by its name."""
    if reference is None:
        return ""
    identified = reference.identifier.value if reference.identifier else None
    return identified or reference.reference or reference.display or ""
