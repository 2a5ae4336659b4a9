"""The segments that every HL7 v2 alert is made of: header, patient, and rows of what is concluded, counted and to be done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal

from emitters.charsets import CHARSETS
from emitters.counts import UCUM_UNIT, giga_per_litre, letter
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, LabResult, PatientIdentifier, ResultStatus, Subject
from rules.silence import ENDED, about_system
from rules.wording import WORDS, Words

__all__ = [
    "Row",
    "V2Profile",
    "deleted",
    "filler_number",
    "msh",
    "number_of",
    "obx",
    "own_number",
    "pid",
    "rows",
    "stamp",
    "text_of",
]

_OURS: Final = "99NEUTROFLAG"
_VERSIONS: Final = ("2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7")


Row = tuple[str, str, str, str, str, str, str, str, str]
"""OBX-2, 3, 4, 5, 6, 7, 8, 11 and 14."""


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Profile:
    """What a destination wants in the header. ``accept_ack`` ``AL`` asks for enhanced mode (MSH-15, MSH-16 = NE).

    ``shape``: results, or documents for a system that takes no results of third parties.
    """

    shape: Literal["ORU_R01", "MDM_T02"] = "ORU_R01"

    sending_application: str = "NEUTROFLAG"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    version: str = "2.5"
    charset: str = "UNICODE UTF-8"
    country: str = "FRA"
    accept_ack: str = ""
    profile_id: str = "NEUTROFLAG_ALERT_1"
    words: Mapping[str, Words] = field(default_factory=lambda: WORDS)
    """The site's, by language."""

    def __post_init__(self) -> None:
        if self.charset not in CHARSETS:
            raise ValueError(f"charset {self.charset!r}: expected one of {', '.join(filter(None, CHARSETS))}")
        if self.version not in _VERSIONS:
            raise ValueError(f"version {self.version!r}: expected one of {', '.join(_VERSIONS)}")

    @property
    def coded_type(self) -> str:
        # Table 0125: CE and TS were withdrawn in 2.6.
        return "CE" if self.version < "2.6" else "CWE"

    @property
    def date_type(self) -> str:
        return "TS" if self.version < "2.6" else "DT"


_DECISION_FLAG: Final = {AlertLevel.CRITICAL: "AA", AlertLevel.RED: "AA", AlertLevel.AMBER: "A"}
_SEX: Final = {"male": "M", "female": "F", "other": "O", "unknown": "U"}


def filler_number(alert_id: str) -> str:
    """OBR-3.1 of an alert: the first 60 random bits of its uuid, which every receiver's column holds.

    >>> filler_number("a32b4821-51a4-5253-b956-d3b932eed8fc")
    'a32b482151a45253'
    """
    return re.sub(r"[^A-Za-z0-9]", "", alert_id)[:16]


# Not hexadecimal, so that no other alert has that number.
_OF_A_COPY: Final = {"pharmacist": "p", "laboratory": "l"}


def number_of(alert: Alert) -> str:
    """OBR-3.1 and TXA-12.1: of the alert, or of the copy for a second recipient, which is a message of its own. Under one
    number a system that gets both would file the second over the first, and its answer be the prescriber's.
    """
    number = filler_number(alert.id)
    return f"{number[:15]}{_OF_A_COPY[alert.recipient]}" if alert.recipient else number


def msh(kind: str, alert: Alert, control_id: str, profile: V2Profile, at: str) -> str:
    """``kind`` is MSH-9."""
    enhanced = (profile.accept_ack, "NE") if profile.accept_ack else ("", "")
    fields = [
        "MSH",
        "^~\\&",
        *map(
            text_of,
            (
                profile.sending_application,
                profile.sending_facility,
                profile.receiving_application,
                profile.receiving_facility,
            ),
        ),
        at,
        "",
        kind,
        control_id,
        "P" if alert.production else "T",
        profile.version,
        "",
        "",
        *enhanced,
        text_of(profile.country),
        profile.charset,
        "",
        "",
        # MSH-21 is an EI from 2.5 on, one ID in 2.4, and not there before.
        f"{text_of(profile.profile_id)}^NEUTROFLAG" if profile.profile_id and profile.version >= "2.5" else "",
    ]
    return "|".join(fields)


def pid(subject: Subject) -> str:
    person = subject.person
    # PID-5 is required; name type U says that it is not known (table 0200).
    name = f"{text_of(person.family)}^{text_of(person.given)}^^^^^L" if person.family or person.given else "^^^^^^U"
    born = person.birth_date.strftime("%Y%m%d") if person.birth_date else ""
    sex = _SEX.get(person.sex.lower(), person.sex if person.sex in ("A", "F", "M", "N", "O", "U") else "")
    return f"PID|1||{'~'.join(map(_cx, subject.identifiers))}||{name}||{born}|{sex}"


def _cx(one: PatientIdentifier) -> str:
    """An identifier back in CX: authorities that the reader normalised become what a v2 system compares.

    >>> _cx(PatientIdentifier("405660", "urn:oid:1.2.3", "PI"))
    '405660^^^&1.2.3&ISO^PI'
    """
    authority = one.authority
    if authority.startswith("urn:oid:"):
        assigner = f"&{text_of(authority[8:])}&ISO"
    elif ":" in authority:
        assigner = f"&{text_of(authority)}&URI"
    else:
        assigner = text_of(authority)
    return f"{text_of(one.value)}^^^{assigner}^{text_of(one.type)}".rstrip("^")


def own_number(alert: Alert, profile: V2Profile) -> str:
    return f"{number_of(alert)}^{text_of(profile.sending_application)}"


def rows(alert: Alert, profile: V2Profile, words: Words, at: str) -> list[Row]:
    """What the OBX segments say. A withdrawal keeps a text that shows: many systems hide what is deleted (OBX-11 D, W)."""
    status, text_status = _statuses(alert)
    withdrawn, answered = alert.kind is AlertKind.WITHDRAWN, alert.kind is AlertKind.ANSWERED
    system = about_system(alert.family, alert.reason)
    family = words.v2_conclusions["system" if system else alert.family.value]
    decision = f"{'SYSTEM' if system else alert.family.value}^{text_of(family)}^{_OURS}"
    if withdrawn and not deleted(alert):
        code, what = ("ANC-ENDED", words.v2["ended"]) if _ended(alert) else ("ANC-WITHDRAWN", words.v2["withdrawn"])
        decision = f"{code}^{text_of(f'{what} ({family})')}^{_OURS}"
    elif answered:
        decision = f"ANC-ANSWERED^{text_of(words.v2['answered'] + f' ({family})')}^{_OURS}"
    flag = "" if withdrawn or answered else _DECISION_FLAG.get(alert.level, "")
    found = [(profile.coded_type, _ours("ANC-DECISION", words.v2["decision"]), "", decision, "", "", flag, status, at)]
    if alert.family is AlertFamily.REVIEW and alert.reason and not withdrawn:
        reason = f"{text_of(alert.reason)}^{text_of(alert.reason)}^{_OURS}"
        found.append((profile.coded_type, _ours("ANC-REASON", words.v2["reason"]), "", reason, "", "", "", status, at))
    if (count := _count(alert, words)) is not None:
        found.append(count)
    found.append(("TX", _ours("ANC-TEXT", words.v2["text"]), "", _lines(alert, words), "", "", "", text_status, at))
    assessment = alert.assessment
    due = assessment.next_due.isoformat().replace("-", "") if assessment and assessment.next_due else ""
    # A date that no longer holds is taken back in so many words: a row left out would stay as it was.
    gone = not due and alert.kind is not AlertKind.RAISED and alert.family is not AlertFamily.REVIEW
    if due or gone:
        due_status = "D" if gone and not deleted(alert) else status
        found.append((profile.date_type, _ours("ANC-NEXT-DUE", words.v2["due"]), "", due, "", "", "", due_status, at))
    if assessment is not None:
        rule = text_of(f"{assessment.rule} {assessment.protocol}")
        found.append(("ST", _ours("ANC-RULE", words.v2["rule"]), "", rule, "", "", "", status, at))
    return found


def obx(
    number: int, kind: str, code: str, sub: str, value: str, unit: str, range_: str, flag: str, status: str, at: str
) -> str:
    # OBX-4 is conditional; some receivers and versions want it on every row.
    return f"OBX|{number}|{kind}|{code}|{sub or 1}|{value}|{unit}|{range_}|{flag}|||{status}|||{at}"


def _ours(code: str, text: str) -> str:
    return f"{code}^{text_of(text)}^{_OURS}"


def _count(alert: Alert, words: Words) -> Row | None:
    """The judged count. NM cannot carry a comparator; SN is made for it. None where nothing could be judged.

    A count that the laboratory took back is a row without a value whose status deletes the one sent before.
    """
    result = alert.result
    if result is None or alert.family is AlertFamily.REVIEW:
        return None
    if result.anc is None:
        if alert.kind is AlertKind.RAISED:
            return None
        status = _statuses(alert)[0] if deleted(alert) else "D"
        code = f"26499-4^{text_of(words.v2_count)}^LN"
        return "NM", code, text_of(result.sub_id), "", f"{UCUM_UNIT}^^UCUM", "", "", status, stamp(alert.updated_at)
    anc, threshold = result.anc, alert.assessment.threshold_per_mm3 if alert.assessment else None
    value = f"{giga_per_litre(anc.per_mm3):f}"
    kind, sent = ("SN", f"{anc.comparator}^{value}") if anc.comparator else ("NM", value)
    code = f"26499-4^{text_of(words.v2_count)}^LN"
    if result.code and result.code != "26499-4" and not anc.derived and "code-unit-conflict" not in result.doubts:
        system = "LN" if result.code_system == "http://loinc.org" else result.code_system or "L"
        code += f"^{text_of(result.code)}^{text_of(result.display)}^{text_of(system)}"
    limit = f">={giga_per_litre(threshold):f}" if threshold is not None else ""
    at = stamp(result.collected_at, result.time_known) if result.collected_at else ""
    status = _count_status(alert, result)
    return kind, code, text_of(result.sub_id), sent, f"{UCUM_UNIT}^^UCUM", limit, letter(alert, anc) or "", status, at


def _count_status(alert: Alert, result: LabResult) -> str:
    if deleted(alert):
        return _statuses(alert)[0]
    if result.status is ResultStatus.PRELIMINARY:
        return "P"
    return "F" if alert.kind is AlertKind.RAISED and result.status is ResultStatus.FINAL else "C"


def _statuses(alert: Alert) -> tuple[str, str]:
    """OBX-11 of what we conclude, and of the text. W: posted as wrong, e.g. on another patient; D: deleted."""
    if deleted(alert):
        cancelled = alert.result is not None and alert.result.status is ResultStatus.CANCELLED
        return ("D" if cancelled else "W"), "C"
    return ("F", "F") if alert.kind is AlertKind.RAISED else ("C", "C")


def deleted(alert: Alert) -> bool:
    return alert.kind is AlertKind.WITHDRAWN and alert.reason == "entered-in-error"


def _ended(alert: Alert) -> bool:
    """What was missing has come, or a connection is back: nothing was wrong, and nothing is taken back."""
    return alert.reason == ENDED or about_system(alert.family, alert.reason)


def _lines(alert: Alert, words: Words) -> str:
    """Title and text as repetitions: in a TX field each repetition is a line (HL7 v2.5, 2.A.80)."""
    text = alert.text if alert.text.startswith(alert.title) else f"{alert.title}\n{alert.text}"
    if alert.kind is AlertKind.WITHDRAWN:
        text = f"{words.v2['ended' if _ended(alert) else 'withdrawn']}\n{text}"
    if alert.family is AlertFamily.REVIEW:
        text = "\n".join(filter(None, (text, alert.source, alert.where)))
    return "~".join(piece for line in text.splitlines() if line.strip() for piece in _folded(line.strip().split(" ")))


# What strict receivers take in one repetition of a text; it is counted as sent, escapes included.
_LONGEST: Final = 199


def _folded(words: list[str]) -> Iterator[str]:
    """A line in pieces that are not too long, broken between words."""
    piece = text_of(words[0])
    for word in map(text_of, words[1:]):
        if len(piece) + 1 + len(word) > _LONGEST:
            yield piece
            piece = word
        else:
            piece = f"{piece} {word}"
    yield piece


def stamp(at: datetime | date, time_known: bool = True) -> str:
    """A TS: with its offset where it has one, the day alone where the time is not known."""
    day = at.isoformat()[:10].replace("-", "")
    if not isinstance(at, datetime) or not time_known:
        return day
    offset = at.utcoffset()
    if offset is None:
        return f"{day}{at.hour:02}{at.minute:02}{at.second:02}"
    # An offset with seconds (a local mean time) has no form in HL7: ZZZZ is hours and minutes.
    minutes = int(offset.total_seconds()) // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{day}{at.hour:02}{at.minute:02}{at.second:02}{sign}{minutes // 60:02}{minutes % 60:02}"


# Separators of our own MSH-2; control characters would end a segment or a frame.
_ESCAPES: Final = dict.fromkeys([*range(32), *range(127, 160), 8232, 8233], " ") | {
    ord("\\"): "\\E\\",
    ord("|"): "\\F\\",
    ord("^"): "\\S\\",
    ord("&"): "\\T\\",
    ord("~"): "\\R\\",
}


_SPECIAL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\|^&~]")


def text_of(words: str) -> str:
    # Nearly every text has nothing to escape; translating costs ten times a search.
    return words.translate(_ESCAPES) if _SPECIAL.search(words) else words
