"""What is deployed, read as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def deployed() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``secret_file("/run/secrets/tls/tls.crt")``: a file in its place with what its name promises."""
    authority = trustme.CA()
    server = authority.issue_cert("neutroflag.example")
    folder = tmp_path_factory.mktemp("secrets")
    contents = {
        "tls.crt": b"".join(one.bytes() for one in server.cert_chain_pems),
        "server.pem": b"".join(one.bytes() for one in server.cert_chain_pems),
        "tls.key": server.private_key_pem.bytes(),
        "server.key": server.private_key_pem.bytes(),
        "ca.crt": authority.cert_pem.bytes(),
        "laboratories.pem": authority.cert_pem.bytes(),
        "db-ca.pem": authority.cert_pem.bytes(),
        "kafka-ca.pem": authority.cert_pem.bytes(),
    }

    def lay(path: str) -> Path:
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents.get(file.name, b"0123456789abcdef0123456789abcdef"))
        file.chmod(0o600)
        return file

    return lay
