"""The bytes that prescribers' systems receive, held still (see ``fixtures/alerts/README.md``).

``NEUTROFLAG_WRITE_GOLDEN=1 python -m pytest tests/emitters/test_emit_golden.py`` writes them anew.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import msgspec
import pytest

from emitters.check import judge_fhir, judge_v2
from emitters.fhir import FhirProfile, encode, transaction
from emitters.hl7v2 import V2Profile, alert_message
from rules.model import AlertFamily, AlertKind, AlertLevel, ResultStatus, Subject

FOLDER = Path(__file__).parents[2] / "fixtures" / "alerts"
CONTROL_ID = "8f0c2b6e7a614c0f9a10"


def cases(make):
    error = make.later(
        kind=AlertKind.WITHDRAWN,
        reason="entered-in-error",
        title="Alerte PNN annulée : résultat d'un autre patient",
        text="Le laboratoire retire le résultat de 0,84 G/L. Revoir toute décision prise sur lui.",
        result=make.result(status=ResultStatus.ENTERED_IN_ERROR, anc=None),
    )
    corrected = make.later(
        kind=AlertKind.WITHDRAWN,
        reason="corrected",
        title="Alerte PNN annulée : résultat corrigé à 2,4 G/L",
        text="Le laboratoire corrige 0,84 en 2,4 G/L. Revoir toute décision prise sur la première valeur.",
        result=make.result(status=ResultStatus.CORRECTED, anc=make.count("2400")),
        assessment=make.assessment(category="normal", rule="R3a", threshold_per_mm3=None, next_due=date(2026, 11, 29)),
    )
    nobody = make.review(subject=Subject(register_id=""))
    mild = make.alert(family=AlertFamily.MILD, level=AlertLevel.AMBER, title="PNN 1,2 G/L : surveillance mensuelle")
    return {
        "stop.json": make.alert(),
        "stop.hl7": make.alert(),
        "mild-by-identifier.json": mild,
        "review-nobody.json": nobody,
        "review-nobody.hl7": nobody,
        "withdrawn-corrected.hl7": corrected,
        "withdrawn-error.hl7": error,
        "withdrawn-error.json": error,
    }


NAMES = (
    "stop.json",
    "stop.hl7",
    "mild-by-identifier.json",
    "review-nobody.json",
    "review-nobody.hl7",
    "withdrawn-corrected.hl7",
    "withdrawn-error.hl7",
    "withdrawn-error.json",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_out_is_what_was_read_and_kept(make, name):
    alert = cases(make)[name]
    if name.endswith(".hl7"):
        written = alert_message(alert, control_id=CONTROL_ID, profile=V2Profile())
        assert judge_v2(written) == []
    else:
        patient = "Patient/p1" if alert.subject.register_id else None
        profile = FhirProfile(owner="Organization/ward-3", update_create="by-identifier" not in name)
        bundle = encode(transaction(alert, patient_reference=patient, settings=profile))
        assert judge_fhir(bundle) == []
        written = msgspec.json.format(bundle, indent=1) + b"\n"
    path = FOLDER / name
    if os.environ.get("NEUTROFLAG_WRITE_GOLDEN"):
        path.write_bytes(written)
    assert written == path.read_bytes()


def test_every_kept_file_has_its_case():
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {*NAMES, "README.md"}
