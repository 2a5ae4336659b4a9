"""Who we are to a FHIR server, as settings; the secrets themselves stay in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from emitters.credentials import Basic, Bearer, Credentials, SmartBackend, SmartSettings
from emitters.fhir_levels import TYPES
from emitters.fhir_terms import Level

__all__ = [
    "BasicCredentials",
    "BearerCredentials",
    "CredentialsSection",
    "SmartCredentials",
    "credentials_of",
    "smart_of",
]


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BearerCredentials(_Kind):
    kind: Literal["bearer"]
    file: Path
    """Holds the token; read anew for each request."""


class BasicCredentials(_Kind):
    kind: Literal["basic"]
    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    file: Path
    """Holds the password."""


class SmartCredentials(_Kind):
    """SMART Backend Services: a signed assertion of four minutes for a token (``private_key_jwt``)."""

    kind: Literal["smart"]
    client_id: str = Field(min_length=1)
    key_file: Path
    """A private JWK, a JWK set whose last key signs (add the new one, wait, then take the old one out), or a PEM."""
    key_id: str = ""
    """``kid`` of a PEM; a JWK has its own, or its thumbprint."""
    algorithm: Literal["ES384", "RS384"] = "ES384"
    scope: str = ""
    """"" asks for what the emission level writes."""
    token_url: str = Field(default="", pattern=r"^(https?://.*)?$")
    """"" is discovered under ``.well-known/smart-configuration``."""


CredentialsSection = Annotated[BearerCredentials | BasicCredentials | SmartCredentials, Field(discriminator="kind")]


def credentials_of(
    section: CredentialsSection | None, *, fhir_url: str, level: Level | None, timeout_s: float, ca: Path | None
) -> Credentials | None:
    match section:
        case None:
            return None
        case BearerCredentials():
            return Bearer(section.file)
        case BasicCredentials():
            return Basic(section.user, section.file)
        case SmartCredentials():
            return SmartBackend(smart_of(section, fhir_url=fhir_url, level=level, timeout_s=timeout_s, ca=ca))


def smart_of(
    section: SmartCredentials,
    *,
    fhir_url: str,
    level: Level | None = None,
    timeout_s: float = 10.0,
    ca: Path | None = None,
) -> SmartSettings:
    return SmartSettings(
        fhir_url=fhir_url,
        client_id=section.client_id,
        key_file=section.key_file,
        scope=section.scope or _scope(level or Level.L2),
        token_url=section.token_url,
        algorithm=section.algorithm,
        key_id=section.key_id,
        timeout_s=timeout_s,
        ca=str(ca) if ca is not None else "",
    )


def _scope(level: Level) -> str:
    # Never d: nothing is deleted (a correction is a state of its own).
    return " ".join(["system/Patient.rs", *(f"system/{kind}.crus" for kind in TYPES[level])])
