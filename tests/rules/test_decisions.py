"""What a person may answer to which alert, what needs a reason, and the codes of other systems."""

import pytest

from rules.decisions import Decision, decision_of, decisions_for, needs_reason
from rules.model import AlertFamily, AlertLevel


@pytest.mark.parametrize("family", list(AlertFamily))
def test_to_note_is_an_answer_below_red_only(family: AlertFamily) -> None:
    for level in (AlertLevel.INFO, AlertLevel.AMBER):
        assert Decision.NOTED in decisions_for(family, level)
    for level in (AlertLevel.RED, AlertLevel.CRITICAL):
        assert Decision.NOTED not in decisions_for(family, level)
        assert Decision.NOT_MY_PATIENT in decisions_for(family, level)


def test_what_cannot_be_disputed_or_stopped_is_not_offered() -> None:
    assert Decision.DISPUTED not in decisions_for(AlertFamily.OVERDUE, AlertLevel.AMBER)
    assert Decision.STOPPED in decisions_for(AlertFamily.OVERDUE, AlertLevel.AMBER)
    for family in (AlertFamily.START, AlertFamily.REVIEW):
        assert not {Decision.STOPPED, Decision.CONTINUED} & set(decisions_for(family, AlertLevel.AMBER))


def test_who_goes_on_disputes_or_hands_back_says_why() -> None:
    assert {d for d in Decision if needs_reason(d)} == {Decision.CONTINUED, Decision.DISPUTED, Decision.NOT_MY_PATIENT}


@pytest.mark.parametrize(
    ("code", "decision"),
    [
        ("STOPPED", Decision.STOPPED), ("already stopped", Decision.STOPPED), ("Patient-Reached", Decision.PATIENT_REACHED),
        ("CONTINUED_JUSTIFIED", Decision.CONTINUED), ("result-disputed", Decision.DISPUTED),
        ("TRANSFERRED", Decision.NOT_MY_PATIENT), ("seen", None), ("", None),
    ],
)  # fmt: skip
def test_codes_of_other_systems(code: str, decision: Decision | None) -> None:
    assert decision_of(code) is decision
