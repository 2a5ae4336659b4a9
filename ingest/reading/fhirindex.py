"""A FHIR payload laid out flat: every resource with its place, and the way from a reference to what it points to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ingest.reading import fhirtypes as t
from ingest.reading.patients import authority_of, order_identifiers
from rules.model import PatientIdentifier
from wire.memo import memo

__all__ = ["Index", "Item", "NotFhir", "has_duplicate_keys", "lay_out"]

MAX_ENTRIES = 20_000
_DEPTH = 4
_MOST_IDENTIFIERS = 100
T = TypeVar("T")
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


@dataclass(frozen=True, slots=True)
class NotFhir:
    """Why the payload is set aside, and where."""

    code: str
    where: str
    text: str


@dataclass(slots=True)
class Item:
    """One resource: its type, its place (``entry[3].resource``), its JSON text, and the resource that contains it."""

    kind: str
    where: str
    raw: bytes
    id: str = ""
    full_url: str = ""
    parent: Item | None = None
    contained: dict[str, Item] = field(default_factory=dict)
    known: dict[type, Any] | None = None
    digest: str = ""

    @property
    def content(self) -> str:
        """A name for what has no other."""
        if not self.digest:
            self.digest = hashlib.blake2b(self.raw, digest_size=16).hexdigest()
        return self.digest

    def decoded(self, kind: type[T]) -> T:
        """As ``decode``, once: hundreds of observations may point to one large patient."""
        if self.known is None:
            self.known = {}
        found: T | None = self.known.get(kind)
        if found is None:
            found = self.known[kind] = decode(self.raw, kind)
        return found


@dataclass(slots=True)
class Index:
    """``bundle`` is None for a single resource. ``malformed``: entries that are no resource."""

    bundle: t.Bundle | None
    items: list[Item]
    malformed: list[str]
    _by_reference: dict[str, Item] = field(default_factory=dict)
    _by_tail: dict[str, Item | None] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        self.items.append(item)
        if item.parent is not None:
            return
        if item.full_url:
            self._by_reference.setdefault(item.full_url, item)
        if item.id:
            tail = f"{item.kind}/{item.id}"
            # Two resources of one name from two servers: the bare name points nowhere.
            known = self._by_tail.get(tail, item)
            same = known is not None and (known is item or known.full_url == item.full_url)
            self._by_tail[tail] = known if same else None

    def find(self, reference: str, at: Item) -> Item | None:
        """What ``reference`` (``#p1``, ``urn:uuid:...``, ``Patient/1``, a URL) points to, seen from ``at``."""
        if reference[:1] == "#":
            home: Item | None = at
            while home is not None:
                if reference[1:] in home.contained:
                    return home.contained[reference[1:]]
                home = home.parent
            return None
        reference = reference.split("/_history/", 1)[0]
        direct = self._by_reference.get(reference)
        if direct is not None:
            return direct
        tail = "/".join(reference.rsplit("/", 2)[-2:])
        return self._by_tail.get(tail)


def decode(raw: bytes, kind: type[T]) -> T:
    """``raw`` as ``kind``; raises ``msgspec.MsgspecError`` (or RecursionError) where it is not."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    found: T = decoder.decode(raw)
    return found


UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def lay_out(raw: bytes) -> Index | NotFhir:
    """Every resource of ``raw``, bundles within bundles and contained resources included."""
    try:
        head = decode(raw, t.Head)
    except msgspec.ValidationError as error:
        return NotFhir("not-fhir", "$", f"$: {_harmless(error)}")
    except UNDECODABLE as error:
        return NotFhir("not-json", "$", f"$: {_harmless(error)}")
    if not head.resourceType:
        return NotFhir("not-fhir", "$.resourceType", "$.resourceType: not a FHIR resource")
    index = Index(None, [], [])
    problem = _add(index, Item(head.resourceType, "", raw, head.id or ""), head, _DEPTH)
    return problem or index


def _harmless(error: BaseException) -> str:
    """msgspec's words name a place and a type, never a value; cut all the same."""
    return str(error)[:160] or type(error).__name__


def _add(index: Index, item: Item, head: t.Head, depth: int) -> NotFhir | None:
    if item.kind == "Bundle":
        return _add_bundle(index, item, depth)
    if item.kind == "Parameters" and depth:
        _add_parameters(index, item, depth)
    if not item.where:
        item.where = f"{item.kind}/{item.id}" if item.id else item.kind
    for number, part in enumerate(head.contained):
        inner = _head(part)
        if inner is None:
            index.malformed.append(f"{item.where}.contained[{number}]")
            continue
        child = Item(inner.resourceType, f"{item.where}.contained[{number}]", bytes(part), inner.id or "", parent=item)
        if child.id:
            item.contained.setdefault(child.id, child)
        index.add(child)
    index.add(item)
    return None


def _head(raw: Raw) -> t.Head | None:
    try:
        head = decode(bytes(raw), t.Head)
    except UNDECODABLE:
        return None
    return head if head.resourceType else None


def _add_bundle(index: Index, item: Item, depth: int) -> NotFhir | None:
    prefix = f"{item.where}." if item.where else ""
    try:
        bundle = decode(item.raw, t.Bundle)
    except UNDECODABLE as error:
        return NotFhir("not-fhir", f"{prefix}Bundle", f"{prefix}Bundle: {_harmless(error)}")
    if depth == 0 or len(bundle.entry) > MAX_ENTRIES:
        return NotFhir(
            "too-large", f"{prefix}Bundle", f"{prefix}Bundle: nested too deep, or more entries than are read at once"
        )
    # A second "entry" member would silently win over the first; the full check is only made when there are two.
    if item.raw.count(b'"entry"') > 1 and has_duplicate_keys(item.raw):
        return NotFhir("duplicate-key", f"{prefix}Bundle", f"{prefix}Bundle: a JSON object names one member twice")
    if index.bundle is None:
        index.bundle = bundle
    for number, entry in enumerate(bundle.entry):
        where = f"{prefix}entry[{number}].resource"
        if not t.present(entry.resource):
            continue
        head = _head(entry.resource)
        if head is None:
            index.malformed.append(where)
            continue
        part = Item(head.resourceType, where, bytes(entry.resource), head.id or "", entry.fullUrl or "")
        problem = _add(index, part, head, depth - 1)
        if problem is not None:
            index.malformed.append(where)
    return None


def _add_parameters(index: Index, item: Item, depth: int) -> None:
    """The resources that Parameters carry: the content of ``$process-message``."""
    prefix = f"{item.where}." if item.where else ""
    try:
        parameters = decode(item.raw, t.Parameters).parameter
    except UNDECODABLE:
        index.malformed.append(f"{prefix}Parameters")
        return
    for number, parameter in enumerate(parameters[:MAX_ENTRIES]):
        for place, part in _parts(f"{prefix}parameter[{number}]", parameter, depth):
            where = f"{place}.resource"
            head = _head(part.resource)
            if head is None or _add(
                index, Item(head.resourceType, where, bytes(part.resource), head.id or ""), head, depth - 1
            ):
                index.malformed.append(where)


def _parts(where: str, parameter: t.Parameter, depth: int) -> Iterator[tuple[str, t.Parameter]]:
    """Those of a parameter and its parts that hold a resource."""
    if t.present(parameter.resource):
        yield where, parameter
    for number, part in enumerate(parameter.part[:MAX_ENTRIES] if depth else ()):
        yield from _parts(f"{where}.part[{number}]", part, depth - 1)


class _Duplicate(Exception):
    """Raised inside one json.loads to leave it."""


def _distinct(found: list[tuple[str, object]]) -> None:
    if len(dict(found)) != len(found):
        raise _Duplicate


_KEYS = json.JSONDecoder(object_pairs_hook=_distinct, parse_float=str, parse_int=str)


def has_duplicate_keys(raw: bytes) -> bool:
    """Does some JSON object name a member twice? Which of the two counts is then anybody's guess."""
    if b"\\" not in raw:
        # Each name and each text has two quotes. What is decoded and written again has lost those of a repeated member.
        try:
            again = msgspec.json.encode(msgspec.json.decode(raw))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            again = b""
        if again.count(b'"') == raw.count(b'"') > 0:
            return False
    try:
        _KEYS.decode(raw.decode())
    except _Duplicate:
        return True
    except (ValueError, RecursionError):
        return True
    return False


def identifiers_of(found: list[t.Identifier]) -> list[PatientIdentifier]:
    """Identifiers of a Patient or of a logical reference; old and secondary ones stay aliases."""
    out: list[PatientIdentifier] = []
    for i in found[:_MOST_IDENTIFIERS]:
        value = (i.value or "").strip()
        if not value or len(value) > 200:
            continue
        codes = [c.code or "" for c in i.type.coding] if i.type is not None else ()
        system = i.system or ""
        authority = _authority(system)
        out.append(PatientIdentifier(value, authority, codes[0] if codes else ""))
    return out


@memo(1024)
def _authority(system: str) -> str:
    return authority_of(system.strip())


def subject_of(
    index: Index, reference: t.Reference | None, at: Item
) -> tuple[tuple[PatientIdentifier, ...], Item | None]:
    """``(identifiers, Patient)``: by the resource it points to, else by its identifier, else the bare reference itself."""
    if reference is None:
        return (), None
    target = index.find(reference.reference, at) if reference.reference else None
    if target is not None and target.kind == "Patient":
        try:
            patient = target.decoded(t.Patient)
        except UNDECODABLE:
            patient = t.Patient()
        known = order_identifiers(identifiers_of(patient.identifier))
        if known:
            return known, target
    if reference.identifier is not None:
        known = order_identifiers(identifiers_of([reference.identifier]))
        if known:
            return known, target
    if reference.reference and reference.reference[:1] != "#":
        bare = reference.reference.split("/_history/", 1)[0][:200]
        return (PatientIdentifier(bare),), target
    return (), target
