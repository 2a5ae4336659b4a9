"""The fields of an OBX and their dialects: value types, statuses, abnormal flags, reference ranges, order numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from ingest.reading.patients import authority_of
from ingest.reading.units import Unit, unit_of, unit_of_components
from ingest.reading.values import Number, Refusal, is_plain, number_of, plain_number_of, structured_number_of
from rules.model import ResultStatus
from wire.er7 import NULL, Segment, Separators
from wire.memo import memo

__all__ = ["NOT_RESENT", "STATUS", "entity_of", "is_pending", "number_in", "range_of", "status_of", "unit_in"]

_TEXTUAL = frozenset(("NM", "ST", "TX", "FT", "IS", "", "ID", "NUM"))
_PLAIN_KINDS = frozenset(("NM", "ST"))
_CODED = frozenset(("CE", "CWE", "CNE", "CF"))
# Tables 0085 and 0123 read as clinical.md 4.4 has them.
STATUS = {
    "F": ResultStatus.FINAL,
    "U": ResultStatus.FINAL,
    "V": ResultStatus.FINAL,
    "B": ResultStatus.FINAL,
    "C": ResultStatus.CORRECTED,
    "A": ResultStatus.CORRECTED,
    "P": ResultStatus.PRELIMINARY,
    "R": ResultStatus.PRELIMINARY,
    "S": ResultStatus.PRELIMINARY,
    "I": ResultStatus.PRELIMINARY,
    "N": ResultStatus.PRELIMINARY,
    "O": ResultStatus.PRELIMINARY,
    "W": ResultStatus.ENTERED_IN_ERROR,
    "D": ResultStatus.ENTERED_IN_ERROR,
    "X": ResultStatus.CANCELLED,
}
PENDING = frozenset("INO")
_CONFIRMED = frozenset("UV")
NOT_RESENT = Refusal("value-not-resent", "confirms a value that was sent before")
_PANEL_STATUS = frozenset(("", "O", "I", "S", "A", "P", "C", "R", "F", "M", "N"))
_DIRECTIONS = frozenset(("L", "LL", "H", "HH", "N", "<", ">"))


def number_in(obx: Segment) -> tuple[Number | Refusal, str]:
    """OBX-5 by the type of OBX-2: ``(number or refusal, the value as it was sent)``."""
    raw = obx.field(5)
    if obx.field(2) in _PLAIN_KINDS and is_plain(raw):
        return plain_number_of(raw), raw
    if not raw and obx.field(11).upper() in _CONFIRMED:
        return NOT_RESENT, ""
    read = _short_number if len(raw) <= _SHORT else _number
    return read(obx.field(2).upper(), raw, obx.separators, obx.codec)


def _number(kind: str, raw: str, marks: Separators, codec: str) -> tuple[Number | Refusal, str]:
    if raw in ("", NULL):
        return Refusal("value-missing", "no value"), ""
    obx = Segment("", 0, marks, codec)
    if marks.truncation and raw.endswith(marks.truncation):
        return Refusal("value-truncated", "the value was cut"), obx.text(raw)
    if kind in ("ED", "RP"):
        return Refusal("document-not-read", "a document in place of a number"), kind
    repeats = [r for r in dict.fromkeys(p.strip() for p in raw.split(marks.repetition)) if r]
    if len(repeats) != 1:
        return Refusal("value-repeated", "several values in one field"), obx.text(raw)
    parts = obx.split_components(repeats[0])
    if kind == "SN":
        return structured_number_of(parts), "".join(parts)
    sent = obx.text(repeats[0])
    if kind in _CODED:
        return Refusal("value-coded", "a coded value in place of a number"), sent
    if kind not in _TEXTUAL:
        return Refusal("value-type", "a value type that holds no count"), sent
    if any(parts[1:]):
        return Refusal("value-two-numbers", "more than one component"), sent
    return number_of(parts[0]), sent


# Counts of two or three digits repeat all day long; a long text is not worth its place.
_SHORT = 24
_short_number = lru_cache(maxsize=8192)(_number)


def unit_in(obx: Segment) -> tuple[str, Unit | None, bool]:
    """OBX-6: ``(as sent, unit, conflict)``."""
    return _unit(obx.field(6), obx.separators, obx.codec)


_MOST_UNITS = 8


@memo(2048)
def _unit(raw: str, marks: Separators, codec: str) -> tuple[str, Unit | None, bool]:
    if "^" in (marks.repetition, marks.subcomponent) and "^" in raw and (whole := unit_of(raw)) is not None:
        return raw, whole, False  # HPRIM and others: the caret of 10^9/L repeats there
    segment = Segment("", 0, marks, codec)
    repeats = raw.split(marks.repetition, _MOST_UNITS)[:_MOST_UNITS] if raw else [""]
    sent, unit, conflict = unit_of_components(tuple(segment.split_components(repeats[0])))
    for repeat in repeats[1:]:
        # OBX-6 does not repeat (HL7 v2.5.1, 7.4.2): a second unit that is another one leaves no unit.
        _, other, inner = unit_of_components(tuple(segment.split_components(repeat)))
        conflict = conflict or inner or other not in (None, unit)
    return ("" if sent == NULL else sent), None if conflict else unit, conflict


def status_of(obx: Segment, panel: str) -> tuple[ResultStatus, tuple[str, ...]]:
    """OBX-11 wins over OBR-25; an OBR-25 that no table knows, or that cancels, is a doubt."""
    given = obx.field(11).upper()
    status = STATUS.get(given)
    if obx.is_null(5) and status is not ResultStatus.CANCELLED:
        return ResultStatus.ENTERED_IN_ERROR, ()
    if status is None:
        return ResultStatus.PRELIMINARY, ("status-missing" if not given else "status-unknown",)
    doubts: tuple[str, ...] = ()
    if status is ResultStatus.PRELIMINARY:
        doubts = ("status-preliminary",)
    if panel not in _PANEL_STATUS and not status.withdrawn:
        doubts += ("status-conflict",)
    flags = obx.field(8)
    if flags and "A" in flags:
        said = {f.strip().upper().split(obx.separators.component, 1)[0] for f in flags.split(obx.separators.repetition)}
        # ``L~A``: the A beside a direction is the analyser's own doubt; alone it is the ordinary "abnormal".
        if "A" in said and said & _DIRECTIONS:
            doubts += ("analyser-suspect",)
    return status, doubts


def is_pending(obx: Segment) -> bool:
    """In the laboratory, not asked, or order detail only: no value was ever promised."""
    return obx.field(5) == "" and obx.field(11).upper() in PENDING


_BOUND = r"\d{1,6}(?:[.,]\d{1,4})?|\d{1,3}[ \u00a0\u202f]\d{3}"
_RANGE = re.compile(
    rf"\s*(?:vr\s*:?\s*)?[(\[]?\s*(?P<low>{_BOUND})\s*(?:-|–|to|à|a|bis|\.\.|\^)\s*(?P<high>{_BOUND})\s*[)\]]?\s*(?P<unit>.*)\Z",
    re.ASCII,
)
_HALF_RANGE = re.compile(rf"\s*(?P<mark>[<>≤≥]=?|sup\.?|inf\.?)\s*(?P<bound>{_BOUND})\s*(?P<unit>.*)\Z", re.ASCII)
_THOUSANDS_MARK = re.compile(r"[.,]\d{3}\b")


@memo(1024)
def range_of(text: str, unit: Unit | None = None) -> tuple[Decimal | None, Decimal | None]:
    """``1.5-7.5``, ``1,5 à 7,5``, ``4300 to 10800``, ``>1.5``: ``(low, high)`` where they are plain numbers, else nothing.

    ``unit``: of the value; a range that names another unit of counts (``1500-7500 /mm3`` beside G/L) says nothing of it.

    A comma before three digits is not read: the range checks the unit, and an ambiguous one checks nothing.
    """
    if _THOUSANDS_MARK.search(text) or len(text) > 60:
        return None, None
    match = _RANGE.match(text)
    if match is not None:
        if not _speaks_of(match["unit"], unit):
            return None, None
        low, high = _bound(match["low"]), _bound(match["high"])
        return (low, high) if low < high else (None, None)
    half = _HALF_RANGE.match(text)
    if half is None or not _speaks_of(half["unit"], unit):
        return None, None
    bound = _bound(half["bound"])
    return (None, bound) if half["mark"][0] in "<≤i" else (bound, None)


def _speaks_of(text: str, unit: Unit | None) -> bool:
    text = text.strip()
    own = unit_of(text)
    if own is None:
        return not re.search(r"\d", text)
    return unit is None or own == unit or own.kind != unit.kind


def _bound(text: str) -> Decimal:
    return Decimal("".join(text.split()).replace(",", "."))


def entity_of(segment: Segment, position: int) -> str:
    """An order number (EI) normalised: ``R-1^LAB^1.2.3^ISO`` -> ``R-1@urn:oid:1.2.3``."""
    raw = segment.field(position)
    if raw in ("", NULL):
        return ""
    marks = segment.separators
    if not (marks.component in raw or marks.subcomponent in raw or marks.escape in raw or marks.repetition in raw):
        return raw
    parts = [*segment.components(position), "", "", ""]
    # 2.1-style: id & namespace as sub-components.
    if not any(parts[1:4]) and segment.separators.subcomponent in parts[0]:
        parts = [*parts[0].split(segment.separators.subcomponent), "", "", ""]
    authority = authority_of(parts[1], parts[2], parts[3])
    return f"{parts[0]}@{authority}" if authority else parts[0]
