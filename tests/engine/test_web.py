"""The web server inside a program: it ends once what was asked is answered, and waits for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.web import Web

ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Site:
    """Answers "whole" when ``go`` is set."""

    def __init__(self) -> None:
        self.asked, self.go, self.ended = asyncio.Event(), asyncio.Event(), ""

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended = "cut off"
            raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"whole"})
        self.ended = "answered"


async def asking(web: Web) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(ASK)
    return reader, writer


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_what_was_asked_is_answered_before_it_ends_and_nobody_else_is_let_in(eventually: Any) -> None:
    site = Site()
    web = Web(site)
    await web.open("127.0.0.1", 0)
    reader, writer = await asking(web)
    await site.asked.wait()
    closing = asyncio.create_task(web.close())
    await eventually(lambda: refused(web.port))
    assert not closing.done()
    site.go.set()
    assert (await reader.read()).endswith(b"\r\n\r\nwhole")
    await closing
    assert site.ended == "answered"
    writer.close()


async def test_a_connection_that_rests_is_hung_up_on() -> None:
    site = Site()
    site.go.set()
    web = Web(site, grace_s=60)
    await web.open("127.0.0.1", 0)
    reader, writer = await asking(web)
    await reader.readuntil(b"whole")
    await asyncio.wait_for(web.close(), 30)
    assert await reader.read() == b""
    writer.close()


async def test_what_is_not_answered_in_time_is_cut_off(eventually: Any) -> None:
    site = Site()
    web = Web(site, grace_s=0)
    await web.open("127.0.0.1", 0)
    _, writer = await asking(web)
    await site.asked.wait()
    await web.close()
    assert await eventually(lambda: site.ended) == "cut off"
    writer.close()
