"""What the engine says of itself: JSON lines on stdout and Prometheus metrics; never a word about a patient.

Rule of the file: a field goes into the log only if its name is on the allow-list, and every allowed field holds a code, a
number or one of our own ids. An exception is logged by its type and place, not by its words: words quote data.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from store import Snapshot

__all__ = ["ALLOWED", "Meters", "configure"]

ALLOWED = frozenset(
    """
    ts level event channel message_id duration_ms outcome count reason destination alert_id alert_level family kind revision
    delivery_id attempts code port host mode version category protocol path status fault place
    """.split()
)


def _only_allowed(_logger: Any, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in fields.items() if key in ALLOWED}


def _stamp(_logger: Any, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    fields["ts"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return fields


def configure(*, quiet: bool = False) -> None:
    """JSON lines on stdout. Libraries' own logging is silenced: it would print addresses, parameters and bodies."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, _stamp, _only_allowed, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL if quiet else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    logging.lastResort = None


_ACK_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5)


class Meters:
    """The metrics of one engine; also what the doors report to (``ingest.meter.Meter``)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._log = structlog.get_logger()
        self._children: dict[tuple[int, tuple[str, ...]], Any] = {}
        self._received = Counter(
            "neutroflag_messages_received", "Messages stored", ["channel", "format"], registry=self.registry
        )
        self._dispositions = Counter(
            "neutroflag_dispositions", "Messages by how they ended", ["disposition"], registry=self.registry
        )
        self._notices = Counter(
            "neutroflag_notices",
            "Noise, limits and refusals at the doors",
            ["channel", "event"],
            registry=self.registry,
        )
        self._ack = Histogram(
            "neutroflag_ack_seconds", "From the last byte to the answer", registry=self.registry, buckets=_ACK_BUCKETS
        )
        self._stages = Histogram(
            "neutroflag_stage_seconds", "Time in a stage", ["stage"], registry=self.registry, buckets=_ACK_BUCKETS
        )
        self._outbox = Gauge(
            "neutroflag_outbox_messages",
            "Notifications not yet taken",
            ["destination", "state"],
            registry=self.registry,
        )
        self._oldest = Gauge("neutroflag_outbox_oldest_seconds", "Age of the oldest waiting", registry=self.registry)
        self._open = Gauge(
            "neutroflag_alerts_open", "Alerts that nobody has answered", ["level"], registry=self.registry
        )
        self._overdue = Gauge("neutroflag_patients_overdue", "Patients whose count is overdue", registry=self.registry)
        self._silence = Gauge(
            "neutroflag_feed_silence_seconds",
            "Since the last message on a channel, as of the clock's last sweep",
            ["channel"],
            registry=self.registry,
        )
        self._pending = Gauge("neutroflag_messages_pending", "Stored and not yet judged", registry=self.registry)
        Info("neutroflag_build", "This program", registry=self.registry).info({"version": version("neutroflag")})

    def _child(self, metric: Any, *labels: str) -> Any:
        # The library looks a label up under a lock and through several checks; this runs with every message.
        key = (id(metric), labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found

    def received(self, channel: str, form: str, disposition: str = "") -> None:
        self._child(self._received, channel, form).inc()
        if disposition:
            self.disposed(disposition)

    def acknowledged(self, channel: str, seconds: float) -> None:
        self._ack.observe(seconds)

    def noticed(self, channel: str, event: str, count: int = 1) -> None:
        self._notices.labels(channel, event).inc(count)
        self._log.warning(event, channel=channel, count=count)

    def disposed(self, disposition: str, count: int = 1) -> None:
        self._dispositions.labels(disposition).inc(count)

    def stage(self, stage: str, seconds: float) -> None:
        self._child(self._stages, stage).observe(seconds)

    def event(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        self._log.log(level, event, **fields)

    def fault(self, error: BaseException, **fields: Any) -> None:
        """A fault of ours: its type and the innermost place in our code."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
        self._log.error("fault", fault=type(error).__name__, place=place, **fields)

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """What fails where nobody waits for it is a fault too. asyncio itself would write out the error's words, and they
        may hold a patient's."""

        def noticed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            self.fault(error if error is not None else RuntimeError(), reason=str(context.get("message", "")))

        loop.set_exception_handler(noticed)

    def exposition(self, state: Snapshot, now_ms: int) -> bytes:
        """The metrics as text, with what the store knows set to ``state``."""
        self._outbox.clear()
        oldest = now_ms
        for destination, condition, number, created in state.outbox:
            self._outbox.labels(destination, condition).set(number)
            if condition == "waiting":
                oldest = min(oldest, created)
        self._oldest.set((now_ms - oldest) / 1000)
        self._open.clear()
        for level, number in state.alerts_open.items():
            self._open.labels(level).set(number)
        self._pending.set(state.pending)
        self._overdue.set(state.overdue)
        for channel, heard_ms in state.heard.items():
            self._silence.labels(channel).set(max(0, now_ms - heard_ms) / 1000)
        return generate_latest(self.registry)
