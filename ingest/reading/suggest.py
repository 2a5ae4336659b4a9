"""Drafts a site profile from samples of one sender: every guess is a comment until a person takes the # away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest.reading.codes import Coding
from ingest.reading.recognition import Recognition, recognise
from ingest.reading.units import unit_of_components
from ingest.reading.v2fields import number_in, status_of
from ingest.reading.values import Number, Refusal
from wire.er7 import Message, Segment, parse, split

__all__ = ["suggest"]


@dataclass(slots=True)
class _Seen:
    """What the samples hold of one code: units and names with how often, and how it is read today."""

    rows: int = 0
    units: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    recognition: Recognition | None = None


class _Samples:
    def __init__(self) -> None:
        self.messages = 0
        self.senders: Counter[str] = Counter()
        self.codes: dict[str, _Seen] = {}
        self.unknown_units: Counter[str] = Counter()
        self.authorities: Counter[str] = Counter()
        self.doubts: Counter[str] = Counter()
        self.charsets: Counter[str] = Counter()
        self.ambiguous = self.without_offset = 0

    def take(self, message: Message, raw: bytes) -> None:
        self.messages += 1
        header = message.header
        self.senders[f"{header.sending_application}|{header.sending_facility}"] += 1
        if not header.charset and not raw.isascii():
            self.charsets[message.codec] += 1
        for segment in message.segments():
            match segment.name:
                case "PID":
                    self._identifiers(segment)
                case "OBR":
                    time = segment.component(7)
                    self.without_offset += len(time) > 8 and time[-5:-4] not in ("+", "-") and time[-1:] != "Z"
                case "OBX":
                    self._row(segment)

    def _identifiers(self, pid: Segment) -> None:
        for repetition in pid.repetitions(3):
            parts = [*pid.split_components(repetition), "", "", "", ""]
            if parts[0] and pid.separators.subcomponent not in parts[3]:
                self.authorities[parts[3]] += 1

    def _row(self, obx: Segment) -> None:
        parts = [*obx.components(3), *[""] * 6]
        codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
        found = recognise(codings, "")
        number, _ = number_in(obx)
        sent, unit, _ = unit_of_components(tuple(obx.components(6) or [""]))
        counts = unit is not None and unit.kind == "count"
        ours = found.claim is not None
        if not ours and not (counts and isinstance(number, Number) and _could_be(codings)):
            return
        for coding in codings:
            if coding.code:
                seen = self.codes.setdefault(coding.code, _Seen())
                seen.rows += 1
                seen.units[sent or "no unit"] += 1
                seen.names[coding.display] += 1
                seen.recognition = found
        if ours and sent and unit is None:
            self.unknown_units[sent] += 1
        if isinstance(number, Refusal) and number.code == "value-ambiguous":
            self.ambiguous += 1
        if ours:
            self.doubts.update(status_of(obx, "")[1])


def _could_be(codings: tuple[Coding, ...]) -> bool:
    """A local code that no table knows, and whose first letters a neutrophil count may have."""
    known = recognise(codings, "").reason == "granulocytes"
    return not known and any(c.code[:2].upper() in ("NE", "PN", "PO", "AN", "GN", "NT") for c in codings)


def suggest(files: Iterable[bytes]) -> str:
    """The draft as TOML. Every line that would change a reading stands behind a #."""
    samples = _Samples()
    for raw in files:
        for piece in split(raw).pieces:
            message = parse(piece)
            if message is not None:
                samples.take(message, piece)
    return "\n".join([*_head(samples), *_codes(samples), *_units(samples), *_authorities(samples)]) + "\n"


def _quoted(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _head(samples: _Samples) -> list[str]:
    sender = samples.senders.most_common(1)[0][0] if samples.senders else ""
    lines = [
        f"# Draft of a site profile from {samples.messages} HL7 v2 messages. Every line behind a # is a guess:",
        "# ask the laboratory, take the # away where it agrees, and fill in who confirmed it and when.",
        f"sender = {_quoted(sender)}",
    ]
    lines += [f"# also seen from {_quoted(other)}" for other, _ in samples.senders.most_common()[1:5]]
    lines += ['# confirmed_by = ""', "# confirmed_on = 2026-01-31"]
    if samples.without_offset:
        lines.append(f'# zone = "Europe/Paris"  # guess: {samples.without_offset} collection times without an offset')
    for codec, times in samples.charsets.most_common(1):
        lines.append(f"# charset = {_quoted(codec)}  # guess: {times} messages with accents and an empty MSH-18")
    if samples.ambiguous:
        lines.append(f'# decimal = ","  # guess: {samples.ambiguous} values like 1,250: decimals or thousands?')
    missing = samples.doubts["status-missing"]
    if missing:
        lines.append(f'# default_status = "final"  # guess: {missing} counts without OBX-11; provisional as it is')
    return lines


def _codes(samples: _Samples) -> list[str]:
    lines = ["", "[codes]"]
    for code, seen in sorted(samples.codes.items(), key=lambda item: -item[1].rows):
        found = seen.recognition
        if found is not None and found.coded and not found.doubts:
            continue
        claim = found.claim if found is not None else None
        units = ", ".join(unit for unit, _ in seen.units.most_common(3))
        names = ", ".join(name for name, _ in seen.names.most_common(2) if name) or "no name"
        today = (
            f"read today, with doubts: {', '.join(found.doubts)}"
            if found and found.doubts
            else "read today by its name"
        )
        today = today if claim is not None else "not read today"
        measures = {"wbc": "leukocytes", "segs": "segs", "bands": "bands"}.get(
            claim.analyte if claim else "", "neutrophils"
        )
        dimension = "percent" if "%" in seen.units else "count"
        line = f'# {_quoted(code)} = "{measures} {dimension}"  # guess: {seen.rows} rows in {units}; {names}; {today}'
        lines.append("".join(c if c.isprintable() else " " for c in line))
    return lines


def _units(samples: _Samples) -> list[str]:
    lines = ["", "[units]"]
    lines += [
        f'# {_quoted(unit)} = "?"  # {times} rows; not read' for unit, times in samples.unknown_units.most_common()
    ]
    return lines


def _authorities(samples: _Samples) -> list[str]:
    lines = ["", "[authorities]"]
    for name, times in samples.authorities.most_common(10):
        lines.append(f'# {_quoted(name)} = "urn:oid:?"  # {times} identifiers under this name and no OID')
    return lines
