"""What OBR, ORC, SPM and their notes say for every row of a group: order numbers, specimen, times, status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from ingest.reading.groups import Group
from ingest.reading.notes import says_aggregated, says_clotted, says_haemolysed
from ingest.reading.specimens import specimen_of
from ingest.reading.times import Stamp, stamp_of
from ingest.reading.v2fields import entity_of
from rules.model import OrderReference
from wire.er7 import NULL, Segment, Separators
from wire.memo import memo

__all__ = ["RETIRED", "Order", "first_stamp", "order_of"]

# ORC-1 that take an order back (table 0119).
RETIRED = frozenset(("CA", "OC", "CR"))
Kind = Literal["blood", "fluid", "unknown"]

_UNTIMED = Stamp(None, True, ("collection-time-missing",))


@dataclass(slots=True)
class Order:
    """``collected``: of OBR-7, else SPM-17; ``timed`` False when neither is there. ``retired``: cancelled by ORC-1."""

    reference: OrderReference
    panel: str
    status: str
    collected: Stamp
    timed: bool
    issued: Stamp
    specimen: Kind
    specimen_id: str
    spoiled: str
    doubts: tuple[str, ...]
    """Of the whole order: its specimens differ, its cells stuck together, it was cancelled and has a result."""
    retired: bool


def order_of(group: Group, zone: ZoneInfo | None, sent: Stamp) -> Order:
    """``sent``: the time of the message, for an OBR without its own (OBR-22)."""
    obr, orc = group.obr, group.orc
    filler = (entity_of(obr, 3) if obr else "") or (entity_of(orc, 3) if orc else "")
    placer = (entity_of(obr, 2) if obr else "") or (entity_of(orc, 2) if orc else "")
    collected = _stated(obr, 7) if obr else ""
    spoiled = ""
    for spm in group.specimens:
        spoiled = _spoiled(spm, spoiled)
        collected = collected or spm.component(17)
    doubts: tuple[str, ...] = ()
    if group.notes or group.other_notes:
        if not spoiled and any(says_clotted(note) for note in (*group.notes, *group.other_notes)):
            spoiled = "specimen-clotted"
        if any(says_aggregated(note) for note in group.notes):
            doubts = ("specimen-aggregates",)
    if group.nameless is not None:
        doubts = (*doubts, "row-without-code")
    panel, said = _specimens_said(group)
    if len(said) > 1:
        doubts = ("specimen-ambiguous", *doubts)
    issued = obr.field(22) if obr else ""
    return Order(
        reference=OrderReference(placer=placer, filler=filler, prescriber=_prescriber(obr, orc)),
        panel=panel,
        status=obr.field(25).upper() if obr else "",
        collected=first_stamp(collected, obr or group.specimens[0], zone) if collected else _UNTIMED,
        timed=collected != "",
        issued=stamp_of(issued, zone) if issued else sent,
        specimen="blood" if "blood" in said else "fluid" if said else "unknown",
        specimen_id=group.specimens[0].field(2) if len(group.specimens) == 1 else "",
        spoiled=spoiled,
        doubts=doubts,
        retired=orc is not None and orc.field(1).upper() in RETIRED,
    )


def _prescriber(obr: Segment | None, orc: Segment | None) -> str:
    """Who ordered it: OBR-16.1, else ORC-12.1 (XCN)."""
    for segment, position in ((obr, 16), (orc, 12)):
        if segment is not None and segment.field(position) not in ("", NULL):
            return segment.component(position)
    return ""


def _stated(segment: Segment, position: int) -> str:
    text = segment.field(position)
    return "" if text == NULL else text


def first_stamp(text: str, segment: Segment, zone: ZoneInfo | None) -> Stamp:
    """The time in the first component of a raw field of ``segment``."""
    return stamp_of(text.split(segment.separators.component, 1)[0], zone)


def _spoiled(spm: Segment, already: str) -> str:
    condition = spm.text(spm.field(24)).upper()
    if "CLOT" in condition or "COAGUL" in condition:
        return "specimen-clotted"
    if condition and says_haemolysed(condition):
        return already or "specimen-haemolysed"
    if spm.field(21) and not spm.is_null(21):
        return already or "specimen-rejected"
    return already


def _specimens_said(group: Group) -> tuple[str, set[Kind]]:
    """``(code of the panel, kinds of specimen that are named)``; the panel's name speaks where the others do not."""
    obr = group.obr
    said: set[Kind] = set()
    if obr and obr.field(15):
        said.add(_kind_of_source(obr.field(15), obr.separators, obr.codec))
    for spm in group.specimens:
        parts = [*spm.components(4), *[""] * 5]
        said.add(specimen_of((parts[0], parts[3]), (parts[1], parts[4])))
    panel = ""
    if obr:
        panel, kind = _panel(obr.field(4), obr.separators, obr.codec)
        if not said or "unknown" in said:
            said.add(kind)
    said.discard("unknown")
    return panel, said


# A laboratory sends the same few sources and panels with every message.
@memo(1024)
def _kind_of_source(text: str, marks: Separators, codec: str) -> Kind:
    """OBR-15: the code, its text, and the components that follow."""
    segment = Segment("", 0, marks, codec)
    parts = segment.split_components(text.split(marks.repetition, 1)[0])
    first = segment.split_subcomponents(text.split(marks.component, 1)[0])
    return specimen_of((first[0],), (*first[1:2], *parts[1:3]))


@memo(1024)
def _panel(text: str, marks: Separators, codec: str) -> tuple[str, Kind]:
    """OBR-4: its code, and what its names say of the specimen."""
    parts = Segment("", 0, marks, codec).split_components(text.split(marks.repetition, 1)[0]) if text else [""]
    kind = specimen_of((), tuple(parts[i] for i in (1, 4) if i < len(parts)))
    return ("" if parts[0] == NULL else parts[0]), kind
