"""An alert as a document: for systems that take no results of third parties."""

from __future__ import annotations

import re

import hl7
import pytest

from emitters.check import judge_v2
from emitters.hl7v2 import V2Profile, alert_message
from rules.model import AlertFamily, AlertKind, ResultStatus, Subject
from rules.silence import ENDED

CONTROL = "8f0c2b6e7a614c0f9a10"
VERSIONS = ("2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7")


def document(alert, **profile) -> hl7.Message:
    raw = alert_message(alert, control_id=CONTROL, profile=V2Profile(shape="MDM_T02", **profile))
    return hl7.parse(raw.decode())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_document_of_every_version_is_valid(make, every_alert, version):
    profile = V2Profile(shape="MDM_T02", version=version)
    alerts = [
        make.alert(),
        make.later(),
        make.later(kind=AlertKind.WITHDRAWN, reason="entered-in-error"),
        make.review(),
    ]
    for alert in alerts + (every_alert[::7] if version == "2.5" else []):
        assert judge_v2(alert_message(alert, control_id=CONTROL, profile=profile)) == []


@pytest.mark.parametrize(
    ("change", "event", "number", "parent", "availability"),
    [
        ({}, "T02", "a32b482151a45253.1", "", "AV"),
        ({"revision": 2, "kind": AlertKind.UPDATED}, "T10", "a32b482151a45253.2", "a32b482151a45253.1", "AV"),
        (
            {"revision": 2, "kind": AlertKind.WITHDRAWN, "reason": "corrected"},
            "T10",
            "a32b482151a45253.2",
            "a32b482151a45253.1",
            "AV",
        ),
        (
            {"revision": 2, "kind": AlertKind.WITHDRAWN, "reason": "entered-in-error"},
            "T04",
            "a32b482151a45253.1",
            "",
            "OB",
        ),
        (
            {"revision": 3, "kind": AlertKind.WITHDRAWN, "reason": ENDED, "family": AlertFamily.OVERDUE},
            "T10",
            "a32b482151a45253.3",
            "a32b482151a45253.2",
            "AV",
        ),
    ],
)
def test_each_notification_takes_the_place_of_the_one_before(make, change, event, number, parent, availability):
    message = document(make.alert(**change))
    assert str(message["MSH.F9.R1.C2"]) == event
    txa = message.segment("TXA")
    assert str(txa[12]).split("^")[0] == number
    assert (str(txa[13]).split("^")[0] if len(txa) > 13 else "") == parent
    assert str(txa[19]) == availability
    # The laboratory's own order numbers, whole.
    assert (str(txa[14]), str(txa[15])) == ("98765431^SIL", "1001-E1^labo")


def test_the_text_comes_first_and_a_retraction_shows(make):
    error = make.later(
        kind=AlertKind.WITHDRAWN,
        reason="entered-in-error",
        result=make.result(status=ResultStatus.ENTERED_IN_ERROR, anc=None),
    )
    first = document(error).segments("OBX")[0]
    assert str(first[2]) == "TX"
    assert str(first[5][0]) == "ALERTE ANNULÉE"
    assert str(first[11]) == "C"


def test_a_document_says_the_same_as_a_result(make):
    """Row for row, in another order."""
    told = {}
    for shape in ("ORU_R01", "MDM_T02"):
        raw = alert_message(make.alert(), control_id=CONTROL, profile=V2Profile(shape=shape)).decode()
        told[shape] = sorted(re.sub(r"OBX\|\d+", "OBX", one) for one in raw.split("\r") if one.startswith("OBX"))
    assert told["ORU_R01"] == told["MDM_T02"]


def test_a_document_about_nobody_cannot_be_written(make):
    with pytest.raises(ValueError, match="needs a patient"):
        document(make.review(subject=Subject(register_id="")))
