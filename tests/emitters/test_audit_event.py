"""What is exported of the audit is a FHIR AuditEvent, by FHIR's own model, in the shape of IHE BALP."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from emitters.audit_event import AuditEntry, audit_event


def event(action: str, patient: str | None = None) -> dict[str, Any]:
    entry = AuditEntry(
        seq=7, at_ms=1764000000123, actor="dr.martin", action=action, patient_id=patient, detail='{"x":1}', link="ab12"
    )
    return audit_event(entry, engine_id="neutroflag")


@pytest.mark.parametrize(
    ("action", "patient"), [("login", None), ("logout", None), ("answer", "p-1"), ("account-added", None)]
)
def test_each_kind_of_entry_is_a_sound_audit_event(action: str, patient: str | None) -> None:
    told = event(action, patient)
    found = AuditEvent.model_validate(told)
    assert found.recorded.isoformat(timespec="milliseconds") == "2025-11-24T16:00:00.123+00:00"
    # BALP: who asked and where it was asked of, one requestor; the chain's link travels along.
    assert [agent.requestor for agent in found.agent] == [True, False]
    detail = {one["type"]: one for one in told["entity"][0]["detail"]}
    assert detail["chain"]["valueString"] == "ab12"
    assert base64.b64decode(detail["detail"]["valueBase64Binary"]) == b'{"x":1}'


def test_a_change_of_a_patient_s_record_claims_the_profile_of_one_and_names_the_patient() -> None:
    found = event("answer", "p-1")
    assert found["meta"]["profile"][0].endswith("IHE.BasicAudit.PatientUpdate")
    assert [entity["role"]["code"] for entity in found["entity"]] == ["4", "1"]
    assert found["entity"][1]["what"]["identifier"]["value"] == "p-1"
    assert event("account-added")["meta"]["profile"][0].endswith("IHE.BasicAudit.Update")
    assert "meta" not in event("login")
