"""Everything about one person: which records and messages speak of the person, what an erasure would leave, and doing it.

Rule of the file: messages are read as the judge reads them, whatever door they came by and whatever became of them, so that
one without any count (an admission, a potassium) is found as well. What cannot be read is searched as text. A message that
speaks of others too is theirs as well: its bytes are left out of an export, and an erasure says whom it also takes them from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, select

from engine.identity import published
from engine.merge import MERGED, UNDONE, Moved
from engine.worker import identifiers_in, understood
from ingest.reading import Reading, Site
from rules.model import CourseState, PatientIdentifier
from store import person, register
from store.port import Claim, PatientRecord
from store.tables import audit
from store.values import name_key

__all__ = ["Found", "Who", "obstacles", "quoted", "search", "who"]

# A shorter word stands in half of all messages and means something else there.
_LEAST = 5
_BIRTH = ("%Y%m%d", "%Y-%m-%d", "%d/%m/%Y", "%d%m%Y")
_PID = re.compile(rb"(?:^|[\r\n])PID[|~][^\r\n]*")
_PERSONS = re.compile(rb'(?:^|[\r\n])PID[|~]|"resourceType"\s*:\s*"Patient"')


@dataclass(frozen=True, slots=True)
class Who:
    """``ids``: the record and those that were merged into it. ``identifiers``: of all of them."""

    record: PatientRecord
    ids: tuple[str, ...]
    identifiers: tuple[PatientIdentifier, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Identifiers long enough to be searched for as text."""
        return tuple(sorted({one.value for one in published(self.identifiers) if len(one.value) >= _LEAST}))


@dataclass(slots=True)
class Found:
    """Messages that speak of the person, by number."""

    messages: dict[int, Claim] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    """Of these, those that speak of others too, or of whom cannot be said."""
    pending: set[int] = field(default_factory=set)
    """Of these, those without a disposition."""
    last: int = 0
    """Up to where was searched."""


def who(connection: Connection, number: str) -> Who:
    """``number``: a register id that is on file."""
    (record,) = register.by_id(connection, [number])
    merged = _merged_into(connection)
    ids, names = [number], list(record.identifiers)
    for one in ids:
        for moved in merged.get(one, {}).values():
            names += moved.identifiers
            if moved.prior not in ids:
                ids.append(moved.prior)
    return Who(record, tuple(ids), tuple(dict.fromkeys(names)))


def _merged_into(connection: Connection) -> Mapping[str, dict[str, Moved]]:
    """The merges that stand, by survivor and prior."""
    rows = connection.execute(
        select(audit.c.action, audit.c.detail).where(audit.c.action.in_((MERGED, UNDONE))).order_by(audit.c.seq)
    )
    standing: dict[str, dict[str, Moved]] = {}
    for action, detail in rows:
        moved = msgspec.json.decode(detail, type=Moved)
        of = standing.setdefault(moved.survivor, {})
        of.pop(moved.prior, None)
        if action == MERGED:
            of[moved.prior] = moved
    return standing


def obstacles(connection: Connection, whom: Who) -> list[str]:
    """Why this person's data must not go without somebody who answers for it."""
    found = []
    if number := person.alerts_open(connection, whom.ids):
        found.append(f"{number} alerts are open: nobody has answered them")
    record = whom.record
    course, left = record.course, record.course.state in (CourseState.DECEASED, CourseState.TRANSFERRED)
    if record.enrolled and not left:
        if course.stop is None:
            found.append("clozapine is being taken, and is monitored")
        elif record.present is not None and record.present.next_due is not None:
            found.append("counts are still due after the stop")
    return found


def quoted(whom: Who, *texts: str) -> bool:
    """Whether a text names the person: what stays in the audit for ever must not."""
    names = [name_key(one) for one in (whom.record.person.family, whom.record.person.given) if len(one) > 1]
    words = [one.value.casefold() for one in published(whom.identifiers)]
    for text in texts:
        plain, folded = name_key(text).split(), text.casefold()
        if any(_is_in(name.split(), plain) for name in names) or any(_token(word, folded) for word in words):
            return True
    return False


def _is_in(words: Sequence[str], text: Sequence[str]) -> bool:
    return any(list(text[at : at + len(words)]) == list(words) for at in range(len(text)))


def search(
    connection: Connection,
    whom: Who,
    *,
    zone: ZoneInfo,
    sites: Mapping[str, Site],
    after: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Found:
    """Reads every message beyond ``after`` whose bytes are on file."""
    found, known = Found(last=after), person.linked(connection, whom.ids)
    mine = {(one.value, one.authority) for one in whom.identifiers}
    bare = {one.value for one in whom.identifiers if not one.authority}
    patterns = _patterns(whom)
    for done, (claim, disposition) in enumerate(person.claims(connection, after), 1):
        found.last = claim.message_id
        progress(done)
        reading = understood(claim, zone, sites)
        named = [one for one in identifiers_in(reading, claim) if one.value]
        hits = [one for one in named if _means(one, mine, bare)]
        is_known = claim.message_id in known
        if not (hits or is_known or _written(claim.raw, patterns, whom)):
            continue
        found.messages[claim.message_id] = claim
        if not (hits or _is_headed(claim.raw, patterns)) or _speaks_of_others(reading, claim, mine, bare):
            found.shared.add(claim.message_id)
        if disposition is None:
            found.pending.add(claim.message_id)
    return found


def _means(one: PatientIdentifier, mine: Collection[tuple[str, str]], bare: Collection[str]) -> bool:
    """As engine.identity matches, where one side names no authority too: rather once too often."""
    if (one.value, one.authority) in mine or one.value in bare:
        return True
    return not one.authority and any(value == one.value for value, _ in mine)


def _speaks_of_others(reading: Reading, claim: Claim, mine: Collection[tuple[str, str]], bare: Collection[str]) -> bool:
    groups: list[Iterable[PatientIdentifier]] = [
        *(one.identifiers for one in reading.results),
        *(one.identifiers for one in reading.problems if one.identifiers),
        *(one.identifiers for one in reading.register),
        *reading.pending,
    ]
    strangers = any(not any(_means(one, mine, bare) for one in group) for group in groups)
    return strangers or len(_PERSONS.findall(claim.raw)) > 1


def _is_headed(raw: bytes, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Its one PID names the person: a sound HL7 message without any count, whose names the judge has no use for."""
    found = _PID.findall(raw)
    return len(found) == 1 and any(pattern.search(found[0].decode("latin-1")) for pattern in patterns)


def _patterns(whom: Who) -> list[re.Pattern[str]]:
    return [re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", re.IGNORECASE) for word in whom.words]


def _token(word: str, text: str) -> bool:
    return bool(word) and re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text) is not None


def _written(raw: bytes, patterns: Iterable[re.Pattern[str]], whom: Who) -> bool:
    """An identifier stands in it, or family name, given name and day of birth all do."""
    texts = [raw.decode("latin-1")]
    for codec in ("utf-8", "utf-16"):
        try:
            texts.append(raw.decode(codec))
        except UnicodeDecodeError:
            continue
    patterns, one = list(patterns), whom.record.person
    for text in texts:
        if any(pattern.search(text) for pattern in patterns):
            return True
        if one.family and one.given and one.birth_date and _born(one.birth_date, text):
            plain = name_key(re.sub(r"[\W_]+", " ", text))
            if f" {name_key(one.family)} " in f" {plain} " and f" {name_key(one.given)} " in f" {plain} ":
                return True
    return False


def _born(day: date, text: str) -> bool:
    return any(datetime(day.year, day.month, day.day).strftime(form) in text for form in _BIRTH)  # noqa: DTZ001
