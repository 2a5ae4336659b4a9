"""Which Patient of the server an alert is about: found by identifier, verified, never guessed.

The server's answer is checked against what was asked: a server that ignores a search parameter answers with everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from emitters.fhir_terms import Resource
from emitters.sink import Refused
from rules.model import PatientIdentifier

__all__ = ["choose", "searchable"]

# NH and the like number an insured person, who may be a parent; in France under the same OID as the patient's own
# INS. They never find a patient.
_NOT_A_PERSON: Final = frozenset({"NH", "NSS", "SN"})


def searchable(identifiers: Sequence[PatientIdentifier], systems: Mapping[str, str]) -> list[Resource]:
    """The identifiers as (system, value). A bare namespace counts only if the site says which system it is."""
    found = []
    for one in identifiers:
        system = one.authority if ":" in one.authority else systems.get(one.authority, "")
        if system and one.value and one.type not in _NOT_A_PERSON:
            found.append({"system": system, "value": one.value})
    return found


def choose(bundle: Resource, asked: Sequence[Resource]) -> str | Refused:
    """``Patient/<id>`` if the searchset holds exactly one that carries what was asked, and is nobody's duplicate."""
    ids = set()
    for entry in bundle.get("entry") or ():
        patient = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(patient, dict) and patient.get("resourceType") == "Patient" and _carries(patient, asked):
            ids.add(patient.get("id"))
    if len(ids) > 1:
        return Refused("patient-ambiguous", f"{len(ids)} patients carry the identifiers of the alert")
    chosen = ids.pop() if ids else None
    if not isinstance(chosen, str):
        return Refused("patient-not-found", "no patient carries an identifier of the alert")
    return f"Patient/{chosen}"


def _carries(patient: Resource, asked: Sequence[Resource]) -> bool:
    links = patient.get("link") or ()
    if any(isinstance(link, dict) and link.get("type") == "replaced-by" for link in links):
        return False
    held = [one for one in patient.get("identifier") or () if isinstance(one, dict) and not _of_another(one)]
    return any(
        one.get("system") == want["system"] and one.get("value") == want["value"] for one in held for want in asked
    )


def _of_another(identifier: Resource) -> bool:
    codings = (identifier.get("type") or {}).get("coding") or ()
    return identifier.get("use") == "old" or any(one.get("code") in _NOT_A_PERSON for one in codings)
