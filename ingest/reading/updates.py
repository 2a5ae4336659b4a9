"""ADT^A31: the number, the name, the birth date or the death of a person who may be on the register (HL7 v2.5.1, 3.3.31)."""

from __future__ import annotations

from typing import Final

from ingest.reading.outcome import PatientFact
from ingest.reading.patients import patient_of
from ingest.reading.site import Site
from ingest.reading.times import date_of
from wire.er7 import NULL, Message, Segment

__all__ = ["updates_in"]

_SEXES: Final = {"M": "male", "F": "female", "O": "other", "A": "other", "U": "unknown"}


def updates_in(message: Message, site: Site | None = None) -> tuple[PatientFact, ...]:
    """What the PID says; nothing of an identity in doubt, and of several PID, which an A31 has not. A field that is empty, or
    the explicit null, takes nothing away."""
    pids = list(message.segments("PID"))
    if len(pids) != 1:
        return ()
    pid = pids[0]
    identifiers, doubts = patient_of(pid, production=True)
    if doubts:
        return ()
    family, given = _name(pid)
    return (
        PatientFact(
            identifiers=site.named(identifiers) if site is not None else identifiers,
            family=family,
            given=given,
            birth_date=date_of(pid.component(7)),
            sex=_SEXES.get(pid.field(8).upper(), ""),
            deceased=pid.field(30).upper() == "Y" or _stated(pid.field(29)),
            known_only=True,
            where=pid.at(),
        ),
    )


def _stated(text: str) -> bool:
    return text not in ("", NULL)


def _name(pid: Segment) -> tuple[str, str]:
    """PID-5 (XPN): the legal name, else the first; the family name without its sub-components."""
    found: list[tuple[int, str, str]] = []
    for repetition in pid.repetitions(5):
        parts = [*pid.split_components(repetition), *[""] * 7]
        family = parts[0].split(pid.separators.subcomponent, 1)[0]
        family, given = ("" if part == NULL else part.strip() for part in (family, parts[1]))
        if family or given:
            found.append((0 if parts[6].upper() == "L" else 1, family, given))
    _, family, given = min(found, key=lambda one: one[0], default=(0, "", ""))
    return family, given
