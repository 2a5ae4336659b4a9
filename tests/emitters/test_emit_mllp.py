"""The MLLP destination over real sockets: an acknowledgement counts only for the message that it names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from emitters.hl7v2 import V2Profile
from emitters.mllp import MllpDestination, MllpSettings
from emitters.sink import Delivered, Refused, TryAgain
from engine.prescriber import AckFault, Prescriber

FIRST, SECOND = "8f0c2b6e7a614c0f9a10", "1111111111111111ffff"


def destination(ehr: Prescriber, **settings) -> MllpDestination:
    given = {"name": "v2", "host": "127.0.0.1", "port": ehr.mllp_port, "timeout_s": 0.4, "connect_timeout_s": 1.0}
    return MllpDestination(MllpSettings(**given | settings))


@pytest.fixture
async def sink(ehr: Prescriber) -> AsyncIterator[MllpDestination]:
    made = destination(ehr)
    yield made
    await made.close()


async def test_an_alert_arrives_and_is_acknowledged(ehr, sink, make):
    assert await sink.send(make.alert(), FIRST) == Delivered("MSA-1 AA")
    assert b"ANC-STOP" in ehr.messages()[FIRST]


async def test_one_connection_carries_many_in_order(ehr, sink, make):
    ids = [f"{n:020x}" for n in range(30)]
    answers = await asyncio.gather(*(sink.send(make.alert(), one) for one in ids))
    assert set(answers) == {Delivered("MSA-1 AA")}
    assert list(ehr.messages()) == ids
    assert len(ehr._peers) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [("AA", Delivered), ("AE", TryAgain), ("AR", Refused), ("CA", Delivered), ("CE", TryAgain), ("CR", Refused)],
)
async def test_each_code_has_its_class(ehr, sink, make, code, expected):
    ehr.ack_faults.append(AckFault(code=code))
    answer = await sink.send(make.alert(), FIRST)
    assert type(answer) is expected
    if isinstance(answer, Refused):
        assert answer.code == code.lower()


async def test_enhanced_mode_takes_the_accept_acknowledgement(ehr, make):
    sink = destination(ehr, enhanced=True)
    assert await sink.send(make.alert(), FIRST) == Delivered("MSA-1 CA")
    assert b"|AL|NE|FRA|" in ehr.messages()[FIRST]
    await sink.close()


async def test_an_acknowledgement_of_another_message_is_not_ours(ehr, sink, make):
    ehr.ack_faults.append(AckFault(control_id=SECOND))
    assert await sink.send(make.alert(), FIRST) == TryAgain("no acknowledgement in time: ambiguous")
    assert sink.stray["other-id"] == 1


async def test_a_late_acknowledgement_is_never_credited_to_the_next_message(ehr, sink, make):
    ehr.ack_faults.append(AckFault(delay_s=0.8))
    ehr.ack_faults.append(AckFault(silent=True))
    assert isinstance(await sink.send(make.alert(), FIRST), TryAgain)
    assert isinstance(await sink.send(make.later(), SECOND), TryAgain)
    await asyncio.sleep(0.6)
    assert await sink.send(make.later(), SECOND) == Delivered("MSA-1 AA")


async def test_a_stray_answer_before_ours_is_passed_over(make):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\x1c\r")
        for control_id in (SECOND, "", FIRST):
            writer.write(f"\x0bMSH|^~\\&|A|B|C|D|20261122||ACK|1|P|2.5\rMSA|AA|{control_id}\r\x1c\r".encode())
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    sink = MllpDestination(MllpSettings(name="v2", host="127.0.0.1", port=port, timeout_s=1.0))
    assert await sink.send(make.alert(), FIRST) == Delivered("MSA-1 AA")
    assert sink.stray["other-id"] == 2
    await sink.close()
    listener.close()


async def test_an_acknowledgement_in_pieces_is_whole(ehr, sink, make):
    ehr.ack_faults.append(AckFault(pieces=40))
    assert isinstance(await sink.send(make.alert(), FIRST), Delivered)


@pytest.mark.parametrize(
    "raw", [b"\x0b\x1c\r", b"\x0bgarbage\x1c\r", b"no frame at all", b"\x0bMSH|^~\\&|half", b"\x0b\x06\x1c\r"]
)
async def test_what_is_no_acknowledgement_is_none(ehr, sink, make, raw):
    ehr.ack_faults.append(AckFault(raw=raw))
    assert isinstance(await sink.send(make.alert(), FIRST), TryAgain)
    assert isinstance(await sink.send(make.alert(), FIRST), Delivered)


async def test_the_words_of_a_refusal_are_not_kept(make):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\x1c\r")
        head = "MSH|^~\\&|A|B|C|D|20261122||ACK|1|P|2.5"
        writer.write(f"\x0b{head}\rMSA|AR|{FIRST}|PAT-TROIS unknown\rERR||PID|204^PAT-TROIS|E\r\x1c\r".encode())
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    sink = MllpDestination(MllpSettings(name="v2", host="127.0.0.1", port=port, timeout_s=1.0))
    assert await sink.send(make.alert(), FIRST) == Refused("ar", "MSA-1 AR (204)")
    await sink.close()
    listener.close()


async def test_a_retry_is_recognisable_by_its_control_id(ehr, sink, make):
    ehr.ack_faults.append(AckFault(hang_up=True))
    assert isinstance(await sink.send(make.alert(), FIRST), TryAgain)
    assert isinstance(await sink.send(make.alert(), FIRST), Delivered)
    assert ehr.duplicates == 1
    assert list(ehr.messages()) == [FIRST]


async def test_a_connection_that_the_peer_closed_while_idle_costs_no_try(ehr, sink, make):
    await sink.send(make.alert(), FIRST)
    await ehr.down()
    await ehr.up()
    assert isinstance(await sink.send(make.alert(), SECOND), Delivered)


async def test_a_destination_that_goes_down_and_comes_back(ehr, sink, make):
    await sink.send(make.alert(), FIRST)
    await ehr.down()
    answer = await sink.send(make.later(), SECOND)
    assert isinstance(answer, TryAgain)
    assert answer.down
    await ehr.up()
    assert isinstance(await sink.send(make.later(), SECOND), Delivered)


async def test_cancelling_a_send_closes_the_connection(ehr, sink, make, eventually):
    ehr.ack_faults.append(AckFault(silent=True))
    sending = asyncio.create_task(sink.send(make.alert(), FIRST))
    await eventually(lambda: not ehr.ack_faults)  # it has come, and is not answered
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await sink.send(make.alert(), SECOND) == Delivered("MSA-1 AA")
    assert sink.stray.total() == 0


async def test_an_alert_that_cannot_be_written_is_a_dead_letter(ehr, sink, make):
    assert (await sink.send(make.alert(), "not|an|id")).code == "unwritable"
    assert ehr.messages() == {}


async def test_a_latin_destination_gets_latin_bytes(ehr, make):
    sink = destination(ehr, profile=V2Profile(charset="8859/15"))
    await sink.send(make.alert(), FIRST)
    assert "arrêter".encode("iso8859-15") in ehr.messages()[FIRST]
    await sink.close()
