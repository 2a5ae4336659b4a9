"""Behind the store: the worker that judges, the clock and the dispatchers that deliver, assembled from the settings."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, assert_never

from emitters.fhir_server import FhirServer, FhirServerSettings
from emitters.fhir_terms import FhirProfile
from emitters.hl7v2 import V2Profile
from emitters.mllp import MllpDestination as MllpSink
from emitters.mllp import MllpSettings
from emitters.sink import Sink
from engine import tls
from engine.answer_poll import AnswerPoll
from engine.config import Settings
from engine.credential_settings import credentials_of
from engine.destination_settings import Destination, FhirDestination, KafkaDestination, MllpDestination
from engine.dispatcher import Dispatcher, RetryPolicy
from engine.duty import escalation_of, present_of, routing_of
from engine.judge import Judge
from engine.kafka import security
from engine.leader import CLOCK, Leader, delivering_to
from engine.observe import Meters
from engine.retention import Retention
from engine.sites import load_sites
from engine.switch import Switch
from engine.texts import wordings_of
from engine.timekeeper import Timekeeper
from engine.watch import Watch
from engine.worker import Worker
from store import Store

if TYPE_CHECKING:
    from engine.publisher import Publisher

__all__ = ["Back", "fhir_profile", "fhir_server", "v2_profile"]


class Back:
    """Takes nothing but an open store and the settings. ``failed`` is set with its name when a loop ended by itself."""

    def __init__(
        self, settings: Settings, store: Store, meters: Meters, on_recorded: Callable[[Iterable[int]], None]
    ) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._meters = meters
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dispatchers: list[Dispatcher] = []
        self._publishers: list[Publisher] = []
        self._polls: list[AnswerPoll] = []
        names = [CLOCK, *(delivering_to(item.name) for item in settings.destination)]
        self._leader = leader = Leader(store, meters, names, on_led=self._wake_dispatchers)
        if settings.engine.mode == "deliver":
            self._dispatchers = [
                Dispatcher(
                    store,
                    _sink_of(item, settings),
                    _policy(item),
                    meters,
                    leads=functools.partial(leader.leads, delivering_to(item.name)),
                )
                for item in settings.destination
            ]
            self._publishers = [
                _publisher(item, settings, store, meters, functools.partial(leader.leads, delivering_to(item.name)))
                for item in settings.destination
                if isinstance(item, KafkaDestination) and item.results
            ]
            for item in settings.destination:
                if isinstance(item, FhirDestination) and item.answers:
                    server = fhir_server(item, settings)
                    # Whoever delivers there reads there, too.
                    leads = functools.partial(leader.leads, delivering_to(item.name))
                    self._polls.append(AnswerPoll(store, server, meters, every_s=item.answers_every_s, leads=leads))
        escalation = escalation_of(settings)
        present = present_of(settings)
        notifier = present.notifier
        judge = Judge(present=present, zone=settings.zone)
        self._worker = Worker(
            store,
            judge,
            meters,
            zone=settings.zone,
            unenrolled=timedelta(days=settings.register.unenrolled_days),
            on_recorded=on_recorded,
            on_alerts=self._wake_dispatchers,
            # Without any destination there is nobody to tell; what is untold stays so until there is.
            retention=Retention(store, settings.retention, meters),
            sites=load_sites(settings.sites.files),
            age_time=lambda: self._timekeeper.age_time(),
            switch=Switch(store, notifier, meters, on_alerts=self._wake_dispatchers) if self._dispatchers else None,
            escalation=escalation,
            leads=functools.partial(leader.leads, CLOCK),
            publish_to=tuple(publisher.name for publisher in self._publishers),
        )

        self._watch = Watch(
            store,
            present,
            meters,
            settings.watch,
            destinations=self._notified,
            on_alerts=self._wake_dispatchers,
            escalation=escalation,
            leads=functools.partial(leader.leads, CLOCK),
        )

        self._timekeeper = Timekeeper(
            store,
            meters,
            zone=settings.zone,
            watch=self._watch,
            dispatchers=self._dispatchers,
            leads=functools.partial(leader.leads, CLOCK),
        )

    def start(self) -> None:
        self._run("leader", self._leader.run())
        self._run("timekeeper", self._timekeeper.run())
        self._run("worker", self._worker.run())
        self._run("watch", self._watch.run())
        for dispatcher in self._dispatchers:
            self._run(f"dispatcher {dispatcher.name}", dispatcher.run())
        for publisher in self._publishers:
            self._run(f"results {publisher.name}", publisher.run())
        for poll in self._polls:
            self._run(f"answers {poll.name}", poll.run())

    async def stop(self) -> None:
        """What is in hand goes back: claims to the inbox, deliveries to their retry, under the same ids."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def destinations(self) -> dict[str, str]:
        """State by name; results that go to a topic beside alerts have a state of their own."""
        return self._notified() | {f"{item.name}/results": item.state for item in self._publishers}

    def _notified(self) -> dict[str, str]:
        return {item.name: item.state for item in self._dispatchers}

    def _wake_dispatchers(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.wake()
        for publisher in self._publishers:
            publisher.wake()

    def _run(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda ended: self._noticed_end(name, ended))

    def _noticed_end(self, name: str, task: asyncio.Task[None]) -> None:
        """A loop that should run for ever and did not is worth a restart: a half-dead engine is the worst kind."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._meters.fault(error, reason=name)
        if not self.failed.done():
            self.failed.set_result(name)


def fhir_profile(item: FhirDestination | KafkaDestination, settings: Settings) -> FhirProfile:
    return FhirProfile(
        engine_id=settings.engine.name,
        engine_version=version("neutroflag"),
        owner=routing_of(settings).reference(item.owner),
        zone=settings.zone,
        words=wordings_of(settings).words,
    )


def fhir_server(item: FhirDestination, settings: Settings) -> FhirServer:
    return FhirServer(
        FhirServerSettings(
            name=item.name,
            url=item.url,
            profile=fhir_profile(item, settings),
            credentials=credentials_of(
                item.credentials, fhir_url=item.url, level=item.level, timeout_s=item.timeout_s, ca=item.ca
            ),
            patient_systems=item.authorities,
            search_by_post=item.search_by_post,
            update_create=item.update_create,
            level=item.level,
            timeout_s=item.timeout_s,
            connections=item.connections,
            tls=tls.fhir_client(item),
        )
    )


def _sink_of(item: Destination, settings: Settings) -> Sink:
    match item:
        case FhirDestination():
            return fhir_server(item, settings)
        case MllpDestination():
            return MllpSink(
                MllpSettings(
                    name=item.name,
                    host=item.host,
                    port=item.port,
                    tls=tls.mllp_client(item),
                    timeout_s=item.timeout_s,
                    profile=v2_profile(item, settings),
                    enhanced=item.ack == "enhanced",
                )
            )
        case KafkaDestination():
            # The client is loaded where there is a topic to write to.
            from emitters.kafka import KafkaDestination as KafkaSink
            from emitters.kafka import KafkaSettings

            return KafkaSink(
                KafkaSettings(
                    name=item.name,
                    bootstrap=item.bootstrap,
                    topic=item.topic,
                    profile=fhir_profile(item, settings),
                    patient_systems=item.authorities,
                    security=security(item),
                    timeout_s=item.timeout_s,
                )
            )
        case other:
            assert_never(other)


def _publisher(
    item: KafkaDestination, settings: Settings, store: Store, meters: Meters, leads: Callable[[], bool]
) -> Publisher:
    from emitters.kafka_results import ResultsSettings, ResultsTopic
    from engine.publisher import Publisher

    topic = ResultsTopic(
        ResultsSettings(
            bootstrap=item.bootstrap,
            topic=item.results,
            # One for each engine's name and destination, whichever host has it now.
            transactional_id=f"{settings.engine.name}-{item.name}-results",
            security=security(item),
            timeout_s=item.timeout_s,
        )
    )
    return Publisher(item.name, store, topic, _policy(item), meters, leads=leads)


def v2_profile(item: MllpDestination, settings: Settings) -> V2Profile:
    return V2Profile(
        shape=item.shape,
        sending_application=item.sending_application,
        sending_facility=item.sending_facility,
        receiving_application=item.receiving_application,
        receiving_facility=item.receiving_facility,
        version=item.version,
        charset=item.charset,
        words=wordings_of(settings).words,
    )


def _policy(item: Destination) -> RetryPolicy:
    return RetryPolicy(
        first_s=item.retry_first_s,
        longest_s=item.retry_longest_s,
        give_up_after=timedelta(seconds=item.give_up_after_s),
        parallel=_parallel(item),
    )


def _parallel(item: Destination) -> int:
    match item:
        case FhirDestination():
            return item.connections
        case KafkaDestination():
            return item.parallel
        case MllpDestination():
            return 1  # answers come in order, so one message is unanswered at a time
        case other:
            assert_never(other)
