"""Real services for these tests: an Apache Kafka node. What cannot be started fails the tests; nothing is skipped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from cryptography.hazmat.primitives import serialization

from engine.config import load

_SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "dev" / "kafka" / "kafka.sh"

# Numbers of Kafka's protocol: resources and operations (org.apache.kafka.common.resource, .acl).
_ACL = {"topic": 2, "group": 3, "all": 2, "read": 3, "write": 4}
_LITERAL, _DENY, _ALLOW = 3, 2, 3


class Broker:
    """One node that can be stopped, killed and started again on the same port with the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bootstrap = ""

    def start(self) -> None:
        done = subprocess.run(
            [str(_SCRIPT), "start", str(self.folder)], stdout=subprocess.PIPE, text=True, check=True, timeout=180
        )
        self.bootstrap = done.stdout.split()[-1]

    def stop(self, how: str = "stop") -> None:
        subprocess.run([str(_SCRIPT), how, str(self.folder)], check=True, timeout=60)

    async def topic(self, partitions: int = 1, name: str = "", **config: str) -> str:
        """A new topic, of its own name if none is given."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        finally:
            await admin.close()
        return name

    @contextlib.asynccontextmanager
    async def forbidden(self, kind: str, name: str, operation: str) -> AsyncIterator[None]:
        """The account ``lab`` may do everything but this for so long."""
        rules = [
            (_ACL[kind], name, _LITERAL, "User:lab", "*", _ACL[what], said)
            for what, said in (("all", _ALLOW), (operation, _DENY))
        ]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            for rule in rules:
                await admin._send_request(CreateAclsRequest(*rule))
            yield
            for rule in rules:
                await admin._send_request(DeleteAclsRequest(*rule))
        finally:
            await admin.close()

    async def send(
        self,
        topic: str,
        *values: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=True, max_request_size=10_000_000
        )
        await producer.start()
        try:
            sent = [
                await producer.send(topic, value, key=key, partition=partition, headers=headers) for value in values
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def committed(self, topic: str, group: str = "neutroflag") -> int:
        """How many records of all partitions the group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return sum(where.offset for partition, where in offsets.items() if partition.topic == topic)

    async def whole(self, topic: str) -> list[Any]:
        """All that a careful consumer sees, to the topic's end."""
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            found: list[Any] = []
            async with asyncio.timeout(60):
                ends = await consumer.end_offsets(consumer.assignment())
                while any([await consumer.position(one) < end for one, end in ends.items()]):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += records
            return found
        finally:
            await consumer.stop()

    async def read(self, topic: str, count: int) -> list[Any]:
        """The first ``count`` records of a topic, over all its partitions."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            found: list[Any] = []
            async with asyncio.timeout(30):
                while len(found) < count:
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += records
            return found
        finally:
            await consumer.stop()


class Host:
    """``neutroflag serve`` with its judging process, in a group of its own: what dies with its machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @classmethod
    async def start(cls, config: Path) -> Host:
        arguments = [sys.executable, "-m", "engine.cli", "serve", "--config", str(config)]
        process = await asyncio.to_thread(
            subprocess.Popen, arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stderr is not None
        said = (await asyncio.to_thread(process.stderr.readline)).decode()
        found = re.search(r"(?:mllp|http)://127\.0\.0\.1:(\d+)", said)
        assert found, said
        return cls(process, int(found[1]))

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.communicate)

    async def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            await asyncio.to_thread(self.process.communicate, timeout=30)


@pytest.fixture
def start_host() -> Any:
    """``start_host(config)``: a host on these settings, ready to take messages."""
    return Host.start


@pytest.fixture
async def hosts(postgresql_url: str) -> AsyncIterator[list[Host]]:
    found: list[Host] = []
    yield found
    for host in found:
        await host.stop()


@pytest.fixture
def configs(settings_file: Any, postgresql_url: str, tmp_path: Path) -> Any:
    """Settings on the server's database, one file a role."""

    def write(name: str, role: str, **parts: str) -> Path:
        text = settings_file(**parts).read_text()
        text = re.sub(r'url = "sqlite:[^"]*"', f'url = "{postgresql_url}"', text)
        text = text.replace("[engine]", f'[engine]\nrole = "{role}"', 1)
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        load(file, {})
        return file

    return write


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("kafka")
    _certify(folder / "tls")
    node = Broker(folder)
    node.start()
    yield node
    node.stop()


@pytest.fixture
async def own_broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """One that a test may end."""
    node = Broker(tmp_path / "kafka")
    await asyncio.to_thread(node.start)
    yield node
    await asyncio.to_thread(node.stop)


def _certify(folder: Path) -> None:
    """A server certificate of an authority of its own (``ca.pem``), and a password."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("127.0.0.1")
    # Kafka wants PKCS #8.
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), None)
    server_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(server_pem + b"".join(one.bytes() for one in server.cert_chain_pems))
    (folder / "password").write_text(uuid.uuid4().hex)
