"""Certificates and keys: what is wrong with them before a door opens, and the contexts that doors and destinations use.

Rule of the file: TLS 1.2 at least (BCP 195); every complaint names the setting and the file, never what is in it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.config import HttpSection, MllpSection, Settings
from engine.destination_settings import FhirDestination, MllpDestination

__all__ = ["Inspection", "fhir_client", "http_server", "inspect", "mllp_client", "mllp_server", "pinned", "renew"]

_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Inspection:
    """``problems`` stop the engine; ``warnings`` are for whoever renews certificates."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect(settings: Settings, now: datetime | None = None) -> Inspection:
    """Reads every certificate, key and authority that the settings name."""
    at = now or datetime.now(UTC)
    problems: list[str] = []
    warnings: list[str] = []
    for place, certificate, key in _pairs(settings):
        if problem := _pair_problem(place, certificate, key):
            problems.append(problem)
            continue
        begins, ends = _validity(certificate)
        named = f"{place}certificate: {certificate}"
        if ends <= at:
            problems.append(f"{named}: expired on {ends:%Y-%m-%d}")
        elif begins > at:
            problems.append(f"{named}: not valid before {begins:%Y-%m-%d}")
        elif ends <= at + _SOON:
            warnings.append(f"{named}: expires on {ends:%Y-%m-%d}")
    for place, file in _authorities(settings):
        found, words = _authority(file, at)
        if words:
            (problems if not found else warnings).append(f"{place}: {file}: {words}")
    return Inspection(tuple(problems), tuple(warnings))


def mllp_server(section: MllpSection) -> ssl.SSLContext | None:
    """None when there is no TLS port. Raises OSError and ssl.SSLError, which ``inspect`` tells in words."""
    if section.tls_port is None or section.certificate is None or section.key is None:
        return None
    context = _server(section.certificate, section.key)
    if section.client_ca is not None:
        context.load_verify_locations(cafile=section.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def http_server(section: HttpSection) -> ssl.SSLContext | None:
    if section.certificate is None or section.key is None:
        return None
    context = _server(section.certificate, section.key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def renew(settings: Settings, mllp: ssl.SSLContext | None, http: ssl.SSLContext | None) -> tuple[str, ...]:
    """Reads the doors' files anew into the contexts in use: the next handshake shows them, open connections go on.

    What is wrong with them instead, and then nothing is changed. An authority that was removed from ``client_ca`` is trusted
    until the engine is started anew: OpenSSL adds and does not take away.
    """
    found = inspect(settings)
    if found.problems:
        return found.problems
    for section, context in ((settings.mllp, mllp), (settings.http, http)):
        if context is not None and section.certificate is not None and section.key is not None:
            context.load_cert_chain(section.certificate, section.key, password=_no_passphrase)
    if mllp is not None and settings.mllp.client_ca is not None:
        mllp.load_verify_locations(cafile=settings.mllp.client_ca)
    return ()


def mllp_client(item: MllpDestination) -> ssl.SSLContext | None:
    return _client(item) if item.tls else None


def fhir_client(item: FhirDestination) -> ssl.SSLContext | None:
    """None where the system's own trust is enough, or nothing is encrypted."""
    return _client(item) if item.ca is not None or item.certificate is not None else None


def _client(item: FhirDestination | MllpDestination) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=item.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if item.certificate is not None and item.key is not None:
        context.load_cert_chain(item.certificate, item.key, password=_no_passphrase)
    return context


def pinned(certificate: Path) -> ssl.SSLContext:
    """Trusts this certificate alone, by whatever name it is reached: for asking our own engine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)
    return context


def _server(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate, key, password=_no_passphrase)
    return context


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    # Without this OpenSSL would ask for one on the terminal, and an engine that starts by itself would wait for ever.
    raise _Encrypted


def _pairs(settings: Settings) -> Iterator[tuple[str, Path, Path]]:
    """(setting's prefix, certificate, key)."""
    named: list[tuple[str, Path | None, Path | None]] = []
    if settings.mllp.enabled:
        named.append(("mllp.", settings.mllp.certificate, settings.mllp.key))
    if settings.http.enabled:
        named.append(("http.", settings.http.certificate, settings.http.key))
    named.append(("kafka.", settings.kafka.certificate, settings.kafka.key))
    for number, item in enumerate(settings.destination):
        named.append((f"destination[{number}].", item.certificate, item.key))
    yield from ((place, certificate, key) for place, certificate, key in named if certificate and key)


def _authorities(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.mllp.enabled and settings.mllp.client_ca is not None:
        yield "mllp.client_ca", settings.mllp.client_ca
    if settings.kafka.ca is not None:
        yield "kafka.ca", settings.kafka.ca
    for number, item in enumerate(settings.destination):
        if item.ca is not None:
            yield f"destination[{number}].ca", item.ca


def _pair_problem(place: str, certificate: Path, key: Path) -> str:
    for name, file in (("certificate", certificate), ("key", key)):
        try:
            file.read_bytes()
        except OSError as error:
            return f"{place}{name}: {file}: {error.strerror}"
    try:
        _validity(certificate)
    except (ssl.SSLError, ValueError):
        return f"{place}certificate: {certificate}: not a certificate in PEM"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        return f"{place}key: {key}: is encrypted; give it without a passphrase"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{place}key: {key}: does not belong to {certificate}"
        return f"{place}key: {key}: not a usable private key in PEM ({error.reason or 'unreadable'})"
    return ""


def _validity(certificate: Path) -> tuple[datetime, datetime]:
    """Of the first certificate in the file, which is the one that is shown."""
    # The standard library reads a certificate's dates in public only once a peer has shown it.
    told = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    return _moment(told["notBefore"]), _moment(told["notAfter"])


def _authority(file: Path, at: datetime) -> tuple[bool, str]:
    """Is anything in it of use, and what is to be said of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        return False, "no certificate in PEM"
    except OSError as error:
        return False, error.strerror or "unreadable"
    # A self-signed certificate that is no authority is not listed here, and may be trusted all the same.
    ends = [_moment(str(told["notAfter"])) for told in context.get_ca_certs()]
    if not ends:
        return True, ""
    last = max(ends)
    if last <= at:
        return False, f"expired on {last:%Y-%m-%d}"
    return True, f"expires on {min(ends):%Y-%m-%d}" if min(ends) <= at + _SOON else ""


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
