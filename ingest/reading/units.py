"""The closed table of units: spelling -> exact factor to cells per mm3 (clinical.md 4.3), or percent, or fraction.

Rule of the file: what is not in the table is a question for a person. No UCUM: there ``G/L`` is gauss and ``K/uL`` kelvin.
No float: ``10e9/L`` means 10^9, and is looked up, never computed.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from itertools import product
from typing import Literal, NamedTuple

from wire.memo import memo, memo_of_parts

__all__ = ["BRACED", "EXACT", "Unit", "spellings", "unit_of", "unit_of_components"]


class Unit(NamedTuple):
    """``factor``: what one unit is in cells per mm3 (count), or in parts of one (percent, fraction)."""

    kind: Literal["count", "percent", "fraction"]
    factor: Decimal


_PERCENT = Unit("percent", Decimal("0.01"))
_FRACTION = Unit("fraction", Decimal(1))
_PER_UL = Unit("count", Decimal(1))
_THOUSAND_PER_UL = Unit("count", Decimal(1000))
_PER_ML = Unit("count", Decimal("0.001"))
_PER_L = Unit("count", Decimal("0.000001"))

_MICROLITRE = (
    "/ul", "/mcl", "/mm3", "/mm^3", "/mm*3", "/mm**3", "/mm(3)", "/cumm", "/cu.mm", "/cmm", "/microl", "/microliter",
    "/microlitre", ".ul-1", "ul-1", ".mm-3", "permicroliter", "permicrolitre", "perul", "per-ul", "permm3", "parmm3",
    "/mmc", "/micl", ".ul^-1", ".mm^-3", "permm^3", "parmm^3", "percumm", "percmm",
)  # fmt: skip
_LITRE = ("/l", "/liter", "/litre", ".l-1", "l-1", ".l^-1", "perliter", "perlitre")
_CELLS = (
    "", "cells", "cell", "cellules", "zellen", "cel", "celulas", "cellule", "el", "elements", "element", "wbc",
    "leukocytes", "#", "elem",
)  # fmt: skip


def _powers(exponent: str) -> tuple[str, ...]:
    forms = [f"10{mark}{exponent}" for mark in ("*", "^", "**", "e", "e+", "exp", "x", "'")] + [
        f"10({exponent})",
        f"10e0{exponent}",
    ]
    return tuple(prefix + form for prefix, form in product(("", "x", "*"), forms))


_THOUSANDS = (
    *_powers("3"),
    "1000",
    "x1000",
    "k",
    "th",
    "thou",
    "thous",
    "thousand",
    "thousands",
    "tsd",
    "tsd.",
    "tys",
    "tys.",
    "miles",
    "milhares",
    "migliaia",
    "mille",
    "millier",
    "milliers",
    "e3",
)
_BILLIONS = (
    *_powers("9"), "giga", "gpt", "mia", "mia.", "mrd", "mrd.", "milliard", "milliards", "milliarden", "miliardi", "billion",
    "billions", "bil", "e9",
)  # fmt: skip
_MILLIONS = (*_powers("6"), "mio", "mio.", "e6")

# Written by themselves.
_WHOLE: dict[str, Unit] = {
    "%": _PERCENT, "percent": _PERCENT, "pct": _PERCENT, "pourcent": _PERCENT, "p.100": _PERCENT, "p100": _PERCENT,
    "prozent": _PERCENT, "/100wbc": _PERCENT, "/100leukocytes": _PERCENT, "/100leucocytes": _PERCENT, "/100gb": _PERCENT,
    "%wbc": _PERCENT, "%leukocytes": _PERCENT, "%ofwbc": _PERCENT, "procent": _PERCENT,
    "1": _FRACTION, "ratio": _FRACTION, "fraction": _FRACTION, "10*0": _FRACTION, "l/l": _FRACTION,
    "/nl": _THOUSAND_PER_UL, "1/nl": _THOUSAND_PER_UL, "cells/nl": _THOUSAND_PER_UL, "/ml": _PER_ML, "cells/ml": _PER_ML,
}  # fmt: skip
# Written in three parts: one of each. About 30,000 spellings, which are taken apart when they come and never written out.
_PARTS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], Unit], ...] = (
    (("",), (*_CELLS, "1"), _MICROLITRE, _PER_UL),
    (("",), _CELLS, ("/l", "/liter", "/litre"), _PER_L),
    (_THOUSANDS, _CELLS, _MICROLITRE, _THOUSAND_PER_UL),
    (_BILLIONS, _CELLS, _LITRE, _THOUSAND_PER_UL),
    (_MILLIONS, _CELLS, _LITRE, _PER_UL),
    (("cells", "cell"), _powers("3"), _MICROLITRE, _THOUSAND_PER_UL),
    (("cells", "cell"), _powers("9"), _LITRE, _THOUSAND_PER_UL),
    (_powers("6"), ("",), ("/ml",), _THOUSAND_PER_UL),
)
_UNREADABLE = frozenset(("1000ul-1", "1ul-1"))  # where does the number end?


def spellings() -> dict[str, Unit]:
    """Every spelling that is known in lower case, written out: for the page, and to hold ``unit_of`` against."""
    found = dict(_WHOLE)
    for first, middle, last, unit in _PARTS:
        found |= {a + b + c: unit for a, b, c in product(first, middle, last)}
    return {text: unit for text, unit in found.items() if text not in _UNREADABLE}


def _folded(text: str) -> Unit | None:
    """``spellings().get(text)``."""
    unit = _WHOLE.get(text)
    if unit is not None or text in _UNREADABLE:
        return unit
    for first, middle, last, unit in _PARTS:
        for c in last:
            if text.endswith(c):
                front = text[: len(text) - len(c)]
                if any(front.endswith(b) and front[: len(front) - len(b)] in first for b in middle):
                    return unit
    return None


# Here the case decides: a lower-case ``g/L`` is grams and stays a question.
EXACT: dict[str, Unit] = {
    "G/L": _THOUSAND_PER_UL,
    "G/l": _THOUSAND_PER_UL,
    "G.L-1": _THOUSAND_PER_UL,
    "G.l-1": _THOUSAND_PER_UL,
    "G/litre": _THOUSAND_PER_UL,
    "G/Litre": _THOUSAND_PER_UL,
}
BRACED: dict[str, Unit] = {
    **dict.fromkeys(("/100{wbc}", "/100{wbcs}", "/100{leukocytes}", "/100{leucocytes}", "{%}"), _PERCENT),
    "{ratio}": _FRACTION,
    "{fraction}": _FRACTION,
    "{percent}": _PERCENT,
}

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_SUPERSCRIPTS = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_GLYPHS = str.maketrans(
    {
        "´": "'",
        "’": "'",
        "`": "'",
        "µ": "u",
        "μ": "u",
        "×": "x",
        "✕": "x",
        "·": ".",
        "⋅": ".",
        "∙": ".",
        "⁄": "/",
        "∕": "/",
        "−": "-",
    }
)
_ANNOTATION = re.compile(r"\{([^{}]*)\}")
# Braces mean nothing in UCUM; who writes a power into them means it all the same.
_POWER = re.compile(
    r"\d|\b(?:k|th|thou\w*|tsd|tys|mil\w*|giga?|gpt|mega|kilo|mio|mia|mrd|bil\w*|hundred\w*|cent\w*)\b", re.IGNORECASE
)
_CYRILLIC = {"тыс": "tsd", "млрд": "mrd", "млн": "mio", "мкл": "mcl", "мм": "mm", "кл": "cells", "л": "l"}
_LIMIT = 64


def _normal(text: str) -> str:
    # Superscripts before NFKC, which would turn 10⁹ into 109.
    text = _SUPERSCRIPTS.sub(_raised, text).replace("⁻", "-")
    text = unicodedata.normalize("NFKC", text.translate(_GLYPHS)).translate(_GLYPHS)
    if not text.isascii():
        # céllules, éléments, células
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        for sent, meant in _CYRILLIC.items():
            text = text.replace(sent, meant)
    return "".join(text.split())


def _raised(match: re.Match[str]) -> str:
    digits = match.group().translate(_SUPERSCRIPT)
    before = match.string[: match.start()]
    return ("^" if before[-2:] in ("10", "mm") else "") + digits


@memo(2048)
def unit_of(text: str) -> Unit | None:
    """The unit that ``text`` spells, or None: unknown, or not there at all.

    >>> unit_of("10⁹/L").factor, unit_of("g/L")
    (Decimal('1000'), None)
    """
    if not text or len(text) > _LIMIT:
        return None
    plain = _normal(text)
    if plain.lower() in BRACED:
        return BRACED[plain.lower()]
    if any(_POWER.search(words) for words in _ANNOTATION.findall(plain)):
        return None
    plain = _ANNOTATION.sub("", plain)
    if plain in EXACT:
        return EXACT[plain]
    return _folded(plain.replace("\\S\\", "^").casefold())


_TEN = re.compile(r"(?:cells\s*)?[x×*]?\s*10\s*", re.IGNORECASE)


@memo_of_parts(2048)
def unit_of_components(components: tuple[str, ...]) -> tuple[str, Unit | None, bool]:
    """``(as sent, unit, conflict)`` of OBX-6: code, text, system, and the alternate triplet.

    An unescaped ``10^9/L`` arrives as two components and is joined again. ``conflict``: two spellings are known
    and differ.
    """
    parts = [*components, "", "", "", "", "", ""]
    if _TEN.fullmatch(parts[0]) and re.match(r"\d{1,2}\s*(?:\D*[/／]|[.·⋅]\s*[lLuUµμm])", parts[1]):
        joined = f"{parts[0]}^{parts[1]}"
        # 10^3/mm^3 unescaped: the cube was split off as well.
        if parts[1].lower().endswith("mm") and parts[2][:1] == "3":
            joined += "^3"
        parts = [joined, "", "", "", "", ""]
    elif re.search(r"/mm\Z", parts[0]) and parts[1] == "3":
        parts = [f"{parts[0]}^3", "", "", "", "", ""]
    known = {unit for unit in (unit_of(parts[i]) for i in (0, 1, 3, 4)) if unit is not None}
    as_sent = parts[0] or parts[1] or parts[3] or parts[4]
    if len({(u.kind, u.factor) for u in known}) > 1:
        return as_sent, None, True
    first = unit_of(parts[0]) if parts[0] else None
    if first is None and parts[0]:
        # A local code with a known text (``GL^G/L^L``) is that unit; an unknown UCUM code is a question.
        known = set() if parts[2].upper() == "UCUM" else known
    return as_sent, next(iter(known), None), False
