"""An alert as an HL7 v2 message: ORU^R01, or MDM^T02/T10/T04 where a system takes no results of third parties.

Pure: values in, bytes out. Segments end with CR, everything is escaped, and a character that the destination's
character set lacks is transliterated, never a reason to fail. The same alert and control id give the same bytes.
"""

from __future__ import annotations

import re
from typing import Final

from emitters.charsets import CHARSETS, encoded
from emitters.v2_parts import (
    V2Profile,
    deleted,
    filler_number,
    msh,
    number_of,
    obx,
    own_number,
    pid,
    rows,
    stamp,
    text_of,
)
from rules.model import Alert, AlertFamily, AlertKind, LabResult
from rules.words import Words

__all__ = ["CHARSETS", "V2Profile", "alert_message", "filler_number"]

_OURS: Final = "99NEUTROFLAG"


def alert_message(alert: Alert, *, control_id: str, profile: V2Profile) -> bytes:
    """The whole message. ``control_id`` is MSH-10, the same at every retry; table 2.5 allows it 20 characters.

    Raises ValueError for a control id that could not come back unchanged in MSA-2, and for a document about nobody.
    """
    if re.fullmatch(r"[A-Za-z0-9.-]{1,20}", control_id) is None:
        raise ValueError("a control id is 1 to 20 letters, digits, dots or hyphens")
    words = profile.words.get(alert.language, profile.words["en"])
    at = stamp(alert.updated_at)
    build = _document if profile.shape == "MDM_T02" else _results
    segments = build(alert, control_id, profile, words, at)
    note = text_of(words.v2["disclaimer"])
    if profile.shape == "MDM_T02" and profile.version < "2.5":
        # Its MDM_T02 has no place for an NTE.
        number = sum(segment.startswith("OBX|") for segment in segments) + 1
        code = f"ANC-NOTE^{text_of(words.v2['note'])}^{_OURS}"
        segments.append(obx(number, "TX", code, "", note, "", "", "", "F", at))
    else:
        segments.append(f"NTE|1|L|{note}")
    return encoded("".join(segment.rstrip("|") + "\r" for segment in segments), profile.charset)


def _results(alert: Alert, control_id: str, profile: V2Profile, words: Words, at: str) -> list[str]:
    segments = [msh("ORU^R01^ORU_R01", alert, control_id, profile, at)]
    if _known(alert):
        segments.append(pid(alert.subject))
    segments += [_orc(alert, profile, at), _obr(alert, profile, words, at)]
    return [*segments, *(obx(number, *row) for number, row in enumerate(rows(alert, profile, words, at), start=1))]


def _known(alert: Alert) -> bool:
    # PID-3 is required: a patient whom nobody could read is no PID, not an empty or a doubtful one.
    unread = alert.family is AlertFamily.REVIEW and not alert.subject.register_id
    return bool(alert.subject.identifiers) and not unread


def _document(alert: Alert, control_id: str, profile: V2Profile, words: Words, at: str) -> list[str]:
    """A note in the patient's record. T02 is a new one; T10 replaces the one before; T04 says that it was in error.

    The text comes first: some systems show no more of a document than that.
    """
    if not _known(alert):
        raise ValueError("an MDM message needs a patient, and this alert has none")
    event = "T04" if deleted(alert) else "T02" if alert.revision == 1 else "T10"
    told = sorted(rows(alert, profile, words, at), key=lambda row: row[0] != "TX")
    # MSH-9.3 names the structure, which the three events share (HL7 v2.5, 9.6).
    return [
        msh(f"MDM^{event}^MDM_T02", alert, control_id, profile, at),
        # EVN-1 was withdrawn in 2.7; MSH-9 says it.
        f"EVN|{event if profile.version < '2.7' else ''}|{at}",
        pid(alert.subject),
        "PV1|1|N",
        _txa(alert, event, profile, at),
        *(obx(number, *row) for number, row in enumerate(told, start=1)),
    ]


def _txa(alert: Alert, event: str, profile: V2Profile, at: str) -> str:
    def number(revision: int) -> str:
        return f"{number_of(alert)}.{revision}^{text_of(profile.sending_application)}"

    before = alert.revision - 1
    order = alert.result.order if alert.result is not None else None
    fields = [""] * 20
    fields[0:5] = ["TXA", "1", "CN", "TX", at]
    fields[6] = at
    # The document that is taken back is named by its own number; a replacement has a new one, and names its parent.
    fields[12] = number(before) if event == "T04" and before else number(alert.revision)
    fields[13] = number(before) if event == "T10" and before else ""
    if order is not None:
        fields[14], fields[15] = (_lab_number(one) for one in (order.placer, order.filler))
    fields[17] = "DO"
    fields[19] = "OB" if event == "T04" else "AV"
    return "|".join(fields)


def _lab_number(number: str) -> str:
    return "^".join(map(text_of, number.split("^")))


def _orc(alert: Alert, profile: V2Profile, at: str) -> str:
    return f"ORC|RE||{own_number(alert, profile)}||{'CA' if deleted(alert) else 'CM'}||||{at}"


def _obr(alert: Alert, profile: V2Profile, words: Words, at: str) -> str:
    result = alert.result
    collected = stamp(result.collected_at, result.time_known) if result and result.collected_at else ""
    fields = [""] * 30
    fields[0:5] = ["OBR", "1", "", own_number(alert, profile), f"ANC-ALERT^{text_of(words.v2['service'])}^{_OURS}"]
    fields[7] = collected
    fields[22] = at
    fields[25] = "X" if deleted(alert) else "F" if alert.kind is AlertKind.RAISED else "C"
    fields[29] = _parent(result) if result else ""
    return "|".join(fields)


def _parent(result: LabResult) -> str:
    """OBR-29: the laboratory's placer and filler numbers, each an EI whose components become sub-components."""

    def demoted(number: str) -> str:
        return "&".join(map(text_of, number.split("^")))

    return f"{demoted(result.order.placer)}^{demoted(result.order.filler)}".rstrip("^")
