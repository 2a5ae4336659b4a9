"""What several rooms' tests share: messages to send, a laboratory to send them, an engine on free ports, and waiting."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.compose import Engine
from engine.config import load
from engine.prescriber import Prescriber
from engine.register_csv import ImportReport, import_csv
from store import Store, StoreUnavailable, database, listing, schema
from store.check import findings
from wire.ack import Ack, read_ack
from wire.mllp import Deframer, Frame, frame

# Not a package: found beside this file.
_spec = importlib.util.spec_from_file_location("neutroflag_tests_databases", Path(__file__).with_name("databases.py"))
assert _spec is not None
assert _spec.loader is not None
databases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(databases)

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Files of tests lie in memory where there is room, unless pytest was told another place."""
    if place := databases.memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: the last to start decides when the run ends."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


PARIS = ZoneInfo("Europe/Paris")


def ago(**span: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**span)


class Hl7:
    """HL7 v2 messages whose defaults are a sound count of 2500 /mm3 of the patient 405660, collected an hour ago."""

    @staticmethod
    def stamp(moment: datetime) -> str:
        return moment.strftime("%Y%m%d%H%M%S%z")

    @staticmethod
    def oru(
        control_id: str = "M1",
        *,
        anc: str = "2.50",
        unit: str = "10*9/L",
        code: str = "751-8^Neutrophils^LN",
        patient: str = "405660^^^CHX&1.2.3&ISO^PI",
        name: str = "SPECIMEN^DOMINIQUE",
        filler: str = "B2001",
        status: str = "F",
        collected: datetime | None = None,
        issued: datetime | None = None,
        sender: str = "SIL|LABO",
        kind: str = "ORU^R01^ORU_R01",
        processing: str = "P",
        version: str = "2.5",
        accept: str = "",
        application: str = "",
        charset: str = "UNICODE UTF-8",
        pid: bool = True,
    ) -> bytes:
        drawn = Hl7.stamp(collected or ago(hours=1))
        said = Hl7.stamp(issued) if issued else ""
        segments = [
            f"MSH|^~\\&|{sender}|NEUTROFLAG|CHX|{Hl7.stamp(ago())}||{kind}|{control_id}|{processing}|{version}"
            f"|||{accept}|{application}|FRA|{charset}",
            *([f"PID|1||{patient}||{name}^^^^^L||19790328|F"] if pid else []),
            f"OBR|1|D1|{filler}^SIL|58410-2^Hemogramme^LN|||{drawn}|||||||||||||||{said}|||{status}",
            f"OBX|1|NM|{code}||{anc}|{unit}|||||{status}|||",
        ]
        return ("\r".join(segments) + "\r").encode()

    @staticmethod
    def other(kind: str, control_id: str = "M1", *, accept: str = "", application: str = "") -> bytes:
        """A message without any observation."""
        head = (
            f"MSH|^~\\&|SIL|LABO|NEUTROFLAG|CHX|20261122101605+0100||{kind}|{control_id}|P|2.5|||{accept}|{application}"
        )
        return f"{head}\rPID|1||405660^^^CHX&1.2.3&ISO^PI||SPECIMEN^DOMINIQUE\r".encode()


class Fhir:
    """FHIR resources about the same patient and the same count."""

    SYSTEM = "urn:oid:1.2.3"

    @staticmethod
    def observation(
        anc: str = "0.840",
        *,
        identifier: str = "r-1",
        patient: str = "405660",
        collected: datetime | None = None,
        status: str = "final",
    ) -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "identifier": [{"system": "urn:oid:1.2.9", "value": identifier}],
            "status": status,
            "code": {"coding": [{"system": "http://loinc.org", "code": "751-8", "display": "Neutrophils"}]},
            "subject": {"identifier": {"system": Fhir.SYSTEM, "value": patient}},
            "effectiveDateTime": (collected or ago(hours=1)).isoformat(),
            "valueQuantity": {
                "value": float(anc),
                "unit": "10*9/L",
                "system": "http://unitsofmeasure.org",
                "code": "10*9/L",
            },
        }

    @staticmethod
    def bundle(kind: str, *resources: dict[str, Any], **elements: Any) -> dict[str, Any]:
        entries = []
        for number, resource in enumerate(resources):
            entry: dict[str, Any] = {"fullUrl": f"urn:uuid:00000000-0000-4000-8000-{number:012d}", "resource": resource}
            if kind in ("transaction", "batch"):
                entry["request"] = {"method": "POST", "url": resource["resourceType"]}
            entries.append(entry)
        return {"resourceType": "Bundle", "type": kind, **elements, "entry": entries}


class Lab:
    """A sender: one MLLP connection, answers taken in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._deframer = Deframer()
        self._ready: list[bytes] = []

    @classmethod
    async def connect(cls, port: int) -> Lab:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def write(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, limit_s: float = 20) -> bytes:
        """The next answer as it came; raises ConnectionError when the listener hangs up first."""
        async with asyncio.timeout(limit_s):
            while not self._ready:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionResetError("hung up before the answer")
                self._ready += [event.payload for event in self._deframer.feed(data) if isinstance(event, Frame)]
        return self._ready.pop(0)

    async def ack(self) -> Ack:
        answer = read_ack(await self.answer())
        assert answer is not None
        return answer

    async def ask(self, raw: bytes) -> Ack:
        """Sends one message in one frame; its acknowledgement."""
        await self.write(frame(raw))
        return await self.ack()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def _command(*arguments: str | Path, config: Path | None = None) -> Done:
    given = [*map(str, arguments), *(["--config", str(config)] if config is not None else [])]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)


Condition = Callable[[], Any]


async def _eventually(condition: Condition, limit_s: float = 20) -> Any:
    """What ``condition`` gives (awaited if need be) as soon as it is truthy."""
    async with asyncio.timeout(limit_s):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


async def enrol(path: Path, url: str, patient_id: str, **columns: str) -> ImportReport:
    row = {
        "patient_id": patient_id,
        "authority": "1.2.3",
        "family": "SPECIMEN",
        "given": "DOMINIQUE",
        "birth_date": "1979-03-28",
        "sex": "F",
        "treatment_start": (datetime.now(PARIS).date() - timedelta(days=40)).isoformat(),
        "start_confirmed_by": "Dr Hoda",
        "neutropenia_history": "none",
    } | columns
    file = path / f"register-{patient_id}.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, row)
        writer.writeheader()
        writer.writerow(row)
    with contextlib.closing(database.writer(url).connect()) as connection, connection.begin():
        if schema.present(connection) != schema.NEEDED:
            schema.upgrade(connection)
    return await asyncio.to_thread(import_csv, file, url, actor="Dr Hoda", zone=PARIS)


class Running:
    """One engine on free ports with its simulated prescriber; everything by its own doors, and by its database."""

    def __init__(self, engine: Engine, prescriber: Prescriber, path: Path) -> None:
        self.engine, self.prescriber, self.path = engine, prescriber, path
        assert engine.mllp is not None
        self.mllp_port = engine.mllp.port
        self.url = f"http://127.0.0.1:{engine.http_port}"

    async def lab(self) -> Lab:
        return await Lab.connect(self.mllp_port)

    async def tell(self, *messages: bytes) -> list[str]:
        """Sends each message, waits until all are judged; the codes of the answers."""
        lab = await self.lab()
        codes = [(await lab.ask(raw)).code for raw in messages]
        await lab.close()
        await self.judged()
        return codes

    async def judged(self) -> None:
        async def done() -> bool:
            try:
                return (await self.store.snapshot()).pending == 0
            except StoreUnavailable:
                return False  # a server on a machine that does much else: its answer came later than the store waits for it

        await _eventually(done)

    async def settled(self) -> None:
        """Judged, the present state of everybody looked at, and nothing more to deliver."""

        async def done() -> bool:
            # In this order: who is looked at between the two asks, on a server, has a delivery that waits.
            later = await self.store.settling(datetime.now(UTC) + timedelta(days=1), 10)
            waiting = [row for row in (await self.store.snapshot()).outbox if row[1] == "waiting"]
            self.store.arrived.set()  # looks now rather than at the next tick
            return not waiting and not later

        await self.judged()
        await _eventually(done)

    @property
    def store(self) -> Store:
        assert self.engine.store is not None
        return self.engine.store

    async def enrol(self, patient_id: str = "405660", **columns: str) -> ImportReport:
        """On the register by CSV, beside the running engine, as an operator would."""
        report = await enrol(self.path, self.engine.settings.store.url, patient_id, **columns)
        await _eventually(self.settled_register)
        return report

    async def settled_register(self) -> bool:
        self.store.arrived.set()
        return not await self.store.settling(datetime.now(UTC), 10)

    async def messages(self, **wanted: Any) -> list[dict[str, Any]]:
        return await self.store.read(lambda connection: list(listing.messages(connection, **wanted)))

    async def dispositions(self) -> list[str]:
        return [row["disposition"] for row in await self.messages()]

    async def deliveries(self, **wanted: Any) -> list[dict[str, Any]]:
        return await self.store.read(lambda connection: list(listing.deliveries(connection, **wanted)))

    async def findings(self) -> list[str]:
        return await self.store.read(findings)


@pytest.fixture
def hl7() -> type[Hl7]:
    return Hl7


@pytest.fixture
def fhir() -> type[Fhir]:
    return Fhir


@pytest.fixture
def connect() -> Callable[[int], Awaitable[Lab]]:
    return Lab.connect


@pytest.fixture
def neutroflag() -> Callable[..., Done]:
    """``neutroflag("db", "verify", config=file)`` in the test's own process: most of what a command takes is the start of an
    interpreter."""
    return _command


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    return _eventually


@pytest.fixture
def before() -> Callable[..., datetime]:
    """``before(hours=1)``: that long ago, to the second."""
    return ago


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """One PostgreSQL a test process (``fresh()``, ``empty()``: the addresses of new databases on it)."""
    with databases.server() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A PostgreSQL of one file of tests alone, which may end it as they like."""
    with databases.server() as found:
        yield found


@pytest.fixture
def postgresql_url(postgresql: Any) -> Iterator[str]:
    """A database with our schema on it, for one test."""
    url = postgresql.fresh()
    yield url
    postgresql.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def each_database(request: Any) -> str:
    """An address on each kind of database: what the product promises it promises on both."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgresql_url")
    return found


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "neutroflag.db"
    with contextlib.closing(database.writer(f"sqlite:///{file}").connect()) as connection, connection.begin():
        schema.upgrade(connection)
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A file with our schema: setting one up costs more than most tests."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'neutroflag.db')}"


@pytest.fixture
def url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = Store(url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def rows_of(url: str) -> Callable[[str], list[Any]]:
    """What another connection on the same file sees."""

    def look(sql: str) -> list[Any]:
        engine = database.reader(url)
        with engine.connect() as connection:
            found = connection.exec_driver_sql(sql).fetchall()
        engine.dispose()
        return [row[0] if len(row) == 1 else tuple(row) for row in found]

    return look


@pytest.fixture
async def prescriber() -> AsyncIterator[Prescriber]:
    async with Prescriber() as system:
        system.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")
        yield system


def _settings_text(prescriber: Prescriber, url: str, *, mode: str = "deliver", extra: str = "") -> str:
    return f"""
[store]
url = "{url}"
[engine]
mode = "{mode}"
history_settle_s = 0.2
[mllp]
port = 0
[http]
port = 0
[[destination]]
name = "ehr"
kind = "fhir"
url = "{prescriber.url}"
answers_every_s = 0.1
retry_first_s = 0.05
retry_longest_s = 0.2
[[destination]]
name = "ehr-v2"
kind = "mllp"
host = "127.0.0.1"
port = {prescriber.mllp_port}
retry_first_s = 0.05
retry_longest_s = 0.2
{extra}
"""


@pytest.fixture
def settings_file(prescriber: Prescriber, tmp_path: Path, url: str) -> Callable[..., Path]:
    """A settings file for free ports on the database ``url``, with the simulated prescriber as both destinations."""

    def write(**parts: str) -> Path:
        file = tmp_path / "neutroflag.toml"
        file.write_text(_settings_text(prescriber, url, **parts), encoding="utf-8")
        return file

    return write


@pytest.fixture
async def run_engine(
    prescriber: Prescriber, settings_file: Callable[..., Path], tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Starts engines with these settings; each is stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**parts: str) -> Running:
            engine = Engine(load(settings_file(**parts), {}))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return Running(engine, prescriber, tmp_path)

        yield start


@pytest.fixture
async def running(run_engine: Callable[..., Awaitable[Running]], tmp_path: Path, url: str) -> Running:
    """An engine with one patient on the register: 405660, on clozapine for 40 days."""
    await enrol(tmp_path, url, "405660")
    started = await run_engine()
    await _eventually(started.settled_register)
    return started


@pytest.fixture
def as_json() -> Callable[[Any], bytes]:
    return lambda value: json.dumps(value).encode()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def enrol_by_csv() -> Callable[..., Awaitable[ImportReport]]:
    """``enrol_by_csv(folder, url, patient_id, **columns)``: one patient on the register of that database."""
    return enrol
