"""The closed tables of codes: LOINC and NPU, and local codes that are nothing but a code.

Rule of the file: names are not here (``names.py``); nothing is in a table that was only seen once, or only remembered.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

__all__ = ["CODES", "LOCAL", "SHORT", "Analyte", "Claim", "Coding", "Dimension", "is_declared_in_vain", "is_loinc"]

Analyte = Literal["neutrophils", "segs", "bands", "wbc", "granulocytes", "other"]
Dimension = Literal["count", "percent", "fraction"]


class Claim(NamedTuple):
    analyte: Analyte
    dimension: Dimension | None = None


class Coding(NamedTuple):
    code: str
    display: str = ""
    system: str = ""


_COUNT: Dimension = "count"
_PERCENT: Dimension = "percent"

# clinical.md 4.1 and 4.2, and the other lines of a blood count so that a code that contradicts its name is seen.
CODES: dict[str, Claim] = {
    **dict.fromkeys(("751-8", "26499-4", "753-4", "NPU02902"), Claim("neutrophils", _COUNT)),
    **dict.fromkeys(("770-8", "23761-0", "26511-6"), Claim("neutrophils", _PERCENT)),
    "71676-1": Claim("neutrophils", "fraction"),
    **dict.fromkeys(("30451-9", "768-2"), Claim("segs", _COUNT)),
    **dict.fromkeys(("769-0", "32200-8", "26505-8"), Claim("segs", _PERCENT)),
    **dict.fromkeys(("26507-4", "763-3"), Claim("bands", _COUNT)),
    **dict.fromkeys(("764-1", "26508-2", "35332-6"), Claim("bands", _PERCENT)),
    **dict.fromkeys(("6690-2", "26464-8", "804-5", "NPU02593"), Claim("wbc", _COUNT)),
    **dict.fromkeys(("30394-1", "35003-3"), Claim("granulocytes", _COUNT)),
    **dict.fromkeys(
        (
            "49498-9",
            "711-2",
            "26449-9",
            "712-0",
            "777-3",
            "26515-7",
            "778-1",
            "731-0",
            "26474-7",
            "736-9",
            "26478-8",
            "742-7",
            "26484-6",
            "5905-5",
            "26485-3",
            "704-7",
            "26444-0",
            "706-2",
            "30180-4",
            "713-8",
            "26450-7",
            "718-7",
            "789-8",
            "26453-1",
            "4544-3",
            "20570-8",
            "787-2",
            "785-6",
            "786-4",
            "NPU01933",
            "NPU03568",
            "11156-7",
        ),
        Claim("other"),
    ),
}
_LOINC = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_LOINC_SYSTEMS = frozenset(
    ("LN", "LOINC", "HTTP://LOINC.ORG", "2.16.840.1.113883.6.1", "URN:OID:2.16.840.1.113883.6.1")
)

# Local codes that are nothing but a code; names go through the patterns below.
LOCAL: dict[str, Claim] = {
    **dict.fromkeys(
        ("neut", "neu", "ne", "neutro", "neutros", "pnn", "polyn", "poln", "neutrophils", "pmn", "pmns", "polys"),
        Claim("neutrophils"),
    ),
    **dict.fromkeys(
        (
            "neut#",
            "neu#",
            "ne#",
            "neuabs",
            "neutabs",
            "absneut",
            "anc",
            "neuta",
            "neut_abs",
            "ne_abs",
            "pnn#",
            "poln#",
            "neutro#",
            "neut-abs",
            "neut.abs",
            "aneut",
            "neutrophils#",
            "02pnp",
            "pmn#",
        ),
        Claim("neutrophils", _COUNT),
    ),
    **dict.fromkeys(
        (
            "neut%",
            "neu%",
            "ne%",
            "neutp",
            "neutpct",
            "neut_pct",
            "pnn%",
            "pneut",
            "poln%",
            "neutro%",
            "neutrophils%",
            "pmn%",
        ),
        Claim("neutrophils", _PERCENT),
    ),
    **dict.fromkeys(("segr", "seg", "segs", "sgran"), Claim("segs")),
    **dict.fromkeys(("asegr", "seg#", "segs#", "asegs"), Claim("segs", _COUNT)),
    **dict.fromkeys(("seg%", "segs%"), Claim("segs", _PERCENT)),
    **dict.fromkeys(("band", "bands", "stab", "stabk"), Claim("bands")),
    **dict.fromkeys(("band#", "bands#", "abands", "aband"), Claim("bands", _COUNT)),
    **dict.fromkeys(("band%", "bands%"), Claim("bands", _PERCENT)),
    **dict.fromkeys(("wbc", "gb", "leuk", "leuko", "leu", "leuco", "lkc", "wcc", "leukozyten"), Claim("wbc")),
    **dict.fromkeys(("gra", "gran", "gran#", "gr#", "gra#", "gran%", "gr%"), Claim("granulocytes")),
    # The other lines of a differential: where the name says neutrophils, one of the two lies.
    **dict.fromkeys(
        [
            f"{cell}{mark}"
            for cell in ("lym", "lymph", "lympho", "lymf", "mono", "mon", "eos", "eosi", "eosino", "baso", "bas")
            for mark in ("", "#", "%")
        ],
        Claim("other"),
    ),
}

# Short codes that mean other things elsewhere (noradrenaline, leucine): only where no name says something else.
SHORT = frozenset(("ne", "pmn", "leu", "gra", "gran", "stab", "seg", "segs", "band", "bands", "gb"))


def is_loinc(coding: Coding) -> bool:
    """By the shape of the code alone: senders call the system what they like."""
    return bool(_LOINC.match(coding.code))


def is_declared_in_vain(codings: tuple[Coding, ...]) -> bool:
    """A code that says it is LOINC and has not even the shape (``NEUT^^LN``)."""
    return any(c.code and c.system.upper() in _LOINC_SYSTEMS and not is_loinc(c) for c in codings)
