"""The HTTP API under schemathesis: what ``/openapi.json`` allows and much that it does not, against a running engine.

No answer may be a server error, one that the schema does not name, or of another shape; afterwards the engine still accepts
and judges, all that was stored has ended, and ``db verify`` finds the store whole. What the schema forbids may be accepted
all the same: the doors keep first, and read later. ``--examples N`` for each operation, ``--seed N``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEUTROFLAG = HERE.parent.parent / ".venv" / "bin" / "neutroflag"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
_START_S, _END_S = 60, 60


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--examples", type=int, default=500)
    words.add_argument("--seed", type=int, default=1)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "neutroflag.toml")
        http, mllp = _free_port(), _free_port()
        database = Path(folder, "neutroflag.db")
        settings.write_text(
            f'[store]\nurl = "sqlite:///{database}"\n[http]\nport = {http}\n[mllp]\nport = {mllp}\n', encoding="utf-8"
        )
        engine = subprocess.Popen(  # noqa: S603  # our own command
            [NEUTROFLAG, "serve", "--config", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{http}"
            _state(url, within_s=_START_S)
            tried = subprocess.run(  # noqa: S603  # our own command
                [
                    SCHEMATHESIS, "run", f"{url}/openapi.json", "--url", url, "--seed", str(asked.seed),
                    "--max-examples", str(asked.examples),
                    "--exclude-checks", "positive_data_acceptance,negative_data_rejection",
                ],
                env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
                check=False,
            ).returncode  # fmt: skip
            state = _state(url, within_s=_END_S, done=True)
        finally:
            engine.terminate()
            engine.wait(60)
        whole = subprocess.run([NEUTROFLAG, "db", "verify", "--config", settings], check=False).returncode  # noqa: S603
    print(f"{state['received']} stored, ended as {state['dispositions']}, {state['pending']} not yet")
    return 1 if tried or whole or state["pending"] else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _state(url: str, *, within_s: float, done: bool = False) -> dict[str, object]:
    """What ``/readyz`` says as soon as it is ready, and with ``done`` as soon as nothing is left to judge."""
    until = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  # loopback
                state = json.load(answer)
            if not done or not state["pending"] or time.monotonic() > until:
                return state
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
