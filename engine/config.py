"""The settings: one TOML file, then NEUTROFLAG_SECTION__KEY from the environment, secrets from files.

An unknown key is an error that names the nearest known one, in the file and in the environment alike: a misspelt safety
setting must not be silently off.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.destination_settings import Destination, FhirDestination, KafkaDestination, MllpDestination
from engine.duty_settings import RotaSection, RoutingSection
from engine.issuer_settings import IssuerSection
from engine.kafka import KafkaSection, plain
from engine.oidc_settings import OidcSection
from engine.section import Section, together
from rules import ProtocolError, find_selectable

__all__ = [
    "ConfigError",
    "Settings",
    "exposed",
    "is_loopback",
    "load",
    "origins",
]

PREFIX = "NEUTROFLAG_"


class ConfigError(Exception):
    """The settings cannot be used; each line of ``problems`` names a place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreSection(Section):
    url: str = "sqlite:///neutroflag.db"
    key_file: Path | None = None
    """Keys that message bodies are sealed with (docs/security.md): a line each, the last one seals."""
    key_command: tuple[str, ...] = ()
    """A program and its arguments that print the same, from a vault."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.key_file is not None and self.key_command:
            raise ValueError("key_file and key_command are two places for one thing")
        return self

    @field_validator("url")
    @classmethod
    def _known(cls, value: str) -> str:
        if not value.startswith("sqlite:///"):
            from store.database import problem  # slow to load, and most settings name a file

            if wrong := problem(value):
                raise ValueError(wrong)
        return value


class EngineSection(Section):
    mode: Literal["deliver", "observe"] = "deliver"
    role: Literal["all", "accept", "judge"] = "all"
    """``accept``: only the doors; ``judge``: only what stands behind the store. On PostgreSQL; see docs/many-machines.md."""
    protocol: str = "ansm"
    """For patients whose register entry names none."""
    history_after_hours: float = Field(default=24, gt=0)
    """A count that arrives later than this after its collection is history: it alerts on the present state only."""
    history_settle_s: float = Field(default=10, ge=0)
    """How long history must have stopped arriving for a patient before that patient's present state is looked at."""
    name: str = "neutroflag"
    """This engine's name as FHIR Device identifier and HL7 sending application."""


class RegisterSection(Section):
    unenrolled_days: int = Field(default=30, ge=1)


class RetentionSection(Section):
    """Days after which something is removed; 0 keeps it for ever. See docs/retention.md.

    Nothing goes that an open alert, an open finding or a message without its disposition refers to.
    """

    not_relevant_body_days: int = Field(default=30, ge=0)
    """The bytes of sound messages without a neutrophil count."""
    judged_body_days: int = Field(default=0, ge=0)
    """The bytes of messages with a count of somebody on the register, read or not; verdicts and values stay."""
    set_aside_body_days: int = Field(default=0, ge=0)
    not_relevant_days: int = Field(default=0, ge=0)
    duplicate_days: int = Field(default=365, ge=0)
    """Duplicates, which hold no bytes of their own."""
    delivered_days: int = Field(default=0, ge=0)
    """Notifications that a destination has taken."""
    observed_days: int = Field(default=365, ge=0)
    """Notifications that observe mode kept back."""
    audit_days: int = Field(default=0, ge=0)


class MllpSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=2575, ge=0, le=65535)
    max_frame_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_peer: int = Field(default=1024, ge=1)
    """Of one address; a connection too many is answered AE 207 (try again) and closed."""
    max_messages_per_s: float = Field(default=0, ge=0)
    """Of one address; beyond it TCP holds the sender back. 0: as fast as the store takes them."""
    max_held_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Of frames that have begun or wait for the store; beyond it nothing more is read until there is room."""
    idle_timeout_s: float = Field(default=900, gt=0)
    frame_timeout_s: float = Field(default=60, gt=0)
    """From a frame's first byte to its last; long frames have longer, at 16 KiB/s."""
    plaintext: bool = True
    """Whether ``port`` is opened; ``tls_port`` is of its own."""
    allow_plaintext: bool = False
    tls_port: int | None = Field(default=None, ge=0, le=65535)
    """2576 by custom; needs ``certificate`` and ``key``."""
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    """PEM file: senders must show a certificate of one of these authorities."""
    allow: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Sending facilities (MSH-4) by the common name of the sender's certificate; empty: any of ``client_ca``."""
    allow_anonymous: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self.certificate, self.key)
        if self.tls_port is None and (self.certificate or self.client_ca or self.allow):
            raise ValueError("certificate, key, client_ca and allow say nothing without tls_port")
        if self.tls_port is not None and self.certificate is None:
            raise ValueError("tls_port needs certificate and key")
        if self.allow and self.client_ca is None:
            raise ValueError("allow needs client_ca: without it no sender shows a certificate")
        if self.enabled and not self.plaintext and self.tls_port is None:
            raise ValueError("plaintext = false without tls_port leaves no door; set enabled = false")
        return self


class HttpToken(Section):
    """A bearer token, so that its holder may use these faces."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@-]+$")
    file: Path
    """Holds the secret."""
    faces: tuple[Literal["fhir", "hl7", "metrics"], ...] = Field(min_length=1)


class HttpSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    max_header_bytes: int = Field(default=64 * 1024, ge=4096)
    max_connections: int = Field(default=1024, ge=1)
    max_connections_per_peer: int = Field(default=512, ge=1)
    """Of one address; a connection too many is answered 503 and closed."""
    max_requests: int = Field(default=256, ge=1)
    """At once; one more is answered 503 (try again)."""
    max_requests_per_s: float = Field(default=0, ge=0)
    """Of one address; beyond it the answer is 429 with the seconds to wait. 0: as fast as the store takes them."""
    max_held_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Of the bodies of all requests; beyond it the answer is 503."""
    header_timeout_s: float = Field(default=10, gt=0)
    body_timeout_s: float = Field(default=60, gt=0)
    """From the end of the headers; long bodies have longer, at 16 KiB/s. What is late is answered 408."""
    allow_plaintext: bool = False
    allow_anonymous: bool = False
    certificate: Path | None = None
    """With ``key``: TLS on ``port``."""
    key: Path | None = None
    token: tuple[HttpToken, ...] = ()
    """With any, /fhir and /hl7 are for their holders only."""
    issuer: IssuerSection | None = None
    """Whose JWTs open /fhir and /hl7, each as far as its scopes go."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self.certificate, self.key)
        return self

    @field_validator("token")
    @classmethod
    def _distinct(cls, value: tuple[HttpToken, ...]) -> tuple[HttpToken, ...]:
        if len({token.name for token in value}) != len(value):
            raise ValueError("two tokens have one name")
        return value


class ConsoleSection(Section):
    enabled: bool = True
    """Pages under /console of the HTTP face."""
    plain_cookies: bool = False
    """Off loopback the session's cookie goes over TLS only; true where browsers come in plaintext all the same."""
    oidc: OidcSection | None = None
    """The identity provider whose people may log in."""


class LocaleSection(Section):
    language: Literal["fr", "en"] = "fr"
    zone: str = "Europe/Paris"
    texts: Path | None = None
    """TOML file of the site's own sentences, in place of the shipped ones (``rules.texts``)."""

    @field_validator("zone")
    @classmethod
    def _exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("no such time zone") from error
        return value


class SitesSection(Section):
    files: tuple[Path, ...] = ()
    """Profiles of senders (docs/reading.md); each applies to the sender that it names."""


class FilesSection(Section):
    folder: tuple[Path, ...] = ()
    """Folders in which laboratories lay down files; none = off."""
    poll_s: float = Field(default=1, gt=0)
    settle_s: float = Field(default=2, ge=0)
    """A file that has not changed for so long is taken."""
    half_after_s: float = Field(default=120, gt=0)
    """One whose last line has not come is waited for so long, then taken for what it is."""
    max_file_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)

    @field_validator("folder")
    @classmethod
    def _distinct(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a folder is named twice")
        return value


class WatchedFeed(Section):
    """A sender whose longest silence is known, rather than learnt."""

    sender: str
    channel: str = ""
    """"" = on every channel."""
    max_silence_h: float = Field(gt=0)


class WatchSection(Section):
    every_s: float = Field(default=30, gt=0)
    destination_down_s: float = Field(default=600, gt=0)
    """How long a notification may wait for its destination before somebody is told."""
    critical_h: float = Field(default=1, gt=0)
    """How long an alert of this level may wait for its first owner's answer."""
    red_h: float = Field(default=4, gt=0)
    amber_h: float = Field(default=72, gt=0)
    critical_again_h: float = Field(default=1, gt=0)
    """How long it then waits for each later owner's."""
    red_again_h: float = Field(default=4, gt=0)
    amber_again_h: float = Field(default=24, gt=0)
    pending_h: float = Field(default=24, ge=0)
    """How long a count whose specimen the laboratory has received is not called overdue."""
    silence_floor_h: float = Field(default=3, gt=0)
    """A sender is never called silent sooner: hours in which it usually speaks (docs/clock.md)."""
    silence_factor: float = Field(default=1.5, ge=1)
    """Times its longest silence of the last eight weeks."""
    silence_after_days: float = Field(default=14, ge=7)
    """How long a sender is listened to before its silence is judged."""
    silence_after_messages: int = Field(default=20, ge=2)
    feed: tuple[WatchedFeed, ...] = ()


# The section's name is the contract's; that BaseSettings inherits a method of that name from ABCMeta harms nothing.
warnings.filterwarnings("ignore", message='Field name "register" in "Settings" shadows')


class Settings(BaseSettings):
    """Everything that can be set; each default runs on one machine, on loopback."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    store: StoreSection = StoreSection()
    engine: EngineSection = EngineSection()
    register: RegisterSection = RegisterSection()
    retention: RetentionSection = RetentionSection()
    mllp: MllpSection = MllpSection()
    http: HttpSection = HttpSection()
    console: ConsoleSection = ConsoleSection()
    kafka: KafkaSection = KafkaSection()
    destination: tuple[Destination, ...] = ()
    locale: LocaleSection = LocaleSection()
    watch: WatchSection = WatchSection()
    routing: RoutingSection = RoutingSection()
    rota: RotaSection = RotaSection()
    sites: SitesSection = SitesSection()
    files: FilesSection = FilesSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @field_validator("destination")
    @classmethod
    def _distinct(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [item.name for item in value]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have one name")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.engine.role != "all" and self.store.url.startswith("sqlite:"):
            raise ValueError("engine.role: an SQLite file has one engine, which does all; PostgreSQL can have several")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.locale.zone)


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the file, lets the environment override it. Raises ConfigError."""
    environment = os.environ if environment is None else environment
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError([f"{path}: {error}"]) from error
    problems = [*_unknown(document), *_unknown_variables(environment)]
    if problems:
        raise ConfigError(problems)
    try:
        settings = Settings(**document)
    except ValidationError as error:
        raise ConfigError([f"{_place(item['loc'])}: {item['msg']}" for item in error.errors()]) from error
    try:
        find_selectable(settings.engine.protocol)
    except ProtocolError as error:
        raise ConfigError([f"engine.protocol: {error}"]) from error
    if "rota" in document and not settings.rota.shift:
        raise ConfigError(["rota: empty: without a [[rota.shift]] nobody is on duty; leave [rota] out to have no rota"])
    return settings


def _place(location: tuple[int | str, ...]) -> str:
    # The discriminator's tag stands in the location of a destination; the file does not show it.
    shown = [part for at, part in enumerate(location) if not (at == 2 and location[0] == "destination")]
    return ".".join(map(str, shown)) or "settings"


def _sections() -> dict[str, tuple[type[BaseModel], ...]]:
    sections: dict[str, tuple[type[BaseModel], ...]] = {}
    for name, field in Settings.model_fields.items():
        annotation = field.annotation
        sections[name] = (
            typing.get_args(typing.get_args(Destination)[0])
            if name == "destination"
            else (typing.cast("type[BaseModel]", annotation),)
        )
    return sections


def _unknown(document: dict[str, Any]) -> Iterator[str]:
    sections = _sections()
    for name, content in document.items():
        if name not in sections:
            yield f"{name}: unknown section{_nearest(name, sections)}"
            continue
        tables = content if isinstance(content, list) else [content]
        for number, table in enumerate(tables):
            place = f"{name}[{number}]" if isinstance(content, list) else name
            models = sections[name]
            if name == "destination" and isinstance(table, dict):
                models = tuple(
                    m for m in models if table.get("kind") in typing.get_args(m.model_fields["kind"].annotation)
                )
            known = {item.alias or key for model in models for key, item in model.model_fields.items()}
            if isinstance(table, dict) and known:
                yield from (f"{place}.{key}: unknown key{_nearest(key, known)}" for key in table if key not in known)


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """pydantic-settings passes over a variable that it does not know; a misspelt one must be said."""
    known = {"NEUTROFLAG_CONFIG"}
    for name, models in _sections().items():
        known.add(f"{PREFIX}{name}".upper())
        known.update(f"{PREFIX}{name}__{key}".upper() for model in models for key in model.model_fields)
    for variable in environment:
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            yield f"{variable}: unknown variable{_nearest(variable.upper(), known)}"


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def exposed(settings: Settings) -> list[str]:
    """Faces that would carry patients' data in the clear or to anybody, off loopback and not allowed by name."""
    problems = []
    mllp, http = settings.mllp, settings.http
    if mllp.enabled and not is_loopback(mllp.host):
        if mllp.plaintext and not mllp.allow_plaintext:
            problems.append(
                "mllp.host: plaintext off loopback; set mllp.tls_port and mllp.plaintext = false, "
                "or mllp.allow_plaintext = true if the network is protected"
            )
        if mllp.tls_port is not None and mllp.client_ca is None and not (mllp.allow_anonymous or mllp.allow_plaintext):
            problems.append(
                "mllp.host: anonymous off loopback; set mllp.client_ca so that senders show a certificate, "
                "or mllp.allow_anonymous = true"
            )
    if http.enabled and not is_loopback(http.host):
        if http.certificate is None and not http.allow_plaintext:
            problems.append(
                "http.host: plaintext off loopback; set http.certificate and http.key, "
                "or http.allow_plaintext = true behind a TLS proxy"
            )
        if not http.token and http.issuer is None and not http.allow_anonymous:
            problems.append(
                "http.host: anonymous off loopback; add a [[http.token]] or an [http.issuer], "
                "or set http.allow_anonymous = true if a proxy authenticates"
            )
    if http.enabled and http.issuer is not None:
        problems += [
            f"http.issuer.{key}: whoever is on the way could put keys of their own there; use https off loopback"
            for key, url in (("url", http.issuer.url), ("jwks_url", http.issuer.jwks_url))
            if url.startswith("http://") and not is_loopback(_host_of(url)) and http.issuer.asks(key)
        ]
    if http.enabled and settings.console.enabled and settings.console.oidc is not None:
        problems += [
            f"console.oidc.{key}: whoever is on the way could log in as anybody; use https off loopback"
            for key, url in (
                ("issuer", settings.console.oidc.issuer),
                ("redirect_url", settings.console.oidc.redirect_url),
            )
            if url.startswith("http://") and not is_loopback(_host_of(url))
        ]
    if plain(settings.kafka) and not settings.kafka.allow_plaintext:
        problems.append("kafka.bootstrap: plaintext off loopback; use tls, or set allow_plaintext = true")
    for number, item in enumerate(settings.destination):
        if _plain(item) and not item.allow_plaintext:
            problems.append(
                f"destination[{number}]: plaintext off loopback; use https or tls, or set allow_plaintext = true"
            )
    return problems


def _plain(item: Destination) -> bool:
    """Whether it would carry patients' data in the clear, off loopback."""
    match item:
        case KafkaDestination():
            return plain(item)
        case MllpDestination():
            return not item.tls and not is_loopback(item.host)
        case FhirDestination():
            return item.url.startswith("http://") and not is_loopback(_host_of(item.url))
        case _:
            typing.assert_never(item)


def _without_password(url: str) -> str:
    """Of a database's address, what may be shown."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _host_of(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """An address of this machine alone; any other name is not trusted to be one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def origins(settings: Settings, path: Path | None, environment: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """(key, value, where it comes from) of every setting."""
    document = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    for section, content in settings.model_dump(mode="json").items():
        if section == "destination":
            for number, table in enumerate(content):
                written = document.get("destination", [])
                for key, value in table.items():
                    origin = "file" if number < len(written) and key in written[number] else "default"
                    yield f"destination[{number}].{key}", value, origin
            continue
        for key, value in content.items():
            if (section, key) == ("store", "url"):
                value = _without_password(value)
            variable = f"{PREFIX}{section}__{key}".upper()
            if variable in {name.upper() for name in environment}:
                origin = variable
            else:
                origin = "file" if key in document.get(section, {}) else "default"
            yield f"{section}.{key}", value, origin
