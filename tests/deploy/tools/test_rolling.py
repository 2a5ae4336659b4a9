"""A rolling upgrade of two hosts by the runbook's own commands, under load through the balancer's settings: nothing is lost.

Real: engines, PostgreSQL, HAProxy. Stand-ins: systemctl, and the bundle's installer (tests/test_deploy.py has that one).
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evidence.world import free_port
from store import Store, listing
from store.check import findings

ROOT = Path(__file__).resolve().parents[3]
SYSTEMCTL = """#!/bin/sh
cd {root}
case "$1" in
  start)
    {python} -m engine.cli serve > {here}/journal 2>&1 &
    echo $! > {here}/pid ;;
  stop)
    kill "$(cat {here}/pid)"
    while kill -0 "$(cat {here}/pid)" 2> /dev/null; do sleep 0.1; done ;;
esac
"""


def commands() -> str:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^\*\*An upgrade rolls over two hosts\.\*\*.*?^```sh\n(.*?)^```", text, re.M | re.S)
    return str(found)


class Host:
    def __init__(self, here: Path, config: str) -> None:
        self.here, self.mllp, self.http = here, free_port(), free_port()
        (here / "bundle").mkdir(parents=True)
        text = config.replace("[mllp]\nport = 0", f"[mllp]\nport = {self.mllp}")
        text = text.replace("[http]\nport = 0", f"[http]\nport = {self.http}")
        (here / "neutroflag.toml").write_text(text, encoding="utf-8")
        given = {"root": ROOT, "python": sys.executable, "here": here}
        self._tool("systemctl", SYSTEMCTL.format(**given))
        self._tool("neutroflag", '#!/bin/sh\ncd {root} && exec {python} -m engine.cli "$@"\n'.format(**given))
        # While nothing runs on this host: the moment in which files are exchanged.
        self._tool(
            "bundle/install.sh",
            f'#!/bin/sh\nkill -0 "$(cat {here}/pid)" 2>/dev/null && exit 9\necho new >> {here}/installed\n',
        )

    def _tool(self, name: str, text: str) -> None:
        (self.here / name).write_text(text, encoding="utf-8")
        (self.here / name).chmod(0o755)

    async def run(self, script: str) -> None:
        environment = os.environ | {
            "PATH": f"{self.here}:{os.environ['PATH']}",
            "NEUTROFLAG_CONFIG": str(self.here / "neutroflag.toml"),
            "BUNDLE": str(self.here / "bundle"),
        }
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-eu"], input=script, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{(self.here / 'journal').read_text()}"

    def stop(self) -> None:
        subprocess.run([str(self.here / "systemctl"), "stop"], check=False, timeout=60)


@pytest.fixture
async def hosts(settings_file: Any, postgresql_url: str, tmp_path: Path) -> AsyncIterator[tuple[Host, Host]]:
    config = re.sub(r'url = "sqlite:[^"]*"', f'url = "{postgresql_url}"', settings_file().read_text())
    pair = Host(tmp_path / "a", config), Host(tmp_path / "b", config)
    yield pair
    for host in pair:
        host.stop()


@pytest.fixture
def balancer(tools: Path, hosts: tuple[Host, Host], tmp_path: Path) -> Any:
    """HAProxy with the settings of the compose file, for these ports."""
    door = free_port()
    text = (ROOT / "deploy" / "compose" / "haproxy.cfg").read_text(encoding="utf-8")
    for name, host in zip(("HOST_A", "HOST_B"), hosts, strict=True):
        text = text.replace(f'"${{{name}}}:2575" check port 8080', f"127.0.0.1:{host.mllp} check port {host.http}")
        text = text.replace(f'"${{{name}}}:8080"', f"127.0.0.1:{host.http}")
    text = text.replace("bind :2575", f"bind 127.0.0.1:{door}").replace("bind :8080", f"bind 127.0.0.1:{free_port()}")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    process = subprocess.Popen([str(tools / "haproxy"), "-db", "-f", str(file)])
    assert process.poll() is None
    yield door
    process.terminate()
    process.wait(30)


async def test_an_upgrade_rolls_over_both_hosts_under_load_and_nothing_is_lost(
    hosts: tuple[Host, Host], balancer: int, connect: Any, hl7: Any, postgresql_url: str, eventually: Any
) -> None:
    for host in hosts:
        await host.run("systemctl start neutroflag\nuntil neutroflag health; do sleep 0.5; done")
    accepted: list[set[str]] = [set(), set(), set()]
    done = asyncio.Event()

    async def laboratory(lane: int) -> None:
        """Keeps its connection as long as it can; asks again for what had no AA."""
        lab = None
        while not done.is_set():
            number = f"L{lane}N{len(accepted[lane])}"
            try:
                lab = lab or await connect(balancer)
                ack = await lab.ask(hl7.oru(number, patient=f"X{number}^^^CHX&1.2.3&ISO^PI", filler=number))
            except (ConnectionError, TimeoutError, OSError):
                if lab is not None:
                    await lab.close()
                lab = None
                await asyncio.sleep(0.05)
                continue
            if ack.code == "AA":
                accepted[lane].add(number)
        if lab is not None:
            await lab.close()

    laboratories = [asyncio.create_task(laboratory(lane)) for lane in range(len(accepted))]
    await eventually(lambda: all(accepted), limit_s=120)
    for host in hosts:
        before = [len(lane) for lane in accepted]
        await host.run(commands())
        assert (host.here / "installed").read_text() == "new\n"
        # Every laboratory went on while this host was away.
        await eventually(
            lambda before=before: all(len(lane) > n for lane, n in zip(accepted, before, strict=True)), 180
        )
    done.set()
    await asyncio.gather(*laboratories)
    store = Store(postgresql_url, sole=False)
    await store.open()

    async def judged() -> bool:
        return (await store.snapshot()).pending == 0

    await eventually(judged, limit_s=90)
    rows = await store.read(lambda connection: list(listing.messages(connection)))
    firsts = [row["control_id"] for row in rows if row["disposition"] != "duplicate"]
    assert len(firsts) == len(set(firsts))
    assert set().union(*accepted) <= set(firsts)
    assert await store.read(findings) == []
    await store.close()
