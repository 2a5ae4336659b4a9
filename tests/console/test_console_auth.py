"""The console's door: sessions, rights, forms; over real HTTP, with accounts in a real database."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import httpx2
import pytest
import uvicorn
from argon2 import PasswordHasher
from fastapi import APIRouter, Depends, FastAPI
from starlette.datastructures import FormData

from console.auth import COOKIE, Answered, answered, attached, checked_form, requires, routes, visitor
from console.port import RIGHTS, Console, Right, Role, Visitor
from console.site import Site
from console.throttle import Throttle
from store import Store, accounts, database
from store.values import to_ms
from tests.plain import PLAIN

PASSWORD = "correct horse battery staple"  # noqa: S105
# As argon2 does it, only quicker: its cost is not what these tests are about.
HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@dataclass
class Place:
    """A console of one page a right, on a free port, with a clock that can be put forward."""

    store: Store
    port: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    taken: list[FormData] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def write(self, operation: Callable[..., Any]) -> Any:
        return await self.store._writing.run(operation)

    async def account(self, name: str, role: str = "clinician", password: str = PASSWORD) -> None:
        hashed = HASHER.hash(password)
        await self.write(
            lambda connection: accounts.add(
                connection, name, password_hash=hashed, role=role, at_ms=to_ms(self.now), actor="test"
            )
        )

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers=headers, verify=PLAIN, trust_env=False, timeout=20)

    @contextlib.asynccontextmanager
    async def logged_in(self, name: str = "Dr Hoda", password: str = PASSWORD) -> AsyncIterator[httpx2.AsyncClient]:
        async with self.browser() as client:
            answer = await log_in(client, name, password)
            assert answer.status_code == 303, answer.text
            yield client


async def log_in(
    client: httpx2.AsyncClient, name: str = "Dr Hoda", password: str = PASSWORD, target: str = ""
) -> httpx2.Response:
    page = await client.get("/console/login", params={"next": target})
    assert page.status_code == 200
    return await client.post(
        "/console/login",
        data={"csrf": csrf_in(page.text), "next": target, "name": name, "password": password},
    )


def csrf_in(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def pages(site: Site, place: Place) -> APIRouter:
    router = APIRouter(prefix="/console", dependencies=[Depends(attached(site, HASHER))])
    router.include_router(routes(site))

    @router.get("")
    async def home(who: Annotated[Visitor, Depends(visitor)]) -> dict[str, Any]:
        return {"name": who.name, "role": who.role, "csrf": who.csrf, "open": who.is_open}

    @router.post("/act")
    async def act(form: Annotated[FormData, Depends(checked_form)]) -> dict[str, Any]:
        place.taken.append(form)
        return {"fields": form.multi_items()}

    for right in Right:
        router.add_api_route(f"/{right.value}", page, dependencies=[Depends(requires(right))])
    return router


def page() -> dict[str, str]:
    return {}


def console(place: Place, url: str, *, loopback: bool, secure: bool) -> Console:
    async def state() -> tuple[bool, dict[str, Any]]:
        return True, {}

    return Console(
        reader=database.reader(url),
        actions=None,  # type: ignore[arg-type]  # none of these pages acts
        state=state,
        language="en",
        zone=ZoneInfo("Europe/Paris"),
        mode="deliver",
        protocol="ansm",
        destinations=(),
        loopback=loopback,
        secure=secure,
        version="0",
        clock=lambda: place.now,
        look_ahead=lambda connection, number, raw: {},
        write=place.write,
    )


@contextlib.asynccontextmanager
async def opened(store: Store, url: str, *, loopback: bool = True, secure: bool = False) -> AsyncIterator[Place]:
    place = Place(store)
    site = Site(console(place, url, loopback=loopback, secure=secure))
    app = FastAPI()
    app.include_router(pages(site, place))
    app.add_exception_handler(Answered, answered)
    listening = socket.create_server(("127.0.0.1", 0))
    place.port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield place
    finally:
        server.should_exit = True
        await running
        site.console.reader.dispose()


@pytest.fixture
async def place(store: Store, url: str) -> AsyncIterator[Place]:
    async with opened(store, url) as found:
        yield found


async def test_without_any_account_the_console_is_open_on_loopback(place: Place) -> None:
    async with place.browser() as client:
        answer = await client.get("/console")
        assert answer.json()["open"] is True
        assert answer.json()["name"] == ""
        taken = await client.post("/console/act", data={"csrf": answer.json()["csrf"], "x": "1"})
        assert taken.status_code == 200


@pytest.mark.parametrize("host", ["console.hospital.example", "127.evil.example", "localhost.evil.example", ""])
async def test_an_open_console_answers_only_to_a_loopback_name(place: Place, host: str) -> None:
    """A proxy on this machine, or a page whose name was bound anew to 127.0.0.1, would open it to others."""
    async with place.browser(Host=host) as client:
        assert (await client.get("/console")).status_code == 503


async def test_off_loopback_a_console_without_accounts_says_how_to_make_the_first(store: Store, url: str) -> None:
    async with opened(store, url, loopback=False) as place, place.browser() as client:
        for path in ("/console", "/console/login"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "neutroflag users add" in answer.text


async def test_a_stranger_is_led_to_the_login_and_back_to_where_he_was(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.browser() as client:
        sent = await client.get("/console/patients?page=2")
        assert sent.status_code == 303
        assert sent.headers["location"] == "/console/login?next=%2Fconsole%2Fpatients%3Fpage%3D2"
        back = await log_in(client, target="/console/patients?page=2")
        assert (back.status_code, back.headers["location"]) == (303, "/console/patients?page=2")
        assert (await client.get("/console")).json()["name"] == "Dr Hoda"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/console//evil.example",
        "/console/../fhir",
        "/consolex",
        "/fhir",
        "/console\\@evil.example",
        "/console/a\r\nSet-Cookie: x=1",
        "javascript:alert(1)",
        "/console/login",
    ],
)
async def test_the_login_leads_nowhere_but_into_the_console(place: Place, target: str) -> None:
    await place.account("Dr Hoda")
    async with place.browser() as client:
        answer = await log_in(client, target=target)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")


async def test_a_part_of_a_page_tells_htmx_to_leave_for_the_login(place: Place) -> None:
    await place.account("Dr Hoda")
    current = f"{place.url}/console/patients"
    async with place.browser(**{"HX-Request": "true", "HX-Current-URL": current}) as client:
        answer = await client.get("/console/patients")
        assert answer.status_code == 401
        assert answer.headers["hx-redirect"] == "/console/login?next=%2Fconsole%2Fpatients"


@pytest.mark.parametrize(
    ("name", "password"), [("Dr Hoda", "wrong"), ("Dr Nobody", PASSWORD), ("", ""), ("Dr Hoda", "")]
)
async def test_an_unknown_name_and_a_wrong_password_get_the_same_answer(place: Place, name: str, password: str) -> None:
    await place.account("Dr Hoda")
    async with place.browser() as client:
        answer = await log_in(client, name, password)
        assert answer.status_code == 401
        assert "The name or the password is wrong." in answer.text
        assert COOKIE not in client.cookies
        assert name == "" or name not in answer.text


async def test_the_cookie_is_for_the_console_alone_and_unreadable_for_scripts(store: Store, url: str) -> None:
    async with opened(store, url, secure=True) as place:
        await place.account("Dr Hoda")
        async with place.browser() as client:
            given = (await log_in(client)).headers["set-cookie"]
    assert given.startswith(f"{COOKIE}=")
    assert {part.strip().lower() for part in given.split(";")[1:]} == {
        "httponly",
        "path=/console",
        "samesite=strict",
        "secure",
    }


async def test_only_a_hash_of_the_cookie_is_kept(place: Place, rows_of: Callable[[str], list[Any]]) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        token = client.cookies[COOKIE]
        assert len(bytes.fromhex(token)) == 32
        kept = repr(rows_of("SELECT * FROM session"))
        assert token not in kept
        assert rows_of("SELECT length(token_hash) FROM session") == [32]
        assert rows_of("SELECT action FROM audit WHERE action = 'login'") == ["login"]


async def test_a_planted_session_token_is_not_taken_over(place: Place) -> None:
    """Session fixation: the attacker's cookie is in the victim's browser before the log-in."""
    await place.account("Dr Hoda")
    planted = secrets.token_hex(32)
    async with place.browser() as victim, place.browser() as attacker:
        victim.cookies.set(COOKIE, planted, path="/console")
        attacker.cookies.set(COOKIE, planted, path="/console")
        assert (await log_in(victim)).status_code == 303
        assert planted not in [cookie.value for cookie in victim.cookies.jar if cookie.path == "/console"][-1:]
        assert (await attacker.get("/console")).status_code == 303


async def test_a_new_login_ends_the_session_before_it(place: Place, rows_of: Callable[[str], list[Any]]) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client, place.browser() as earlier:
        earlier.cookies.set(COOKIE, client.cookies[COOKIE], path="/console")
        assert (await earlier.get("/console")).status_code == 200
        await log_in(client)
        assert (await client.get("/console")).status_code == 200
        assert (await earlier.get("/console")).status_code == 303
    assert rows_of("SELECT count(*) FROM session") == [1]


async def test_a_logout_ends_the_session_for_whoever_kept_its_cookie(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client, place.browser() as thief:
        thief.cookies.set(COOKIE, client.cookies[COOKIE], path="/console")
        csrf = (await thief.get("/console")).json()["csrf"]
        answer = await client.post("/console/logout", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
        assert COOKIE not in client.cookies
        assert (await thief.get("/console")).status_code == 303


async def test_a_session_ends_after_half_an_hour_unused(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        for _ in range(3):
            place.now += timedelta(minutes=25)
            assert (await client.get("/console")).status_code == 200
        place.now += timedelta(minutes=31)
        assert (await client.get("/console")).status_code == 303


async def test_what_a_page_fetches_by_itself_does_not_keep_a_session_alive(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        for _ in range(2):
            place.now += timedelta(minutes=14)
            assert (await client.get("/console", headers={"HX-Request": "true"})).status_code == 200
        place.now += timedelta(minutes=3)
        assert (await client.get("/console")).status_code == 303


async def test_a_session_ends_after_twelve_hours_however_busy(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        for _ in range(35):
            place.now += timedelta(minutes=20)
            assert (await client.get("/console")).status_code == 200
        place.now += timedelta(minutes=21)
        assert (await client.get("/console")).status_code == 303


@pytest.mark.parametrize("change", ["disable", "password"])
async def test_a_disabled_account_and_a_new_password_end_open_sessions(place: Place, change: str) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        at = to_ms(place.now)
        if change == "disable":
            await place.write(lambda c: accounts.set_disabled(c, "Dr Hoda", True, at_ms=at, actor="test"))
        else:
            await place.write(lambda c: accounts.set_password(c, "Dr Hoda", HASHER.hash("n"), at_ms=at, actor="test"))
        assert (await client.get("/console")).status_code == 303
        assert (await log_in(client)).status_code == 401


async def test_a_new_role_holds_from_the_next_page_on(place: Place) -> None:
    await place.account("Dr Hoda", "operator")
    async with place.logged_in() as client:
        assert (await client.get("/console/patients")).status_code == 403
        await place.write(lambda c: accounts.set_role(c, "Dr Hoda", "clinician", at_ms=0, actor="test"))
        assert (await client.get("/console/patients")).status_code == 200


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_sees_what_its_rights_allow_and_nothing_else(place: Place, role: Role) -> None:
    await place.account("Dr Hoda", role.value)
    async with place.logged_in() as client:
        seen = {right for right in Right if (await client.get(f"/console/{right.value}")).status_code == 200}
        refused = [await client.get(f"/console/{right.value}") for right in Right if right not in RIGHTS[role]]
    assert seen == RIGHTS[role]
    assert {answer.status_code for answer in refused} <= {403}
    assert all("Your role does not give access" in answer.text for answer in refused)


async def test_a_form_is_taken_with_the_session_s_token_only(place: Place) -> None:
    await place.account("Dr Hoda")
    await place.account("Dr Vidal")
    async with place.logged_in() as client, place.logged_in("Dr Vidal") as other:
        mine = (await client.get("/console")).json()["csrf"]
        theirs = (await other.get("/console")).json()["csrf"]
        for data in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": theirs}, {"csrf": "é"}, {"csrf": mine + "x"}):
            refused = await client.post("/console/act", data={**data, "x": "1"})
            assert refused.status_code == 403, data
        assert place.taken == []
        assert (await client.post("/console/act", data={"csrf": mine, "x": "1"})).status_code == 200
        assert (await client.post("/console/act", params={"csrf": mine}, data={"x": "1"})).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
async def test_a_form_from_another_site_is_refused_even_with_the_token(place: Place, headers: dict[str, str]) -> None:
    await place.account("Dr Hoda")
    async with place.logged_in() as client:
        csrf = (await client.get("/console")).json()["csrf"]
        assert (await client.post("/console/act", data={"csrf": csrf}, headers=headers)).status_code == 403
    async with place.browser(**headers) as stranger:
        page = await stranger.get("/console/login")
        data = {"csrf": csrf_in(page.text), "name": "Dr Hoda", "password": PASSWORD}
        assert (await stranger.post("/console/login", data=data)).status_code == 403
    assert place.taken == []


async def test_a_form_keeps_its_accents_and_its_repeated_fields(place: Place) -> None:
    async with place.browser(**{"Sec-Fetch-Site": "same-origin"}) as client:
        csrf = (await client.get("/console")).json()["csrf"]
        answer = await client.post("/console/act", data={"csrf": csrf, "reason": "Fièvre, é", "sign": ["a", "b"]})
        assert answer.json()["fields"][1:] == [["reason", "Fièvre, é"], ["sign", "a"], ["sign", "b"]]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x=" + b"a" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"x=1" for _ in range(300)), "application/x-www-form-urlencoded", 400),
        (b"x=%ff", "application/x-www-form-urlencoded", 400),
        (b"x=\xff", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data; boundary=x", 415),
        (b"", "application/x-www-form-urlencoded", 403),
    ],
)
async def test_an_odd_form_is_refused_in_words(place: Place, body: bytes, kind: str, status: int) -> None:
    async with place.browser() as client:
        answer = await client.post("/console/act", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert "Nothing was recorded" in answer.text


async def test_too_many_wrong_passwords_make_the_name_wait_and_nobody_else(place: Place) -> None:
    await place.account("Dr Hoda")
    await place.account("Dr Vidal")
    async with place.browser() as client:
        codes = [(await log_in(client, password=f"wrong {n}")).status_code for n in range(11)]
        assert codes == [401] * 10 + [429]
        waits = await log_in(client)
        assert waits.status_code == 429
        assert 0 < int(waits.headers["retry-after"]) <= 300
        assert (await log_in(client, "Dr Vidal")).status_code == 303


async def test_one_address_that_tries_many_names_waits_whatever_the_name(place: Place) -> None:
    await place.account("Dr Vidal")
    async with place.browser() as client:
        codes = [(await log_in(client, f"name {n}")).status_code for n in range(51)]
        assert codes == [401] * 50 + [429]
        assert (await log_in(client, "Dr Vidal")).status_code == 429


def test_a_throttle_opens_again_and_holds_no_more_keys_than_allowed() -> None:
    throttle = Throttle(limit=2, window_s=10, keys=3)
    for at in (0.0, 4.0):
        assert throttle.wait_s("a", at) == 0
        throttle.failed("a", at)
    assert throttle.wait_s("a", 5) == 5
    assert throttle.wait_s("a", 10) == 0
    for number in range(100):
        throttle.failed(f"name {number}", 5)
    assert len(throttle._failures) == 3
    throttle.failed("b", 5)
    throttle.succeeded("b")
    assert throttle.wait_s("b", 5) == 0
    for _ in range(2):
        throttle.failed("c", 5)
    throttle.forgive("c")
    assert throttle.wait_s("c", 5) == 0
    throttle.failed("c", 5)
    assert throttle.wait_s("c", 5) > 0


async def test_many_people_behind_one_proxy_log_in_and_none_of_them_waits(place: Place) -> None:
    await place.account("Dr Vidal")
    async with place.browser() as client:
        codes = {(await log_in(client, "Dr Vidal")).status_code for _ in range(55)}
    assert codes == {303}


async def test_garbage_in_the_cookie_is_nobody(place: Place) -> None:
    await place.account("Dr Hoda")
    async with place.browser() as client:
        for garbage in (b"", b"x", "é".encode(), b"\xff", b"0" * 5000, b"' OR 1=1 --"):
            cookie = {b"Cookie": COOKIE.encode() + b"=" + garbage}
            answer = await client.get("/console", headers=cookie)
            assert answer.status_code == 303
