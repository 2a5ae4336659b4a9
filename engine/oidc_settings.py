"""Log-in to the console through an identity provider (OpenID Connect), as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["CALLBACK", "OidcSection"]

CALLBACK = "/console/oidc/callback"


class OidcSection(BaseModel):
    """Authorization code flow with PKCE; who somebody is and may do stands in the ID token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(pattern=r"^https?://\S+$")
    """``iss`` of its ID tokens, letter for letter; its configuration is discovered from here."""
    client_id: str = Field(min_length=1)
    client_secret_file: Path | None = None
    """Without one we are a public client, shown by PKCE alone."""
    redirect_url: str = Field(pattern=r"^https?://\S+$")
    """As registered with the provider: our address as browsers know it, then ``/console/oidc/callback``."""
    label: str = Field(default="", max_length=60)
    """What the log-in page calls the provider."""
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = Field(default="preferred_username", min_length=1)
    """Of the ID token: the name that the console and the audit show."""
    roles_claim: str = Field(default="roles", min_length=1)
    """Of the ID token: a word or a list of words; ``realm_access.roles`` is a claim within a claim."""
    roles: dict[str, Literal["clinician", "operator", "auditor", "admin"]] = Field(min_length=1)
    """The console's role by a word of ``roles_claim``; of several the first that stands here. Nobody else is let in."""
    local_accounts: bool = True
    """Whether accounts with a password may log in as well."""
    prompt: Literal["", "login", "select_account"] = ""
    """``login`` asks for the provider's own credentials each time: for machines that several people share."""
    algorithms: tuple[Literal["RS256", "RS384", "ES256", "ES384"], ...] = Field(
        default=("RS256", "RS384", "ES256", "ES384"), min_length=1
    )
    leeway_s: int = Field(default=30, ge=0, le=120)
    """How far its clock may be from ours."""
    timeout_s: float = Field(default=5, gt=0, le=30)
    ca: Path | None = None
    """PEM file of the authorities to trust, instead of the system's."""

    @field_validator("redirect_url")
    @classmethod
    def _ours(cls, value: str) -> str:
        if not value.endswith(CALLBACK) or "?" in value or "#" in value:
            raise ValueError(f"ends in {CALLBACK}")
        return value

    @field_validator("scopes")
    @classmethod
    def _openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value or not all(scope.isprintable() and " " not in scope for scope in value):
            raise ValueError("scopes are words, and openid is one of them")
        return value
