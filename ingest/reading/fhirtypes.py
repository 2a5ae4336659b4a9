"""The parts of FHIR (STU3, R4, R4B) that reading needs, as msgspec structs.

Rule of the file: a number stays a raw token (``msgspec.Raw``) until the value grammar has seen it.
Unknown members are ignored; members that other versions shape differently are unions.
"""

from __future__ import annotations

from msgspec import Raw, Struct, field

__all__ = [
    "Bundle",
    "CodeableConcept",
    "Coding",
    "Component",
    "Condition",
    "DiagnosticReport",
    "Entry",
    "Head",
    "Identifier",
    "Medication",
    "MedicationUse",
    "MessageHeader",
    "Observation",
    "Patient",
    "Quantity",
    "Reference",
    "Specimen",
    "Task",
    "TaskDetail",
    "present",
]

# msgspec keeps a member raw only when its type is Raw and nothing else; an absent one is empty.
NOTHING = Raw()


def present(member: Raw) -> bool:
    """Was the member there, and not null?"""
    return member is not NOTHING and bytes(member) not in (b"", b"null")


class Coding(Struct, frozen=True):
    system: str | None = None
    code: str | None = None
    display: str | None = None


class CodeableConcept(Struct, frozen=True):
    coding: list[Coding] = field(default_factory=list)
    text: str | None = None


class Period(Struct, frozen=True):
    start: str | None = None
    end: str | None = None


class Identifier(Struct, frozen=True):
    system: str | None = None
    value: str | None = None
    type: CodeableConcept | None = None
    use: str | None = None


class Reference(Struct, frozen=True):
    reference: str | None = None
    identifier: Identifier | None = None
    display: str | None = None
    type: str | None = None


class Meta(Struct, frozen=True):
    versionId: str | None = None
    lastUpdated: str | None = None
    tag: list[Coding] = field(default_factory=list)
    security: list[Coding] = field(default_factory=list)


class Quantity(Struct, frozen=True):
    value: Raw = NOTHING
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Annotation(Struct, frozen=True):
    text: str | None = None


class Range(Struct, frozen=True):
    low: Quantity | None = None
    high: Quantity | None = None
    text: str | None = None


class Component(Struct, frozen=True):
    """Observation.component, and what an Observation shares with it."""

    code: CodeableConcept | None = None
    valueQuantity: Quantity | None = None
    valueString: str | None = None
    valueInteger: Raw = NOTHING
    valueCodeableConcept: Raw = NOTHING
    valueRange: Raw = NOTHING
    valueRatio: Raw = NOTHING
    valueBoolean: Raw = NOTHING
    valueSampledData: Raw = NOTHING
    valueAttachment: Raw = NOTHING
    dataAbsentReason: CodeableConcept | None = None
    interpretation: list[CodeableConcept] | CodeableConcept | None = None
    referenceRange: list[Range] = field(default_factory=list)


class Repeat(Struct, frozen=True):
    boundsPeriod: Period | None = None


class Timing(Struct, frozen=True):
    repeat: Repeat | None = None
    event: list[str] = field(default_factory=list)


class Observation(Component, frozen=True):
    resourceType: str = ""
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] = field(default_factory=list)
    basedOn: list[Reference] = field(default_factory=list)
    encounter: Reference | None = None
    status: str | None = None
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectiveInstant: str | None = None
    effectivePeriod: Period | None = None
    effectiveTiming: Timing | None = None
    issued: str | None = None
    specimen: Reference | None = None
    bodySite: CodeableConcept | None = None
    note: list[Annotation] = field(default_factory=list)
    comment: str | None = None
    comments: str | None = None
    """The one note of STU3, and of DSTU2."""
    component: list[Component] = field(default_factory=list)
    contained: list[Raw] = field(default_factory=list)
    modifierExtension: Raw = NOTHING


class Attachment(Struct, frozen=True):
    contentType: str | None = None
    data: str | None = None
    url: str | None = None


class Binary(Struct, frozen=True):
    data: str | None = None


class Content(Struct, frozen=True):
    attachment: Attachment | None = None


class DocumentReference(Struct, frozen=True):
    status: str | None = None
    type: CodeableConcept | None = None
    subject: Reference | None = None
    content: list[Content] = field(default_factory=list)


class Parameter(Struct, frozen=True):
    name: str | None = None
    resource: Raw = NOTHING
    valueCode: str | None = None
    part: list[Parameter] = field(default_factory=list)


class Parameters(Struct, frozen=True):
    parameter: list[Parameter] = field(default_factory=list)


class DiagnosticReport(Struct, frozen=True):
    resourceType: str = ""
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] = field(default_factory=list)
    status: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    issued: str | None = None
    specimen: list[Reference] = field(default_factory=list)
    result: list[Reference] = field(default_factory=list)
    contained: list[Raw] = field(default_factory=list)
    presentedForm: list[Attachment] = field(default_factory=list)
    conclusion: str | None = None
    note: list[Annotation] = field(default_factory=list)
    """R5."""


class Collection(Struct, frozen=True):
    collectedDateTime: str | None = None
    collectedPeriod: Period | None = None


class Specimen(Struct, frozen=True):
    id: str | None = None
    note: list[Annotation] = field(default_factory=list)
    type: CodeableConcept | None = None
    status: str | None = None
    collection: Collection | None = None
    condition: list[CodeableConcept] = field(default_factory=list)


class HumanName(Struct, frozen=True):
    use: str | None = None
    family: str | list[str] | None = None
    given: list[str] = field(default_factory=list)
    text: str | None = None


class Patient(Struct, frozen=True):
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] = field(default_factory=list)
    name: list[HumanName] = field(default_factory=list)
    birthDate: str | None = None
    gender: str | None = None
    deceasedBoolean: Raw = NOTHING
    deceasedDateTime: str | None = None


class Dosage(Struct, frozen=True):
    timing: Timing | None = None


class Concept(Struct, frozen=True):
    """R5 CodeableReference."""

    concept: CodeableConcept | None = None
    reference: Reference | None = None


class MedicationUse(Struct, frozen=True):
    """MedicationStatement, MedicationRequest, MedicationDispense or MedicationAdministration."""

    resourceType: str = ""
    id: str | None = None
    status: str | None = None
    medicationCodeableConcept: CodeableConcept | None = None
    medicationReference: Reference | None = None
    medication: Concept | None = None
    subject: Reference | None = None
    effectivePeriod: Period | None = None
    effectiveDateTime: str | None = None
    authoredOn: str | None = None
    whenHandedOver: str | None = None
    dosageInstruction: list[Dosage] = field(default_factory=list)
    requester: Reference | None = None
    recorder: Reference | None = None
    informationSource: Reference | list[Reference] | None = None
    contained: list[Raw] = field(default_factory=list)


class Medication(Struct, frozen=True):
    id: str | None = None
    code: CodeableConcept | None = None


class Condition(Struct, frozen=True):
    id: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    verificationStatus: CodeableConcept | str | None = None
    recorder: Reference | None = None
    asserter: Reference | None = None
    recordedDate: str | None = None
    assertedDate: str | None = None
    contained: list[Raw] = field(default_factory=list)


class Note(Struct, frozen=True):
    """Annotation, with whoever wrote it."""

    authorString: str | None = None
    authorReference: Reference | None = None
    text: str | None = None


class TaskDetail(Struct, frozen=True):
    """Task.input and Task.output."""

    type: CodeableConcept | None = None
    valuePositiveInt: Raw = NOTHING
    valueCode: str | None = None
    valueString: str | None = None
    valueCoding: Coding | None = None
    valueCodeableConcept: CodeableConcept | None = None


class Task(Struct, frozen=True):
    id: str | None = None
    meta: Meta | None = None
    identifier: list[Identifier] = field(default_factory=list)
    status: str | None = None
    statusReason: CodeableConcept | None = None
    owner: Reference | None = None
    note: list[Note] = field(default_factory=list)
    input: list[TaskDetail] = field(default_factory=list)
    output: list[TaskDetail] = field(default_factory=list)


class ServiceRequest(Struct, frozen=True):
    requester: Reference | None = None


class Stay(Struct, frozen=True):
    """Encounter.location."""

    location: Reference | None = None


class Encounter(Struct, frozen=True):
    location: list[Stay] = field(default_factory=list)


class Source(Struct, frozen=True):
    name: str | None = None
    endpoint: str | None = None
    endpointUrl: str | None = None


class MessageHeader(Struct, frozen=True):
    id: str | None = None
    meta: Meta | None = None
    source: Source | None = None
    eventCoding: Coding | None = None


class Request(Struct, frozen=True):
    method: str | None = None


class Entry(Struct, frozen=True):
    fullUrl: str | None = None
    resource: Raw = NOTHING
    request: Request | None = None


class Bundle(Struct, frozen=True):
    id: str | None = None
    type: str | None = None
    meta: Meta | None = None
    identifier: Identifier | list[Identifier] | None = None
    entry: list[Entry] = field(default_factory=list)


class Head(Struct, frozen=True):
    """What every resource says of itself; decoded first."""

    resourceType: str = ""
    id: str | None = None
    contained: list[Raw] = field(default_factory=list)
