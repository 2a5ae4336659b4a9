"""From the measures of one specimen to its neutrophil counts: one result a count, derived where there is only a fraction.

Rule of the file: a reported count wins over a derived one; a derived count carries what rounding allows at worst; every row
that came in leaves as one ledger entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal

from ingest.reading.outcome import LedgerEntry, Outcome, Problem
from ingest.reading.rows import Fault, Measure, Row, Skip, measure_of
from rules.model import AbsoluteNeutrophilCount, Comparator, LabResult, PatientIdentifier, ResultStatus, Trust

__all__ = ["Assembly", "assemble"]

_EXACT = Context(prec=80)
_HALF = Decimal("0.5")
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
        self.wbc = _only(specimen.counts("wbc"))

    def run(self) -> None:
        specimen = self.specimen
        counts = specimen.counts("neutrophils")
        if len(specimen.measures) == 1 and len(counts) == 1 and counts[0].value is not None and not specimen.faults:
            # A count alone, as most Observations have it: nothing to hold it against.
            return self._reported(counts, [])
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

    def _weakness(self, counts: list[Measure]) -> tuple[str, ...]:
        """Why a derived count is not to be trusted here: the reported one was there and could not be used."""
        if any(_claims_count(r) or _claims_part(r) for r, _ in self.specimen.faults):
            return ("reported-count-unreadable",)
        return ("reported-count-withdrawn",) if counts else ()

    def _reported(self, counts: list[Measure], parts: list[Measure]) -> None:
        distinct = counts if len(counts) < 2 else self._distinct(counts)
        for m in distinct:
            doubts = m.doubts
            if any(_retells(row, fault, m) for row, fault in self.specimen.faults):
                doubts = (*doubts, "reported-count-unreadable")
            if len(distinct) > 1 and any(_contradicts(m, other) for other in distinct):
                doubts = (*doubts, "counts-differ")
            lower: Decimal | None = None
            if self.wbc is not None and m.comparator is None:
                lower, contradiction = _against(m, self.wbc, parts)
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
            twin = next((k for k in kept if _same(k, m)), None)
            if twin is None:
                kept.append(m)
            else:
                self._enter(m.row, _outcome(m, self.doubts), f"same count as {twin.row.where}")
        return sorted(kept, key=counts.index)

    def _withdrawn(self, m: Measure) -> None:
        self._result(m.row, None, m.row.status, m.doubts)

    def _sum(self, segs: list[Measure], bands: list[Measure], weak: tuple[str, ...]) -> None:
        seg, band = _only(segs), _only(bands)
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
        part, band = _only(parts), _only(bands)
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
            anc = _product(part, band, wbc, whole=part.analyte == "neutrophils" or band is not None)
            self._result(part.row, anc, status, doubts)
        self._set_down([m for m in parts if m is not part], "same-count")
        self._set_down(bands, "summed")

    def _result(
        self, row: Row, anc: AbsoluteNeutrophilCount | None, status: ResultStatus, doubts: tuple[str, ...]
    ) -> None:
        all_doubts = tuple(dict.fromkeys((*row.doubts, *row.stamp.doubts, *doubts, *self.doubts)))
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


def _only(measures: list[Measure]) -> Measure | None:
    """The one measure, repeats of the same value allowed; None when there is none or they differ."""
    if not measures:
        return None
    if len(measures) == 1:
        return measures[0]
    first = min(measures, key=lambda m: m.step)
    return first if all(m is first or _same(first, m) for m in measures) else None


def _same(a: Measure, b: Measure) -> bool:
    """One count in two notations: equal within the rounding of both, same bound, same status, same time."""
    if a.row.status is not b.row.status or a.row.stamp.at != b.row.stamp.at or a.comparator != b.comparator:
        return False
    if a.value is None or b.value is None:
        return a.value is b.value and a.row.recognition.coding.code == b.row.recognition.coding.code
    return abs(a.value - b.value) <= (a.step + b.step) * _HALF if a.step != b.step else a.value == b.value


def _contradicts(m: Measure, other: Measure) -> bool:
    """One measurement told twice with two values, and no status says which of them is the later one."""
    return other is not m and other.row.key == m.row.key and other.row.status is m.row.status


def _retells(row: Row, fault: Fault, m: Measure) -> bool:
    """An unreadable row of the very measurement that was read from another: which of them holds is not known.

    Words under the code of the count (``contrôlé au microscope``) are a remark, unless they speak of the specimen.
    """
    if row.key != m.row.key or row.status.withdrawn:
        return False
    words = row.value_sent
    remark = any(c.isalpha() for c in words) and not any(c.isdigit() for c in words)
    return not (remark and fault.code in ("value-not-a-number", "value-coded"))


def _worst(*measures: Measure) -> ResultStatus:
    return min((m.row.status for m in measures), key=_WORST.index)


def _outcome(m: Measure, doubts: tuple[str, ...]) -> Outcome:
    return "provisional" if m.doubts or m.row.doubts or doubts else "result"


def _bounds(part: Measure, band: Measure | None, wbc: Measure) -> tuple[Decimal, Decimal, Decimal]:
    """``(lowest, point, highest)`` of leukocytes times fraction, exact, with half a step of rounding on each input."""
    low_part = point_part = high_part = Decimal(0)
    for m in (part, band):
        if m is not None and m.value is not None:
            half = m.step * _HALF
            low_part += max(m.value - half, Decimal(0))
            point_part += m.value
            high_part += m.value + half
    cells = wbc.value if wbc.value is not None else Decimal(0)
    half = wbc.step * _HALF
    return (
        _EXACT.multiply(low_part, max(cells - half, Decimal(0))),
        _EXACT.multiply(point_part, cells),
        _EXACT.multiply(high_part, cells + half),
    )


def _product(part: Measure, band: Measure | None, wbc: Measure, *, whole: bool) -> AbsoluteNeutrophilCount:
    low, point, _ = _bounds(part, band, wbc)
    comparator = part.comparator or wbc.comparator
    if comparator in ("<", "<="):
        low = Decimal(0)
    elif not whole:
        comparator = ">="
    return AbsoluteNeutrophilCount(per_mm3=point, comparator=comparator, derived=True, lower_bound=low)


def _against(m: Measure, wbc: Measure, parts: list[Measure]) -> tuple[Decimal | None, list[str]]:
    """The reported count held against the leukocytes: ``(lower bound when they say less, doubts)``."""
    if m.value is None or wbc.value is None or wbc.comparator:
        return None, []
    if m.value - m.step > wbc.value + wbc.step:
        return None, ["exceeds-leukocytes"]
    part = _only(parts)
    if part is None or part.value is None or part.comparator:
        return None, []
    low, point, high = _bounds(part, None, wbc)
    # A whole step of slack on the reported side: some analysers cut instead of rounding.
    if low - m.step <= m.value <= high + m.step:
        return None, []
    return (low if point < m.value else None), ["derived-disagrees"]


def _system(system: str, code: str) -> str:
    """LOINC under its canonical name, whatever the sender calls it."""
    return (
        "http://loinc.org"
        if system.upper() in ("LN", "LOINC", "URN:OID:2.16.840.1.113883.6.1") and "-" in code
        else system
    )
