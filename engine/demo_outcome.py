"""What the prescriber's two systems hold at the end, read back from their own side, against the cast's table.

Rule of the file: nothing is asked of the emitters; a Flag, a Task and an HL7 message are read as their receiver reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

from engine.demo_table import Patient
from rules.model import Assessment
from rules.wording import WORDS
from wire.er7 import parse

__all__ = ["LANGUAGE", "Held", "Outcome", "compare", "fhir_holds", "patient_of_reference", "read_v2", "v2_holds"]

LANGUAGE: Final = "en"
_LEVEL_OF_PRIORITY = {"stat": "critical", "asap": "red", "urgent": "amber", "routine": "info"}
_REVIEW = "ANC-REVIEW"


@dataclass(frozen=True, slots=True)
class Held:
    """One alert as a receiving system has it. ``due``: the next-due date, "" where none is shown."""

    family: str
    level: str
    state: str
    due: str = ""
    reason: str = ""


Holdings = dict[str, list[Held]]
"""By patient identifier."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One patient's row of the summary; a problem in words where a channel differs from the table, "" where not."""

    patient: Patient
    engine: str
    fhir: str
    v2: str

    @property
    def ok(self) -> bool:
        return not (self.engine or self.fhir or self.v2)


def compare(
    cast: Iterable[Patient], present: Mapping[str, Assessment | None], fhir: Holdings, v2: Holdings, day: date
) -> list[Outcome]:
    return [
        Outcome(
            patient,
            _verdict_differs(patient, present.get(patient.id), day),
            _alerts_differ(patient, fhir.get(patient.id, []), day),
            _alerts_differ(patient, v2.get(patient.id, []), day),
        )
        for patient in cast
    ]


def _verdict_differs(patient: Patient, verdict: Assessment | None, day: date) -> str:
    if verdict is None:
        return "no verdict"
    want = patient.expect
    due = (day + timedelta(days=want.next_due)).isoformat()
    got = (
        verdict.category,
        verdict.action,
        verdict.alert.value,
        verdict.next_due.isoformat() if verdict.next_due else "",
    )
    return "" if got == (want.category, want.action, want.level, due) else " ".join(got)


def _alerts_differ(patient: Patient, held: list[Held], day: date) -> str:
    wanted = [
        Held(
            alert.family,
            alert.level,
            alert.state,
            (day + timedelta(days=alert.next_due)).isoformat() if alert.next_due is not None else "",
        )
        for alert in patient.alerts
    ]
    if patient.review:
        wanted.append(Held(_REVIEW, "amber", "open", "", patient.review))
    if sorted(map(repr, wanted)) == sorted(map(repr, held)):
        return ""
    return "; ".join(f"{one.family} {one.level} {one.state} {one.due}{one.reason}".strip() for one in held) or "nothing"


# FHIR


def fhir_holds(flags: Iterable[dict[str, Any]], tasks: Iterable[dict[str, Any]]) -> Holdings:
    """Each Flag with the Task that asks for its answer; REVIEW tasks stand alone."""
    found: Holdings = {}
    asked = {task["groupIdentifier"]["value"]: task for task in tasks}
    flagged = set()
    for flag in flags:
        number = flag["identifier"][0]["value"]
        flagged.add(number)
        task = asked.get(number, {})
        withdrawn = flag["status"] != "active" and task.get("status") in ("cancelled", "entered-in-error")
        state = "withdrawn" if withdrawn else "open" if flag["status"] == "active" else flag["status"]
        found.setdefault(patient_of_reference(flag["subject"]), []).append(
            Held(
                family=flag["code"]["coding"][0]["code"],
                level=_LEVEL_OF_PRIORITY.get(task.get("priority", ""), "no task"),
                state=state,
                due="" if withdrawn else _due_in(task.get("description", "")),
            )
        )
    for number, task in asked.items():
        if number not in flagged:
            reason = task.get("reasonCode", {}).get("coding", [{}])[0].get("code", "")
            level = _LEVEL_OF_PRIORITY.get(task.get("priority", ""), "")
            found.setdefault(patient_of_reference(task.get("for", {})), []).append(
                Held(_REVIEW, level, "open" if task["status"] == "requested" else task["status"], "", reason)
            )
    return found


def patient_of_reference(reference: Mapping[str, str]) -> str:
    """``Patient/DEMO-MILD`` -> ``DEMO-MILD``: the demo's server has its patients under the identifiers of the cast."""
    return reference.get("reference", "").rpartition("/")[2]


def _due_in(text: str) -> str:
    """The date of the sentence that says when the next count is due."""
    before, _, after = WORDS[LANGUAGE].due.partition("{day}")
    _, found, rest = text.partition(before)
    return rest[: rest.index(after)] if found and after in rest else ""


# HL7 v2


def v2_holds(messages: Iterable[bytes]) -> Holdings:
    """The last message of each alert (OBR-3), as a receiver that keeps the latest of each order would have it."""
    latest: dict[str, tuple[str, Held]] = {}
    for raw in messages:
        number, patient, held = read_v2(raw)
        if held.state == "withdrawn" and number in latest:
            held = replace(latest[number][1], state="withdrawn", due="")
        latest[number] = (patient, held)
    found: Holdings = {}
    for patient, held in latest.values():
        found.setdefault(patient, []).append(held)
    return found


def read_v2(raw: bytes) -> tuple[str, str, Held]:
    """(order number, patient, what it says) of one HL7 v2 alert; a withdrawal does not repeat family and level."""
    message = parse(raw)
    obr = message.segment("OBR") if message else None
    if message is None or obr is None:
        return "", "", Held("unreadable", "", "")
    pid = message.segment("PID")
    rows = {obx.component(3): obx for obx in message.segments("OBX")}
    family = rows["ANC-DECISION"].component(5)
    text = [rows["ANC-TEXT"].text(part) for part in rows["ANC-TEXT"].repetitions(5)]
    due = rows["ANC-NEXT-DUE"].field(5) if "ANC-NEXT-DUE" in rows else ""
    withdrawn = family in ("ANC-WITHDRAWN", "ANC-ENDED")
    held = Held(
        family=family,
        level="" if withdrawn else _level_in(text, family),
        state="withdrawn" if withdrawn else "open",
        due=date.fromisoformat(due).isoformat() if due else "",
        reason=rows["ANC-REASON"].component(5) if "ANC-REASON" in rows else "",
    )
    return obr.component(3), pid.component(3) if pid else "", held


def _level_in(lines: list[str], family: str) -> str:
    """The level's word that opens the second line of the text."""
    if family == _REVIEW:
        return "amber"
    word = lines[1].partition(".")[0] if len(lines) > 1 else ""
    return {words: level for level, words in WORDS[LANGUAGE].levels.items()}.get(word, word)
