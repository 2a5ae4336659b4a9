"""What the name of an observation says, in several languages: whose cells, a count or a percentage, of which specimen.

Rule of the file: all patterns run on folded text; a name that says more than a count says something else.
"""

from __future__ import annotations

import re
import unicodedata

from ingest.reading.codes import Claim, Dimension
from ingest.reading.folding import fold
from ingest.reading.specimens import is_of_another_fluid

__all__ = ["claim_of_name", "is_prior", "may_speak_of_neutrophils", "speaks_of_neutrophils"]

_NEUTROPHIL = re.compile(
    r"neutro(?!p(a|e)n)|n(?:o|oe)ytrof|\bpnn\b|\bpolyn(?!ucl)|\banc\b|\bneut[sr]?\b|\bneut?[#%]|\bne[#%]|polynucle\w*\s+neu|poly\.?\s*neu|polymorphonucle|\bpolymorphs?\b|\bpolys\b|\bpmns?\b|"
    r"\bp\.\s?n\.\s?n\b|notrofil|obojetnochlon|неитрофил|неутрофил|ουδετεροφιλ|中性粒|中性球|中性白血球|好中球|daufkyrning|"
    # Korean, as fold leaves it; Hebrew; Arabic.
    + unicodedata.normalize("NFKD", "호중구")
    + r"|נויטרופיל|ניוטרופיל|عدلات|عدله"
)
_NOT_A_COUNT = re.compile(
    r"antibod|anticorp|antikorp|anticuerp|\bab\b|\bac\b|\banca\b|cytoplasm|elastase|gelatinase|lipocalin|\bngal\b|\bratio\b|rapport|"
    r"quotient|burst|oxidative|\bcd\d+|toxi[cq]|hyperseg|vacuol|granulations?\b|antigen|chemotax|morpholog|myelocyt|blast|"
    # Parameters of the analyser (Sysmex NEUT-RI, Beckman MNV), changes and aims: numbers, and no counts.
    r"\b(?:ri|gi|ssc|sfl|fsc|w[xyz]|mnv)\b|(?<!/)volume(?!\])|conductiv|scatter|granularity|reactivity|intensity|\bindex\b|\bindice\b|"
    r"\bdelta\b|\btrend\b|\bchange\b|\bvariation\b|\bnadir\b|\btarget\b|\bgoal\b|surviv|\bdonor\b|\bdonneur\b|precursor|precurseur|"
    r"\bdohle\b|\bnbt\b|\bhla\b|hypogran|hyposeg|hypo-seg|pelger|"
    r"alkaline|phosphatase|neutrop(?:e|a)ni|\bnlr\b|fun[ck]tion|fonction|funzion|extracellular|inclusion|\bgiant\b|reserve|\bpool\b|phagocyt|adhesion|immature|comment|interpret|"
    r"neutrophilic(?! (?:granulo|leu[ck]o|polymorph|segment|band|cells?\b))"
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


def is_prior(name: str) -> bool:
    """Does a folded name speak of a value of another day?"""
    return _PRIOR.search(name) is not None


def claim_of_name(name: str) -> tuple[Claim | None, bool]:
    """The claim of one folded name, and whether it speaks of another specimen."""
    if not name:
        return None, False
    fluid = is_of_another_fluid(name)
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


# Some of this is in every text of which ``speaks_of_neutrophils`` is true; the rest of the work is spared for the others.
_PERHAPS = re.compile(r"ne[u#%]|no[ye]|pnn|pmn|poly|anc|notro|obojet|dauf|[^\x00-\x7f]", re.IGNORECASE)
_DIGIT = re.compile(r"\d")


def may_speak_of_neutrophils(text: str) -> bool:
    """False: ``speaks_of_neutrophils`` is False for this text and for every part of it."""
    return _DIGIT.search(text) is not None and _PERHAPS.search(text) is not None


def speaks_of_neutrophils(text: str) -> bool:
    """Does a line of free text name neutrophils beside a figure, as the row of a printed report does?"""
    folded = fold(text)
    return bool(_NEUTROPHIL.search(folded)) and not _NOT_A_COUNT.search(folded) and _DIGIT.search(folded) is not None
