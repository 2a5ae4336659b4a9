"""The closed table of units."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.reading.units import spellings, unit_of, unit_of_components

THOUSAND = (
    "10*3/uL 10*9/L 10^9/L 10E9/L 10e9/L x10E9/L x10*9/L x10E3/uL 10^3/µL 10^3/μL 10⁹/L ×10⁹/L 10³/mm³ 10\\S\\9/L "
    "K/uL k/ul THOU/uL "
    "thou/uL Thou/mcL x10(3)/mcL G/L G/l Giga/L Gpt/L giga.l-1 /nl mia/l 1000/uL 1000/mm3 10^3/mm^3 k/mm3 10*3{cells}/uL"
).split()
ONE = "/uL /mm3 /mm^3 /mm³ cells/uL {cells}/uL cells/mcL cells/mm3 /cumm /cmm per-ul /µL".split()
QUESTIONS = "g/L g/l 109/L mg/L T/L M/uL 10*6/uL 10*12/L fL mmol/L mil/uL G K 10*9 /L/L U/L 10^9".split()


@pytest.mark.parametrize("text", THOUSAND)
def test_a_thousand_per_microlitre_in_every_spelling(text: str) -> None:
    assert unit_of(text) == ("count", Decimal(1000))


@pytest.mark.parametrize("text", ONE)
def test_cells_per_microlitre(text: str) -> None:
    assert unit_of(text) == ("count", Decimal(1))


def test_the_rare_volumes() -> None:
    assert unit_of("/mL") == ("count", Decimal("0.001"))
    assert unit_of("cells/L") == ("count", Decimal("0.000001"))


def test_parts_of_the_leukocytes() -> None:
    assert unit_of("%") == ("percent", Decimal("0.01"))
    assert unit_of("/100{WBC}") == ("percent", Decimal("0.01")) or unit_of("/100{WBC}") is None
    assert unit_of("1") == ("fraction", Decimal(1))
    assert unit_of("{ratio}") == ("fraction", Decimal(1))


@pytest.mark.parametrize("text", ["", " ", "x" * 200, *QUESTIONS])
def test_what_is_not_in_the_table_is_a_question(text: str) -> None:
    assert unit_of(text) is None


@pytest.mark.parametrize("text", ["10*9/L", " 10 * 9 / L ", "10*9\u00a0/L", "1\uff10*9/L"])
def test_spaces_and_wide_digits_do_not_matter(text: str) -> None:
    assert unit_of(text) == ("count", Decimal(1000))


def test_an_unescaped_caret_is_joined_again() -> None:
    assert unit_of_components(("10", "9/L")) == ("10^9/L", ("count", Decimal(1000)), False)
    assert unit_of_components(("x10", "3/uL"))[1] == ("count", Decimal(1000))
    assert unit_of_components(("10", "3/mm", "3"))[1] == ("count", Decimal(1000))


def test_triplets_that_agree_and_that_do_not() -> None:
    assert unit_of_components(("{cells}/uL", "cells per microliter", "UCUM"))[1] == ("count", Decimal(1))
    assert unit_of_components(("/uL", "", "UCUM", "10*9/L"))[1:] == (None, True)
    assert unit_of_components(("GL", "G/L", "L"))[1] == ("count", Decimal(1000))
    assert unit_of_components(("GL", "G/L", "UCUM"))[1] is None


TABLE = spellings()
EVERY = sorted(TABLE)


def test_every_spelling_of_the_table_is_found_by_its_parts() -> None:
    assert len(EVERY) > 29_000
    assert [text for text in EVERY if unit_of.__wrapped__(text) != TABLE[text]] == []


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(EVERY), st.integers(0, 30), st.integers(0, 2), st.sampled_from(["", *"1039kgxle/*^.-#()+"]))
def test_a_spelling_with_another_letter_is_found_only_where_the_table_has_it(
    text: str, at: int, less: int, more: str
) -> None:
    changed = text[:at] + more + text[at + less :]
    assert unit_of(changed) == TABLE.get(changed)
