"""Kafka's settings, and the clients' options made of them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["KafkaFace", "KafkaSection", "plain", "security"]


class KafkaFace(BaseModel):
    """How to reach a cluster: shared by what is read and what is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: str = ""
    """host:port, several separated by commas."""
    tls: bool = False
    ca: Path | None = None
    """PEM file of the authorities to trust, instead of the system's."""
    certificate: Path | None = None
    """With ``key``: what we show of ourselves."""
    key: Path | None = None
    sasl: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password_file: Path | None = None
    allow_plaintext: bool = False

    @field_validator("bootstrap")
    @classmethod
    def _hosts(cls, value: str) -> str:
        for one in filter(None, value.split(",")):
            host, _, port = one.strip().rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError("must be host:port, several separated by commas")
        return value

    @model_validator(mode="after")
    def _secured(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if not self.tls and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key say nothing without tls = true")
        if self.sasl and not (self.username and self.password_file):
            raise ValueError("sasl needs username and password_file")
        if not self.sasl and (self.username or self.password_file):
            raise ValueError("username and password_file say nothing without sasl")
        return self

    @property
    def hosts(self) -> list[str]:
        return [one.strip().rpartition(":")[0] for one in self.bootstrap.split(",") if one.strip()]


class KafkaSection(KafkaFace):
    """Records in. Without ``bootstrap`` there is no such door."""

    topics: tuple[str, ...] = Field(default=("lab.results",), min_length=1)
    group: str = Field(default="neutroflag", min_length=1)
    max_records: int = Field(default=500, ge=1, le=10_000)
    """At most so many records in one commit."""
    session_timeout_s: float = Field(default=10, ge=6, le=300)
    """After this long without a word another member of the group takes over (the broker has its own limits)."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        # By value: settings that were written out whole, as the judging process gets them, name every key.
        given = any(getattr(self, name) != field.default for name, field in type(self).model_fields.items())
        if not self.bootstrap and given:
            raise ValueError("bootstrap is missing: host:port of a broker")
        return self


def security(face: KafkaFace) -> dict[str, Any]:
    """The clients' keyword arguments. Raises OSError and ssl.SSLError for files that cannot be used."""
    options: dict[str, Any] = {
        "security_protocol": ("SASL_" if face.sasl else "") + ("SSL" if face.tls else "PLAINTEXT")
    }
    if face.tls:
        context = ssl.create_default_context(cafile=face.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if face.certificate is not None and face.key is not None:
            context.load_cert_chain(face.certificate, face.key, password=_no_passphrase)
        options["ssl_context"] = context
    if face.sasl and face.password_file is not None:
        options |= {
            "sasl_mechanism": face.sasl,
            "sasl_plain_username": face.username,
            "sasl_plain_password": face.password_file.read_text(encoding="utf-8").strip(),
        }
    return options


def plain(face: KafkaFace) -> bool:
    """Whether patients' data would cross a network in the clear."""
    from engine.config import is_loopback

    return bool(face.bootstrap) and not face.tls and not all(is_loopback(host) for host in face.hosts)


def _no_passphrase() -> str:
    # Without this OpenSSL would ask for one on the terminal.
    raise ssl.SSLError("the key has a passphrase")
