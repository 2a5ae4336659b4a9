"""The command line beside a served engine: exit codes, JSON lines, and a log without a word about a patient."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any


def process(*arguments: str | Path, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As an operator's shell starts it."""
    given = [sys.executable, "-m", "engine.cli", *map(str, arguments)]
    if config is not None:
        given += ["--config", str(config)]
    return subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)


def lines(done: Any) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_beside_a_served_engine_the_commands_tell_what_came_and_the_log_tells_nothing_of_a_patient(
    settings_file: Any,
    prescriber: Any,
    hl7: Any,
    connect: Any,
    eventually: Any,
    tmp_path: Path,
    url: str,
    enrol_by_csv: Any,
    neutroflag: Any,
) -> None:
    config = settings_file()
    await enrol_by_csv(tmp_path, url, "405660")
    await enrol_by_csv(tmp_path, url, "909090")
    out = tmp_path / "stdout.log"
    with out.open("wb") as stdout:
        engine = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
            [sys.executable, "-m", "engine.cli", "serve", "--config", str(config)],
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
    assert engine.stderr is not None
    said = (await asyncio.to_thread(engine.stderr.readline)).decode()
    found = re.search(r"mllp://127\.0\.0\.1:(\d+)", said)
    assert found, said
    lab = await connect(int(found[1]))
    for raw in (
        hl7.oru("M1", anc="0.84", name="ZZYZXNAME^QWERTINE"),
        hl7.oru("M2", anc="0.777", unit="", name="ZZYZXNAME^QWERTINE", filler="B2"),
        hl7.oru("M3", anc="0.666", patient="909090^^^CHX&1.2.3&ISO^PI", filler="B3"),
        b"ZZYZXNAME is no message",
    ):
        await lab.ask(raw)
    await lab.close()
    await eventually(lambda: prescriber.flags() and len(prescriber.tasks()) >= 2 and len(prescriber.messages()) >= 3)
    dead: list[dict[str, Any]] = []

    def refused() -> bool:
        dead[:] = lines(neutroflag("dead-letters", "list", "--json", config=config))
        return bool(dead)

    await eventually(refused)

    listed = lines(process("messages", "list", "--json", config=config))
    assert [row["disposition"] for row in listed] == ["judged", "unassessable", "judged", "set_aside"]
    assert [
        row["id"] for row in lines(neutroflag("messages", "list", "--json", "--control-id", "M2", config=config))
    ] == [2]
    (whole,) = lines(neutroflag("messages", "show", "1", "--json", config=config))
    assert whole["ledger"] == [{"where": "OBX[1]", "outcome": "judged", "reason": ""}]
    assert neutroflag("messages", "show", "99", config=config).returncode == 1
    (shown,) = lines(neutroflag("patients", "show", "405660", "--json", config=config))
    assert (shown["enrolled"], shown["alerts"][0]["family"]) == (True, "ANC-STOP")
    assert {row["kind"] for row in lines(neutroflag("patients", "timeline", "405660", "--json", config=config))} == {
        "count", "verdict", "alert", "register",
    }  # fmt: skip
    assert process("patients", "show", "1", config=config).returncode == 1

    number = str(dead[0]["id"])
    assert dead[0]["destination"] == "ehr"
    unsure = neutroflag("dead-letters", "replay", number, config=config)
    assert (unsure.returncode, "--yes" in unsure.stdout) == (0, True)
    prescriber.add_patient(("urn:oid:1.2.3", "909090"), id_="p9")
    before = len(prescriber.flags())
    assert neutroflag("dead-letters", "replay", number, "--yes", config=config).returncode == 0
    await eventually(lambda: len(prescriber.flags()) > before)
    assert neutroflag("dead-letters", "drop", "12345", "--yes", config=config).returncode == 1

    verified = neutroflag("db", "verify", config=config).stdout.splitlines()
    assert verified[0] == "whole: integrity, references, and in = out"
    assert verified[1].startswith("audit head, to be noted elsewhere: ")
    copy = tmp_path / "copy.db"
    assert neutroflag("db", "backup", copy, config=config).returncode == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert process("serve", config=config).returncode == 3

    engine.terminate()
    _, rest = await asyncio.to_thread(engine.communicate)
    assert engine.returncode == 0
    log = out.read_text(encoding="utf-8") + said + rest.decode()
    assert '"event": "alert"' in log or '"event":"alert"' in log
    for secret in ("ZZYZXNAME", "QWERTINE", "405660", "909090", "0.84", "0.777", "0.666", "SPECIMEN", "19790328"):
        assert secret not in log
    assert [line for line in log.splitlines() if line.startswith("Traceback")] == []


def test_the_version_is_one_line() -> None:
    assert process("version").stdout == "0.1.0\n"


def test_without_a_database_the_listings_are_not_ready(tmp_path: Path, neutroflag: Any) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "none.db"}"\n[http]\nport = 9\n', encoding="utf-8")
    for arguments in (("messages", "list"), ("dead-letters", "list"), ("db", "verify"), ("health",)):
        assert neutroflag(*arguments, config=config).returncode == 3, arguments
    assert not (tmp_path / "none.db").exists()


def test_settings_that_cannot_be_are_a_usage_error(tmp_path: Path, neutroflag: Any) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('[mllp]\nhost = "0.0.0.0"\n', encoding="utf-8")
    for run, arguments in ((process, ("serve",)), (neutroflag, ("config", "check"))):
        done = run(*arguments, config=config)
        assert (done.returncode, done.stderr.split(":")[0]) == (2, "mllp.host")
    config.write_text("[mllp]\nprot = 1\n", encoding="utf-8")
    assert neutroflag("config", "show", config=config).returncode == 2


def test_settings_are_shown_with_their_origin(tmp_path: Path, neutroflag: Any) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[mllp]\nport = 4000\n", encoding="utf-8")
    rows = {row["key"]: row for row in lines(neutroflag("config", "show", "--origin", "--json", config=config))}
    assert (rows["mllp.port"]["value"], rows["mllp.port"]["origin"]) == (4000, "file")
    assert rows["mllp.host"]["origin"] == "default"


def test_a_new_database_is_for_its_user_alone(tmp_path: Path, neutroflag: Any) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "new.db"}"\n', encoding="utf-8")
    assert neutroflag("db", "upgrade", config=config).returncode == 0
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
