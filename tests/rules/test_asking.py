"""The words around an alert: who is asked, since when, what the second recipient is to do; the alert's own stay whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rules.asking import bare_words, copy_words, dispensed_alert, handed_back_words, unanswered_words
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, Subject

SINCE = datetime(2026, 9, 7, 10, 0, tzinfo=UTC)
TITLE, TEXT = "STOP: clozapine", "Stop.\nANC 0.8 G/L"


@pytest.mark.parametrize(
    ("language", "title", "moment", "asked"),
    [
        (
            "en",
            "UNANSWERED since 2026-09-07 at 10:00: STOP: clozapine",
            "2026-09-07 at 10:00",
            " Asked now: Dr On Duty.",
        ),
        (
            "fr",
            "SANS RÉPONSE depuis le 07/09/2026 à 10:00 : STOP: clozapine",
            "07/09/2026 à 10:00",
            "actuel : Dr On Duty.",
        ),
    ],
)
def test_an_unanswered_alert_says_since_when_and_who_is_asked_above_its_own_words(
    language: str, title: str, moment: str, asked: str
) -> None:
    said = unanswered_words(TITLE, TEXT, since=SINCE, hours="2", owner="Dr On Duty", language=language)
    assert said[0] == title
    first, rest = said[1].split("\n", 1)
    assert moment in first
    assert "(2 h)" in first
    assert first.endswith(asked)
    assert rest == TEXT


@pytest.mark.parametrize("owner", ["", "Practitioner/17"])
def test_nobody_and_a_machines_reference_are_not_named(owner: str) -> None:
    _, text = handed_back_words(TITLE, TEXT, since=SINCE, owner=owner, language="en")
    assert text.endswith(f"not their patient.\n{TEXT}")


@pytest.mark.parametrize("language", ["fr", "en"])
def test_said_again_the_earlier_head_is_taken_off_and_nothing_else(language: str) -> None:
    once = unanswered_words(TITLE, TEXT, since=SINCE, hours="2", owner="Dr A", language=language)
    again = handed_back_words(*once, since=SINCE, owner="Dr B", language=language)
    assert again[0].endswith(TITLE)
    assert "Dr A" not in again[1]
    assert again == handed_back_words(TITLE, TEXT, since=SINCE, owner="Dr B", language=language)
    assert bare_words(TITLE, TEXT) == (TITLE, TEXT)
    assert bare_words(*again) == (TITLE, TEXT)


def _alert(kind: AlertKind) -> Alert:
    return Alert(
        id="a", revision=1, kind=kind, family=AlertFamily.STOP, level=AlertLevel.RED, title=TITLE, text=TEXT,
        subject=Subject(register_id="r-1"), raised_at=SINCE, updated_at=SINCE, language="en",
    )  # fmt: skip


def test_a_copy_tells_its_recipient_what_to_do_and_of_a_withdrawal_only_that() -> None:
    title, text = copy_words(_alert(AlertKind.RAISED), "pharmacist")
    assert title == f"FOR THE PHARMACIST: {TITLE}"
    assert text.startswith("Copy of the alert sent to the prescriber. Dispense no clozapine")
    assert text.endswith(f"\n{TEXT}")
    assert copy_words(_alert(AlertKind.RAISED), "laboratory")[1].startswith("A neutrophil count could not be judged")
    taken_back = copy_words(_alert(AlertKind.WITHDRAWN), "pharmacist")[1]
    assert taken_back.startswith("Copy of what the prescriber is told")
    assert "Dispense no clozapine" not in taken_back


@pytest.mark.parametrize(("for_ever", "level"), [(True, AlertLevel.CRITICAL), (False, AlertLevel.RED)])
def test_clozapine_dispensed_after_a_stop_for_the_count_is_the_graver(for_ever: bool, level: AlertLevel) -> None:
    asked = {"on": "2026-09-08", "stop": "2026-09-07", "key": "d-1", "language": "en"}
    found = dispensed_alert("r-1", for_ever=for_ever, **asked)
    assert (found.family, found.level) == (AlertFamily.REVIEW, level)
    assert ("clozapine must not be given again" in found.text) is for_ever
    assert "infection" in found.text
    assert dispensed_alert("r-1", for_ever=for_ever, **asked | {"key": "d-2"}).id != found.id
