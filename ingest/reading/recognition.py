"""What an observation claims to measure: by its LOINC or NPU code, by its local codes, and by its names.

Rule of the file: claims are collected, not believed. Code and name may contradict each other and the unit; who reads the
row (``rows.py``) settles it or leaves it to a person.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ingest.reading.codes import CODES, LOCAL, SHORT, Analyte, Claim, Coding, is_declared_in_vain, is_loinc
from ingest.reading.folding import fold
from ingest.reading.names import claim_of_name, is_prior
from wire.memo import LONGEST

__all__ = ["Recognition", "folded_names", "recognise"]


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


_LONGEST_NAME = 500


def folded_names(codings: tuple[Coding, ...], text: str) -> list[str]:
    """A name longer than any that a laboratory gives is cut: a megabyte of it is not worth the seconds."""
    return [n for n in dict.fromkeys(fold(n[:_LONGEST_NAME]) for n in (*(c.display for c in codings), text)) if n]


def recognise(codings: tuple[Coding, ...], text: str = "") -> Recognition:
    """Everything that the codes and names of one observation say, and where they disagree."""
    size = len(text)
    for code, display, system in codings:
        size += len(code) + len(display) + len(system)
    return (_known if size <= LONGEST else _recognised)(codings, text)


def _recognised(codings: tuple[Coding, ...], text: str) -> Recognition:
    whole = all(len(word) <= _LONGEST_NAME for coding in codings for word in coding) and len(text) <= _LONGEST_NAME
    if not whole:
        codings = tuple(Coding(*(word[:_LONGEST_NAME] for word in coding)) for coding in codings)
    shown = next((c for c in codings if c.code.upper() in CODES), codings[0] if codings else Coding("", text))
    by_code = [claim for c in codings if (claim := CODES.get(c.code.upper())) is not None]
    unknown_loinc = any(is_loinc(c) and c.code not in CODES for c in codings)
    local: list[Claim] = []
    named: list[Claim] = []
    fluid = False
    names = folded_names(codings, text)
    if any(is_prior(name) for name in names):
        return Recognition(None, (), bool(by_code), shown, False, "prior-result")
    for coding in codings:
        if coding.code.upper() not in CODES and not is_loinc(coding):
            folded = "".join(fold(coding.code).split())
            claim = LOCAL.get(folded)
            if (
                claim is not None
                and folded in SHORT
                and any(n != folded and claim_of_name(n)[0] is None for n in names)
            ):
                claim = None
            if claim is None and len(coding.code) > 3:
                claim, elsewhere = claim_of_name(fold(coding.code.replace("_", " ")))
                fluid = fluid or elsewhere
            if claim is not None:
                local.append(claim)
    for name in names:
        claim, elsewhere = claim_of_name(name)
        claim = LOCAL.get("".join(name.split())) or claim
        fluid = fluid or elsewhere
        if claim is not None:
            named.append(claim)
    claim, doubts = _settle(by_code, local, named, unknown_loinc)
    if not (by_code or local or named or unknown_loinc):
        claim, doubts = _resembling(codings, names)
    if claim is not None and claim.analyte in _RELEVANT and not by_code and is_declared_in_vain(codings):
        doubts = (*doubts, "code-system-conflict")
    if not whole:
        doubts = (*doubts, "code-name-conflict")  # what was cut away may say anything
    reason = "other-analyte"
    if claim is None or claim.analyte not in _RELEVANT:
        reason = "granulocytes" if claim and claim.analyte == "granulocytes" else "other-analyte"
        claim = None
    return Recognition(claim, doubts if claim else (), bool(by_code), shown, fluid, reason)


_known = lru_cache(maxsize=8192)(_recognised)
_RESEMBLES = re.compile(r"neut(?!r?al|en|est)|pnn")


def _resembling(codings: tuple[Coding, ...], names: list[str]) -> tuple[Claim | None, tuple[str, ...]]:
    """A local code that no table knows, alone, and spelt like neutrophils (``HNEUT``): may alarm, never reassure."""
    for coding in codings:
        folded = fold(coding.code)
        if _RESEMBLES.search(folded) and all(name == folded for name in names) and claim_of_name(folded)[0] is None:
            return Claim("neutrophils", "percent" if folded.endswith(("%", "pct", "perc")) else None), ("code-unknown",)
    return None, ()


_RELEVANT = ("neutrophils", "segs", "bands", "wbc")
_OURS = ("neutrophils", "segs", "bands")


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
