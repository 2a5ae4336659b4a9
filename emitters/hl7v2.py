"""An alert as HL7 v2 ORU^R01: a coded decision, the count, a text that stands alone, the next due date, the rule.

Pure: values in, bytes out. Segments end with CR, everything is escaped, and a character that the destination's
character set lacks is transliterated, never a reason to fail. The same alert and control id give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from emitters.charsets import CHARSETS, encoded
from emitters.counts import UCUM_UNIT, giga_per_litre, letter
from emitters.v2_words import WORDS, Words
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, LabResult, PatientIdentifier, ResultStatus, Subject
from rules.silence import ENDED, about_system

__all__ = ["CHARSETS", "V2Profile", "alert_message", "filler_number"]

_OURS: Final = "99NEUTROFLAG"
_VERSIONS: Final = ("2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7")


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Profile:
    """What a destination wants in the header. ``accept_ack`` ``AL`` asks for enhanced mode (MSH-15, MSH-16 = NE)."""

    sending_application: str = "NEUTROFLAG"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    version: str = "2.5"
    charset: str = "UNICODE UTF-8"
    country: str = "FRA"
    accept_ack: str = ""
    profile_id: str = "NEUTROFLAG_ALERT_1"

    def __post_init__(self) -> None:
        if self.charset not in CHARSETS:
            raise ValueError(f"charset {self.charset!r}: expected one of {', '.join(filter(None, CHARSETS))}")
        if self.version not in _VERSIONS:
            raise ValueError(f"version {self.version!r}: expected one of {', '.join(_VERSIONS)}")

    @property
    def coded_type(self) -> str:
        # Table 0125: CE was withdrawn in 2.7, TS in 2.6.
        return "CE" if self.version < "2.7" else "CWE"

    @property
    def date_type(self) -> str:
        return "TS" if self.version < "2.6" else "DT"


_DECISION_FLAG: Final = {AlertLevel.CRITICAL: "AA", AlertLevel.RED: "AA", AlertLevel.AMBER: "A"}
_SEX: Final = {"male": "M", "female": "F", "other": "O", "unknown": "U"}


def alert_message(alert: Alert, *, control_id: str, profile: V2Profile) -> bytes:
    """The whole message. ``control_id`` is MSH-10, the same at every retry; table 2.5 allows it 20 characters.

    Raises ValueError for a control id that could not come back unchanged in MSA-2.
    """
    if re.fullmatch(r"[A-Za-z0-9.-]{1,20}", control_id) is None:
        raise ValueError("a control id is 1 to 20 letters, digits, dots or hyphens")
    words = WORDS.get(alert.language, WORDS["en"])
    at = _stamp(alert.updated_at)
    segments = [_msh(alert, control_id, profile, at)]
    unread = alert.family is AlertFamily.REVIEW and not alert.subject.register_id
    if alert.subject.identifiers and not unread:
        # PID-3 is required: a patient whom nobody could read is no PID, not an empty or a doubtful one.
        segments.append(_pid(alert.subject))
    segments += [_orc(alert, profile, at), _obr(alert, profile, words, at), *_observations(alert, profile, words, at)]
    segments.append(f"NTE|1|L|{_text(words.disclaimer)}")
    return encoded("".join(segment.rstrip("|") + "\r" for segment in segments), profile.charset)


def filler_number(alert_id: str) -> str:
    """OBR-3.1 of an alert: the first 60 random bits of its uuid, which every receiver's column holds.

    >>> filler_number("a32b4821-51a4-5253-b956-d3b932eed8fc")
    'a32b482151a45253'
    """
    return re.sub(r"[^A-Za-z0-9]", "", alert_id)[:16]


def _msh(alert: Alert, control_id: str, profile: V2Profile, at: str) -> str:
    enhanced = (profile.accept_ack, "NE") if profile.accept_ack else ("", "")
    fields = [
        "MSH",
        "^~\\&",
        *map(
            _text,
            (
                profile.sending_application,
                profile.sending_facility,
                profile.receiving_application,
                profile.receiving_facility,
            ),
        ),
        at,
        "",
        "ORU^R01^ORU_R01",
        control_id,
        "P" if alert.production else "T",
        profile.version,
        "",
        "",
        *enhanced,
        _text(profile.country),
        profile.charset,
        "",
        "",
        # MSH-21 is an EI from 2.5 on, one ID in 2.4, and not there before.
        f"{_text(profile.profile_id)}^NEUTROFLAG" if profile.profile_id and profile.version >= "2.5" else "",
    ]
    return "|".join(fields)


def _pid(subject: Subject) -> str:
    person = subject.person
    # PID-5 is required; name type U says that it is not known (table 0200).
    name = f"{_text(person.family)}^{_text(person.given)}^^^^^L" if person.family or person.given else "^^^^^^U"
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
        assigner = f"&{_text(authority[8:])}&ISO"
    elif ":" in authority:
        assigner = f"&{_text(authority)}&URI"
    else:
        assigner = _text(authority)
    return f"{_text(one.value)}^^^{assigner}^{_text(one.type)}".rstrip("^")


def _orc(alert: Alert, profile: V2Profile, at: str) -> str:
    return f"ORC|RE||{_own_number(alert, profile)}||{'CA' if _deleted(alert) else 'CM'}||||{at}"


def _obr(alert: Alert, profile: V2Profile, words: Words, at: str) -> str:
    result = alert.result
    collected = _stamp(result.collected_at, result.time_known) if result and result.collected_at else ""
    fields = [""] * 30
    fields[0:5] = ["OBR", "1", "", _own_number(alert, profile), f"ANC-ALERT^{_text(words.service)}^{_OURS}"]
    fields[7] = collected
    fields[22] = at
    fields[25] = "X" if _deleted(alert) else "F" if alert.kind is AlertKind.RAISED else "C"
    fields[29] = _parent(result) if result else ""
    return "|".join(fields)


def _own_number(alert: Alert, profile: V2Profile) -> str:
    return f"{filler_number(alert.id)}^{_text(profile.sending_application)}"


def _parent(result: LabResult) -> str:
    """OBR-29: the laboratory's placer and filler numbers, each an EI whose components become sub-components."""

    def demoted(number: str) -> str:
        return "&".join(map(_text, number.split("^")))

    return f"{demoted(result.order.placer)}^{demoted(result.order.filler)}".rstrip("^")


def _observations(alert: Alert, profile: V2Profile, words: Words, at: str) -> list[str]:
    """The OBX segments. A withdrawal keeps a text that shows: many systems hide what is deleted (OBX-11 D, W)."""
    status, text_status = _statuses(alert)
    withdrawn = alert.kind is AlertKind.WITHDRAWN
    system = about_system(alert.family, alert.reason)
    family = words.system if system else words.decisions[alert.family]
    decision = f"{'SYSTEM' if system else alert.family.value}^{_text(family)}^{_OURS}"
    if withdrawn and not _deleted(alert):
        code, what = ("ANC-ENDED", words.ended) if _ended(alert) else ("ANC-WITHDRAWN", words.withdrawn)
        decision = f"{code}^{_text(f'{what} ({family})')}^{_OURS}"
    flag = "" if withdrawn else _DECISION_FLAG.get(alert.level, "")
    rows = [(profile.coded_type, _ours("ANC-DECISION", words.decision), "", decision, "", "", flag, status, at)]
    if alert.family is AlertFamily.REVIEW and alert.reason and not withdrawn:
        reason = f"{_text(alert.reason)}^{_text(alert.reason)}^{_OURS}"
        rows.append((profile.coded_type, _ours("ANC-REASON", "Reason"), "", reason, "", "", "", status, at))
    if (count := _count(alert, words)) is not None:
        rows.append(count)
    rows.append(("TX", _ours("ANC-TEXT", words.text), "", _lines(alert, words), "", "", "", text_status, at))
    assessment = alert.assessment
    due = assessment.next_due.isoformat().replace("-", "") if assessment and assessment.next_due else ""
    # A date that no longer holds is taken back in so many words: a row left out would stay as it was.
    gone = not due and alert.kind is not AlertKind.RAISED and alert.family is not AlertFamily.REVIEW
    if due or gone:
        due_status = "D" if gone and not _deleted(alert) else status
        rows.append((profile.date_type, _ours("ANC-NEXT-DUE", words.due), "", due, "", "", "", due_status, at))
    if assessment is not None:
        rule = _text(f"{assessment.rule} {assessment.protocol}")
        rows.append(("ST", _ours("ANC-RULE", words.rule), "", rule, "", "", "", status, at))
    return [_obx(number, *row) for number, row in enumerate(rows, start=1)]


def _obx(
    number: int, kind: str, code: str, sub: str, value: str, unit: str, range_: str, flag: str, status: str, at: str
) -> str:
    # OBX-4 is conditional; some receivers and versions want it on every row.
    return f"OBX|{number}|{kind}|{code}|{sub or 1}|{value}|{unit}|{range_}|{flag}|||{status}|||{at}"


def _ours(code: str, text: str) -> str:
    return f"{code}^{_text(text)}^{_OURS}"


def _count(alert: Alert, words: Words) -> tuple[str, str, str, str, str, str, str, str, str] | None:
    """The judged count. NM cannot carry a comparator; SN is made for it. None where nothing could be judged.

    A count that the laboratory took back is a row without a value whose status deletes the one sent before.
    """
    result = alert.result
    if result is None or alert.family is AlertFamily.REVIEW:
        return None
    if result.anc is None:
        if alert.kind is AlertKind.RAISED:
            return None
        status = _statuses(alert)[0] if _deleted(alert) else "D"
        code = f"26499-4^{_text(words.count)}^LN"
        return "NM", code, _text(result.sub_id), "", f"{UCUM_UNIT}^^UCUM", "", "", status, _stamp(alert.updated_at)
    anc, threshold = result.anc, alert.assessment.threshold_per_mm3 if alert.assessment else None
    value = f"{giga_per_litre(anc.per_mm3):f}"
    kind, sent = ("SN", f"{anc.comparator}^{value}") if anc.comparator else ("NM", value)
    code = f"26499-4^{_text(words.count)}^LN"
    if result.code and result.code != "26499-4" and not anc.derived and "code-unit-conflict" not in result.doubts:
        system = "LN" if result.code_system == "http://loinc.org" else result.code_system or "L"
        code += f"^{_text(result.code)}^{_text(result.display)}^{_text(system)}"
    limit = f">={giga_per_litre(threshold):f}" if threshold is not None else ""
    at = _stamp(result.collected_at, result.time_known) if result.collected_at else ""
    status = _count_status(alert, result)
    return kind, code, _text(result.sub_id), sent, f"{UCUM_UNIT}^^UCUM", limit, letter(alert, anc) or "", status, at


def _count_status(alert: Alert, result: LabResult) -> str:
    if _deleted(alert):
        return _statuses(alert)[0]
    if result.status is ResultStatus.PRELIMINARY:
        return "P"
    return "F" if alert.kind is AlertKind.RAISED and result.status is ResultStatus.FINAL else "C"


def _statuses(alert: Alert) -> tuple[str, str]:
    """OBX-11 of what we conclude, and of the text. W: posted as wrong, e.g. on another patient; D: deleted."""
    if _deleted(alert):
        cancelled = alert.result is not None and alert.result.status is ResultStatus.CANCELLED
        return ("D" if cancelled else "W"), "C"
    return ("F", "F") if alert.kind is AlertKind.RAISED else ("C", "C")


def _deleted(alert: Alert) -> bool:
    return alert.kind is AlertKind.WITHDRAWN and alert.reason == "entered-in-error"


def _ended(alert: Alert) -> bool:
    """What was missing has come, or a connection is back: nothing was wrong, and nothing is taken back."""
    return alert.reason == ENDED or about_system(alert.family, alert.reason)


def _lines(alert: Alert, words: Words) -> str:
    """Title and text as repetitions: in a TX field each repetition is a line (HL7 v2.5, 2.A.80)."""
    text = alert.text if alert.text.startswith(alert.title) else f"{alert.title}\n{alert.text}"
    if alert.kind is AlertKind.WITHDRAWN:
        text = f"{words.ended if _ended(alert) else words.withdrawn}\n{text}"
    if alert.family is AlertFamily.REVIEW:
        text = "\n".join(filter(None, (text, alert.source, alert.where)))
    return "~".join(piece for line in text.splitlines() if line.strip() for piece in _folded(line.strip().split(" ")))


# What strict receivers take in one repetition of a text; it is counted as sent, escapes included.
_LONGEST: Final = 199


def _folded(words: list[str]) -> Iterator[str]:
    """A line in pieces that are not too long, broken between words."""
    piece = _text(words[0])
    for word in map(_text, words[1:]):
        if len(piece) + 1 + len(word) > _LONGEST:
            yield piece
            piece = word
        else:
            piece = f"{piece} {word}"
    yield piece


def _stamp(at: datetime | date, time_known: bool = True) -> str:
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


def _text(words: str) -> str:
    # Nearly every text has nothing to escape; translating costs ten times a search.
    return words.translate(_ESCAPES) if _SPECIAL.search(words) else words
