"""Drafts a site profile from samples of one sender: every guess is a comment until a person takes the # away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest.reading import fhirparts
from ingest.reading import fhirtypes as t
from ingest.reading.codes import Coding
from ingest.reading.fhirindex import UNDECODABLE, Index, decode, identifiers_of, lay_out
from ingest.reading.hprim import looks_like_hprim, message_of
from ingest.reading.recognition import Recognition, recognise
from ingest.reading.units import Unit, unit_of, unit_of_components
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
    kinds: set[str] = field(default_factory=set)
    recognition: Recognition | None = None

    @property
    def is_settled(self) -> bool:
        """A code of LOINC or NPU whose rows are all in units of what it measures."""
        found = self.recognition
        if found is None or not found.coded or found.doubts or found.claim is None:
            return False
        return self.kinds <= {found.claim.dimension}


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
                    self._time(segment.component(7))
                case "OBX":
                    self._row(segment)

    def take_resources(self, index: Index) -> None:
        """FHIR: the observations, the sender of a message, the identifiers of patients."""
        self.messages += 1
        for item in index.items:
            try:
                match item.kind:
                    case "MessageHeader":
                        source = decode(item.raw, t.MessageHeader).source or t.Source()
                        self.senders[source.endpoint or source.endpointUrl or source.name or ""] += 1
                    case "Patient":
                        for known in identifiers_of(decode(item.raw, t.Patient).identifier):
                            if not known.authority.startswith(("urn:", "http")):
                                self.authorities[known.authority] += 1
                    case "Observation":
                        self._observation(decode(item.raw, t.Observation))
            except UNDECODABLE:
                continue

    def _observation(self, observation: t.Observation) -> None:
        self._time(observation.effectiveDateTime or "")
        for part in (observation, *observation.component):
            codings = fhirparts.codings_of(part.code)
            number, _, _ = fhirparts.number_in(part)
            sent, unit, _ = fhirparts.unit_in(part.valueQuantity)
            doubts = fhirparts.status_of(observation, part, None)[1]
            self._count(codings, fhirparts.recognise_code(part.code), number, sent, unit, doubts)

    def _time(self, text: str) -> None:
        self.without_offset += (
            len(text) > 10 and text[-5:-4] not in ("+", "-") and text[-6:-5] not in ("+", "-") and text[-1:] != "Z"
        )

    def _identifiers(self, pid: Segment) -> None:
        for repetition in pid.repetitions(3):
            parts = [*pid.split_components(repetition), "", "", "", ""]
            if parts[0] and pid.separators.subcomponent not in parts[3]:
                self.authorities[parts[3]] += 1

    def _row(self, obx: Segment) -> None:
        parts = [*obx.components(3), *[""] * 6]
        codings = tuple(Coding(*parts[i : i + 3]) for i in (0, 3) if parts[i] or parts[i + 1])
        number, _ = number_in(obx)
        sent, unit, _ = unit_of_components(tuple(obx.components(6) or [""]))
        self._count(codings, recognise(codings, ""), number, sent, unit, status_of(obx, "")[1])

    def _count(
        self,
        codings: tuple[Coding, ...],
        found: Recognition,
        number: Number | Refusal,
        sent: str,
        unit: Unit | None,
        doubts: tuple[str, ...],
    ) -> None:
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
                seen.kinds |= {unit.kind} if unit is not None else set()
                seen.recognition = found
        if ours and sent and unit is None and unit_of(sent) is None:
            self.unknown_units[sent] += 1
        if isinstance(number, Refusal) and number.code == "value-ambiguous":
            self.ambiguous += 1
        if ours:
            self.doubts.update(doubts)


def _could_be(codings: tuple[Coding, ...]) -> bool:
    """A local code that no table knows, and whose first letters a neutrophil count may have."""
    known = recognise(codings, "").reason == "granulocytes"
    return not known and any(c.code[:2].upper() in ("NE", "PN", "PO", "AN", "GN", "NT") for c in codings)


def suggest(files: Iterable[bytes]) -> str:
    """The draft as TOML. Every line that would change a reading stands behind a #."""
    samples = _Samples()
    for raw in files:
        if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
            index = lay_out(raw.strip(b"\xef\xbb\xbf \t\r\n"))
            if isinstance(index, Index):
                samples.take_resources(index)
        elif looks_like_hprim(raw):
            message = message_of(raw)
            if message is not None:
                samples.take(message, b"")  # nothing in the file names a character set
        else:
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
        f"# Draft of a site profile from {samples.messages} messages. Every line behind a # is a guess:",
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
        if seen.is_settled:
            continue
        claim = found.claim if found is not None else None
        units = ", ".join(unit for unit, _ in seen.units.most_common(3))
        names = ", ".join(name for name, _ in seen.names.most_common(2) if name) or "no name"
        doubts = found.doubts if found is not None else ()
        if claim is not None and claim.dimension is not None and not seen.kinds <= {claim.dimension}:
            doubts = (*doubts, "code-unit-conflict")
        today = f"read today, with doubts: {', '.join(doubts)}" if doubts else "read today by its name"
        today = today if claim is not None else "not read today"
        measures = {"wbc": "leukocytes", "segs": "segs", "bands": "bands"}.get(
            claim.analyte if claim else "", "neutrophils"
        )
        # One label for the count and its percentage: the unit of each row says which, and the profile must not.
        dimension = f" {next(iter(seen.kinds))}" if len(seen.kinds) == 1 else "" if seen.kinds else " count"
        meant = "ignore" if found is not None and found.reason == "prior-result" else f"{measures}{dimension}"
        line = f'# {_quoted(code)} = "{meant}"  # guess: {seen.rows} rows in {units}; {names}; {today}'
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
