"""Apache Kafka in, judged: a full topic on a real broker, drained by a warm engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy import text

from bench.running import Serve, serve
from bench.scenes import Figures
from bench.sender import build_of
from store import database

__all__ = ["broker", "drained"]

_SCRIPT = Path(__file__).resolve().parent.parent / "deploy" / "dev" / "kafka" / "kafka.sh"
_PARTITIONS, _WARM = 4, 400
# The engine stands still while its topic is filled, and stays a member of its group.
_SESSION_S = 120


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Its address. One node, in a temporary folder; needs Java 17 and Maven."""
    with tempfile.TemporaryDirectory() as folder:
        started = subprocess.run([str(_SCRIPT), "start", folder], stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
        try:
            yield started.stdout.split()[-1]
        finally:
            subprocess.run([str(_SCRIPT), "stop", folder], check=True)  # noqa: S603


def drained(bootstrap: str, kind: str, count: int, url: str = "") -> Figures:
    """``judged``: records a second, from the moment that a warm engine sees ``count`` of them until the last one's
    disposition. ``kind`` as for ``bench.sender``."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    asyncio.run(_created(bootstrap, topic))
    settings = (
        f'[watch]\nevery_s = 3600\n[kafka]\nbootstrap = "{bootstrap}"\ntopics = ["{topic}"]\ngroup = "{topic}"\n'
        f"session_timeout_s = {_SESSION_S}\n"
    )
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), url=url, settings=settings) as engine:
        asyncio.run(_filled(bootstrap, topic, build_of(kind, "warm"), _WARM))
        engine.received(_WARM)
        engine.drained()
        before = engine.cpu_s()
        os.kill(engine.process.pid, signal.SIGSTOP)
        try:
            asyncio.run(_filled(bootstrap, topic, build_of(kind, "load"), count))
        finally:
            began = time.time()
            os.kill(engine.process.pid, signal.SIGCONT)
        engine.received(_WARM + count)
        lost = engine.lost(_WARM + count)
        took = _last_disposition(engine, url) - began
        return Figures(judged=count / took, cpu_ms=(engine.cpu_s() - before) * 1000 / count, lost=lost)


def _last_disposition(engine: Serve, url: str) -> float:
    """Seconds since the epoch, as the engine wrote it."""
    reading = database.reader(url or f"sqlite:///{engine.config.with_name('bench.db')}")
    with reading.connect() as connection:
        found: int = connection.scalar(text("SELECT max(judged_at) FROM message"))
    reading.dispose()
    return found / 1000


async def _created(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, _PARTITIONS, 1)])
    finally:
        await admin.close()


async def _filled(bootstrap: str, topic: str, build: Callable[[int], bytes], count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=512 * 1024)
    await producer.start()
    try:
        for first in range(0, count, 2000):
            numbers = range(first, min(first + 2000, count))
            sent = [await producer.send(topic, build(n), partition=n % _PARTITIONS) for n in numbers]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()
