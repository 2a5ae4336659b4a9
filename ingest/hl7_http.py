"""The HL7-over-HTTP door: one ER7 message in the body, its acknowledgement in the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from ingest import envelope, offered
from ingest.access import ANYBODY, Access, Refused, Unverifiable, beyond
from ingest.body import limited
from ingest.meter import Judged, Meter
from store import Accepted, Inbox, StoreUnavailable
from wire import ack, er7

__all__ = ["Hl7Door"]

CHANNEL = "hl7"
MEDIA_TYPE = "application/hl7-v2"
# The acknowledgement says it all; the HTTP status says it again for those who only look there.
_STATUS = {"AA": 200, "CA": 200, "AE": 503, "CE": 503, "AR": 400, "CR": 400}


class Hl7Door:
    def __init__(
        self,
        inbox: Inbox,
        meter: Meter,
        judged: Judged,
        *,
        new_control_id: Callable[[], str],
        max_body_bytes: int,
        access: Access = ANYBODY,
    ) -> None:
        self._inbox = inbox
        self._meter = meter
        self._judged = judged
        self._new_control_id = new_control_id
        self._max_body_bytes = max_body_bytes
        self._access = access
        self.router = APIRouter()
        self.router.add_api_route(
            "/hl7",
            self.post,
            methods=["POST"],
            summary="ER7 in, ACK out",
            responses=offered.HL7_ANSWERS,
            openapi_extra=offered.HL7_BODY,
        )

    async def post(self, request: Request) -> Response:
        arrived = time.perf_counter()
        try:
            admitted = await self._access.admit(request, CHANNEL)
        except Refused as refusal:
            self._meter.noticed(CHANNEL, "token_refused")
            return _plain("A bearer token is needed", 401, refusal.challenge)
        except Unverifiable:
            self._meter.noticed(CHANNEL, "issuer_unavailable")
            return _plain("The token cannot be verified now", 503, {"Retry-After": "10"})
        body = await limited(request, self._max_body_bytes)
        if body is None:
            self._meter.noticed(CHANNEL, "body_oversize")
            return self._respond(
                None, "AR", ack.AckError(199, f"Body exceeds {self._max_body_bytes} bytes"), status=413
            )
        pieces = envelope.pieces(body)
        if admitted.scopes is not None and (lacking := admitted.scopes.lacking(map(_need, pieces))):
            self._meter.noticed(CHANNEL, "scope_refused")
            return _plain(f"Needs {' '.join(lacking)}", 403, beyond(lacking))
        peer = self._access.peer(request, admitted.name)
        answers = [await self._one(piece, peer) for piece in pieces]
        self._meter.acknowledged(CHANNEL, time.perf_counter() - arrived)
        said = [answer for answer, _ in answers if answer]
        worst = max((status for _, status in answers), default=200)
        if not said:
            return Response(status_code=204)
        return Response(
            b"\r".join(part.rstrip(b"\r") for part in said) + b"\r", status_code=worst, media_type=MEDIA_TYPE
        )

    async def _one(self, raw: bytes, peer: str) -> tuple[bytes, int]:
        header, item = envelope.hl7v2(raw, channel=CHANNEL, peer=peer, now=datetime.now(UTC))
        wanted = ack.answers(header, has_msa=envelope.is_acknowledgement(raw, header))
        code, error = ack.verdict(header)
        try:
            stored: Accepted | None = await self._inbox.accept(item)
        except StoreUnavailable:
            stored = None
            code, error = ("CE" if wanted.enhanced else "AE"), ack.AckError(207, "Not stored, please send again")
            self._meter.noticed(CHANNEL, "store_unavailable")
        else:
            self._meter.received(CHANNEL, item.format, stored.disposition if stored else "")
        if wanted.enhanced and not wanted.wants_accept(code):
            # One request has one response: with no accept answer asked for, it is the application's.
            code = {"CA": "AA", "CR": "AR", "CE": "AE"}.get(code, code)  # type: ignore[assignment]
            if not wanted.wants_application(code):
                return b"", 204
            if stored is not None:
                await self._judged(stored.duplicate_of or stored.message_id)
        return self._ack(header, code, error), _STATUS[code]

    def _ack(self, header: er7.Header | None, code: ack.Code, error: ack.AckError | None) -> bytes:
        return ack.acknowledge(header, code, control_id=self._new_control_id(), now=datetime.now(UTC), error=error)

    def _respond(self, header: er7.Header | None, code: ack.Code, error: ack.AckError, *, status: int) -> Response:
        return Response(self._ack(header, code, error), status_code=status, media_type=MEDIA_TYPE)


def _need(raw: bytes) -> tuple[str, str]:
    """The scope of a message: SMART knows no HL7 v2, and this is what its content would be in FHIR."""
    header = er7.peek(raw)
    return ("Patient" if header is not None and header.message_code == "ADT" else "Observation"), "c"


def _plain(text: str, status: int, headers: dict[str, str]) -> Response:
    return Response(f"{text}\n", status_code=status, headers=headers, media_type="text/plain")
