"""What the Tasks that we made say of the people who have them: seen, handed back, answered.

Rule of the file: a Task is ours by its identifier alone; of its status only what a person set means anything. ``cancelled``
and ``entered-in-error`` are ours to set, and no answer when somebody else does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from ingest.reading import fhirtypes as t
from ingest.reading.fhirindex import UNDECODABLE, Index, Item, decode
from ingest.reading.outcome import Reply

__all__ = ["TASK_SYSTEM", "replies_in"]

TASK_SYSTEM: Final = "https://neutroflag.org/fhir/sid/task"
# ``<alert>:ack``, ``<alert>:ack:3`` (made for revision 3), ``<alert>:pharmacist``, ``<alert>:review-decision:4``.
_OURS: Final = re.compile(r"([0-9a-fA-F-]{36}):([a-z-]{1,40})(?::(\d{1,9}))?")
_SAID: Final[dict[str, Literal["stored", "seen", "answered", "handed-back"]]] = {
    "received": "stored",
    "accepted": "seen",
    "in-progress": "seen",
    "on-hold": "seen",
    "completed": "answered",
    "rejected": "handed-back",
    "failed": "handed-back",
}
_LONGEST: Final = 500


def replies_in(index: Index) -> Iterator[Reply]:
    for item in index.items:
        if item.kind == "Task":
            try:
                reply = _reply(decode(item.raw, t.Task), item)
            except UNDECODABLE:
                if item.where not in index.malformed:
                    index.malformed.append(item.where)
                continue
            if reply is not None:
                yield reply


def _reply(task: t.Task, item: Item) -> Reply | None:
    name = next((found for one in task.identifier if one.system == TASK_SYSTEM and (found := _named(one))), None)
    what = _SAID.get(task.status or "")
    if name is None or what is None:
        return None
    alert, kind, made_for = name[1].lower(), name[2], int(name[3] or 1)
    carried = _carried(task, "revision")
    version = (task.meta.versionId if task.meta else None) or ""
    place = f"Task/{task.id or '?'}" + (f"/_history/{version}" if version else "")
    return Reply(
        what=what,
        evidence=f"{place} {task.status}"[:_LONGEST],
        alert=alert,
        recipient="" if kind == "ack" else kind,
        decision=_decision(task) if what == "answered" else "",
        reason=_reason(task)[:_LONGEST],
        by=_person(task)[:200],
        # An EHR may drop what it does not know when it saves; then the Task has carried at least what it was made for.
        revision=max(carried or 0, made_for),
        escalation=_carried(task, "escalation") or (0 if carried is not None else None),
        where=item.where,
    )


def _named(one: t.Identifier) -> re.Match[str] | None:
    return _OURS.fullmatch(one.value or "")


def _carried(task: t.Task, code: str) -> int | None:
    for one in task.input:
        if _is(one.type, code) and (number := bytes(one.valuePositiveInt)).isdigit() and len(number) < 10:
            return int(number)
    return None


def _is(concept: t.CodeableConcept | None, code: str) -> bool:
    return concept is not None and (any(one.code == code for one in concept.coding) or concept.text == code)


def _decision(task: t.Task) -> str:
    """The code of the output that is called ``decision``, or of the only one there is."""
    called = [one for one in task.output if _is(one.type, "decision")]
    chosen = called or (task.output if len(task.output) == 1 else [])
    return _word(chosen[-1])[:_LONGEST] if chosen else ""


def _word(one: t.TaskDetail) -> str:
    concept = one.valueCodeableConcept or t.CodeableConcept()
    coded = [coding.code for coding in (*concept.coding, one.valueCoding or t.Coding()) if coding.code]
    return next((word for word in (*coded, concept.text, one.valueCode, one.valueString) if word), "")


def _reason(task: t.Task) -> str:
    called = [_word(one) for one in task.output if _is(one.type, "reason")]
    status = task.statusReason or t.CodeableConcept()
    stated = [status.text, *(one.display or one.code for one in status.coding)]
    # Our own notes have no author.
    notes = [one.text for one in reversed(task.note) if _author(one) and one.text != task.status]
    return next((word for word in (*called, *stated, *notes) if word), "")


def _author(note: t.Note) -> str:
    reference = note.authorReference or t.Reference()
    return note.authorString or reference.display or reference.reference or ""


def _person(task: t.Task) -> str:
    """Who wrote the last note, else who owns the Task now."""
    written = next((author for one in reversed(task.note) if (author := _author(one))), "")
    owner = task.owner or t.Reference()
    return written or owner.display or owner.reference or ""
