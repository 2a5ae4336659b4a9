"""The words that our FHIR resources share: canonical base, systems, ids, references, and the site's settings."""

from __future__ import annotations

import enum
import functools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from urllib.parse import quote

from rules.model import AlertLevel
from rules.named_ids import namer
from rules.wording import WORDS, Words

__all__ = [
    "BASE",
    "HTEST",
    "FhirProfile",
    "Level",
    "Resource",
    "coding",
    "concept",
    "fhir_id",
    "identifier",
    "instant",
    "own_query",
    "query",
    "quoted",
    "reference",
    "urn",
]

Resource = dict[str, Any]

BASE: Final = "https://neutroflag.org/fhir"
_named: Final = namer(uuid.uuid5(uuid.NAMESPACE_URL, BASE))

_ANSWER_WITHIN_MIN: Final[Mapping[str, int]] = {"critical": 60, "red": 4 * 60, "amber": 72 * 60}


class Level(enum.StrEnum):
    """How much a server is given: what it takes decides (``fhir_levels``), and an operator confirms it."""

    L0 = "L0"
    """One Communication (or DocumentReference): a text that stands in the record."""
    L1 = "L1"
    """One CommunicationRequest: a text that somebody is to be given."""
    L2 = "L2"
    """Flag, Task, the judged Observation, Provenance."""
    L3 = "L3"
    """Besides: DetectedIssue, a proposed ServiceRequest for the next count, CommunicationRequest for what is urgent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirProfile:
    """What a destination wants of our resources.

    ``owner`` and ``reviewer`` are FHIR references or role names, for alerts that name nobody who can own a Task.
    ``update_create``: the server lets us choose ids (CapabilityStatement ``updateCreate``). ``answer_within_min`` by
    level gives ACK-STOP its deadline; a level that is not in it has none. ``zone``: the site's; dates are of its calendar.
    ``document``: at L0 the server takes a DocumentReference and no Communication.
    """

    engine_id: str = "neutroflag"
    engine_name: str = "NeutroFlag"
    engine_version: str = "0.1.0"
    owner: str = ""
    reviewer: str = ""
    update_create: bool = True
    zone: tzinfo = UTC
    level: Level = Level.L2
    document: bool = False
    answer_within_min: Mapping[str, int] = field(default_factory=lambda: _ANSWER_WITHIN_MIN)
    words: Mapping[str, Words] = field(default_factory=lambda: WORDS)

    def words_in(self, language: str) -> Words:
        """The site's."""
        return self.words.get(language, self.words["en"])

    def minutes_to_answer(self, level: AlertLevel) -> int | None:
        return self.answer_within_min.get(level.value)


@functools.lru_cache(maxsize=4096)
def fhir_id(kind: str, key: str) -> str:
    """The id of the resource of type ``kind`` for this business key: the same for ever, and it tells nothing."""
    return _named(f"{kind}|{key}")


def urn(kind: str, key: str) -> str:
    return f"urn:uuid:{fhir_id(kind, key)}"


def identifier(kind: str, value: str) -> Resource:
    return {"system": f"{BASE}/sid/{kind}", "value": value}


@functools.lru_cache(maxsize=256)
def quoted(part: str) -> str:
    """Percent-encoded, the slash too: for system URIs, protocol and rule names, which are few."""
    return quote(part, safe="")


def own_query(kind: str, value: str) -> str:
    """``query`` of one ``identifier(kind, value)``."""
    return "identifier=" + _token(f"{BASE}/sid/{kind}", value)


def query(*identifiers: Resource) -> str:
    """``identifier=`` for a conditional or search URL: the separators within a token are ``%7C`` and ``%3A``."""
    return "identifier=" + ",".join(_token(one["system"], one["value"]) for one in identifiers)


def _token(system: str, value: str) -> str:
    # A uuid with a suffix is nearly every value of ours; quoting it in full costs ten times more.
    plain = value.replace(":", "").replace("-", "")
    token = value.replace(":", "%3A") if plain.isascii() and plain.isalnum() else quote(_escaped(value), safe="")
    return f"{quoted(system)}%7C{token}"


def _escaped(value: str) -> str:
    # , | $ have a meaning inside a search value and are escaped by a backslash (FHIR R4 3.1.1.3.1).
    if not any(mark in value for mark in "\\,|$"):
        return value
    for mark in "\\,|$":
        value = value.replace(mark, "\\" + mark)
    return value


HTEST: Final = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
"""Security label of what is not about a real patient (MSH-11 T or D)."""


def coding(code_system: str, code: str, display: str = "") -> Resource:
    """A coding in one of our own code systems, or in the one whose URI is given."""
    system = code_system if ":" in code_system else f"{BASE}/CodeSystem/{code_system}"
    return {"system": system, "code": code, "display": display} if display else {"system": system, "code": code}


def concept(*codings: Resource, text: str = "") -> Resource:
    return {"coding": list(codings), "text": text} if text else {"coding": list(codings)}


def reference(target: str) -> Resource:
    return {"reference": target}


def instant(at: datetime) -> str:
    """An aware time as FHIR writes it, to the millisecond at most."""
    if at.tzinfo is None:
        raise ValueError("a FHIR instant needs an offset")
    return at.isoformat(timespec="milliseconds") if at.microsecond else at.isoformat()
