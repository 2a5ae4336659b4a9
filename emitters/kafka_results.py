"""Normalised results on a Kafka topic: each version once, in one transaction with the number of its batch.

A value names its patient by our register's number alone, and holds nothing that the laboratory wrote as free text.
docs/asyncapi.yaml describes it. The batch's number is committed as the metadata of a consumer group's offset, in the same
Kafka transaction as the records (KIP-98): after any end the topic itself tells whether it has the batch. Only one producer
has the transactional id; one that was thought dead is fenced by the broker.

Everything that fails is to be tried again: nothing in here is ever given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from emitters.counts import plain
from emitters.fhir_terms import fhir_id
from emitters.kafka import stopped
from rules.model import LabResult

__all__ = ["RESULT_SCHEMA", "ResultRecord", "ResultsSettings", "ResultsTopic", "TopicUnavailable", "value_of"]

RESULT_SCHEMA: Final = "neutroflag.result/1"
"""The number goes up when a reader of the old one would misread the new."""
# No partition is read by this group: its one offset is where the number of the last batch is kept.
_SLOT: Final = 0


class TopicUnavailable(Exception):
    """No broker, no topic, no right, or another producer has taken over: to be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """One version. ``current``: it was its measurement's current one when it was filed."""

    result_id: int
    patient_id: str
    version: int
    current: bool
    result: LabResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsSettings:
    bootstrap: str
    topic: str
    transactional_id: str
    security: Mapping[str, str | ssl.SSLContext | None] = field(default_factory=dict)
    timeout_s: float = 10.0


def value_of(record: ResultRecord) -> bytes:
    """The record's value: JSON, decimals as strings in cells per mm3, times with their offset.

    ``measurement`` is the same for all versions of one measurement; where a second channel told the same fact under a name of
    its own, ``also_known_as`` holds the measurements that this one goes on for.
    """
    result, anc = record.result, record.result.anc
    told = anc is not None and not result.status.withdrawn
    said: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "result_id": str(record.result_id),
        "patient": record.patient_id,
        "measurement": _measurement(record, result.key),
        "also_known_as": [_measurement(record, key) for key in result.also],
        "version": record.version,
        "current": record.current,
        "kind": "ANC",
        "status": result.status.value,
        "trust": result.trust.value,
        "doubts": list(result.doubts),
        "anc_per_mm3": _decimal(anc.per_mm3) if told and anc is not None else None,
        "comparator": anc.comparator if told and anc is not None else None,
        "derived": anc.derived if told and anc is not None else False,
        "lower_bound_per_mm3": _decimal(anc.lower_bound) if told and anc is not None else None,
        "collected_at": result.collected_at.isoformat() if result.collected_at is not None else None,
        "time_known": result.time_known,
        "issued_at": result.issued_at.isoformat() if result.issued_at is not None else None,
        "code": result.code,
        "code_system": result.code_system,
    }
    return msgspec.json.encode(said)


def _measurement(record: ResultRecord, key: str) -> str:
    # As in the FHIR Observation: a laboratory's key may hold its order numbers.
    return fhir_id("result", f"{record.patient_id}|{key}")


def _decimal(value: Decimal | None) -> str | None:
    return None if value is None else f"{plain(value):f}"


class ResultsTopic:
    """``publish`` returns when the topic has the batch, however often it is called with the same number."""

    def __init__(self, settings: ResultsSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._last = ""
        """The number of the last batch that the topic has."""

    async def publish(self, number: str, records: Sequence[ResultRecord]) -> None:
        """Raises TopicUnavailable: then whether the topic has it is found out at the next call."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                if self._producer is None:
                    await self._begin()
                if number != self._last:
                    await self._write(number, records)
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise TopicUnavailable(type(error).__name__) from error
        self._last = number

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await stopped(producer)

    async def _begin(self) -> None:
        settings = self._settings
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap,
            client_id="neutroflag-results",
            transactional_id=settings.transactional_id,
            request_timeout_ms=int(settings.timeout_s * 1000),
            **settings.security,
        )
        try:
            # Fences whoever had the id, and ends its transaction one way or the other: only then does the number stand.
            await producer.start()
            self._last = await self._known()
        except BaseException:
            await stopped(producer)
            raise
        self._producer = producer

    async def _known(self) -> str:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.bootstrap, **self._settings.security)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self._settings.transactional_id)
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()
        kept = offsets.get(TopicPartition(self._settings.topic, _SLOT))
        return str(kept.metadata) if kept is not None and kept.metadata else ""

    async def _write(self, number: str, records: Sequence[ResultRecord]) -> None:
        producer, topic = self._producer, self._settings.topic
        if producer is None:
            raise TopicUnavailable("no producer")
        async with producer.transaction():
            sent = [
                await producer.send(topic, value_of(record), key=record.patient_id.encode(), headers=_headers(record))
                for record in records
            ]
            await asyncio.gather(*sent)
            await producer.send_offsets_to_transaction(
                {TopicPartition(topic, _SLOT): OffsetAndMetadata(len(records), number)}, self._settings.transactional_id
            )


def _headers(record: ResultRecord) -> list[tuple[str, bytes]]:
    said = {
        "content-type": "application/json",
        "schema": RESULT_SCHEMA,
        "result-id": str(record.result_id),
        "version": str(record.version),
    }
    return [(name, value.encode()) for name, value in said.items()]
