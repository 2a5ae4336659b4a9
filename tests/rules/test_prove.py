"""The proof of a protocol: it holds, it is of the protocol that the evaluator runs, and it breaks when a fault is planted."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli_rules import rules_prove
from rules import assess, find_protocol, packaged
from rules.cases import CaseError, case_verdict, read_cases
from rules.model import (
    AbsoluteNeutrophilCount,
    AlertLevel,
    Assessment,
    Attestation,
    LabResult,
    Population,
    PriorNeutropenia,
    ResultStatus,
    TreatmentCourse,
)
from rules.protocol import SEVERITY, MonitoringProtocol, ProtocolError
from rules.protocol_file import parse
from rules.span import anniversary, due_after, parse_span

z3 = pytest.importorskip("z3")
from engine.prove import Encoding, prove, state  # noqa: E402 - only with the extra [proof]

HERE = Path(__file__).parent
ANSM = find_protocol("ansm")
TEXT = resources.files("rules").joinpath("protocols/ansm-2025-09.toml").read_text(encoding="utf-8")


def broken(protocol: MonitoringProtocol) -> set[str]:
    return {proof.name for proof in prove(protocol) if not proof.holds}


@pytest.mark.parametrize("protocol", packaged(), ids=lambda p: p.name)
def test_every_packaged_protocol_has_the_properties_it_declares(protocol: MonitoringProtocol) -> None:
    assert protocol.properties
    assert broken(protocol) == set()


def test_the_command_says_what_is_proved() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_prove(out, err) == 0
    assert "proved  ansm@2025-09  stop-never-undone" in out.getvalue().splitlines()


def test_the_command_names_the_state_that_breaks_a_property(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(TEXT.replace('id = "ansm"', 'id = "other"').replace("permanent = true", "permanent = false"))
    out, err = io.StringIO(), io.StringIO()
    assert rules_prove(out, err, paths=(path,), json=True) == 1
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    (found,) = [line for line in lines if not line["holds"]]
    assert (found["protocol"], found["property"]) == ("other@2025-09", "stop-never-undone")
    assert "count = " in found["counterexample"]


# --- The encoding is of what the evaluator does -----------------------------------------------------------------------


def value_of(expression: Any, facts: dict[str, Any]) -> int:
    """The formula's value in one state; every fact that it asks for must be given."""
    pairs = []
    for name, fact in facts.items():
        if isinstance(fact, bool):
            pairs.append((z3.Bool(name), z3.BoolVal(fact)))
        elif isinstance(fact, int):
            pairs.append((z3.Int(name), z3.IntVal(fact)))
        else:
            pairs.append((z3.Real(name), z3.RealVal(str(fact))))
    return int(z3.simplify(z3.substitute(expression, *pairs)).as_long())


EDGES = [
    Decimal(n) for n in ("0", "499", "499.9", "500", "999.9", "1000", "1000.1", "1499.9", "1500", "1500.1", "9000")
]
COUNTS = st.sampled_from(EDGES) | st.integers(0, 40000).map(lambda tenths: Decimal(tenths) / 10)
MILD_COUNTS = st.sampled_from([edge for edge in EDGES if 1000 <= edge <= 1500]) | st.integers(10_000, 15_000).map(
    lambda tenths: Decimal(tenths) / 10
)
TURNS = st.sampled_from([1, 125, 126, 127, 181, 182, 363, 364, 365, 729, 730, 731, 732]) | st.integers(1, 2600)
STARTS = st.dates(date(2015, 1, 1), date(2024, 12, 31)) | st.just(date(2020, 2, 29))


@given(st.sampled_from(packaged()), STARTS, TURNS, COUNTS, st.booleans(), st.sampled_from(list(PriorNeutropenia)))
@settings(max_examples=200, deadline=None)
def test_the_evaluator_does_what_the_encoding_says(
    protocol: MonitoringProtocol, start: date, day: int, value: Decimal, ben: bool, prior: PriorNeutropenia
) -> None:
    if prior is PriorNeutropenia.STOP_LEVEL:
        prior = PriorNeutropenia.MILD
    on = start + timedelta(days=day)
    course = TreatmentCourse(
        start=start, prior_neutropenia=prior, ben=Attestation("Dr A", date(2000, 1, 1)) if ben else None
    )
    population = course.population
    found = assess(protocol, course, (), result(on, value), on)
    assert isinstance(found, Assessment)
    encoding, s = Encoding(protocol), state()
    anc, leukocytes = z3.Real("count"), z3.Real("leukocytes")
    # The encoding counts a year as 365 or 366 days; the calendar says which.
    second = anniversary(start, parse_span("2 years"))
    treated = day
    if day in (730, 731):
        treated = 2 * 366 if on >= second else 2 * 365 - 1
    year = (due_after(on, parse_span("1 year")) - on).days
    facts = {
        "treated days": treated,
        "history": prior is PriorNeutropenia.MILD,
        "unknown past": prior is PriorNeutropenia.UNKNOWN,
        "window": -1,
        "first since restart": False,
        "phase changes": False,
        "infection": False,
        "risk": False,
        "previous mild": Decimal(-1),
        "settled": False,
        "period over": False,
        "aftermath": False,
        "year in days": year,
        "count": value,
        "leukocytes": Decimal(10**6),
    }
    kind = encoding.kind(population, anc, leukocytes)
    bands = protocol.bands_of(population)
    said = next(band for band in bands if band.id == found.category and band.holds(value))
    assert value_of(kind, facts) == SEVERITY[said.kind]
    assert found.next_due == on + timedelta(days=value_of(encoding.interval(kind, s), facts))
    if "B-1" not in found.readings and "E-9" not in found.readings and found.alert is not AlertLevel.INFO:
        assert found.alert.rank == value_of(encoding.alert(population, anc, leukocytes, s), facts)


def result(on: date, value: Decimal) -> LabResult:
    at = datetime(on.year, on.month, on.day, 8, tzinfo=UTC)
    return LabResult(status=ResultStatus.FINAL, anc=AbsoluteNeutrophilCount(per_mm3=value), collected_at=at)


@given(st.lists(MILD_COUNTS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_an_episode_is_settled_by_evaluator_and_encoding_alike(values: list[Decimal]) -> None:
    start = date(2020, 1, 6)
    course = TreatmentCourse(start=start, prior_neutropenia=PriorNeutropenia.NONE)
    encoding, s, anc = Encoding(ANSM), state(), z3.Real("count")
    history: list[LabResult] = []
    settled, previous = False, Decimal(-1)
    for number, value in enumerate(values):
        on = start + timedelta(days=400 + 28 * number)
        found = assess(ANSM, course, history, result(on, value), on)
        assert isinstance(found, Assessment)
        facts = {"previous mild": previous, "settled": settled, "count": value}
        asks = z3.If(encoding.unsettled(anc, s), 1, 0)
        settled = value_of(asks, facts) == 0
        assert (found.recommended_recheck_by is None) == settled
        history.append(result(on, value))
        previous = value


# --- Planted faults ---------------------------------------------------------------------------------------------------


def failing_cases(text: str) -> set[str]:
    """Ids of our worked cases that the protocol in ``text`` answers otherwise."""
    protocol = parse(text)
    source = (HERE / "cases-ansm.json").read_text(encoding="utf-8")
    failing = set()
    for row, case in zip(json.loads(source), read_cases(source), strict=True):
        assert not isinstance(case, CaseError)
        line = case_verdict(protocol, case)
        expected = {"recommended_recheck_by": None, "weekly_until": None, **row["expected"]}
        if {field: line[field] for field in expected} != expected:
            failing.add(row["id"])
    return failing


def swapped(text: str) -> str:
    """The two populations of the bands exchanged."""
    head, mark, tail = text.partition("# --- Before the first dose")
    head = head.replace('"general"', '"X"').replace('"benign_ethnic_neutropenia"', '"general"')
    return head.replace('"X"', '"benign_ethnic_neutropenia"') + mark + tail


FAULTS = {
    "stop threshold one higher": (("below = 1000\n", "below = 1001\n"), ("at_least = 1000\n", "at_least = 1001\n")),
    "stop threshold one lower": (("below = 1000\n", "below = 999\n"), ("at_least = 1000\n", "at_least = 999\n")),
    "severe one higher": (("below = 500\n", "below = 501\n"), ("at_least = 500\n", "at_least = 501\n")),
    "mild one higher": (("at_most = 1500", "at_most = 1501"), ("above = 1500", "above = 1501")),
    "start one lower": (('"general"\nat_least = 1500\naction', '"general"\nat_least = 1499\naction'),),
    "weekly off by a day": (('interval = "7 days"\nwithout', 'interval = "8 days"\nwithout'),),
    "monthly off by a day": (('interval = "28 days"\nwithout', 'interval = "29 days"\nwithout'),),
    "12 weeks off by a day": (('interval = "12 weeks"', 'interval = "85 days"'),),
    "throughout off by a day": (('throughout = true\ninterval = "28', 'throughout = true\ninterval = "29'),),
    "week 18 off by a day": (('since = "18 weeks"', 'since = "127 days"'),),
    "week 52 off by a day": (('since = "52 weeks"', 'since = "363 days"'),),
    "gap of 3 days off by one": (('counted_from = "3 days"', 'counted_from = "4 days"'),),
    "gap of 4 weeks off by one": (('gap_at_least = "4 weeks"\naction', 'gap_at_least = "29 days"\naction'),),
    "follow-up off by a day": (('period = "4 weeks"', 'period = "27 days"'),),
    "recheck off by a day": (('recheck = "3 days"', 'recheck = "4 days"'),),
    "history forgotten": (('"12 weeks"\nwithout_neutropenia = true', '"12 weeks"\nwithout_neutropenia = false'),),
    "lost never re-expose": (("permanent = true", "permanent = false"),),
    "clozapine after a stop": (('banned_action = "WEEKLY_POST_STOP_NO_REEXPOSURE"', 'banned_action = "CONTINUE"'),),
}  # fmt: skip
PROVED_WRONG = {
    "lost never re-expose": {"stop-never-undone"},
    "clozapine after a stop": {"stop-never-undone"},
}


def planted() -> Iterator[Any]:
    for name, changes in FAULTS.items():
        text = TEXT
        for old, new in changes:
            assert old in text, (name, old)
            text = text.replace(old, new)
        yield pytest.param(text, PROVED_WRONG.get(name, set()), id=name)


@pytest.mark.parametrize(("text", "proved_wrong"), list(planted()))
def test_a_planted_fault_is_found_by_the_cases_and_where_it_can_be_by_the_proof(
    text: str, proved_wrong: set[str]
) -> None:
    assert failing_cases(text)
    if proved_wrong:
        assert broken(parse(text)) == proved_wrong


def test_swapped_populations_are_found_by_the_proof_and_by_the_cases() -> None:
    assert broken(parse(swapped(TEXT))) == {"ben-never-stricter"}
    assert failing_cases(swapped(TEXT))


@pytest.mark.parametrize(("end", "word"), [("999", "gap at 999"), ("1001", "overlap at 1000")])
def test_a_gap_or_an_overlap_is_refused_at_load_and_would_be_found_by_the_proof(end: str, word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        parse(TEXT.replace("below = 1000\n", f"below = {end}\n", 1))
    population = Population.GENERAL
    severe, moderate, *rest = ANSM.bands_of(population)
    bands = (severe, replace(moderate, high=Decimal(end)), *rest)
    others = tuple(pair for pair in ANSM.bands if pair[0] is not population)
    faulty = replace(ANSM, bands=((population, bands), *others))
    assert "every-count-one-category" in broken(faulty)


def test_a_stop_milder_than_its_neighbour_is_found_by_the_proof() -> None:
    signs = replace(ANSM.infection, mild_alert=AlertLevel.NONE, normal_alert=AlertLevel.CRITICAL)
    assert "lower-count-never-milder" in broken(replace(ANSM, infection=signs))


def test_a_phase_that_leaves_a_day_without_a_next_count_is_found_by_the_proof() -> None:
    late = replace(ANSM, phases=ANSM.phases[1:])
    assert "next-due-under-treatment" in broken(late)
