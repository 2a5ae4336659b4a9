"""Who may use a door: bearer tokens and an issuer's JWTs for the HTTP faces, certificates for MLLP over TLS.

Rule of the file: secrets are compared by their hash, all of them each time, and never shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from ingest.scopes import Scopes
from wire import ack, er7

__all__ = [
    "ANYBODY",
    "CHALLENGE",
    "Access",
    "Admitted",
    "Issuer",
    "Refused",
    "Senders",
    "Token",
    "Unverifiable",
    "beyond",
    "common_name",
    "digest",
]

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="neutroflag"'}
"""Of every 401 (RFC 6750, 3)."""


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Token:
    """``secret``: its ``digest``."""

    name: str
    secret: bytes
    faces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Admitted:
    """``name``: "" for anybody where no token is needed. ``scopes``: None where all of the door's interactions are meant."""

    name: str
    scopes: Scopes | None = None


@dataclass(eq=False)
class Refused(Exception):
    """A token that opens nothing. ``reason``: fixed words, for the challenge."""

    reason: str = ""

    @property
    def challenge(self) -> dict[str, str]:
        if not self.reason:
            return CHALLENGE
        value = f'{CHALLENGE["WWW-Authenticate"]}, error="invalid_token", error_description="{self.reason}"'
        return {"WWW-Authenticate": value}


class Unverifiable(Exception):
    """The issuer's keys cannot be had now: whether the token is good is not known."""


class Issuer(Protocol):
    async def admit(self, token: str) -> Admitted:
        """Raises Refused and Unverifiable."""

    async def smart(self) -> dict[str, Any]:
        """The SMART configuration of a server that takes its tokens."""


class Access:
    """Without any token and issuer everybody may; the settings allow that on loopback, or by name."""

    def __init__(self, tokens: Sequence[Token] = (), issuer: Issuer | None = None) -> None:
        self._tokens = tuple(tokens)
        self._issuer = issuer

    @property
    def smart(self) -> Callable[[], Awaitable[dict[str, Any]]] | None:
        """None without an issuer."""
        return self._issuer.smart if self._issuer is not None else None

    @property
    def asked(self) -> bool:
        """Whether a token is needed."""
        return bool(self._tokens) or self._issuer is not None

    async def admit(self, request: Request, face: str) -> Admitted:
        """Raises Refused and Unverifiable."""
        if not self.asked:
            return Admitted("")
        if (name := self.named(request, face)) is not None:
            return Admitted(name)
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if self._issuer is None or scheme.lower() != "bearer" or not shown.strip():
            raise Refused
        return await self._issuer.admit(shown.strip())

    def named(self, request: Request, face: str) -> str | None:
        """The name of a token for this face, or None: a token is needed here, whatever is configured."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        shown = digest(secret.strip()) if scheme.lower() == "bearer" else b""
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.secret, shown) and face in token.faces:
                found = token.name
        return found

    def peer(self, request: Request, holder: str) -> str:
        """``host:port``, with who it proved to be before it: ``lab1@10.0.0.7:50122``."""
        address = f"{request.client.host}:{request.client.port}" if request.client else ""
        return f"{holder}@{address}" if holder else address


def beyond(scopes: Sequence[str]) -> dict[str, str]:
    """The challenge of a 403 (RFC 6750, 3.1)."""
    value = f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope", scope="{" ".join(scopes)}"'
    return {"WWW-Authenticate": value}


ANYBODY = Access()


@dataclass(frozen=True, slots=True)
class Senders:
    """Which sending facilities (MSH-4) each certificate may speak for; no entry at all: each for any."""

    facilities: Mapping[str, Collection[str]]

    def knows(self, name: str) -> bool:
        return not self.facilities or name in self.facilities

    def refusal(self, name: str, header: er7.Header | None) -> ack.AckError | None:
        """What to answer a message that comes with the certificate of ``name``; None: nothing against it."""
        if not self.facilities or header is None:
            return None
        whole = header.sending_facility
        # MSH-4 is an HD: LAB1^1.2.250.1.7^ISO is LAB1 to most, and the settings may write either.
        if {whole, whole.partition(header.separators.component)[0]} & set(self.facilities.get(name, ())):
            return None
        return ack.AckError(204, "MSH-4 is not one that this certificate may send for", ("MSH", "1", "4"))


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """The subject's common name in what ``getpeercert`` gives; "" without any.

    >>> common_name({"subject": ((("organizationName", "CHX"),), (("commonName", "lab1"),))})
    'lab1'
    """
    parts = (part for group in (certificate or {}).get("subject", ()) for part in group)
    return next((value for kind, value in parts if kind == "commonName"), "")
