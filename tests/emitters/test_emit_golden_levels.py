"""Real verdicts as they go out: every alert level, in both languages, in each shape and at each emission level.

Judged by the shipped protocol and worded by the shipped words, so that a change of either shows here. The files are in
``fixtures/alerts/levels``; run with NEUTROFLAG_WRITE_GOLDEN=1 to write them anew. ``deploy/dev/fhir-validate`` holds them
against the official R4 definitions.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from pathlib import Path

import hl7
import msgspec
import pytest

from emitters.check import judge_fhir, judge_v2
from emitters.fhir import FhirProfile, Level, StandingTask, encode, transaction
from emitters.fhir_terms import Resource
from emitters.hl7v2 import V2Profile, alert_message
from rules import alerts_for, assess, find_protocol
from rules.asking import answered_words
from rules.decisions import Decision
from rules.model import Alert, AlertKind, AlertLevel, Assessment, ResultStatus, TreatmentCourse
from rules.withdrawal import lowered_words, withdrawal
from rules.wording import WORDS

FOLDER = Path(__file__).parents[2] / "fixtures" / "alerts" / "levels"
COUNTS = {
    "critical": (AlertLevel.CRITICAL, "400", date(2026, 8, 3)),
    "red": (AlertLevel.RED, "840", date(2026, 8, 3)),
    "amber": (AlertLevel.AMBER, "1200", date(2026, 8, 3)),
    "info": (AlertLevel.INFO, "2600", date(2026, 5, 11)),
    "withdrawn": (AlertLevel.RED, "840", date(2026, 8, 3)),
    "answered": (AlertLevel.CRITICAL, "400", date(2026, 8, 3)),
    "lowered": (AlertLevel.RED, "840", date(2026, 8, 3)),  # by a correction of the critical one
}
V2 = {"oru": V2Profile(), "mdm": V2Profile(shape="MDM_T02")}
SHAPES = (*(f"{shape}.hl7" for shape in V2), *(f"{level}.json" for level in Level))
NAMES = [
    f"{case}.{language}.{shape}"
    for case, language, shape in product(COUNTS, ("fr", "en"), SHAPES)
    if (case, shape) != ("answered", "L0.json")  # of which nothing is told there
]
PARIS = timezone(timedelta(hours=2))


def built(make, case: str, language: str) -> Alert:
    level, per_mm3, day = COUNTS[case]
    at = datetime(day.year, day.month, day.day, 8, 5, tzinfo=PARIS)
    result = make.result(anc=make.count(per_mm3, reporting_unit=Decimal(10)), collected_at=at, issued_at=at)
    course = TreatmentCourse(start=date(2026, 1, 5), start_confirmed_by="Dr Hoda")
    verdict = assess(find_protocol("ansm"), course, [], result, day)
    assert isinstance(verdict, Assessment)
    assert verdict.alert is level
    draft = alerts_for(verdict, register_id="reg-17", language=language, result=result)
    assert draft is not None
    alert = make.alert(
        id=draft.id,
        family=draft.family,
        level=draft.level,
        title=draft.title,
        text=draft.text,
        assessment=verdict,
        result=result,
        raised_at=at + timedelta(minutes=1),
        updated_at=at + timedelta(minutes=1),
        language=language,
    )
    if case == "answered":
        return answered(alert)
    if case == "lowered":
        return lowered(built(make, "critical", language), alert)
    if case != "withdrawn":
        return alert
    corrected = make.result(status=ResultStatus.CORRECTED, anc=make.count("2400"), collected_at=at, issued_at=at)
    title, text = withdrawal(alert, corrected, WORDS[language])
    return make.alert(
        id=alert.id,
        revision=2,
        kind=AlertKind.WITHDRAWN,
        reason="corrected",
        family=alert.family,
        level=alert.level,
        title=title,
        text=text,
        assessment=verdict,
        result=corrected,
        raised_at=alert.raised_at,
        updated_at=at + timedelta(hours=2),
        language=language,
    )


def answered(alert: Alert) -> Alert:
    at = alert.updated_at + timedelta(minutes=40)
    title, text = answered_words(alert, WORDS[alert.language], at=at, by="Dr Hoda", decision=Decision.STOPPED)
    return replace(alert, revision=2, kind=AlertKind.ANSWERED, title=title, text=text, updated_at=at)


def lowered(before: Alert, left: Alert) -> Alert:
    assert left.result is not None
    title, text = lowered_words(before, left.title, left.text, WORDS[left.language])
    return replace(
        left,
        id=before.id,
        revision=2,
        kind=AlertKind.UPDATED,
        title=title,
        text=text,
        urgency=before.pressing,
        result=replace(left.result, status=ResultStatus.CORRECTED),
        updated_at=before.updated_at + timedelta(hours=1),
    )


def held(bundle: Resource, kind: str) -> list[StandingTask]:
    """What a server has of this type once it has taken the bundle."""
    made = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]
    return [StandingTask(one | {"id": f"{kind}-1", "meta": {"versionId": "1"}}, "1") for one in made]


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_out_at_each_level_is_what_was_read_and_kept(make, foreign_errors, name):
    case, language, shape, kind = name.split(".")
    alert = built(make, case, language)
    if kind == "hl7":
        written = alert_message(alert, control_id="8f0c2b6e7a614c0f9a10", profile=V2[shape])
        assert judge_v2(written) == []
        assert str(hl7.parse(written.decode())["MSH.F10"]) == "8f0c2b6e7a614c0f9a10"
    else:
        profile = FhirProfile(owner="Organization/ward-3", level=Level(shape))
        standing: dict[str, list[StandingTask]] = {}
        if case in ("answered", "lowered"):
            first = transaction(built(make, "critical", language), patient_reference="Patient/p1", settings=profile)
            standing = {"standing": held(first, "Task"), "requests": held(first, "CommunicationRequest")}
        bundle = transaction(alert, patient_reference="Patient/p1", settings=profile, **standing)
        assert judge_fhir(encode(bundle)) == []
        assert foreign_errors(bundle) == []
        written = msgspec.json.format(encode(bundle), indent=1) + b"\n"
    path = FOLDER / name
    if os.environ.get("NEUTROFLAG_WRITE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_bytes(written)
    assert written == path.read_bytes()


def test_every_kept_file_of_a_level_has_its_case():
    assert {path.name for path in FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("case", list(COUNTS))
def test_the_words_stand_alone(make, case, language):
    """Value in both units, threshold, what to do, by when, the source's sentence; infection and reporting where they apply;
    never the mention that only a prescriber may write."""
    alert = built(make, case, language)
    text, mark = f"{alert.title}\n{alert.text}", "," if language == "fr" else "."
    value = {
        "critical": "0.4",
        "red": "0.84",
        "amber": "1.2",
        "info": "2.6",
        "withdrawn": "2.4",
        "answered": "0.4",
        "lowered": "0.84",
    }[case].replace(".", mark)
    assert f"{value} G/L ({COUNTS[case][1] if case != 'withdrawn' else '2400'}/mm3)" in text
    if case != "withdrawn":
        assert alert.assessment is not None
        assert alert.assessment.citations[0].quote in text
        assert alert.assessment.next_due is None or str(alert.assessment.next_due.year) in text
    if case in ("critical", "red", "amber"):
        assert "infection" in text
        assert f"{'1' if case != 'amber' else f'1{mark}5'} G/L (" in text
    assert ("signalement" in text) is (case in ("critical", "red", "answered", "lowered"))
    if case == "lowered":
        assert f"0{mark}4 G/L (400/mm3)" in text
        assert {"fr": "Alerte critique", "en": "Critical alert"}[language] in text
    for word in ("NFS réalisée", "valeurs observées", "dans les limites", "results were normal"):
        assert word not in text
