"""The Kafka door: records of laboratories' topics in, each offset committed only after its record is on disk.

Rule of the file: a partition never stops for one record. What cannot be read is stored and set aside like anything else; only
a store that takes nothing holds the door, and then nothing is committed. What Kafka delivers again (a worker died between our
commit and Kafka's, a rebalance) is a duplicate by its control id, or by (topic, partition, offset) where it has none. So it
is right whether or not the producer keys by patient: order is by collection time and status, as at every other door.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    AuthenticationFailedError,
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import ConsumerRecord

from ingest import envelope
from ingest.fhir_http import stored_as
from ingest.meter import Meter
from ingest.reading import sniff
from store import Envelope, Inbox, StoreUnavailable
from store.values import message_name

__all__ = ["CHANNEL", "KafkaInlet", "KafkaSource", "envelopes"]

CHANNEL: Final = "kafka"
_POLL_MS: Final = 500
_ASK_AFTER_S: Final = 5.0
_LEAVE_S: Final = 5.0
_COMMIT_S: Final = 10.0
_START_S: Final = 20.0
_ASK_S: Final = 10.0
_RETRY_FIRST_S: Final = 0.5
_RETRY_LONGEST_S: Final = 15.0
_DENIED: Final = (AuthenticationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSource:
    """Where to read. ``security``: the client's keyword arguments for TLS and SASL."""

    bootstrap: str
    topics: tuple[str, ...]
    group: str
    security: Mapping[str, str | ssl.SSLContext | None]
    max_records: int = 500
    max_record_bytes: int = 32 * 1024 * 1024
    session_timeout_ms: int = 10_000


class KafkaInlet:
    """``run`` reads until cancelled and comes back by itself from whatever the broker or the store does."""

    def __init__(self, inbox: Inbox, meter: Meter, source: KafkaSource) -> None:
        self._inbox = inbox
        self._meter = meter
        self._source = source
        self._turn = asyncio.Lock()
        """Held while a batch is being stored and committed; a rebalance waits for it."""
        self._consumer: AIOKafkaConsumer | None = None
        self._read: dict[TopicPartition, int] = {}
        """The offset after the last record that is stored, by partition."""
        self._heard = 0.0
        self.state = "connecting"
        """``consuming``, or what stands in the way."""

    def standing(self) -> dict[str, Any]:
        """For /readyz: the state, and how many records wait in the partitions that are ours."""
        return {"state": self.state, "behind": self._behind()}

    async def run(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._consume()
            except (KafkaError, OSError, TimeoutError):
                failures = 1 if time.monotonic() - started > _RETRY_LONGEST_S else failures + 1
                await asyncio.sleep(min(_RETRY_FIRST_S * 2 ** (failures - 1), _RETRY_LONGEST_S))

    async def _consume(self) -> None:
        source = self._source
        consumer = AIOKafkaConsumer(
            bootstrap_servers=source.bootstrap,
            group_id=source.group,
            client_id="neutroflag",
            enable_auto_commit=False,
            # Not "earliest": that an offset is gone, and results with it, must be noticed and not passed over.
            auto_offset_reset="none",
            max_partition_fetch_bytes=source.max_record_bytes,
            metadata_max_age_ms=10_000,
            session_timeout_ms=source.session_timeout_ms,
            heartbeat_interval_ms=source.session_timeout_ms // 4,
            **source.security,
        )
        # By a pattern of exact names: named one by one, a single missing topic would keep the client from starting.
        names = "|".join(re.escape(topic) for topic in source.topics)
        consumer.subscribe(pattern=f"^(?:{names})$", listener=_Handover(self._turn))
        try:
            async with asyncio.timeout(_START_S):
                await consumer.start()
            self._consumer = consumer
            self._heard = time.monotonic()
            await self._ask(consumer)
            while True:
                await self._round(consumer)
        except (KafkaError, OSError, TimeoutError) as error:
            # Said before leaving, which takes its time where nobody answers.
            self._say(self._words(error))
            raise
        finally:
            self._consumer = None
            await _left(consumer)

    async def _round(self, consumer: AIOKafkaConsumer) -> None:
        async with self._turn:
            try:
                batch = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self._source.max_records)
            except NoOffsetForPartitionError as error:
                await consumer.seek_to_beginning(*_partitions(error))
                return
            except OffsetOutOfRangeError as error:
                # The broker removed what we had not read: whoever runs it must know, and we go on with what is left.
                self._meter.noticed(CHANNEL, "offsets_lost", len(_partitions(error)))
                await consumer.seek_to_beginning(*_partitions(error))
                return
            held = await self._take(consumer, batch) if batch else False
        if held:
            self._say("store unavailable")
            await self._wait_paused(consumer)
        elif batch:
            self._heard = time.monotonic()
            self._say("consuming")
        elif time.monotonic() - self._heard > _ASK_AFTER_S:
            await self._ask(consumer)

    async def _take(self, consumer: AIOKafkaConsumer, batch: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> bool:
        """Stores, then commits. True: the store took not all; what it did not take will be fetched again."""
        arrived = time.perf_counter()
        told = {partition: [self._store(record) for record in records] for partition, records in batch.items()}
        commits: dict[TopicPartition, int] = {}
        held = False
        for partition, records in batch.items():
            for record, storing in zip(records, told[partition], strict=True):
                if not await storing:
                    # Later ones of this partition may be stored by now; coming again they are duplicates.
                    consumer.seek(partition, record.offset)
                    held = True
                    break
                commits[partition] = record.offset + 1
        self._read.update(commits)
        if commits:
            await self._commit(consumer, commits)
        self._meter.acknowledged(CHANNEL, time.perf_counter() - arrived)
        return held

    def _store(self, record: ConsumerRecord) -> asyncio.Task[bool]:
        return asyncio.ensure_future(self._accept(envelopes(record)))

    async def _accept(self, items: Sequence[Envelope]) -> bool:
        # All at once: one commit of the store takes them all.
        answers = await asyncio.gather(*(self._inbox.accept(item) for item in items), return_exceptions=True)
        whole = True
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                whole = False
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self._meter.received(CHANNEL, item.format, answer.disposition or ("set_aside" if item.refused else ""))
        return whole

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        try:
            # The library asks for ever for a coordinator that is gone. What is not committed comes again, as duplicates.
            async with asyncio.timeout(_COMMIT_S):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            # The partitions went to another member meanwhile. It reads these records again; they are duplicates.
            self._meter.noticed(CHANNEL, "commit_refused")

    async def _wait_paused(self, consumer: AIOKafkaConsumer) -> None:
        """The broker keeps what the store does not take; a paused member stays in its group."""
        partitions = consumer.assignment()
        consumer.pause(*partitions)
        try:
            await consumer.getmany(timeout_ms=1000)
            await asyncio.sleep(0.5)
        finally:
            consumer.resume(*(consumer.assignment() & partitions))

    async def _ask(self, consumer: AIOKafkaConsumer) -> None:
        """Silence may be a quiet night, a missing topic or a broker that is gone; the library does not tell them apart."""
        async with asyncio.timeout(_ASK_S):
            there = await consumer.topics()
            # What topics() does not find out it answers from memory; this needs an answer of the broker, or fails.
            await consumer.end_offsets(list(consumer.assignment())[:1])
        self._heard = time.monotonic()
        missing = [topic for topic in self._source.topics if topic not in there]
        self._say(f"topic missing: {', '.join(missing)}" if missing else "consuming")

    def _behind(self) -> int:
        consumer = self._consumer
        if consumer is None:
            return 0
        ours = [(partition, self._read.get(partition)) for partition in consumer.assignment()]
        return sum(max(0, (consumer.highwater(one) or 0) - offset) for one, offset in ours if offset is not None)

    def _words(self, error: BaseException) -> str:
        if isinstance(error, _DENIED):
            return f"not authorised: {type(error).__name__}"
        # The client tells a refused password from a closed port in its log only.
        doubt = " or password refused" if "sasl_mechanism" in self._source.security else ""
        return f"broker unreachable{doubt}: {type(error).__name__}"

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._meter.noticed(CHANNEL, state.split(":")[0].replace(" ", "_"))


async def _left(consumer: AIOKafkaConsumer) -> None:
    """Leaving says so to the group: others take over at once rather than after the session's time.

    As a task of its own: with a broker that is gone the library ends with the cancellation of its own fetches, not of us, or
    goes on asking for a coordinator.
    """
    leaving = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([leaving], timeout=_LEAVE_S)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)


class _Handover(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is not typed
    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """What is in hand is stored and committed before another member reads on from there."""
        async with self._turn:
            pass

    async def on_partitions_assigned(self, assigned: Any) -> None: ...


def envelopes(record: ConsumerRecord) -> list[Envelope]:
    """A record's messages, each with a name: an HL7 batch gives several, anything unreadable one that is set aside."""
    return list(_named(record, _unnamed(record)))


def _unnamed(record: ConsumerRecord) -> Iterator[Envelope]:
    value: bytes = record.value or b""
    peer = f"{record.topic}[{record.partition}]@{record.offset}"
    now = datetime.now(UTC)
    # By its bytes: a content-type header is what somebody meant, and a wrong one must not cost a result.
    match sniff(value):
        case "hl7v2" | "hprim":
            for piece in envelope.pieces(value):
                yield envelope.hl7v2(piece, channel=CHANNEL, peer=peer, now=now)[1]
        case "fhir" | "cda":
            yield stored_as(value, channel=CHANNEL, peer=peer)
        case _:
            _, item = envelope.hl7v2(value, channel=CHANNEL, peer=peer, now=now)
            yield replace(item, format="other", refused="record-empty" if not value else "not-a-message")


def _named(record: ConsumerRecord, items: Iterator[Envelope]) -> Iterator[Envelope]:
    for number, item in enumerate(items):
        if item.dedupe_key:
            yield item
        else:
            place = f"{record.offset}.{number}"
            yield replace(item, dedupe_key=message_name("kafka", f"{record.topic}[{record.partition}]", place))


def _partitions(error: KafkaError) -> list[TopicPartition]:
    """Both errors carry the partitions that they are about."""
    about = error.args[0]
    return list(about) if not isinstance(about, TopicPartition) else [about]
