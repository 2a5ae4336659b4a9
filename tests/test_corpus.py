"""Public HL7 v2 messages of other people's systems, sent to a running engine: each answered as its own MSH asks.

The expected answer is worked out here by a few lines of its own, not by the product's code.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CORPUS = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"
ORDERS_AND_QUERIES = re.compile(
    r"OR[MN]|OM[GLPNSDIBQ]|RD[EO]|R[PE][FI LR]|QRY|QBP|QCN|QS[BX]|QVR|QCK|VXQ|SQM|SQR|NMQ|OSQ"
)
WANTED = {"AL": True, "NE": False, "": False}

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the public corpus is not beside the repository")


class Expected(NamedTuple):
    codes: tuple[str, ...]
    control_id: str


def expected(message: bytes) -> Expected | None:
    """None where the few lines here cannot tell."""
    line = re.split(rb"[\r\n]", message, maxsplit=1)[0].decode("latin-1")
    fields = line.split(line[3])
    fields += [""] * 20
    kind, control_id, accept, application = (fields[n].strip() for n in (8, 9, 14, 15))
    if "MSA" in {segment[:3].decode("latin-1") for segment in re.split(rb"[\r\n]+", message)}:
        return Expected((), control_id)
    refused = ORDERS_AND_QUERIES.fullmatch(kind[:3]) is not None
    if kind[:3] not in ("ORU", "ADT", "ORM", "OML", "QBP", "QRY", "VXU", "SIU", "MDM", "OMG"):
        return None
    if not accept and not application:
        return Expected(("AR" if refused else "AA",), fields[9])
    if accept not in WANTED or application not in WANTED:
        return None
    codes = ("CR" if refused else "CA",) * WANTED[accept] + ("AR" if refused else "AA",) * WANTED[application]
    return Expected(codes, fields[9])


def pieces(raw: bytes) -> list[bytes]:
    """Each message of a file: from one MSH at the beginning of a line to the next."""
    starts = [match.start(1) for match in re.finditer(rb"(?:^|[\r\n\x0b])(?:\xef\xbb\xbf)?(MSH[^A-Za-z0-9\s])", raw)]
    if not starts:
        return []
    return [raw[start:end] for start, end in zip(starts, [*starts[1:], len(raw)], strict=True)]


def v2_files() -> list[Path]:
    found = sorted(file for file in CORPUS.rglob("*") if file.suffix.lower() in (".hl7", ".txt"))
    return [file for file in found if b"MSH" in file.read_bytes()[:4096]]


async def test_every_public_message_is_answered_as_it_asks_and_ends_in_one_disposition(
    running: Any, connect: Any
) -> None:
    files = v2_files()
    assert len(files) > 50
    wrong: list[str] = []
    lab = await connect(running.mllp_port)
    sent = 0
    for file in files:
        raw = file.read_bytes()
        messages = pieces(raw)
        for payload, inside in [(raw, messages), *((message, [message]) for message in messages)]:
            # A frame of its own, then one whose answer shows that all answers before it are in.
            marker = f"MARK{sent}"
            mark = f"MSH|^~\\&|MARK|MARK|||20261122||ADT^A01|{marker}|P|2.5\r".encode()
            await lab.write(b"\x0b" + payload.replace(b"\x0b", b"").replace(b"\x1c", b"") + b"\x1c\r")
            foreseen = [expected(message) for message in inside]
            due = Counter((code, item.control_id) for item in foreseen if item for code in item.codes)
            heard: list[tuple[str, str]] = []
            # An application acknowledgement comes once its message is judged, so all that is due is awaited first.
            for _ in range(due.total() if None not in foreseen else 0):
                ack = await lab.ack()
                heard.append((ack.code, ack.control_id))
            await lab.write(b"\x0b" + mark + b"\x1c\r")
            while not heard or heard[-1][1] != marker:
                ack = await lab.ack()
                heard.append((ack.code, ack.control_id))
            sent += len(inside) + 1
            if None in foreseen:
                # An answer that nobody foresaw may still come: not on the connection of the next message.
                await lab.close()
                lab = await connect(running.mllp_port)
                continue
            if Counter(heard[:-1]) != due:
                wrong.append(f"{file.name}: heard {heard[:-1]}, expected {sorted(due)}")
    await lab.close()
    await running.judged()
    assert wrong == []
    dispositions = Counter(await running.dispositions())
    assert dispositions.total() == sent
    assert set(dispositions) <= {"judged", "unenrolled", "not_relevant", "unassessable", "set_aside", "duplicate"}
    assert await running.findings() == []
