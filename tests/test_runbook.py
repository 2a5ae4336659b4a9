"""The runbook's commands, run as they stand there: beside an engine under load, with a stand-in for systemctl alone."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

SYSTEMCTL = """#!/bin/sh
# start: in the background, ready when it returns. stop: as the unit does.
cd {here}
case "$1" in
  start)
    {python} -m engine.cli serve > {data}/journal 2>&1 &
    echo $! > {data}/pid
    for _ in $(seq 180); do sleep 0.2; {python} -m engine.cli health > /dev/null 2>&1 && exit 0; done
    exit 1 ;;
  stop)
    kill "$(cat {data}/pid)"
    while kill -0 "$(cat {data}/pid)" 2> /dev/null; do sleep 0.1; done ;;
esac
"""


def blocks(root: Path) -> dict[str, str]:
    """By the first words of the paragraph before it."""
    text = (root / "docs" / "runbook.md").read_text(encoding="utf-8")
    found = {}
    for match in FENCE.finditer(text):
        title = re.findall(r"^\*\*(.+?)\*\*", text[: match.start()], re.MULTILINE)[-1]
        found[title.rstrip(".")] = match[1]
    return found


class Machine:
    """One with the runbook's paths, commands and unit, in a folder."""

    def __init__(self, root: Path, data: Path, config: Path) -> None:
        self.data = data
        tools = data / "bin"
        tools.mkdir()
        for name, text in (
            ("systemctl", SYSTEMCTL.format(here=root, python=sys.executable, data=data)),
            ("neutroflag", f'#!/bin/sh\ncd {root} && exec {sys.executable} -m engine.cli "$@"\n'),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "NEUTROFLAG_CONFIG": str(config)}

    async def run(self, script: str) -> str:
        script = script.replace("/var/lib/neutroflag", str(self.data))
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-eu"],
            input=script,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.mark.slow
async def test_the_runbooks_commands_do_what_it_says(
    root: Path,
    tmp_path: Path,
    settings_file: Any,
    hl7: Any,
    connect: Any,
    enrol_by_csv: Any,
    url: str,
    prescriber: Any,
    eventually: Any,
    rows_of: Any,
    free_ports: tuple[int, int],
) -> None:
    scripts = blocks(root)
    config = settings_file()
    text = config.read_text(encoding="utf-8")
    mllp, http = free_ports
    text = text.replace("[mllp]\nport = 0", f"[mllp]\nport = {mllp}").replace(
        "[http]\nport = 0", f"[http]\nport = {http}"
    )
    config.write_text(text, encoding="utf-8")
    await enrol_by_csv(tmp_path, url, "405660")
    machine = Machine(root, tmp_path, config)
    await machine.run("systemctl start neutroflag")
    try:
        del prescriber.fhir.held["Patient"]["p1"]  # a dead letter to be
        sent: set[str] = set()

        async def load(lane: int) -> None:
            for number in range(10_000):
                lab = await connect(mllp)
                ack = await lab.ask(
                    hl7.oru(f"L{lane}N{number}", patient=f"X{lane}{number}^^^CHX&1.2.3&ISO^PI", filler=f"L{number}")
                )
                await lab.close()
                assert ack.code == "AA"
                sent.add(ack.control_id)

        lab = await connect(mllp)
        assert (await lab.ask(hl7.oru("STOP", anc="0.84"))).code == "AA"
        assert (await lab.ask(hl7.oru("ODD", unit="", filler="ODD"))).code == "AA"
        await lab.close()
        await eventually(lambda: rows_of("SELECT count(*) FROM delivery WHERE state = 'dead'") != [0], limit_s=60)

        assert "STOP" in await machine.run(scripts["A laboratory is silent"])
        prescriber.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")
        assert "waiting again" in await machine.run(scripts["There are dead letters"])
        await eventually(lambda: len(prescriber.flags()) > 0, limit_s=60)
        assert "again as" in await machine.run(scripts["A sender's messages could not be read for a while"])
        assert "whole" in await machine.run(scripts["The disk is full"])

        # A copy is taken while laboratories send; what was accepted before it began is in it.
        loads = [asyncio.create_task(load(lane)) for lane in range(3)]
        await eventually(lambda: len(sent) > 30, limit_s=60)
        before = set(sent)
        (tmp_path / "backups").mkdir()
        await machine.run("neutroflag db backup /var/lib/neutroflag/backups/newest.db")
        assert len(sent) > len(before)
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        assert '"judging":true' in (await machine.run(scripts["Restore a backup"])).replace(" ", "")
        kept = set(rows_of("SELECT control_id FROM message"))
        assert before | {"STOP", "ODD"} <= kept
        # What came since is sent again; what the copy holds is a duplicate.
        lab = await connect(mllp)
        assert (await lab.ask(hl7.oru("STOP", anc="0.84"))).code == "AA"
        await lab.close()
    finally:
        await machine.run("systemctl stop neutroflag")


@pytest.fixture
def free_ports() -> tuple[int, int]:
    import socket

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
