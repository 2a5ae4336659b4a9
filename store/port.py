"""What the doors and the engine may ask of the store, and the values that pass.

The contract, whatever the database: ``accept`` is durable when it returns; ``record`` writes everything that one batch of
judgements changes in one commit, or answers ``Stale`` and writes nothing; an outbox row leaves the outbox only as
delivered or as a dead letter.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rules.model import Alert, Assessment, LabResult, PatientIdentifier, Person, TreatmentCourse

__all__ = [
    "ANYBODYS",
    "CLOCK",
    "Accepted",
    "AlertRecord",
    "Answer",
    "Audit",
    "Claim",
    "Delivery",
    "DeliveryOutcome",
    "Disposition",
    "EndedFinding",
    "Envelope",
    "FeedRecord",
    "Finding",
    "Inbox",
    "Looked",
    "MessageDone",
    "Outbox",
    "PatientRecord",
    "ResultRecord",
    "Stale",
    "Step",
    "StoreUnavailable",
    "Waiting",
    "Work",
    "Worklist",
]


ANYBODYS = "urn:neutroflag:fhir:@"
"""What the authority of a FHIR sender's own name for a patient begins with, when nothing proves who the sender is."""

CLOCK = "clock"
"""``result_key`` of an alert that no count has raised: the clock did."""


class StoreUnavailable(Exception):
    """Nothing was written: disk full, database locked or gone. The sender should try again (AE/CE, 503)."""


class Disposition(enum.StrEnum):
    """The one end of every message; in = sum of these (promise 2)."""

    JUDGED = "judged"
    UNENROLLED = "unenrolled"
    NOT_RELEVANT = "not_relevant"
    UNASSESSABLE = "unassessable"
    SET_ASIDE = "set_aside"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message as it arrived. ``raw`` is kept byte for byte.

    ``dedupe_key`` names the message for its sender (empty: it has no name, so it is never a duplicate);
    ``content_hash`` tells whether a second message under that name says the same.
    """

    channel: str
    format: str
    raw: bytes
    received_at: datetime
    content_hash: bytes
    dedupe_key: bytes = b""
    peer: str = ""
    sender: str = ""
    control_id: str = ""
    message_type: str = ""
    refused: str = ""
    """The door has already told the sender why this is no message; it is kept and set aside, never read."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Durable. ``duplicate_of``: this very message was stored before. ``conflicts_with``: same name, other content."""

    message_id: int
    duplicate_of: int | None = None
    conflicts_with: int | None = None

    @property
    def disposition(self) -> str:
        """Known at once only for a duplicate."""
        return "" if self.duplicate_of is None else Disposition.DUPLICATE.value


class Inbox(typing.Protocol):
    async def accept(self, envelope: Envelope) -> Accepted:
        """Durable when this returns; raises StoreUnavailable when it is not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One stored message that has no disposition yet."""

    message_id: int
    format: str
    channel: str
    sender: str
    control_id: str
    received_at: datetime
    raw: bytes
    peer: str = ""
    unopened: str = ""
    """Why ``raw`` is not what came (``body-unopenable``, ``body-missing``): nothing may be read out of it."""


@dataclass(slots=True, kw_only=True)
class ResultRecord:
    """The current version of one measurement of one patient."""

    id: int
    patient_id: str
    message_id: int
    key: str
    version: int
    result: LabResult


@dataclass(slots=True, kw_only=True)
class AlertRecord:
    """The latest revision of an alert and where it stands: open, answered (a person closed it) or withdrawn."""

    alert: Alert
    patient_id: str | None
    state: str = "open"
    result_id: int | None = None
    result_key: str = ""
    seen: bool = False
    """Somebody has it before them, says a destination."""


@dataclass(slots=True, kw_only=True)
class PatientRecord:
    """Everything that a judgement about one patient needs. A working copy: the worker changes it as it judges a batch."""

    id: str
    enrolled: bool = False
    rev: int = 0
    person: Person = Person()
    owner: str = ""
    course: TreatmentCourse = TreatmentCourse()
    identifiers: list[PatientIdentifier] = field(default_factory=list)
    results: dict[str, ResultRecord] = field(default_factory=dict)
    """Current versions by measurement key, withdrawn ones included."""
    alerts: dict[str, AlertRecord] = field(default_factory=dict)
    present: Assessment | None = None
    settle_at: datetime | None = None
    pending_at: datetime | None = None
    """Since when the laboratory has the specimen of a count that has not come."""
    new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDone:
    message_id: int
    disposition: Disposition
    reason: str = ""
    ledger: bytes = b"[]"
    """What became of every OBX/Observation, and why (promise 2), as ``store.ledgers`` packs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One notification for one destination. ``control_id`` is the same at each attempt."""

    id: int
    destination: str
    control_id: str
    alert: Alert
    patient_id: str | None
    attempts: int = 0
    state: typing.Literal["waiting", "observed"] = "waiting"
    """``observed``: kept back by observe mode, for good; it is nobody's to send."""


class Waiting(typing.NamedTuple):
    """A row of the outbox whose time has come. ``body`` is the alert as JSON: far more rows are looked at than are sent."""

    id: int
    destination: str
    control_id: str
    patient_id: str | None
    attempts: int
    body: str
    since_ms: int = 0
    """Since when it waits: filed, or sent again by a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """What came of one attempt: ``delivered``, ``waiting`` (again at ``next_at``) or ``dead``."""

    id: int
    state: str
    attempts: int
    at: datetime
    next_at: datetime | None = None
    code: str = ""
    words: str = ""
    reached: bool = True
    """The notification left for the destination; False where there was no connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Who did what. ``detail`` is JSON."""

    at: datetime
    actor: str
    action: str
    patient_id: str | None = None
    detail: bytes = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that the clock noticed, as it begins. ``body`` is JSON: what a person may want to know of it."""

    id: int
    kind: str
    subject: str
    began_at: datetime
    patient_id: str | None = None
    alert_id: str | None = None
    body: dict[str, typing.Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedFinding:
    id: int
    at: datetime
    body: dict[str, typing.Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A patient whom the clock has looked at, and when it must look again (ISO days; None: not by itself)."""

    record: PatientRecord
    watch_on: str | None
    next_due: str | None
    recheck_by: str | None
    alerts_changed: bool


@dataclass(slots=True, kw_only=True)
class FeedRecord:
    """One sender on one channel. ``body``: its rhythm."""

    channel: str
    sender: str
    first_at: datetime
    last_at: datetime
    messages: int = 0
    body: dict[str, typing.Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One decision of a named person about one revision of an alert. ``closes``: the alert is answered; otherwise it stays
    as it is."""

    alert_id: str
    revision: int
    patient_id: str | None
    at: datetime
    by: str
    decision: str
    reason: str
    closes: bool = True
    destination: str = ""
    """Where it was given; "" = in the console."""
    evidence: str = ""
    """The destination's own name of it, such as ``Task/17/_history/3``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an alert's way to its answer, as it is recorded (store/steps.py names the states)."""

    alert_id: str
    revision: int
    patient_id: str | None
    at: datetime
    state: str
    destination: str = ""
    who: str = ""
    evidence: str = ""


@dataclass(slots=True, kw_only=True)
class Work:
    """All that one batch changes: written in one commit, or not at all."""

    done: list[MessageDone] = field(default_factory=list)
    patients: dict[str, PatientRecord] = field(default_factory=dict)
    """Touched patients: created when ``new``, else updated if their ``rev`` still stands."""
    identifiers: list[tuple[str, PatientIdentifier]] = field(default_factory=list)
    rehomed: list[tuple[str, PatientIdentifier]] = field(default_factory=list)
    """Identifiers on file that name this patient from now on (a merge, or its undoing)."""
    results: list[ResultRecord] = field(default_factory=list)
    late: list[ResultRecord] = field(default_factory=list)
    """Versions kept for the record that never were current (a late preliminary after its final)."""
    superseded: list[int] = field(default_factory=list)
    known_as: list[ResultRecord] = field(default_factory=list)
    """Current versions that another channel knows by a key of its own (``LabResult.also``)."""
    assessments: list[tuple[str, int | None, int | None, Assessment]] = field(default_factory=list)
    """(patient, result, message, verdict)"""
    alerts: list[AlertRecord] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    seen: dict[str, datetime] = field(default_factory=dict)
    """Alerts that somebody has before them, and since when."""
    begun: list[Finding] = field(default_factory=list)
    ended: list[EndedFinding] = field(default_factory=list)
    looked: list[Looked] = field(default_factory=list)
    unanswered: list[tuple[str, int]] = field(default_factory=list)
    """(alert, revision) that nobody has answered; Stale if somebody did meanwhile, or if it says something else now."""
    feeds: list[FeedRecord] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    """How far the clock has got."""
    publish_to: tuple[str, ...] = ()
    """Destinations that get the results of this batch as results (store.publications)."""
    at: datetime | None = None
    """The time of the commit, by the clock of who made the work; None: the machine's."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Somebody else changed one of these patients meanwhile, or has judged one of these messages: nothing was written."""

    patient_ids: tuple[str, ...]
    message_ids: tuple[int, ...] = ()
    alert_ids: tuple[str, ...] = ()
    """Alerts that somebody has answered or changed meanwhile."""


class Worklist(typing.Protocol):
    async def claim(self, limit: int) -> Sequence[Claim]:
        """Oldest first. A claim ends with ``record``, ``release``, or the end of the process."""
        ...

    async def patients(self, identifiers: Iterable[PatientIdentifier]) -> list[PatientRecord]:
        """The register's records that carry any of these identifiers."""
        ...

    async def record(self, work: Work) -> Stale | None: ...


class Outbox(typing.Protocol):
    async def due(self, destination: str, now: datetime, limit: int) -> Sequence[Waiting]:
        """Oldest first; a patient's later notification waits for the earlier one."""
        ...

    async def delivered(self, outcomes: Sequence[DeliveryOutcome]) -> None: ...
