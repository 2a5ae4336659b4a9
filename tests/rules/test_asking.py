"""The words around an alert: who is asked, since when, what the second recipient is to do; the alert's own stay whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rules.asking import copy_words, dispensed_alert, handed_back_words, unanswered_words
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, Subject
from rules.wording import WORDS

SINCE = datetime(2026, 9, 7, 10, 0, tzinfo=UTC)
TITLE, TEXT = "STOP: clozapine", "Stop.\nANC 0.8 G/L"
ALERT = Alert(
    id="a", revision=1, kind=AlertKind.RAISED, family=AlertFamily.STOP, level=AlertLevel.RED, title=TITLE, text=TEXT,
    subject=Subject(register_id="r-1"), raised_at=SINCE, updated_at=SINCE, language="en",
)  # fmt: skip


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
    said = unanswered_words(ALERT, WORDS[language], since=SINCE, hours="2", owner="Dr On Duty")
    assert said[0] == title
    first, rest = said[1].split("\n", 1)
    assert moment in first
    assert "(2 h)" in first
    assert first.endswith(asked)
    assert rest == TEXT


@pytest.mark.parametrize("owner", ["", "Practitioner/17"])
def test_nobody_and_a_machines_reference_are_not_named(owner: str) -> None:
    _, text = handed_back_words(ALERT, WORDS["en"], since=SINCE, owner=owner)
    assert text.endswith(f"not their patient.\n{TEXT}")


@pytest.mark.parametrize("language", ["fr", "en"])
def test_said_again_the_earlier_head_is_taken_off_and_nothing_else(language: str) -> None:
    # However the site words its heads: the alert carries its own words beside them.
    words = replace(WORDS[language], again_title="{title}, {since}", again="{since}\n{hours}")
    title, text = unanswered_words(ALERT, words, since=SINCE, hours="2", owner="Dr A")
    passed = replace(ALERT, title=title, text=text, bare=ALERT.bare_words)
    assert passed.bare_words == (TITLE, TEXT)
    again = handed_back_words(passed, words, since=SINCE, owner="Dr B")
    assert again[0].endswith(TITLE)
    assert "Dr A" not in again[1]
    assert again == handed_back_words(ALERT, words, since=SINCE, owner="Dr B")


def test_a_copy_tells_its_recipient_what_to_do_and_of_a_withdrawal_only_that() -> None:
    title, text = copy_words(ALERT, WORDS["en"], "pharmacist")
    assert title == f"FOR THE PHARMACIST: {TITLE}"
    assert text.startswith("Copy of the alert sent to the prescriber. Dispense no clozapine")
    assert text.endswith(f"\n{TEXT}")
    assert copy_words(ALERT, WORDS["en"], "laboratory")[1].startswith("A neutrophil count could not be judged")
    taken_back = copy_words(replace(ALERT, kind=AlertKind.WITHDRAWN), WORDS["en"], "pharmacist")[1]
    assert taken_back.startswith("Copy of what the prescriber is told")
    assert "Dispense no clozapine" not in taken_back


@pytest.mark.parametrize(("for_ever", "level"), [(True, AlertLevel.CRITICAL), (False, AlertLevel.RED)])
def test_clozapine_dispensed_after_a_stop_for_the_count_is_the_graver(for_ever: bool, level: AlertLevel) -> None:
    asked = {"on": "2026-09-08", "stop": "2026-09-07", "key": "d-1"}
    found = dispensed_alert("r-1", WORDS["en"], for_ever=for_ever, **asked)
    assert (found.family, found.level) == (AlertFamily.REVIEW, level)
    assert ("clozapine must not be given again" in found.text) is for_ever
    assert "infection" in found.text
    assert dispensed_alert("r-1", WORDS["en"], for_ever=for_ever, **asked | {"key": "d-2"}).id != found.id
