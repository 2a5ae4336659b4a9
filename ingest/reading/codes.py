"""What an observation claims to measure: by its LOINC or NPU code, by its local codes, and by its names in several languages.

Rule of the file: claims are collected, not believed. Code and name may contradict each other and the unit; who reads the
row (``rows.py``) settles it or leaves it to a person.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = [
    "CODES",
    "LOCAL",
    "Analyte",
    "Claim",
    "Coding",
    "Dimension",
    "Recognition",
    "is_blood_count",
    "is_laboratory_document",
    "may_speak_of_neutrophils",
    "recognise",
    "speaks_of_neutrophils",
    "specimen_of",
]

Analyte = Literal["neutrophils", "segs", "bands", "wbc", "granulocytes", "other"]
Dimension = Literal["count", "percent", "fraction"]


class Claim(NamedTuple):
    analyte: Analyte
    dimension: Dimension | None = None


class Coding(NamedTuple):
    code: str
    display: str = ""
    system: str = ""


class Recognition(NamedTuple):
    """``claim`` is None when nothing speaks of neutrophils or leukocytes. ``doubts``: the codes that disagree.

    ``coded``: the claim comes from LOINC or NPU, which speak of blood; ``coding`` is the one to show.
    ``fluid``: the name speaks of another specimen than blood.
    """

    claim: Claim | None
    doubts: tuple[str, ...]
    coded: bool
    coding: Coding
    fluid: bool
    reason: str
    """Why it is not relevant, for the ledger."""

    @property
    def measures_neutrophils(self) -> bool:
        return self.claim is not None and self.claim.analyte in ("neutrophils", "segs", "bands")


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
_DOCUMENTS = frozenset(("11502-2", "26436-6", "18723-7"))
_LOINC = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_LOINC_SYSTEMS = frozenset(
    ("LN", "LOINC", "HTTP://LOINC.ORG", "2.16.840.1.113883.6.1", "URN:OID:2.16.840.1.113883.6.1")
)

# Local codes that are nothing but a code; names go through the patterns below.
LOCAL: dict[str, Claim] = {
    **dict.fromkeys(
        ("neut", "neu", "ne", "neutro", "neutros", "pnn", "polyn", "poln", "neutrophils"), Claim("neutrophils")
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
        ),
        Claim("neutrophils", _COUNT),
    ),
    **dict.fromkeys(
        ("neut%", "neu%", "ne%", "neutp", "neutpct", "neut_pct", "pnn%", "pneut", "poln%", "neutro%", "neutrophils%"),
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
_SHORT = frozenset(("ne", "leu", "gra", "gran", "stab", "seg", "segs", "band", "bands", "gb"))

# All patterns run on lower-case text without accents.
_NEUTROPHIL = re.compile(
    r"neutro(?!p(a|e)n)|n(?:o|oe)ytrof|\bpnn\b|\bpolyn(?!ucl)|\banc\b|\bneut[sr]?\b|\bneut?[#%]|\bne[#%]|polynucle\w*\s+neu|poly\.?\s*neu|"
    r"notrofil|obojetnochlon|неитрофил|ουδετεροφιλ|中性粒|好中球|daufkyrning"
)
_NOT_A_COUNT = re.compile(
    r"antibod|anticorp|antikorp|anticuerp|\bab\b|\bac\b|\banca\b|cytoplasm|elastase|gelatinase|lipocalin|\bngal\b|\bratio\b|rapport|"
    r"quotient|burst|oxidative|\bcd\d+|toxi[cq]|hyperseg|vacuol|granulations?\b|antigen|chemotax|morpholog|myelocyt|blast|"
    r"alkaline|phosphatase|neutrop(?:e|a)ni|\bnlr\b|fun[ck]tion|fonction|funzion|extracellular|inclusion|\bgiant\b|reserve|\bpool\b|phagocyt|adhesion|immature|comment|interpret|neutrophilic"
)
# A value of another day that is quoted beside today's: nobody's result of this message.
_PRIOR = re.compile(
    r"anterieur|anteriorit|precedent|\bprior (?:result|value)|\bprevious\b|vorwert|vorbefund|valore prec|\banterior\b"
)
_OTHER_CELL = re.compile(
    r"lymphoc|linfoc|lymfoc|monoc|eosin|baso[pf]|thromboc|platelet|plaquett|plaquet|erythroc|eritroc|hemoglob|haemoglob|hematoc|"
    r"reticuloc|nrbc|erythrobl|normobl"
)
_GRANULOCYTES = re.compile(r"\bgran(?:ulo[cz]\w*|s|[#%])?(?=\W|\Z)|granulo[cz]yt")
_SEGS = re.compile(r"\bseg(?:s|m|ment\w*)?\b|segmented|segmentkern|\bsegr\b|segment(?:e|ad|ow)|сегментояд")
_BANDS = re.compile(
    r"\bbands?\b|band form|\bstab(?:s|kern\w*)?\b|stabkern|non segment|nonsegment|batonnet|bastone|bastoe|bastao|"
    r"cayado|палочкояд|paleczkow"
)
_WBC = re.compile(
    r"(?:total )?(?:wbc|white (?:blood )?cells?(?: count)?|white cell count|leu[ck]o[cz]yt[a-z]*|"
    r"leucocit[a-z]*|leukocit[a-z]*|"
    r"globules blancs|"
    r"globuli bianchi|leukozyten|leukocytter|glob\. ?blancs|numeration des leucocytes)"
    r"(?:,? ?(?:\(?(?:wbc|gb|total|count|number|#|abs\w*|blood|bld|sang|blut|auto|automated|manual|nombre)\)?|# bld|# auto|"
    r"\[?#/vol(?:ume)?\]?|\[nombre/volume\]|in blood|by automated count|;|numerique|comptage automate))* ?"
)
_PERCENT_WORD = re.compile(
    r"%|/\s*100\b|percent|pourcent|prozent|\bpct\b|\bproporti|\bnfr\b|/leu[ck]ocytes|\brel(?:ative?)?\b"
)
_COUNT_WORD = re.compile(
    r"#|\babs|\[?nombre/vol|/vol|\bcount\b|numeration|\bmm3\b|\banzahl\b|\bcount\)|\banc\b|g/l\b|/[um]l\b"
)
_FLUID = re.compile(
    r"\bcsf\b|cerebro|cephalo|rachid|liquor|\blcr\b|synovi|pleur|perito|ascit|fluid|liquide|ponction|punct|urin|sputum|expector|"
    r"\bbal\b|lavage|\bmarrow|moelle|dialys|semen|sperm|stool|faec|feces|selles|articul|pericard|amnio|drain|wound|\bpus\b|"
    r"nasal|gastric|exudat|transudat|vagin|\bjoint\b"
)
_FLUID_CODES = frozenset(
    "CSF FLU FLD PLR PLRV SNV SNVFLD URN UR SPT SPUTUM BAL BRO AMN PRT PERI PCFL DIAF STL SEM BON MAR ASC PUS WND "
    # SNOMED CT: cerebrospinal, pleural, peritoneal, synovial, pericardial, body fluid; urine, sputum, lavage, marrow.
    "258450006 418564007 168139001 119332005 122571007 309051001 122575003 119334006 258607008 119359002".split()
)
_BLOOD = re.compile(r"blood|\bsang|\bblut|sangre|sangue|\bblod\b|edta|\bkrew|whole bld|\bbld\b")
_BLOOD_CODES = frozenset(
    "BLD BLDV BLDC BLDA BLDCO WB WHB BLOOD 119297000 122555007 122554006 119298005 445295009".split()
)
_PANEL_CODES = frozenset(
    ("57021-8", "58410-2", "69738-3", "57782-5", "69742-5", "24317-0", "24318-8", "57023-4", "55429-5")
)
_PANEL = re.compile(
    r"\bcbc\b|\bfbc\b|\bnfs\b|\bnfp\b|hemogram|blood count|numeration|formule sanguine|formule leuco|"
    r"differential|blutbild|emocromo"
)
_LAB_DOCUMENT = re.compile(r"biolog|laborat|\blabo?\b|hematolog|haematolog")
_LETTERS = str.maketrans({"ø": "o", "Ø": "o", "œ": "oe", "æ": "ae", "ß": "ss", "ł": "l", "\u00a0": " ", "\u202f": " "})


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().split())


def _is_loinc(coding: Coding) -> bool:
    return bool(_LOINC.match(coding.code))


def _by_code(coding: Coding) -> Claim | None:
    return CODES.get(coding.code.upper())


def _by_name(name: str) -> tuple[Claim | None, bool]:
    """The claim of one folded name, and whether it speaks of another specimen."""
    if not name:
        return None, False
    fluid = bool(_FLUID.search(name)) and not _BLOOD.search(name)
    if _NOT_A_COUNT.search(name):
        return Claim("other"), fluid
    dimension: Dimension | None = None
    if _PERCENT_WORD.search(name):
        dimension = "percent"
    elif _COUNT_WORD.search(name):
        dimension = "count"
    neutrophil = bool(_NEUTROPHIL.search(name))
    if _OTHER_CELL.search(name) and not neutrophil:
        return Claim("other"), fluid
    if neutrophil and _OTHER_CELL.search(name):
        # "Neutrophils + eosinophils": not one analyte.
        return Claim("other"), fluid
    if neutrophil and _BANDS.search(name) and (_SEGS.search(name) or re.search(r"\+|incl|with|avec|total", name)):
        return Claim("neutrophils", dimension), fluid
    if _BANDS.search(name) and (neutrophil or _BANDS.match(name)):
        return Claim("bands", dimension), fluid
    if _SEGS.search(name) and (neutrophil or _SEGS.match(name)):
        return Claim("segs", dimension), fluid
    if neutrophil:
        return Claim("neutrophils", dimension), fluid
    if _WBC.fullmatch(name):
        return Claim("wbc", "percent" if "%" in name else None), fluid
    if _GRANULOCYTES.search(name):
        return Claim("granulocytes", dimension), fluid
    return None, fluid


def _names(codings: tuple[Coding, ...], text: str) -> list[str]:
    return [n for n in dict.fromkeys(_fold(n) for n in (*(c.display for c in codings), text)) if n]


@lru_cache(maxsize=8192)
def recognise(codings: tuple[Coding, ...], text: str = "") -> Recognition:
    """Everything that the codes and names of one observation say, and where they disagree."""
    shown = next((c for c in codings if c.code.upper() in CODES), codings[0] if codings else Coding("", text))
    by_code = [claim for c in codings if (claim := _by_code(c)) is not None]
    unknown_loinc = any(_is_loinc(c) and c.code not in CODES for c in codings)
    local: list[Claim] = []
    named: list[Claim] = []
    fluid = False
    names = _names(codings, text)
    if any(_PRIOR.search(name) for name in names):
        return Recognition(None, (), bool(by_code), shown, False, "prior-result")
    for coding in codings:
        if coding.code.upper() not in CODES and not _is_loinc(coding):
            folded = "".join(_fold(coding.code).split())
            claim = LOCAL.get(folded)
            if claim is not None and folded in _SHORT and any(n != folded and _by_name(n)[0] is None for n in names):
                claim = None
            if claim is None and len(coding.code) > 3:
                claim, elsewhere = _by_name(_fold(coding.code.replace("_", " ")))
                fluid = fluid or elsewhere
            if claim is not None:
                local.append(claim)
    for name in names:
        claim, elsewhere = _by_name(name)
        claim = LOCAL.get("".join(name.split())) or claim
        fluid = fluid or elsewhere
        if claim is not None:
            named.append(claim)
    claim, doubts = _settle(by_code, local, named, unknown_loinc)
    if claim is not None and claim.analyte in _RELEVANT and not by_code and _declared_loinc_in_vain(codings):
        doubts = (*doubts, "code-system-conflict")
    reason = "other-analyte"
    if claim is None or claim.analyte not in _RELEVANT:
        reason = "granulocytes" if claim and claim.analyte == "granulocytes" else "other-analyte"
        claim = None
    return Recognition(claim, doubts if claim else (), bool(by_code), shown, fluid, reason)


_RELEVANT = ("neutrophils", "segs", "bands", "wbc")
_OURS = ("neutrophils", "segs", "bands")


def _declared_loinc_in_vain(codings: tuple[Coding, ...]) -> bool:
    """A code that says it is LOINC and has not even the shape (``NEUT^^LN``)."""
    return any(c.code and c.system.upper() in _LOINC_SYSTEMS and not _is_loinc(c) for c in codings)


def _settle(
    by_code: list[Claim], local: list[Claim], named: list[Claim], unknown_loinc: bool
) -> tuple[Claim | None, tuple[str, ...]]:
    """One claim out of several: the code before the local code before the name; whoever differs is a doubt."""
    claims = [*by_code, *local, *named]
    ours = [c for c in claims if c.analyte in _OURS]
    if not ours:
        return _without_neutrophils(by_code, local, named, unknown_loinc)
    doubts: list[str] = []
    coded = [c for c in by_code if c.analyte in _OURS]
    first = coded[0] if coded else ours[0]
    if by_code and not coded:
        # The code says lymphocytes (or leukocytes), the name says neutrophils: may alarm, never reassure.
        doubts.append("code-name-conflict")
    elif not by_code and unknown_loinc:
        doubts.append("code-unknown")
    if any(c.analyte not in _OURS for c in claims) and "code-name-conflict" not in doubts:
        if not coded and not any(c.analyte in _OURS for c in local) and any(c.analyte == "other" for c in named):
            return Claim("other"), ()
        doubts.append("code-name-conflict")
    if len({c.dimension for c in by_code if c.analyte in _OURS}) > 1:
        doubts.append("code-conflict")
    analyte = _finest(ours) if not coded else first.analyte
    dimension = first.dimension if coded else next((c.dimension for c in ours if c.dimension), None)
    if coded:
        for c in (*local, *named):
            if c.analyte in _OURS and c.dimension not in (None, dimension, "fraction") and dimension != "fraction":
                doubts.append("code-name-conflict")
            if c.analyte in ("segs", "bands") and analyte != c.analyte:
                doubts.append("code-name-conflict")
    else:
        if len({c.dimension for c in ours if c.dimension}) > 1:
            dimension = None
    return Claim(analyte, dimension), tuple(dict.fromkeys(doubts))


def _finest(ours: list[Claim]) -> Analyte:
    for analyte in ("bands", "segs"):
        if any(c.analyte == analyte for c in ours):
            return "bands" if analyte == "bands" else "segs"
    return "neutrophils"


def _without_neutrophils(
    by_code: list[Claim], local: list[Claim], named: list[Claim], unknown_loinc: bool
) -> tuple[Claim | None, tuple[str, ...]]:
    if by_code:
        claim = by_code[0]
        # A leukocyte code under another name feeds no derivation.
        if claim.analyte == "wbc" and any(c.analyte != "wbc" for c in (*local, *named)):
            return Claim("other"), ()
        return claim, ()
    if unknown_loinc:
        return Claim("other"), ()
    for c in (*local, *named):
        if c.analyte == "wbc" and not any(o.analyte not in ("wbc",) for o in (*local, *named)):
            return c, ()
    others = [c for c in (*local, *named) if c.analyte != "wbc"]
    return (others[0] if others else None), ()


# Some of this is in every text of which ``speaks_of_neutrophils`` is true; the rest of the work is spared for the others.
_PERHAPS = re.compile(r"ne[u#%]|no[ye]|pnn|poly|anc|notro|obojet|dauf|[^\x00-\x7f]", re.IGNORECASE)
_DIGIT = re.compile(r"\d")


def may_speak_of_neutrophils(text: str) -> bool:
    """False: ``speaks_of_neutrophils`` is False for this text and for every part of it."""
    return _DIGIT.search(text) is not None and _PERHAPS.search(text) is not None


def speaks_of_neutrophils(text: str) -> bool:
    """Does a line of free text name neutrophils beside a figure, as the row of a printed report does?"""
    folded = _fold(text)
    return bool(_NEUTROPHIL.search(folded)) and not _NOT_A_COUNT.search(folded) and _DIGIT.search(folded) is not None


def is_blood_count(codings: tuple[Coding, ...], text: str = "") -> bool:
    """Does a panel (OBR-4, DiagnosticReport.code) announce a blood count or neutrophils?"""
    if any(c.code in _PANEL_CODES for c in codings) or recognise(codings, text).measures_neutrophils:
        return True
    return any(_PANEL.search(n) for n in (*_names(codings, text), *(_fold(c.code) for c in codings)))


def is_laboratory_document(codings: tuple[Coding, ...], text: str = "") -> bool:
    """A whole laboratory report as a document: a neutrophil count may be inside."""
    return any(c.code in _DOCUMENTS for c in codings) or any(_LAB_DOCUMENT.search(n) for n in _names(codings, text))


@lru_cache(maxsize=2048)
def specimen_of(codes: tuple[str, ...], names: tuple[str, ...]) -> Literal["blood", "fluid", "unknown"]:
    """What the specimen is by its codes (SPM-4, OBR-15, Specimen.type) and names; unknown says nothing."""
    if any(c.upper() in _BLOOD_CODES for c in codes):
        return "blood"
    if any(c.upper() in _FLUID_CODES for c in codes):
        return "fluid"
    folded = [_fold(n) for n in (*names, *codes) if n]
    if any(_BLOOD.search(n) for n in folded):
        return "blood"
    return "fluid" if any(_FLUID.search(n) for n in folded) else "unknown"
