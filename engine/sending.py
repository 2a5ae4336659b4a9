"""``neutroflag send``: each message of each file to an MLLP or HTTP door, and each answer readably on stdout.

Exit 0 when every message was accepted (AA, CA, 2xx, or no answer was asked for), 1 otherwise, 2 when nothing could be sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from wire import ack
from wire.er7 import peek, split_messages
from wire.mllp import Deframer, Frame, frame

__all__ = ["send_command"]

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Message:
    """One message of a file; ``name`` says which, for the reader."""

    name: str
    raw: bytes
    fhir: bool


class _Unsendable(Exception):
    """The words say what is wrong with the request: a file, or the address."""


def send_command(
    files: Sequence[Path], to: str, stdout: TextIO, stderr: TextIO, *, timeout_s: float = _TIMEOUT_S
) -> int:
    try:
        scheme, host, port = _address(to)
        messages = list(_messages(files, scheme))
    except _Unsendable as problem:
        print(problem, file=stderr)
        return 2
    try:
        if scheme == "mllp":
            accepted = asyncio.run(_over_mllp(messages, host, port, stdout, timeout_s))
        else:
            accepted = _over_http(messages, to, stdout, timeout_s)
    except OSError as error:
        print(f"{to}: {error.strerror or error or 'the connection broke'}", file=stderr)
        return 1
    print(f"{accepted} of {len(messages)} accepted", file=stderr)
    return 0 if accepted == len(messages) else 1


def _address(to: str) -> tuple[str, str, int]:
    parts = urlsplit(to)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("mllp", "http", "https") or not parts.hostname:
        raise _Unsendable("--to: write mllp://HOST:PORT, http://... or https://...")
    if parts.scheme == "mllp" and port is None:
        raise _Unsendable("--to: mllp needs a port, such as mllp://127.0.0.1:2575")
    return parts.scheme, parts.hostname, port or 0


def _messages(files: Iterable[Path], scheme: str) -> Iterator[_Message]:
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise _Unsendable(f"{path}: {error.strerror or 'cannot be read'}") from error
        if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
            if scheme == "mllp":
                raise _Unsendable(f"{path}: FHIR goes to http://HOST:PORT/fhir, not to MLLP")
            yield _Message(str(path), raw, fhir=True)
            continue
        # What is no HL7 at all is sent as it is: the answer to it is worth seeing.
        pieces = split_messages(raw) or [raw]
        for number, piece in enumerate(pieces, start=1):
            yield _Message(str(path) if len(pieces) == 1 else f"{path}#{number}", piece, fhir=False)


# MLLP


async def _over_mllp(messages: Sequence[_Message], host: str, port: int, out: TextIO, timeout_s: float) -> int:
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
    accepted = 0
    deframer = Deframer()
    try:
        for message in messages:
            writer.write(frame(message.raw))
            await writer.drain()
            header = peek(message.raw)
            wanted = ack.answers(header, has_msa=b"\rMSA" in message.raw)
            asked = wanted.accept if wanted.enhanced else wanted.application
            if asked == "NE":
                print(f"{message.name}: sent, no answer asked for", file=out)
                accepted += 1
                continue
            answer = await _answer(reader, deframer, timeout_s)
            if answer is None and asked in ("ER", "SU"):
                print(f"{message.name}: sent, no answer ({asked} was asked for)", file=out)
                accepted += asked == "ER"
                continue
            accepted += _tell(message.name, answer, header.control_id if header else "", out)
            if answer is None:
                break
    finally:
        writer.close()
    return accepted


async def _answer(reader: asyncio.StreamReader, deframer: Deframer, timeout_s: float) -> bytes | None:
    """The next frame; None when there is none in time or the connection ends."""
    try:
        async with asyncio.timeout(timeout_s):
            while data := await reader.read(65536):
                for event in deframer.feed(data):
                    if isinstance(event, Frame):
                        return event.payload
    except TimeoutError:
        pass
    return None


def _tell(name: str, answer: bytes | None, control_id: str, out: TextIO) -> bool:
    if answer is None:
        print(f"{name}: no answer", file=out)
        return False
    found = ack.read_ack(answer)
    about = "" if found is None or found.control_id == control_id else f" (about {found.control_id or 'nothing'})"
    print(f"{name}: {found.code if found else 'an answer without MSA'}{about}", file=out)
    for line in answer.decode("utf-8", errors="replace").replace("\r", "\n").splitlines():
        print(f"  {line}", file=out)
    return found is not None and found.accepted


# HTTP


def _over_http(messages: Sequence[_Message], to: str, out: TextIO, timeout_s: float) -> int:
    import httpx2

    accepted = 0
    with httpx2.Client(timeout=timeout_s, trust_env=False) as client:
        for message in messages:
            kind = "application/fhir+json" if message.fhir else "application/hl7-v2"
            try:
                response = client.post(_url(to, message), content=message.raw, headers={"content-type": kind})
            except httpx2.HTTPError as error:
                raise ConnectionError(f"{message.name}: {error or type(error).__name__}") from error
            print(f"{message.name}: HTTP {response.status_code} {response.reason_phrase}".rstrip(), file=out)
            for line in _readable(response.content):
                print(f"  {line}", file=out)
            accepted += response.is_success
    return accepted


def _url(to: str, message: _Message) -> str:
    """The door of this message on that host, unless the address already names a path."""
    if urlsplit(to).path.strip("/"):
        return to
    return to.rstrip("/") + ("/fhir" if message.fhir else "/hl7")


def _readable(body: bytes) -> Iterator[str]:
    """The segments of an acknowledgement, the issues of an OperationOutcome, the statuses of a Bundle."""
    if not body.lstrip().startswith(b"{"):
        yield from body.decode("utf-8", errors="replace").replace("\r", "\n").splitlines()
        return
    try:
        # Printed, never computed with: a number stays the text it was.
        resource = json.loads(body, parse_float=str)
    except ValueError:
        yield body[:2000].decode("utf-8", errors="replace")
        return
    issues = resource.get("issue") or ()
    for issue in issues:
        place = " ".join(issue.get("expression") or ())
        words = issue.get("diagnostics") or (issue.get("details") or {}).get("text") or ""
        yield " ".join(part for part in (issue.get("severity"), issue.get("code"), place, words) if part)
    for entry in resource.get("entry") or ():
        response = entry.get("response") or (entry.get("resource") or {}).get("response") or {}
        yield " ".join(str(response[key]) for key in ("status", "code", "location") if key in response)
    if not issues and not resource.get("entry"):
        yield str(resource.get("resourceType", ""))
