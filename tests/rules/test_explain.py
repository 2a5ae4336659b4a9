"""The arithmetic in words beside each verdict, whole sentences in both languages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from rules import assess, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    Assessment,
    CompleteStop,
    Interruption,
    LabResult,
    Override,
    OverrideKind,
    PriorNeutropenia,
    ResultStatus,
    StopReason,
    TreatmentCourse,
)

ANSM = find_protocol("ansm")
START, DAY = date(2026, 1, 5), date(2026, 8, 3)
COURSE = TreatmentCourse(start=START, prior_neutropenia=PriorNeutropenia.NONE)


def count(per_mm3: int, on: date = DAY, comparator: str | None = None) -> LabResult:
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3), comparator=comparator),
        collected_at=datetime.combine(on, time(8), tzinfo=UTC),
    )


def said(result: LabResult | None, *history: LabResult, on: date = DAY, **facts: Any) -> dict[str, str]:
    found = assess(ANSM, replace(COURSE, **facts), history, result, on)
    assert isinstance(found, Assessment)
    return dict(found.explanation)


@pytest.mark.parametrize(
    ("result", "english", "french"),
    [
        (count(840), "ANC 840/mm3 < 1000/mm3 (general population)", "PNN 840/mm3 < 1000/mm3 (population générale)"),
        (count(1500), "ANC 1500/mm3 = 1500/mm3 (general population)", "PNN 1500/mm3 = 1500/mm3 (population générale)"),
        (count(1000, comparator="<"), "ANC <1000/mm3 < 1000/mm3 (general population)", "PNN <1000/mm3 < 1000/mm3"),
        (count(2900), "ANC 2900/mm3 (general population)", "PNN 2900/mm3 (population générale)"),
    ],
)
def test_a_count_stands_beside_its_threshold(result: LabResult, english: str, french: str) -> None:
    words = said(result)
    assert words["en"].startswith(english)
    assert words["fr"].startswith(french)
    assert words["en"].split("; ")[1] == "day 210 of treatment"
    assert words["fr"].split(" ; ")[1] == "jour 210 de traitement"


def test_the_days_of_an_interruption_are_subtracted_and_said() -> None:
    pause = Interruption(datetime(2026, 3, 1, 8), datetime(2026, 3, 21, 8))  # noqa: DTZ001  # local, as the course has it
    words = said(count(2900), interruptions=(pause,))
    assert "day 190 of treatment, 20 days of interruption subtracted; " in words["en"]
    assert "jour 190 de traitement, 20 jours d'interruption déduits ; " in words["fr"]


def test_after_a_stop_its_days_are_counted() -> None:
    stop = CompleteStop(DAY - timedelta(days=5), StopReason.OTHER)
    words = said(count(2900), stop=stop)
    assert "day 5 after the stop of 2026-07-29" in words["en"]
    assert "jour 5 après l'arrêt du 2026-07-29" in words["fr"]
    assert "of treatment" not in words["en"]


def test_the_next_count_is_said_with_its_sum() -> None:
    words = said(count(2900))
    assert "next count by 2026-08-31 (2026-08-03 + 28 days)" in words["en"]
    assert "prochaine numération au plus tard le 2026-08-31 (2026-08-03 + 28 jours)" in words["fr"]
    assert "recheck advised by 2026-08-04" in said(count(840))["en"]
    assert "contrôle conseillé au plus tard le 2026-08-04" in said(count(840))["fr"]


@pytest.mark.parametrize(
    ("late", "english", "french"), [(1, "1 day late", "retard de 1 jour"), (2, "2 days late", "retard de 2 jours")]
)
def test_lateness_is_said_in_days(late: int, english: str, french: str) -> None:
    words = said(None, count(2900), on=DAY + timedelta(days=28 + late))
    assert english in words["en"].split("; ")
    assert french in words["fr"].split(" ; ")
    assert "late" not in said(None, count(2900), on=DAY + timedelta(days=28))["en"]


def test_an_override_in_force_is_named_with_who_and_until_when() -> None:
    own = Override(
        kind=OverrideKind.SHORTER_INTERVAL, by="Dr A", reason="travel", on=DAY - timedelta(days=1),
        expires=DAY + timedelta(days=60), days=14,
    )  # fmt: skip
    words = said(count(2900), overrides=(own,))
    assert "override by Dr A of 2026-08-02, until before 2026-10-02: interval shortened to 14 days" in words["en"]
    assert "dérogation de Dr A du 2026-08-02, avant le 2026-10-02 : intervalle ramené à 14 jours" in words["fr"]
