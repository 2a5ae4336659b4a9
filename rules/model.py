"""The vocabulary that every room speaks: results, courses, verdicts, alerts.

Frozen values, no behaviour beyond what a value knows of itself. Counts are exact Decimals in cells per mm3
(one mm3 = one microlitre). Times are aware datetimes; a date alone is midnight with ``time_known=False``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

__all__ = [
    "AbsoluteNeutrophilCount",
    "Alert",
    "AlertFamily",
    "AlertKind",
    "AlertLevel",
    "Assessment",
    "Attestation",
    "Citation",
    "Comparator",
    "CompleteStop",
    "CourseState",
    "Interruption",
    "LabResult",
    "OrderReference",
    "Override",
    "OverrideKind",
    "PatientIdentifier",
    "Person",
    "Population",
    "PriorNeutropenia",
    "ResultStatus",
    "StopReason",
    "Subject",
    "Transfer",
    "TreatmentCourse",
    "Trust",
    "Unassessable",
]

Comparator = Literal["<", "<=", ">", ">="]


class ResultStatus(enum.StrEnum):
    """What the laboratory says of the value (HL7 table 0085, FHIR observation-status; clinical.md 4.4)."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"

    @property
    def withdrawn(self) -> bool:
        """The laboratory takes the value back: no count stands behind this version."""
        return self in (ResultStatus.CANCELLED, ResultStatus.ENTERED_IN_ERROR)


class Trust(enum.StrEnum):
    """Provisional evidence may raise an alert; it never reassures, satisfies a due test or lowers anything."""

    ESTABLISHED = "established"
    PROVISIONAL = "provisional"


class Population(enum.StrEnum):
    GENERAL = "general"
    BENIGN_ETHNIC_NEUTROPENIA = "benign_ethnic_neutropenia"


class AlertLevel(enum.StrEnum):
    """Ours; no source defines any. Ordered by ``rank``: 0 none .. 4 critical."""

    NONE = "none"
    INFO = "info"
    AMBER = "amber"
    RED = "red"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return _RANK[self]


_RANK = {level: rank for rank, level in enumerate(AlertLevel)}


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """One identifier. ``authority`` is normalised: ``urn:oid:1.2.3``, a URI, a namespace name, or ""."""

    value: str
    authority: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsoluteNeutrophilCount:
    """Neutrophils in cells per mm3. With a comparator, ``per_mm3`` is the bound that was reported.

    ``derived``: computed from leukocytes and a fraction; then ``lower_bound`` is what rounding allows at worst.
    """

    per_mm3: Decimal
    comparator: Comparator | None = None
    derived: bool = False
    lower_bound: Decimal | None = None
    reporting_unit: Decimal | None = None
    """The smallest step of the value as it was reported, in cells per mm3 (0.84 G/L -> 10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReference:
    """Order numbers of the laboratory's message: ORC-2/OBR-2, OBR-3 (FHIR: identifiers PLAC and FILL)."""

    placer: str = ""
    filler: str = ""
    ward: str = ""
    """PV1-3.1 (FHIR: the Encounter's location), for routing; "" where the message does not say it."""
    prescriber: str = ""
    """OBR-16.1 or ORC-12.1 (FHIR: ServiceRequest.requester), for routing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabResult:
    """One version of one neutrophil measurement, as read from a message.

    ``key`` is what makes it the same measurement in a later message (sender + filler order + analyte + sub-id, or the
    Observation's identifier), never its time. ``collected_at`` is the specimen's time; None when not stated. A naive
    ``collected_at`` has no stated offset and no zone was given to the reader.
    """

    status: ResultStatus
    anc: AbsoluteNeutrophilCount | None
    collected_at: datetime | None
    time_known: bool = True
    issued_at: datetime | None = None
    trust: Trust = Trust.ESTABLISHED
    doubts: tuple[str, ...] = ()
    identifiers: tuple[PatientIdentifier, ...] = ()
    """All usable identifiers, the one to show first (clinical.md 4.4); empty when there is none."""
    key: str = ""
    code: str = ""
    code_system: str = ""
    display: str = ""
    value_as_sent: str = ""
    unit_as_sent: str = ""
    sub_id: str = ""
    where: str = ""
    order: OrderReference = OrderReference()
    wbc_per_mm3: Decimal | None = None
    id: int | None = None
    """The store's number of this version; None before it is stored."""
    also: tuple[str, ...] = ()
    """Keys under which other channels have told this same fact."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """Who said so, and when. Never empty-handed: an attested fact without a name is not one."""

    by: str
    on: date


class StopReason(enum.StrEnum):
    """clinical.md B-16."""

    ANC_BELOW_1000 = "ANC<1000"
    ANC_BELOW_500 = "ANC<500"
    LEGACY_RED = "LEGACY_RED"
    OTHER = "other"

    @property
    def haematological(self) -> bool:
        return self is not StopReason.OTHER


class PriorNeutropenia(enum.StrEnum):
    """What the register says of neutropenia before our own record begins (clinical.md B-26)."""

    NONE = "none"
    MILD = "mild"
    STOP_LEVEL = "stop-level"
    UNKNOWN = "unknown"


class CourseState(enum.StrEnum):
    ACTIVE = "active"
    TRANSFERRED = "transferred"
    LOST = "lost"
    DECEASED = "deceased"


@dataclass(frozen=True, slots=True)
class Interruption:
    """Last dose and restart, naive local wall-clock times; a date alone is midnight. ``restart`` None: not restarted."""

    last_dose: datetime
    restart: datetime | None = None


@dataclass(frozen=True, slots=True)
class CompleteStop:
    on: date
    reason: StopReason


class OverrideKind(enum.StrEnum):
    """What a named clinician may override (clinical.md B-27). Nothing else: never a longer interval, never R5."""

    SHORTER_INTERVAL = "shorter-interval"
    BORDERLINE_NOT_HISTORY = "borderline-not-history"
    LIFT_A15 = "lift-a15"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """In force for every day judged before ``expires``, that day not included; after it, it is as if it were not there.

    It speaks of the file, so a day before ``on`` that is judged anew is judged with it; a shorter interval asks for no
    count before ``on``.
    """

    kind: OverrideKind
    by: str
    on: date
    reason: str
    expires: date
    days: int | None = None
    """For a shorter interval: days between two counts."""
    value_on: date | None = None
    """For a borderline value: the day of that count."""

    def in_force(self, day: date) -> bool:
        return day < self.expires


@dataclass(frozen=True, slots=True)
class Transfer:
    """Until the receiver has accepted, every alert stays here (B-30)."""

    on: date
    to: str
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatmentCourse:
    """One patient on clozapine, as the register has it. ``start`` is the day of the first dose; None: none planned."""

    start: date | None = None
    start_confirmed_by: str = ""
    interruptions: tuple[Interruption, ...] = ()
    stop: CompleteStop | None = None
    ben: Attestation | None = None
    """Confirmed benign ethnic neutropenia: explicit, dated, attributed (clinical.md A-13). None: general population."""
    ben_second_by: str = ""
    """The second person who confirmed it, where it was recorded by a form that asks for two."""
    prior_neutropenia: PriorNeutropenia = PriorNeutropenia.UNKNOWN
    prior_attested: Attestation | None = None
    birth_date: date | None = None
    valproate: bool = False
    infection_signs_on: date | None = None
    state: CourseState = CourseState.ACTIVE
    protocol: str = "ansm"
    state_on: date | None = None
    """Since when ``state`` holds, where a form recorded it."""
    transfer: Transfer | None = None
    overrides: tuple[Override, ...] = ()
    first_dose_at: datetime | None = None
    """Naive local time of the first administration on the day of ``start``, where it is on record (B-18)."""
    reexposed_on: date | None = None
    """Clozapine was given again after a stop for the count (R5): recorded because it must alarm."""

    @property
    def population(self) -> Population:
        return Population.BENIGN_ETHNIC_NEUTROPENIA if self.ben else Population.GENERAL


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a rule stands: a source's short name, the place in it, and its words."""

    source: str
    locator: str
    quote: str


class AlertFamily(enum.StrEnum):
    """One Flag a patient and family; an escalation within a family updates it."""

    STOP = "ANC-STOP"
    MILD = "ANC-MILD"
    START = "ANC-START"
    SCHEDULE = "ANC-SCHEDULE"
    OVERDUE = "ANC-OVERDUE"
    REVIEW = "ANC-REVIEW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The verdict on one count (or on its absence) for one patient on one day.

    ``category``, ``action`` and ``alert`` use the vocabulary of clinical.md 1.5b. ``next_due`` is the latest date that the
    source allows. ``episode_on`` is the day on which the present episode began: it names the alert, so that later counts of
    the same episode update one alert. ``explanation`` holds the arithmetic in words by language (``fr``, ``en``).
    """

    protocol: str
    category: str
    action: str
    alert: AlertLevel
    rule: str
    citations: tuple[Citation, ...]
    readings: tuple[str, ...] = ()
    next_due: date | None = None
    recommended_recheck_by: date | None = None
    weekly_until: date | None = None
    no_reexposure: bool = False
    """Never to be re-exposed (R5): a remark on every later verdict, not a category that hides the others."""
    retitrate: bool = False
    provisional: bool = False
    remarks: tuple[str, ...] = ()
    """Coded remarks beside the verdict: ``precision``, ``derived``, ``provisional``, ``no-reexposure`` ..."""
    family: AlertFamily | None = None
    episode_on: date | None = None
    as_of: date | None = None
    threshold_per_mm3: Decimal | None = None
    """The threshold that the count was on the wrong side of, where there is one."""
    explanation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Unassessable:
    """Why no judgement was possible; always becomes a task for a person. ``where`` names the place in the message."""

    code: str
    text: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the alert is about, as PID or Patient would say it."""

    family: str = ""
    given: str = ""
    birth_date: date | None = None
    sex: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The patient of an alert. ``register_id`` is ours and survives merges; "" when the identity could not be read."""

    register_id: str
    identifiers: tuple[PatientIdentifier, ...] = ()
    person: Person = Person()
    owner: str = ""
    """Who must answer: a FHIR reference (``PractitionerRole/...``) or a role name; "" = the destination's default."""


class AlertKind(enum.StrEnum):
    RAISED = "raised"
    UPDATED = "updated"
    WITHDRAWN = "withdrawn"
    ANSWERED = "answered"
    """A person has answered: for whoever was told of the alert, so that it does not stay open there. It says nothing new of
    the patient, and takes nothing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What to tell a prescriber; complete in itself, so that a destination needs nothing else.

    ``id`` = uuid5(register id, family, episode): stable over updates; ``revision`` counts the notifications of it from 1.
    ``title`` and ``text`` stand alone without colour or context, in the site's language.
    """

    id: str
    revision: int
    kind: AlertKind
    family: AlertFamily
    level: AlertLevel
    title: str
    text: str
    subject: Subject
    raised_at: datetime
    updated_at: datetime
    assessment: Assessment | None = None
    result: LabResult | None = None
    reason: str = ""
    """For REVIEW: the coded reason (``unit-missing`` ...); for WITHDRAWN: ``corrected`` or ``entered-in-error``."""
    where: str = ""
    source: str = ""
    """The laboratory's message: sender and control id (MSH-4, MSH-10), for a person who must look it up."""
    language: str = "fr"
    production: bool = True
    question: int = 1
    """The revision that an answer must have seen: what was told since then (a reminder, a new owner, a milder count) asks
    nothing new."""
    answer_by: datetime | None = None
    """When the next owner is asked, if nobody has answered; None: no answer is awaited."""
    escalation: int = 0
    """How often the question has passed to another owner: unanswered in time, or handed back."""
    urgency: AlertLevel = AlertLevel.NONE
    """How urgently it is asked for, where that has risen above ``level`` for want of an answer."""
    asked: tuple[str, ...] = ()
    """The owners (role names) that were asked this question, the present one last."""
    order: OrderReference = OrderReference()
    """Of the count behind it, or of the patient's last one: where the patient is and who ordered, for routing."""
    recipient: str = ""
    """"" = who must answer; else the second one whom this copy is for (``pharmacist``, ``laboratory``)."""
    told: tuple[str, ...] = ()
    """Destinations that were told of it: they are told of what becomes of it, too."""
    followed_by: str = ""
    """Of a withdrawal: the alert by which the decision that it called for is put to a person again."""
    bare: tuple[str, ...] = ()
    """Title and text without the words that say who is asked and since when; empty: as they stand above."""

    @property
    def bare_words(self) -> tuple[str, str]:
        title, text = self.bare or (self.title, self.text)
        return title, text

    @property
    def pressing(self) -> AlertLevel:
        """The higher of ``level`` and ``urgency``."""
        if self.urgency is AlertLevel.NONE or self.urgency.rank <= self.level.rank:
            return self.level
        return self.urgency
