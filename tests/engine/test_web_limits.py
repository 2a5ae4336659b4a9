"""The HTTP face under peers that want too much, or never finish: each is answered, counted and let go; others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine.compose import Engine
from engine.config import load
from ingest.limits import Keeper, Limits

GET = b"GET /fhir/metadata HTTP/1.1\r\nHost: x\r\n\r\n"


class Face:
    def __init__(self, engine: Engine) -> None:
        self.port = engine.http_port

    async def connect(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def say(self, raw: bytes, address: str = "127.0.0.1") -> bytes:
        """All that is answered until the engine hangs up."""
        reader, writer = await self.connect(address)
        with contextlib.suppress(ConnectionError):
            writer.write(raw)
            await writer.drain()
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        return answer

    async def status(self, address: str = "127.0.0.1") -> int:
        """Of a request of somebody who behaves."""
        answer = await self.say(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"), address)
        return int(answer.split(b" ", 2)[1])

    async def noticed(self, event: str) -> int:
        raw = await self.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "127.0.0.9")
        line = f'neutroflag_notices_total{{channel="http",event="{event}"}} '
        return next((int(float(text[len(line) :])) for text in raw.decode().splitlines() if text.startswith(line)), 0)


@pytest.fixture
async def face(settings_file: Callable[..., Path]) -> AsyncIterator[Callable[..., Awaitable[Face]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(limits: str) -> Face:
            file = settings_file()
            text = file.read_text(encoding="utf-8").replace("[http]\nport = 0\n", f"[http]\nport = 0\n{limits}\n")
            file.write_text(text, encoding="utf-8")
            engine = Engine(load(file, {}))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return Face(engine)

        yield start


async def test_headers_and_bodies_that_never_end_are_answered_and_let_go(face: Any, rows_of: Any) -> None:
    door = await face("header_timeout_s = 0.2\nbody_timeout_s = 0.2")
    # Slow loris: a header line now and then.
    reader, writer = await door.connect()
    writer.write(b"POST /hl7 HTTP/1.1\r\nHost: x\r\n")

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"X-More: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(30):
        answer = await reader.read(4096)
    dripping.cancel()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"retry-after: 5" in answer
    late = await door.say(b"POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert late.startswith(b"HTTP/1.1 408 ")
    chunked = await door.say(b"POST /hl7 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nMSH\r\n")
    assert chunked.startswith(b"HTTP/1.1 408 ")
    # Who says nothing at all is let go without a word.
    assert await door.say(b"") == b""
    assert await door.status() == 200
    assert await door.noticed("header_timeout") == 1
    assert await door.noticed("body_timeout") == 2
    assert rows_of("SELECT id FROM message") == []


async def test_a_long_body_that_keeps_coming_is_waited_for(face: Any) -> None:
    door = await face("body_timeout_s = 1")
    reader, writer = await door.connect()
    piece = b" " * 65536
    writer.write(
        b"POST /fhir HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (20 * len(piece))
    )
    for _ in range(20):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.06)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")  # read whole, and no FHIR


@pytest.mark.parametrize("ended", [True, False])
async def test_headers_beyond_the_limit_are_refused_whether_they_end_or_not(face: Any, ended: bool) -> None:
    door = await face("max_header_bytes = 4096")
    many = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(60))
    raw = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + many + (b"\r\n" if ended else b"")
    assert (await door.say(raw)).startswith(b"HTTP/1.1 431 ")
    assert (await door.say(b"GET /" + b"a" * 6000 + b" HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
    assert await door.noticed("header_oversize") == 2
    assert await door.status() == 200


async def test_a_connection_too_many_is_told_so_and_other_peers_come_in(face: Any, eventually: Any) -> None:
    door = await face("max_connections = 8\nmax_connections_per_peer = 3")
    held = [await door.connect() for _ in range(3)]
    for _, writer in held:
        writer.write(GET)
    for reader, _ in held:
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    refused = await door.say(b"")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert await door.status("127.0.0.2") == 200
    more = [await door.connect(f"127.0.0.{number}") for number in (2, 2, 3, 3, 3)]
    assert (await door.say(b"", "127.0.0.4")).startswith(b"HTTP/1.1 503 ")
    for _, writer in (*held, *more):
        writer.close()

    async def served() -> bool:
        return await door.status() == 200

    await eventually(served)
    assert await door.noticed("peer_connection_refused") == 1
    assert await door.noticed("connection_refused") >= 1


async def test_requests_at_once_are_bounded_and_health_is_still_told(face: Any, eventually: Any) -> None:
    door = await face("max_requests = 2")
    waiting = [await door.connect() for _ in range(2)]
    for _, writer in waiting:
        writer.write(b"POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")

    async def full() -> bool:
        return await door.status() == 503

    await eventually(full)
    answer = await door.say(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    assert b"retry-after: 1" in answer.lower()
    # As every answer does, this one carries the headers of every answer.
    assert b"x-content-type-options: nosniff" in answer.lower()
    for path in (b"/livez", b"/readyz", b"/metrics"):
        assert b" 200 " in (await door.say(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[:20]
    for _, writer in waiting:
        writer.close()

    async def free() -> bool:
        return await door.status() == 200

    await eventually(free)
    assert await door.noticed("request_refused") >= 2
    # They left in mid-body: noted, and no fault of ours.
    assert await door.noticed("left_before_the_end") == 2


async def test_a_peer_that_asks_too_often_is_told_when_to_come_again_and_others_are_served(
    face: Any, fhir: Any
) -> None:
    door = await face("max_requests_per_s = 0.01")
    url = f"http://127.0.0.1:{door.port}/fhir/Observation"
    body = json.dumps(fhir.observation()).encode()
    # Each on a connection of its own: what an address owes does not go with its connection.
    codes = []
    for _ in range(2):
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, content=body)
        codes.append(answer.status_code)
    assert codes == [201, 429]
    assert 0 < int(answer.headers["retry-after"]) <= 100
    assert await door.status("127.0.0.2") == 200
    assert await door.noticed("peer_request_refused") >= 1


async def test_bodies_held_for_all_requests_together_are_bounded(face: Any) -> None:
    door = await face("max_held_bytes = 1048576")
    waiting = [await door.connect(address) for address in ("127.0.0.1", "127.0.0.2")]
    for _, writer in waiting:
        # Neither ends: the later is refused, or both where they come by turns: what is refused is held until answered.
        writer.write(b"POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 700002\r\n\r\n" + b" " * 700000)
        await writer.drain()
    for _, writer in waiting:
        writer.write(b"{}")
    answers = [(await reader.readuntil(b"\r\n"))[:12] for reader, _ in waiting]
    assert b"HTTP/1.1 503" in answers  # too much
    assert set(answers) <= {b"HTTP/1.1 400", b"HTTP/1.1 503"}  # whole, and no FHIR
    for _, writer in waiting:
        writer.close()
    assert await door.noticed("held_refused") == answers.count(b"HTTP/1.1 503")
    # What was held is let go.
    raw = (
        b"POST /fhir HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 700002\r\n\r\n" + b" " * 700000 + b"{}"
    )
    assert (await door.say(raw)).startswith(b"HTTP/1.1 400 ")


def test_who_connects_anew_for_each_message_still_owes_what_it_owed() -> None:
    keeper = Keeper(Limits(max_messages_per_s=0.01))
    for _ in range(3):
        assert keeper.admits("10.0.0.7") == ""
        owed_s = keeper.owed_s("10.0.0.7", 1)
        keeper.left("10.0.0.7")
    assert owed_s > 100
    assert keeper.owed_s("10.0.0.8", 0) == 0


async def test_two_requests_in_one_write_are_answered_in_order(face: Any) -> None:
    door = await face("")
    last = GET.replace(b"Host: x", b"Host: x\r\nConnection: close").replace(b"/fhir/metadata", b"/livez")
    answer = await door.say(GET + last)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.endswith(b"ok\n")


def test_a_socket_that_is_only_opened_costs_a_place_until_it_is_closed() -> None:
    keeper = Keeper(Limits(max_connections=1))
    assert keeper.admits("a") == ""
    assert keeper.admits("b") == "connection_refused"
    keeper.left("a")
    assert keeper.admits("b") == ""
