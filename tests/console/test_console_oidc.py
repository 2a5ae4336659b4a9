"""Log-in through an identity provider: a real one over HTTP that keeps to the standard, and the same one when it does not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from aiohttp import web
from argon2 import PasswordHasher
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from console.auth import COOKIE
from console.oidc import PENDING
from engine.compose import Engine
from engine.config import ConfigError, exposed, load
from engine.serve import refusals
from store import accounts
from tests.plain import PLAIN

RSA, OTHER = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
CLIENT, SECRET = "neutroflag", "s3cret of+the/client"
MARTIN = {"sub": "4711", "preferred_username": "dr.martin", "roles": ["ward-3", "nf-clinicians"]}
ROLES = '{ nf-admins = "admin", nf-clinicians = "clinician", nf-auditors = "auditor" }'


class Provider:
    """An OpenID provider. ``spoil`` changes the claims that it signs; whoever asks is ``person``."""

    def __init__(self) -> None:
        self.url = ""
        self.person: dict[str, Any] = dict(MARTIN)
        self.spoil: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "r1", "typ": "JWT"}
        self.key: Any = RSA
        self.methods = ["client_secret_basic"]
        self.says_iss = True
        self.document: dict[str, Any] = {}
        self.answers = True
        self.given: dict[str, dict[str, str]] = {}
        self.redeemed = 0

    def configuration(self, _: web.Request) -> web.Response:
        found = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=1",
            "token_endpoint": f"{self.url}/token",
            "end_session_endpoint": f"{self.url}/leave",
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint_auth_methods_supported": self.methods,
            "authorization_response_iss_parameter_supported": self.says_iss,
        }
        return web.json_response(found | self.document) if self.answers else web.Response(status=500)

    def jwks(self, _: web.Request) -> web.Response:
        keys = [{**key.as_dict(private=False), "kid": name, "use": "sig"} for name, key in (("r1", RSA), ("e1", EC))]
        return web.json_response({"keys": keys})

    def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        assert asked["tenant"] == "1"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.given[code] = asked
        iss = f"&iss={self.url}" if self.says_iss else ""
        raise web.HTTPFound(f"{asked['redirect_uri']}?code={code}&state={asked['state']}{iss}")

    async def token(self, request: web.Request) -> web.Response:
        self.redeemed += 1
        form = dict(await request.post())
        basic = base64.b64encode(b"neutroflag:s3cret%20of%2Bthe%2Fclient").decode()
        shown = request.headers.get("authorization") == f"Basic {basic}"
        if not (shown if "client_secret_basic" in self.methods else form.get("client_secret") == SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self.given.pop(str(form["code"]), None)  # a code is good once
        verifier = str(form["code_verifier"]).encode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).decode().rstrip("=")
        if asked is None or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.person}
        wanted = {name: value for name, value in (claims | self.spoil).items() if value is not None}
        token = jwt.encode(self.header, wanted, self.key, algorithms=[self.header["alg"]])
        return web.json_response({"access_token": "a", "token_type": "Bearer", "id_token": token})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    found = Provider()
    app = web.Application()

    def answers(call: Callable[[web.Request], Any]) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            answer = call(request)
            return answer if isinstance(answer, web.StreamResponse) else await answer

        return handler

    app.router.add_get("/.well-known/openid-configuration", answers(found.configuration))
    app.router.add_get("/jwks", answers(found.jwks))
    app.router.add_get("/authorize", answers(found.authorize))
    app.router.add_post("/token", answers(found.token))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


class House:
    def __init__(self, engine: Engine, provider: Provider) -> None:
        self.engine, self.provider = engine, provider
        self.url = f"http://127.0.0.1:{engine.http_port}"

    def browser(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, verify=PLAIN, trust_env=False, timeout=20)

    async def account(self, name: str, password: str) -> None:
        assert self.engine.store is not None
        hashed = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(password)
        await self.engine.store.write(
            lambda c: accounts.add(c, name, password_hash=hashed, role="admin", at_ms=0, actor="test")
        )


def section(provider_url: str, folder: Path, extra: str = "") -> str:
    (folder / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
    return f"""
[console.oidc]
issuer = "{provider_url}"
client_id = "{CLIENT}"
client_secret_file = "{folder / "secret"}"
redirect_url = "http://127.0.0.1:1/console/oidc/callback"
label = "CHX"
roles = {ROLES}
{extra}
"""


@pytest.fixture
async def open_house(
    settings_file: Callable[..., Path], provider: Provider, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(extra: str = "") -> House:
            engine = Engine(load(settings_file(extra=section(provider.url, tmp_path, extra)), {}))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return House(engine, provider)

        yield start


@pytest.fixture
async def house(open_house: Callable[..., Any]) -> House:
    return await open_house()


async def sent_back(client: httpx2.AsyncClient, target: str = "") -> str:
    """Out to the provider; where it sends the browser, without the host that nobody listens on."""
    out = await client.get("/console/oidc/start", params={"next": target})
    assert out.status_code == 303, out.text
    async with httpx2.AsyncClient(verify=PLAIN, trust_env=False) as elsewhere:
        back = await elsewhere.get(out.headers["location"])
    assert back.status_code == 302, back.text
    return back.headers["location"].removeprefix("http://127.0.0.1:1")


async def log_in(client: httpx2.AsyncClient, target: str = "") -> httpx2.Response:
    return await client.get(await sent_back(client, target))


async def test_a_person_of_the_provider_is_let_in_with_the_role_that_it_gives(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    async with house.browser() as client:
        # No account at all, on loopback: with a provider the console is not open.
        assert (await client.get("/console/today")).headers["location"] == "/console/login?next=%2Fconsole%2Ftoday"
        page = await client.get("/console/login?next=/console/today")
        assert '<a class="button" href="/console/oidc/start?next=/console/today">' in page.text
        answer = await log_in(client, "/console/today")
        assert answer.status_code == 200
        # Not a redirection: the strict cookie would not go with it, coming from the provider.
        assert '<meta http-equiv="refresh" content="0;url=/console/today">' in answer.text
        given = [line for line in answer.headers.get_list("set-cookie") if line.startswith(COOKIE)]
        assert "SameSite=strict" in given[0]
        assert "HttpOnly" in given[0]
        today = await client.get("/console/today")
        assert today.status_code == 200
        assert "dr.martin" in today.text
        assert (await client.get("/console/messages")).status_code == 403
    assert rows_of("SELECT name, role, issuer, subject FROM account") == [
        ("dr.martin", "clinician", house.provider.url, "4711")
    ]
    assert rows_of("SELECT actor, action FROM audit ORDER BY seq") == [
        (house.provider.url, "account-added"),
        ("dr.martin", "login"),
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://idp.example"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"iat": 4102444800},
        {"sub": None},
        {"sub": 7},
        {"preferred_username": None},
        {"preferred_username": "a\nb"},
        {"preferred_username": "x" * 65},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_this_log_in_lets_nobody_in(
    house: House, rows_of: Callable[[str], list[Any]], spoil: dict[str, Any]
) -> None:
    house.provider.spoil = spoil
    async with house.browser() as client:
        answer = await log_in(client)
        assert answer.status_code == 401
        assert COOKIE not in client.cookies
        assert PENDING not in client.cookies
    assert rows_of("SELECT name FROM account") == rows_of("SELECT account FROM session") == []


@pytest.mark.parametrize("how", ["key", "no-token", "kid", "other", "typ"])
async def test_a_token_that_the_provider_did_not_sign_lets_nobody_in(
    house: House, rows_of: Callable[[str], list[Any]], how: str
) -> None:
    provider = house.provider
    match how:
        case "key":
            provider.key = OTHER
        case "kid":
            provider.header = provider.header | {"kid": "r9"}
        case "typ":
            provider.header = provider.header | {"typ": "logout+jwt"}
        case "other":
            provider.document = {"issuer": "https://idp.example"}
        case "no-token":
            provider.document = {"token_endpoint": f"{provider.url}/nowhere"}
    async with house.browser() as client:
        if how == "other":
            assert (await client.get("/console/oidc/start")).status_code == 503
        else:
            assert (await log_in(client)).status_code == 401
    assert rows_of("SELECT account FROM session") == []


async def test_elliptic_keys_and_a_secret_in_the_form_are_taken_where_the_provider_wants_them(house: House) -> None:
    provider = house.provider
    provider.header, provider.key = {"alg": "ES256", "kid": "e1"}, EC
    provider.methods, provider.says_iss = ["client_secret_post"], False
    async with house.browser() as client:
        assert (await log_in(client)).status_code == 200
        assert (await client.get("/console/today")).status_code == 200


async def test_an_answer_counts_only_in_the_browser_that_asked_and_only_once(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    async with house.browser() as victim, house.browser() as attacker, house.browser() as other:
        theirs = await sent_back(attacker)
        # Log-in by forgery: the attacker's answer in the victim's browser.
        assert (await victim.get(theirs)).status_code == 400
        await victim.get("/console/oidc/start")
        assert (await victim.get(theirs)).status_code == 400
        # A stolen code with the thief's own state: the verifier is not the one that it was given for.
        stolen = parse_qs(urlsplit(await sent_back(other)).query)["code"][0]
        mine = await sent_back(attacker)
        code = parse_qs(urlsplit(mine).query)["code"][0]
        assert (await attacker.get(mine.replace(code, stolen))).status_code == 401
        assert rows_of("SELECT account FROM session") == []
        # The same answer twice: the first took its cookie along.
        once = await sent_back(attacker)
        assert (await attacker.get(once)).status_code == 200
        assert (await attacker.get(once)).status_code == 400
    assert rows_of("SELECT count(*) FROM session") == [1]


async def test_an_answer_that_names_another_provider_is_not_taken_to_this_one(house: House) -> None:
    async with house.browser() as client:
        mixed = (await sent_back(client)).replace("iss=http", "iss=https")
        assert (await client.get(mixed)).status_code == 401
        silent = re.sub("&iss=.*", "", await sent_back(client))
        assert (await client.get(silent)).status_code == 401
        assert house.provider.redeemed == 0


async def test_what_the_provider_refuses_is_said_and_nothing_is_asked(house: House) -> None:
    async with house.browser() as client:
        state = parse_qs(urlsplit((await client.get("/console/oidc/start")).headers["location"]).query)["state"][0]
        answer = await client.get("/console/oidc/callback", params={"error": "access_denied", "state": state})
        assert answer.status_code == 401
        assert house.provider.redeemed == 0
        metrics = (await client.get("/metrics")).text
    assert 'neutroflag_notices_total{channel="console",event="sign_on_refused"} 1.0' in metrics


async def test_without_a_role_nobody_is_let_in_and_no_account_is_made(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    async with house.browser() as client:
        for roles in ([], ["nf-clinician"], {"nf-admins": True}, None, "nf"):
            house.provider.person = MARTIN | {"roles": roles}
            assert (await log_in(client)).status_code == 403
    assert rows_of("SELECT name FROM account") == []


async def test_a_role_taken_away_or_given_holds_from_the_next_log_in_and_stands_in_the_audit(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    async with house.browser() as client:
        await log_in(client)
        # Married since, and an auditor: the same person to the provider, and to the audit.
        house.provider.person = {"sub": "4711", "preferred_username": "dr.durand", "roles": "nf-auditors"}
        first = client.cookies[COOKIE]
        assert (await log_in(client)).status_code == 200
        assert client.cookies[COOKIE] != first
        assert (await client.get("/console/messages")).status_code == 200
    assert rows_of("SELECT name, role FROM account") == [("dr.martin", "auditor")]
    # The session before it ended with the new one.
    assert rows_of("SELECT count(*) FROM session") == [1]
    assert rows_of("SELECT action FROM audit WHERE action = 'account-role'") == ["account-role"]


async def test_of_several_roles_the_first_of_the_settings_holds(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    house.provider.person = MARTIN | {"roles": ["nf-auditors", "nf-clinicians", "nf-admins"]}
    async with house.browser() as client:
        await log_in(client)
    assert rows_of("SELECT role FROM account") == ["admin"]


async def test_the_name_of_another_account_is_never_taken_over(
    house: House, rows_of: Callable[[str], list[Any]]
) -> None:
    await house.account("dr.martin", "a long local password")
    async with house.browser() as client:
        assert (await log_in(client)).status_code == 403
    assert rows_of("SELECT name, issuer FROM account") == [("dr.martin", "")]
    house.provider.person = MARTIN | {"sub": "1", "preferred_username": "x"}
    async with house.browser() as client:
        assert (await log_in(client)).status_code == 200
        house.provider.person = MARTIN | {"sub": "2", "preferred_username": "x"}
        assert (await log_in(client)).status_code == 403


async def test_an_account_disabled_here_stays_out_whatever_the_provider_says(house: House) -> None:
    store = house.engine.store
    assert store is not None
    async with house.browser() as client:
        await log_in(client)
        await store.write(lambda c: accounts.set_disabled(c, "dr.martin", True, at_ms=1, actor="test"))
        assert (await client.get("/console/today")).status_code == 303
        assert (await log_in(client)).status_code == 401


async def password_log_in(client: httpx2.AsyncClient, name: str, password: str) -> httpx2.Response:
    page = await client.get("/console/login")
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    csrf = found[1] if found else ""
    return await client.post("/console/login", data={"csrf": csrf, "name": name, "password": password})


async def test_local_accounts_are_the_way_in_while_the_provider_is_away(house: House) -> None:
    await house.account("root", "a long local password")
    house.provider.answers = False
    async with house.browser() as client:
        away = await client.get("/console/oidc/start")
        assert away.status_code == 503
        assert "ne répond pas" in away.text
        assert (await password_log_in(client, "root", "a long local password")).status_code == 303
        assert (await client.get("/console/messages")).status_code == 200


async def test_a_person_of_the_provider_has_no_password_here(house: House) -> None:
    async with house.browser() as client, house.browser() as other:
        await log_in(client)
        for password in ("", "x", "a long local password"):
            assert (await password_log_in(other, "dr.martin", password)).status_code == 401
    store = house.engine.store
    assert store is not None
    with pytest.raises(accounts.PasswordElsewhere):
        await store.write(lambda c: accounts.set_password(c, "dr.martin", "x", at_ms=1, actor="test"))


async def test_without_local_accounts_no_password_opens_and_no_session_of_one_lives_on(
    open_house: Callable[..., Any],
) -> None:
    before = await open_house()
    await before.account("root", "a long local password")
    async with before.browser() as client:
        assert (await password_log_in(client, "root", "a long local password")).status_code == 303
        cookie = client.cookies[COOKIE]
    await before.engine.stop()
    house = await open_house("local_accounts = false")
    async with house.browser() as client:
        assert 'type="password"' not in (await client.get("/console/login")).text
        assert (await password_log_in(client, "root", "a long local password")).status_code == 403
        client.cookies.set(COOKIE, cookie, path="/console")
        assert (await client.get("/console/messages")).status_code == 303
        client.cookies.clear()
        await log_in(client)
        assert (await client.get("/console/today")).status_code == 200


async def test_who_leaves_is_out_here_and_is_shown_the_way_out_there(house: House) -> None:
    async with house.browser() as client, house.browser() as thief:
        await log_in(client)
        thief.cookies.set(COOKIE, client.cookies[COOKIE], path="/console")
        csrf = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/console/today")).text)
        assert csrf
        left = await client.post("/console/logout", data={"csrf": csrf[1]})
        assert (left.status_code, left.headers["location"]) == (303, "/console/login?left=1")
        assert (await thief.get("/console/today")).status_code == 303
        assert 'href="/console/oidc/leave"' in (await client.get("/console/login?left=1")).text
        out = await client.get("/console/oidc/leave")
        assert out.headers["location"] == f"{house.provider.url}/leave?client_id={CLIENT}"


async def test_made_up_answers_are_not_asked_about_without_end(house: House) -> None:
    async with house.browser() as client:
        for _ in range(51):
            client.cookies.set(PENDING, "s.n.v.", path="/console/oidc")
            answer = await client.get("/console/oidc/callback?state=s&code=c")
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 300
        assert house.provider.redeemed == 0


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/fhir", "/console\\@evil.example"])
async def test_the_way_back_leads_nowhere_but_into_the_console(house: House, target: str) -> None:
    async with house.browser() as client:
        answer = await log_in(client, target)
        assert 'content="0;url=/console">' in answer.text
        # Nor where the cookie was exchanged.
        back = await sent_back(client)
        sent = client.cookies[PENDING].split(".", 3)[:3]
        client.cookies.clear()
        planted = ".".join((*sent, quote(target, safe="")))
        client.cookies.set(PENDING, planted, path="/console/oidc")
        assert 'content="0;url=/console">' in (await client.get(back)).text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("/console/oidc/callback", "/console", "redirect_url"),
        ('client_id = "neutroflag"', 'client_id = ""', "client_id"),
        (ROLES, '{ nf = "root" }', "roles"),
        (ROLES, "{}", "roles"),
        ('label = "CHX"', 'scopes = ["profile"]', "scopes"),
        ('label = "CHX"', 'algorithms = ["HS256"]', "algorithms"),
        ('label = "CHX"', "leeway_s = 3600", "leeway_s"),
        ('label = "CHX"', 'client_secret = "x"', "client_secret"),
        ("/secret", "/nowhere", "client_secret_file"),
        ('issuer = "http://127.0.0.1', 'issuer = "http://idp.example', "console.oidc.issuer"),
        ('redirect_url = "http://127.0.0.1:1', 'redirect_url = "http://nf.example', "console.oidc.redirect_url"),
    ],
)
def test_settings_that_would_not_hold_are_named(
    settings_file: Callable[..., Path], tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = section("http://127.0.0.1:9", tmp_path)
    assert old in text
    try:
        settings = load(settings_file(extra=text.replace(old, new)), {})
        problems = [*exposed(settings), *refusals(settings)[0]]
    except ConfigError as error:
        problems = error.problems
    assert any(words in problem for problem in problems)
    assert not any(SECRET in problem for problem in problems)
