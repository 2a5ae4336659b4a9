"""Reads one HL7 v2 message (ORU, OUL and what labs really send) into results, or into the reasons why not.

Rule of the file: by position and proximity, not by grammar: every OBX is walked wherever it stands, and leaves one entry in
the ledger (``groups.py`` walks them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import structs

from ingest.reading.assembly import Assembly, assemble
from ingest.reading.codes import Coding
from ingest.reading.documents import Enclosed, documents_in, may_hold_a_count, rows_of
from ingest.reading.groups import Group, of_shape, walked
from ingest.reading.merges import merges_in
from ingest.reading.notes import says_aggregated, says_clotted
from ingest.reading.orders import RETIRED, Order, first_stamp, order_of
from ingest.reading.outcome import Confirmation, LedgerEntry, Problem, Reading
from ingest.reading.panels import is_blood_count
from ingest.reading.patients import patient_of
from ingest.reading.recognition import Recognition
from ingest.reading.rows import Row
from ingest.reading.shapes import Known, known_dull, known_shape
from ingest.reading.site import Site
from ingest.reading.times import Stamp, stamp_of
from ingest.reading.updates import updates_in
from ingest.reading.v2fields import NOT_RESENT, number_in, range_of, status_of, unit_in
from ingest.reading.v2replies import replies_in, tells_by_its_type
from ingest.reading.values import Refusal
from ingest.reading.vocabulary import not_relevant
from rules.model import LabResult, PatientIdentifier, ResultStatus, Trust
from wire.ack import UNSUPPORTED
from wire.er7 import NULL, Header, Message, Segment, parse, peek

__all__ = ["read_hl7v2", "read_parsed"]

# Messages whose OBX are no results of today: identities, appointments, orders, queries, answers.
_NOT_RESULTS = UNSUPPORTED | frozenset(
    "ADT ACK MCF SIU SRM MFN MFK BAR DFT PMU QBP RSP ORR ORL RRE RRD PEX CRM NMD ERR".split()
)


def read_hl7v2(raw: bytes, *, zone: ZoneInfo | None = None, site: Site | None = None) -> Reading:
    """One message. Never raises for any bytes; what is no HL7 message is set aside."""
    header = peek(raw)
    if header is None:
        return _set_aside("msh-missing", "MSH[1]", "MSH[1]: no readable MSH segment")
    code = header.message_code
    if code and code not in _NOT_RESULTS and header.processing_id != "Q" and not tells_by_its_type(header):
        nothing = known_dull(raw, header, site)
        if nothing is not None:
            return _reading(header, "not_relevant", nothing)
    message = parse(raw, site.charset if site is not None else "", header=header)
    assert message is not None  # noqa: S101 - it has a header
    return read_parsed(message, zone, site)


def read_parsed(message: Message, zone: ZoneInfo | None, site: Site | None = None) -> Reading:
    """One message whose header could be read, whichever format wrote it in segments."""
    header = message.header
    if not message.separators.distinct:
        return _set_aside("separators", "MSH[1]-2", "MSH[1]-2: the separators are not distinct", header)
    if not header.message_code:
        return _set_aside("message-type-missing", "MSH[1]-9", "MSH[1]-9: no message type", header)
    if header.processing_id == "Q":
        return _reading(header, "not_relevant", _ledger_of_all(message, "quality-control"), production=True)
    shape: Known | None = None
    if header.message_code not in _NOT_RESULTS and not tells_by_its_type(header):
        shape = known_shape(message, site)
        if shape is not None and shape.nothing is not None:
            return _reading(header, "not_relevant", shape.nothing)
    # A report of a known shape has no row that answers anything.
    replies = replies_in(message) if shape is None else ()
    if replies:
        reading = _reading(header, "not_relevant", _ledger_of_all(message, "answer"))
        return structs.replace(reading, replies=replies)
    if header.message_code in _NOT_RESULTS:
        reading = _reading(header, "not_relevant", _ledger_of_all(message, "message-type"))
        if header.message_code == "ADT" and header.trigger == "A40" and reading.production:
            return structs.replace(reading, merges=merges_in(message, site))
        if header.message_code == "ADT" and header.trigger == "A31" and reading.production:
            return structs.replace(reading, register=updates_in(message, site))
        return reading
    return _read_results(message, shape, zone, site)


def _read_results(message: Message, shape: Known | None, zone: ZoneInfo | None, site: Site | None) -> Reading:
    header = message.header
    production = header.processing_id not in ("T", "D")
    out = Assembly()
    groups = of_shape(shape, message, out.ledger, site) if shape is not None else walked(message, out.ledger, site)
    pending = _pending(message, out.ledger, site, production=production)
    if not groups:
        reading = _reading(header, "not_relevant", out.ledger, production=production)
        return structs.replace(reading, pending=pending) if pending else reading
    issued = stamp_of(header.timestamp, zone)
    everybody: dict[PatientIdentifier, None] = {}
    confirmations: list[Confirmation] = []
    for pid, of_patient in _by_patient(groups):
        known, doubts = patient_of(pid, production=production)
        if site is not None:
            known = site.named(known)
        everybody |= dict.fromkeys(known)
        if not production:
            doubts = (*doubts, "test-message")
        rows = [row for group in of_patient for row in _rows(group, header, zone, issued, known)]
        enclosed: list[Enclosed] = []
        for group in of_patient:
            if group.documents:
                found = list(documents_in(group, zone, site))
                order = order_of(group, zone, issued)
                sender = f"{header.sending_application}|{header.sending_facility}"
                for one in found:
                    rows += rows_of(one, order, known, sender, rows)
                enclosed += found
        if site is not None:
            rows = [site.applied(row) for row in rows]
        confirmed = [row for row in rows if row.number is NOT_RESENT]
        for row in confirmed:
            row_doubts = (*doubts, *(d for d in row.doubts if not d.startswith("status-")))
            confirmations.append(
                Confirmation(
                    key=row.key, where=row.where, identifiers=known, issued_at=row.issued.at, doubts=row_doubts
                )
            )
        before, faults = len(out.results), len(out.problems)
        assemble(rows, known, doubts, out)
        for group in of_patient:
            _cancelled_order(group, header, known, doubts, zone, issued, out)
        for group in of_patient:
            _hidden(group, known, out)
            _narrated(group, known, len(out.results) > before, out)
        if len(out.results) == before and len(out.problems) == faults:
            for group in of_patient:
                _noted(group, known, out)
            _nameless(of_patient, known, out)
        for one in enclosed:
            _account(one, known, len(out.results) > before, out)
    if out.results and (ward := _ward(message)):
        out.results = [replace(one, order=replace(one.order, ward=ward)) for one in out.results]
    disposition: Literal["results", "unassessable", "not_relevant"] = (
        "results" if out.results else "unassessable" if out.problems else "not_relevant"
    )
    reading = _reading(header, disposition, out.ledger, out, tuple(everybody), production=production)
    if confirmations or pending:
        reading = structs.replace(reading, confirmations=tuple(confirmations), pending=pending)
    return reading


def _reading(
    header: Header,
    disposition: Literal["results", "unassessable", "not_relevant", "set_aside"],
    ledger: Sequence[LedgerEntry],
    out: Assembly | None = None,
    identifiers: tuple[PatientIdentifier, ...] = (),
    *,
    production: bool | None = None,
) -> Reading:
    return Reading(
        format="hl7v2",
        disposition=disposition,
        control_id=header.control_id,
        sender=f"{header.sending_application}|{header.sending_facility}",
        message_type=f"{header.message_code}^{header.trigger}" if header.trigger else header.message_code,
        results=tuple(out.results) if out else (),
        problems=tuple(out.problems) if out else (),
        ledger=tuple(ledger),
        identifiers=identifiers,
        production=header.processing_id not in ("T", "D") if production is None else production,
    )


def _ward(message: Message) -> str:
    """PV1-3.1, the point of care; "" where the message names several."""
    wards = {pv1.component(3) for pv1 in message.segments("PV1")}
    return wards.pop() if len(wards) == 1 else ""


def _pending(
    message: Message, ledger: list[LedgerEntry], site: Site | None, *, production: bool
) -> tuple[tuple[PatientIdentifier, ...], ...]:
    """Whose neutrophil count is in the laboratory: OBX-11 I without a value. N and O promise none."""
    waiting = {entry.where for entry in ledger if entry.reason == "pending"}
    if not waiting:
        return ()
    rows = enumerate(message.segments("OBX"), 1)
    pid = message.segment("PID")
    if pid is None or not any(f"OBX[{n}]" in waiting and row.field(11).upper() == "I" for n, row in rows):
        return ()
    known, doubts = patient_of(pid, production=production)
    return (site.named(known) if site is not None else known,) if known and not doubts else ()


def _set_aside(code: str, where: str, text: str, header: Header | None = None) -> Reading:
    problem = Problem(code, where, text)
    if header is None:
        return Reading(format="hl7v2", disposition="set_aside", problems=(problem,))
    return Reading(format="hl7v2", disposition="set_aside", control_id=header.control_id, problems=(problem,))


def _ledger_of_all(message: Message, reason: str) -> list[LedgerEntry]:
    found = sum(1 for line in message.lines if line[:3] == "OBX")
    return [not_relevant(n + 1, reason) for n in range(found)]


def _by_patient(groups: list[Group]) -> list[tuple[Segment | None, list[Group]]]:
    found: list[tuple[Segment | None, list[Group]]] = []
    for group in groups:
        if found and found[-1][0] is group.pid:
            found[-1][1].append(group)
        else:
            found.append((group.pid, [group]))
    return found


def _rows(
    group: Group, header: Header, zone: ZoneInfo | None, sent: Stamp, patient: tuple[PatientIdentifier, ...]
) -> list[Row]:
    if not group.rows:
        return []
    order = order_of(group, zone, sent)
    return [_row(obx, recognition, group, order, header, zone, patient) for obx, recognition in group.rows]


def _row(
    obx: Segment,
    recognition: Recognition,
    group: Group,
    order: Order,
    header: Header,
    zone: ZoneInfo | None,
    patient: tuple[PatientIdentifier, ...],
) -> Row:
    where = f"OBX[{obx.number}]"
    number, value_sent = number_in(obx)
    unit_sent, unit, conflict = unit_in(obx)
    status, doubts = status_of(obx, order.status)
    doubts = (*doubts, *order.doubts)
    if order.retired and not status.withdrawn:
        doubts = (*doubts, "status-conflict")
    stamp = _collected(obx, order, zone)
    sub_id = obx.field(4)
    spoiled = order.spoiled
    notes = group.row_notes.get(obx.number) if group.row_notes else None
    if notes and not spoiled and any(says_clotted(note) for note in notes):
        spoiled = "specimen-clotted"
    if notes and any(says_aggregated(note) for note in notes):
        doubts = (*doubts, "specimen-aggregates")
    if isinstance(number, Refusal) and value_sent and says_clotted(value_sent):
        spoiled = spoiled or "specimen-clotted"
    low, high = range_of(obx.field(7), unit)
    return Row(
        where=where,
        recognition=recognition,
        number=number,
        value_sent=value_sent,
        value_where=f"{where}-5",
        unit=unit,
        unit_sent=unit_sent,
        unit_where=f"{where}-6",
        unit_conflict=conflict,
        status=status,
        doubts=doubts,
        specimen=order.specimen,
        spoiled=spoiled,
        range_low=low,
        range_high=high,
        stamp=stamp,
        issued=order.issued,
        key=_key(header, order, recognition.coding.code, sub_id, stamp, patient),
        sub_id=sub_id,
        order=order.reference,
        group=(order.specimen_id, stamp.at) if stamp.at is not None else id(group),
    )


def _collected(obx: Segment, order: Order, zone: ZoneInfo | None) -> Stamp:
    """OBX-14, else OBR-7, else SPM-17; never MSH-7, OBR-22 or OBX-19, which are not the specimen's time."""
    own = obx.field(14)
    if not own or own == NULL:
        return order.collected
    stamp = first_stamp(own, obx, zone)
    if stamp.at is not None or not order.timed:
        return stamp
    instead = order.collected
    return instead._replace(doubts=tuple(dict.fromkeys((*stamp.doubts, *instead.doubts))))


def _key(
    header: Header, order: Order, code: str, sub_id: str, stamp: Stamp, patient: tuple[PatientIdentifier, ...]
) -> str:
    """Sender, filler order, analyte and code, sub-id. Anything but the filler order number is marked ``fallback``."""
    sender = f"{header.sending_application}|{header.sending_facility}"
    tail = f"ANC:{code}|{sub_id}"
    if order.reference.filler:
        return f"{sender}|{order.reference.filler}|{tail}"
    if order.reference.placer:
        return f"fallback|{sender}|{order.reference.placer}|{order.panel}|{tail}"
    who = f"{patient[0].authority}:{patient[0].value}" if patient else ""
    when = stamp.at.isoformat() if stamp.at else ""
    return f"fallback|{sender}|{who}|{when}|{tail}"


def _cancelled_order(
    group: Group,
    header: Header,
    patient: tuple[PatientIdentifier, ...],
    doubts: tuple[str, ...],
    zone: ZoneInfo | None,
    sent: Stamp,
    out: Assembly,
) -> None:
    """OBR-25 X (or ORC-1 CA, OC, CR) without any OBX takes back every result under the filler number."""
    obr = group.obr
    if obr is None or group.observations:
        return
    retired = group.orc is not None and group.orc.field(1).upper() in RETIRED
    if obr.field(25).upper() != "X" and not retired:
        return
    parts = [*obr.components(4), *[""] * 6]
    codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
    if not is_blood_count(codings):
        return
    order = order_of(group, zone, sent)
    sender = f"{header.sending_application}|{header.sending_facility}"
    key = f"{sender}|{order.reference.filler}|ANC:"
    if not order.reference.filler:
        key = f"fallback|{sender}|{order.reference.placer}|{order.panel}|ANC:"
    out.results.append(
        LabResult(
            status=ResultStatus.CANCELLED,
            anc=None,
            collected_at=order.collected.at,
            time_known=order.collected.time_known,
            issued_at=order.issued.at,
            trust=Trust.PROVISIONAL if doubts else Trust.ESTABLISHED,
            doubts=doubts,
            identifiers=patient,
            key=key,
            code=codings[0].code,
            code_system=codings[0].system,
            display=codings[0].display,
            where=obr.at(),
            order=order.reference,
        )
    )


def _narrated(group: Group, patient: tuple[PatientIdentifier, ...], counted: bool, out: Assembly) -> None:
    """A blood count whose neutrophils stand in a text: for a person, unless the count itself was sent and read."""
    for obx, reason in group.narratives:
        if counted or not may_hold_a_count(obx, group.obr):
            out.ledger.append(not_relevant(obx.number, reason))
            continue
        out.ledger.append(LedgerEntry(obx.at(), "unassessable", "narrative-only"))
        if not any(p.code == "narrative-only" for p in out.problems):
            words = "a neutrophil count in a text, without a structured result"
            out.problems.append(Problem("narrative-only", obx.at(5), f"{obx.at(5)}: {words}", patient))


def _noted(group: Group, patient: tuple[PatientIdentifier, ...], out: Assembly) -> None:
    """A blood count without neutrophils, and a note (NTE) that tells them: for a person."""
    if not group.told or not (group.rows or may_hold_a_count(None, group.obr)):
        return
    nte = group.told[0]
    out.ledger.append(LedgerEntry(nte.at(), "unassessable", "narrative-only"))
    words = "a neutrophil count in a note, without a structured result"
    out.problems.append(Problem("narrative-only", nte.at(3), f"{nte.at(3)}: {words}", patient))


def _hidden(group: Group, patient: tuple[PatientIdentifier, ...], out: Assembly) -> None:
    words = "a count stands inside another segment, or in none"
    for segment in group.joined:
        where = f"{segment.at()}/segment"
        out.ledger.append(LedgerEntry(where, "unassessable", "segment-joined"))
        out.problems.append(Problem("segment-joined", where, f"{where}: {words}", patient))


def _nameless(groups: list[Group], patient: tuple[PatientIdentifier, ...], out: Assembly) -> None:
    """A blood count without neutrophils, and a number in it that has no code: for a person."""
    found = {g.nameless.at(): g.nameless for g in groups if g.nameless is not None and may_hold_a_count(None, g.obr)}
    if not found:
        return
    out.ledger = [LedgerEntry(e.where, "unassessable", e.reason) if e.where in found else e for e in out.ledger]
    words = "a number without a code in a blood count without neutrophils"
    for obx in found.values():
        out.problems.append(Problem("code-missing", obx.at(3), f"{obx.at(3)}: {words}", patient))


def _account(enclosed: Enclosed, patient: tuple[PatientIdentifier, ...], counted: bool, out: Assembly) -> None:
    """The ledger's word on a document: read (its observations speak for themselves), of no interest, or for a person."""
    obx, document, fault = enclosed
    if document is not None:
        out.ledger.extend(document.ledger)
    if fault is None or counted:
        out.ledger.append(not_relevant(obx.number, "document"))
        return
    code, words = fault
    where = obx.at(5)
    out.ledger.append(LedgerEntry(obx.at(), "unassessable", code))
    out.problems.append(Problem(code, where, f"{where}: {words}", patient))
