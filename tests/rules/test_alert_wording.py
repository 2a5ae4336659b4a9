"""An alert stands alone: value, unit, threshold, what to do, by when, and the sentence behind it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest

from rules import NAMESPACE, AlertDraft, alerts_for, assess, find_protocol, review_alert
from rules.actions import ACTIONS
from rules.alerts import alert_id
from rules.model import (
    AbsoluteNeutrophilCount,
    AlertFamily,
    AlertLevel,
    Assessment,
    CompleteStop,
    Interruption,
    LabResult,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
)
from rules.wording import WORDS

ANSM = find_protocol("ansm")
DAY = date(2026, 8, 3)
COURSE = TreatmentCourse(start=date(2026, 1, 5), prior_neutropenia=PriorNeutropenia.NONE)


def result(per_mm3: str, on: date = DAY) -> LabResult:
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3)),
        collected_at=datetime(on.year, on.month, on.day, 8, tzinfo=UTC),
    )


def draft(per_mm3: str, language: str = "fr", course: TreatmentCourse = COURSE, on: date = DAY) -> AlertDraft | None:
    judged = result(per_mm3, on)
    found = assess(ANSM, course, (), judged, on)
    assert isinstance(found, Assessment)
    return alerts_for(found, register_id="r-1", language=language, result=judged)


def test_a_stop_in_french_says_everything() -> None:
    alert = draft("840")
    assert alert is not None
    assert (alert.family, alert.level) == (AlertFamily.STOP, AlertLevel.RED)
    assert alert.title == "ARRÊT IMMÉDIAT de la clozapine, ne pas réexposer - PNN 0,84 G/L (840/mm3)"
    for part in (
        "Alerte. Arrêter immédiatement la clozapine",
        "PNN 0,84 G/L (840/mm3) le 03/08/2026, sous le seuil de 1 G/L (1000/mm3).",
        "au plus tard le 04/08/2026",
        "au plus tard le 10/08/2026",
        "signes d'infection",
        "pharmacovigilance",
        "ne doit jamais être réexposé",
        "doivent immediatement arreter le traitement et ne pas etre reexposes",
        "ansm@2025-09",
    ):
        assert part in alert.text


def test_a_stop_in_english_says_everything() -> None:
    alert = draft("499.9", "en")
    assert alert is not None
    assert alert.level is AlertLevel.CRITICAL
    for part in (
        "ANC 0.4999 G/L (499.9/mm3) on 2026-08-03",
        "Stop clozapine immediately",
        "2026-08-04",
        "pharmacovigilance",
    ):
        assert part in alert.text


def test_a_borderline_mild_count_is_not_said_to_be_below() -> None:
    alert = draft("1500")
    assert alert is not None
    assert "exactement au seuil de 1,5 G/L (1500/mm3)" in alert.text
    assert "pharmacovigilance" not in alert.text
    assert "signes d'infection" in alert.text


def test_nothing_to_say_is_no_alert() -> None:
    assert draft("2900") is None


def test_a_derived_count_is_said_to_be_where_its_lower_bound_is() -> None:
    derived = AbsoluteNeutrophilCount(per_mm3=Decimal(1050), lower_bound=Decimal(950), derived=True)
    judged = replace(result("1050"), anc=derived)
    found = assess(ANSM, COURSE, (), judged, DAY)
    assert isinstance(found, Assessment)
    alert = alerts_for(found, register_id="r-1", language="en", result=judged)
    assert alert is not None
    assert "below the threshold of 1 G/L (1000/mm3)" in alert.text


def test_less_than_the_threshold_is_below_it() -> None:
    judged = replace(result("1000"), anc=AbsoluteNeutrophilCount(per_mm3=Decimal(1000), comparator="<"))
    found = assess(ANSM, COURSE, (), judged, DAY)
    assert isinstance(found, Assessment)
    alert = alerts_for(found, register_id="r-1", language="en", result=judged)
    assert alert is not None
    assert "ANC <1 G/L (<1000/mm3) on 2026-08-03, below the threshold of 1 G/L (1000/mm3)." in alert.text


def test_the_duties_are_those_of_the_family_and_one_sentence_is_quoted() -> None:
    stop = assess(ANSM, COURSE, (), result("840"), DAY)
    assert isinstance(stop, Assessment)
    assert len(stop.citations) > 1
    said = alerts_for(stop, register_id="r-1", language="en", result=result("840"))
    assert said is not None
    assert said.text.count("«") == 1
    assert WORDS["en"].readings.format(ids=", ".join(stop.readings)) in said.text
    assert WORDS["en"].maxima not in said.text

    back = replace(COURSE, interruptions=(Interruption(_at(DAY - timedelta(days=10)), _at(DAY - timedelta(days=2))),))
    closer = assess(ANSM, back, (result("3200", DAY - timedelta(days=20)),), result("3200"), DAY)
    assert isinstance(closer, Assessment)
    assert closer.family is AlertFamily.SCHEDULE
    said = alerts_for(closer, register_id="r-1", language="en", result=result("3200"))
    assert said is not None
    assert WORDS["en"].maxima in said.text
    assert WORDS["en"].infection not in said.text

    bare = alerts_for(replace(stop, readings=()), register_id="r-1", language="en", result=result("840"))
    assert bare is not None
    assert bare.text.endswith(f"[{stop.protocol}]")


def _at(on: date) -> datetime:
    return datetime.combine(on, time())


def test_another_episode_is_another_alert() -> None:
    found = assess(ANSM, COURSE, (), result("840"), DAY)
    assert isinstance(found, Assessment)
    assert found.episode_on is not None
    named = [
        alerts_for(replace(found, episode_on=on), register_id="r-1", language="en")
        for on in (found.episode_on, found.episode_on - timedelta(days=1))
    ]
    assert [alert.id for alert in named if alert] == [
        alert_id("r-1", AlertFamily.STOP, found.episode_on - timedelta(days=late)) for late in (0, 1)
    ]


@pytest.mark.parametrize("later", ["430", "1340", "3200"])
def test_after_a_stop_that_nobody_recorded_the_words_still_say_stop(later: str) -> None:
    on = DAY + timedelta(days=4)
    for course, head in (
        (COURSE, "CLOZAPINE STOP NOT RECORDED"),
        (replace(COURSE, stop=CompleteStop(DAY, StopReason.ANC_BELOW_1000)), "Monitoring after the stop"),
    ):
        found = assess(ANSM, course, (result("920"),), result(later, on), on)
        assert isinstance(found, Assessment)
        alert = alerts_for(found, register_id="r-1", language="en", result=result(later, on))
        assert alert is not None
        assert alert.title.startswith(head)
        assert ("if clozapine is still taken, stop it immediately" in alert.text) is (course is COURSE)
        assert "do not re-expose" in alert.title


@pytest.mark.parametrize("language", ["fr", "en"])
def test_a_normal_count_after_signs_of_infection_says_why_it_is_told(language: str) -> None:
    ill = replace(COURSE, infection_signs_on=DAY)
    alert = draft("2900", language, ill)
    assert alert is not None
    assert alert.level is AlertLevel.AMBER
    assert WORDS[language].remarks["infection-signs"] in alert.text
    assert draft("2900", language) is None


def test_permission_is_worded_as_a_criterion_only() -> None:
    for words in ACTIONS["INITIATION_PERMITTED"].values():
        assert "crit" in words.title.lower()
    assert "décision" in ACTIONS["INITIATION_PERMITTED"]["fr"].do


def test_one_episode_is_one_alert() -> None:
    first = draft("840")
    assert first is not None
    later = result("700", DAY + timedelta(days=1))
    found = assess(ANSM, COURSE, (result("840"),), later, DAY + timedelta(days=1))
    assert isinstance(found, Assessment)
    again = alerts_for(found, register_id="r-1", language="en", result=later)
    assert again is not None
    assert again.id == first.id
    other = alerts_for(found, register_id="r-2", language="en", result=later)
    assert other is not None
    assert other.id != first.id
    assert uuid.UUID(first.id).version == 5
    assert isinstance(NAMESPACE, uuid.UUID)


def test_an_overdue_test_says_how_late() -> None:
    found = assess(ANSM, COURSE, (result("2900"),), None, DAY + timedelta(days=30))
    assert isinstance(found, Assessment)
    alert = alerts_for(found, register_id="r-1", language="fr")
    assert alert is not None
    assert alert.family is AlertFamily.OVERDUE
    assert "retard de 2 jours" in alert.text
    assert "31/08/2026" in alert.text


@pytest.mark.parametrize("language", ["fr", "en"])
def test_an_unreadable_count_asks_for_a_person(language: str) -> None:
    alert = review_alert("unit-missing", "OBX[2]-6", register_id="", key="LAB1|42", language=language)
    assert (alert.family, alert.level) == (AlertFamily.REVIEW, AlertLevel.AMBER)
    said = {"fr": "n'a pas pu être lue : unité absente (OBX[2]-6)", "en": "could not be read: no unit (OBX[2]-6)"}
    assert said[language] in alert.text
    unknown = review_alert("of-tomorrow", "", register_id="", key="LAB1|44", language=language)
    assert "of-tomorrow." in unknown.text
    again = review_alert("unit-missing", "OBX[2]-6", register_id="", key="LAB1|43", language=language)
    assert again.id != alert.id


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("reason", list(WORDS["fr"].reviews))
def test_what_is_no_unreadable_count_is_not_said_to_be_one(reason: str, language: str) -> None:
    alert = review_alert(reason, "entry[0]", register_id="r", key="k", language=language)
    words = WORDS[language]
    assert alert.title == words.review_titles[reason]
    assert alert.title != words.review_title
    assert "(entry[0])" in alert.text
    assert not alert.text.startswith(words.review[:40])


def test_both_languages_know_the_same_remarks() -> None:
    assert set(WORDS["fr"].remarks) == set(WORDS["en"].remarks)
    assert set(WORDS["fr"].levels) == set(WORDS["en"].levels)


@pytest.mark.parametrize("per_mm3", ["300", "800", "1200", "1500"])
def test_the_mandatory_mention_is_never_written(per_mm3: str) -> None:
    alert = draft(per_mm3)
    assert alert is not None
    assert "valeurs usuelles" not in alert.text
