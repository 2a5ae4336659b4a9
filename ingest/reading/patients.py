"""Who a result is about: the identifiers of a PID, normalised and in the order in which they may be shown.

Rule of the file: PID-2, PID-18 and PID-19 are never matched on, and an account, a visit or an insurance number in
PID-3 is no patient.
"""

from __future__ import annotations

import re

from rules.model import PatientIdentifier
from wire.er7 import NULL, Segment
from wire.memo import memo

__all__ = ["authority_of", "identifiers_of_field", "order_identifiers", "patient_of"]

_OID = re.compile(r"[0-2](?:\.\d+)+\Z", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
INS = "urn:oid:1.2.250.1.213.1.4."
_TEST_INS = frozenset((f"{INS}10", f"{INS}11"))
_INS_TYPES = frozenset(("INS", "INS-NIR", "INS-NIA", "NIR", "NIA"))
_ESTABLISHMENT = frozenset(("PI", "MR", "IPP", "MRT"))
# NH is the billing number, perhaps of the insured person: same OID as the INS (standards.md, finding 5).
_NOT_A_PATIENT = frozenset(("AN", "VN", "SS", "NH", "NHS", "DL", "PPN", "HC", "SN", "MA", "MC", "BA", "NSS", "NDP"))
_DOUBTFUL = frozenset(("DOUT", "DOUA", "DPOT", "COLP", "COLV", "USUR", "FICT"))
# ``ASIP-SANTE-INS-NIR`` as the name of the authority says what the number is; ``INSEE`` does not.
_SAYS_INS = re.compile(r"\bINS\b", re.IGNORECASE)
_LIMIT = 200
_MOST = 100


def authority_of(namespace: str, universal_id: str = "", universal_type: str = "") -> str:
    """``CHX&1.2.3&ISO`` -> ``urn:oid:1.2.3``; a namespace alone stays as it is given.

    >>> authority_of("CHX", "1.2.3", "ISO"), authority_of("CHX")
    ('urn:oid:1.2.3', 'CHX')
    """
    uid = universal_id.strip()
    if _OID.match(uid):
        return f"urn:oid:{uid}"
    if _UUID.match(uid):
        return f"urn:uuid:{uid.lower()}"
    if uid:
        return uid
    bare = namespace.strip()
    return f"urn:oid:{bare}" if _OID.match(bare) and bare.count(".") > 2 else bare


def _rank(identifier: PatientIdentifier) -> int:
    if identifier.type.upper() in _ESTABLISHMENT:
        return 0
    if identifier.type.upper() in _INS_TYPES or identifier.authority.startswith(INS):
        return 1
    return 2


def order_identifiers(found: list[PatientIdentifier]) -> tuple[PatientIdentifier, ...]:
    """Without repeats and without what is no patient; the establishment's first, then the INS (clinical.md 4.4)."""
    several = dict.fromkeys(found) if len(found) > 1 else found
    usable = [i for i in several if i.value and i.type.upper() not in _NOT_A_PATIENT]
    return tuple(sorted(usable, key=_rank) if len(usable) > 1 else usable)


def is_ins_by_oid_alone(identifiers: tuple[PatientIdentifier, ...]) -> bool:
    """Nothing but the OID of the INS, which the billing number of an insured person shares (standards.md, finding 5)."""
    for i in identifiers:
        if i.type or not i.authority.startswith(INS):
            return False
    return bool(identifiers)


def is_test_identity(identifiers: tuple[PatientIdentifier, ...]) -> bool:
    return not _TEST_INS.isdisjoint([i.authority for i in identifiers])


@memo(512)
def _authority_field(text: str, subcomponent: str) -> str:
    parts = [*text.split(subcomponent), "", ""]
    return authority_of(*(p.strip() for p in parts[:3]))


def identifiers_of_field(segment: Segment, position: int) -> tuple[PatientIdentifier, ...]:
    """The usable identifiers of a repeating CX (PID-3, MRG-1), the one to show first."""
    found: list[PatientIdentifier] = []
    ended: list[PatientIdentifier] = []
    for repetition in segment.repetitions(position)[:_MOST]:
        parts = repetition.split(segment.separators.component)
        value = segment.text(parts[0])
        if value in ("", NULL) or len(value) > _LIMIT:
            continue
        authority = _authority_field(parts[3], segment.separators.subcomponent) if len(parts) > 3 else ""
        kind = segment.text(parts[4]) if len(parts) > 4 else ""
        # CX.8: one that has an end stays an alias, and is not the one to show where another has none.
        over = len(parts) > 7 and parts[7] not in ("", NULL)
        (ended if over else found).append(PatientIdentifier(value, segment.text(authority), kind))
    return order_identifiers(found + ended)


def patient_of(pid: Segment | None, *, production: bool) -> tuple[tuple[PatientIdentifier, ...], tuple[str, ...]]:
    """``(identifiers, doubts)`` of one PID; no usable PID-3 gives ``patient-missing``."""
    if pid is None:
        return (), ("patient-missing",)
    identifiers = identifiers_of_field(pid, 3)
    named_ins = _SAYS_INS.search(pid.field(3)) is not None
    doubts: list[str] = []
    if not identifiers:
        doubts.append("patient-missing")
    reliability = pid.field(32)
    said = {r.strip().upper() for r in reliability.split(pid.separators.repetition)} if reliability else set()
    if said & _DOUBTFUL or (is_ins_by_oid_alone(identifiers) and not named_ins):
        doubts.append("identity-doubtful")
    if production and is_test_identity(identifiers):
        doubts.append("test-identity")
    return identifiers, tuple(doubts)
