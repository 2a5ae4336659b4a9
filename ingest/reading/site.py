"""A sender's profile: what its laboratory has confirmed of its codes, units, statuses, numbers and identifiers.

Rule of the file: a profile settles what a message leaves open, on the record of who confirmed it; it never turns a refusal
of the rules (an impossible magnitude, a clotted specimen) into a number.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from types import MappingProxyType
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ingest.reading.codes import Analyte, Claim, Coding, Dimension
from ingest.reading.patients import authority_of
from ingest.reading.recognition import Recognition
from ingest.reading.rows import Row
from ingest.reading.units import Unit, unit_of
from ingest.reading.values import Number, Refusal, number_of
from rules.model import PatientIdentifier, ResultStatus
from wire.er7 import codec_of

__all__ = ["Site", "SiteError", "parse_site"]

_ANALYTES: dict[str, Analyte] = {
    "neutrophils": "neutrophils", "segs": "segs", "bands": "bands", "leukocytes": "wbc", "ignore": "other",
}  # fmt: skip
_DIMENSIONS = ("count", "percent", "fraction")
# What a laboratory can answer for. A suspect specimen, a doubtful identity or a missing time is no question of dialect.
SETTLED = frozenset(
    "code-name-conflict code-system-conflict code-unknown code-conflict status-conflict unit-suspect".split()
)
_MEMBERS = frozenset(
    "sender confirmed_by confirmed_on zone charset decimal default_status strict codes units authorities trust".split()
)


class SiteError(Exception):
    """The profile cannot be used; each line of ``problems`` names a place in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class CodeEntry:
    """``claim``: what the code measures. ``unit``: what its numbers are in when OBX-6 is empty."""

    claim: Claim
    unit: Unit | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """``sender``: MSH-3|MSH-4 (FHIR: MessageHeader.source); "" stands for any. Compared by identity: it is a cache's key."""

    sender: str = ""
    confirmed_by: str = ""
    confirmed_on: date | None = None
    zone: ZoneInfo | None = None
    charset: str = ""
    decimal: Literal["", ",", "."] = ""
    default_status: ResultStatus | None = None
    strict: bool = False
    codes: Mapping[str, CodeEntry] = field(default_factory=lambda: MappingProxyType({}))
    units: Mapping[str, Unit] = field(default_factory=lambda: MappingProxyType({}))
    authorities: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    settled: frozenset[str] = frozenset()

    def recognised(self, codings: tuple[Coding, ...], found: Recognition) -> Recognition:
        """``found``, unless the profile knows one of the codes."""
        for coding in codings:
            entry = self.codes.get(coding.code.upper())
            if entry is None:
                continue
            if entry.claim.analyte == "other":
                return Recognition(None, (), True, coding, False, "site-profile")
            return Recognition(entry.claim, (), True, coding, found.fluid, "")
        if found.doubts and self.settled:
            return found._replace(doubts=tuple(d for d in found.doubts if d not in self.settled))
        return found

    def applied(self, row: Row) -> Row:
        """The row with what the profile settles: unit, the ambiguous thousand, a missing status, doubts."""
        unit, conflict = row.unit, row.unit_conflict
        if row.unit_sent in self.units:
            unit, conflict = self.units[row.unit_sent], False
        elif not row.unit_sent:
            entry = self.codes.get(row.recognition.coding.code.upper())
            unit = entry.unit if entry is not None and entry.unit is not None else unit
        status, doubts = row.status, row.doubts
        if self.default_status is not None and "status-missing" in doubts:
            status, doubts = self.default_status, tuple(d for d in doubts if d != "status-missing")
            if status is ResultStatus.PRELIMINARY:
                doubts = (*doubts, "status-preliminary")
        return replace(
            row,
            unit=unit,
            unit_conflict=conflict,
            number=self._number(row),
            status=status,
            doubts=tuple(d for d in doubts if d not in self.settled),
        )

    def _number(self, row: Row) -> Number | Refusal:
        """``1,250`` and ``1.250`` as this laboratory means them."""
        number = row.number
        ambiguous = number.code == "value-ambiguous" if isinstance(number, Refusal) else number.point_of_three
        if not self.decimal or not ambiguous:
            return number
        other = "." if self.decimal == "," else ","
        again = number_of(row.value_sent.replace(other, "").replace(self.decimal, "."))
        return again if isinstance(again, Refusal) else again._replace(point_of_three=False)

    def named(self, identifiers: tuple[PatientIdentifier, ...]) -> tuple[PatientIdentifier, ...]:
        """The identifiers under the authorities that the profile knows; "" stands for an identifier without one."""
        if not self.authorities:
            return identifiers
        return tuple(
            PatientIdentifier(i.value, self.authorities.get(i.authority, i.authority), i.type) for i in identifiers
        )


def parse_site(text: str) -> Site:
    """A profile from TOML. Raises ``SiteError`` naming every place that cannot be used."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiteError([f"not TOML: {error}"]) from None
    reader = _Reader(data)
    site = reader.site()
    if reader.problems:
        raise SiteError(reader.problems)
    return site


class _Reader:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.problems = [f"{key}: unknown; known are {', '.join(sorted(_MEMBERS))}" for key in data.keys() - _MEMBERS]

    def site(self) -> Site:
        codes, units = self._codes(), self._units()
        settled = frozenset(self._table("trust").get("settled", ()))
        self.problems += [f"trust.settled: {item!r} is not the laboratory's to settle" for item in settled - SETTLED]
        self.problems += [
            f"trust.{key}: unknown; known is settled" for key in self._table("trust").keys() - {"settled"}
        ]
        status = self._one_of("default_status", ("", "final", "preliminary"))
        decimal = self._one_of("decimal", ("", ",", "."))
        by, on = self._text("confirmed_by"), self.data.get("confirmed_on")
        if (codes or units or settled or status or decimal) and (not by or not isinstance(on, date)):
            self.problems.append("confirmed_by, confirmed_on: what changes a reading needs a name and a date")
        charset = self._text("charset")
        if charset and codec_of(charset) is None:
            self.problems.append(f"charset: unknown character set {charset!r}")
        return Site(
            sender=self._text("sender"),
            confirmed_by=by,
            confirmed_on=on if isinstance(on, date) else None,
            zone=self._zone(),
            charset=charset,
            decimal=cast('Literal["", ",", "."]', decimal),
            default_status=ResultStatus(status) if status else None,
            strict=self.data.get("strict") is True,
            codes=MappingProxyType(codes),
            units=MappingProxyType(units),
            authorities=MappingProxyType(self._authorities()),
            settled=settled,
        )

    def _text(self, key: str) -> str:
        value = self.data.get(key, "")
        if not isinstance(value, str):
            self.problems.append(f"{key}: must be a text")
            return ""
        return value

    def _one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self._text(key)
        if value in allowed:
            return value
        self.problems.append(f"{key}: must be one of {', '.join(repr(a) for a in allowed if a)}")
        return ""

    def _table(self, key: str) -> dict[str, Any]:
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            self.problems.append(f"{key}: must be a table")
            return {}
        return value

    def _zone(self) -> ZoneInfo | None:
        name = self._text("zone")
        try:
            return ZoneInfo(name) if name else None
        except (ZoneInfoNotFoundError, ValueError):
            self.problems.append(f"zone: no such time zone {name!r}")
            return None

    def _codes(self) -> dict[str, CodeEntry]:
        """``"PNN" = "neutrophils count"``, or a table with measures, dimension and unit."""
        found = {}
        for code, given in self._table("codes").items():
            entry = given if isinstance(given, dict) else {"measures": given}
            words = str(entry.get("measures", "")).split()
            analyte = _ANALYTES.get(words[0]) if words else None
            dimension = words[1] if len(words) > 1 else entry.get("dimension")
            unknown = entry.keys() - {"measures", "dimension", "unit"}
            unit = unit_of(entry["unit"]) if isinstance(entry.get("unit"), str) else None
            if analyte is None or len(words) > 2 or dimension not in (None, *_DIMENSIONS) or unknown:
                names = f"{'|'.join(_ANALYTES)} [{'|'.join(_DIMENSIONS)}]"
                self.problems.append(f"codes.{code}: must say {names}, and may say unit")
            elif "unit" in entry and unit is None:
                self.problems.append(f"codes.{code}.unit: unknown unit {entry['unit']!r}")
            else:
                found[code.upper()] = CodeEntry(Claim(analyte, cast("Dimension | None", dimension)), unit)
        return found

    def _units(self) -> dict[str, Unit]:
        found = {}
        for sent, meant in self._table("units").items():
            unit = unit_of(meant) if isinstance(meant, str) else None
            if unit is None or not sent:
                self.problems.append(
                    f"units.{sent!r}: must be a spelling from docs/reading.md, for a unit that was sent"
                )
            else:
                found[sent] = unit
        return found

    def _authorities(self) -> dict[str, str]:
        found = {}
        for sent, meant in self._table("authorities").items():
            if isinstance(meant, str) and meant:
                found[authority_of(sent)] = authority_of(meant)
            else:
                self.problems.append(f"authorities.{sent!r}: must be an authority: urn:oid:1.2.3, a URI or a name")
        return found
