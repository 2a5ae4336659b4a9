"""A protocol that would leave a patient without an answer is refused, and the refusal names the entry."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from decimal import Decimal
from importlib import resources

import pytest

from rules.actions import ACTIONS
from rules.model import Population
from rules.packaged import check_together, find_protocol, packaged
from rules.protocol import ProtocolError, band_of
from rules.protocol_file import parse

TEXT = resources.files("rules").joinpath("protocols/ansm-2025-09.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["ansm", "ANSM", "ansm@2025-09", "ANSM-2025", "ansm-2025"])
def test_the_protocol_is_found_by_id_version_and_alias(name: str) -> None:
    assert find_protocol(name).name == "ansm@2025-09"


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match=r"'FDA-1999': unknown; known are .*ansm@2025-09"):
        find_protocol("FDA-1999")


@pytest.mark.parametrize(
    ("old", "new", "entry", "reason"),
    [
        ("effective_from = 2025", "efective_from = 2025", "protocol", "effective_from is missing"),
        ('title = "ANSM, clozapine', 'colour = "red"\ntitle = "ANSM, clozapine', "protocol", "unknown key 'colour'"),
        ("fall_percent = 20", "fall_percent = 20\nfall = 2", "after_mild", "unknown key 'fall'"),
        ('publisher = "ANSM"', 'publisher = ""', "source.ansm", "publisher is empty"),
        ('source = "ansm", locator = "Arret (R5)"', 'source = "ema", locator = "Arret (R5)"', "cite", "not a [source]"),
        ('locator = "Initiation (R2)", quote', 'locator = "Initiation (R2)", words', "cite", "quote is missing"),
        ('action = "CONTINUE"', 'action = "GO_ON"', "range[4] normal/general", "unknown action 'GO_ON'"),
        ('alert = "critical"', 'alert = "purple"', "range[1] severe/general", "unknown AlertLevel 'purple'"),
        ("below = 1000", "below = 999", "range moderate/general and mild/general", "gap at 999"),
        ("below = 1000", "at_most = 1000", "range moderate/general and mild/general", "overlap at 1000"),
        ("below = 1000", "below = 1001", "range moderate/general and mild/general", "overlap at 1000"),
        ("above = 1500", "above = 1600", "range mild/general and normal/general", "gap at 1500"),
        ("at_least = 0\n", "at_least = 1\n", "range general", "no range begins at zero"),
        ("above = 1500", "above = 1500\nbelow = 90000", "range normal/general", "gap above 90000"),
        ('interval = "28 days"', 'interval = "28"', "phase[2] weeks-19-52", "not an interval with a unit"),
        ('recheck = "3 days"', "recheck = 3", "after_mild", "not an interval with a unit"),
        ('readings = ["A-12"]', 'readings = ["A-99"]', "range[1] severe/general", "'A-99' is not a [[reading]]"),
        ('readings = ["B-26"]', "readings = []", "reading B-26", "named by no rule"),
        ("fall_percent = 20", "fall_percent = -20", "after_mild", "must be a number of zero or more"),
        ("mild_upper_bound_inclusive = true }", "half = true }", "range[3] mild/general", "has the key 'half'"),
        ("choice = true", 'choice = "maybe"', "reading[1] A-1", "none of the options"),
        ('id = "B-1"', 'id = "A-1"', "A-1", "a second reading"),
        ('since = "0 days"', 'since = "1 day"', "phase weeks-1-18", "everyone from day 0"),
        (
            "recovered_at = { general = 1500, ",
            "recovered_at = { ",
            "after_stop.recovered_at",
            "general must be a number",
        ),
        (
            'population = "benign_ethnic_neutropenia"\nat_least = 1000\naction',
            'population = "general"\nat_least = 1000\naction',
            "protocol",
            "initiation: exactly one",
        ),
        ("[unknown_past]", "[unknown_past", "file", "not TOML"),
    ],
)
def test_a_faulty_protocol_is_refused_by_name(old: str, new: str, entry: str, reason: str) -> None:
    assert old in TEXT
    with pytest.raises(ProtocolError) as refused:
        parse(TEXT.replace(old, new, 1))
    assert entry in refused.value.entry
    assert reason in refused.value.reason


def test_a_rule_without_a_citation_is_refused() -> None:
    lines = TEXT.splitlines()
    lines.remove(next(line for line in lines if line.startswith("cite")))
    with pytest.raises(ProtocolError, match=r"range\[1\] severe/general: cite is missing"):
        parse("\n".join(lines))


def test_two_versions_with_overlapping_dates_are_refused() -> None:
    old = find_protocol("ansm")
    new = replace(old, version="2026-01", aliases=(), effective_from=date(2026, 1, 1))
    with pytest.raises(ProtocolError, match="ansm@2026-01: its dates overlap those of ansm@2025-09"):
        check_together([new, old])
    assert check_together([new, replace(old, effective_until=date(2025, 12, 31))])[0].version == "2025-09"


def test_an_alias_means_one_protocol() -> None:
    old = find_protocol("ansm")
    with pytest.raises(ProtocolError, match="alias 'ANSM-2025' already means"):
        check_together([old, replace(old, id="other")])


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("population", list(Population))
def test_every_count_falls_in_exactly_one_range(population: Population, inclusive: bool) -> None:
    bands = parse(TEXT, {"mild_upper_bound_inclusive": inclusive}).bands_of(population)
    for tenths in range(0, 20001):
        count = Decimal(tenths) / 10
        assert sum(band.holds(count) for band in bands) == 1
        if tenths:
            assert sum(band.holds(count, just_below=True) for band in bands) == 1


def test_just_below_zero_is_the_worst_band() -> None:
    assert band_of(find_protocol("ansm").bands_of(Population.GENERAL), Decimal(0), just_below=True).id == "severe"


def test_a_switch_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no switchable reading has the key 'brave'"):
        parse(TEXT, {"brave": True})


def test_every_reading_of_the_reference_is_listed() -> None:
    listed = {reading.id for reading in find_protocol("ansm").readings}
    assert {f"A-{n}" for n in range(1, 26)} <= listed
    assert {f"B-{n}" for n in range(1, 31)} <= listed


def test_every_action_has_words_in_both_languages() -> None:
    for words in ACTIONS.values():
        assert set(words) == {"fr", "en"}
        assert all(wording.title and wording.do.endswith(".") for wording in words.values())


def test_a_protocol_is_frozen() -> None:
    protocol = packaged()[0]
    with pytest.raises(AttributeError):
        protocol.version = "x"  # type: ignore[misc]
    assert not hasattr(protocol, "__dict__")
    assert fields(protocol)


def test_no_quote_is_empty_and_none_has_an_accent() -> None:
    protocol = find_protocol("ansm")
    for quote in [band.grounds.cite.quote for band in protocol.ranges]:
        assert quote
        assert quote.isascii()
