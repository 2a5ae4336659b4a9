"""Which patient a result is about: matching a message's identifiers with the register.

Rule of the file: value and authority must both agree. Where one side names no authority the match is believed only so far:
it may raise an alarm, it never reassures. Two patients for one message is nobody's result until a person has looked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rules.model import PatientIdentifier
from store.port import ANYBODYS, Claim, PatientRecord, Work
from store.values import new_uuid

__all__ = [
    "UNPROVEN",
    "Ambiguous",
    "Known",
    "Patients",
    "Unknown",
    "named_by",
    "own_key",
    "own_name",
    "published",
    "sender_of",
    "usable",
]

# Identifiers that name an account, a visit or an insured person, who need not be the patient (standards.md 2.2, finding 5).
_NEVER = frozenset({"AN", "VN", "SS", "NH", "NSS", "PAYERID"})


# What one FHIR sender calls a patient on its own base, and on ours.
_OWN = "urn:neutroflag:fhir:"
UNPROVEN = "sender-unproven"
"""The doubt about a match that rests on another anonymous sender's own name for a patient."""


@dataclass(frozen=True, slots=True)
class Known:
    record: PatientRecord
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody of that name yet, on the register or off it."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    records: tuple[PatientRecord, ...]


def published(identifiers: Iterable[PatientIdentifier]) -> tuple[PatientIdentifier, ...]:
    """Those that mean something outside: not what a FHIR sender calls the patient on our own base."""
    return tuple(item for item in identifiers if not _is_own_name(item))


def sender_of(claim: Claim) -> str:
    """Whose bare references a FHIR message's are: of the sender that its token proved, else of anybody at that address
    (``@10.0.0.7``; a topic, a folder). "" for a format that has none."""
    if claim.format != "fhir":
        return ""
    if claim.sender:
        return claim.sender
    if claim.channel == "kafka":
        return f"@{claim.peer.partition('[')[0]}"  # topic[partition]@offset
    host, _, port = claim.peer.rpartition(":")
    return f"@{host if host and port.isdecimal() else claim.peer}"


def own_name(reference: str, sender: str) -> PatientIdentifier:
    """``Patient/1`` as this sender means it: another's may be somebody else."""
    return PatientIdentifier(reference, f"{_OWN}{sender}" if sender else "", "FHIR")


def own_key(key: str, sender: str) -> str:
    """``Observation/1|...`` as this sender means it; a key that begins with a system or an address is everybody's.

    >>> own_key("Observation/1|ANC:751-8", "lab1")
    'lab1#Observation/1|ANC:751-8'
    >>> own_key("urn:oid:1.2.9|r-1|ANC:751-8", "lab1")
    'urn:oid:1.2.9|r-1|ANC:751-8'
    """
    return key if not sender or ":" in key.partition("|")[0] else f"{sender}#{key}"


def named_by(sender: str, identifiers: Iterable[PatientIdentifier]) -> tuple[PatientIdentifier, ...]:
    """The same, with bare references as this sender means them."""
    return tuple(
        own_name(item.value, sender) if item.value.startswith("Patient/") and not item.authority else item
        for item in identifiers
    )


def _is_own_name(item: PatientIdentifier) -> bool:
    return item.value.startswith("Patient/") and (not item.authority or item.authority.startswith(_OWN))


def _anybodys(item: PatientIdentifier) -> bool:
    return not item.authority or item.authority.startswith(ANYBODYS)


def usable(identifiers: Iterable[PatientIdentifier]) -> tuple[PatientIdentifier, ...]:
    return tuple(item for item in identifiers if item.value and item.type.upper() not in _NEVER)


@dataclass(slots=True)
class Patients:
    """The records that one batch of messages is about, and those that it brings new."""

    by_id: dict[str, PatientRecord] = field(default_factory=dict)
    _exact: dict[tuple[str, str], str] = field(default_factory=dict)
    _by_value: dict[str, set[str]] = field(default_factory=dict)
    fresh: list[tuple[str, PatientIdentifier]] = field(default_factory=list)
    """Identifiers to be filed with this batch."""

    def add(self, record: PatientRecord) -> None:
        self.by_id[record.id] = record
        for item in record.identifiers:
            self._index(record.id, item)

    def _index(self, number: str, item: PatientIdentifier) -> None:
        self._exact[item.value, item.authority] = number
        self._by_value.setdefault(item.value, set()).add(number)

    def find(self, identifiers: Iterable[PatientIdentifier], *, loosely: bool = True) -> Known | Unknown | Ambiguous:
        """``loosely``: also by value alone where one side's authority is missing or unproven; then there is a doubt."""
        wanted = usable(identifiers)
        exact = {number for item in wanted if (number := self._exact.get((item.value, item.authority))) is not None}
        if len(exact) == 1:
            return Known(self.by_id[exact.pop()])
        if exact:
            return Ambiguous(tuple(self.by_id[number] for number in sorted(exact)))
        if not loosely:
            return Unknown()
        loose = {number for item in wanted for number in self._loosely(item)}
        enrolled = [self.by_id[number] for number in sorted(loose) if self.by_id[number].enrolled]
        if len(enrolled) == 1:
            own = any(_is_own_name(item) for item in wanted if enrolled[0].id in set(self._loosely(item)))
            return Known(enrolled[0], doubt=UNPROVEN if own else "authority-missing")
        return Ambiguous(tuple(enrolled)) if enrolled else Unknown()

    def _loosely(self, item: PatientIdentifier) -> Iterable[str]:
        for number in self._by_value.get(item.value, ()):
            filed = self.by_id[number].identifiers
            if _anybodys(item) or any(other.value == item.value and _anybodys(other) for other in filed):
                yield number

    def new(self, identifiers: Iterable[PatientIdentifier]) -> PatientRecord:
        """A record for somebody not seen before, not enrolled; its id is ours and derived from nothing."""
        record = PatientRecord(id=new_uuid(), new=True)
        self.by_id[record.id] = record
        self.learn(record, identifiers)
        return record

    def rehome(
        self, source: PatientRecord, target: PatientRecord, identifiers: Iterable[PatientIdentifier], work: Work
    ) -> None:
        """These identifiers of the source name the target from now on."""
        for item in identifiers:
            if item not in source.identifiers:
                continue
            source.identifiers.remove(item)
            target.identifiers.append(item)
            self._by_value[item.value].discard(source.id)
            self._index(target.id, item)
            if (source.id, item) in self.fresh:  # not on file yet
                self.fresh[self.fresh.index((source.id, item))] = (target.id, item)
            else:
                work.rehomed.append((target.id, item))

    def is_free_for(self, item: PatientIdentifier, record: PatientRecord) -> bool:
        return self._exact.get((item.value, item.authority), record.id) == record.id

    def learn(self, record: PatientRecord, identifiers: Iterable[PatientIdentifier]) -> None:
        """Files further identifiers of a patient, except those that name somebody else already."""
        for item in usable(identifiers):
            if (item.value, item.authority) in self._exact:
                continue
            record.identifiers.append(item)
            self._index(record.id, item)
            self.fresh.append((record.id, item))
