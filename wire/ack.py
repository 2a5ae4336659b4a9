"""HL7 v2 acknowledgements: what to answer, built for every version, and read on the sender's side.

Rule of the file: an answer says nothing about a patient, and an acknowledgement is never acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

from wire.er7 import Header, Separators, parse, separators

__all__ = ["Ack", "AckError", "Answers", "Code", "acknowledge", "answers", "read_ack", "verdict"]

Code = Literal["AA", "AE", "AR", "CA", "CE", "CR"]

# Table 0357, the words that go to the sender.
_CONDITIONS = {
    0: "Message accepted",
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    198: "Non-conformant cardinality",
    199: "Other HL7 error",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application internal error",
}

_QUERIES = frozenset("QRY QBP QCN QSB QSX QVR QCK RQQ SPQ VQQ EQQ RQA RQC RQI RQP RQ1 SQM SQR NMQ OSQ VXQ UDM".split())
_ORDERS = frozenset("ORM OML OMG OMP OMN OMS OMD OMI OMB OMQ RDE RDO RAR REF RPI RPL RPR BPS".split())
UNSUPPORTED = _QUERIES | _ORDERS
"""Message types that ask us to do something: taking them with AA would be a promise nobody keeps."""


@dataclass(frozen=True, slots=True)
class AckError:
    """``condition`` from table 0357; ``location`` as segment^sequence^field; ``text`` without anything of the patient."""

    condition: int
    text: str = ""
    location: tuple[str, ...] = ()
    severity: Literal["E", "F", "I", "W"] = "E"

    @property
    def words(self) -> str:
        return _CONDITIONS.get(self.condition, "Error")


@dataclass(frozen=True, slots=True)
class Answers:
    """Which answers the sender wants. Each condition is from table 0155: AL always, NE never, ER on error, SU on success."""

    enhanced: bool
    accept: str
    application: str

    def wants_accept(self, code: Code) -> bool:
        """Enhanced mode: does a commit acknowledgement with this code (CA, CE, CR) go out?"""
        return self.enhanced and _wanted(self.accept, code)

    def wants_application(self, code: Code) -> bool:
        """Does an application acknowledgement with this code (AA, AE, AR) go out? In original mode always."""
        return _wanted(self.application, code)


def _wanted(condition: str, code: Code) -> bool:
    success = code in ("AA", "CA")
    return condition == "AL" or (condition == "SU" and success) or (condition == "ER" and not success)


_NONE = Answers(True, "NE", "NE")
_ORIGINAL = Answers(False, "NE", "AL")


def answers(header: Header | None, *, has_msa: bool = False) -> Answers:
    """Original mode when MSH-15 and MSH-16 are both empty, else enhanced. ``has_msa``: the message carries an MSA.

    An unreadable header is answered as in original mode. An unknown condition counts as AL: a sender that waits
    in vain stops its queue, one answer too many is only dropped.
    """
    if header is None:
        return _ORIGINAL
    if has_msa or header.message_code in ("ACK", "MCF") or header.trigger == "ACK":
        return _NONE
    if not header.accept_ack and not header.application_ack:
        return _ORIGINAL
    return Answers(True, _condition(header.accept_ack), _condition(header.application_ack))


def _condition(given: str) -> str:
    if not given:
        return "NE"
    return given.upper() if given.upper() in ("AL", "NE", "ER", "SU") else "AL"


def verdict(header: Header | None) -> tuple[Code, AckError | None]:
    """The code for a message that is stored, or that never will be. In enhanced mode the accept code (CA, CR)."""
    if header is None:
        return "AR", AckError(100, "No readable MSH segment", ("MSH", "1"))
    if not header.message_code and not header.control_id:
        return "AR", AckError(100, "No readable MSH segment", ("MSH", "1"))
    enhanced = answers(header).enhanced
    if not header.message_code:
        return ("CR" if enhanced else "AR"), AckError(200, "MSH-9 is missing", ("MSH", "1", "9"))
    if header.message_code in UNSUPPORTED:
        error = AckError(200, "Queries and orders are not answered here", ("MSH", "1", "9"))
        return ("CR" if enhanced else "AR"), error
    return ("CA" if enhanced else "AA"), None


_BLANK = Header._make([""] * 9 + ["P", "2.5", "", "", "", "|", "^~\\&", "utf-8"])


def acknowledge(
    header: Header | None,
    code: Code,
    *,
    control_id: str,
    now: datetime,
    error: AckError | None = None,
) -> bytes:
    """The whole answer, CR-terminated. ``control_id`` is ours (MSH-10); ``now`` aware. MSA-2 echoes MSH-10."""
    head = header or _BLANK
    marks = head.separators
    if not marks.distinct or any(map(str.isalnum, marks)):
        # Letters as separators would cut our own words: nobody could read the answer.
        marks = separators("|", "^~\\&")
    given = head.encoding_characters if head.separators is marks or head.separators == marks else "^~\\&"
    version = head.version or "2.5"
    segments = [
        _msh(head, marks, given, control_id, now, version),
        _msa(header, marks, code, version, error),
    ]
    if error is not None:
        segments.append(_err(marks, version, error))
    text = "".join(segment.rstrip(marks.field) + "\r" for segment in segments)
    return text.encode(head.codec, errors="replace")


def _msh(head: Header, marks: Separators, given: str, control_id: str, now: datetime, version: str) -> str:
    stamp = _stamp(now.replace(microsecond=0))
    if head.trigger and _release(version) >= (2, 3, 1):
        kind = marks.component.join(
            ("ACK", head.trigger, "ACK") if head.structure or _release(version) >= (2, 4) else ("ACK", head.trigger)
        )
    else:
        kind = "ACK"
    fields = [
        head.receiving_application,
        head.receiving_facility,
        head.sending_application,
        head.sending_facility,
        stamp,
        "",
        kind,
        control_id,
        head.processing_id or "P",
        version,
        "",
        "",
        "",
        "",
        "",
        head.charset,
    ]
    return "MSH" + marks.field + given + marks.field + marks.field.join(fields)


def _msa(header: Header | None, marks: Separators, code: Code, version: str, error: AckError | None) -> str:
    # MSA-2 echoes MSH-10 as it came (HL7 v2.5.1, 2.14.8); without a readable MSH there is nothing to echo.
    fields = ["MSA", code, header.control_id if header else ""]
    if error is not None and _release(version) < (2, 5):
        fields.append(_escaped(error.text or error.words, marks)[:80])
    return marks.field.join(fields)


def _err(marks: Separators, version: str, error: AckError) -> str:
    join = marks.component.join
    coded = (str(error.condition), error.words, "HL70357")
    if _release(version) < (2, 5):
        # ERR-1 is all there is: segment, sequence, field, code and meaning as sub-components (HL7 v2.4, 2.16.5).
        place = [*error.location[:3], "", "", ""][:3]
        return marks.field.join(("ERR", join((*place, marks.subcomponent.join(coded)))))
    fields = ["ERR", "", join(error.location), join(coded), error.severity]
    if error.text:
        fields += ["", "", "", _escaped(error.text, marks)]
    return marks.field.join(fields)


def _escaped(text: str, marks: Separators) -> str:
    e = marks.escape
    table = {marks.field: "F", marks.component: "S", marks.subcomponent: "T", marks.repetition: "R", e: "E"}
    out = "".join(f"{e}{table[c]}{e}" if c in table else c for c in text)
    return " ".join(out.split())


@lru_cache(maxsize=4)
def _stamp(second: datetime) -> str:
    # A thousand answers a second share one; strftime costs more than the rest of the segment.
    return second.strftime("%Y%m%d%H%M%S%z")


@lru_cache(maxsize=64)
def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(p) for p in parts) if all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts) else (2, 5)


@dataclass(frozen=True, slots=True)
class Ack:
    """An answer as it came: MSA-1, MSA-2, the sender's words, and the 0357 conditions of its ERR segments."""

    code: str
    control_id: str
    text: str = ""
    errors: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.code in ("AA", "CA")

    @property
    def rejected(self) -> bool:
        return self.code in ("AR", "CR")


def read_ack(raw: bytes) -> Ack | None:
    """The answer in ``raw``, or None when it has no MSA: then it answers nothing."""
    message = parse(raw)
    msa = message.segment("MSA") if message else None
    if message is None or msa is None:
        return None
    errors: list[str] = []
    words: list[str] = [msa.component(3)]
    if msa.field(6):
        errors.append(msa.component(6))
    for err in message.segments("ERR"):
        located = err.components(1)
        old = (
            err.split_subcomponents(err.field(1).split(message.separators.component)[3])[0] if len(located) > 3 else ""
        )
        errors += [code for code in (err.component(3), old) if code]
        words += [err.component(7), err.component(8), err.component(3, 2)]
    return Ack(
        code=msa.component(1).upper(),
        control_id=msa.field(2),
        text="; ".join(dict.fromkeys(w for w in words if w)),
        errors=tuple(dict.fromkeys(errors)),
    )
