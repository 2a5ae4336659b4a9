"""The members of a CDA observation: codes, value, unit, status, time, reference range."""

from __future__ import annotations

from decimal import Decimal
from xml.etree import ElementTree as ET

from ingest.reading.codes import Coding
from ingest.reading.units import Unit, unit_of
from ingest.reading.values import Number, Refusal, number_of
from rules.model import Comparator, ResultStatus

__all__ = ["STATUS", "codings_of", "interpretation_of", "number_in", "range_in", "status_of", "time_of", "unit_in"]

STATUS = {
    "completed": ResultStatus.FINAL,
    "active": ResultStatus.PRELIMINARY,
    "new": ResultStatus.PRELIMINARY,
    "held": ResultStatus.PRELIMINARY,
    "suspended": ResultStatus.PRELIMINARY,
    "aborted": ResultStatus.CANCELLED,
    "cancelled": ResultStatus.CANCELLED,
    "nullified": ResultStatus.ENTERED_IN_ERROR,
    "obsolete": ResultStatus.ENTERED_IN_ERROR,
}
_LOINC = "2.16.840.1.113883.6.1"
_DIRECTIONS = frozenset(("L", "LL", "H", "HH", "N", "<", ">"))


def codings_of(code: ET.Element | None) -> tuple[tuple[Coding, ...], str]:
    """``(the code and its translations, the original text)``; a text that is only a reference is "" here."""
    if code is None:
        return (), ""
    found: list[Coding] = []
    for element in (code, *code.findall("translation")):
        value, display = (element.get("code") or "").strip(), (element.get("displayName") or "").strip()
        root = (element.get("codeSystem") or "").strip()
        system = "http://loinc.org" if root == _LOINC else root or (element.get("codeSystemName") or "").strip()
        if value or display:
            found.append(Coding(value, display, system))
    original = code.find("originalText")
    return tuple(found), " ".join((original.text or "").split()) if original is not None else ""


def number_in(observation: ET.Element) -> tuple[Number | Refusal, str]:
    """``(number or refusal, the value as it was sent)`` of the one ``value``."""
    values = observation.findall("value")
    if not values:
        return Refusal("value-missing", "no value"), ""
    if len(values) > 1:
        return Refusal("value-repeated", "several values"), " ".join(v.get("value") or "" for v in values)[:80]
    value = values[0]
    kind = _kind(value)
    if value.get("nullFlavor") and not value.get("value"):
        return Refusal("value-absent", "the laboratory gives a reason in place of a value"), ""
    if kind in ("PQ", "REAL", "INT", "") and value.get("value") is not None:
        sent = value.get("value") or ""
        return number_of(sent), sent
    if kind in ("ST", "ED", ""):
        sent = " ".join("".join(value.itertext()).split())
        return number_of(sent), sent[:200]
    if kind == "IVL_PQ":
        return _bounded(value)
    if kind in ("CD", "CE", "CV", "CO"):
        sent = value.get("displayName") or value.get("code") or ""
        return Refusal("value-coded", "a coded value in place of a number"), sent
    return Refusal("value-type", "a value type that holds no count"), ""


def _kind(value: ET.Element) -> str:
    return (value.get("xsi:type") or "").rsplit(":", 1)[-1]


def _bounded(value: ET.Element) -> tuple[Number | Refusal, str]:
    """An IVL_PQ with one bound is a comparator; with two it is a range."""
    low, high = value.find("low"), value.find("high")
    bounds = [b for b in (low, high) if b is not None and b.get("value")]
    if len(bounds) != 1:
        return Refusal("value-range", "a range or ratio, not one number"), ""
    bound = bounds[0]
    open_ended = bound.get("inclusive") == "false"
    mark: Comparator = (">" if open_ended else ">=") if bound is low else ("<" if open_ended else "<=")
    number = number_of(bound.get("value") or "")
    sent = f"{mark}{bound.get('value')}"
    if isinstance(number, Refusal) or number.comparator is not None:
        return number if isinstance(number, Refusal) else Refusal("value-comparator", "two comparators"), sent
    return number._replace(comparator=mark), sent


def unit_in(observation: ET.Element) -> tuple[str, Unit | None, bool]:
    """``(as sent, unit, conflict)``."""
    value = observation.find("value")
    if value is None:
        return "", None, False
    holders = [value, *(b for b in (value.find("low"), value.find("high")) if b is not None)]
    sent = next((u for h in holders if (u := (h.get("unit") or "").strip())), "")
    unit = unit_of(sent)
    return sent, unit, unit is not None and any(_differs(value, unit, other) for other in value.findall("translation"))


def _differs(value: ET.Element, unit: Unit, other: ET.Element) -> bool:
    """Is the translation of a PQ another quantity, by more than the rounding of both?"""
    names = (unit_of((other.get(name) or "").strip()) for name in ("code", "displayName", "unit"))
    theirs = next((found for found in names if found is not None), None)
    ours, again = number_of(value.get("value") or ""), number_of(other.get("value") or "")
    if theirs is None or theirs.kind != unit.kind or isinstance(ours, Refusal) or isinstance(again, Refusal):
        return False
    slack = ours.step * unit.factor + again.step * theirs.factor
    return abs(ours.value * unit.factor - again.value * theirs.factor) > slack


def range_in(observation: ET.Element, unit: Unit | None) -> tuple[Decimal | None, Decimal | None]:
    """The one reference range, where it is in the value's own unit."""
    ranges = observation.findall("referenceRange/observationRange/value")
    if len(ranges) != 1:
        return None, None
    return _bound(ranges[0].find("low"), unit), _bound(ranges[0].find("high"), unit)


def _bound(side: ET.Element | None, unit: Unit | None) -> Decimal | None:
    if side is None or not side.get("value"):
        return None
    given = side.get("unit")
    if given and unit is not None and unit_of(given) != unit:
        return None
    number = number_of(side.get("value") or "")
    return number.value if isinstance(number, Number) else None


def status_of(observation: ET.Element, battery: str) -> tuple[ResultStatus, tuple[str, ...]]:
    """statusCode of the observation; a battery that was taken back is a doubt, and a value beside a reason for none."""
    element = observation.find("statusCode")
    given = (element.get("code") or "") if element is not None else ""
    status = STATUS.get(given)
    if status is None:
        return ResultStatus.PRELIMINARY, ("status-unknown" if given else "status-missing",)
    doubts: tuple[str, ...] = ("status-preliminary",) if status is ResultStatus.PRELIMINARY else ()
    around = STATUS.get(battery)
    if around is not None and around.withdrawn and not status.withdrawn:
        doubts = (*doubts, "status-conflict")
    if any(value.get("nullFlavor") and value.get("value") for value in observation.findall("value")):
        doubts = (*doubts, "value-absent")
    return status, doubts


def time_of(holder: ET.Element | None) -> str:
    """effectiveTime of an observation or a collection: its value, else its low, else its high."""
    time = holder.find("effectiveTime") if holder is not None else None
    if time is None:
        return ""
    sides = (time, time.find("low"), time.find("high"), time.find("center"))
    return next((v for s in sides if s is not None and (v := s.get("value"))), "")


def interpretation_of(observation: ET.Element) -> tuple[str, ...]:
    said = {e.get("code") for e in observation.findall("interpretationCode")}
    return ("analyser-suspect",) if "A" in said and said & _DIRECTIONS else ()
