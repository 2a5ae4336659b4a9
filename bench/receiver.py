"""A FHIR server that costs next to nothing, so that the sender is what is measured: ``python -m bench.receiver``.

Raw HTTP/1.1 on an asyncio protocol. It answers what a destination asks (metadata, Patient by identifier, Task by
identifier, transaction), keeps only the time at which each transaction had arrived, and tells these under ``/seen``.
It prints its port on stdout and ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast
from urllib.parse import unquote

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TYPES = ("Device", "Flag", "Observation", "Provenance", "Task")
_CAPABILITY = json.dumps(
    {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{"mode": "server", "resource": [{"type": kind, "updateCreate": True} for kind in _TYPES]}],
    }
).encode()
_NONE = b'{"resourceType":"Bundle","type":"searchset","entry":[]}'
_ENTRY = b'{"response":{"status":"201 Created"}}'

seen: list[float] = []
"""time.monotonic() of each transaction's last byte; the clock is one for all processes of the machine."""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end + 2)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            head, body = self._buffer[:end], self._buffer[end + 4 : whole]
            self._buffer = self._buffer[whole:]
            answer = _answer(head.split(b"\r\n", 1)[0], body)
            if self._transport is not None:
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/fhir+json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )


def _answer(line: bytes, body: bytes) -> bytes:
    method, target, _ = line.split(b" ")
    if method == b"POST" and target.rstrip(b"/") == b"/fhir":
        seen.append(time.monotonic())
        entries = b",".join([_ENTRY] * body.count(b'"request":'))
        return b'{"resourceType":"Bundle","type":"transaction-response","entry":[%b]}' % entries
    if target.startswith(b"/fhir/Patient?"):
        return _patient(target)
    if target == b"/fhir/metadata":
        return _CAPABILITY
    if target == b"/seen":
        return json.dumps(seen).encode()
    return _NONE if method == b"GET" else body


def _patient(target: bytes) -> bytes:
    asked = unquote(target.partition(b"identifier=")[2].partition(b"&")[0].decode()).split(",")
    entries = []
    for token in asked:
        system, _, value = token.partition("|")
        patient = {"resourceType": "Patient", "id": value, "identifier": [{"system": system, "value": value}]}
        entries.append({"resource": patient})
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entries}).encode()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
