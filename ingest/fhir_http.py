"""The FHIR door: Observation, the register's resources and Bundles in; stored first, then answered.

The body is kept byte for byte and read later by the worker. Here only as much of it is read as the answer needs: what
it is, whether it is JSON at all, and how many entries there are. A number is never decoded, so no decimal is touched.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response

from ingest import envelope, offered
from ingest.access import ANYBODY, Access, Refused, Unverifiable, beyond
from ingest.body import limited
from ingest.fhir_types import KNOWN, TAKEN
from ingest.meter import Meter
from ingest.reading import looks_like_cda
from ingest.scopes import Scopes
from store import Accepted, Envelope, Inbox, StoreUnavailable

__all__ = ["FhirDoor", "stored_as"]

CHANNEL = "fhir"
MEDIA_TYPE = "application/fhir+json"
_JSON_TYPES = ("application/fhir+json", "application/json", "application/json+fhir", "text/json", "")
_XML_TYPES = ("application/xml", "text/xml", "application/hl7-cda+xml", "application/cda+xml")
_BUNDLE_TYPES = (
    *("transaction", "batch", "message", "collection", "document", "searchset", "history"),
    "subscription-notification",
)
# Named for the reader of /openapi.json; any other is refused in FHIR's own words.
_Kind = Annotated[str, Path(json_schema_extra={"enum": offered.TYPES})]
# The first entry of a notification (Subscriptions R5 Backport; R5 itself).
_NOTICES = ("Parameters", "SubscriptionStatus")


class _Identifier(msgspec.Struct):
    system: str = ""
    value: str = ""


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""


class _Inner(msgspec.Struct, rename="camel"):
    resource_type: str = ""
    id: str = ""


class _Entry(msgspec.Struct):
    resource: _Inner | None = None
    request: _Request | None = None


class _Outer(msgspec.Struct, rename="camel"):
    """As much of a body as the answer needs; everything else stays bytes."""

    resource_type: str = ""
    id: str = ""
    type: msgspec.Raw = msgspec.Raw(b"null")
    identifier: msgspec.Raw = msgspec.Raw(b"null")
    entry: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(eq=False)
class _Problem(Exception):
    """Why the body is refused: HTTP status, issue code, where, and words without anything of a patient."""

    status: int
    code: str
    text: str
    expression: str = ""


@dataclass(frozen=True, slots=True)
class _Body:
    resource_type: str
    id: str = ""
    bundle_type: str = ""
    control_id: str = ""
    entries: tuple[_Entry, ...] = ()


class FhirDoor:
    def __init__(
        self,
        inbox: Inbox,
        meter: Meter,
        *,
        max_body_bytes: int,
        access: Access = ANYBODY,
        smart: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        """``smart``: what ``.well-known/smart-configuration`` says, where an issuer's tokens are asked for."""
        self._access = access
        self._smart = smart
        self._inbox = inbox
        self._meter = meter
        self._max_body_bytes = max_body_bytes
        self._started = datetime.now(UTC)
        self.router = APIRouter(prefix="/fhir")
        route = self.router.add_api_route
        route("/metadata", self.metadata, methods=["GET"], summary="CapabilityStatement", responses=offered.CAPABILITY)
        if smart is not None:
            route(
                "/.well-known/smart-configuration", self.configuration, methods=["GET"], summary="SMART configuration"
            )
        taken: dict[str, Any] = {"responses": offered.FHIR_ANSWERS, "openapi_extra": offered.FHIR_BODY}
        route("", self.post, methods=["POST"], summary="Bundle or single resource", **taken)
        route("/", self.post, methods=["POST"], include_in_schema=False)
        route("/$process-message", self.post, methods=["POST"], summary="Message Bundle", **taken)
        route("/{kind}", self.create, methods=["POST"], summary="Create", **taken)
        route("/{kind}/{number}", self.put, methods=["PUT"], summary="Update as create", **taken)
        self.router.add_api_route(
            "/{rest:path}", self.unsupported, methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
        )

    async def metadata(self) -> Response:
        return _json(200, _capability(self._started, smart=self._smart is not None, tokens=self._access.asked))

    async def configuration(self) -> Response:
        assert self._smart is not None  # noqa: S101  # the route is there with it only
        return Response(msgspec.json.encode(await self._smart()), media_type="application/json")

    async def post(self, request: Request) -> Response:
        return await self._take(request, "", "")

    async def create(self, request: Request, kind: _Kind) -> Response:
        if kind == "metadata":
            return await self.unsupported(kind)
        return await self._take(request, kind, "")

    async def put(self, request: Request, kind: _Kind, number: str) -> Response:
        return await self._take(request, kind, number)

    async def unsupported(self, rest: str) -> Response:
        words = "This interaction is not offered; see /fhir/metadata"
        return _outcome(405, "not-supported", words, headers={"Allow": _allowed(rest)})

    async def _take(self, request: Request, kind: str, number: str) -> Response:
        arrived = time.perf_counter()
        try:
            admitted = await self._access.admit(request, CHANNEL)
        except Refused as refusal:
            self._meter.noticed(CHANNEL, "token_refused")
            return _outcome(401, "login", "A bearer token is needed", headers=refusal.challenge)
        except Unverifiable:
            self._meter.noticed(CHANNEL, "issuer_unavailable")
            return _outcome(503, "transient", "The token cannot be verified now", headers={"Retry-After": "10"})
        raw = await limited(request, self._max_body_bytes)
        if raw is None:
            self._meter.noticed(CHANNEL, "body_oversize")
            return _outcome(413, "too-long", f"A body may have {self._max_body_bytes} bytes")
        problem: _Problem | None = None
        body = _Body("")
        try:
            body = _document(raw) if _acceptable(request) in _XML_TYPES else _read(raw)
            _addressed(body, kind, number)
        except _Problem as found:
            problem = found
        if admitted.scopes is not None and (
            lacking := admitted.scopes.lacking(_needs(body, number))
            if body.resource_type
            else _no_write(admitted.scopes)
        ):
            self._meter.noticed(CHANNEL, "scope_refused")
            return _outcome(403, "forbidden", f"Needs {' '.join(lacking)}", headers=beyond(lacking))
        stored = await self._store(self._access.peer(request, admitted.name), admitted.name, raw, body, problem)
        if stored is None:
            self._meter.noticed(CHANNEL, "store_unavailable")
            return _outcome(503, "transient", "Not stored, please send again", headers={"Retry-After": "5"})
        self._meter.received(CHANNEL, "fhir", stored.disposition or ("set_aside" if problem is not None else ""))
        if problem is not None:
            answer = _outcome(problem.status, problem.code, problem.text, problem.expression)
        else:
            answer = _answer(body, stored, number)
        self._meter.acknowledged(CHANNEL, time.perf_counter() - arrived)
        return answer

    async def _store(
        self, peer: str, holder: str, raw: bytes, body: _Body, problem: _Problem | None
    ) -> Accepted | None:
        # Whose ``Patient/1`` it is, and whose Bundle.identifier: what the sender has proved, not what it says.
        item = _envelope(raw, body, problem, channel=CHANNEL, peer=peer, sender=holder)
        try:
            return await self._inbox.accept(item)
        except StoreUnavailable:
            return None


def _allowed(rest: str) -> str:
    """The one method that is offered at an address (RFC 9110 15.5.6)."""
    if rest in ("metadata", ".well-known/smart-configuration"):
        return "GET"
    return "PUT" if "/" in rest else "POST"


def stored_as(raw: bytes, *, channel: str, peer: str) -> Envelope:
    """The envelope of a body that came by a door without answers: what this door would refuse is refused there too."""
    try:
        return _envelope(raw, _document(raw) if looks_like_cda(raw) else _read(raw), None, channel=channel, peer=peer)
    except _Problem as problem:
        return _envelope(raw, _Body(""), problem, channel=channel, peer=peer)


def _envelope(
    raw: bytes, body: _Body, problem: _Problem | None, *, channel: str, peer: str, sender: str = ""
) -> Envelope:
    return envelope.fhir(
        raw,
        channel=channel,
        peer=peer,
        now=datetime.now(UTC),
        sender=sender,
        control_id=body.control_id,
        message_type=f"{body.resource_type}/{body.bundle_type}" if body.bundle_type else body.resource_type,
        refused="" if problem is None else f"{problem.code}: {problem.expression or problem.text}",
    )


def _acceptable(request: Request) -> str:
    """The content type, where it is one that is taken."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in (*_JSON_TYPES, *_XML_TYPES):
        raise _Problem(415, "not-supported", f"Send {MEDIA_TYPE}")
    if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise _Problem(415, "not-supported", "Content-Encoding is not supported")
    return content_type


def _document(raw: bytes) -> _Body:
    """A laboratory's report as CDA R2; FHIR itself is taken as JSON only."""
    if not looks_like_cda(raw):
        raise _Problem(415, "not-supported", f"Send {MEDIA_TYPE}; of XML only a ClinicalDocument is taken")
    return _Body("ClinicalDocument")


_decode_outer = msgspec.json.Decoder(_Outer).decode
_decode_entries = msgspec.json.Decoder(list[_Entry]).decode
_decode_identifier = msgspec.json.Decoder(_Identifier | None).decode
_decode_text = msgspec.json.Decoder(str).decode
# Inside what was left as bytes the text may still not be UTF-8.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)


def _read(raw: bytes) -> _Body:
    try:
        outer = _decode_outer(raw)
    except msgspec.ValidationError as error:
        raise _Problem(400, "structure", _words(error), _path(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Problem(400, "structure", f"The body is not JSON: {_words(error)}") from None
    if not outer.resource_type:
        raise _Problem(400, "required", "resourceType is missing", "resourceType")
    if outer.resource_type not in KNOWN:
        raise _Problem(404, "not-supported", "Unknown resource type", "resourceType")
    if outer.resource_type not in TAKEN:
        raise _Problem(404, "not-supported", f"{outer.resource_type} alone is not taken here", "resourceType")
    if outer.resource_type != "Bundle":
        return _Body(outer.resource_type, outer.id)
    return _bundle(outer)


def _bundle(outer: _Outer) -> _Body:
    try:
        kind = _decode_text(outer.type)
    except _UNREADABLE:
        kind = ""
    if kind not in _BUNDLE_TYPES:
        raise _Problem(400, "value", f"Bundle.type must be one of {', '.join(_BUNDLE_TYPES)}", "Bundle.type")
    try:
        entries = tuple(_decode_entries(outer.entry)) if bytes(outer.entry) != b"null" else ()
    except _UNREADABLE as error:
        raise _Problem(400, "structure", _words(error), f"Bundle.entry{_path(error)}") from None
    try:
        name = _decode_identifier(outer.identifier)
    except _UNREADABLE:
        raise _Problem(400, "structure", "Expected one Identifier", "Bundle.identifier") from None
    for number, entry in enumerate(entries):
        place = f"Bundle.entry[{number}]"
        if entry.resource is not None and entry.resource.resource_type not in KNOWN:
            raise _Problem(400, "not-supported", "Unknown resource type", f"{place}.resource.resourceType")
        if kind == "transaction":
            _transactable(entry, place)
    if kind == "message" and (
        not entries or entries[0].resource is None or entries[0].resource.resource_type != "MessageHeader"
    ):
        raise _Problem(400, "required", "A message begins with its MessageHeader", "Bundle.entry[0].resource")
    control_id = f"{name.system}|{name.value}" if name and name.value else ""
    if kind == "message" and not control_id and entries[0].resource is not None:
        control_id = entries[0].resource.id
    return _Body("Bundle", outer.id, kind, control_id, entries)


def _transactable(entry: _Entry, place: str) -> None:
    """All or nothing: an entry that we cannot do refuses the whole transaction (FHIR R4, http.html#transaction)."""
    if entry.request is None:
        raise _Problem(400, "required", "A transaction's entry needs a request", f"{place}.request")
    if entry.request.method not in ("POST", "PUT"):
        raise _Problem(405, "not-supported", "Only POST and PUT are offered", f"{place}.request.method")
    if entry.resource is None:
        raise _Problem(400, "required", "The entry has no resource", f"{place}.resource")


def _addressed(body: _Body, kind: str, number: str) -> None:
    if kind and kind != body.resource_type:
        raise _Problem(400, "invalid", f"The body is not of the type that the address names ({kind})", "resourceType")
    if number and number != body.id:
        raise _Problem(400, "invalid", "The id of the body is not that of the address", f"{body.resource_type}.id")


def _answer(body: _Body, stored: Accepted, number: str) -> Response:
    message_id = stored.duplicate_of or stored.message_id
    if body.resource_type in ("ClinicalDocument", "Parameters"):
        return _outcome(200, "informational", "Stored", severity="information")
    if body.resource_type != "Bundle":
        given = number or envelope.assigned_id(message_id)
        headers = {"Location": f"/fhir/{body.resource_type}/{given}/_history/1", "ETag": 'W/"1"'}
        return _outcome(201, "informational", "Stored", headers=headers, severity="information")
    match body.bundle_type:
        case "transaction" | "batch":
            return _json(200, _responses(body, message_id))
        case "message":
            return _json(200, _message_response(body, message_id))
        case "history" | "subscription-notification" if _notifies(body):
            return _outcome(200, "informational", "Received", severity="information")
        case _:
            headers = {
                "Location": f"/fhir/Bundle/{envelope.assigned_id(message_id)}/_history/1",
                "ETag": 'W/"1"',
            }
            return _outcome(201, "informational", "Stored", headers=headers, severity="information")


def _needs(body: _Body, number: str = "") -> Iterator[tuple[str, str]]:
    """The interactions that a body stands for, as pairs of a scope's type and letter.

    A Bundle needs what each of its entries would need alone, whatever its own type: it is read whole. A document of
    another standard is a DocumentReference.
    """
    match body.resource_type:
        case "ClinicalDocument":
            yield "DocumentReference", "c"
        case "Bundle":
            found = False
            for entry in body.entries:
                kind = entry.resource.resource_type if entry.resource else ""
                if kind in TAKEN:
                    found = True
                    put = entry.request is not None and entry.request.method == "PUT"
                    # What a Bundle within a Bundle holds has not been looked at.
                    yield "*" if kind == "Bundle" else kind, "u" if put else "c"
            if not found:
                yield "Bundle", "c"
        case kind:
            yield kind, "u" if number else "c"


def _no_write(scopes: Scopes) -> list[str]:
    """What cannot be read is kept as well, for a person: from those who may send something at all."""
    return [] if scopes.writes else ["system/Observation.c"]


def _notifies(body: _Body) -> bool:
    """A subscription's handshake, heartbeat or event: its sender waits for a plain 200."""
    first = body.entries[0].resource if body.entries else None
    return first is not None and first.resource_type in _NOTICES


def _responses(body: _Body, message_id: int) -> dict[str, Any]:
    entries = []
    for position, entry in enumerate(body.entries):
        kind = entry.resource.resource_type if entry.resource else ""
        method = entry.request.method if entry.request else ""
        if method not in ("POST", "PUT") or not kind:
            entries.append(
                {
                    "response": {
                        "status": "405 Method Not Allowed",
                        "outcome": _issue("not-supported", "Only POST and PUT"),
                    }
                }
            )
            continue
        updated = entry.request is not None and method == "PUT" and entry.request.url.partition("/")[2]
        given = updated or envelope.assigned_id(message_id, position)
        entries.append(
            {"response": {"status": "201 Created", "location": f"{kind}/{given}/_history/1", "etag": 'W/"1"'}}
        )
    return {"resourceType": "Bundle", "type": f"{body.bundle_type}-response", "entry": entries}


def _message_response(body: _Body, message_id: int) -> dict[str, Any]:
    first = body.entries[0].resource
    return {
        "resourceType": "Bundle",
        "type": "message",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "entry": [
            {
                "resource": {
                    "resourceType": "MessageHeader",
                    "id": str(uuid.uuid5(envelope.NAMESPACE, f"{message_id}/response")),
                    "eventCoding": {"system": "http://terminology.hl7.org/CodeSystem/v2-0003", "code": "R01"},
                    "source": {"name": "NeutroFlag", "endpoint": "urn:neutroflag"},
                    "response": {"identifier": (first.id if first else "") or str(message_id), "code": "ok"},
                }
            }
        ],
    }


def _security(*, smart: bool) -> dict[str, Any]:
    """As of CapabilityStatement.rest.security; SMART only where an issuer's tokens are taken (SMART App Launch 2.2)."""
    words = "A bearer token is needed. " + (
        "Scopes: system/TYPE.c to create, system/TYPE.u to update; a Bundle needs those of all its entries."
        if smart
        else "Tokens are given out by the operator."
    )
    if not smart:
        return {"description": words}
    coding = {
        "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
        "code": "SMART-on-FHIR",
        "display": "SMART-on-FHIR",
    }
    return {"service": [{"coding": [coding]}], "description": words}


def _capability(started: datetime, *, smart: bool, tokens: bool) -> dict[str, Any]:
    create = [{"code": "create"}, {"code": "update"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started.isoformat(timespec="seconds"),
        "kind": "instance",
        "software": {"name": "NeutroFlag", "version": version("neutroflag")},
        "implementation": {"description": "Intake of laboratory results and of the clozapine register"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": "Stored when answered; judged afterwards. Reading back is not offered.",
                **({"security": _security(smart=smart)} if tokens else {}),
                "resource": [
                    {"type": kind, "interaction": create, "updateCreate": True}
                    for kind in sorted(TAKEN - {"Bundle", "Parameters"})
                ],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "operation": [
                    {
                        "name": "process-message",
                        "definition": "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message",
                    }
                ],
            }
        ],
    }


def _issue(code: str, text: str, expression: str = "", severity: str = "error") -> dict[str, Any]:
    issue: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": text}
    if expression:
        issue["expression"] = [expression]
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _outcome(
    status: int,
    code: str,
    text: str,
    expression: str = "",
    *,
    headers: dict[str, str] | None = None,
    severity: str = "error",
) -> Response:
    return _json(status, _issue(code, text, expression, severity), headers)


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _words(error: Exception) -> str:
    """The decoder's words; they name types and places, never values."""
    return str(error).split(" - at ")[0] if isinstance(error, msgspec.MsgspecError) else "not UTF-8"


def _path(error: Exception) -> str:
    """msgspec's ``$.entry[0].x`` or ``$[0].x`` as a FHIRPath."""
    _, found, path = str(error).partition("at `$")
    return path.rstrip("`").lstrip(".") if found else ""
