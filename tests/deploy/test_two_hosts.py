"""The pair of hosts: settings that the program takes, and drop-ins that change of the units only what they must."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import exposed, load


@pytest.mark.parametrize("kafka", [False, True], ids=["as it stands", "with Kafka"])
def test_config_check_takes_the_settings_of_both_hosts(
    deployed: Path, secret_file: Callable[[str], Path], tmp_path: Path, kafka: bool
) -> None:
    text = (deployed / "two-hosts" / "neutroflag.toml").read_text(encoding="utf-8")
    if kafka:
        text = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)
        assert "\n[kafka]\n" in text
    file = tmp_path / "neutroflag.toml"
    file.write_text(
        re.sub(r'"(/etc/neutroflag/[\w.-]+)"', lambda found: f'"{secret_file(found[1])}"', text), encoding="utf-8"
    )
    assert exposed(load(file, {})) == []
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "config", "check", "-c", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_balancer_asks_and_sends_to_the_ports_that_the_settings_open(deployed: Path) -> None:
    settings = load(deployed / "two-hosts" / "neutroflag.toml", {})
    text = (deployed / "two-hosts" / "haproxy.cfg").read_text(encoding="utf-8")
    for host in ("HOST_A", "HOST_B"):
        assert f'"${{{host}}}:{settings.mllp.tls_port}" check port {settings.http.port}' in text
        assert f'"${{{host}}}:{settings.http.port}" check' in text
    # What is idle is ended by the engine, which says so to the sender, and not by the balancer.
    (kept_h,) = set(re.findall(r"timeout (?:client|server) (\d+)h", text))
    assert int(kept_h) * 3600 > settings.mllp.idle_timeout_s
    assert settings.mllp.max_connections_per_peer >= settings.mllp.max_connections


@pytest.fixture
def units(deployed: Path, tmp_path: Path) -> Path:
    """/etc/systemd/system of a host, with a program that exists."""
    for file in [*deployed.glob("*.service"), *deployed.glob("*.timer"), *deployed.glob("two-hosts/*/*.conf")]:
        where = tmp_path / (f"{file.parent.name}/{file.name}" if file.suffix == ".conf" else file.name)
        where.parent.mkdir(exist_ok=True)
        where.write_text(file.read_text(encoding="utf-8").replace("/opt/neutroflag/bin/neutroflag", "/bin/true"))
    return tmp_path


@pytest.fixture
def analyze() -> Callable[..., str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")

    def run(*arguments: str) -> str:
        done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    return run


@pytest.mark.parametrize("unit", ["neutroflag.service", "neutroflag-backup.service"])
def test_systemd_takes_the_units_with_their_drop_ins(units: Path, analyze: Callable[..., str], unit: str) -> None:
    said = analyze("verify", "--man=no", str(units / unit))
    assert [line for line in said.splitlines() if "neutroflag" in line] == []


@pytest.mark.parametrize("unit", ["neutroflag.service", "neutroflag-backup.service"])
def test_systemd_calls_the_hosts_service_well_confined(units: Path, analyze: Callable[..., str], unit: str) -> None:
    # In tenths: its word for 2.5 and below is "OK", for more than that "MEDIUM".
    analyze("security", "--offline=true", "--threshold=60", str(units / unit))
