"""A strict grammar for the numbers that laboratories send; exact Decimals, or the reason why there is none.

Rule of the file: one number or nothing. A text that holds two numbers, or one number that two countries read differently,
is refused, never searched for the first digits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from rules.model import Comparator

__all__ = ["Number", "Refusal", "is_plain", "number_of", "number_of_json", "plain_number_of", "structured_number_of"]


class Number(NamedTuple):
    """``step``: the smallest step of the notation (``0.84`` -> 0.01). ``unit``: what followed the number, "" if nothing."""

    value: Decimal
    step: Decimal
    comparator: Comparator | None = None
    unit: str = ""
    point_of_three: bool = False
    """``1.250``: a decimal point before exactly three digits; a thousands point to half of Europe."""


class Refusal(NamedTuple):
    code: str
    text: str


_LIMIT = 40
_SPACES = " \u00a0\u202f\u2009\u2007"
_COMPARATORS: dict[str, Comparator | None] = {
    "": None, "=": None, "<": "<", ">": ">", "<=": "<=", ">=": ">=", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">=",
}  # fmt: skip
_SHAPE = re.compile(
    rf"(?P<cmp><=|>=|=<|=>|<|>|≤|≥|=)?[{_SPACES}]*\+?"
    rf"(?P<num>\d{{1,3}}(?:[{_SPACES}'’]\d{{3}})+(?:[.,]\d{{1,10}})?(?![\d.,])"
    r"|\d{1,3}(?:,\d{3})+\.\d{1,10}(?![\d.,])|\d{1,3}(?:\.\d{3})+,\d{1,10}(?![\d.,])"
    r"|\d{1,3}(?:,\d{3}){2,}(?![\d.,])|\d{1,3}(?:\.\d{3}){2,}(?![\d.,])"
    r"|\d{1,12}(?:[.,]\d{1,10})?(?![\d.,])|\.\d{1,10}(?![\d.,]))"
    rf"[{_SPACES}]*(?P<rest>.*)\Z",
    re.DOTALL | re.ASCII,
)
_JSON = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?(?:[eE][+-]?\d{1,3})?\Z", re.ASCII)
is_plain = re.compile(r"\d{1,12}(?:\.\d{1,10})?\Z", re.ASCII).match


def number_of(text: str) -> Number | Refusal:
    """The one number of ``text`` (NM, ST, TX, IS, valueString), with comparator and trailing unit.

    >>> number_of("< 0,10").value, number_of("1 850").value, number_of("1,250").code
    (Decimal('0.10'), Decimal('1850'), 'value-ambiguous')
    """
    if is_plain(text):
        return plain_number_of(text)
    text = text.strip(_SPACES + "\t\r\n")
    if not text:
        return Refusal("value-missing", "no value")
    if len(text) > _LIMIT:
        return Refusal("value-not-a-number", "free text in place of a number")
    match = _SHAPE.match(text)
    if match is None:
        if re.match(r"[<>=≤≥ ]*-\s*\d", text):
            return Refusal("value-negative", "a count cannot be negative")
        return Refusal("value-not-a-number", "not a number")
    rest = match["rest"].strip()
    if re.search(r"\d", _without_unit_digits(rest)):
        return Refusal("value-two-numbers", "more than one number")
    return _number(match["num"], _COMPARATORS[match["cmp"] or ""], rest)


_STEPS = tuple(Decimal(1).scaleb(-places) for places in range(11))


def plain_number_of(text: str) -> Number:
    """Digits and at most one point: what nearly every NM is."""
    whole, _, part = text.partition(".")
    doubtful = len(part) == 3 and len(whole) <= 3 and whole.strip("0") != ""
    return Number(Decimal(text), _STEPS[len(part)], None, "", doubtful)


_UNIT_DIGITS = re.compile(r"10\s*(?:[*^eE]|\*\*|\\S\\)?\s*\(?[39]\)?|10[³⁹]|mm\s*\^?[3³]|1000\s*/|/\s*100\b")


def _without_unit_digits(rest: str) -> str:
    """``rest`` without the digits that units are made of (``x10*9/L``, ``mm3``)."""
    return _UNIT_DIGITS.sub("", rest)


def _number(raw: str, comparator: Comparator | None, unit: str) -> Number | Refusal:
    # NM may leave the nought before the point out (HL7 v2.5.1, 2.A.47).
    raw = f"0{raw}" if raw[0] == "." else raw
    digits = re.sub(rf"[{_SPACES}'’]", "", raw)
    grouped = digits != raw
    commas, points = digits.count(","), digits.count(".")
    if commas and points:
        decimal = max(",", ".", key=digits.rfind)
        digits = digits.replace("." if decimal == "," else ",", "").replace(decimal, ".")
    elif commas > 1 or points > 1:
        digits = digits.replace(",", "").replace(".", "")
    elif commas:
        whole, _, part = digits.partition(",")
        if len(part) == 3 and not grouped and len(whole) <= 3 and whole.strip("0"):
            return Refusal("value-ambiguous", "a comma before three digits: decimals or thousands?")
        digits = f"{whole}.{part}"
    value = Decimal(digits)
    whole, _, part = digits.partition(".")
    point_of_three = (
        points == 1 and not commas and not grouped and len(part) == 3 and len(whole) <= 3 and whole.strip("0") != ""
    )
    return Number(value, Decimal(1).scaleb(-len(part)), comparator, unit, point_of_three)


def number_of_json(token: str) -> Number | Refusal:
    """A JSON number token, exactly as it stands in the document; exponents are bounded (``1e99999999`` is refused)."""
    if is_plain(token):
        return Number(Decimal(token), _STEPS[len(token.partition(".")[2])])
    if not _JSON.match(token):
        if token[:1] in '"tfn[{':
            return Refusal("value-not-a-number", "not a JSON number")
        return Refusal("value-out-of-bounds", "more digits or a larger exponent than a laboratory writes")
    value = Decimal(token)
    exponent = value.as_tuple().exponent
    if value < 0:
        return Refusal("value-negative", "a count cannot be negative")
    if not isinstance(exponent, int) or abs(exponent) > 15 or value.adjusted() > 15:
        return Refusal("value-out-of-bounds", "more digits or a larger exponent than a laboratory writes")
    return Number(value, Decimal(1).scaleb(min(exponent, 0)))


def structured_number_of(parts: list[str]) -> Number | Refusal:
    """An SN: comparator, number, separator, second number. Ranges and ratios are refused."""
    mark, first, separator, second = (p.strip() for p in [*parts, "", "", "", ""][:4])
    if separator or second:
        return Refusal("value-range", "a range or ratio, not one number")
    if not first:
        return number_of(mark)
    if mark not in _COMPARATORS:
        return Refusal("value-comparator", "unknown comparator")
    number = number_of(first)
    if isinstance(number, Refusal) or not mark or _COMPARATORS[mark] is None:
        return number
    if number.comparator is not None:
        return Refusal("value-comparator", "two comparators")
    return number._replace(comparator=_COMPARATORS[mark])
