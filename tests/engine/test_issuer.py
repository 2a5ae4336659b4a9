"""JWTs of an issuer at the HTTP doors: a real issuer over HTTP, its rotation, its absence, scopes, and forged tokens."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from engine.compose import Engine
from engine.config import ConfigError, exposed, load
from engine.issuer import Jwts
from engine.issuer_settings import IssuerSection
from engine.serve import refusals
from ingest.access import Refused, Unverifiable
from ingest.scopes import scopes_of

AUDIENCE = "https://neutroflag.chx.example/fhir"
RSA, EC = RSAKey.generate_key(2048), ECKey.generate_key("P-384")
OTHER = ECKey.generate_key("P-384")


class Server:
    """An authorisation server's published half; ``keys`` by id."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {"r1": RSA, "e1": EC}
        self.answers = True
        self.asked = 0

    async def configuration(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", "token_endpoint": f"{self.url}/token"}
        )

    async def jwks(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.published()) if self.answers else web.Response(status=500)

    def published(self) -> dict[str, Any]:
        return {"keys": [{**key.as_dict(private=False), "kid": name} for name, key in self.keys.items()]}

    def token(
        self,
        scope: str | None = "system/*.cruds",
        *,
        kid: str | None = "e1",
        key: Any = None,
        alg: str = "ES384",
        typ: str = "JWT",
        **claims: Any,
    ) -> str:
        now = int(time.time())
        body = {"iss": self.url, "aud": AUDIENCE, "exp": now + 300, "iat": now, "client_id": "lab 1@x", "scope": scope}
        header = {"alg": alg, "typ": typ} | ({"kid": kid} if kid is not None else {})
        wanted = {name: value for name, value in (body | claims).items() if value is not None}
        return jwt.encode(header, wanted, key or self.keys.get(kid or "e1", OTHER), algorithms=[alg])


@pytest.fixture
async def issuer() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/.well-known/smart-configuration", server.configuration)
    app.router.add_get("/jwks", server.jwks)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    listening: Any = site._server
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    await runner.cleanup()


@contextlib.asynccontextmanager
async def served(settings_file: Callable[..., Path], issuer: Server, extra: str = "") -> AsyncIterator[Any]:
    file = configured(settings_file, f'url = "{issuer.url}"\naudience = "{AUDIENCE}"\n{extra}')
    engine = Engine(load(file, {}))
    await engine.start()
    try:
        url = f"http://127.0.0.1:{engine.http_port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            yield client
    finally:
        await engine.stop()


def configured(settings_file: Callable[..., Path], section: str, http: str = "") -> Path:
    file = settings_file()
    text = file.read_text(encoding="utf-8")
    text = text.replace("[http]\nport = 0\n", f"[http]\nport = 0\n{http}\n[http.issuer]\n{section}\n")
    file.write_text(text, encoding="utf-8")
    return file


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_opens_what_its_scopes_say_and_names_its_client(
    settings_file: Callable[..., Path], issuer: Server, hl7: Any, fhir: Any, rows_of: Callable[[str], list[Any]]
) -> None:
    async with served(settings_file, issuer) as client:
        for token in (
            issuer.token("system/Observation.c"),
            issuer.token("openid system/Observation.write", kid="r1", alg="RS384", typ="at+jwt"),
            issuer.token("system/*.cud", kid=None),
            issuer.token(None, scp=["system/Observation.cruds"], aud=["urn:else", AUDIENCE]),
        ):
            answer = await client.post("/fhir/Observation", json=fhir.observation(), headers=bearer(token))
            assert answer.status_code == 201, answer.text
            answer = await client.post("/hl7", content=hl7.oru(token[-12:]), headers=bearer(token))
            assert answer.status_code == 200, answer.text
        peers = rows_of("SELECT peer FROM message")
    assert len(peers) == 8
    assert all(peer.startswith("jwt:lab_1_x@127.0.0.1:") for peer in peers)
    assert issuer.asked == 1


async def test_a_client_learns_from_us_where_its_token_comes_from(
    settings_file: Callable[..., Path], issuer: Server
) -> None:
    async with served(settings_file, issuer) as client:
        answer = await client.get("/fhir/.well-known/smart-configuration")
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        assert (found["issuer"], found["token_endpoint"]) == (issuer.url, f"{issuer.url}/token")
        assert found["grant_types_supported"] == ["client_credentials"]
        assert "client-confidential-asymmetric" in found["capabilities"]
        # Each scope that is offered opens what it names, and is what its absence is answered with.
        assert "system/Observation.cu" in found["scopes_supported"]
        statement = CapabilityStatement.model_validate_json((await client.get("/fhir/metadata")).content)
        security = statement.rest[0].security
        assert security.service[0].coding[0].code == "SMART-on-FHIR"
        assert "system/TYPE.c" in security.description


async def test_nothing_is_said_of_smart_where_no_issuer_is_asked(
    settings_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "t").write_text("k3y-of-lab1-0123456789", encoding="ascii")
    token = f'[[http.token]]\nname = "lab"\nfile = "{tmp_path / "t"}"\nfaces = ["fhir"]\n'
    for extra, asked in (("", False), (token, True)):
        engine = Engine(load(settings_file(extra=extra), {}))
        await engine.start()
        try:
            url = f"http://127.0.0.1:{engine.http_port}/fhir"
            async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
                assert (await client.get(f"{url}/.well-known/smart-configuration")).status_code == 405
                security = (await client.get(f"{url}/metadata")).json()["rest"][0].get("security")
            assert (security is not None) == asked
            assert "service" not in (security or {})
        finally:
            await engine.stop()


async def test_beyond_its_scopes_nothing_is_kept(
    settings_file: Callable[..., Path], issuer: Server, hl7: Any, fhir: Any, rows_of: Callable[[str], list[Any]]
) -> None:
    patient = {"resourceType": "Patient", "id": "p1"}
    put = {"request": {"method": "PUT", "url": "Patient/p1"}, "resource": patient}
    mixed = fhir.bundle("collection", fhir.observation(), patient)
    nested = fhir.bundle("collection", fhir.bundle("collection", patient))
    transaction = {"resourceType": "Bundle", "type": "transaction", "entry": [put]}
    c = "system/Observation.c"
    cases: list[tuple[str, str, Any, str]] = [
        ("", "/fhir/Observation", fhir.observation(), c),
        ("system/Observation.rs", "/fhir/Observation", fhir.observation(), c),
        ("system/Observation.read user/*.cruds patient/Observation.write", "/fhir/Observation", fhir.observation(), c),
        ("system/Observation.c?category=laboratory", "/fhir/Observation", fhir.observation(), c),
        ("system/Observation.dc system/observation.c", "/fhir/Observation", fhir.observation(), c),
        ("system/Observation.c system/Bundle.c", "/fhir", mixed, "system/Patient.c"),
        ("system/Observation.c system/Bundle.cud", "/fhir", nested, "system/*.c"),
        ("system/Patient.c", "/fhir", transaction, "system/Patient.u"),
        ("system/Patient.c", "/fhir/Patient/p1", patient, "system/Patient.u"),
        ("system/*.rs", "/fhir", {"resourceType": "Nonsense"}, c),
    ]
    async with served(settings_file, issuer) as client:
        for scope, path, body, lacking in cases:
            method = "PUT" if path.endswith("p1") else "POST"
            answer = await client.request(method, path, json=body, headers=bearer(issuer.token(scope)))
            assert answer.status_code == 403, (scope, answer.text)
            assert answer.json()["resourceType"] == "OperationOutcome"
            assert answer.json()["issue"][0]["code"] == "forbidden"
            assert f'error="insufficient_scope", scope="{lacking}"' in answer.headers["www-authenticate"]
        answer = await client.post("/hl7", content=hl7.oru(), headers=bearer(issuer.token("system/Patient.cruds")))
        assert answer.status_code == 403
        assert rows_of("SELECT id FROM message") == []
        every = await client.post("/fhir", json=mixed, headers=bearer(issuer.token("system/*.c")))
        assert every.status_code == 201


async def test_a_token_that_is_not_good_is_refused_with_the_reason(
    settings_file: Callable[..., Path], issuer: Server, fhir: Any, rows_of: Callable[[str], list[Any]]
) -> None:
    now = int(time.time())
    good = issuer.token()
    head, body, signature = good.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    # The classic confusion: the public key's own text as a shared secret.
    public = OctKey.import_key(json.dumps(EC.as_dict(private=False)))
    cases = {
        issuer.token(exp=now - 3600): "expired",
        issuer.token(exp=None): "without exp",
        issuer.token(nbf=now + 3600): "nbf",
        issuer.token(iat=now + 3600): "iat",
        issuer.token(iss="https://else.example"): "iss",
        issuer.token(aud="https://else.example/fhir"): "aud",
        issuer.token(aud=None): "without aud",
        issuer.token(key=OTHER): "signature",
        issuer.token(kid="e9"): "unknown key",
        # The algorithm is not among those set, though the key would do.
        issuer.token(kid="r1", alg="RS256"): "algorithm",
        issuer.token(alg="HS256", key=public): "algorithm",
        issuer.token(typ="logout+jwt"): "not an access token",
        f"{unsigned}.{body}.": "algorithm",
        f"{head}.{body}A.{signature}": "signature",
        "a.b.c": "not a token of the issuer",
        "nothing": "not a token of the issuer",
    }
    async with served(settings_file, issuer) as client:
        for token, reason in cases.items():
            for path in ("/fhir/Observation", "/hl7"):
                answer = await client.post(path, json=fhir.observation(), headers=bearer(token))
                assert answer.status_code == 401, (reason, answer.text)
                challenge = answer.headers["www-authenticate"]
                assert challenge == (f'Bearer realm="neutroflag", error="invalid_token", error_description="{reason}"')
        bare = await client.post("/fhir/Observation", json=fhir.observation())
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, 'Bearer realm="neutroflag"')
        assert rows_of("SELECT id FROM message") == []
        assert (
            await client.post("/fhir/Observation", json=fhir.observation(), headers=bearer(good))
        ).status_code == 201


async def test_tokens_from_files_stay_good_beside_an_issuer(
    settings_file: Callable[..., Path], issuer: Server, tmp_path: Path, fhir: Any
) -> None:
    (tmp_path / "lab1").write_text("k3y-of-lab1-0123456789", encoding="ascii")
    extra = f'[[http.token]]\nname = "lab1"\nfile = "{tmp_path / "lab1"}"\nfaces = ["fhir"]'
    async with served(settings_file, issuer, extra) as client:
        for token, status in (("k3y-of-lab1-0123456789", 201), ("k3y-of-lab1-012345678X", 401), (issuer.token(), 201)):
            answer = await client.post("/fhir/Observation", json=fhir.observation(), headers=bearer(token))
            assert answer.status_code == status


async def test_while_the_issuer_is_away_a_sender_is_told_to_come_again(
    settings_file: Callable[..., Path], issuer: Server, fhir: Any, hl7: Any
) -> None:
    issuer.answers = False
    async with served(settings_file, issuer) as client:
        by_fhir = await client.post("/fhir/Observation", json=fhir.observation(), headers=bearer(issuer.token()))
        by_hl7 = await client.post("/hl7", content=hl7.oru(), headers=bearer(issuer.token()))
        metrics = (await client.get("/metrics")).text
    assert (by_fhir.status_code, by_hl7.status_code) == (503, 503)
    assert by_fhir.headers["retry-after"] == "10"
    assert 'neutroflag_notices_total{channel="fhir",event="issuer_unavailable"} 1.0' in metrics


async def test_keys_turn_without_a_restart_and_are_not_asked_for_too_often(issuer: Server) -> None:
    passed = 0.0

    def clock() -> float:
        return time.time() + passed

    tokens = Jwts(IssuerSection(url=issuer.url, audience=AUDIENCE), clock)
    await tokens.admit(issuer.token(exp=int(time.time()) + 10**6))
    issuer.keys = {"e2": OTHER}
    turned = issuer.token(kid="e2", exp=int(time.time()) + 10**6)
    for _ in range(20):
        with pytest.raises(Refused):
            await tokens.admit(turned)
    assert issuer.asked == 1
    passed = 11
    assert (await tokens.admit(turned)).name == "jwt:lab_1_x"
    assert issuer.asked == 2
    # The key that was taken out opens nothing any more.
    with pytest.raises(Refused):
        await tokens.admit(issuer.token(kid="e1", key=EC, exp=int(time.time()) + 10**6))
    issuer.answers = False
    passed = 3600
    assert await tokens.admit(turned)
    passed = 2 * 24 * 3600
    with pytest.raises(Unverifiable):
        await tokens.admit(turned)


async def test_a_key_taken_back_stops_opening_though_nobody_shows_another(issuer: Server) -> None:
    passed = 0.0
    tokens = Jwts(IssuerSection(url=issuer.url, audience=AUDIENCE), lambda: time.time() + passed)
    token = issuer.token(exp=int(time.time()) + 10**6)
    await tokens.admit(token)
    issuer.keys = {"r1": RSA}
    passed = 601
    with pytest.raises(Refused):
        await tokens.admit(token)


async def test_keys_from_a_file_and_weak_or_foreign_ones_passed_over(issuer: Server, tmp_path: Path) -> None:
    weak = RSAKey.generate_key(1024)
    curve = ECKey.generate_key("P-256")
    file = tmp_path / "jwks.json"
    keys = [
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "o"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "s"},
        {**curve.as_dict(private=False), "kid": "c"},
        {**weak.as_dict(private=False), "kid": "w"},
        {**EC.as_dict(private=False), "kid": "enc", "use": "enc"},
        "nonsense",
        {**EC.as_dict(private=False), "kid": "e1", "use": "sig"},
    ]
    file.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    section = IssuerSection(url="https://issuer.example", audience=AUDIENCE, jwks_file=file)
    issuer.url = section.url
    tokens = Jwts(section)
    assert tokens.problems() == []
    assert await tokens.admit(issuer.token())
    for token in (
        issuer.token(kid="w", key=weak, alg="RS384"),
        issuer.token(kid="enc", key=EC),
        issuer.token(kid="s", key=EC),
    ):
        with pytest.raises(Refused, match="unknown key"):
            await tokens.admit(token)
    assert issuer.asked == 0


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('url = "https://i.example"', "http.issuer.audience"),
        ('url = "i.example"\naudience = "a"', "http.issuer.url"),
        ('url = "https://i.example"\naudience = "a"\nalgorithms = ["HS256"]', "http.issuer.algorithms"),
        ('url = "https://i.example"\naudience = "a"\njwks_url = "https://i/x"\njwks_file = "k"', "two places"),
        ('url = "https://i.example"\naudience = "a"\nleeway_s = 86400', "leeway_s"),
        ('url = "https://i.example"\naudience = "a"\njwks = "k"', "http.issuer.jwks"),
        ('url = "https://i.example"\naudience = "a"\njwks_file = "/nowhere/k"', "http.issuer.jwks_file"),
        ('url = "http://i.example"\naudience = "a"', "use https"),
        ('url = "https://i.example"\naudience = "a"\njwks_url = "http://i.example/k"', "http.issuer.jwks_url"),
    ],
)
def test_settings_that_would_not_hold_are_named(settings_file: Callable[..., Path], section: str, words: str) -> None:
    file = configured(settings_file, section)
    try:
        problems = refusals(load(file, {}))[0]
    except ConfigError as error:
        problems = error.problems
    assert any(words in problem for problem in problems)


def test_an_issuer_counts_as_authentication_off_loopback(settings_file: Callable[..., Path]) -> None:
    section = 'url = "https://i.example"\naudience = "a"'
    open_wide = 'host = "0.0.0.0"\nallow_plaintext = true'
    assert exposed(load(configured(settings_file, section, open_wide), {})) == []


@given(st.text(alphabet="system/*.cruds ObservationPatientwriteread?=\n", max_size=60))
def test_a_scope_grants_nothing_but_what_is_written_out(text: str) -> None:
    granted = scopes_of(text).granted
    for kind, letter in granted:
        assert any(
            part.startswith(f"system/{kind}.")
            and (letter in part.rpartition(".")[2] or part.endswith((".*", ".write", ".read")))
            for part in text.split()
        )
        assert "?" not in kind
