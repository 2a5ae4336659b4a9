"""What a specimen is: blood, another fluid, or not said. By its codes and by its names in several languages."""

from __future__ import annotations

import re
from typing import Literal

from ingest.reading.folding import fold
from wire.memo import memo_of_parts

__all__ = ["is_of_another_fluid", "specimen_of"]

# All patterns run on folded text.
_FLUID = re.compile(
    r"\bcsf\b|cerebro|cephalo|rachid|liquor|\blcr\b|synovi|pleur|perito|ascit|fluid|liquide|ponction|punct|urin|sputum|expector|"
    r"\bbal\b|\blba\b|\blcs\b|lavage|\bmarrow|moelle|myelogr|\becbu\b|\becbc\b|crachat|dialys|semen|sperm|stool|faec|feces|selles|articul|pericard|amnio|drain|wound|\bpus\b|"
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


def is_of_another_fluid(name: str) -> bool:
    """Does a folded name speak of another specimen, and not of blood?"""
    return bool(_FLUID.search(name)) and not _BLOOD.search(name)


@memo_of_parts(2048)
def specimen_of(codes: tuple[str, ...], names: tuple[str, ...]) -> Literal["blood", "fluid", "unknown"]:
    """What the specimen is by its codes (SPM-4, OBR-15, Specimen.type) and names; unknown says nothing."""
    if any(c.upper() in _BLOOD_CODES for c in codes):
        return "blood"
    if any(c.upper() in _FLUID_CODES for c in codes):
        return "fluid"
    folded = [fold(n) for n in (*names, *codes) if n]
    if any(_BLOOD.search(n) for n in folded):
        return "blood"
    return "fluid" if any(_FLUID.search(n) for n in folded) else "unknown"
