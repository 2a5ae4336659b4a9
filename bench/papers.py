"""Certificates and keys for a door that is measured with everything on: TLS on both sides, bodies sealed."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Papers", "sender_context", "written"]


@dataclass(frozen=True, slots=True)
class Papers:
    """Lines of the settings' sections ``[store]`` and ``[mllp]``, and what a sender shows."""

    store: str
    door: str
    sender: str


def written(folder: Path) -> Papers:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("server", "sender"):
        issued = authority.issue_cert("127.0.0.1", common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    keys = folder / "body-keys"
    keys.write_text(f"bench {base64.b64encode(os.urandom(32)).decode()}\n", encoding="ascii")
    keys.chmod(0o600)
    server = folder / "server.pem"
    return Papers(
        store=f'key_file = "{keys}"\n',
        door=f'plaintext = false\ntls_port = 0\ncertificate = "{server}"\nkey = "{server}"\n'
        f'client_ca = "{folder / "ca.pem"}"\n',
        sender=str(folder),
    )


def sender_context(folder: str) -> ssl.SSLContext | None:
    """None for "": in the clear."""
    if not folder:
        return None
    context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
    context.load_cert_chain(f"{folder}/sender.pem")
    return context
