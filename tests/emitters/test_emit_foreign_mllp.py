"""A receiver that none of us wrote takes our alerts: python-hl7's MLLP server, its parser and its acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import hl7
import hl7.mllp
import pytest

from emitters.hl7v2 import V2Profile
from emitters.mllp import MllpDestination, MllpSettings
from emitters.sink import Delivered, Refused, TryAgain
from rules.model import AlertKind


class Receiver:
    def __init__(self) -> None:
        self.received: list[hl7.Message] = []
        self.code = "AA"
        self.port = 0

    async def serve(self, reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.received.append(message)
                writer.writemessage(message.create_ack(self.code))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with await hl7.mllp.start_hl7_server(made.serve, "127.0.0.1", 0, encoding="utf-8") as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


def sink_to(receiver: Receiver, **profile: Any) -> MllpDestination:
    return MllpDestination(
        MllpSettings(name="v2", host="127.0.0.1", port=receiver.port, timeout_s=5, profile=V2Profile(**profile))
    )


@pytest.mark.parametrize("shape", ["ORU_R01", "MDM_T02"])
async def test_it_takes_every_notification_of_an_alert_on_one_connection(receiver, make, shape):
    sink = sink_to(receiver, shape=shape)
    alerts = [make.alert(), make.later(), make.later(revision=3, kind=AlertKind.WITHDRAWN, reason="corrected")]
    for number, alert in enumerate(alerts):
        assert await sink.send(alert, f"c{number}") == Delivered("MSA-1 AA")
    await sink.close()
    assert [str(message["MSH.F10"]) for message in receiver.received] == ["c0", "c1", "c2"]
    texts = [str(row) for message in receiver.received for row in message.segments("OBX") if "ANC-TEXT" in str(row)]
    assert all("arrêter la clozapine" in text for text in texts)
    assert "ALERTE ANNULÉE" in texts[2]


async def test_its_refusals_are_classed_by_their_code(receiver, make):
    sink = sink_to(receiver)
    receiver.code = "AE"
    assert await sink.send(make.alert(), "c1") == TryAgain("MSA-1 AE")
    receiver.code = "AR"
    assert await sink.send(make.alert(), "c1") == Refused("ar", "MSA-1 AR")
    receiver.code = "AA"
    assert await sink.send(make.alert(), "c1") == Delivered("MSA-1 AA")
    await sink.close()
    assert [str(message["MSH.F10"]) for message in receiver.received] == ["c1"] * 3
