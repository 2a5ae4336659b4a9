"""JWTs of the configured issuer: verified against its keys, which are fetched, kept and renewed here.

Rule of the file: a token's words go nowhere but into the comparison; a refusal names what was wrong by fixed words.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, RSAKey

from engine.issuer_settings import IssuerSection
from ingest.access import Admitted, Refused, Unverifiable
from ingest.scopes import scopes_of

__all__ = ["Jwts"]

_LONGEST = 16 * 1024
_ANSWER_LIMIT = 1024 * 1024
_APART_S = 10.0
"""Between two looks at the keys: somebody who makes up key ids must not have us hammer the issuer."""
_FRESH_S = 600.0
"""After this long they are looked at again even if the wanted one is there: a key taken back must stop opening."""
_STALE_S = 24 * 3600.0
"""So long an issuer that does not answer is lived with."""
_KINDS: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey}
_TYPE_OF = {"RS384": "RSA", "RS256": "RSA", "ES384": "EC"}
_RSA_BITS = 2048

_Keys = dict[str, Any]


class Jwts:
    """``ingest.access.Issuer``."""

    def __init__(self, section: IssuerSection, clock: Callable[[], float] = time.time) -> None:
        """``clock``: seconds since 1970."""
        self._section = section
        self._clock = clock
        self._keys: list[tuple[str, str, Any]] = []
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._looking = asyncio.Lock()
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=section.leeway_s,
            iss={"essential": True, "value": section.url},
            aud={"essential": True, "value": section.audience},
            exp={"essential": True},
        )

    def problems(self) -> list[str]:
        """What stands against these settings before anything is asked."""
        file = self._section.jwks_file
        if self._section.ca is not None:
            try:
                ssl.create_default_context(cafile=str(self._section.ca))
            except OSError as error:
                return [f"http.issuer.ca: {self._section.ca}: {error.strerror or 'no certificates'}"]
        if file is None:
            return []
        try:
            found = _keys_in(file.read_bytes())
        except OSError as error:
            return [f"http.issuer.jwks_file: {file}: {error.strerror}"]
        except ValueError as error:
            return [f"http.issuer.jwks_file: {file}: {error}"]
        return [] if found else [f"http.issuer.jwks_file: {file}: no key that could sign a token"]

    async def admit(self, token: str) -> Admitted:
        if len(token) > _LONGEST or not token.isascii() or token.count(".") != 2:
            raise Refused("not a token of the issuer")
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError):
            raise Refused("not a token of the issuer") from None
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in self._section.algorithms or not isinstance(key_id, str):
            raise Refused("algorithm")
        if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", "at+jwt"):
            raise Refused("not an access token")
        key = await self._key(_TYPE_OF[algorithm], key_id)
        if key is None:
            raise Refused("unknown key")
        return self._admitted(token, key, algorithm)

    def _admitted(self, token: str, key: Any, algorithm: str) -> Admitted:
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
            self._claims.validate(claims)
        except BadSignatureError:
            raise Refused("signature") from None
        except ExpiredTokenError:
            raise Refused("expired") from None
        except MissingClaimError as error:
            raise Refused(f"without {error.claim}") from None
        except JoseError as error:
            # A claim's name is the standard's; anything else of the error could quote the token.
            raise Refused(str(getattr(error, "claim", "") or "not a token of the issuer")) from None
        except (ValueError, TypeError, RecursionError):
            raise Refused("not a token of the issuer") from None
        scope = claims.get("scope", claims.get("scp", ""))
        granted = " ".join(map(str, scope)) if isinstance(scope, list) else str(scope)
        return Admitted(f"jwt:{_name(claims)}", scopes_of(granted))

    async def _key(self, kind: str, key_id: str) -> Any:
        found = self._held(kind, key_id)
        now = self._clock()
        wanted = found is None or now - self._read_at > _FRESH_S
        # Whoever comes while the keys are being renewed, and has a known one, need not wait.
        if wanted and now - self._tried_at >= _APART_S and (found is None or not self._looking.locked()):
            async with self._looking:
                # Who waited for somebody else's look has its result.
                if self._clock() - self._tried_at >= _APART_S:
                    self._tried_at = self._clock()
                    await self._look()
        elif wanted and found is None and self._looking.locked():
            async with self._looking:
                pass
        if self._clock() - self._read_at > _STALE_S:
            raise Unverifiable
        return self._held(kind, key_id)

    def _held(self, kind: str, key_id: str) -> Any:
        fitting = [key for number, name, key in self._keys if number == kind and (name == key_id or not key_id)]
        return fitting[0] if len(fitting) == 1 else None

    async def _look(self) -> None:
        """Leaves what is known as it is where nothing can be had."""
        try:
            file = self._section.jwks_file
            if file is not None:
                content = await asyncio.to_thread(file.read_bytes)
            else:
                content = await self._fetched()
            found = _keys_in(content)
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError):
            return
        self._keys = found
        self._read_at = self._clock()

    async def _fetched(self) -> bytes:
        section = self._section
        trust: ssl.SSLContext | bool = True
        if section.ca is not None:
            trust = ssl.create_default_context(cafile=str(section.ca))
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=section.timeout_s),
        ) as client:
            url = section.jwks_url
            for place in () if url else ("openid-configuration", "smart-configuration"):
                found = await _get(client, f"{section.url.rstrip('/')}/.well-known/{place}")
                if url := _jwks_uri(found or b"", section.url):
                    break
            content = await _get(client, url) if url else None
        if content is None:
            raise ValueError("no keys")
        return content


async def _get(client: aiohttp.ClientSession, url: str) -> bytes | None:
    async with client.get(url, headers={"accept": "application/json"}, allow_redirects=False) as answer:
        content = bytearray()
        async for piece in answer.content.iter_chunked(64 * 1024):
            content += piece
            if len(content) > _ANSWER_LIMIT:
                raise ValueError("too long")
        return bytes(content) if answer.status == 200 else None


def _jwks_uri(document: bytes, issuer: str) -> str:
    """ "" where the document is not this issuer's, or leads from https into plaintext."""
    try:
        found = json.loads(document)
    except ValueError:
        return ""
    if not isinstance(found, dict) or found.get("issuer", issuer) != issuer:
        return ""
    place = found.get("jwks_uri")
    schemes = ("https://",) if issuer.startswith("https:") else ("https://", "http://")
    return place if isinstance(place, str) and place.startswith(schemes) else ""


def _keys_in(document: bytes) -> list[tuple[str, str, Any]]:
    """(kind, id, key) of what may sign. Raises ValueError. A key that we cannot use is passed over: sets hold many kinds."""
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("not a JWK set") from None
    if not isinstance(listed, list):
        raise ValueError("not a JWK set")
    found = []
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") not in _KINDS:
            continue
        # Only the public part is kept, and no claim of the entry about its use but the one just read.
        public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
        try:
            key = _KINDS[entry["kty"]].import_key(public)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if (entry["kty"] == "RSA" and key.raw_value.key_size < _RSA_BITS) or entry.get("crv", "P-384") != "P-384":
            continue
        kid = entry.get("kid")
        found.append((entry["kty"], kid if isinstance(kid, str) else "", key))
    return found


def _name(claims: dict[str, Any]) -> str:
    """Who it was given to, in letters that cannot be taken for another part of an address."""
    name = next((claims[key] for key in ("client_id", "azp", "sub") if isinstance(claims.get(key), str)), "")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] or "unnamed"
