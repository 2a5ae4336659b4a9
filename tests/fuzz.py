"""Searches for bytes that break reading: ``python tests/fuzz.py --seconds 120``. One line a target; exit 1 on a find.

The invariant: for any bytes, framing and reading return, within two seconds, in dispositions that agree with themselves;
bytes fed whole and one by one give the same frames; each message gets one answer, which names it; nothing that a
destination says counts as a delivery but a delivery. A find is written to ``fixtures/found/`` and belongs there, read by
``tests/ingest/reading/test_found.py``, once it is mended.

Guided by coverage where ``atheris`` can be imported (its wheel is no part of our locks: ``pip install atheris``); without it
the same mutations run blind, and the first line says so.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FOUND = ROOT / "fixtures" / "found"
SLOWEST_S = 2.0
_DISPOSITIONS = {"results", "not_relevant", "unassessable", "set_aside"}
_HEAD = (
    b"MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01|M1|P|2.5\rPID|1||405660^^^CHX^PI\r"
    b"OBX|1|ED|11502-2^CR^LN||^TEXT^XML^Base64^"
)
_PIECES = (
    *(
        b"|",
        b"^",
        b"~",
        b"\\",
        b"&",
        b"\r",
        b"\n",
        b'""',
        b"\x0b",
        b"\x1c\r",
        b"\xff",
        b"\x00",
        b"OBX|",
        b"MSH|^~\\&|",
        b"1,250",
    ),
    *(
        b"<",
        b">",
        b"<!DOCTYPE x>",
        b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]>',
        b'<!ENTITY % d SYSTEM "file:///etc/hostname"> %d;',
        b"&c;",
        b'<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="file:///etc/hostname"/>',
        b"<?xml version='1.0' encoding='utf-16'?>",
        b"&#0;",
        b"]]>",
        b"{",
        b"}",
        b"[",
        b'"',
        b":",
        b"1e999999",
        b'"component":',
        b"751-8",
        b"%",
    ),
    *(
        b"A|",
        b"L|1\r",
        b"H|~^\\&|",
        b"P|1\r",
        b"<observation/>",
        b"10*9/L",
        b"\\X0D\\",
        b"\xc3\xa9",
        b"\xe9",
        b"FHS|\r",
        b"BTS|9\r",
    ),
)


def check(raw: bytes) -> None:
    """Raises AssertionError where reading breaks its word."""
    from engine.cli_read import line_of
    from ingest.reading import read_file
    from rules.model import ResultStatus, Trust

    for index, reading in enumerate(read_file(raw)):
        assert reading.disposition in _DISPOSITIONS
        assert (reading.disposition == "results") == bool(reading.results)
        assert len({entry.where for entry in reading.ledger}) == len(reading.ledger), "two entries of one place"
        for result in reading.results:
            doubtful = bool(result.doubts) or result.status is ResultStatus.PRELIMINARY
            assert (result.trust is Trust.PROVISIONAL) == doubtful
            assert result.anc is None or (result.anc.per_mm3.is_finite() and result.anc.per_mm3 >= 0)
        line_of("f", index, reading)


def check_frames(raw: bytes) -> None:
    from wire.mllp import Deframer

    whole, single = Deframer(1 << 16), Deframer(1 << 16)
    once = whole.feed(raw)
    bit_by_bit = [event for n in range(len(raw)) for event in single.feed(raw[n : n + 1])]
    frames = [event for event in once if type(event).__name__ == "Frame"]
    assert frames == [event for event in bit_by_bit if type(event).__name__ == "Frame"], (
        "frames depend on how bytes come"
    )


def check_enclosed(raw: bytes) -> None:
    check(_HEAD + base64.b64encode(raw) + b"||||||F\r")


def check_doors(raw: bytes) -> None:
    """What the doors make of a body before it is stored, and what they answer."""
    from ingest import envelope
    from ingest.fhir_http import stored_as
    from wire import ack

    stored = stored_as(raw, channel="fhir", peer="")
    assert stored.raw is raw
    assert bool(stored.dedupe_key) <= (not stored.refused)
    parts = envelope.pieces(raw)
    assert parts
    for piece in parts:
        header, item = envelope.hl7v2(piece, channel="mllp", peer="", now=_NOON)
        assert item.raw is piece
        code, error = ack.verdict(header)
        answer = ack.acknowledge(header, code, control_id="A1", now=_NOON, error=error)
        assert answer.count(b"\rMSA") == 1, "another number of MSA than one"
        back = ack.read_ack(answer)
        assert back is not None, "an answer that nobody can read"
        assert back.code == code
        if header is not None and header.control_id.isalnum() and header.control_id.isascii():
            assert back.control_id == header.control_id, "another message is answered"


def check_answers(raw: bytes) -> None:
    """What a destination says: never a delivery that was not said for every entry."""
    from emitters.fhir_answers import failed, read_json, read_transaction_response
    from emitters.sink import Delivered
    from wire.ack import read_ack

    said = read_ack(raw)
    assert said is None or not (said.accepted and said.rejected)
    known = read_json(raw)
    taken = read_transaction_response(raw, [{"request": {}}, {"request": {"ifMatch": "1"}}])
    assert not isinstance(taken, Delivered) or (known is not None and len(known["entry"]) == 2)
    for status in (400, 401, 412, 500):
        assert not isinstance(failed(status, {"retry-after": raw[:40].decode("latin-1")}, raw), Delivered)


_NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

TARGETS: dict[str, tuple[Callable[[bytes], None], str]] = {
    "frames": (check_frames, "hl7v2/*.hl7"),
    "er7": (check, "hl7v2/*.hl7"),
    "fhir": (check, "fhir/*.json"),
    "cda": (check, "cda/*.xml"),
    "enclosed": (check_enclosed, "cda/*.xml"),
    "hprim": (check, "hprim/*.hpr"),
    "doors": (check_doors, "*/*.[hjx]*"),
    "answers": (check_answers, "answers/*"),
}


def seeds_of(target: str) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((ROOT / "fixtures").glob(TARGETS[target][1]))]
    assert found, f"{target}: nothing to begin with"
    return [b"\x0b" + seed + b"\x1c\r" for seed in found] if target == "frames" else found


def mutated(raw: bytes, other: bytes, draw: random.Random) -> bytes:
    """A few cuts, repeats, changed bits and pieces of the grammar; sometimes the half of another seed."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 6)):
        at = draw.randint(0, len(data))
        match draw.randrange(5):
            case 0:
                data[at : at + draw.randint(0, 40)] = b""
            case 1:
                data[at:at] = draw.choice(_PIECES)
            case 2 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 3:
                data[at:at] = data[at : at + draw.randint(1, 200)]
            case _:
                start = draw.randint(0, len(other))
                data[at : at + draw.randint(0, 80)] = other[start : start + draw.randint(1, 200)]
    return bytes(data[:200_000])


def tried(call: Callable[[bytes], None], raw: bytes, target: str) -> None:
    """One input; a find is kept before it is raised."""
    started = time.process_time()
    try:
        call(raw)
        took = time.process_time() - started
        assert took < SLOWEST_S, f"{took:.1f} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        FOUND.mkdir(exist_ok=True)
        path = FOUND / f"{target}-{hashlib.blake2b(raw, digest_size=6).hexdigest()}.bin"
        path.write_bytes(raw)
        print(f"{target}: {type(error).__name__}: {str(error)[:200]} -> {path.relative_to(ROOT)}", file=sys.stderr)
        raise


def blind(target: str, seconds: float, seed: int) -> int:
    call, seeds, draw = TARGETS[target][0], seeds_of(target), random.Random(seed)
    ends, runs = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        tried(call, mutated(draw.choice(seeds), draw.choice(seeds), draw), target)
        runs += 1
    return runs


def guided(target: str, seconds: float, seed: int) -> None:
    """Never returns: libFuzzer ends the process, with its own code where it found something."""
    import atheris

    with atheris.instrument_imports(include=["ingest", "wire", "emitters"]):
        import ingest.envelope
        import ingest.fhir_http
        import ingest.reading  # noqa: F401
        import wire.mllp  # noqa: F401
    call, draw = TARGETS[target][0], random.Random(seed)
    seeds = seeds_of(target)
    corpus = tempfile.mkdtemp()
    for number, raw in enumerate(seeds):
        (Path(corpus) / str(number)).write_bytes(raw)

    def mutate(data: bytes, most: int, _: int) -> bytes:
        return mutated(data, draw.choice(seeds), draw)[:most] if draw.random() < 0.7 else atheris.Mutate(data, most)

    options = [
        f"-max_total_time={int(seconds)}",
        f"-max_len={4000 if target == 'frames' else 60000}",
        "-timeout=20",
        f"-seed={seed}",
        "-verbosity=1",
    ]
    options += ["-print_final_stats=1", f"-artifact_prefix={corpus}/", corpus]
    atheris.Setup([sys.argv[0], *options], lambda data: tried(call, data, target), custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        import atheris  # noqa: F401

        coverage = True
    except ImportError:
        coverage = False
    if given.one:
        guided(given.one, given.seconds, given.seed)
    print("guided by coverage (atheris)" if coverage else "blind: atheris is not installed", flush=True)
    failed = 0
    for target in given.target or TARGETS:
        if not coverage:
            try:
                print(f"{target}: {blind(target, given.seconds, given.seed)} inputs, no find", flush=True)
            except Exception:
                failed = 1
            continue
        command = [
            sys.executable,
            __file__,
            "--one",
            target,
            "--seconds",
            str(given.seconds),
            "--seed",
            str(given.seed),
        ]
        done: Any = subprocess.run(command, capture_output=True, text=True, check=False)
        stats = dict(line[6:].split(":", 1) for line in done.stderr.splitlines() if line.startswith("stat::"))
        runs = stats.get("number_of_executed_units", "?").strip()
        covered = [line for line in done.stderr.splitlines() if " cov: " in line]
        edges = covered[-1].split("cov: ")[1].split()[0] if covered else "?"
        print(f"{target}: {runs} inputs, {edges} edges, {'no find' if not done.returncode else 'A FIND'}", flush=True)
        if done.returncode:
            print("\n".join(done.stderr.splitlines()[-25:]), file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
