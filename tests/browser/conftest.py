"""A running ``neutroflag serve``, a laboratory that sends to it, and a real Chromium that looks at its console."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from argon2 import PasswordHasher
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from bench.running import Receiver, Serve, receiver, serve
from engine.prescriber import Prescriber
from engine.register_csv import import_csv
from engine.simulate import blood_count
from store import accounts, database
from wire.mllp import frame

PARIS = ZoneInfo("Europe/Paris")
AUTHORITY = "2.999.1"
PASSWORD = "a long password of a test"  # noqa: S105  # of the test's own accounts
ACCOUNTS = {"dr.martin": "clinician", "dr.leroy": "clinician", "ops": "operator", "audit": "auditor", "root": "admin"}


@dataclass(frozen=True)
class House:
    """One engine and what is done to it from outside."""

    engine: Serve
    receiver: Receiver

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.engine.http_port}/console{path}"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.engine.config.with_name('bench.db')}"

    def enrol(self, patient: str, **columns: str) -> None:
        row = {
            "patient_id": patient,
            "authority": AUTHORITY,
            "family": f"FAMILLE{patient}",
            "given": "Camille",
            "birth_date": "1980-01-01",
            "treatment_start": (datetime.now(PARIS).date() - timedelta(days=40)).isoformat(),
            "start_confirmed_by": "Dr Test",
            "neutropenia_history": "none",
        } | columns
        file = self.engine.config.with_name(f"register-{patient}.csv")
        file.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
        report = import_csv(file, self.database, actor="browser test", zone=PARIS)
        assert not report.complaints

    def count(
        self, patient: str, per_mm3: int, *, days_ago: float = 0.05, status: str = "F", filler: str = ""
    ) -> bytes:
        """One blood count through the MLLP door; its acknowledgement."""
        number = str(time.monotonic_ns())
        message = blood_count(
            control_id=number[-18:],
            filler=filler or f"F{number}",
            patient_id=patient,
            anc_per_mm3=per_mm3,
            collected=datetime.now(UTC).replace(microsecond=0) - timedelta(days=days_ago),
            authority=AUTHORITY,
            family=f"FAMILLE{patient}",
            given="Camille",
            status=status,
        )
        return self.send(message)

    def send(self, message: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.engine.mllp_port), timeout=20) as door:
            door.sendall(frame(message))
            return door.recv(65536)

    def judged(self) -> None:
        """Waits until nothing is left to judge or deliver."""
        self.engine.drained()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Open: no accounts, on loopback, as on the first afternoon."""
    folder = tmp_path_factory.mktemp("open") / "engine"
    with receiver() as fhir, serve(folder, fhir) as engine:
        yield House(engine, fhir)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """With accounts of every role."""
    folder = tmp_path_factory.mktemp("guarded") / "engine"
    with receiver() as fhir, serve(folder, fhir) as engine:
        found = House(engine, fhir)
        now_ms = int(time.time() * 1000)
        with database.writer(found.database).connect() as connection, connection.begin():
            for name, role in ACCOUNTS.items():
                hashed = PasswordHasher().hash(PASSWORD)
                accounts.add(connection, name, password_hash=hashed, role=role, at_ms=now_ms, actor="browser test")
        yield found


_ROTA = """
[watch]
every_s = 0.5
critical_h = 0.002
critical_again_h = 1
[routing]
owner = "psychiatre"
[[rota.role]]
name = "psychiatre"
fhir = "PractitionerRole/psy"
[[rota.role]]
name = "astreinte"
[[rota.shift]]
role = "psychiatre"
[[rota.shift]]
role = "astreinte"
[[destination]]
name = "ehr"
kind = "fhir"
url = "{url}"
answers_every_s = 0.3
"""


@pytest.fixture(scope="session")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Prescriber]]:
    """Open, with a rota, and with a prescriber's system whose Tasks people answer."""
    system, started, over = Prescriber(), threading.Event(), threading.Event()

    async def run() -> None:
        async with system:
            started.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        with serve(tmp_path_factory.mktemp("ward") / "engine", settings=_ROTA.format(url=system.url)) as engine:
            yield House(engine, Receiver(system.http_port)), system
    finally:
        over.set()
        thread.join(10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "deploy/dev/chromium.sh gets one"
    with sync_playwright() as playwright:
        # Root in a container has no user namespaces for the sandbox; what it loads is our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """A new visitor: ``visit(width=390, scripts=False, language="en")`` gives a page; what its console says is an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(*, width: int = 1280, height: int = 900, scripts: bool = True) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=scripts, locale="fr-FR"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                errors.append(message.text)
                # On a busy machine a look of the page at itself may come too late; it looks again two seconds later.
                if message.type == "error"
                and "Failed to load resource" not in message.text
                and "htmx:error: timeout" not in message.text
                else None
            ),
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def log_in() -> Callable[[Page, House, str], None]:
    """Through the form the first time; later visits of the same person bring the session along."""
    cookies: dict[str, Any] = {}

    def entered(page: Page, house: House, name: str) -> None:
        if name in cookies:
            page.context.add_cookies(cookies[name])
            return
        page.goto(house.url("/login"))
        page.fill("input[name=name]", name)
        page.fill("input[name=password]", PASSWORD)
        page.click("main button[type=submit]")
        page.wait_for_url(re.compile(r"/console/(?!login)"))
        cookies[name] = page.context.cookies()

    return entered


@pytest.fixture
def serious() -> Callable[[Page], list[str]]:
    """What axe-core finds that keeps somebody out: serious and critical findings, by rule and place."""

    def found(page: Page) -> list[str]:
        return [
            f"{item['id']}: {node['html'][:160]}"
            for item in Axe().run(page).response["violations"]
            if item["impact"] in ("serious", "critical")
            for node in item["nodes"]
        ]

    return found
