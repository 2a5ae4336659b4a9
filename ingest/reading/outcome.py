"""What reading one message gives: results, or the reasons why not, and an account of every observation in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, NamedTuple

from msgspec import Struct

from rules.model import LabResult, PatientIdentifier

__all__ = [
    "BenFact",
    "Confirmation",
    "Disposition",
    "Format",
    "LedgerEntry",
    "Merge",
    "Outcome",
    "PatientFact",
    "Problem",
    "Reading",
    "RegisterFact",
    "Reply",
    "TreatmentFact",
]

Format = Literal["hl7v2", "fhir", "cda", "hprim", "other"]
Disposition = Literal["results", "not_relevant", "unassessable", "set_aside"]
Outcome = Literal["result", "provisional", "not_relevant", "unassessable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A coded reason at a place of the message. ``text`` names no patient; ``identifiers`` says whose task it is."""

    code: str
    where: str
    text: str
    identifiers: tuple[PatientIdentifier, ...] = ()


class LedgerEntry(NamedTuple):
    """One observation and what became of it. A tuple: a blood count has dozens, most of them not relevant."""

    where: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """OBX-11 U or V without a value: what was sent before under ``key`` is final now. The value is not sent again."""

    key: str
    where: str
    identifiers: tuple[PatientIdentifier, ...]
    issued_at: datetime | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """ADT^A40: who MRG-1 names is the patient of the PID before it. ``doubts``: why nobody should act on it alone."""

    survivor: tuple[PatientIdentifier, ...]
    prior: tuple[PatientIdentifier, ...]
    where: str
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFact:
    """A Patient resource, or the PID of an ADT^A31. ``references``: by what the other resources of its bundle call it.

    ``deceased``: the message says so; only a person's word silences. ``known_only``: it makes nobody new.
    """

    identifiers: tuple[PatientIdentifier, ...]
    family: str = ""
    given: str = ""
    birth_date: date | None = None
    sex: str = ""
    references: tuple[str, ...] = ()
    deceased: bool = False
    known_only: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatmentFact:
    """A MedicationStatement, -Request, -Dispense or -Administration of clozapine.

    ``candidate``: only a text says clozapine; a person must confirm. ``confirmed_by`` names who asserts it.
    """

    identifiers: tuple[PatientIdentifier, ...]
    resource_type: str
    status: str
    start: date | None = None
    stopped_on: date | None = None
    confirmed_by: str = ""
    candidate: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenFact:
    """A Condition coded as benign ethnic neutropenia. ``confirmed`` needs verificationStatus and a named person."""

    identifiers: tuple[PatientIdentifier, ...]
    confirmed: bool
    withdrawn: bool
    confirmed_on: date | None = None
    confirmed_by: str = ""
    where: str = ""


RegisterFact = PatientFact | TreatmentFact | BenFact


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What another system says that a person did with an alert of ours (docs/answers.md).

    ``alert``: its id, or the 16 characters of it that an order number holds; ``control_id``: MSH-10 of the notification,
    where the reply names that instead. ``revision`` and ``escalation``: of the notification that was answered, None where
    the reply does not say. ``evidence`` names the reply for ever: the same one by two ways is one.
    """

    what: Literal["stored", "seen", "answered", "handed-back"]
    evidence: str
    alert: str = ""
    control_id: str = ""
    recipient: str = ""
    decision: str = ""
    reason: str = ""
    by: str = ""
    revision: int | None = None
    escalation: int | None = None
    where: str = ""


class Reading(Struct, frozen=True, kw_only=True):
    """One message, understood. ``ledger`` has one entry for every OBX or Observation; in = out.

    A Struct, which costs a fifth of a frozen dataclass to make: it is made for every message.

    ``identifiers``: all identifiers of the patients in the message. ``production`` is False for MSH-11 T or D.
    """

    format: Format
    disposition: Disposition
    control_id: str = ""
    sender: str = ""
    message_type: str = ""
    results: tuple[LabResult, ...] = ()
    problems: tuple[Problem, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    identifiers: tuple[PatientIdentifier, ...] = ()
    register: tuple[RegisterFact, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    merges: tuple[Merge, ...] = ()
    replies: tuple[Reply, ...] = ()
    pending: tuple[tuple[PatientIdentifier, ...], ...] = ()
    """Whose count the laboratory has the specimen of, and no value yet (OBX-11 I, Observation ``registered``)."""
    production: bool = True
