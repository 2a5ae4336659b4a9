"""The authorisation server whose tokens open the HTTP doors, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["IssuerSection"]


class IssuerSection(BaseModel):
    """We are a SMART resource server: tokens are verified against the issuer's keys, and hold system scopes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://\S+$")
    """``iss`` of its tokens, letter for letter."""
    audience: str = Field(min_length=1)
    """What ``aud`` must hold: our base address as the issuer knows it."""
    jwks_url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """Its keys; "" is discovered (``jwks_uri`` of its OpenID or SMART configuration)."""
    jwks_file: Path | None = None
    """A file with its keys instead, for an engine that cannot reach it."""
    algorithms: tuple[Literal["RS384", "ES384", "RS256"], ...] = Field(default=("RS384", "ES384"), min_length=1)
    leeway_s: int = Field(default=30, ge=0, le=120)
    """How far its clock may be from ours."""
    timeout_s: float = Field(default=5, gt=0, le=30)
    ca: Path | None = None
    """PEM file of the authorities to trust, instead of the system's."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.jwks_file is not None and self.jwks_url:
            raise ValueError("jwks_url and jwks_file are two places for one thing")
        return self

    def asks(self, key: str) -> bool:
        """Whether the address under this key is asked for anything."""
        if self.jwks_file is not None:
            return False
        return key == "jwks_url" if self.jwks_url else key == "url"
