"""Who somebody is, asked of an identity provider: OpenID Connect Core 1.0, code flow, with PKCE (RFC 7636).

Rule of the file: a person comes from an ID token that the provider signed for us, for this log-in, just now; nothing that the
browser brings is believed without it. Codes, tokens and secrets are in no message.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from joserfc import jwt

from console.port import Person, Role, SignOnRefused, SignOnUnavailable
from emitters.credentials import CredentialError, secret_of
from engine.issuer import verified
from engine.oidc_settings import OidcSection
from engine.published import Place, Published, client_to, leads_to, limited_body
from ingest.access import Refused, Unverifiable

__all__ = ["Oidc"]


class Oidc:
    """``console.port.SignOn``."""

    def __init__(self, section: OidcSection, clock: Callable[[], float] = time.time) -> None:
        """``clock``: seconds since 1970."""
        self._section = section
        self._clock = clock
        place = Place(
            issuer=section.issuer, documents=("openid-configuration",), ca=section.ca, timeout_s=section.timeout_s
        )
        self._published = Published(place, section.algorithms, clock)
        self.issuer = section.issuer
        self.label = section.label
        self.local_accounts = section.local_accounts

    def problems(self) -> list[str]:
        """What stands against these settings before anything is asked."""
        found = self._published.problems("console.oidc")
        if self._section.client_secret_file is not None:
            try:
                secret_of(self._section.client_secret_file)
            except CredentialError as error:
                found.append(f"console.oidc.client_secret_file: {error}")
        return found

    async def begin(self, *, state: str, nonce: str, challenge: str) -> str:
        section = self._section
        asked = {
            "response_type": "code",
            "client_id": section.client_id,
            "redirect_uri": section.redirect_url,
            "scope": " ".join(section.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        } | ({"prompt": section.prompt} if section.prompt else {})
        return _with(await self._address("authorization_endpoint"), asked)

    async def finish(self, *, code: str, verifier: str, nonce: str, issuer: str | None) -> Person:
        document = await self._document()
        # RFC 9207: an answer of another provider must not be taken to this one.
        if issuer != self._section.issuer and (
            issuer is not None or document.get("authorization_response_iss_parameter_supported") is True
        ):
            raise SignOnRefused("iss")
        token = await self._redeemed(code, verifier, document)
        expected = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=self._section.leeway_s,
            iss={"essential": True, "value": self._section.issuer},
            aud={"essential": True, "value": self._section.client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = await verified(token, self._published, self._section.algorithms, expected, ("jwt",))
        except Refused as refused:
            raise SignOnRefused(refused.reason) from None
        except Unverifiable:
            raise SignOnUnavailable from None
        return self._person(claims)

    async def leaving(self) -> str:
        document = await self._document()
        place = leads_to(document, "end_session_endpoint", self._section.issuer)
        return _with(place, {"client_id": self._section.client_id}) if place else ""

    def _person(self, claims: dict[str, Any]) -> Person:
        section = self._section
        audience, party = claims["aud"], claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        # Core 3.1.3.7: of several audiences we must be the one that it was given to.
        if party != section.client_id and (several or party is not None):
            raise SignOnRefused("azp")
        subject, name = claims.get("sub"), claims.get(section.name_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise SignOnRefused("sub")
        if not isinstance(name, str):
            raise SignOnRefused("name")
        held = _words(claims, section.roles_claim)
        role = next((Role(role) for word, role in section.roles.items() if word in held), None)
        return Person(issuer=section.issuer, subject=subject, name=name, role=role)

    async def _redeemed(self, code: str, verifier: str, document: dict[str, Any]) -> str:
        """The ID token for the code, from the provider itself."""
        section = self._section
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": section.redirect_url,
            "client_id": section.client_id,
            "code_verifier": verifier,
        }
        headers = {"accept": "application/json"}
        if section.client_secret_file is not None:
            try:
                secret = secret_of(section.client_secret_file)
            except CredentialError:
                raise SignOnUnavailable from None
            methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            if isinstance(methods, list) and "client_secret_basic" not in methods:
                form["client_secret"] = secret
            else:
                # RFC 6749, 2.3.1: both are form-encoded before they are joined.
                pair = f"{quote(section.client_id, safe='')}:{quote(secret, safe='')}"
                headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, answer = await self._asked(await self._address("token_endpoint"), form, headers)
        token = answer.get("id_token")
        if status >= 500:
            raise SignOnUnavailable
        if status != 200 or not isinstance(token, str):
            raise SignOnRefused("code")
        return token

    async def _asked(self, url: str, form: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        try:
            async with (
                client_to(self._section.ca, self._section.timeout_s) as client,
                client.post(url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                content = await limited_body(answer)
                found = json.loads(content) if answer.status == 200 else {}
        except (OSError, TimeoutError, aiohttp.ClientError):
            raise SignOnUnavailable from None
        except (ValueError, RecursionError):
            raise SignOnRefused("answer") from None
        return answer.status, found if isinstance(found, dict) else {}

    async def _document(self) -> dict[str, Any]:
        try:
            return await self._published.document()
        except Unverifiable:
            raise SignOnUnavailable from None

    async def _address(self, name: str) -> str:
        place = leads_to(await self._document(), name, self._section.issuer)
        if not place:
            raise SignOnUnavailable
        return place


def _words(claims: dict[str, Any], path: str) -> frozenset[str]:
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        return frozenset({found})
    return frozenset(word for word in found if isinstance(word, str)) if isinstance(found, list) else frozenset()


def _with(address: str, query: dict[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"
