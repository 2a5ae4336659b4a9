"""One number or nothing."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.reading.values import Number, Refusal, number_of, number_of_json, structured_number_of


@pytest.mark.parametrize(
    ("text", "value", "comparator", "unit"),
    [
        ("1.25", "1.25", None, ""),
        ("1,25", "1.25", None, ""),
        ("0,840", "0.840", None, ""),
        ("1 850", "1850", None, ""),
        ("1\u00a0850", "1850", None, ""),
        ("1\u202f850", "1850", None, ""),
        ("1 850,5", "1850.5", None, ""),
        ("1,850.5", "1850.5", None, ""),
        ("1.850,5", "1850.5", None, ""),
        ("<0.5", "0.5", "<", ""),
        ("< 0,10", "0.10", "<", ""),
        ("≥ 2", "2", ">=", ""),
        ("=1.2", "1.2", None, ""),
        ("+1.2", "1.2", None, ""),
        ("1,2 G/L", "1.2", None, "G/L"),
        ("1.2 x10*9/L", "1.2", None, "x10*9/L"),
        ("1850 /mm3", "1850", None, "/mm3"),
    ],
)
def test_one_number_is_read_exactly(text: str, value: str, comparator: str | None, unit: str) -> None:
    number = number_of(text)
    assert isinstance(number, Number)
    assert (number.value, number.comparator, number.unit) == (Decimal(value), comparator, unit)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "value-missing"),
        ("1,250", "value-ambiguous"),
        ("<1,250", "value-ambiguous"),
        ("55.0%  4.40", "value-two-numbers"),
        ("6.0 (60,6 %)", "value-two-numbers"),
        ("12 34", "value-two-numbers"),
        ("1.5-2.0", "value-two-numbers"),
        ("****", "value-not-a-number"),
        ("Voir commentaire", "value-not-a-number"),
        ("1.2.3", "value-not-a-number"),
        ("1e3", "value-two-numbers"),
        ("-1.2", "value-negative"),
        ("NaN", "value-not-a-number"),
        ("Infinity", "value-not-a-number"),
        ("٣", "value-not-a-number"),
        ("1" * 30, "value-not-a-number"),
        ("1" * 300, "value-not-a-number"),
    ],
)
def test_anything_else_is_refused(text: str, code: str) -> None:
    number = number_of(text)
    assert isinstance(number, Refusal)
    assert number.code in (code, "value-two-numbers")


def test_the_step_is_that_of_the_notation() -> None:
    for text, step in (("0.84", "0.01"), ("1.0", "0.1"), ("1850", "1"), ("1,20", "0.01")):
        number = number_of(text)
        assert isinstance(number, Number)
        assert number.step == Decimal(step)


def test_structured_numerics() -> None:
    below = structured_number_of(["<", "0.1"])
    assert isinstance(below, Number)
    assert (below.value, below.comparator) == (Decimal("0.1"), "<")
    for parts in (["", "1.5", "-", "2.0"], ["<>", "1"], ["", "1", ":", "2"], ["<", "<1"], [""]):
        assert isinstance(structured_number_of(parts), Refusal)


def test_json_numbers_are_bounded() -> None:
    exact = number_of_json("0.840")
    assert isinstance(exact, Number)
    assert str(exact.value) == "0.840"
    for token in ("1e99999999", "1e-99999999", "1e500", "-1", '"3"', "true", "[1]", "1" * 40, "0." + "0" * 40, ""):
        assert isinstance(number_of_json(token), Refusal)


@given(st.text(max_size=50))
def test_any_text_gives_a_number_or_a_refusal(text: str) -> None:
    assert isinstance(number_of(text), Number | Refusal)
    assert isinstance(number_of_json(text), Number | Refusal)
    assert isinstance(structured_number_of(text.split("^")), Number | Refusal)


@given(st.decimals(min_value=0, max_value=99999, places=2))
def test_a_plain_number_keeps_its_value(value: Decimal) -> None:
    for text in (f"{value:f}", f"{value:f}".replace(".", ",")):
        number = number_of(text)
        assert isinstance(number, Number)
        assert number.value == value
