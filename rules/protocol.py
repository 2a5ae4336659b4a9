"""A monitoring recommendation as data: every number of it, each with the sentence that it stands on.

``rules.protocol_file`` reads the TOML; a ``MonitoringProtocol`` that exists is total: for every population each count from
zero up falls in exactly one range, and every citation names a source of the file. Counts are in cells per mm3.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from rules.model import AlertLevel, Citation, Population
from rules.span import Span

RangeKind = Literal["stop", "mild", "normal"]
Choice = bool | str


PROPERTIES = (
    "every-count-one-category",
    "lower-count-never-milder",
    "stop-never-undone",
    "next-due-under-treatment",
    "ben-never-stricter",
)
"""What can be proven of a protocol; a file declares those that it must have."""


class ProtocolError(ValueError):
    """A protocol that must not be used. ``entry`` names the place (``range[2] mild/general``), ``reason`` the fault."""

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"{entry}: {reason}")
        self.entry = entry
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Source:
    """A published text, by its short ``key``."""

    key: str
    title: str
    publisher: str
    date: date
    url: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A question that the source leaves open, and what we chose: ours, visible, for a clinician to change."""

    id: str
    question: str
    choice: Choice
    why: str
    key: str = ""
    """Name of the switch, where the choice can be changed without a new protocol (``mild_upper_bound_inclusive``)."""
    options: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class NotEncoded:
    """What the source or its field says and this protocol does not judge."""

    what: str
    why: str
    cite: Citation | None


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a rule stands on: its id, the source's sentence, and our readings beside it."""

    rule: str
    cite: Citation
    readings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Closer counts once the counts are normal again after one in a band: ``interval`` for ``period`` from the first."""

    interval: Span
    period: Span


@dataclass(frozen=True, slots=True)
class Range:
    """One band of counts under treatment. ``low``/``high`` in cells per mm3; ``high`` None: no upper end."""

    id: str
    population: Population
    low: Decimal
    low_closed: bool
    high: Decimal | None
    high_closed: bool
    kind: RangeKind
    action: str
    alert: AlertLevel
    grounds: Grounds
    after: Aftermath | None = None

    def holds(self, per_mm3: Decimal, just_below: bool = False) -> bool:
        """Whether the count lies in the band; ``just_below``: an infinitesimal under ``per_mm3`` (A-22, "<x")."""
        if per_mm3 < self.low or (per_mm3 == self.low and (just_below or not self.low_closed)):
            return False
        if self.high is None or per_mm3 < self.high:
            return True
        return per_mm3 == self.high and (just_below or self.high_closed)


@dataclass(frozen=True, slots=True)
class Initiation:
    """R2: the count that permits the first dose."""

    population: Population
    at_least: Decimal
    leukocytes_at_least: Decimal | None
    """Where leukocytes are a criterion too; without a count of them nothing is permitted."""
    action: str
    refused_action: str
    refused_alert: AlertLevel
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class Baseline:
    """How old the count before the first dose may be (B-18)."""

    valid_for: Span
    obtain_action: str
    alert_when_planned: AlertLevel
    readings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of treated time and its longest interval between counts."""

    id: str
    since: Span
    interval: Span
    without_neutropenia: bool
    """Only for patients who never had a neutropenia under treatment."""
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class AfterMild:
    """R4: monitoring once a count was in the mild band, and the alarm when it newly is (A-6, B-10)."""

    throughout: bool
    """For the rest of the treatment; otherwise only while the count is mild."""
    interval: Span
    action: str
    action_while_weekly: str
    recheck: Span | None
    fall_percent: Decimal
    new_alert: AlertLevel
    stable_alert: AlertLevel
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class InterruptionRule:
    """What a gap in treatment asks for; the first rule that fits counts. Windows run from the restart (B-3)."""

    id: str
    gap_at_least: Span
    gap_below: Span | None
    treated_at_least: Span | None
    treated_below: Span | None
    without_neutropenia: bool
    action: str
    alert: AlertLevel
    interval: Span | None
    window: Span | None
    window_until_treated: Span | None
    new_patient: bool
    """Treated time starts again at the restart (A-8, A-9, B-20)."""
    initiation_threshold: bool
    retitrate: bool
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class GapPolicy:
    """How gaps are measured (A-4, A-16, A-17, B-22, B-23)."""

    counted_from: Span
    summed_within: Span
    dose_question_over: Span
    dose_question_alert: AlertLevel
    complete_stop_after: Span
    readings: tuple[str, ...]
    sum_readings: tuple[str, ...]
    open_readings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AfterStop:
    """R5, R6: what follows a complete stop."""

    permanent: bool
    period: Span
    interval: Span
    low_interval: Span
    """While the count is below the stop threshold."""
    recheck: Span | None
    recovered_at: tuple[tuple[Population, Decimal], ...]
    action: str
    banned_action: str
    complete_action: str
    complete_banned_action: str
    reexposure_action: str
    reexposure_alert: AlertLevel
    alert: AlertLevel
    banned_alert: AlertLevel
    mild_alert: AlertLevel
    complete_alert: AlertLevel
    stop: Grounds
    follow_up: Grounds
    recovery_readings: tuple[str, ...]
    other_readings: tuple[str, ...]

    def recovery(self, population: Population) -> Decimal:
        return next(at for name, at in self.recovered_at if name is population)


@dataclass(frozen=True, slots=True)
class InfectionRule:
    """R7: signs of infection ask for a count at once; a count of the day is read more severely (B-13)."""

    action: str
    alert: AlertLevel
    normal_alert: AlertLevel
    mild_alert: AlertLevel
    stop_alert: AlertLevel
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class OverdueRule:
    """B-11, B-12: a count that did not come."""

    action: str
    await_action: str
    alert: AlertLevel
    late_alert: AlertLevel
    late_after_weekly: Span
    late_after: Span
    weekly_is: Span
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class RiskRule:
    """R9: the elderly and valproate; information, never another due date (A-18)."""

    elderly_from: Span
    alert: AlertLevel
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class Conventions:
    """Readings of the evaluation as a whole, named by a verdict that rests on them."""

    doubt: tuple[str, ...]
    """A provisional count, or one that only rounding or a sign makes low."""
    several_counts: tuple[str, ...]
    number: tuple[str, ...]
    """A sign, a derived value, a value next to a threshold."""
    stop: tuple[str, ...]
    phase_change: tuple[str, ...]
    exposed: tuple[str, ...]
    """Treatment in spite of a ban."""
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnknownPast:
    """B-26: nothing is known of earlier neutropenia."""

    interval: Span
    readings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringProtocol:
    """One recommendation, one version. ``name`` is ``id@version``, as stored with every decision."""

    id: str
    version: str
    title: str
    selectable: bool
    """False: a reference for comparison, never for a live course."""
    aliases: tuple[str, ...]
    effective_from: date
    effective_until: date | None
    last_reviewed: date
    sources: tuple[Source, ...]
    ranges: tuple[Range, ...]
    initiations: tuple[Initiation, ...]
    baseline: Baseline
    phases: tuple[Phase, ...]
    after_mild: AfterMild
    interruptions: tuple[InterruptionRule, ...]
    gaps: GapPolicy
    after_stop: AfterStop
    infection: InfectionRule
    overdue: OverdueRule
    risk: RiskRule | None
    unknown_past: UnknownPast
    conventions: Conventions
    properties: tuple[str, ...]
    """What ``neutroflag rules prove`` must show of it."""
    readings: tuple[Reading, ...]
    not_encoded: tuple[NotEncoded, ...]
    bands: tuple[tuple[Population, tuple[Range, ...]], ...]
    """``ranges`` by population, lowest first."""
    leukocyte_bands: tuple[tuple[Population, tuple[Range, ...]], ...]
    """The same for leukocytes; empty where they are no criterion. The worse of the two bands is the verdict's."""

    aftermath: bool
    """Whether any band has an aftermath."""

    @property
    def name(self) -> str:
        return f"{self.id}@{self.version}"

    def bands_of(self, population: Population) -> tuple[Range, ...]:
        for name, bands in self.bands:
            if name is population:
                return bands
        raise KeyError(population)

    def leukocyte_bands_of(self, population: Population) -> tuple[Range, ...]:
        """Empty where leukocytes are no criterion."""
        return next((bands for name, bands in self.leukocyte_bands if name is population), ())

    def initiation_of(self, population: Population) -> Initiation:
        for rule in self.initiations:
            if rule.population is population:
                return rule
        raise KeyError(population)


SEVERITY: dict[RangeKind, int] = {"normal": 0, "mild": 1, "stop": 2}


def worse_band(one: Range, other: Range) -> Range:
    """The more severe of two bands; ``one`` when they are alike."""
    return other if (SEVERITY[other.kind], other.alert.rank) > (SEVERITY[one.kind], one.alert.rank) else one


def band_of(bands: tuple[Range, ...], per_mm3: Decimal, just_below: bool = False) -> Range:
    """The one band of ``bands`` (from ``bands_of``) that holds the count. Raises ValueError for a negative count."""
    for band in bands:
        if (band.high is None or per_mm3 <= band.high) and band.holds(per_mm3, just_below):
            return band
    # "<0": there is nothing below the lowest band, and it is the worst one.
    if per_mm3 == 0 and just_below:
        return bands[0]
    raise ValueError(f"no band holds {per_mm3} per mm3")
