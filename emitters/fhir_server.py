"""A FHIR R4 server as a destination: finds the patient, reads what stands, posts one transaction, reads every answer.

Failure classes: no connection -> try again, the destination is down; time-outs, 408, 409, 425, 429, 5xx, half or odd
answers -> try again; 401/403 -> try again after a pause (credentials are renewed by a person, no alert is at fault);
patient not found or ambiguous, 412 on our identifiers, and every other 4xx -> a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
from yarl import URL

from emitters.credentials import CredentialError, Credentials
from emitters.fhir import device_entry, encode, transaction
from emitters.fhir_answers import CHANGED, OVERTAKEN, failed, read_json, read_transaction_response
from emitters.fhir_levels import TYPES, may_choose_ids, missing, proposed, takes_documents_only
from emitters.fhir_patients import searchable
from emitters.fhir_requests import KINDS, request_identifiers, request_search, told_revision
from emitters.fhir_tasks import StandingTask, carried_revision, task_identifiers, task_search, whole_groups
from emitters.fhir_terms import FhirProfile, Level, Resource, query
from emitters.patient_search import PatientSearch
from emitters.sink import Answer, Delivered, Refused, TryAgain
from rules.model import Alert, AlertFamily, AlertKind

__all__ = ["FhirServer", "FhirServerSettings"]

_FHIR_JSON: Final = "application/fhir+json"
_BODY_LIMIT: Final = 4 << 20
_REREADS: Final = 3
# More than one search asks for: a second patient with the same identifier must come with the first.
_PATIENTS: Final = 100
_BODY_HEADERS: Final[Mapping[str, str]] = {"content-type": _FHIR_JSON, "prefer": "return=minimal"}
_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirServerSettings:
    """``credentials`` say who we are at each request; None sends none.

    ``patient_systems`` maps a bare namespace of an identifier (``CHX``, or ``""``) to the server's system URI.
    ``search_by_post`` keeps identifiers out of the server's access log, where it supports ``POST Patient/_search``.
    ``update_create`` overrides what the server's CapabilityStatement says, and ``level`` how much is sent; without it
    the statement decides, up to L2.
    """

    name: str
    url: str
    profile: FhirProfile = field(default_factory=FhirProfile)
    credentials: Credentials | None = None
    patient_systems: Mapping[str, str] = field(default_factory=dict)
    search_by_post: bool = False
    update_create: bool | None = None
    level: Level | None = None
    timeout_s: float = 10.0
    late_s: float = 120.0
    """For how long after a request was given up the server may still carry it out."""
    connect_timeout_s: float = 3.0
    connections: int = 16
    patients_cached: int = 10_000
    patient_cache_s: float = 600.0
    tls: ssl.SSLContext | None = None
    """Whom we trust and what we show; None is the system's trust, without a certificate of ours."""


class _Failed(Exception):
    """Carries the answer out of the steps of one ``send``."""

    def __init__(self, answer: TryAgain | Refused) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(slots=True)
class _Unsure:
    """An alert of which one request was given up. ``revision``: that request's; ``until``: of the loop's clock."""

    latest: Alert
    revision: int
    until: float
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class FhirServer:
    """A ``Sink``. One alert at a time per alert id is the caller's promise; different alerts may run together."""

    def __init__(self, settings: FhirServerSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._base = settings.url.rstrip("/")
        self._profile: FhirProfile | None = None
        self._greeting = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.connections)
        self._patients = PatientSearch(
            self._search_patients, most=settings.patients_cached, keep_s=settings.patient_cache_s
        )
        self._client: aiohttp.ClientSession | None = None
        self._unsure: dict[str, _Unsure] = {}
        self._again: set[asyncio.Task[None]] = set()

    async def send(self, alert: Alert, delivery_id: str) -> Answer:
        """Deliver one notification. ``delivery_id`` is not sent: the ids of the resources make a retry harmless.

        A request that was given up may be carried out all the same, and later than a newer revision, whose Flag it would
        put back. So what is delivered meanwhile is written once more when that is over.
        """
        unsure = self._unsure.get(alert.id)
        if unsure is None:
            answer = await self._send(alert)
            if isinstance(answer, TryAgain) and answer.unsure:
                self._await_late(alert)
            return answer
        async with unsure.writing:
            unsure.latest = alert
            answer = await self._send(alert)
        if isinstance(answer, TryAgain) and answer.unsure:
            unsure.until = asyncio.get_running_loop().time() + self._settings.late_s
        return answer

    def _await_late(self, alert: Alert) -> None:
        until = asyncio.get_running_loop().time() + self._settings.late_s
        unsure = self._unsure[alert.id] = _Unsure(alert, alert.revision, until)
        task = asyncio.create_task(self._write_again(unsure), name="late requests")
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def _write_again(self, unsure: _Unsure) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (left := unsure.until - loop.time()) > 0:
                await asyncio.sleep(left)
                async with unsure.writing:
                    if unsure.latest.revision > unsure.revision:
                        answer = await self._send(unsure.latest)
                        if isinstance(answer, TryAgain):
                            unsure.until = loop.time() + self._settings.late_s
        finally:
            self._unsure.pop(unsure.latest.id, None)

    async def _send(self, alert: Alert) -> Answer:
        async with self._slots:
            try:
                profile = await self._greet()
                # Of an answer only our own resources are told; they know their patient.
                patient = await self._patient(alert) if alert.kind is not AlertKind.ANSWERED else None
                return await self._deliver(alert, patient, profile)
            except _Failed as failure:
                return failure.answer
            except ValueError as error:
                # Our own refusal to write something doubtful; its words are ours and name no patient.
                return Refused("unwritable", str(error))

    async def offer(self) -> tuple[Level | None, bool] | TryAgain | Refused:
        """The emission level that the server's CapabilityStatement allows, and whether it takes ids of ours at it."""
        try:
            statement = await self._statement()
            with _reading():
                level = proposed(statement)
                return level, may_choose_ids(statement, level or Level.L2)
        except _Failed as failure:
            return failure.answer

    async def close(self) -> None:
        for task in self._again:
            task.cancel()
        await asyncio.gather(*self._again, return_exceptions=True)
        await self._patients.close()
        if self._client is not None:
            await self._client.close()
        if self._settings.credentials is not None:
            await self._settings.credentials.close()

    async def fetch(self, address: str) -> Resource | TryAgain | Refused:
        """A searchset of this server: ``Task?...``, or the address of its next page as the server gave it."""
        if "://" in address:
            asked, own = URL(address), URL(self._base)
            # With our credentials we follow nobody to another place.
            if asked.origin() != own.origin():
                return Refused("foreign-link", "the server's next page is on another host")
            address = str(asked)
        else:
            address = f"{self._base}/{address}"
        async with self._slots:
            try:
                return await self._read(address, "Bundle")
            except _Failed as failure:
                return failure.answer

    async def _deliver(self, alert: Alert, patient: str | None, profile: FhirProfile) -> Answer:
        for _ in range(_REREADS):
            standing, requests = await self._standing(alert, profile)
            told = [carried_revision(task.resource) for task in standing]
            told += [told_revision(task.resource, alert) for task in requests]
            if max(told, default=0) > alert.revision:
                return Delivered(f"superseded: revision {max(told)} stands")
            bundle = transaction(
                alert, patient_reference=patient, settings=profile, standing=standing, requests=requests
            )
            if not bundle["entry"]:
                answered = alert.kind is AlertKind.ANSWERED
                return Delivered("nothing stands open" if answered else f"revision {alert.revision} stands already")
            status, headers, body = await self._request("POST", self._base, encode(bundle))
            if 200 <= status < 300:
                answer: Answer = read_transaction_response(body, bundle["entry"])
                if answer is not CHANGED:
                    return answer
                continue
            answer = failed(status, headers, body)
            if status in (404, 410, 422, 400) and patient is not None:
                # The patient may have been merged or removed since we looked.
                self._patients.forget(_key(alert))
            matched = any("ifMatch" in entry["request"] for entry in bundle["entry"])
            if not (matched and status in OVERTAKEN):
                return answer
            # Someone wrote the resource between our reading and our writing: look again, never overwrite.
        return CHANGED

    async def _greet(self) -> FhirProfile:
        """The profile, once the server has told its version and whether we may choose ids."""
        if self._profile is not None:
            return self._profile
        async with self._greeting:
            if self._profile is None:
                self._profile = await self._introduce()
            return self._profile

    async def _statement(self) -> Resource:
        statement = await self._read(f"{self._base}/metadata", "CapabilityStatement")
        version = statement.get("fhirVersion")
        if not isinstance(version, str) or not version.startswith("4."):
            raise _Failed(Refused("fhir-version", "the server does not speak FHIR R4 or R4B"))
        return statement

    async def _introduce(self) -> FhirProfile:
        statement = await self._statement()
        with _reading():
            level = self._level(statement)
            allowed = self._settings.update_create
            if allowed is None:
                allowed = may_choose_ids(statement, level)
            document = takes_documents_only(statement)
        profile = replace(self._settings.profile, update_create=allowed, level=level, document=document)
        if "Device" in TYPES[level]:
            await self._ensure_device(profile)
        return profile

    def _level(self, statement: Resource) -> Level:
        """The one that the settings fix; else what the statement allows, and no more than is asked of people by default."""
        fixed, offered = self._settings.level, proposed(statement)
        if fixed is None:
            return min(offered or Level.L2, Level.L2)
        # A statement that offers nothing at all is no evidence of anything.
        if offered is not None and offered < fixed:
            lacking = ", ".join(missing(statement, fixed))
            raise _Failed(
                Refused("emission-level", f"level {fixed} is set and the server offers {offered}: no {lacking}")
            )
        return fixed

    async def _ensure_device(self, profile: FhirProfile) -> None:
        """Our Device stands before any two transactions can race to create it (HAPI #3141).

        Later transactions still carry it, conditionally: a server that was restored without it gets it again.
        """
        entry = device_entry(profile)
        only_once = {"if-none-exist": entry["request"]["ifNoneExist"]}
        # By its identifier even where ids are ours: one that stood before under another id would be doubled.
        status, headers, answer = await self._request(
            "POST", f"{self._base}/Device", encode(entry["resource"]), only_once
        )
        if not 200 <= status < 300:
            raise _Failed(failed(status, headers, answer))

    async def _patient(self, alert: Alert) -> str | None:
        subject = alert.subject
        if alert.family is AlertFamily.REVIEW and not (subject.register_id and subject.identifiers):
            # An identity that could not be read must not find a patient by what little was read of it.
            return None
        asked = searchable(alert.subject.identifiers, self._settings.patient_systems)
        if not asked:
            raise _Failed(Refused("patient-not-found", "no identifier of the alert has a system to search by"))
        with _reading():
            found = await self._patients.find(_key(alert), asked)
        if isinstance(found, Refused):
            raise _Failed(found)
        return found

    async def _search_patients(self, asked: Sequence[Resource]) -> Resource | Refused:
        words = f"{query(*asked)}&_count={_PATIENTS}"
        try:
            if self._settings.search_by_post:
                form = {"content-type": "application/x-www-form-urlencoded"}
                answer = await self._request("POST", f"{self._base}/Patient/_search", words.encode(), form)
            else:
                answer = await self._request("GET", f"{self._base}/Patient?{words}")
            return _resource(*answer, "Bundle")
        except _Failed as failure:
            if isinstance(failure.answer, Refused):
                return failure.answer
            raise

    async def _standing(self, alert: Alert, profile: FhirProfile) -> tuple[list[StandingTask], list[StandingTask]]:
        """What stands of this alert, oldest first: its Tasks, and its other requests. Revision 1 needs no look: what it
        makes is made once, conditionally."""
        if alert.revision == 1 and alert.kind is not AlertKind.WITHDRAWN:
            return [], []
        tasks: list[StandingTask] = []
        if "Task" in TYPES[profile.level]:
            if alert.kind is AlertKind.ANSWERED:
                for group in whole_groups(alert):
                    tasks += await self._held(f"Task?{query(*group)}&_count={len(group)}", "Task", group)
            else:
                tasks = await self._held(task_search(alert), "Task", task_identifiers(alert))
        requests: list[StandingTask] = []
        for kind in KINDS[profile.level]:
            if profile.level is Level.L0 and (kind == "DocumentReference") is not profile.document:
                continue
            requests += await self._held(request_search(kind, alert), kind, request_identifiers(alert))
        return tasks, requests

    async def _held(self, search: str, kind: str, identifiers: list[Resource]) -> list[StandingTask]:
        bundle = await self._read(f"{self._base}/{search}", "Bundle")
        with _reading():
            return _found(bundle, kind, [(one["system"], one["value"]) for one in identifiers])

    async def _read(self, url: str, kind: str) -> Resource:
        return _resource(*await self._request("GET", url), kind)

    async def _request(
        self, method: str, url: str, body: bytes | None = None, extra: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One bounded exchange: status, headers, body. Raises _Failed for what never became an answer."""
        headers = _NO_HEADERS if body is None else _BODY_HEADERS
        if extra is not None:
            headers = {**headers, **extra}
        credentials = self._settings.credentials
        if credentials is not None:
            try:
                headers = {**headers, "authorization": await credentials.authorization()}
            except CredentialError as error:
                raise _Failed(TryAgain(f"credentials: {error}", down=True)) from None
        try:
            # The address is encoded already: the client must not take a percent sign for one of its own.
            async with self._session().request(
                method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status == 401 and credentials is not None:
                    credentials.refused()
                return response.status, response.headers, await _body(response.content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise _Failed(TryAgain("no connection", down=True)) from None
        except TimeoutError:
            raise _Failed(TryAgain("no answer in time: ambiguous", unsure=True)) from None
        except aiohttp.ClientError as error:
            raise _Failed(TryAgain(f"broken answer ({type(error).__name__}): ambiguous", unsure=True)) from None

    def _session(self) -> aiohttp.ClientSession:
        """Made with the first request: it belongs to the loop that runs then."""
        if self._client is None:
            settings = self._settings
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=settings.connections, ssl=settings.tls or True),
                headers={"accept": _FHIR_JSON, "accept-encoding": "identity", "user-agent": "NeutroFlag"},
                # The whole exchange is bounded: a server that drips bytes never lets a single read time out.
                timeout=aiohttp.ClientTimeout(
                    total=settings.timeout_s + settings.connect_timeout_s, sock_connect=settings.connect_timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._client


async def _body(content: aiohttp.StreamReader) -> bytes:
    """The whole body, within the limit. Most answers are short and came with their head: they are read in one go."""
    first = await content.readany()
    if content.at_eof() and content.exception() is None and len(first) <= _BODY_LIMIT:
        return first
    received = bytearray(first)
    while len(received) <= _BODY_LIMIT:
        chunk = await content.readany()
        if not chunk:
            return bytes(received)
        received += chunk
    raise _Failed(TryAgain("an answer without end"))


def _key(alert: Alert) -> tuple[str, ...]:
    return tuple(f"{one.authority}|{one.value}|{one.type}" for one in alert.subject.identifiers)


def _resource(status: int, headers: Mapping[str, str], body: bytes, kind: str) -> Resource:
    if not 200 <= status < 300:
        raise _Failed(failed(status, headers, body))
    resource = read_json(body)
    if resource is None or resource.get("resourceType") != kind:
        raise _Failed(TryAgain(f"HTTP {status} without the {kind} that was asked for"))
    return resource


def _found(bundle: Resource, kind: str, ours: list[tuple[str, str]]) -> list[StandingTask]:
    """The resources of a searchset that carry one of our identifiers, in the order of ``ours``."""
    found: list[tuple[int, StandingTask]] = []
    for entry in bundle.get("entry") or ():
        task = entry.get("resource") or {}
        places = [ours.index(one) for held in task.get("identifier") or () if (one := _pair(held)) in ours]
        if places and task.get("resourceType") == kind and isinstance(task.get("id"), str):
            version = task.get("meta", {}).get("versionId", "")
            # A Task whose shape is not FHIR's is looked at and never written back.
            found.append((min(places), StandingTask(task, version if _well_formed(task) else "")))
    return [task for _, task in sorted(found, key=lambda pair: pair[0])]


def _pair(held: Resource) -> tuple[str, str]:
    return held.get("system", ""), held.get("value", "")


def _well_formed(task: Resource) -> bool:
    rows = [*task.get("input", ()), *task.get("note", ())]
    return all(isinstance(row, dict) for row in rows) and isinstance(task["meta"].get("versionId"), str)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """JSON of another shape than FHIR's is an odd answer, like half a body."""
    try:
        yield
    except (AttributeError, TypeError, KeyError) as error:
        raise _Failed(TryAgain(f"a resource of an unexpected shape ({type(error).__name__})")) from None
