"""A prescriber's system, simulated: a small FHIR R4 server and an HL7 v2 inbox, on real sockets, for demo and tests.

It keeps what it is sent in memory, counts duplicates, lets a person answer a Task, and can be told to fail, to be slow
or to be down. It reads like a server of its own: nothing of ``emitters`` is used, so that it can contradict them.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from engine.web import Web
from wire.ack import Code, acknowledge
from wire.er7 import peek
from wire.mllp import Deframer, Frame, frame

__all__ = ["AckFault", "Conflict", "FhirMemory", "HttpFault", "Prescriber"]

Resource = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]

_TYPES = (
    "Communication",
    "CommunicationRequest",
    "DetectedIssue",
    "Device",
    "DocumentReference",
    "Flag",
    "Observation",
    "Patient",
    "Provenance",
    "ServiceRequest",
    "Task",
)
_OURS = "https://neutroflag.org/fhir/CodeSystem"
_encoder = msgspec.json.Encoder(decimal_format="number")


class Conflict(Exception):
    """What the server answers instead of doing it: an HTTP status and an OperationOutcome issue code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class FhirMemory:
    """Resources by type and id, with versions; the part of a FHIR server that is not HTTP."""

    def __init__(self, *, update_create: bool = True) -> None:
        self.update_create = update_create
        self.held: dict[str, dict[str, Resource]] = {kind: {} for kind in _TYPES}
        self.writes: Counter[str] = Counter()
        self.searches: Counter[str] = Counter()
        """By type and first parameter: ``Task?group-identifier``."""
        self.transactions = 0

    def all(self, kind: str) -> list[Resource]:
        return [copy.deepcopy(one) for one in self.held[kind].values()]

    def read(self, kind: str, id_: str) -> Resource:
        found = self._of(kind).get(id_)
        if found is None:
            raise Conflict(404, "not-found")
        return found

    def search(self, kind: str, parameters: str) -> list[Resource]:
        """By ``identifier`` or ``group-identifier`` (several tokens separated by commas are alternatives, ``system|`` any
        value of a system), since ``_lastUpdated=ge...``, in order of ``_sort=_lastUpdated``."""
        asked = parse_qsl(parameters)
        if not any(name in ("identifier", "group-identifier") for name, _ in asked):
            raise Conflict(400, "not-supported")
        self.searches[f"{kind}?{asked[0][0]}"] += 1
        found = list(self._of(kind).values())
        for name, value in asked:
            if name in ("identifier", "group-identifier"):
                wanted = set(value.split(","))
                found = [one for one in found if wanted & _tokens(one, name)]
            elif name == "_lastUpdated" and value.startswith("ge"):
                since = datetime.fromisoformat(value[2:])
                found = [one for one in found if datetime.fromisoformat(one["meta"]["lastUpdated"]) >= since]
            elif name == "_sort" and value == "_lastUpdated":
                found = sorted(found, key=lambda one: str(one["meta"]["lastUpdated"]))
        return found

    def put(self, kind: str, id_: str, resource: Resource, if_match: str = "") -> tuple[int, Resource]:
        held = self._of(kind).get(id_)
        if if_match and (held is None or if_match != etag(held)):
            raise Conflict(412, "conflict")
        if held is None and not self.update_create:
            raise Conflict(405, "not-supported")
        return (200 if held else 201), self._store(kind, id_, resource)

    def put_where(self, kind: str, parameters: str, resource: Resource) -> tuple[int, Resource]:
        found = self.search(kind, parameters)
        if len(found) > 1:
            raise Conflict(412, "multiple-matches")
        return (200 if found else 201), self._store(kind, found[0]["id"] if found else str(uuid.uuid4()), resource)

    def post(self, kind: str, resource: Resource, if_none_exist: str = "") -> tuple[int, Resource]:
        found = self.search(kind, if_none_exist) if if_none_exist else []
        if len(found) > 1:
            raise Conflict(412, "multiple-matches")
        return (200, found[0]) if found else (201, self._store(kind, str(uuid.uuid4()), resource))

    def doubled(self) -> int:
        """How many identifiers stand on more than one resource of a type: each is a duplicate somebody made."""
        held = Counter(
            (kind, one.get("system"), one.get("value"))
            for kind, resources in self.held.items()
            for resource in resources.values()
            for one in resource.get("identifier", ())
        )
        return sum(count - 1 for count in held.values())

    def transaction(self, bundle: Resource) -> Resource:
        """All entries or none, with ``urn:uuid:`` references rewritten to what each entry became."""
        if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
            raise Conflict(400, "invalid")
        before, writes = {kind: dict(held) for kind, held in self.held.items()}, self.writes.copy()
        try:
            entries = bundle.get("entry") or []
            places = {entry["fullUrl"]: self._place(entry) for entry in entries}
            answers = [
                self._entry(_pointing(entry["resource"], places), entry["request"], places[entry["fullUrl"]])
                for entry in entries
            ]
        except (KeyError, TypeError, AttributeError):
            self.held, self.writes = before, writes
            raise Conflict(400, "structure") from None
        except Conflict:
            self.held, self.writes = before, writes
            raise
        self.transactions += 1
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    def _place(self, entry: Resource) -> str:
        """``Type/id`` that this entry will have: its own, that of its only match, or a new one."""
        request = entry["request"]
        path, _, parameters = request["url"].partition("?")
        kind, _, id_ = path.partition("/")
        if id_:
            return f"{kind}/{id_}"
        found = self.search(kind, condition) if (condition := parameters or request.get("ifNoneExist", "")) else []
        if len(found) > 1:
            raise Conflict(412, "multiple-matches")
        return f"{kind}/{found[0]['id'] if found else uuid.uuid4()}"

    def _entry(self, resource: Resource, request: Resource, place: str) -> Resource:
        kind, _, id_ = place.partition("/")
        if resource.get("resourceType") != kind:
            raise Conflict(400, "invalid")
        held = self._of(kind).get(id_)
        if request["method"] == "PUT" and "?" not in request["url"]:
            status, stored = self.put(kind, id_, resource, request.get("ifMatch", ""))
        elif request["method"] == "POST" and held is not None:
            status, stored = 200, held
        elif request["method"] in ("PUT", "POST"):
            status, stored = (200 if held else 201), self._store(kind, id_, resource)
        else:
            raise Conflict(405, "not-supported")
        location = f"{place}/_history/{stored['meta']['versionId']}"
        words = "200 OK" if status == 200 else "201 Created"
        return {"response": {"status": words, "location": location, "etag": etag(stored)}}

    def _store(self, kind: str, id_: str, resource: Resource) -> Resource:
        held = self._of(kind).get(id_)
        version = int(held["meta"]["versionId"]) + 1 if held else 1
        meta = resource.get("meta", {}) | {"versionId": str(version), "lastUpdated": datetime.now(UTC).isoformat()}
        self.held[kind][id_] = {**resource, "id": id_, "meta": meta}
        self.writes[kind] += 1
        return self.held[kind][id_]

    def _of(self, kind: str) -> dict[str, Resource]:
        if kind not in self.held:
            raise Conflict(404, "not-supported")
        return self.held[kind]


def etag(resource: Resource) -> str:
    return f'W/"{resource["meta"]["versionId"]}"'


def _tokens(resource: Resource, name: str = "identifier") -> set[str]:
    rows = resource.get("identifier", []) if name == "identifier" else [resource.get("groupIdentifier", {})]
    tokens = {token for one in rows for token in (f"{one.get('system', '')}|{one.get('value')}", str(one.get("value")))}
    return tokens | {f"{one.get('system', '')}|" for one in rows}


def _pointing(value: Any, places: dict[str, str]) -> Any:
    """A copy in which every reference to a fullUrl of the bundle is the reference that it became."""
    if isinstance(value, list):
        return [_pointing(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    copied = {name: _pointing(one, places) for name, one in value.items()}
    target = copied.get("reference")
    if isinstance(target, str) and target.startswith("urn:uuid:"):
        if target not in places:
            raise Conflict(400, "not-found")
        copied["reference"] = places[target]
    return copied


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFault:
    """What befalls one request. ``applied``: it is done first, and only the answer goes wrong. ``cut``: half a body."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    applied: bool = False
    cut: bool = False
    method: str = "POST"
    """Only requests by this method are befallen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AckFault:
    """What befalls one acknowledgement. ``control_id`` replaces MSA-2; ``pieces`` splits the frame over packets."""

    code: Code = "AA"
    control_id: str | None = None
    delay_s: float = 0.0
    silent: bool = False
    hang_up: bool = False
    pieces: int = 1
    raw: bytes | None = None


class Prescriber:
    """``async with Prescriber() as ehr:`` listens on ``ehr.url`` and ``ehr.mllp_port`` until the block ends.

    Ports of 0 are free ones; ``down`` closes both and their connections, ``up`` opens the same ports again.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", http_port: int = 0, mllp_port: int = 0, update_create: bool = True
    ) -> None:
        self.fhir = FhirMemory(update_create=update_create)
        self.fhir_version = "4.0.1"
        self.http_port = http_port
        self.mllp_port = mllp_port
        self.http_faults: deque[HttpFault] = deque()
        self.ack_faults: deque[AckFault] = deque()
        self.latency_s = 0.0
        self.duplicates = 0
        """Messages whose MSH-10 had been received before; ``fhir.doubled()`` counts doubled resources."""
        self.requests: Counter[str] = Counter()
        self._host = host
        self._messages: dict[str, bytes] = {}
        self._http: Web | None = None
        self._mllp: asyncio.Server | None = None
        self._peers: set[asyncio.StreamWriter] = set()
        routes = [
            Route("/fhir", self._guarded(self._base), methods=["POST"]),
            Route("/fhir/metadata", self._guarded(self._metadata), methods=["GET"]),
            Route("/fhir/{kind}/_search", self._guarded(self._form_search), methods=["POST"]),
            Route("/fhir/{kind}", self._guarded(self._type), methods=["GET", "POST", "PUT"]),
            Route("/fhir/{kind}/{id_}", self._guarded(self._instance), methods=["GET", "PUT"]),
        ]
        self._app = Starlette(routes=routes)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.http_port}/fhir"

    @property
    def is_up(self) -> bool:
        return self._http is not None

    def add_patient(self, *identifiers: tuple[str, str], id_: str | None = None, **elements: Any) -> str:
        """A Patient with these (system, value) identifiers; its reference."""
        rows = [{"system": system, "value": value} for system, value in identifiers]
        id_ = id_ or str(uuid.uuid4())
        self.fhir._store("Patient", id_, {"resourceType": "Patient", "identifier": rows} | elements)
        return f"Patient/{id_}"

    def flags(self) -> list[Resource]:
        return self.fhir.all("Flag")

    def tasks(self) -> list[Resource]:
        return self.fhir.all("Task")

    def messages(self) -> dict[str, bytes]:
        """HL7 v2 messages by MSH-10, each once."""
        return dict(self._messages)

    def answer(self, task_id: str, status: str, by: str, *, decision: str = "", reason: str = "") -> Resource:
        """A person sets the Task's status, and says what was decided, as the system's own screens would."""
        task = copy.deepcopy(self.fhir.read("Task", task_id))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        task |= {"status": status, "lastModified": now}
        task["note"] = [*task.get("note", []), {"authorString": by, "time": now, "text": reason or status}]
        if decision:
            code = {"coding": [{"system": f"{_OURS}/anc-decision", "code": decision}]}
            kind = {"coding": [{"system": f"{_OURS}/anc-task-io", "code": "decision"}]}
            task["output"] = [*task.get("output", []), {"type": kind, "valueCodeableConcept": code}]
        return copy.deepcopy(self.fhir._store("Task", task_id, task))

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        if self._http is not None:
            return
        web = Web(self._app, grace_s=1)
        await web.open(self._host, self.http_port)
        self._http, self.http_port = web, web.port
        self._mllp = await asyncio.start_server(self._receive, self._host, self.mllp_port)
        self.mllp_port = self._mllp.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._mllp is not None:
            self._mllp.close()
            for peer in list(self._peers):
                peer.transport.abort()
            self._mllp = None
        if self._http is not None:
            web, self._http = self._http, None
            await web.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peers.add(writer)
        deframer = Deframer()
        try:
            while data := await reader.read(65536):
                for event in deframer.feed(data):
                    if isinstance(event, Frame):
                        await self._acknowledge(event.payload, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._peers.discard(writer)
            writer.close()

    async def _acknowledge(self, payload: bytes, writer: asyncio.StreamWriter) -> None:
        header = peek(payload)
        fault = self.ack_faults.popleft() if self.ack_faults else AckFault(delay_s=self.latency_s)
        accepted = header is not None and fault.code == "AA"
        if header is not None and accepted:
            self.duplicates += header.control_id in self._messages
            self._messages[header.control_id] = payload
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.hang_up:
            raise ConnectionAbortedError
        if fault.silent:
            return
        code: Code = "AR" if header is None else fault.code
        if header is not None and header.accept_ack == "AL":
            code = {"AA": "CA", "AE": "CE", "AR": "CR"}.get(code, code)  # type: ignore[assignment]
        echoed = header if header is None or fault.control_id is None else header._replace(control_id=fault.control_id)
        answer = acknowledge(echoed, code, control_id=uuid.uuid4().hex[:20], now=datetime.now(UTC))
        block = fault.raw if fault.raw is not None else frame(answer)
        step = -(-len(block) // fault.pieces)
        for start in range(0, len(block), step):
            writer.write(block[start : start + step])
            await writer.drain()
            if fault.pieces > 1:
                await asyncio.sleep(0.005)

    def _guarded(self, handler: Handler) -> Handler:
        """The handler with its refusals as OperationOutcome, and with the faults that a test asked for."""

        async def handle(request: Request) -> Response:
            self.requests[request.method] += 1
            fault = None
            if self.http_faults and self.http_faults[0].method == request.method:
                fault = self.http_faults.popleft()
                await request.body()  # what is done late is done, whoever still waits for its answer
            await asyncio.sleep(fault.delay_s if fault else self.latency_s)
            if fault is not None and not fault.applied:
                return _wrong(fault)
            try:
                response = await handler(request)
            except Conflict as refusal:
                issue = {"severity": "error", "code": refusal.code}
                response = _json({"resourceType": "OperationOutcome", "issue": [issue]}, refusal.status)
            return _wrong(fault) if fault is not None else response

        return handle

    async def _metadata(self, request: Request) -> Response:
        own = {"updateCreate": self.fhir.update_create, "conditionalCreate": True, "conditionalUpdate": True}
        statement = {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "kind": "instance",
            "fhirVersion": self.fhir_version,
            "format": ["json"],
            "rest": [{"mode": "server", "resource": [{"type": kind, **own} for kind in self.fhir.held]}],
        }
        return _json(statement)

    async def _base(self, request: Request) -> Response:
        return _json(self.fhir.transaction(await _body(request)))

    async def _form_search(self, request: Request) -> Response:
        form = (await request.body()).decode()
        return _json(_searchset(self.fhir.search(request.path_params["kind"], form)))

    async def _type(self, request: Request) -> Response:
        kind, parameters = request.path_params["kind"], request.url.query
        if request.method == "GET":
            return _json(self._page(request, self.fhir.search(kind, parameters)))
        if request.method == "PUT":
            return _stored(*self.fhir.put_where(kind, parameters, await _body(request)))
        return _stored(*self.fhir.post(kind, await _body(request), request.headers.get("if-none-exist", "")))

    def _page(self, request: Request, found: list[Resource]) -> Resource:
        """``_count`` at a time, with a link to the rest."""
        count, start = (int(request.query_params.get(name, 0)) for name in ("_count", "_offset"))
        page = _searchset(found[start : start + count] if count else found)
        page["total"] = len(found)
        if count and start + count < len(found):
            rest = request.url.include_query_params(_offset=start + count)
            page["link"] = [{"relation": "next", "url": str(rest)}]
        return page

    async def _instance(self, request: Request) -> Response:
        kind, id_ = request.path_params["kind"], request.path_params["id_"]
        if request.method == "GET":
            return _stored(200, self.fhir.read(kind, id_))
        return _stored(*self.fhir.put(kind, id_, await _body(request), request.headers.get("if-match", "")))


async def _body(request: Request) -> Resource:
    try:
        resource = json.loads(await request.body(), parse_float=Decimal)
    except ValueError:
        raise Conflict(400, "structure") from None
    if not isinstance(resource, dict):
        raise Conflict(400, "structure")
    return resource


def _json(resource: Resource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoder.encode(resource), status, headers, "application/fhir+json")


def _stored(status: int, resource: Resource) -> Response:
    place = f"{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"
    return _json(resource, status, {"etag": etag(resource), "location": place})


def _searchset(found: list[Resource]) -> Resource:
    rows = [{"resource": one, "search": {"mode": "match"}} for one in found]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(rows), "entry": rows}


def _wrong(fault: HttpFault) -> Response:
    if not fault.cut:
        return Response(fault.body, fault.status, fault.headers, "application/fhir+json")

    async def half() -> AsyncIterator[bytes]:
        yield b'{"resourceType": "Bundle", "type": "transac'

    return StreamingResponse(half(), fault.status, {"content-length": "4096"}, "application/fhir+json")
