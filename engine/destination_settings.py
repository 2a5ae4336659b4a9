"""Where alerts go, as settings: FHIR servers, HL7 v2 receivers, Kafka topics, and what each of them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from emitters.fhir_terms import Level
from engine.credential_settings import CredentialsSection
from engine.kafka import KafkaFace
from engine.section import Section, together

__all__ = ["Destination", "FhirDestination", "ForSection", "KafkaDestination", "MllpDestination"]


class ForSection(Section):
    """What a destination takes; each key that is given must agree. Without ``for`` it takes everything."""

    sender: tuple[str, ...] | None = None
    """Of the laboratory's message: MSH-3|MSH-4, or either half."""
    ward: tuple[str, ...] | None = None
    """PV1-3.1, or the location of the Encounter."""
    prescriber: tuple[str, ...] | None = None
    """OBR-16.1 or ORC-12.1, or the requester of the ServiceRequest."""
    level: tuple[Literal["critical", "red", "amber", "info"], ...] | None = None
    recipient: tuple[str, ...] | None = None
    """Roles of the rota, ``prescriber`` (whoever must answer), ``pharmacist``, ``laboratory``."""

    @field_validator("*")
    @classmethod
    def _something(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not all(item.strip() for item in value):
            raise ValueError("an empty value agrees with nothing")
        if value == ():
            raise ValueError("an empty list agrees with nothing: this destination would never be told")
        return value


class _Destination(Section):
    name: str = Field(min_length=1)
    for_: ForSection = Field(default=ForSection(), alias="for")
    timeout_s: float = Field(default=10, gt=0)
    retry_first_s: float = Field(default=1, gt=0)
    retry_longest_s: float = Field(default=300, gt=0)
    give_up_after_s: float = Field(default=24 * 3600, gt=0)
    """After this long a delivery that was never taken is a dead letter, for a person."""
    allow_plaintext: bool = False


class FhirDestination(_Destination):
    kind: Literal["fhir"]
    url: str
    patient_search: Literal["identifier"] = "identifier"
    owner: str = ""
    """Default owner of tasks: a FHIR reference, or a role of the rota."""
    answers: bool = True
    """Its Tasks are read back, so that what people answer there is an answer here."""
    answers_every_s: float = Field(default=15, gt=0)
    authorities: dict[str, str] = Field(default_factory=dict)
    """Identifier system by namespace, for authorities that are neither an OID nor a URI."""
    connections: int = Field(default=8, ge=1, le=64)
    level: Level | None = None
    """How much is sent, L0 to L3; without it what the server's CapabilityStatement allows, up to L2 (``config check``)."""
    update_create: bool | None = None
    """Whether the server takes our own ids; without it what its CapabilityStatement says. Not to be changed lightly: what
    stands under other ids is then not found again by ours."""
    search_by_post: bool = False
    """Patients are searched by ``POST Patient/_search``, which keeps identifiers out of access logs."""
    credentials: CredentialsSection | None = None
    ca: Path | None = None
    """PEM file of the authorities to trust for https, instead of the system's."""
    certificate: Path | None = None
    """With ``key``: what we show of ourselves (mTLS)."""
    key: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self.certificate, self.key)
        if self.url.startswith("http:") and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key say nothing without https")
        return self

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")


class MllpDestination(_Destination):
    kind: Literal["mllp"]
    host: str
    port: int = Field(ge=1, le=65535)
    sending_application: str = "NEUTROFLAG"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    shape: Literal["ORU_R01", "MDM_T02"] = "ORU_R01"
    """MDM_T02 (with T10 and T04) for a system that takes no results of third parties."""
    ack: Literal["original", "enhanced"] = "original"
    """``enhanced`` asks for an accept acknowledgement (MSH-15 AL, MSH-16 NE)."""
    version: Literal["2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7"] = "2.5"
    charset: Literal["UNICODE UTF-8", "8859/1", "8859/15"] = "UNICODE UTF-8"
    tell_answers: bool = False
    """Told, too, once somebody has answered: for a system whose inbox keeps an alert open until its sender ends it."""
    tls: bool = False
    ca: Path | None = None
    """PEM file of the authorities to trust, instead of the system's."""
    certificate: Path | None = None
    """With ``key``: what we show of ourselves."""
    key: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self.certificate, self.key)
        if not self.tls and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key say nothing without tls = true")
        return self


class KafkaDestination(_Destination, KafkaFace):
    kind: Literal["kafka"]
    bootstrap: str = Field(min_length=1)
    topic: str = Field(default="neutroflag.alerts", min_length=1, max_length=249, pattern=r"^[\w.-]+$")
    results: str = Field(default="", max_length=249, pattern=r"^[\w.-]*$")
    """A topic for normalised results of patients on the register (docs/kafka.md); "" = none."""
    owner: str = ""
    """FHIR reference of the default owner of tasks."""
    authorities: dict[str, str] = Field(default_factory=dict)
    """Identifier system by namespace, for authorities that are neither an OID nor a URI."""
    parallel: int = Field(default=16, ge=1, le=256)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.results == self.topic:
            raise ValueError("results and alerts are records of two kinds: two topics")
        return self


Destination = Annotated[FhirDestination | MllpDestination | KafkaDestination, Field(discriminator="kind")]
