"""The demo's laboratory: the cast's counts as messages, and one MLLP connection that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Self

from engine.demo_table import Event, Patient
from engine.simulate import LABORATORIES, blood_count
from wire.ack import read_ack
from wire.mllp import Deframer, Frame, frame

__all__ = ["Feed", "Sender"]


class Sender:
    """``async with Sender(host, port) as lab: await lab.send(raw)``, one message in flight."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 10) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._deframer = Deframer()
        self.sent = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, raw: bytes) -> str:
        """The code of the answer, "" when there was none in time."""
        self._writer.write(frame(raw))
        self.sent += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                while data := await self._reader.read(65536):
                    for event in self._deframer.feed(data):
                        if isinstance(event, Frame):
                            answer = read_ack(event.payload)
                            return answer.code if answer else ""
        except TimeoutError:
            pass
        return ""


class Feed:
    """Turns the cast into messages. ``now`` is the demo's beginning, in the site's zone; its counts are drawn just before."""

    def __init__(self, cast: tuple[Patient, ...], now: datetime) -> None:
        self.drawn = now - timedelta(minutes=10)
        self._cast = {patient.id: patient for patient in cast}
        self._number = 0
        self._before = b""

    def history(self) -> Iterator[bytes]:
        """Every count of the last 90 days, patient by patient, oldest first."""
        morning = self.drawn.replace(hour=7, minute=40, second=0, microsecond=0)
        for patient in self._cast.values():
            for day, count in patient.history:
                at = morning + timedelta(days=day)
                yield self._count(patient, count, at, f"{patient.id}{day}")

    def message(self, event: Event) -> tuple[str, bytes]:
        """What the laboratory sends for this event: in words, and in bytes."""
        words, raw = self._message(event)
        self._before = raw
        return words, raw

    def _message(self, event: Event) -> tuple[str, bytes]:
        match event.what:
            case "count":
                patient = self._cast[event.patient]
                raw = self._count(patient, patient.live, self.drawn, f"{patient.id}-LIVE")
                return f"{patient.id}: {_giga(patient.live)} G/L", raw
            case "correction":
                patient = self._cast[event.patient]
                count = patient.corrected or patient.live
                raw = self._count(patient, count, self.drawn, f"{patient.id}-LIVE", status="C")
                return f"{patient.id}: corrected to {_giga(count)} G/L", raw
            case "no-unit":
                patient = self._cast[event.patient]
                at = self.drawn + timedelta(minutes=1)
                raw = self._count(patient, patient.live, at, f"{patient.id}-NO-UNIT", unit="")
                return f"{patient.id}: a count without its unit", raw
            case "unenrolled":
                return "somebody who is not on the register", self.stranger()
            case "other":
                return "a lipid panel, no blood count", self._lipids()
            case "duplicate":
                return "the message before, once more", self._before
            case "malformed":
                return "something that is not HL7", b"MSG/^~\\&/NOT A MESSAGE\rEVN?\r"
            case other:
                raise ValueError(f"unknown event {other!r} in cast.toml")

    def stranger(self) -> bytes:
        number = self._next()
        return blood_count(
            control_id=f"DEMO{number:05d}",
            filler=f"STRANGER-{number}",
            patient_id=f"DEMO-STRANGER-{number}",
            anc_per_mm3=2400 + number % 20 * 100,
            collected=self.drawn,
            laboratory=LABORATORIES[number % len(LABORATORIES)],
        )

    def _count(
        self, patient: Patient, count: int, at: datetime, filler: str, *, status: str = "F", unit: str | None = None
    ) -> bytes:
        return blood_count(
            control_id=f"DEMO{self._next():05d}",
            filler=filler,
            patient_id=patient.id,
            anc_per_mm3=count,
            collected=at,
            laboratory=LABORATORIES[patient.laboratory],
            family="EXEMPLE",
            given=patient.id,
            status=status,
            unit=unit,
        )

    def _lipids(self) -> bytes:
        number, at = self._next(), self.drawn.strftime("%Y%m%d%H%M%S%z")
        lines = (
            f"MSH|^~\\&|SIMLAB-NORD|LABO-EXEMPLE-1|NEUTROFLAG|HOPITAL-EXEMPLE|{at}||ORU^R01|DEMO{number:05d}|P|2.5",
            "PID|1||DEMO-STRANGER-0^^^HOPITAL-EXEMPLE&2.999.1&ISO^PI||EXEMPLE^Lipides^^^^^L||19700101|U",
            f"OBR|1||LIPIDS-{number}|24331-1^Bilan lipidique^LN|||{at}",
            "OBX|1|NM|2093-3^Cholestérol^LN||5.1|mmol/L|||||F",
            "OBX|2|NM|2571-8^Triglycérides^LN||1.2|mmol/L|||||F",
        )
        return "\r".join(lines).encode() + b"\r"

    def _next(self) -> int:
        self._number += 1
        return self._number


def _giga(count: int) -> str:
    return f"{count // 1000}.{count % 1000 // 10:02d}"
