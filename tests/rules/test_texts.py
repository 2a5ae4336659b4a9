"""A site's own sentences: what is named is said in its place, and nothing that an alert must say can be lost by it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from rules import alerts_for, assess, find_protocol
from rules.actions import ACTIONS
from rules.model import AbsoluteNeutrophilCount, Assessment, LabResult, ResultStatus, TreatmentCourse
from rules.texts import SHIPPED, TextsError, Wordings, listed, parse
from rules.wording import WORDS

OWN = """
[fr]
infection = "Fièvre : PNN le jour même, appeler le 15."
due = "Prochaine prise de sang : {day}."
[fr.remarks]
ban-unconfirmed = "À confirmer."
[fr.actions.STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE]
do = "Arrêter. Appeler le 4444."
"""


def stop(wordings: Wordings = SHIPPED, language: str = "fr") -> str:
    count = AbsoluteNeutrophilCount(per_mm3=Decimal(840), reporting_unit=Decimal(10))
    result = LabResult(status=ResultStatus.FINAL, anc=count, collected_at=None)
    verdict = assess(find_protocol("ansm"), TreatmentCourse(start=date(2026, 1, 5)), [], result, date(2026, 8, 3))
    assert isinstance(verdict, Assessment)
    draft = alerts_for(verdict, register_id="r", language=language, result=result, wordings=wordings)
    assert draft is not None
    return f"{draft.title}\n{draft.text}"


def test_what_is_named_is_said_in_its_place_and_the_rest_as_shipped() -> None:
    own, shipped = stop(parse(OWN)), stop()
    for said in ("appeler le 15", "Prochaine prise de sang : ", "le 4444"):
        assert said in own
        assert said not in shipped
    kept = ("ARRÊT IMMÉDIAT de la clozapine", "840/mm3", "signalement.social-sante.gouv.fr", "ansm@2025-09")
    assert all(said in own and said in shipped for said in kept)
    assert stop(parse(OWN), "en") == stop(language="en")


def test_an_empty_file_changes_nothing_and_the_shipped_texts_pass_their_own_check() -> None:
    assert stop(parse("")) == stop()
    assert parse(listed(SHIPPED, WORDS)) == SHIPPED
    assert set(ACTIONS) == set(SHIPPED.actions)


def test_what_is_listed_is_what_can_be_replaced_and_both_languages_say_the_same_things() -> None:
    own = parse(OWN)
    assert parse(listed(own, ["fr"])) == own
    french, english = (tomllib.loads(listed(SHIPPED, [language]))[language] for language in ("fr", "en"))
    assert _keys(french) == _keys(english)
    assert {"fr.again_title", "fr.copies.pharmacist", "fr.v2.disclaimer"} <= {f"fr.{key}" for key in _keys(french)}
    fixed = {"decimal_mark", "date_format", "moment_format", "anc", "v2_count"}
    assert set(asdict(WORDS["fr"])) - fixed == set(french) - {"actions"}


def _keys(table: dict[str, Any], place: str = "") -> set[str]:
    nested = [_keys(one, f"{place}{name}.") for name, one in table.items() if isinstance(one, dict)]
    return {f"{place}{name}" for name, one in table.items() if isinstance(one, str)}.union(*nested)


def test_the_two_languages_name_the_same_things_in_each_sentence() -> None:
    """Each language's sentences, in the other's places, lose nothing."""
    parse(listed(SHIPPED, ["fr"]).replace("[fr", "[en"))
    parse(listed(SHIPPED, ["en"]).replace("[en", "[fr"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[fr]\ndue = "Bientôt."', "fr.due: {day} is missing: the alert would not say it"),
        ('[fr]\nfinding = "PNN {value}."', "fr.finding: {on} is missing: the alert would not say it"),
        ('[fr]\ninfection = "Le {day}."', "fr.infection: {day} is not known here"),
        ('[fr]\ninfection = ""', "fr.infection: a text is wanted that says something"),
        ("[fr]\ninfection = 7", "fr.infection: a text is wanted that says something"),
        ('[fr]\ndue = "{day"', "fr.due: cannot be filled in (expected '}' before end of string)"),
        ('[fr]\ninfexion = "x"', "fr.infexion: no such text; did you mean infection?"),
        ('[fr]\ndecimal_mark = "."', "fr.decimal_mark: no such text"),
        ('[fr]\nagain = "Depuis le {since}."', "fr.again: {hours} is missing: the alert would not say it"),
        ('[fr]\nwithdrawn_title = "RETIRÉE"', "fr.withdrawn_title: {title} is missing: the alert would not say it"),
        ('[fr]\nagain_title = "{since}\\n{title}"', "fr.again_title: a title is one line"),
        ('[fr.system]\nfeed_silent = "x"', "fr.system.feed_silent: no such text; did you mean feed-silent?"),
        ('[fr.remarks]\nelderly_ = "x"', "fr.remarks.elderly_: no such text; did you mean elderly?"),
        ('[fr]\nremarks = "x"', "fr.remarks: a table of texts is wanted"),
        ('[de]\ndue = "{day}"', "de: not a language of the alerts"),
        ('[fr.actions.STOP]\ndo = "x"', "fr.actions.STOP: no such action"),
        ('[fr.actions]\nCONTINUE = "x"', "fr.actions.CONTINUE: a table with title and do is wanted"),
        ('[fr.actions.CONTINUE]\ntitel = "x"', "fr.actions.CONTINUE.titel: no such text; did you mean title?"),
        ('[fr]\nactions = "x"', "fr.actions: a table is wanted"),
    ],
)
def test_what_would_lose_or_mean_nothing_is_refused_by_its_place(text: str, problem: str) -> None:
    with pytest.raises(TextsError) as caught:
        parse(text)
    (said,) = caught.value.problems
    assert said.startswith(problem)


def test_every_problem_is_said_at_once_and_what_is_no_toml_is_refused() -> None:
    with pytest.raises(TextsError) as caught:
        parse('[fr]\ndue = "x"\nweekly = "y"')
    assert len(caught.value.problems) == 2
    with pytest.raises(TextsError):
        parse("due = ")
