"""The pages that come from the data are current, whole and in both languages; every hazard names what exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rules import find_protocol, packaged
from rules.page import LANGUAGES, page, readings_in
from rules.trace import grounds_of

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[Path, str] = module.pages()
    return pages


@pytest.mark.parametrize(("path", "text"), [pytest.param(*one, id=str(one[0])) for one in generated().items()])
def test_a_generated_page_is_current(path: Path, text: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == text, "run `make pages`"


def test_the_page_of_a_protocol_says_every_number_sentence_and_reading() -> None:
    for protocol in packaged():
        for language in LANGUAGES:
            text = page(protocol, language)
            for grounds in grounds_of(protocol):
                assert grounds.cite.quote in text
                assert f"{grounds.rule}" in text
            for reading in readings_in(protocol, language):
                assert f"**{reading.id}** {reading.question}" in text
            for band in protocol.ranges:
                assert f" {band.low} " in f" {text} ".replace(",", " ").replace(":", " ")


def test_a_page_in_french_speaks_french() -> None:
    text = page(find_protocol("ansm"), "fr")
    for words in ("Population générale", "ne pas réexposer", "18 semaines", "Nos lectures", "temps traité"):
        assert words in text
    assert not re.search(r"\b(every|weeks|warning|Neutrophils)\b", text)
    with pytest.raises(KeyError):
        page(find_protocol("ansm"), "de")


def test_every_reading_of_a_live_protocol_has_its_french_words_and_no_other() -> None:
    for protocol in packaged():
        if protocol.selectable:
            path = ROOT / "rules" / "protocols" / "fr" / f"{protocol.id}-{protocol.version}.toml"
            words = tomllib.loads(path.read_text(encoding="utf-8"))
            assert list(words) == [reading.id for reading in protocol.readings]
            assert all(set(one) == {"question", "choice", "why"} and all(one.values()) for one in words.values())
            numbers = re.compile(r"\d+")
            for reading in protocol.readings:
                if isinstance(reading.choice, str):
                    said = numbers.findall(words[reading.id]["choice"])
                    assert sorted(said) == sorted(numbers.findall(reading.choice)), reading.id


def hazards() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "docs/safety/hazards.toml").read_text(encoding="utf-8"))[
        "hazard"
    ]
    return found


def test_every_hazard_names_rules_and_tests_that_exist() -> None:
    known = {grounds.rule for p in packaged() for grounds in grounds_of(p)}
    known |= {reading.id for p in packaged() for reading in p.readings}
    assert len({one["id"] for one in hazards()}) == len(hazards())
    for one in hazards():
        assert set(one["rules"]) <= known, one["id"]
        assert one["tests"], one["id"]
        for place in one["tests"]:
            path, _, function = place.partition("::")
            assert (ROOT / path).is_file(), place
            if function:
                tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
                assert function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, place


def test_the_gravest_rule_controls_a_hazard() -> None:
    assert any("R5" in one["rules"] and one["severity"] == 5 for one in hazards())
