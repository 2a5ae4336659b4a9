"""What a whole order or document is: a blood count, a laboratory report."""

from __future__ import annotations

import re

from ingest.reading.codes import Coding
from ingest.reading.folding import fold
from ingest.reading.recognition import folded_names, recognise

__all__ = ["is_blood_count", "is_laboratory_document"]

_DOCUMENTS = frozenset(("11502-2", "26436-6", "18723-7"))
_PANEL_CODES = frozenset(
    ("57021-8", "58410-2", "69738-3", "57782-5", "69742-5", "24317-0", "24318-8", "57023-4", "55429-5")
)
_PANEL = re.compile(
    r"\bcbc\b|\bfbc\b|\bnfs\b|\bnfp\b|hemogram|blood count|numeration|formule sanguine|formule leuco|"
    r"differential|blutbild|emocromo"
)
_LAB_DOCUMENT = re.compile(r"biolog|laborat|\blabo?\b|hematolog|haematolog")


def is_blood_count(codings: tuple[Coding, ...], text: str = "") -> bool:
    """Does a panel (OBR-4, DiagnosticReport.code) announce a blood count or neutrophils?"""
    if any(c.code in _PANEL_CODES for c in codings) or recognise(codings, text).measures_neutrophils:
        return True
    return any(_PANEL.search(n) for n in (*folded_names(codings, text), *(fold(c.code) for c in codings)))


def is_laboratory_document(codings: tuple[Coding, ...], text: str = "") -> bool:
    """A whole laboratory report as a document: a neutrophil count may be inside."""
    return any(c.code in _DOCUMENTS for c in codings) or any(
        _LAB_DOCUMENT.search(n) for n in folded_names(codings, text)
    )
