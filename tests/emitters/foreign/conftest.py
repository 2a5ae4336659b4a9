"""A FHIR server that none of us wrote, as a process that can be killed: HAPI FHIR JPA (``deploy/dev/hapi-fhir``)."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "dev" / "hapi-fhir"
STARTS_WITHIN_S = 420


class Hapi:
    """``start`` takes the same port and folder again: what was committed is there after ``kill``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        log = (self.folder.parent / "hapi.log").open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            [SCRIPT, self._port, str(self.folder)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self._process.stdout is not None
        deadline = time.monotonic() + STARTS_WITHIN_S
        for line in self._process.stdout:
            if line.startswith("READY "):
                self.url = line.split()[1]
                self._port = self.url.rsplit(":", 1)[1].split("/")[0]
                return
            assert time.monotonic() < deadline, "the server did not start in time"
        pytest.fail(f"the server ended instead of starting; see {log.name}")

    def kill(self) -> None:
        """Without any chance to finish what it was at."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def send(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(  # noqa: S310  # loopback
            f"{self.url}{path}", data, {"content-type": "application/fhir+json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Every resource of the type, page by page."""
        found: list[dict[str, Any]] = []
        page = self.send("GET", f"/{kind}?_count=500&_sort=_id")
        while True:
            found += [entry["resource"] for entry in page.get("entry", ())]
            following = [link["url"] for link in page.get("link", ()) if link["relation"] == "next"]
            if not following:
                return found
            page = self.send("GET", following[0].removeprefix(self.url))


@pytest.fixture(scope="session")
def hapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hapi]:
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        pytest.fail("Maven and a JDK are needed: apt-get install maven default-jdk-headless")
    server = Hapi(tmp_path_factory.mktemp("hapi") / "data")
    server.folder.mkdir()
    server.start()
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.kill()
