"""Who we are to a destination: a bearer token, a password, or SMART Backend Services (IG 2.2, ``private_key_jwt``).

Each gives ``authorization()``, the value of the header, and ``refused()`` for when the server answered 401. Secrets are read
from files when they are needed, so that a rotated one is used without a restart. What cannot be had raises
``CredentialError``, whose words name the place and never the secret.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

if typing.TYPE_CHECKING:
    import aiohttp

__all__ = [
    "Basic",
    "Bearer",
    "CredentialError",
    "Credentials",
    "SmartBackend",
    "SmartSettings",
    "public_keys",
    "secret_of",
]

_ASSERTION_S: Final = 240
"""SMART allows five minutes at most; clocks differ."""
_EARLY_S: Final = 60
_BODY_LIMIT: Final = 1 << 20


class CredentialError(Exception):
    """No authorisation can be had now. ``words`` names the place: a file, an address, the server's error code."""


class Credentials(typing.Protocol):
    async def authorization(self) -> str: ...

    def refused(self) -> None:
        """The server answered 401: what was cached is not used again."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Bearer:
    file: Path

    async def authorization(self) -> str:
        return f"Bearer {secret_of(self.file)}"

    def refused(self) -> None:
        """Nothing is cached."""

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Basic:
    user: str
    file: Path

    async def authorization(self) -> str:
        pair = f"{self.user}:{secret_of(self.file)}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def refused(self) -> None:
        """Nothing is cached."""

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartSettings:
    """``key_file`` holds a private JWK, a JWK set (its last key signs: the rotation's newest) or a PEM with ``key_id``."""

    fhir_url: str
    client_id: str
    key_file: Path
    scope: str = "system/Patient.rs system/Flag.cruds system/Task.cruds system/Observation.cruds system/Provenance.c"
    token_url: str = ""
    """"" is looked up under ``.well-known/smart-configuration``."""
    algorithm: Literal["RS384", "ES384"] = "ES384"
    key_id: str = ""
    timeout_s: float = 10.0
    ca: str = ""
    """PEM file of the authorities to trust, instead of the system's."""


class SmartBackend:
    """One token for all requests until a minute before its end; one request for it at a time."""

    def __init__(
        self,
        settings: SmartSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._client: aiohttp.ClientSession | None = None
        self._asking = asyncio.Lock()
        self._token = ""
        self._until = 0.0
        self._token_url = settings.token_url

    async def authorization(self) -> str:
        async with self._asking:
            if not self._token or self._clock() >= self._until:
                await self._renew()
            return f"Bearer {self._token}"

    def refused(self) -> None:
        self._token = ""
        # A server that moved its token endpoint says so in its configuration, which is read again.
        self._token_url = self._settings.token_url

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _renew(self) -> None:
        settings = self._settings
        if not self._token_url:
            self._token_url = await self._discover()
        form = {
            "grant_type": "client_credentials",
            "scope": settings.scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion(settings, self._token_url, int(self._clock())),
        }
        asked = self._token_url
        status, answer = await self._ask("POST", asked, form)
        token, kind = answer.get("access_token"), str(answer.get("token_type", "")).lower()
        if status != 200 or not isinstance(token, str) or kind != "bearer":
            self._token_url = settings.token_url
            raise CredentialError(f"{asked}: HTTP {status} {_code(answer)}".rstrip())
        lasts = answer.get("expires_in")
        lasts_s = float(lasts) if isinstance(lasts, int | float) and not isinstance(lasts, bool) else 300.0
        self._token = token
        self._until = self._clock() + max(lasts_s - _EARLY_S, lasts_s / 2)

    async def _discover(self) -> str:
        url = f"{self._settings.fhir_url.rstrip('/')}/.well-known/smart-configuration"
        status, found = await self._ask("GET", url)
        place = found.get("token_endpoint")
        if status != 200 or not isinstance(place, str) or not place.startswith(("https://", "http://")):
            raise CredentialError(f"{url}: HTTP {status} without a token_endpoint")
        methods = found.get("token_endpoint_auth_methods_supported")
        if isinstance(methods, list) and "private_key_jwt" not in methods:
            raise CredentialError(f"{url}: the server takes no private_key_jwt")
        if self._settings.fhir_url.startswith("https:") and place.startswith("http:"):
            raise CredentialError(f"{url}: a token_endpoint in plaintext")
        return place

    async def _ask(self, method: str, url: str, form: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        # Loaded where a token is asked for, which the process that accepts does not do.
        import aiohttp

        if self._client is None:
            trust: ssl.SSLContext | bool = True
            if self._settings.ca:
                trust = ssl.create_default_context(cafile=self._settings.ca)
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trust), cookie_jar=aiohttp.DummyCookieJar()
            )
        limit = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        headers = {"accept": "application/json"}
        try:
            async with self._client.request(
                method, url, data=form, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                body = await response.content.read(_BODY_LIMIT)
                return response.status, _object(body)
        except TimeoutError:
            raise CredentialError(f"{url}: no answer in time") from None
        except aiohttp.ClientError as error:
            raise CredentialError(f"{url}: {type(error).__name__}") from None


def assertion(settings: SmartSettings, token_url: str, now: int) -> str:
    """The signed claim of who we are, for one use within four minutes."""
    from joserfc import jwt

    key = _signing_key(settings)
    header = {"alg": settings.algorithm, "kid": key.kid, "typ": "JWT"}
    claims = {
        "iss": settings.client_id,
        "sub": settings.client_id,
        "aud": token_url,
        "iat": now,
        "exp": now + _ASSERTION_S,
        "jti": secrets.token_urlsafe(24),
    }
    try:
        return jwt.encode(header, claims, key, algorithms=[settings.algorithm])
    except ValueError as error:
        raise CredentialError(f"{settings.key_file}: cannot sign {settings.algorithm} ({error})") from None


def public_keys(settings: SmartSettings) -> dict[str, list[dict[str, Any]]]:
    """Our JWK set without its private parts, to be registered with, or fetched by, the authorisation server."""
    return {
        "keys": [
            {**key.as_dict(private=False), "use": "sig", "alg": settings.algorithm, "kid": key.kid}
            for key in _keys(settings)
        ]
    }


def _signing_key(settings: SmartSettings) -> Any:
    return _keys(settings)[-1]


def _keys(settings: SmartSettings) -> list[Any]:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, KeySet, RSAKey

    kind: Any = {"RS384": RSAKey, "ES384": ECKey}[settings.algorithm]
    written = secret_of(settings.key_file)
    try:
        if written.startswith("{"):
            document = json.loads(written)
            keys = list(KeySet.import_key_set(document).keys) if "keys" in document else [kind.import_key(document)]
        else:
            keys = [kind.import_key(written, {"kid": settings.key_id} if settings.key_id else None)]
    except (JoseError, ValueError, TypeError, KeyError):
        raise CredentialError(f"{settings.key_file}: no private key for {settings.algorithm}") from None
    if not keys or not all(isinstance(key, kind) and key.is_private for key in keys):
        raise CredentialError(f"{settings.key_file}: no private key for {settings.algorithm}")
    for key in keys:
        key.ensure_kid()
    return keys


def secret_of(file: Path) -> str:
    """What the file holds, without its white space around. Raises CredentialError."""
    try:
        found = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"{file}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if not found:
        raise CredentialError(f"{file}: empty")
    return found


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _code(answer: dict[str, Any]) -> str:
    """OAuth's own error code (RFC 6749, 5.2); its free text is not repeated."""
    code = answer.get("error")
    return code if isinstance(code, str) and code.replace("_", "").isalnum() else ""
