"""From the measures of one specimen to its neutrophil counts: one result a count, derived where there is only a fraction.

Rule of the file: a reported count wins over a derived one; a derived count carries what rounding allows at worst; every row
that came in leaves as one ledger entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from ingest.reading.derivation import against, product
from ingest.reading.outcome import LedgerEntry, Outcome, Problem
from ingest.reading.repeats import contradicts, only, retells, same
from ingest.reading.rows import Fault, Measure, Row, Skip, measure_of
from rules.model import AbsoluteNeutrophilCount, Comparator, LabResult, PatientIdentifier, ResultStatus, Trust

__all__ = ["Assembly", "assemble"]

_HALF = Decimal("0.5")
_MOST_ROWS = 300
# The worst first: a derived count has the worst status of its inputs.
_WORST = (
    ResultStatus.ENTERED_IN_ERROR,
    ResultStatus.CANCELLED,
    ResultStatus.PRELIMINARY,
    ResultStatus.CORRECTED,
    ResultStatus.FINAL,
)


@dataclass(slots=True)
class Assembly:
    results: list[LabResult] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ledger: list[LedgerEntry] = field(default_factory=list)


@dataclass(slots=True)
class _Specimen:
    """The rows of one specimen, sorted by what they measure."""

    measures: dict[tuple[str, str], list[Measure]] = field(default_factory=dict)
    faults: list[tuple[Row, Fault]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.measures.values())) + len(self.faults)

    def counts(self, analyte: str) -> list[Measure]:
        return self.measures.get((analyte, "count"), [])

    def parts(self, analyte: str) -> list[Measure]:
        """Percentages first, then fractions."""
        take = self.measures.get
        return [*take((analyte, "percent"), ()), *take((analyte, "fraction"), ())]


def assemble(
    rows: Iterable[Row],
    identifiers: tuple[PatientIdentifier, ...],
    doubts: tuple[str, ...],
    out: Assembly,
) -> None:
    """Add to ``out`` what the rows of one patient give. ``doubts`` hold for everything of this patient or message."""
    specimens: dict[object, _Specimen] = {}
    for row in rows:
        specimen = specimens.get(row.group)
        if specimen is None:
            specimen = specimens[row.group] = _Specimen()
        match measure_of(row):
            case Measure() as measure:
                specimen.measures.setdefault((measure.analyte, measure.dimension), []).append(measure)
            case Skip(reason):
                out.ledger.append(LedgerEntry(row.where, "not_relevant", reason))
            case Fault() as fault:
                specimen.faults.append((row, fault))
    for specimen in specimens.values():
        _Assembler(specimen, identifiers, doubts, out).run()


class _Assembler:
    """One specimen's way from measures to results."""

    __slots__ = ("doubts", "identifiers", "out", "specimen", "wbc")

    def __init__(
        self, specimen: _Specimen, identifiers: tuple[PatientIdentifier, ...], doubts: tuple[str, ...], out: Assembly
    ) -> None:
        self.specimen, self.identifiers, self.doubts, self.out = specimen, identifiers, doubts, out
        self.wbc = only(specimen.counts("wbc"))

    def run(self) -> None:
        specimen = self.specimen
        counts = specimen.counts("neutrophils")
        if len(specimen.measures) == 1 and len(counts) == 1 and counts[0].value is not None and not specimen.faults:
            # A count alone, as most Observations have it: nothing to hold it against.
            return self._reported(counts, [])
        if specimen.size > _MOST_ROWS:
            return self._too_many()
        standing = [m for m in counts if m.value is not None]
        parts = specimen.parts("neutrophils")
        segs, bands = specimen.counts("segs"), specimen.counts("bands")
        seg_parts, band_parts = specimen.parts("segs"), specimen.parts("bands")
        for m in counts:
            if m.value is None:
                self._withdrawn(m)
        self._reported(standing, parts)
        weak = self._weakness(counts)
        if standing:
            self._set_down([*parts, *segs, *bands, *seg_parts, *band_parts], "count-reported")
        elif segs:
            self._sum(segs, bands, weak)
            self._set_down([*parts, *seg_parts, *band_parts], "count-reported")
        elif parts:
            self._derive(parts, [], weak)
            self._set_down([*bands, *seg_parts, *band_parts], "count-reported")
        else:
            self._derive(seg_parts, band_parts, weak)
            self._set_down(bands, "bands-alone")
            if not seg_parts:
                self._set_down(band_parts, "bands-alone")
        self._set_down(specimen.counts("wbc"), "leukocytes")
        for row, fault in self.specimen.faults:
            self._fault(row, fault, standing)

    def _too_many(self) -> None:
        """More rows than any blood count of one specimen has: comparing each with each would never end."""
        rows = [m.row for measures in self.specimen.measures.values() for m in measures]
        rows += [row for row, _ in self.specimen.faults]
        ours = [row for row in rows if row.recognition.measures_neutrophils]
        for row in rows:
            outcome: Outcome = "unassessable" if row.recognition.measures_neutrophils else "not_relevant"
            self._enter(row, outcome, "value-repeated")
        if ours:
            where = ours[0].where
            words = "more counts than one specimen can have"
            self.out.problems.append(Problem("value-repeated", where, f"{where}: {words}", self.identifiers))

    def _weakness(self, counts: list[Measure]) -> tuple[str, ...]:
        """Why a derived count is not to be trusted here: the reported one was there and could not be used."""
        if any(_claims_count(r) or _claims_part(r) for r, _ in self.specimen.faults):
            return ("reported-count-unreadable",)
        return ("reported-count-withdrawn",) if counts else ()

    def _reported(self, counts: list[Measure], parts: list[Measure]) -> None:
        distinct = counts if len(counts) < 2 else self._distinct(counts)
        for m in distinct:
            doubts = m.doubts
            if any(retells(row, fault, m) for row, fault in self.specimen.faults):
                doubts = (*doubts, "reported-count-unreadable")
            if len(distinct) > 1 and any(contradicts(m, other) for other in distinct):
                doubts = (*doubts, "counts-differ")
            lower: Decimal | None = None
            if self.wbc is not None and m.comparator is None:
                lower, contradiction = against(m, self.wbc, parts)
                doubts = (*doubts, *contradiction)
            assert m.value is not None  # noqa: S101 - counts that stand have a value
            anc = AbsoluteNeutrophilCount(
                per_mm3=m.value, comparator=m.comparator, lower_bound=lower, reporting_unit=m.step
            )
            self._result(m.row, anc, m.row.status, doubts)

    def _distinct(self, counts: list[Measure]) -> list[Measure]:
        """``counts`` less the repeats: the most trusted and most precise row speaks for those that repeat it."""
        kept: list[Measure] = []
        for m in sorted(counts, key=lambda m: (bool(m.doubts or m.row.doubts), m.step)):
            twin = next((k for k in kept if same(k, m)), None)
            if twin is None:
                kept.append(m)
            else:
                self._enter(m.row, _outcome(m, self.doubts), f"same count as {twin.row.where}")
        return sorted(kept, key=counts.index)

    def _withdrawn(self, m: Measure) -> None:
        self._result(m.row, None, m.row.status, m.doubts)

    def _sum(self, segs: list[Measure], bands: list[Measure], weak: tuple[str, ...]) -> None:
        seg, band = only(segs), only(bands)
        if seg is None:
            return self._refuse([*segs, *bands], "value-repeated", "several counts of segmented neutrophils differ")
        if seg.value is None:
            self._withdrawn(seg)
        elif band is None or band.value is None or band.comparator or seg.comparator:
            comparator: Comparator = seg.comparator or ">="
            if seg.comparator in ("<", "<="):
                return self._refuse(
                    [*segs, *bands], "value-comparator", "segmented neutrophils below a bound, without bands"
                )
            anc = AbsoluteNeutrophilCount(per_mm3=seg.value, comparator=comparator, reporting_unit=seg.step)
            self._result(seg.row, anc, seg.row.status, (*seg.doubts, *weak))
        else:
            low = max(seg.value - seg.step * _HALF, Decimal(0)) + max(band.value - band.step * _HALF, Decimal(0))
            anc = AbsoluteNeutrophilCount(
                per_mm3=seg.value + band.value, derived=True, lower_bound=low, reporting_unit=max(seg.step, band.step)
            )
            self._result(seg.row, anc, _worst(seg, band), (*seg.doubts, *band.doubts, *band.row.doubts, *weak))
        self._set_down([m for m in segs if m is not seg], "same-count")
        self._set_down(bands, "summed")

    def _derive(self, parts: list[Measure], bands: list[Measure], weak: tuple[str, ...]) -> None:
        if not parts:
            return
        part, band = only(parts), only(bands)
        wbc = self.wbc
        if part is None or (bands and band is None):
            return self._refuse([*parts, *bands], "value-repeated", "several percentages of one specimen differ")
        if wbc is None:
            # Several leukocyte counts of one specimen: the lowest may alarm, and reassures nobody.
            several = [m for m in self.specimen.counts("wbc") if m.value is not None and not m.comparator]
            if not several:
                words = "a percentage, and no leukocyte count of the same specimen"
                self._refuse([*parts, *bands], "percent-without-leukocytes", words)
                return self._unread_leukocytes()
            wbc = min(several, key=lambda m: m.value or Decimal(0))
            weak = (*weak, "leukocytes-differ")
        inputs = [m for m in (part, band, wbc) if m is not None]
        status = _worst(*inputs)
        doubts = tuple(d for m in inputs for d in (*m.doubts, *(m.row.doubts if m is not part else ()))) + weak
        if status.withdrawn:
            self._result(part.row, None, status, doubts)
        else:
            bounded = [m for m in inputs if m.comparator]
            if len(bounded) > 1 or (bounded and band is not None):
                return self._refuse([*parts, *bands], "value-comparator", "two bounds give no count")
            anc = product(part, band, wbc, whole=part.analyte == "neutrophils" or band is not None)
            self._result(part.row, anc, status, doubts)
        self._set_down([m for m in parts if m is not part], "same-count")
        self._set_down(bands, "summed")

    def _result(
        self, row: Row, anc: AbsoluteNeutrophilCount | None, status: ResultStatus, doubts: tuple[str, ...]
    ) -> None:
        all_doubts = (*row.doubts, *row.stamp.doubts, *doubts, *self.doubts)
        if len(all_doubts) > 1:
            all_doubts = tuple(dict.fromkeys(all_doubts))
        trust = Trust.PROVISIONAL if all_doubts or status is ResultStatus.PRELIMINARY else Trust.ESTABLISHED
        coding = row.recognition.coding
        wbc = self.wbc.value if self.wbc is not None and self.wbc.comparator is None else None
        self.out.results.append(
            LabResult(
                status=status,
                anc=anc,
                collected_at=row.stamp.at,
                time_known=row.stamp.time_known,
                issued_at=row.issued.at,
                trust=trust,
                doubts=all_doubts,
                identifiers=self.identifiers,
                key=row.key,
                code=coding.code,
                code_system=_system(coding.system, coding.code),
                display=coding.display,
                value_as_sent=row.value_sent,
                unit_as_sent=row.unit_sent,
                sub_id=row.sub_id,
                where=row.where,
                order=row.order,
                wbc_per_mm3=wbc,
            )
        )
        self._enter(row, "provisional" if trust is Trust.PROVISIONAL else "result", ", ".join(all_doubts))

    def _refuse(self, measures: list[Measure], code: str, words: str) -> None:
        for m in measures:
            self._fault(m.row, Fault(code, m.row.where, f"{m.row.where}: {words}"), [])

    def _unread_leukocytes(self) -> None:
        """Why the leukocytes that stand there do not help."""
        for row, fault in self.specimen.faults:
            if not row.recognition.measures_neutrophils:
                self.out.problems.append(Problem(fault.code, fault.where, fault.text, self.identifiers))

    def _fault(self, row: Row, fault: Fault, standing: list[Measure]) -> None:
        """An unreadable row. What only serves to derive a count is no loss where the count itself was read."""
        ours = row.recognition.measures_neutrophils
        if not ours or (standing and not _claims_count(row)):
            self._enter(row, "not_relevant", fault.code)
            return
        self._enter(row, "unassessable", fault.code)
        self.out.problems.append(Problem(fault.code, fault.where, fault.text, self.identifiers))

    def _set_down(self, measures: list[Measure], reason: str) -> None:
        for m in measures:
            self._enter(m.row, "not_relevant", reason)

    def _enter(self, row: Row, outcome: Outcome, reason: str) -> None:
        self.out.ledger.append(LedgerEntry(row.where, outcome, reason))


def _claims_count(row: Row) -> bool:
    """Would this row, were it readable, be a count itself? A percent code, or a percent sign beside it, would not."""
    claim = row.recognition.claim
    if claim is None or claim.analyte != "neutrophils":
        return False
    return claim.dimension in (None, "count") and not (row.unit is not None and row.unit.kind != "count")


def _claims_part(row: Row) -> bool:
    """A count of segmented cells or bands: without it the other one stands for less than the whole."""
    claim = row.recognition.claim
    return claim is not None and claim.analyte in ("segs", "bands") and claim.dimension != "percent"


def _worst(*measures: Measure) -> ResultStatus:
    return min((m.row.status for m in measures), key=_WORST.index)


def _outcome(m: Measure, doubts: tuple[str, ...]) -> Outcome:
    return "provisional" if m.doubts or m.row.doubts or doubts else "result"


def _system(system: str, code: str) -> str:
    """LOINC under its canonical name, whatever the sender calls it."""
    return (
        "http://loinc.org"
        if system.upper() in ("LN", "LOINC", "URN:OID:2.16.840.1.113883.6.1") and "-" in code
        else system
    )
