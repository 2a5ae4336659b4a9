"""Reads one HL7 v2 message (ORU, OUL and what labs really send) into results, or into the reasons why not.

Rule of the file: by position and proximity, not by grammar: every OBX is walked wherever it stands, and leaves one entry in
the ledger. What says nothing of neutrophils or leukocytes is decided on OBX-3 alone, from a cache.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from ingest.reading.assembly import Assembly, assemble
from ingest.reading.codes import Coding, Recognition, is_blood_count, is_laboratory_document, recognise, specimen_of
from ingest.reading.outcome import LedgerEntry, Problem, Reading
from ingest.reading.patients import patient_of
from ingest.reading.rows import Row
from ingest.reading.times import UNREADABLE, Stamp, stamp_of
from ingest.reading.units import unit_of_components
from ingest.reading.v2fields import entity_of, is_pending, number_in, range_of, status_of
from rules.model import LabResult, OrderReference, PatientIdentifier, ResultStatus, Trust
from wire.ack import UNSUPPORTED
from wire.er7 import Header, Message, Segment, Separators, parse

__all__ = ["read_hl7v2"]

# Messages whose OBX are no results of today: identities, appointments, orders, queries, answers.
_NOT_RESULTS = UNSUPPORTED | frozenset(
    "ADT ACK MCF SIU SRM MFN MFK BAR DFT PMU QBP RSP ORR ORL RRE RRD PEX CRM NMD".split()
)
_RETIRED = frozenset(("CA", "OC", "CR"))
_CLOTTED = re.compile(
    r"(?:pr[eé]l[eè]vement|[eé]chantillon|tube|sang|specimen|sample|blood|probe|blut)\W+(?:\w+\W+){0,3}?"
    r"(?:coagul|clott|caill|geronnen)|"
    r"(?:clotted|geronnene)\s+(?:blood|sample|specimen|probe)|caillots?\b|\bclots? (?:present|seen)",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:no|not|non|pas|sans|without|kein\w*|nicht|absence|un)\b\W*(?:\w+\W+){0,2}\Z", re.IGNORECASE)


@dataclass(slots=True)
class _Group:
    """One OBR with what stands around it."""

    pid: Segment | None
    orc: Segment | None = None
    obr: Segment | None = None
    specimens: list[Segment] = field(default_factory=list)
    rows: list[tuple[Segment, Recognition]] = field(default_factory=list)
    documents: list[Segment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    row_notes: dict[int, list[str]] = field(default_factory=dict)
    observations: int = 0


def _recognise(text: str, marks: Separators, codec: str) -> Recognition:
    """The claims of a raw OBX-3: both triplets and the original text."""
    segment = Segment("", 0, marks, codec)
    parts = [*segment.split_components(text.split(marks.repetition, 1)[0]), *[""] * 9]
    codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
    if not codings and not parts[8]:
        return _NAMELESS
    return recognise(codings, parts[8])


_NAMELESS = Recognition(None, (), False, Coding(""), False, "code-missing")
_KNOWN_LIMIT = 8192
# Plain dictionaries, looked up once a message by its separators: most OBX of a feed are decided here and nowhere else.
_known: dict[tuple[Separators, str], dict[str, Recognition]] = {}
_entries: dict[str, list[LedgerEntry]] = {}


def _known_for(marks: Separators, codec: str) -> dict[str, Recognition]:
    if len(_known) > 64:
        _known.clear()
    found = _known.setdefault((marks, codec), {})
    if len(found) > _KNOWN_LIMIT:
        found.clear()
    return found


def _not_relevant(number: int, reason: str) -> LedgerEntry:
    """One shared entry for each place and reason."""
    if number > 500:
        return LedgerEntry(f"OBX[{number}]", "not_relevant", reason)
    made = _entries.get(reason)
    if made is None:
        made = _entries[reason] = [LedgerEntry(f"OBX[{n}]", "not_relevant", reason) for n in range(501)]
    return made[number]


def read_hl7v2(raw: bytes, *, zone: ZoneInfo | None = None) -> Reading:
    """One message. Never raises for any bytes; what is no HL7 message is set aside."""
    message = parse(raw)
    if message is None:
        return _set_aside("msh-missing", "MSH[1]", "MSH[1]: no readable MSH segment")
    header = message.header
    if not message.separators.distinct:
        return _set_aside("separators", "MSH[1]-2", "MSH[1]-2: the separators are not distinct", header)
    if not header.message_code:
        return _set_aside("message-type-missing", "MSH[1]-9", "MSH[1]-9: no message type", header)
    if header.processing_id == "Q":
        return _reading(header, "not_relevant", _ledger_of_all(message, "quality-control"), production=True)
    if header.message_code in _NOT_RESULTS:
        return _reading(header, "not_relevant", _ledger_of_all(message, "message-type"))
    irrelevant = _nothing_of_ours(message)
    if irrelevant is not None:
        return _reading(header, "not_relevant", irrelevant)
    return _read_results(message, zone)


@lru_cache(maxsize=16)
def _observations(field: str) -> re.Pattern[str]:
    """Every OBX of a message in one pass: OBX-2 and OBX-3."""
    sep = re.escape(field)
    return re.compile(rf"\rOBX{sep}[^{sep}\r]*{sep}([^{sep}\r]*){sep}([^{sep}\r]*)")


def _nothing_of_ours(message: Message) -> list[LedgerEntry] | None:
    """The ledger of a message whose every OBX is known to be of no interest; None: it must be walked.

    The way of 99 messages in 100. Anything out of the ordinary (several OBR, a document, an OBX cut short, a code
    not seen before) is left to the walk, which gives the same answer.
    """
    text = message.text
    found = _observations(message.separators.field).findall(text)
    if not found or len(found) != text.count("\rOBX"):
        return None
    if text.count("\rOBR") > 1 or text.find("\rOBR") > text.find("\rOBX"):
        return None
    if f"\rORC{message.separators.field}PR" in text:
        return None
    known = _known_for(message.separators, message.codec)
    ledger: list[LedgerEntry] = []
    for number, (kind, code) in enumerate(found, 1):
        recognition = known.get(code)
        if recognition is None or recognition.claim is not None or kind in ("ED", "RP"):
            return None
        ledger.append(_not_relevant(number, recognition.reason))
    return ledger


def _read_results(message: Message, zone: ZoneInfo | None) -> Reading:
    header = message.header
    production = header.processing_id not in ("T", "D")
    out = Assembly()
    groups = _groups(message, out)
    issued = stamp_of(header.timestamp, zone) if groups else UNREADABLE
    identifiers: tuple[PatientIdentifier, ...] = ()
    for pid, of_patient in _by_patient(groups):
        known, doubts = patient_of(pid, production=production)
        identifiers += tuple(i for i in known if i not in identifiers)
        if not production:
            doubts = (*doubts, "test-message")
        rows = [row for group in of_patient for row in _rows(group, header, zone, issued, known)]
        before = len(out.results)
        assemble(rows, known, doubts, out)
        for group in of_patient:
            _cancelled_order(group, header, known, doubts, zone, issued, out)
            _documents(group, known, len(out.results) > before, out)
    disposition: Literal["results", "unassessable", "not_relevant"] = (
        "results" if out.results else "unassessable" if out.problems else "not_relevant"
    )
    return _reading(header, disposition, out.ledger, out, identifiers, production=production)


def _reading(
    header: Header,
    disposition: Literal["results", "unassessable", "not_relevant", "set_aside"],
    ledger: list[LedgerEntry],
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


def _set_aside(code: str, where: str, text: str, header: Header | None = None) -> Reading:
    problem = Problem(code, where, text)
    if header is None:
        return Reading(format="hl7v2", disposition="set_aside", problems=(problem,))
    return Reading(format="hl7v2", disposition="set_aside", control_id=header.control_id, problems=(problem,))


def _ledger_of_all(message: Message, reason: str) -> list[LedgerEntry]:
    found = sum(1 for line in message.lines if line[:3] == "OBX")
    return [_not_relevant(n + 1, reason) for n in range(found)]


def _groups(message: Message, out: Assembly) -> list[_Group]:
    """Walk the segments once. Only groups that hold something to read come back; every other OBX is in the ledger."""
    marks, codec = message.separators, message.codec
    sep = marks.field
    known = _known_for(marks, codec)
    specimen_first = message.header.message_code == "OUL"
    groups: list[_Group] = []
    group = _Group(None)
    pid: Segment | None = None
    orc: Segment | None = None
    standing: list[Segment] = []
    counts: dict[str, int] = {}
    number = 0
    last_row = 0
    prior = False
    for line in message.lines:
        name = line[:3]
        if name == "OBX":
            number += 1
            last_row = 0
            group.observations += 1
            parts = line.split(sep, 4)
            code = parts[3] if len(parts) > 3 else ""
            recognition = known.get(code)
            if recognition is None:
                recognition = known[code] = _recognise(code, marks, codec)
            if prior:
                out.ledger.append(_not_relevant(number, "prior-result"))
            elif recognition.claim is not None:
                obx = Segment(line, number, marks, codec)
                if is_pending(obx):
                    out.ledger.append(_not_relevant(number, "pending"))
                else:
                    group.rows.append((obx, recognition))
                    last_row = number
            elif len(parts) > 3 and parts[2] in ("ED", "RP"):
                group.documents.append(Segment(line, number, marks, codec))
            else:
                out.ledger.append(_not_relevant(number, recognition.reason))
            continue
        if name not in _CONTEXT:
            continue
        counts[name] = counts.get(name, 0) + 1
        segment = Segment(line, counts[name], marks, codec)
        if name == "NTE":
            note = segment.field(3)
            if note:
                (group.row_notes.setdefault(last_row, []) if last_row else group.notes).append(note)
            continue
        last_row = 0
        if name == "PID":
            pid = segment
            orc, prior = None, False
            group = _Group(pid)
            groups.append(group)
        elif name == "ORC":
            orc = segment
            # ORC-1 PR: previous results that travel with a new one (table 0119).
            prior = segment.field(1).upper() == "PR"
        elif name == "OBR":
            group = _Group(pid, orc, segment)
            if specimen_first:
                group.specimens = list(standing)
            groups.append(group)
            orc = None
            if groups[-1].orc is None:
                prior = False
        elif specimen_first:
            if group.observations or group.obr is not None:
                standing = []
            standing.append(segment)
        else:
            group.specimens.append(segment)
        if not groups:
            groups.append(group)
    if not groups:
        groups.append(group)
    return [g for g in groups if g.rows or g.documents or (g.obr is not None and not g.observations)]


_CONTEXT = frozenset(("PID", "ORC", "OBR", "SPM", "NTE"))


def _by_patient(groups: list[_Group]) -> list[tuple[Segment | None, list[_Group]]]:
    found: list[tuple[Segment | None, list[_Group]]] = []
    for group in groups:
        if found and found[-1][0] is group.pid:
            found[-1][1].append(group)
        else:
            found.append((group.pid, [group]))
    return found


@dataclass(slots=True)
class _Around:
    """What OBR, ORC and SPM say for every row of a group."""

    filler: str
    placer: str
    panel: str
    status: str
    collected: str
    issued: str
    specimen: Literal["blood", "fluid", "unknown"]
    specimen_id: str
    spoiled: str
    mixed: bool


def _around(group: _Group) -> _Around:
    obr, orc = group.obr, group.orc
    filler = (entity_of(obr, 3) if obr else "") or (entity_of(orc, 3) if orc else "")
    placer = (entity_of(obr, 2) if obr else "") or (entity_of(orc, 2) if orc else "")
    kinds: list[Literal["blood", "fluid", "unknown"]] = []
    spoiled = ""
    collected = obr.field(7) if obr else ""
    if obr and obr.field(15):
        parts = obr.components(15)
        first = obr.split_subcomponents(obr.field(15).split(obr.separators.component)[0])
        kinds.append(specimen_of((first[0],), (*first[1:2], *parts[1:3])))
    for spm in group.specimens:
        parts = [*spm.components(4), *[""] * 5]
        kinds.append(specimen_of((parts[0], parts[3]), (parts[1], parts[4])))
        condition = " ".join(spm.components(24)).upper()
        if "CLOT" in condition or "COAGUL" in condition:
            spoiled = "specimen-clotted"
        elif spm.field(21) and not spm.is_null(21):
            spoiled = spoiled or "specimen-rejected"
        collected = collected or spm.component(17)
    if obr and "unknown" in (kinds or ["unknown"]):
        panel = obr.components(4)
        kinds.append(specimen_of((), tuple(panel[i] for i in (1, 4) if i < len(panel))))
    if not spoiled and any(_says_clotted(note) for note in group.notes):
        spoiled = "specimen-clotted"
    said = {k for k in kinds if k != "unknown"}
    return _Around(
        filler=filler,
        placer=placer,
        panel=obr.component(4) if obr else "",
        status=obr.field(25).upper() if obr else "",
        collected=collected,
        issued=obr.field(22) if obr else "",
        specimen="blood" if "blood" in said else "fluid" if said else "unknown",
        specimen_id=group.specimens[0].field(2) if len(group.specimens) == 1 else "",
        spoiled=spoiled,
        mixed=len(said) > 1,
    )


def _says_clotted(note: str) -> bool:
    """A phrase that says the specimen clotted, unless a denial stands before it."""
    if len(note) > 4000:
        return False
    for match in _CLOTTED.finditer(note):
        words = note[max(0, match.start() - 30) : match.end()]
        if not _DENIED.search(words[: len(words) - len(match.group())]) and not re.search(
            r"\b(?:no|not|non|pas|sans|without|nicht)\b", match.group(), re.IGNORECASE
        ):
            return True
    return False


def _rows(
    group: _Group, header: Header, zone: ZoneInfo | None, sent: Stamp, patient: tuple[PatientIdentifier, ...]
) -> list[Row]:
    if not group.rows:
        return []
    around = _around(group)
    return [_row(obx, recognition, group, around, header, zone, sent, patient) for obx, recognition in group.rows]


def _row(
    obx: Segment,
    recognition: Recognition,
    group: _Group,
    around: _Around,
    header: Header,
    zone: ZoneInfo | None,
    sent: Stamp,
    patient: tuple[PatientIdentifier, ...],
) -> Row:
    where = obx.at()
    number, value_sent = number_in(obx, header)
    unit_sent, unit, conflict = unit_of_components(tuple(obx.components(6)) or ("",))
    if unit_sent == '""':
        unit_sent = ""
    status, doubts = status_of(obx, around.status)
    if around.mixed:
        doubts = (*doubts, "specimen-ambiguous")
    stamp = _collected(obx, around, zone)
    sub_id = obx.field(4)
    spoiled = around.spoiled
    if not spoiled and any(_says_clotted(n) for n in group.row_notes.get(obx.number, ())):
        spoiled = "specimen-clotted"
    low, high = range_of(obx.field(7))
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
        specimen=around.specimen,
        spoiled=spoiled,
        range_low=low,
        range_high=high,
        stamp=stamp,
        issued=stamp_of(around.issued, zone) if around.issued else sent,
        key=_key(header, around, recognition.coding.code, sub_id, stamp, patient),
        sub_id=sub_id,
        order=OrderReference(placer=around.placer, filler=around.filler),
        group=(around.specimen_id, stamp.at) if stamp.at is not None else id(group),
    )


def _collected(obx: Segment, around: _Around, zone: ZoneInfo | None) -> Stamp:
    """OBX-14, else OBR-7, else SPM-17; never MSH-7, OBR-22 or OBX-19, which are not the specimen's time."""
    own = obx.field(14)
    if own and own != '""':
        stamp = stamp_of(own.split(obx.separators.component, 1)[0], zone)
        if stamp.at is not None or not around.collected:
            return stamp
        instead = stamp_of(around.collected.split(obx.separators.component, 1)[0], zone)
        return instead._replace(doubts=tuple(dict.fromkeys((*stamp.doubts, *instead.doubts))))
    if around.collected:
        return stamp_of(around.collected.split(obx.separators.component, 1)[0], zone)
    return Stamp(None, True, ("collection-time-missing",))


def _key(
    header: Header, around: _Around, code: str, sub_id: str, stamp: Stamp, patient: tuple[PatientIdentifier, ...]
) -> str:
    """Sender, filler order, analyte and code, sub-id. Anything but the filler order number is marked ``fallback``."""
    sender = f"{header.sending_application}|{header.sending_facility}"
    tail = f"ANC:{code}|{sub_id}"
    if around.filler:
        return f"{sender}|{around.filler}|{tail}"
    if around.placer:
        return f"fallback|{sender}|{around.placer}|{around.panel}|{tail}"
    who = f"{patient[0].authority}:{patient[0].value}" if patient else ""
    when = stamp.at.isoformat() if stamp.at else ""
    return f"fallback|{sender}|{who}|{when}|{tail}"


def _cancelled_order(
    group: _Group,
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
    retired = group.orc is not None and group.orc.field(1).upper() in _RETIRED
    if obr.field(25).upper() != "X" and not retired:
        return
    parts = [*obr.components(4), *[""] * 6]
    codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
    if not is_blood_count(codings):
        return
    around = _around(group)
    stamp = stamp_of(around.collected.split(obr.separators.component, 1)[0], zone) if around.collected else Stamp(None)
    all_doubts = (*doubts, "order-cancelled")
    out.results.append(
        LabResult(
            status=ResultStatus.CANCELLED,
            anc=None,
            collected_at=stamp.at,
            time_known=stamp.time_known,
            issued_at=(stamp_of(around.issued, zone) if around.issued else sent).at,
            trust=Trust.PROVISIONAL,
            doubts=all_doubts,
            identifiers=patient,
            key=f"{header.sending_application}|{header.sending_facility}|{around.filler or around.placer}|ANC:",
            code=codings[0].code,
            code_system=codings[0].system,
            display=codings[0].display,
            where=obr.at(),
            order=OrderReference(placer=around.placer, filler=around.filler),
        )
    )


def _documents(group: _Group, patient: tuple[PatientIdentifier, ...], counted: bool, out: Assembly) -> None:
    """A laboratory report that came as a document only: somebody must read it."""
    for obx in group.documents:
        if counted or not _may_hold_a_count(obx, group.obr):
            out.ledger.append(_not_relevant(obx.number, "document"))
        else:
            where = obx.at(5)
            out.ledger.append(LedgerEntry(obx.at(), "unassessable", "document-not-read"))
            out.problems.append(
                Problem("document-not-read", where, f"{where}: a laboratory report as a document", patient)
            )


def _may_hold_a_count(obx: Segment, obr: Segment | None) -> bool:
    for segment, position in ((obx, 3), (obr, 4)):
        if segment is None:
            continue
        parts = [*segment.components(position), *[""] * 6]
        codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
        if is_laboratory_document(codings) or is_blood_count(codings):
            return True
    return False
