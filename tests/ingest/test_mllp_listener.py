"""The MLLP door on real sockets, with a real store behind it: what it answers, in which order, and what it survives.

The first fourteen tests are the fourteen trials of a listener that no engine tried passes all of.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ingest.limits import MllpLimits
from ingest.mllp import MllpListener
from store import Accepted, Envelope, StoreUnavailable

VT, FS, CR = b"\x0b", b"\x1c", b"\r"


def block(raw: bytes) -> bytes:
    return VT + raw + FS + CR


class Counted:
    """The meter's port, kept as numbers."""

    def __init__(self) -> None:
        self.messages = 0
        self.answers = 0
        self.events: Counter[str] = Counter()

    def received(self, channel: str, form: str, disposition: str = "") -> None:
        self.messages += 1

    def acknowledged(self, channel: str, seconds: float) -> None:
        self.answers += 1

    def noticed(self, channel: str, event: str, count: int = 1) -> None:
        self.events[event] += count


class Gate:
    """The port that tells when a message is judged: here, when the test says so."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = asyncio.Event()

    async def __call__(self, message_id: int) -> None:
        self.asked.append(message_id)
        await self.open.wait()


class Broken:
    """An inbox on a disk that is full for the first ``times`` messages."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.taken: list[Envelope] = []

    async def accept(self, envelope: Envelope) -> Accepted:
        if self.left:
            self.left -= 1
            raise StoreUnavailable("disk full")
        self.taken.append(envelope)
        return Accepted(len(self.taken))


class Slow:
    """An inbox that takes nothing before the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken: list[Envelope] = []

    async def accept(self, envelope: Envelope) -> Accepted:
        await self.go.wait()
        self.taken.append(envelope)
        return Accepted(len(self.taken))


class Door:
    def __init__(self, listener: MllpListener, meter: Counted, gate: Gate, connect: Any) -> None:
        self.listener, self.meter, self.gate, self._connect = listener, meter, gate, connect

    async def lab(self) -> Any:
        return await self._connect(self.listener.port)


@pytest.fixture
async def open_door(connect: Any) -> AsyncIterator[Callable[..., Awaitable[Door]]]:
    opened: list[MllpListener] = []

    async def make(inbox: Any, **limits: Any) -> Door:
        meter, gate, numbers = Counted(), Gate(), itertools.count(1)
        listener = MllpListener(
            inbox, meter, gate, new_control_id=lambda: f"ACK{next(numbers)}", limits=MllpLimits(**limits)
        )
        await listener.start("127.0.0.1", 0)
        opened.append(listener)
        return Door(listener, meter, gate, connect)

    yield make
    for listener in opened:
        await listener.stop(grace_s=1)


@pytest.fixture
async def door(open_door: Any, store: Any) -> Door:
    opened: Door = await open_door(store)
    return opened


def said(ack: Any) -> tuple[str, str]:
    return ack.code, ack.control_id


# Fourteen trials


async def test_a_plain_message_is_accepted_under_its_own_control_id(door: Door, hl7: Any, rows_of: Any) -> None:
    raw = hl7.oru("M1")
    lab = await door.lab()
    assert said(await lab.ask(raw)) == ("AA", "M1")
    assert rows_of("select control_id, raw from message join body on message_id = message.id") == [("M1", raw)]


async def test_two_messages_in_one_write_get_two_answers_in_order(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1")) + block(hl7.oru("M2")))
    assert [said(await lab.ack()), said(await lab.ack())] == [("AA", "M1"), ("AA", "M2")]


async def test_one_byte_at_a_time_is_one_message(door: Door, hl7: Any, rows_of: Any) -> None:
    lab = await door.lab()
    for byte in block(hl7.oru("M1")):
        await lab.write(bytes([byte]))
        await asyncio.sleep(0)
    assert said(await lab.ack()) == ("AA", "M1")
    assert rows_of("select count(*) from message") == [1]


async def test_junk_before_the_frame_is_counted_and_passed_over(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(b"junk" + block(hl7.oru("M1")))
    assert said(await lab.ack()) == ("AA", "M1")
    assert door.meter.events["noise_bytes"] == 4


async def test_a_frame_end_without_cr_and_then_the_next_frame_are_two_messages(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(VT + hl7.oru("M1") + FS + VT + hl7.oru("M2") + FS + CR)
    assert [said(await lab.ack()), said(await lab.ack())] == [("AA", "M1"), ("AA", "M2")]


async def test_a_frame_end_without_cr_is_answered_without_waiting_for_more(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(VT + hl7.oru("M1") + FS)
    assert said(await lab.ack()) == ("AA", "M1")


async def test_line_feeds_between_segments_are_read(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    assert said(await lab.ask(hl7.oru("M1").replace(b"\r", b"\n"))) == ("AA", "M1")
    assert said(await lab.ask(hl7.oru("M2").replace(b"\r", b"\r\n"))) == ("AA", "M2")


async def test_a_latin_1_letter_does_not_hang_the_reader(door: Door, hl7: Any, rows_of: Any) -> None:
    raw = hl7.oru("M1", charset="8859/1").replace(b"DOMINIQUE", b"RENE\xe9")
    lab = await door.lab()
    assert said(await lab.ask(raw)) == ("AA", "M1")
    assert rows_of("select raw from body") == [raw]


async def test_a_frame_that_is_not_hl7_is_rejected_kept_and_the_connection_stays_open(
    door: Door, hl7: Any, rows_of: Any
) -> None:
    lab = await door.lab()
    ack = await lab.ask(b"hello, is anybody there?")
    assert (ack.code, ack.control_id, ack.errors) == ("AR", "", ("100",))
    assert said(await lab.ask(hl7.oru("M2"))) == ("AA", "M2")
    assert rows_of("select raw from body join message on message_id = id where control_id = ''") == [
        b"hello, is anybody there?"
    ]


@pytest.mark.parametrize("kind", ["ORM^O01", "QBP^Q11", "OML^O21", "QRY^R02"])
async def test_a_type_that_we_do_not_handle_is_rejected_with_200_and_kept(
    door: Door, hl7: Any, rows_of: Any, kind: str
) -> None:
    lab = await door.lab()
    ack = await lab.ask(hl7.other(kind, "M1"))
    assert (ack.code, ack.control_id, ack.errors) == ("AR", "M1", ("200",))
    assert rows_of("select count(*) from message") == [1]


async def test_enhanced_mode_gets_the_commit_and_then_the_judgement(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    assert said(await lab.ask(hl7.oru("M1", accept="AL", application="AL"))) == ("CA", "M1")
    assert door.gate.asked == [1]
    door.gate.open.set()
    assert said(await lab.ack()) == ("AA", "M1")


async def test_a_batch_of_two_gets_one_answer_each(door: Door, hl7: Any, rows_of: Any) -> None:
    lab = await door.lab()
    head, tail = b"FHS|^~\\&|SIL|LABO\rBHS|^~\\&|SIL|LABO\r", b"BTS|2\rFTS|1\r"
    await lab.write(block(head + hl7.oru("M1") + hl7.oru("M2") + tail))
    assert [said(await lab.ack()), said(await lab.ack())] == [("AA", "M1"), ("AA", "M2")]
    assert rows_of("select control_id from message order by id") == ["M1", "M2"]


async def test_a_second_start_in_mid_frame_drops_the_partial_and_answers_the_whole_one(
    door: Door, hl7: Any, rows_of: Any
) -> None:
    lab = await door.lab()
    await lab.write(VT + hl7.oru("M1")[:40] + block(hl7.oru("M2")))
    assert said(await lab.ack()) == ("AA", "M2")
    assert door.meter.events["frame_restarted"] == 1
    assert rows_of("select control_id from message") == ["M2"]


async def test_a_frame_of_twenty_megabytes_is_taken_whole(door: Door, hl7: Any, rows_of: Any) -> None:
    raw = hl7.oru("BIG") + b"OBX|2|ED|11502-2^CR^LN||^TEXT^XML^Base64^" + b"QUFB" * (5 * 1024 * 1024) + b"||||||F\r"
    assert len(raw) > 20 * 1024 * 1024
    lab = await door.lab()
    assert said(await lab.ask(raw)) == ("AA", "BIG")
    (stored,) = rows_of("select raw from body")
    assert hashlib.sha256(stored).digest() == hashlib.sha256(raw).digest()


async def test_it_is_still_alive_after_all_of_it_on_one_connection(door: Door, hl7: Any, rows_of: Any) -> None:
    lab = await door.lab()
    await lab.write(
        b"junk"
        + block(hl7.oru("M1"))
        + VT
        + hl7.oru("M2")
        + FS
        + VT
        + b"partial"
        + block(hl7.oru("M3").replace(b"\r", b"\n"))
        + block(b"")
        + block(b"nothing")
        + block(hl7.other("QBP^Q11", "M4"))
        + block(hl7.oru("M5"))
    )
    answers = [said(await lab.ack()) for _ in range(7)]
    assert answers == [("AA", "M1"), ("AA", "M2"), ("AA", "M3"), ("AR", ""), ("AR", ""), ("AR", "M4"), ("AA", "M5")]
    assert rows_of("select count(*) from message") == [7]


# Which answers


@pytest.mark.parametrize(
    ("accept", "application", "expected"),
    [
        ("", "", ["AA"]),
        ("AL", "NE", ["CA"]),
        ("AL", "", ["CA"]),
        ("SU", "NE", ["CA"]),
        ("ER", "NE", []),
        ("NE", "NE", []),
        ("NE", "AL", ["AA"]),
        ("", "AL", ["AA"]),
        ("ER", "SU", ["AA"]),
        ("AL", "ER", ["CA"]),
        ("AL", "SU", ["CA", "AA"]),
        ("al", "al", ["CA", "AA"]),
    ],
)
async def test_a_taken_message_gets_the_answers_it_asks_for(
    door: Door, hl7: Any, accept: str, application: str, expected: list[str]
) -> None:
    door.gate.open.set()
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1", accept=accept, application=application)))
    await lab.write(block(hl7.oru("LAST")))
    codes = [said(await lab.ack()) for _ in range(len(expected) + 1)]
    assert sorted(codes) == sorted([*((code, "M1") for code in expected), ("AA", "LAST")])


@pytest.mark.parametrize(
    ("accept", "application", "expected"),
    [
        ("AL", "NE", ["CR"]),
        ("ER", "NE", ["CR"]),
        ("SU", "NE", []),
        ("NE", "NE", []),
        ("NE", "AL", ["AR"]),
        ("ER", "ER", ["CR", "AR"]),
        ("SU", "SU", []),
    ],
)
async def test_a_rejected_message_gets_the_answers_it_asks_for(
    door: Door, hl7: Any, accept: str, application: str, expected: list[str]
) -> None:
    door.gate.open.set()
    lab = await door.lab()
    await lab.write(block(hl7.other("ORM^O01", "M1", accept=accept, application=application)))
    await lab.write(block(hl7.oru("LAST")))
    codes = [said(await lab.ack()) for _ in range(len(expected) + 1)]
    assert sorted(codes) == sorted([*((code, "M1") for code in expected), ("AA", "LAST")])


async def test_the_application_answer_comes_only_after_the_judgement(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1", accept="AL", application="AL")) + block(hl7.oru("M2")))
    assert [said(await lab.ack()), said(await lab.ack())] == [("CA", "M1"), ("AA", "M2")]
    door.gate.open.set()
    assert said(await lab.ack()) == ("AA", "M1")


async def test_an_acknowledgement_is_stored_and_never_acknowledged(door: Door, hl7: Any, rows_of: Any) -> None:
    lab = await door.lab()
    await lab.write(block(hl7.other("ACK^R01^ACK", "A1") + b"MSA|AA|M0\r"))
    assert said(await lab.ask(hl7.oru("LAST"))) == ("AA", "LAST")
    assert rows_of("select control_id from message order by id") == ["A1", "LAST"]


async def test_a_note_that_begins_with_the_letters_of_an_acknowledgement_is_still_answered(
    door: Door, hl7: Any
) -> None:
    lab = await door.lab()
    assert said(await lab.ask(hl7.oru("M1") + b"NTE|1|L|voir aussi\nMSAP du centre\r")) == ("AA", "M1")


@pytest.mark.parametrize("kind", ["ADT^A01", "ADT^A40", "ADT^A08^ADT_A01"])
async def test_a_movement_is_accepted(door: Door, hl7: Any, kind: str) -> None:
    lab = await door.lab()
    assert said(await lab.ask(hl7.other(kind, "M1"))) == ("AA", "M1")


async def test_a_duplicate_is_answered_as_before(door: Door, hl7: Any, rows_of: Any) -> None:
    raw = hl7.oru("M1")
    lab = await door.lab()
    assert [said(await lab.ask(raw)), said(await lab.ask(raw))] == [("AA", "M1"), ("AA", "M1")]
    assert rows_of("select disposition from message order by id") == [None, "duplicate"]


async def test_the_answer_turns_the_addresses_and_keeps_version_and_processing_id(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1", version="2.3.1", processing="T")))
    header, msa = (line.split(b"|") for line in (await lab.answer()).rstrip(b"\r").split(b"\r"))
    assert header[2:6] == [b"NEUTROFLAG", b"CHX", b"SIL", b"LABO"]
    assert (header[10], header[11]) == (b"T", b"2.3.1")
    assert msa == [b"MSA", b"AA", b"M1"]


async def test_answers_of_a_hundred_pipelined_messages_come_in_order(door: Door, hl7: Any, rows_of: Any) -> None:
    lab = await door.lab()
    await lab.write(b"".join(block(hl7.oru(f"M{n}")) for n in range(100)))
    assert [(await lab.ack()).control_id for _ in range(100)] == [f"M{n}" for n in range(100)]
    assert rows_of("select control_id from message order by id") == [f"M{n}" for n in range(100)]


async def test_several_connections_get_each_their_own_answers(door: Door, hl7: Any) -> None:
    labs = [await door.lab() for _ in range(8)]

    async def talk(number: int, lab: Any) -> list[str]:
        return [(await lab.ask(hl7.oru(f"C{number}-{n}"))).control_id for n in range(20)]

    heard = await asyncio.gather(*(talk(number, lab) for number, lab in enumerate(labs)))
    assert heard == [[f"C{number}-{n}" for n in range(20)] for number in range(8)]


# When things go wrong


@pytest.mark.parametrize(("accept", "expected"), [("", "AE"), ("AL", "CE"), ("ER", "CE")])
async def test_what_is_not_stored_is_never_accepted(open_door: Any, hl7: Any, accept: str, expected: str) -> None:
    inbox = Broken(times=1)
    door = await open_door(inbox)
    lab = await door.lab()
    ack = await lab.ask(hl7.oru("M1", accept=accept))
    assert (ack.code, ack.control_id, ack.errors) == (expected, "M1", ("207",))
    ack = await lab.ask(hl7.oru("M1"))
    assert said(ack) == ("AA", "M1")
    assert door.meter.events["store_unavailable"] == 1
    assert len(inbox.taken) == 1


class Faulty:
    """An inbox with a fault of ours in it."""

    async def accept(self, envelope: Envelope) -> Accepted:
        raise ZeroDivisionError


async def test_a_fault_of_ours_closes_the_connection_so_that_all_is_sent_again(open_door: Any, hl7: Any) -> None:
    door: Door = await open_door(Faulty())
    lab = await door.lab()
    with pytest.raises((ConnectionError, EOFError)):
        await lab.ask(hl7.oru("M1"))
    assert door.meter.events["internal_error"] == 1


async def test_one_refusal_among_pipelined_messages_hits_only_its_own(open_door: Any, hl7: Any) -> None:
    door = await open_door(Broken(times=1))
    lab = await door.lab()
    await lab.write(b"".join(block(hl7.oru(f"M{n}")) for n in range(3)))
    assert [said(await lab.ack()) for _ in range(3)] == [("AE", "M0"), ("AA", "M1"), ("AA", "M2")]


async def test_nothing_is_answered_before_it_is_stored(open_door: Any, hl7: Any) -> None:
    inbox = Slow()
    door = await open_door(inbox)
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1")))
    with pytest.raises(TimeoutError):
        await lab.answer(limit_s=0.2)
    inbox.go.set()
    assert said(await lab.ack()) == ("AA", "M1")


async def test_a_frame_beyond_the_limit_is_refused_and_the_next_one_is_taken(
    open_door: Any, store: Any, hl7: Any
) -> None:
    door = await open_door(store, max_frame_bytes=4096)
    lab = await door.lab()
    await lab.write(block(b"MSH|^~\\&|" + b"x" * 10_000) + block(hl7.oru("M2")))
    assert (await lab.ack()).code == "AR"
    assert said(await lab.ack()) == ("AA", "M2")
    assert door.meter.events["frame_oversize"] == 1


async def test_a_connection_too_many_is_closed_and_the_others_stay(open_door: Any, store: Any, hl7: Any) -> None:
    door = await open_door(store, max_connections=2)
    first, second = await door.lab(), await door.lab()
    assert said(await first.ask(hl7.oru("M1"))) == ("AA", "M1")
    assert said(await second.ask(hl7.oru("M2"))) == ("AA", "M2")
    third = await door.lab()
    assert await third.reader.read() == b""
    assert door.meter.events["connection_refused"] == 1
    await second.close()
    assert said(await first.ask(hl7.oru("M3"))) == ("AA", "M3")


async def test_while_the_store_is_behind_a_sender_is_held_back_and_nothing_is_lost(
    open_door: Any, hl7: Any, eventually: Any
) -> None:
    """TCP itself holds the sender: what it cannot write yet was never taken."""
    inbox = Slow()
    door = await open_door(inbox)
    lab = await door.lab()
    big = hl7.oru("BIG") + b"NTE|1||" + b"x" * 200_000 + b"\r"
    for _ in range(300):
        lab.writer.write(block(big))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lab.writer.drain(), 0.5)
    (connection,) = door.listener.connections
    assert len(connection._waiting) < 150
    inbox.go.set()
    answers = [(await lab.ack()).code for _ in range(300)]
    assert answers == ["AA"] * 300
    assert len(inbox.taken) == 300


async def test_a_sender_that_leaves_before_its_answer_has_its_message_stored_all_the_same(
    door: Door, hl7: Any, rows_of: Any, eventually: Any
) -> None:
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1")))
    lab.writer.transport.abort()
    await eventually(lambda: rows_of("select control_id from message") == ["M1"])
    other = await door.lab()
    assert said(await other.ask(hl7.oru("M2"))) == ("AA", "M2")


async def test_stopping_answers_what_was_taken_and_closes(
    open_door: Any, connect: Any, hl7: Any, eventually: Any
) -> None:
    inbox = Slow()
    door = await open_door(inbox)
    port = door.listener.port
    lab = await door.lab()
    await lab.write(block(hl7.oru("M1")) + block(hl7.oru("M2")))
    await eventually(lambda: door.listener.keeper.held_bytes)
    stopping = asyncio.create_task(door.listener.stop(grace_s=5))
    await asyncio.sleep(0.05)
    inbox.go.set()
    assert [said(await lab.ack()), said(await lab.ack())] == [("AA", "M1"), ("AA", "M2")]
    assert await lab.reader.read() == b""
    await stopping
    with pytest.raises(ConnectionError):
        await connect(port)


async def test_stopping_does_not_wait_for_idle_connections(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    await lab.ask(hl7.oru("M1"))
    await asyncio.wait_for(door.listener.stop(grace_s=60), 30)
    assert await lab.reader.read() == b""


async def test_an_idle_connection_is_closed_after_its_time(open_door: Any, store: Any, hl7: Any) -> None:
    door = await open_door(store, idle_timeout_s=0.2)
    lab = await door.lab()
    await lab.ask(hl7.oru("M1"))
    assert await asyncio.wait_for(lab.reader.read(), 10) == b""
    assert door.meter.events["idle_connection_closed"] == 1


async def test_received_and_answered_are_counted(door: Door, hl7: Any) -> None:
    lab = await door.lab()
    for n in range(3):
        await lab.ask(hl7.oru(f"M{n}"))
    assert (door.meter.messages, door.meter.answers) == (3, 3)


# Too much of something: refused with an answer, or left unread where it came from


async def test_a_connection_too_many_is_told_to_try_again(open_door: Any, store: Any, hl7: Any, rows_of: Any) -> None:
    door = await open_door(store, max_connections=1)
    first = await door.lab()
    assert said(await first.ask(hl7.oru("M1"))) == ("AA", "M1")
    second = await door.lab()
    ack = await second.ask(hl7.oru("M2"))
    assert (ack.code, ack.control_id, ack.errors) == ("AE", "M2", ("207",))
    assert await second.reader.read() == b""
    assert rows_of("select control_id from message") == ["M1"]
    await first.close()


async def test_one_peer_cannot_take_every_connection(open_door: Any, store: Any, hl7: Any, eventually: Any) -> None:
    door = await open_door(store, max_connections_per_peer=2)
    labs = [await door.lab() for _ in range(3)]
    assert [(await lab.ask(hl7.oru(f"M{n}", accept="AL"))).code for n, lab in enumerate(labs)] == ["CA", "CA", "CE"]
    assert door.meter.events["peer_connection_refused"] == 1
    # Its place is free again once one of its connections has ended.
    await labs[0].close()
    await eventually(lambda: len(door.listener.connections) == 1)
    anew = await door.lab()
    assert said(await anew.ask(hl7.oru("M9"))) == ("AA", "M9")


async def test_twelve_hundred_connections_are_each_answered(open_door: Any, store: Any, hl7: Any, rows_of: Any) -> None:
    door = await open_door(store, max_connections=1200, max_connections_per_peer=1200)
    labs = [await door.lab() for _ in range(1200)]
    for lab in labs[:50]:
        await lab.write(VT + b"MSH|^~")  # begun and never finished
    heard = await asyncio.gather(*(lab.ask(hl7.oru(f"M{n}")) for n, lab in enumerate(labs[50:])))
    assert {ack.code for ack in heard} == {"AA"}
    assert rows_of("select count(*) from message") == [1150]
    for lab in labs:
        lab.writer.transport.abort()


async def test_a_frame_that_never_ends_is_answered_and_let_go(
    open_door: Any, store: Any, hl7: Any, rows_of: Any
) -> None:
    door = await open_door(store, frame_timeout_s=0.4)
    slow = await door.lab()
    await slow.write(VT + hl7.oru("SLOW")[:-1])

    async def drip() -> None:
        while not slow.reader.at_eof():
            await slow.write(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    ack = await slow.ack()
    assert (ack.code, ack.control_id, ack.errors) == ("AE", "SLOW", ("207",))
    with contextlib.suppress(ConnectionResetError):  # it was still sending
        assert await slow.reader.read() == b""
    await asyncio.gather(dripping, return_exceptions=True)
    assert door.meter.events["frame_timeout"] == 1
    other = await door.lab()
    assert said(await other.ask(hl7.oru("M2"))) == ("AA", "M2")
    assert rows_of("select control_id from message") == ["M2"]


async def test_a_peer_that_sends_too_fast_is_held_back_and_loses_nothing(open_door: Any, store: Any, hl7: Any) -> None:
    door = await open_door(store, max_messages_per_s=20)
    labs = [await door.lab() for _ in range(3)]
    for number, lab in enumerate(labs):
        await lab.write(b"".join(block(hl7.oru(f"C{number}-{n}")) for n in range(10)))
    heard = [[(await lab.ack()).control_id for _ in range(10)] for lab in labs]
    assert heard == [[f"C{number}-{n}" for n in range(10)] for number in range(3)]
    assert said(await labs[2].ask(hl7.oru("LAST"))) == ("AA", "LAST")
    assert door.meter.events["rate_held"] >= 1  # all three are one address; 20 may come at once


async def test_a_sender_that_reads_no_answer_is_not_read_either(open_door: Any, store: Any, hl7: Any) -> None:
    door = await open_door(store)
    lab = await door.lab()
    assert said(await lab.ask(hl7.oru("M1"))) == ("AA", "M1")
    (connection,) = door.listener.connections
    connection.pause_writing()  # as the transport says when its buffer is full of answers
    await lab.write(block(hl7.oru("M2")))
    with pytest.raises(TimeoutError):
        await lab.answer(limit_s=0.3)
    connection.resume_writing()
    assert said(await lab.ack()) == ("AA", "M2")
    assert door.meter.events["answers_unread"] == 1


async def test_what_is_held_for_all_connections_together_is_bounded(open_door: Any, hl7: Any, eventually: Any) -> None:
    inbox = Slow()
    door = await open_door(inbox, max_held_bytes=1_000_000)
    labs = [await door.lab() for _ in range(8)]
    big = hl7.oru("BIG") + b"NTE|1||" + b"x" * 400_000 + b"\r"
    for lab in labs:
        lab.writer.write(block(big))
    await eventually(lambda: door.meter.events["memory_held"])
    await asyncio.sleep(0.2)
    assert door.listener.keeper.held_bytes < 1_000_000 + 8 * 300_000  # what was read at once goes over it
    inbox.go.set()
    assert [(await lab.ack()).code for lab in labs] == ["AA"] * 8
    assert len(inbox.taken) == 8
    await eventually(lambda: door.listener.keeper.held_bytes == 0)


async def test_nothing_is_held_once_everybody_has_left(open_door: Any, store: Any, hl7: Any, eventually: Any) -> None:
    door = await open_door(store)
    labs = [await door.lab() for _ in range(4)]
    for lab in labs:
        await lab.write(block(hl7.oru("M1")) + VT + b"MSH|^~\\&|begun")
        await lab.ack()
        lab.writer.transport.abort()
    await eventually(lambda: not door.listener.connections)
    assert door.listener.keeper.held_bytes == 0
    assert door.listener.keeper.admits("127.0.0.1") == ""
