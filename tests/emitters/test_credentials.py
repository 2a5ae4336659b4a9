"""Credentials against a real authorisation server on loopback that checks every claim itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from emitters.credentials import (
    Basic,
    Bearer,
    CredentialError,
    SmartBackend,
    SmartSettings,
    public_keys,
)


class Authority:
    """Gives a token for an assertion that it can verify with the client's public keys."""

    def __init__(self) -> None:
        self.keys: KeySet | None = None
        self.issued = 0
        self.seen: set[str] = set()
        self.lifetime: Any = 300
        self.answer: web.Response | None = None
        self.claims: dict[str, Any] = {}
        self.url = ""

    async def configuration(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "token_endpoint": f"{self.url}/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            }
        )

    async def token(self, request: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer
        form = await request.post()
        assert form["grant_type"] == "client_credentials"
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert self.keys is not None
        found = jwt.decode(str(form["client_assertion"]), self.keys, algorithms=["ES384", "RS384"])
        self.claims = found.claims
        assert found.claims["jti"] not in self.seen
        self.seen.add(found.claims["jti"])
        self.issued += 1
        return web.json_response(
            {"access_token": f"token-{self.issued}", "token_type": "bearer", "expires_in": self.lifetime}
        )


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    found = Authority()
    app = web.Application()
    app.router.add_get("/fhir/.well-known/smart-configuration", found.configuration)
    app.router.add_post("/token", found.token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    await runner.cleanup()


def written(folder: Path, key: Any) -> Path:
    file = folder / "client.jwk"
    file.write_text(json.dumps(key.as_dict(private=True)), encoding="utf-8")
    return file


def settings(authority: Authority, file: Path, **other: Any) -> SmartSettings:
    return SmartSettings(fhir_url=f"{authority.url}/fhir", client_id="neutroflag", key_file=file, **other)


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_a_token_is_had_by_a_signed_assertion_of_at_most_five_minutes(
    authority: Authority, tmp_path: Path, algorithm: Any
) -> None:
    key = ECKey.generate_key("P-384") if algorithm == "ES384" else RSAKey.generate_key(2048)
    asked = settings(authority, written(tmp_path, key), algorithm=algorithm)
    authority.keys = KeySet.import_key_set(public_keys(asked))
    smart = SmartBackend(asked)
    try:
        assert await smart.authorization() == "Bearer token-1"
    finally:
        await smart.close()
    claims = authority.claims
    assert claims["iss"] == claims["sub"] == "neutroflag"
    assert claims["aud"] == f"{authority.url}/token"
    assert claims["exp"] - claims["iat"] <= 300


async def test_a_token_serves_until_a_minute_before_its_end(authority: Authority, tmp_path: Path) -> None:
    asked = settings(authority, written(tmp_path, ECKey.generate_key("P-384")))
    authority.keys = KeySet.import_key_set(public_keys(asked))
    now = 1_000_000.0
    smart = SmartBackend(asked, clock=lambda: now)
    try:
        assert [await smart.authorization() for _ in range(3)] == ["Bearer token-1"] * 3
        now += 239
        assert await smart.authorization() == "Bearer token-1"
        now += 1
        assert await smart.authorization() == "Bearer token-2"
    finally:
        await smart.close()


async def test_a_refused_token_is_not_used_again(authority: Authority, tmp_path: Path) -> None:
    asked = settings(authority, written(tmp_path, ECKey.generate_key("P-384")))
    authority.keys = KeySet.import_key_set(public_keys(asked))
    smart = SmartBackend(asked)
    try:
        await smart.authorization()
        smart.refused()
        assert await smart.authorization() == "Bearer token-2"
    finally:
        await smart.close()


async def test_a_rotated_key_signs_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    old, new = ECKey.generate_key("P-384"), ECKey.generate_key("P-384")
    file = written(tmp_path, old)
    asked = settings(authority, file)
    smart = SmartBackend(asked)
    try:
        authority.keys = KeySet.import_key_set(public_keys(asked))
        await smart.authorization()
        file.write_text(json.dumps({"keys": [old.as_dict(private=True), new.as_dict(private=True)]}), encoding="utf-8")
        # The server has forgotten the old key: only the new one's signature is good.
        authority.keys = KeySet.import_key_set({"keys": public_keys(asked)["keys"][1:]})
        smart.refused()
        assert await smart.authorization() == "Bearer token-2"
    finally:
        await smart.close()


def test_what_is_published_holds_no_private_part(tmp_path: Path) -> None:
    key = ECKey.generate_key("P-384")
    asked = SmartSettings(fhir_url="https://x", client_id="c", key_file=written(tmp_path, key))
    [shown] = public_keys(asked)["keys"]
    assert "d" not in shown
    assert shown["kid"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"status": 400, "text": '{"error": "invalid_client", "error_description": "Jane Doe"}'},
            "HTTP 400 invalid_client",
        ),
        ({"status": 500, "text": "<html>"}, "HTTP 500"),
        ({"status": 200, "text": "half a bo"}, "HTTP 200"),
        ({"status": 200, "text": '{"access_token": 7, "token_type": "bearer"}'}, "HTTP 200"),
    ],
)
async def test_an_odd_answer_is_named_without_the_servers_free_text(
    authority: Authority, tmp_path: Path, answer: dict[str, Any], words: str
) -> None:
    authority.answer = web.Response(**answer)
    smart = SmartBackend(settings(authority, written(tmp_path, ECKey.generate_key("P-384"))))
    try:
        with pytest.raises(CredentialError) as failure:
            await smart.authorization()
    finally:
        await smart.close()
    assert str(failure.value).endswith(f"/token: {words}")


async def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    asked = SmartSettings(
        fhir_url="http://127.0.0.1:1/fhir", client_id="c", key_file=written(tmp_path, ECKey.generate_key("P-384"))
    )
    smart = SmartBackend(asked)
    try:
        with pytest.raises(CredentialError, match="smart-configuration: ClientConnector"):
            await smart.authorization()
    finally:
        await smart.close()


@pytest.mark.parametrize("content", ["", "no key", '{"kty": "EC"}', '{"keys": []}'])
async def test_a_key_file_that_holds_no_key_is_named(authority: Authority, tmp_path: Path, content: str) -> None:
    file = tmp_path / "client.jwk"
    file.write_text(content, encoding="utf-8")
    smart = SmartBackend(settings(authority, file))
    try:
        with pytest.raises(CredentialError, match=r"client\.jwk: (empty|no private key)"):
            await smart.authorization()
    finally:
        await smart.close()


async def test_a_public_key_cannot_sign(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "client.jwk"
    file.write_text(json.dumps(ECKey.generate_key("P-384").as_dict(private=False)), encoding="utf-8")
    with pytest.raises(CredentialError, match="no private key"):
        public_keys(settings(authority, file))


async def test_a_bearer_token_and_a_password_are_read_when_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one\n", encoding="utf-8")
    bearer, basic = Bearer(file), Basic("lab", file)
    assert await bearer.authorization() == "Bearer one"
    assert await basic.authorization() == "Basic bGFiOm9uZQ=="
    file.write_text("two\n", encoding="utf-8")
    assert await bearer.authorization() == "Bearer two"
    file.unlink()
    with pytest.raises(CredentialError, match="secret: No such file"):
        await bearer.authorization()
