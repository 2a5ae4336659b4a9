"""What an authorisation server publishes, its configuration and its keys: fetched, kept and renewed here.

Rule of the file: nothing that a token says decides where keys are fetched from.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from ingest.access import Unverifiable

__all__ = ["ANSWER_LIMIT", "KIND_OF", "Place", "Published", "client_to", "leads_to", "limited_body"]

ANSWER_LIMIT: Final = 1024 * 1024
_APART_S = 10.0
"""Between two looks at the keys: somebody who makes up key ids must not have us hammer the issuer."""
_FRESH_S = 600.0
"""After this long they are looked at again even if the wanted one is there: a key taken back must stop opening."""
_STALE_S = 24 * 3600.0
"""So long an issuer that does not answer is lived with."""
_KINDS: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey}
KIND_OF: Final = {"RS256": "RSA", "RS384": "RSA", "ES256": "P-256", "ES384": "P-384"}
"""The kind of key that an algorithm is verified with."""
_RSA_BITS = 2048

_Listed = list[tuple[str, str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it is published. ``issuer``: letter for letter; ``documents``: under its ``.well-known``, tried in this order."""

    issuer: str
    documents: tuple[str, ...] = ("openid-configuration", "smart-configuration")
    jwks_url: str = ""
    """"" is discovered."""
    jwks_file: Path | None = None
    ca: Path | None = None
    timeout_s: float = 5


class Published:
    def __init__(self, place: Place, algorithms: Collection[str], clock: Callable[[], float] = time.time) -> None:
        """``clock``: seconds since 1970."""
        self._place = place
        self._kinds = frozenset(KIND_OF[name] for name in algorithms)
        self._clock = clock
        self._keys: _Listed = []
        self._document: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._looking = asyncio.Lock()

    def problems(self, name: str) -> list[str]:
        """What stands against these settings before anything is asked; ``name``: of their section."""
        place = self._place
        if place.ca is not None:
            try:
                ssl.create_default_context(cafile=str(place.ca))
            except OSError as error:
                return [f"{name}.ca: {place.ca}: {error.strerror or 'no certificates'}"]
        if place.jwks_file is None:
            return []
        try:
            found = _keys_in(place.jwks_file.read_bytes(), self._kinds)
        except OSError as error:
            return [f"{name}.jwks_file: {place.jwks_file}: {error.strerror}"]
        except ValueError as error:
            return [f"{name}.jwks_file: {place.jwks_file}: {error}"]
        return [] if found else [f"{name}.jwks_file: {place.jwks_file}: no key that could sign a token"]

    async def key(self, algorithm: str, key_id: str) -> Any:
        """The one key that ``algorithm`` can be verified with, of this id ("" where there is only one); None: there is none.

        Raises Unverifiable.
        """
        kind = KIND_OF[algorithm]
        await self._renewed(lambda: self._held(kind, key_id) is not None)
        return self._held(kind, key_id)

    async def document(self) -> dict[str, Any]:
        """Its configuration. Raises Unverifiable."""
        await self._renewed(lambda: bool(self._document))
        return self._document

    async def _renewed(self, found: Callable[[], bool]) -> None:
        now = self._clock()
        # A clock that was set back makes nothing fresher than it is.
        wanted = not found() or not 0 <= now - self._read_at <= _FRESH_S
        # Whoever comes while the keys are being renewed, and has a known one, need not wait.
        if wanted and abs(now - self._tried_at) >= _APART_S and (not found() or not self._looking.locked()):
            async with self._looking:
                # Who waited for somebody else's look has its result.
                if abs(self._clock() - self._tried_at) >= _APART_S:
                    self._tried_at = self._clock()
                    await self._look()
        elif wanted and not found() and self._looking.locked():
            async with self._looking:
                pass
        if self._clock() - self._read_at > _STALE_S:
            raise Unverifiable

    def _held(self, kind: str, key_id: str) -> Any:
        fitting = [key for number, name, key in self._keys if number == kind and (name == key_id or not key_id)]
        return fitting[0] if len(fitting) == 1 else None

    async def _look(self) -> None:
        """Leaves what is known as it is where nothing can be had."""
        try:
            file = self._place.jwks_file
            if file is not None:
                content, document = await asyncio.to_thread(file.read_bytes), self._document
            else:
                content, document = await self._fetched()
            found = _keys_in(content, self._kinds)
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError):
            return
        self._keys, self._document = found, document
        self._read_at = self._clock()

    async def _fetched(self) -> tuple[bytes, dict[str, Any]]:
        place = self._place
        async with client_to(place.ca, place.timeout_s) as client:
            url, document = place.jwks_url, dict[str, Any]()
            for name in () if url else place.documents:
                found = await _get(client, f"{place.issuer.rstrip('/')}/.well-known/{name}")
                document = _document(found or b"", place.issuer)
                if url := leads_to(document, "jwks_uri", place.issuer):
                    break
            content = await _get(client, url) if url else None
        if content is None:
            raise ValueError("no keys")
        return content, document


def client_to(ca: Path | None, timeout_s: float) -> aiohttp.ClientSession:
    trust: ssl.SSLContext | bool = True
    if ca is not None:
        trust = ssl.create_default_context(cafile=str(ca))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
    )


def leads_to(document: dict[str, Any], name: str, issuer: str) -> str:
    """An address that the configuration gives; "" where it has none, or leads from https into plaintext."""
    schemes = ("https://",) if issuer.startswith("https:") else ("https://", "http://")
    place = document.get(name)
    return place if isinstance(place, str) and place.startswith(schemes) else ""


async def limited_body(answer: aiohttp.ClientResponse) -> bytes:
    """Raises ValueError beyond ANSWER_LIMIT."""
    content = bytearray()
    async for piece in answer.content.iter_chunked(64 * 1024):
        content += piece
        if len(content) > ANSWER_LIMIT:
            raise ValueError("too long")
    return bytes(content)


async def _get(client: aiohttp.ClientSession, url: str) -> bytes | None:
    async with client.get(url, headers={"accept": "application/json"}, allow_redirects=False) as answer:
        content = await limited_body(answer)
        return content if answer.status == 200 else None


def _document(content: bytes, issuer: str) -> dict[str, Any]:
    """Empty where the document is not this issuer's."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("issuer", issuer) == issuer else {}


def _keys_in(document: bytes, kinds: Collection[str]) -> _Listed:
    """(kind, id, key) of what may sign. Raises ValueError. A key that we cannot use is passed over: sets hold many kinds."""
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("not a JWK set") from None
    if not isinstance(listed, list):
        raise ValueError("not a JWK set")
    found = []
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") not in _KINDS:
            continue
        # Only the public part is kept, and no claim of the entry about its use but the one just read.
        public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
        kind = "RSA" if entry["kty"] == "RSA" else str(entry.get("crv"))
        try:
            key = _KINDS[entry["kty"]].import_key(public)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if kind not in kinds or (kind == "RSA" and key.raw_value.key_size < _RSA_BITS):
            continue
        kid = entry.get("kid")
        found.append((kind, kid if isinstance(kid, str) else "", key))
    return found
