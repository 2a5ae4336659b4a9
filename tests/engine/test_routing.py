"""Which destination gets what, as a table; and the rules that are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from engine.config import ConfigError, load
from engine.duty import faults, routing_of
from engine.routing import Routing, Rule, copies_of
from rules.asking import DISPENSED
from rules.model import (
    Alert,
    AlertFamily,
    AlertKind,
    AlertLevel,
    Assessment,
    LabResult,
    OrderReference,
    ResultStatus,
    Subject,
)
from rules.withdrawal import ANSWERED_WITHDRAWN

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def alert(
    level: str = "red", *, ward: str = "", prescriber: str = "", source: str = "SIL|CHX M1", **other: Any
) -> Alert:
    result = LabResult(
        status=ResultStatus.FINAL,
        anc=None,
        collected_at=NOON,
        order=OrderReference(ward=ward, prescriber=prescriber),
    )
    given: dict[str, Any] = {
        "id": "a1",
        "revision": 1,
        "kind": AlertKind.RAISED,
        "family": AlertFamily.STOP,
        "level": AlertLevel(level),
        "title": "",
        "text": "",
        "subject": Subject(register_id="p1"),
        "raised_at": NOON,
        "updated_at": NOON,
        "result": result,
        "source": source,
    }
    return Alert(**given | other)


def where(**given: str) -> dict[str, frozenset[str]]:
    return {key: frozenset(value.split(",")) for key, value in given.items()}


RULES = (
    Rule("all"),
    Rule("pager", where(level="critical,red")),
    Rule("geriatrics", where(ward="GER1,GER2")),
    Rule("lab-a", where(sender="SIL")),
    Rule("dr-hoda", where(prescriber="10001", level="amber,red,critical")),
    Rule("pharmacy", where(recipient="pharmacist"), copies=True),
    Rule("on-call", where(recipient="on-call")),
)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (alert("critical"), "all pager lab-a"),
        (alert("amber", source="OTHER|X M1"), "all"),
        (alert("amber", ward="GER2", source="A|B M1"), "all geriatrics"),
        (alert("info", prescriber="10001", source="A|B M1"), "all"),
        (alert("red", prescriber="10001", source="A|SIL M1"), "all pager lab-a dr-hoda"),
        (alert("red", recipient="pharmacist"), "pharmacy"),
        (alert("amber", asked=("psychiatrist", "on-call"), source=""), "all on-call"),
        # Unanswered, it is as urgent as a red one; and who was told before is told what becomes of it.
        (alert("amber", urgency=AlertLevel.RED, source=""), "all pager"),
        (alert("info", told=("pager",), source=""), "all pager"),
    ],
)
def test_each_destination_takes_what_agrees_with_its_rule(what: Alert, told: str) -> None:
    assert " ".join(Routing(rules=RULES).destinations(what)) == told


def test_what_no_rule_takes_goes_to_all_rather_than_nowhere() -> None:
    routing = Routing(rules=(Rule("a", where(ward="W1")), Rule("b", where(sender="S")), RULES[5]))
    assert routing.destinations(alert("red", ward="W9", source="")) == ("a", "b")
    assert routing.destinations(alert("red", ward="W9", source="", recipient="pharmacist")) == ("pharmacy",)


_values = st.sampled_from(["", "A", "B", "C"])
_rule = st.builds(
    lambda name, keys, copies: Rule(name, {k: v for k, v in keys.items() if v}, copies),
    st.text("abc", min_size=1, max_size=3),
    st.fixed_dictionaries(
        {key: st.frozensets(st.sampled_from("ABC"), max_size=2) for key in ("sender", "ward", "prescriber")}
        | {"level": st.frozensets(st.sampled_from(["critical", "red", "amber", "info"]), max_size=3)}
    ),
    st.booleans(),
)


@tried(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_rule, min_size=1, max_size=6), _values, _values, _values, st.sampled_from(["critical", "amber"]))
def test_no_alert_ever_goes_nowhere(rules: list[Rule], sender: str, ward: str, prescriber: str, level: str) -> None:
    told = Routing(rules=tuple(rules)).destinations(alert(level, ward=ward, prescriber=prescriber, source=sender))
    assert told


@pytest.mark.parametrize(
    ("what", "second"),
    [
        (alert("critical"), ("pharmacist",)),
        (alert("red"), ("pharmacist",)),
        (alert("amber", family=AlertFamily.MILD), ()),
        (alert("amber", family=AlertFamily.REVIEW, reason="unit-missing"), ("laboratory",)),
        (alert("amber", family=AlertFamily.REVIEW, reason="unit-missing", source=""), ()),
        (alert("amber", family=AlertFamily.REVIEW, reason=ANSWERED_WITHDRAWN), ()),
        (alert("amber", family=AlertFamily.REVIEW, reason="feed-silent", source=""), ()),
        (alert("red", family=AlertFamily.REVIEW, reason=DISPENSED), ("pharmacist",)),
    ],
)
def test_who_else_is_told(what: Alert, second: tuple[str, ...]) -> None:
    assert copies_of(what) == second


def test_a_derived_count_on_both_sides_of_a_threshold_asks_the_laboratory() -> None:
    verdict = Assessment(
        protocol="ansm@2025-09",
        category="mild",
        action="CONTINUE",
        alert=AlertLevel.AMBER,
        rule="R4",
        citations=(),
        remarks=("derived", "derived-across-threshold"),
    )
    assert copies_of(alert("amber", family=AlertFamily.MILD, assessment=verdict)) == ("laboratory",)
    assert copies_of(alert("critical", assessment=verdict)) == ("pharmacist", "laboratory")


# From the settings


def _faults(path: Path, *rules: str, more: str = "") -> list[str]:
    text = more
    for number, rule in enumerate(rules):
        text += f'[[destination]]\nname = "d{number}"\nkind = "mllp"\nhost = "127.0.0.1"\nport = 2577\n{rule}\n'
    file = path / "neutroflag.toml"
    file.write_text(text, encoding="utf-8")
    settings = load(file, {})
    # What one process writes for the other is read as it was meant.
    assert type(settings).model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings
    assert [rule.destination for rule in routing_of(settings).rules] == [f"d{n}" for n in range(len(rules))]
    return faults(settings)


def test_rules_that_are_sound(tmp_path: Path) -> None:
    more = '[routing]\npharmacist = "pharmacy"\n'
    rules = ("", 'for = { level = ["critical"] }', 'for = { ward = ["W1"], sender = ["A|B"] }',
             'for = { recipient = ["pharmacist"] }')  # fmt: skip
    assert _faults(tmp_path, *rules, more=more) == []


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (['for = { recipient = ["nurse"] }', ""],
         "destination[0].for.recipient: no role 'nurse'; known: prescriber, pharmacist, laboratory"),
        (['for = { recipient = ["pharmacist"] }', ""],
         "destination[0].for.recipient: nothing goes to the pharmacist while routing.pharmacist names nobody"),
        (['for = { recipient = ["pharmacist"], level = ["info"] }', ""],
         "destination[0].for.level: can never match: pharmacist is told of critical, red only"),
        (['for = { sender = ["A|B|C"] }', ""],
         "destination[0].for.sender: 'A|B|C' can never match: write MSH-3|MSH-4, or one of the two"),
        (['for = { level = ["critical"] }'],
         "destination: an alert of level red that no rule of a sender, ward or prescriber names goes nowhere in "
         "particular; give one destination no `for`"),
        (['for = { ward = ["W1"] }'],
         "destination: an alert of level critical that no rule of a sender, ward or prescriber names goes nowhere in "
         "particular; give one destination no `for`"),
    ],
)  # fmt: skip
def test_rules_that_are_refused(tmp_path: Path, rules: list[str], said: str) -> None:
    assert said in _faults(tmp_path, *rules)


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ("for = { level = [] }", "destination.0.for.level"),
        ('for = { level = ["none"] }', "destination.0.for.level"),
        ('for = { ward = [""] }', "destination.0.for.ward"),
        ('for = { colour = ["red"] }', "destination.0.for.colour"),
    ],
)
def test_a_rule_that_says_nothing_is_refused_by_its_place(tmp_path: Path, rule: str, place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _faults(tmp_path, rule)
    assert any(line.startswith(place) for line in refused.value.problems), refused.value.problems
