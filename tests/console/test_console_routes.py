"""Every route of the whole application, asked for by nobody and by every role, against one table of who may."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher
from fastapi import APIRouter

from console.port import RIGHTS, Right, Role
from engine.compose import Engine
from engine.config import load
from store import accounts

HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery staple"  # noqa: S105

ANYBODY, LOGGED_IN = "anybody", "logged in"
CONSOLE: dict[tuple[str, str], Right | str] = {
    ("GET", "/console"): LOGGED_IN,
    ("GET", "/console/login"): ANYBODY,
    ("POST", "/console/login"): ANYBODY,
    ("POST", "/console/logout"): LOGGED_IN,
    ("GET", "/console/strip"): LOGGED_IN,
    ("POST", "/console/language"): ANYBODY,
    ("GET", "/console/static/{name}"): ANYBODY,
    ("GET", "/console/today"): Right.PATIENTS,
    ("GET", "/console/today/lists"): Right.PATIENTS,
    ("GET", "/console/patients"): Right.PATIENTS,
    ("GET", "/console/patients/{patient_id}"): Right.PATIENTS,
    ("GET", "/console/patients/{patient_id}/print"): Right.PATIENTS,
    ("GET", "/console/patients/{patient_id}/change"): Right.ANSWER,
    ("GET", "/console/patients/{patient_id}/{kind}"): Right.PATIENTS,
    ("POST", "/console/patients/{patient_id}/{kind}"): Right.ANSWER,
    ("GET", "/console/alerts/{alert_id}"): Right.PATIENTS,
    ("GET", "/console/alerts/{alert_id}/answer"): Right.PATIENTS,
    ("POST", "/console/alerts/{alert_id}/answer"): Right.ANSWER,
    ("GET", "/console/messages"): Right.MESSAGES,
    ("GET", "/console/messages/{number}"): Right.MESSAGES,
    ("POST", "/console/messages/{number}/replay"): Right.REPLAY,
    ("GET", "/console/messages/{number}/edit"): Right.REPLAY,
    ("POST", "/console/messages/{number}/edit"): Right.REPLAY,
    ("GET", "/console/merges"): Right.PATIENTS,
    ("POST", "/console/merges/{number}/undo"): Right.ANSWER,
    ("GET", "/console/dead-letters"): Right.MESSAGES,
    ("POST", "/console/dead-letters/replay"): Right.REPLAY,
    ("GET", "/console/connections"): Right.MESSAGES,
    ("GET", "/console/compare"): Right.MESSAGES,
    ("GET", "/console/compare.csv"): Right.MESSAGES,
    ("GET", "/console/{rest:path}"): LOGGED_IN,
}
TOKEN = "token"  # noqa: S105
_ALL = ("GET", "POST", "PUT", "PATCH", "DELETE")
DOORS: dict[tuple[str, str], str] = {
    ("GET", "/openapi.json"): ANYBODY,
    ("GET", "/livez"): ANYBODY,
    ("GET", "/readyz"): ANYBODY,
    ("GET", "/metrics"): TOKEN,
    ("GET", "/.well-known/jwks.json"): ANYBODY,
    ("POST", "/hl7"): TOKEN,
    ("GET", "/fhir/metadata"): ANYBODY,
    ("POST", "/fhir"): TOKEN,
    ("POST", "/fhir/"): TOKEN,
    ("POST", "/fhir/$process-message"): TOKEN,
    ("POST", "/fhir/{kind}"): TOKEN,
    ("PUT", "/fhir/{kind}/{number}"): TOKEN,
    **{(method, "/fhir/{rest:path}"): "nothing" for method in _ALL},
}


def walked(routes: Any) -> Iterator[tuple[str, str]]:
    """(method, path) of every route, whatever router it came in by."""
    for route in routes:
        # FastAPI keeps an included router as one, and knows its routes' whole paths.
        inner = getattr(route, "effective_candidates", None)
        if inner is not None:
            yield from walked(inner())
            continue
        for method in set(route.methods) - {"HEAD", "OPTIONS"}:
            yield method, route.path


@pytest.fixture
async def known(running: Any, hl7: Any, rows_of: Any) -> dict[str, str]:
    """A real patient, alert and message to ask for; and an account of each role."""
    await running.tell(hl7.oru(anc="0.4"))
    await running.settled()

    def add(connection: Any) -> None:
        for role in Role:
            accounts.add(
                connection, role.value, password_hash=HASHER.hash(PASSWORD), role=role.value, at_ms=0, actor="test"
            )

    await running.store.write(add)
    return {
        "{patient_id}": rows_of("SELECT id FROM patient")[0],
        "{alert_id}": rows_of("SELECT id FROM alert")[0],
        "{number}": str(rows_of("SELECT id FROM message")[0]),
        "{kind}": "stop",
        "{name}": "neutroflag.css",
        "{rest:path}": "nowhere",
    }


def address(path: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        path = path.replace(name, value)
    return path


async def test_every_route_of_the_application_stands_in_the_table(running: Any) -> None:
    found = set(walked(running.engine.app.routes))
    assert found == set(CONSOLE) | set(DOORS)


async def unguarded(client: httpx2.AsyncClient, table: dict[tuple[str, str], Any], known: dict[str, str]) -> list[str]:
    """The console's routes that somebody without a log-in gets more from than the way to the log-in."""
    found = []
    for (method, path), need in table.items():
        if need is ANYBODY:
            continue
        answer = await client.request(method, address(path, known), data={"csrf": "x"} if method == "POST" else None)
        sent_away = answer.status_code == 303 and answer.headers["location"].startswith("/console/login")
        if not sent_away or answer.content:
            found.append(f"{method} {path}: {answer.status_code}")
    return found


async def test_the_walk_finds_a_route_that_was_left_without_a_guard(
    running: Any, known: dict[str, str], client: httpx2.AsyncClient
) -> None:
    """A test of the test: faults planted in the application are found by the two ways in which it looks."""

    def open_to_all() -> dict[str, str]:
        return {"name": "DOMINIQUE"}

    def open_form() -> dict[str, str]:
        return {}

    app = running.engine.app
    # Before the console's own, whose last route takes every address.
    planted = APIRouter()
    planted.add_api_route("/console/planted", open_to_all, methods=["GET"])
    planted.add_api_route("/console/planted", open_form, methods=["POST"])
    before = list(app.routes)
    app.include_router(planted)
    app.router.routes[:] = [route for route in app.routes if route not in before] + before
    unlisted = set(walked(app.routes)) - set(CONSOLE) - set(DOORS)
    assert unlisted == {("GET", "/console/planted"), ("POST", "/console/planted")}
    # And if it is put into the table without a thought, the walk itself says what it gives.
    with_it = CONSOLE | dict.fromkeys(unlisted, LOGGED_IN)
    assert await unguarded(client, with_it, known) == [
        f"{method} /console/planted: 200" for method, path in with_it if path == "/console/planted"
    ]


async def log_in(client: httpx2.AsyncClient, name: str) -> str:
    page = await client.get("/console/login")
    answer = await client.post("/console/login", data={"csrf": csrf_in(page.text), "name": name, "password": PASSWORD})
    assert answer.status_code == 303
    home = await client.get((await client.get("/console")).headers["location"])
    return csrf_in(home.text)


def csrf_in(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


@pytest.fixture
async def client(running: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False, timeout=20) as client:
        yield client


def state(rows_of: Any) -> list[Any]:
    """What a form could have changed."""
    return [
        rows_of(f"SELECT count(*) FROM {table}")[0]  # noqa: S608
        for table in ("message", "answer", "alert", "audit")
    ] + rows_of("SELECT rev FROM patient")


async def test_nobody_sees_anything_without_a_log_in(
    running: Any, known: dict[str, str], client: httpx2.AsyncClient, rows_of: Any
) -> None:
    before = state(rows_of)
    assert await unguarded(client, CONSOLE, known) == []
    for (method, path), need in CONSOLE.items():
        if need is ANYBODY:
            answer = await client.request(
                method, address(path, known), data={"csrf": "x"} if method == "POST" else None
            )
            assert answer.status_code in (200, 303, 403), (path, answer.status_code)
    assert state(rows_of) == before


@pytest.mark.parametrize("role", Role)
async def test_each_role_opens_its_own_routes_and_no_other(
    running: Any, known: dict[str, str], client: httpx2.AsyncClient, rows_of: Any, role: Role
) -> None:
    csrf = await log_in(client, role.value)
    for (method, path), need in CONSOLE.items():
        if path.endswith(("/login", "/logout")):
            continue
        before = state(rows_of)
        where = address(path, known)
        if method == "POST" and need is not ANYBODY:
            # Without the session's own token a form is nothing, whoever sends it.
            for data in ({"by": role.value}, {"csrf": "x" * len(csrf)}):
                assert (await client.post(where, data=data)).status_code == 403, (path, data)
            assert state(rows_of) == before
        answer = await client.request(
            method, where, data={"csrf": csrf, "by": role.value} if method == "POST" else None
        )
        if isinstance(need, Right) and need not in RIGHTS[role]:
            assert answer.status_code == 403, (method, path)
            assert state(rows_of) == before
            assert "SPECIMEN" not in answer.text
            assert "405660" not in answer.text
        else:
            assert answer.status_code in (200, 303, 400, 404, 409, 422), (method, path, answer.status_code)
            assert not answer.headers.get("location", "").startswith("/console/login")
            assert (answer.status_code == 404) == (path == "/console/{rest:path}"), (method, path)
    assert (await client.post("/console/logout", data={"csrf": csrf})).status_code == 303
    assert (await client.get("/console")).headers["location"].startswith("/console/login")


async def test_no_other_method_does_anything_at_any_address(
    running: Any, known: dict[str, str], client: httpx2.AsyncClient, rows_of: Any
) -> None:
    await log_in(client, "admin")
    before = state(rows_of)
    for path in {path for _, path in CONSOLE}:
        for method in {"PUT", "PATCH", "DELETE", "POST"} - {m for m, p in CONSOLE if p == path}:
            data = {"csrf": "x"} if method == "POST" else None
            answer = await client.request(method, address(path, known), data=data)
            # A POST may meet a wider template of the same shape: it is refused there for want of its token.
            assert answer.status_code in (403, 404, 405), (method, path, answer.status_code)
    assert state(rows_of) == before


async def test_the_doors_take_nothing_without_a_token_where_tokens_are_asked_for(
    settings_file: Any, tmp_path: Path, rows_of: Any
) -> None:
    (tmp_path / "t").write_text("k3y-of-lab1-0123456789", encoding="ascii")
    file = settings_file()
    guarded = (
        f'[http]\nport = 0\nhost = "0.0.0.0"\nallow_plaintext = true\n'
        f'[[http.token]]\nname = "lab"\nfile = "{tmp_path / "t"}"\nfaces = ["fhir", "hl7", "metrics"]\n'
    )
    file.write_text(file.read_text(encoding="utf-8").replace("[http]\nport = 0\n", guarded), encoding="utf-8")
    engine = Engine(load(file, {}))
    await engine.start()
    known = {"{kind}": "Observation", "{number}": "1", "{rest:path}": "Observation/1/_history"}
    try:
        url = f"http://127.0.0.1:{engine.http_port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            for (method, path), need in DOORS.items():
                answer = await client.request(method, address(path, known), content=b"{}" if method == "POST" else None)
                wanted = {ANYBODY: 200, TOKEN: 401, "nothing": 405}[need]
                assert answer.status_code == wanted, (method, path, answer.status_code)
            assert (await client.get("/readyz")).json() == {"judging": True}
        assert rows_of("SELECT id FROM message") == []
    finally:
        await engine.stop()
