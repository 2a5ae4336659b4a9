"""Our public keys, for authorisation servers: ``/.well-known/jwks.json``, to be registered with each as our JWKS URL."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emitters.credentials import CredentialError, public_keys, secret_of
from engine.config import Settings
from engine.credential_settings import BasicCredentials, BearerCredentials, SmartCredentials, smart_of
from engine.destination_settings import FhirDestination
from engine.observe import Meters

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["credential_problems", "keys_router", "published"]


def credential_problems(settings: Settings) -> list[str]:
    """Secrets and keys that cannot be used, before anything goes out; the words name a file, never what it holds."""
    _, problems = published(settings)
    for number, item in enumerate(settings.destination):
        if isinstance(item, FhirDestination) and isinstance(item.credentials, BearerCredentials | BasicCredentials):
            try:
                secret_of(item.credentials.file)
            except CredentialError as error:
                problems.append(f"destination[{number}].credentials: {error}")
    return problems


def published(settings: Settings) -> tuple[list[dict[str, object]], list[str]]:
    """The public keys of every SMART destination, each once, and what is wrong with a key file."""
    keys: dict[str, dict[str, object]] = {}
    problems: list[str] = []
    for number, item in enumerate(settings.destination):
        if isinstance(item, FhirDestination) and isinstance(item.credentials, SmartCredentials):
            try:
                shown = public_keys(smart_of(item.credentials, fhir_url=item.url))["keys"]
            except CredentialError as error:
                problems.append(f"destination[{number}].credentials: {error}")
                continue
            keys |= {str(key["kid"]): key for key in shown}
    return list(keys.values()), problems


def keys_router(settings: Settings, meters: Meters) -> APIRouter:
    from fastapi import APIRouter
    from fastapi.responses import JSONResponse

    router = APIRouter()

    @router.get("/.well-known/jwks.json", response_model=None)
    def jwks() -> JSONResponse:
        """Read from the key files at each request: a rotated key is public before it signs, without a restart."""
        keys, problems = published(settings)
        for problem in problems:
            meters.event("key_unusable", level=logging.ERROR, reason=problem)
        return JSONResponse({"keys": keys}, headers={"cache-control": "public, max-age=300"})

    return router
