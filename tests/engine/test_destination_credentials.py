"""Who we are to a FHIR server, from the settings file to the server's own eyes; and what ``config check`` tells of it."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from engine.back import fhir_server
from engine.cli_state import config_check_command
from engine.config import ConfigError, Settings, load
from engine.destination_settings import FhirDestination
from engine.keys import published
from engine.serve import refusals

STATEMENT = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "rest": [
        {"mode": "server", "resource": [{"type": kind} for kind in ("Device", "Flag", "Observation", "Provenance")]}
    ],
}


class Server:
    """A FHIR server and its authorisation server in one, over TLS or not; it keeps what it was shown."""

    def __init__(self) -> None:
        self.authorizations: list[str] = []
        self.shown: list[str] = []
        self.scopes: list[str] = []
        self.keys: KeySet | None = None
        self.url = ""

    async def metadata(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("authorization", ""))
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        if certificate:
            self.shown.append(str(certificate["subjectAltName"][0][1]))
        return web.json_response(STATEMENT)

    async def configuration(self, _: web.Request) -> web.Response:
        return web.json_response({"token_endpoint": f"{self.url}/token"})

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert self.keys is not None
        jwt.decode(str(form["client_assertion"]), self.keys, algorithms=["ES384", "RS384"])
        self.scopes.append(str(form["scope"]))
        return web.json_response({"access_token": "granted", "token_type": "Bearer", "expires_in": 300})


Open = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    runners: list[web.AppRunner] = []

    async def start(context: ssl.SSLContext | None = None) -> Server:
        server = Server()
        app = web.Application()
        app.router.add_get("/fhir/metadata", server.metadata)
        app.router.add_get("/fhir/.well-known/smart-configuration", server.configuration)
        app.router.add_post("/token", server.token)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        socket: Any = site._server
        scheme = "https" if context else "http"
        server.url = f"{scheme}://127.0.0.1:{socket.sockets[0].getsockname()[1]}"
        return server

    yield start
    for runner in runners:
        await runner.cleanup()


def settings_of(tmp_path: Path, url: str, extra: str) -> Settings:
    file = tmp_path / "neutroflag.toml"
    file.write_text(f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{url}/fhir"\n{extra}\n', encoding="utf-8")
    return load(file, {})


async def offer(settings: Settings) -> Any:
    (item,) = settings.destination
    assert isinstance(item, FhirDestination)
    server = fhir_server(item, settings)
    try:
        return await server.offer()
    finally:
        await server.close()


async def test_a_bearer_token_and_a_password_reach_the_server(opened: Open, tmp_path: Path) -> None:
    server = await opened()
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n", encoding="utf-8")
    for written in (
        f'credentials = {{ kind = "bearer", file = "{secret}" }}',
        f'credentials = {{ kind = "basic", user = "neutroflag", file = "{secret}" }}',
    ):
        assert await offer(settings_of(tmp_path, server.url, written)) == (None, False)
    assert server.authorizations == ["Bearer s3cret", "Basic bmV1dHJvZmxhZzpzM2NyZXQ="]


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_backend_services_over_tls_discover_sign_and_ask_for_what_the_level_writes(
    opened: Open, tmp_path: Path, algorithm: str
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await opened(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    key: Any = ECKey.generate_key("P-384") if algorithm == "ES384" else RSAKey.generate_key(2048)
    (tmp_path / "key.jwk").write_text(json.dumps(key.as_dict(private=True)), encoding="utf-8")
    settings = settings_of(
        tmp_path,
        server.url,
        f'ca = "{tmp_path}/ca.pem"\nlevel = "L3"\n'
        f'credentials = {{ kind = "smart", client_id = "c", key_file = "{tmp_path}/key.jwk", algorithm = "{algorithm}" }}',
    )
    keys, problems = published(settings)
    assert problems == []
    server.keys = KeySet.import_key_set({"keys": keys})
    assert await offer(settings) == (None, False)
    assert server.authorizations == ["Bearer granted"]
    (scope,) = server.scopes
    assert "system/ServiceRequest.crus" in scope
    assert "system/Patient.rs" in scope
    assert ".d" not in scope


async def test_a_server_that_asks_for_a_certificate_is_shown_ours(opened: Open, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await opened(context)
    ours = authority.issue_cert("neutroflag.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    trusted = f'ca = "{tmp_path}/ca.pem"'
    without = await offer(settings_of(tmp_path, server.url, trusted))
    assert not isinstance(without, tuple)
    pair = f'certificate = "{tmp_path}/certificate.pem"\nkey = "{tmp_path}/key.pem"'
    assert await offer(settings_of(tmp_path, server.url, f"{trusted}\n{pair}")) == (None, False)
    assert server.shown == ["neutroflag.example"]


def test_what_cannot_be_used_is_said_before_anything_goes_out(tmp_path: Path) -> None:
    missing = settings_of(tmp_path, "http://127.0.0.1:1", 'credentials = { kind = "bearer", file = "/nowhere/token" }')
    problems, _ = refusals(missing)
    assert problems == ["destination[0].credentials: /nowhere/token: No such file or directory"]
    (tmp_path / "key").write_text("no key", encoding="utf-8")
    written = f'credentials = {{ kind = "smart", client_id = "c", key_file = "{tmp_path}/key" }}'
    problems, _ = refusals(settings_of(tmp_path, "http://127.0.0.1:1", written))
    assert problems == [f"destination[0].credentials: {tmp_path}/key: no private key for ES384"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('credentials = { kind = "token", file = "x" }', "credentials"),
        ('credentials = { kind = "bearer", file = "x", user = "y" }', "credentials"),
        ('credentials = { kind = "basic", user = "a:b", file = "x" }', "credentials"),
        ('certificate = "c.pem"', "go together"),
        ('certificate = "c.pem"\nkey = "k.pem"', "without https"),
        ('level = "L4"', "level"),
    ],
)
def test_settings_that_say_nothing_are_refused(tmp_path: Path, extra: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of(tmp_path, "http://127.0.0.1:1", extra)


async def test_the_check_tells_what_the_server_proposes(prescriber: Any, tmp_path: Path) -> None:
    base = prescriber.url.removesuffix("/fhir")

    async def told(extra: str, url: str = base) -> str:
        settings_of(tmp_path, url, extra)
        out = io.StringIO()
        code = await asyncio.to_thread(
            config_check_command, tmp_path / "neutroflag.toml", stdout=out, stderr=io.StringIO()
        )
        assert code == 0
        return out.getvalue().splitlines()[-1]

    proposal = "destination[0] ehr: its CapabilityStatement proposes level L3 with our own ids"
    assert await told("") == f'{proposal}; up to L2 is sent until level = "L3" is set'
    assert await told('level = "L2"') == f"{proposal}; level L2 is set"
    del prescriber.fhir.held["Task"]
    assert "proposes level L1" in await told('level = "L2"')
    assert "more than it takes" in await told('level = "L2"')
    assert "could not be asked for: no connection" in await told("", "http://127.0.0.1:1")


async def test_our_public_keys_are_published_and_follow_the_file(run_engine: Any, tmp_path: Path) -> None:
    old, new = ECKey.generate_key("P-384"), ECKey.generate_key("P-384")
    file = tmp_path / "key.jwk"
    file.write_text(json.dumps(old.as_dict(private=True)), encoding="utf-8")
    third = '[[destination]]\nname = "third"\nkind = "fhir"\nurl = "http://127.0.0.1:1/fhir"\n'
    engine = await run_engine(extra=f'{third}credentials = {{ kind = "smart", client_id = "c", key_file = "{file}" }}')
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{engine.url}/.well-known/jwks.json")
        assert [key["kid"] for key in answer.json()["keys"]] == [old.thumbprint()]
        assert "d" not in answer.json()["keys"][0]
        file.write_text(json.dumps({"keys": [old.as_dict(private=True), new.as_dict(private=True)]}), encoding="utf-8")
        answer = await client.get(f"{engine.url}/.well-known/jwks.json")
        assert len(answer.json()["keys"]) == 2
