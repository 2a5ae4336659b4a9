"""TLS on real sockets: whose certificate opens a door, what its holder may send, and what is said of bad files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from engine.cli import OK, USAGE
from engine.cli_state import config_check_command, health_command
from engine.compose import Engine
from engine.config import ConfigError, exposed, load
from engine.serve import serve_command
from engine.tls import inspect
from wire.ack import acknowledge
from wire.er7 import peek
from wire.mllp import Deframer, Frame, frame

NOW = datetime.now(UTC)


@dataclass
class Papers:
    """Certificates on disk, issued by a hospital's own authority; ``stranger`` is another one."""

    folder: Path
    ca: trustme.CA
    stranger: trustme.CA

    def write(self, name: str, issuer: trustme.CA | None = None, **about: Any) -> tuple[Path, Path]:
        issued = (issuer or self.ca).issue_cert("127.0.0.1", "localhost", **about)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    @property
    def authority(self) -> Path:
        file = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(file))
        return file

    def client(self, name: str = "", *, shown: tuple[Path, Path] | None = None, trust: Path | None = None) -> Any:
        """A sender's context that shows a certificate with this common name, or nothing."""
        context = ssl.create_default_context(cafile=trust or self.authority)
        if name:
            shown = self.write(name, common_name=name)
        if shown:
            context.load_cert_chain(*shown)
        return context


@pytest.fixture(scope="session")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def papers(tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA]) -> Papers:
    return Papers(tmp_path, *authorities)


@pytest.fixture
def settings_with(settings_file: Callable[..., Path]) -> Callable[..., Path]:
    """A settings file with these lines put into [mllp] and [http]."""

    def write(*, mllp: str = "", http: str = "", extra: str = "") -> Path:
        file = settings_file(extra=extra)
        text = file.read_text(encoding="utf-8")
        text = text.replace("[mllp]\nport = 0\n", f"[mllp]\nport = 0\n{mllp}\n")
        file.write_text(text.replace("[http]\nport = 0\n", f"[http]\nport = 0\n{http}\n"), encoding="utf-8")
        return file

    return write


@contextlib.asynccontextmanager
async def running(file: Path) -> AsyncIterator[Engine]:
    engine = Engine(load(file, {}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def door(papers: Papers, allow: str = "") -> str:
    certificate, key = papers.write("server")
    return f'tls_port = 0\ncertificate = "{certificate}"\nkey = "{key}"\nclient_ca = "{papers.authority}"\n' + (
        f"allow = {allow}" if allow else ""
    )


async def send(engine: Engine, context: ssl.SSLContext | None, raw: bytes) -> bytes:
    """One message over TLS; its answer, or b"" where the door hangs up."""
    assert engine.mllp is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.mllp.tls_port, ssl=context)
    deframer, answers = Deframer(), list[bytes]()
    try:
        writer.write(frame(raw))
        async with asyncio.timeout(20):
            while not answers:
                data = await reader.read(65536)
                if not data:
                    return b""
                answers += [event.payload for event in deframer.feed(data) if isinstance(event, Frame)]
        return answers[0]
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_message_comes_over_mutual_tls_and_beside_it_in_the_clear(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any, connect: Callable[[int], Awaitable[Any]]
) -> None:
    async with running(settings_with(mllp=door(papers))) as engine:
        assert engine.mllp is not None
        assert b"MSA|AA|M1" in await send(engine, papers.client("lab1"), hl7.oru("M1"))
        lab = await connect(engine.mllp.port)
        assert (await lab.ask(hl7.oru("M2"))).code == "AA"
        await lab.close()
        assert engine.store is not None
        rows = await engine.store.read(lambda c: c.exec_driver_sql("SELECT peer FROM message ORDER BY id").fetchall())
        assert rows[0][0].startswith("lab1@127.0.0.1:")
        assert rows[1][0].startswith("127.0.0.1:")


@pytest.mark.parametrize("fault", ["none", "other authority", "expired", "not yet valid"])
async def test_a_sender_without_a_good_certificate_is_not_heard(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any, fault: str
) -> None:
    shown = {
        "none": lambda: None,
        "other authority": lambda: papers.write("lab", papers.stranger, common_name="lab1"),
        "expired": lambda: papers.write("lab", common_name="lab1", not_after=NOW - timedelta(days=1)),
        "not yet valid": lambda: papers.write(
            "lab", common_name="lab1", not_before=NOW + timedelta(days=1), not_after=NOW + timedelta(days=9)
        ),
    }[fault]()
    async with running(settings_with(mllp=door(papers))) as engine:
        try:
            answer = await send(engine, papers.client(shown=shown), hl7.oru())
        except OSError:
            answer = b""
        assert answer == b""
        assert engine.store is not None
        assert (await engine.store.snapshot()).received == 0


async def test_a_sender_refuses_an_engine_of_another_authority(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any
) -> None:
    strange = papers.folder / "strange.pem"
    papers.stranger.cert_pem.write_to_path(str(strange))
    async with running(settings_with(mllp=door(papers))) as engine:
        with pytest.raises(ssl.SSLCertVerificationError):
            await send(engine, papers.client("lab1", trust=strange), hl7.oru())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_before_1_2_is_not_spoken(papers: Papers, settings_with: Callable[..., Path], hl7: Any) -> None:
    old = papers.client("lab1")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with running(settings_with(mllp=door(papers))) as engine:
        with pytest.raises(OSError):  # noqa: PT011  # OpenSSL's words differ by version
            await send(engine, old, hl7.oru())


async def test_plaintext_at_the_tls_port_gets_no_answer(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any
) -> None:
    async with running(settings_with(mllp=door(papers))) as engine:
        try:
            answer = await send(engine, None, hl7.oru())
        except OSError:
            answer = b""
        assert not answer.startswith(b"MSH")
        assert engine.store is not None
        assert (await engine.store.snapshot()).received == 0


async def test_a_certificate_that_is_not_on_the_list_is_hung_up_on(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any
) -> None:
    async with running(settings_with(mllp=door(papers, '{ lab1 = ["LABO"] }'))) as engine:
        assert await send(engine, papers.client("lab2"), hl7.oru()) == b""
        assert engine.store is not None
        assert (await engine.store.snapshot()).received == 0


async def test_a_certificate_may_send_for_its_own_facilities_only(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with running(settings_with(mllp=door(papers, '{ lab1 = ["LABO"], lab2 = ["OTHER"] }'))) as engine:
        store = engine.store
        assert store is not None
        refused = await send(engine, papers.client("lab2"), hl7.oru("M1"))
        assert b"MSA|AR|M1" in refused
        assert b"ERR||MSH^1^4|204" in refused
        enhanced = await send(engine, papers.client("lab2"), hl7.oru("M2", accept="AL"))
        assert b"MSA|CR|M2" in enhanced
        # The forged name does not make the true sender's message a duplicate.
        assert b"MSA|AA|M1" in await send(engine, papers.client("lab1"), hl7.oru("M1", sender="SIL|LABO^1.2.3^ISO"))
        assert b"MSA|AA|M1" in await send(engine, papers.client("lab1"), hl7.oru("M1"))

        async def rows() -> list[Any]:
            found = await store.read(
                lambda c: c.exec_driver_sql("SELECT disposition, reason, peer FROM message ORDER BY id").fetchall()
            )
            return [] if any(row[0] is None for row in found) else found

        found = await eventually(rows)
        assert [(row[0], row[1]) for row in found[:2]] == [("set_aside", "sender-not-allowed: MSH-4")] * 2
        assert found[0][2].startswith("lab2@127.0.0.1:")
        assert [row[0] for row in found[2:]] == ["unenrolled"] * 2


async def test_the_http_face_speaks_tls_and_health_asks_it(papers: Papers, settings_with: Callable[..., Path]) -> None:
    certificate, key = papers.write("web")
    async with running(settings_with(http=f'certificate = "{certificate}"\nkey = "{key}"')) as engine:
        url = f"https://127.0.0.1:{engine.http_port}"
        async with httpx2.AsyncClient(verify=papers.client(), trust_env=False) as client:
            answer = await client.get(f"{url}/readyz")
            assert answer.status_code == 200
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx2.ConnectError):
            await asyncio.to_thread(httpx2.get, f"{url}/readyz", trust_env=False)
        asked = settings_with(http=f'certificate = "{certificate}"\nkey = "{key}"')
        asked.write_text(asked.read_text().replace("[http]\nport = 0", f"[http]\nport = {engine.http_port}"))
        code = await asyncio.to_thread(health_command, asked, stdout=io.StringIO(), stderr=io.StringIO())
        assert code == OK


async def test_an_alert_goes_out_over_mutual_tls(
    papers: Papers,
    settings_with: Callable[..., Path],
    enrol_by_csv: Callable[..., Awaitable[Any]],
    url: str,
    hl7: Any,
    connect: Callable[[int], Awaitable[Any]],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    taken: list[tuple[str, bytes]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deframer = Deframer()
        subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
        while data := await reader.read(65536):
            for event in deframer.feed(data):
                if isinstance(event, Frame):
                    taken.append((subject["commonName"], event.payload))
                    writer.write(frame(acknowledge(peek(event.payload), "AA", control_id="1", now=NOW)))
        writer.close()

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(*papers.write("ehr"))
    theirs.load_verify_locations(cafile=papers.authority)
    theirs.verify_mode = ssl.CERT_REQUIRED
    inbox = await asyncio.start_server(receive, "127.0.0.1", 0, ssl=theirs)
    certificate, key = papers.write("ours", common_name="neutroflag")
    extra = f"""
[[destination]]
name = "secure"
kind = "mllp"
host = "127.0.0.1"
port = {inbox.sockets[0].getsockname()[1]}
tls = true
ca = "{papers.authority}"
certificate = "{certificate}"
key = "{key}"
"""
    await enrol_by_csv(papers.folder, url, "405660")
    async with running(settings_with(extra=extra)) as engine:
        assert engine.mllp is not None
        lab = await connect(engine.mllp.port)
        await lab.ask(hl7.oru(anc="0.40"))
        await lab.close()
        await eventually(lambda: taken)
    inbox.close()
    assert taken[0][0] == "neutroflag"
    assert b"ANC-STOP" in taken[0][1]


def check(file: Path) -> tuple[int, str]:
    words = io.StringIO()
    return config_check_command(file, stdout=io.StringIO(), stderr=words), words.getvalue()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", "server.pem: expired on "),
        ("future", "server.pem: not valid before "),
        ("absent", "server.pem: No such file"),
        ("garbage", "server.pem: not a certificate in PEM"),
        ("empty", "server.pem: not a certificate in PEM"),
        ("other key", "server.key: does not belong to "),
        ("garbage key", "server.key: not a usable private key"),
        ("encrypted key", "server.key: is encrypted"),
        ("garbage ca", "ca.pem: no certificate in PEM"),
        ("absent ca", "ca.pem: No such file"),
    ],
)
def test_a_bad_file_is_named_before_any_door_opens(
    papers: Papers, settings_with: Callable[..., Path], fault: str, words: str
) -> None:
    file = settings_with(mllp=door(papers))
    certificate, key, ca = (papers.folder / name for name in ("server.pem", "server.key", "ca.pem"))
    match fault:
        case "expired":
            papers.write("server", not_after=NOW - timedelta(days=1))
        case "future":
            papers.write("server", not_before=NOW + timedelta(days=1), not_after=NOW + timedelta(days=90))
        case "absent":
            certificate.unlink()
        case "garbage":
            certificate.write_text("not a certificate")
        case "empty":
            certificate.write_text("")
        case "other key":
            key.write_bytes(papers.write("other")[1].read_bytes())
        case "garbage key":
            key.write_text("secret that must not be shown")
        case "encrypted key":
            subprocess.run(
                ["openssl", "pkcs8", "-topk8", "-in", key, "-out", f"{key}.x", "-passout", "pass:secret"], check=True
            )
            (papers.folder / "server.key.x").replace(key)
        case "garbage ca":
            ca.write_text("not a certificate")
        case "absent ca":
            ca.unlink()
    code, said = check(file)
    assert code == USAGE
    assert words in said
    assert "mllp." in said
    assert "secret" not in said
    told = io.StringIO()
    assert serve_command(file, stderr=told) == USAGE
    assert words in told.getvalue()


def test_a_certificate_that_expires_soon_is_a_warning(papers: Papers, settings_with: Callable[..., Path]) -> None:
    file = settings_with(mllp=door(papers))
    papers.write("server", not_after=NOW + timedelta(days=29, hours=1))
    file.write_text(file.read_text(encoding="utf-8").partition("[[destination]]")[0], encoding="utf-8")
    code, said = check(file)
    assert code == OK, said
    assert "warning: mllp.certificate: " in said
    assert "expires on " in said
    later = inspect(load(file, {}), NOW + timedelta(days=40))
    assert "expired on " in later.problems[0]


_TLS = 'certificate = "c"\nkey = "k"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'[mllp]\nhost = "0.0.0.0"\ntls_port = 2576\n{_TLS}client_ca = "ca"', ["mllp.host: plaintext"]),
        (f'[mllp]\nhost = "0.0.0.0"\nplaintext = false\ntls_port = 2576\n{_TLS}client_ca = "ca"', []),
        (f'[mllp]\nhost = "0.0.0.0"\nplaintext = false\ntls_port = 2576\n{_TLS}', ["mllp.host: anonymous"]),
        (f'[mllp]\nhost = "0.0.0.0"\nplaintext = false\ntls_port = 2576\n{_TLS}allow_anonymous = true', []),
        (f'[http]\nhost = "0.0.0.0"\n{_TLS}', ["http.host: anonymous"]),
        (f'[http]\nhost = "0.0.0.0"\n{_TLS}[[http.token]]\nname = "a"\nfile = "f"\nfaces = ["fhir"]', []),
        (
            '[http]\nhost = "0.0.0.0"\n[[http.token]]\nname = "a"\nfile = "f"\nfaces = ["fhir"]',
            ["http.host: plaintext"],
        ),
        ('[[destination]]\nname = "a"\nkind = "mllp"\nhost = "ehr.example"\nport = 1\ntls = true', []),
    ],
)
def test_tls_and_proof_of_who_sends_satisfy_what_is_refused_off_loopback(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    file = tmp_path / "n.toml"
    file.write_text(text, encoding="utf-8")
    found = exposed(load(file, {}))
    assert [line[: len(word)] for line, word in zip(found, words, strict=True)] == words


@pytest.mark.parametrize(
    "text",
    [
        "[mllp]\ntls_port = 2576",
        '[mllp]\ntls_port = 2576\ncertificate = "c"',
        f"[mllp]\n{_TLS}",
        f'[mllp]\ntls_port = 2576\n{_TLS}allow = {{ lab1 = ["LAB1"] }}',
        "[mllp]\nplaintext = false",
        '[http]\nkey = "k"',
        '[[destination]]\nname = "a"\nkind = "mllp"\nhost = "h"\nport = 1\nca = "ca"',
    ],
)
def test_half_a_setting_of_tls_is_refused(tmp_path: Path, text: str) -> None:
    """It would look guarded and not be."""
    file = tmp_path / "n.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load(file, {})


# Renewal


def shown(port: int, papers: Papers) -> bytes | None:
    """The certificate that the engine shows to the next connection, as DER."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        papers.client("lab1").wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(binary_form=True)


async def test_a_new_certificate_is_shown_without_a_restart_and_open_connections_go_on(
    papers: Papers, settings_with: Callable[..., Path], hl7: Any
) -> None:
    async with running(settings_with(mllp=door(papers))) as engine:
        assert engine.mllp is not None
        port = engine.mllp.tls_port
        before = await asyncio.to_thread(shown, port, papers)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=papers.client("lab1"))
        papers.write("server")
        assert engine.renew_certificates()
        after = await asyncio.to_thread(shown, port, papers)
        assert after is not None
        assert after != before
        writer.write(frame(hl7.oru("M1")))
        assert b"MSA|AA|M1" in await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 20)
        writer.close()


async def test_a_bad_new_certificate_leaves_the_old_one_in_place(
    papers: Papers, settings_with: Callable[..., Path]
) -> None:
    async with running(settings_with(mllp=door(papers))) as engine:
        assert engine.mllp is not None
        port = engine.mllp.tls_port
        before = await asyncio.to_thread(shown, port, papers)
        (papers.folder / "server.pem").write_text("half a certificate")
        assert not engine.renew_certificates()
        assert await asyncio.to_thread(shown, port, papers) == before
