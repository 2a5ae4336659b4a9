"""A Kafka topic as a destination: each notification is one record, keyed by patient, its value a FHIR transaction.

The key is the patient's number in our register: random, ours, and the same before and after a merge, so that a patient's
notifications keep their order in one partition and the topic's keys tell nothing. The value may be posted to a FHIR server as
it is: its patient is a conditional reference (FHIR R4, http.html#trules). docs/asyncapi.yaml describes both.

Failure classes: no broker, no such topic, no right to it, time-out -> try again, the destination is down (rights and topics
are given by a person, no alert is at fault); too large -> a dead letter.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    AuthenticationFailedError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from emitters.fhir import encode, transaction
from emitters.fhir_patients import searchable
from emitters.fhir_terms import FhirProfile
from emitters.sink import Answer, Delivered, Refused, TryAgain
from rules.model import Alert

__all__ = ["SCHEMA", "KafkaDestination", "KafkaSettings", "stopped"]

SCHEMA: Final = "neutroflag.alert/1"
"""Header ``schema``; the number goes up when a reader of the old one would misread the new."""

_DOWN: Final = (
    KafkaConnectionError,
    ProducerClosed,
    AuthenticationFailedError,
    TopicAuthorizationFailedError,
    InvalidTopicError,
    UnknownTopicOrPartitionError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    name: str
    bootstrap: str
    topic: str = "neutroflag.alerts"
    profile: FhirProfile
    patient_systems: Mapping[str, str] = field(default_factory=dict)
    security: Mapping[str, str | ssl.SSLContext | None] = field(default_factory=dict)
    timeout_s: float = 10.0


class KafkaDestination:
    """A ``Sink``. What the producer retries by itself is in the topic once (idempotent); what we retry has one id."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._turn = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        settings = self._settings
        try:
            value = encode(transaction(alert, patient_reference=self._patient(alert), settings=settings.profile))
        except ValueError as error:
            return Refused("unwritable", str(error))
        try:
            async with asyncio.timeout(settings.timeout_s):
                producer = await self._started()
                record = await producer.send_and_wait(
                    settings.topic,
                    value=value,
                    key=(alert.subject.register_id or alert.id).encode(),
                    headers=_headers(alert, delivery_id),
                )
        except MessageSizeTooLargeError as error:
            return Refused("record-too-large", type(error).__name__)
        except (*_DOWN, KafkaError, OSError) as error:
            down = isinstance(error, (*_DOWN, OSError))
            if down:
                await self._drop()
            return TryAgain(f"{type(error).__name__}", down=down)
        return Delivered(f"{record.topic}[{record.partition}]@{record.offset}")

    async def close(self) -> None:
        await self._drop()

    def _patient(self, alert: Alert) -> str | None:
        subject = alert.subject
        if not subject.register_id:
            return None
        for one in searchable(subject.identifiers, self._settings.patient_systems):
            return f"Patient?identifier={quote(one['system'], safe='')}%7C{quote(one['value'], safe='')}"
        # No identifier that another system would know: ours is all that can be said.
        return f"Patient/{subject.register_id}"

    async def _started(self) -> AIOKafkaProducer:
        async with self._turn:
            if self._producer is None:
                settings = self._settings
                producer = AIOKafkaProducer(
                    bootstrap_servers=settings.bootstrap,
                    client_id="neutroflag",
                    enable_idempotence=True,
                    acks="all",
                    request_timeout_ms=int(settings.timeout_s * 1000),
                    **settings.security,
                )
                try:
                    await producer.start()
                except BaseException:
                    await stopped(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await stopped(producer)


async def stopped(producer: AIOKafkaProducer) -> None:
    """As a task of its own: with a broker that is gone the library ends with a cancellation that is not ours."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait([stopping], timeout=2)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


def _headers(alert: Alert, delivery_id: str) -> list[tuple[str, bytes]]:
    """What a consumer may filter by without opening the value; nothing of the patient."""
    said = {
        "content-type": "application/fhir+json",
        "schema": SCHEMA,
        "delivery-id": delivery_id,
        "alert-id": alert.id,
        "revision": str(alert.revision),
        "kind": alert.kind.value,
        "family": alert.family.value,
        "level": alert.level.value,
    }
    return [(name, value.encode()) for name, value in said.items()]
