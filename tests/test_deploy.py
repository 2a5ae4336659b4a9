"""What is deployed fits together: settings that load, a compose file and units that name what exists, a bundle that refuses
what it should. The whole bundle is built and installed offline by ``make bundle``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from engine.config import exposed, load

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SETTINGS = sorted(file for file in DEPLOY.rglob("*.toml"))
UNITS = sorted(DEPLOY.glob("*.service")) + sorted(DEPLOY.glob("*.timer"))
PROGRAM = "/opt/neutroflag/bin/neutroflag"


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: file.relative_to(DEPLOY).as_posix())
def test_every_settings_file_loads_and_exposes_nothing_that_it_does_not_allow_by_name(file: Path) -> None:
    assert exposed(load(file, {})) == []


def test_the_first_settings_of_a_service_tell_nobody() -> None:
    settings = load(DEPLOY / "neutroflag.system.toml", {})
    assert (settings.engine.mode, settings.destination) == ("observe", ())


def test_config_check_takes_the_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "config", "check", "-c", str(DEPLOY / "neutroflag.example.toml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_compose_file_builds_the_image_of_this_repository(compose: dict[str, Any]) -> None:
    build = compose["services"]["neutroflag"]["build"]
    context = (DEPLOY / "compose" / build["context"]).resolve()
    assert (context, (context / build["dockerfile"]).exists()) == (ROOT, True)


def test_compose_runs_the_images_own_command(compose: dict[str, Any], dockerfile: str) -> None:
    assert 'ENTRYPOINT ["neutroflag"]' in dockerfile
    assert compose["services"]["neutroflag"]["command"] == ["serve"]


def test_compose_publishes_the_ports_that_the_settings_open_and_on_loopback_only(
    compose: dict[str, Any], dockerfile: str
) -> None:
    settings = load(DEPLOY / "compose" / "neutroflag.toml", {})
    opened = {str(settings.mllp.port), str(settings.http.port)}
    assert opened <= set(re.findall(r"\d+", dockerfile.partition("EXPOSE")[2].splitlines()[0]))
    assert {entry.rpartition(":")[2] for entry in compose["services"]["neutroflag"]["ports"]} == opened
    for service in compose["services"].values():
        assert all(entry.startswith("127.0.0.1:") for entry in service["ports"])
    published = [entry.split(":")[1] for service in compose["services"].values() for entry in service["ports"]]
    assert len(set(published)) == len(published)


def test_compose_keeps_the_database_on_a_volume_and_mounts_its_settings_where_the_image_looks(
    compose: dict[str, Any], dockerfile: str
) -> None:
    settings = load(DEPLOY / "compose" / "neutroflag.toml", {})
    mounts = dict(entry.split(":")[:2][::-1] for entry in compose["services"]["neutroflag"]["volumes"])
    database = Path(settings.store.url.removeprefix("sqlite:///"))
    assert mounts[str(database.parent)] in compose["volumes"]
    (looked_at,) = re.findall(r"NEUTROFLAG_CONFIG=(\S+)", dockerfile)
    assert (DEPLOY / "compose" / mounts[looked_at]).exists()
    for service in compose["services"].values():
        for entry in service["volumes"]:
            name = entry.split(":")[0]
            assert name.startswith("./") or name in compose["volumes"]


def test_the_destination_in_the_compose_settings_is_a_service_of_it(compose: dict[str, Any]) -> None:
    settings = load(DEPLOY / "compose" / "neutroflag.toml", {})
    (destination,) = settings.destination
    assert destination.kind == "fhir"
    host, port = destination.url.split("/")[2].split(":")
    service = compose["services"][host]
    assert port in {entry.rpartition(":")[2] for entry in service["ports"]}
    assert set(service["networks"]) & set(compose["services"]["neutroflag"]["networks"])
    assert re.fullmatch(r"\S+:v\d+\.\d+\.\d+", service["image"])  # no moving tag


def test_the_engine_in_compose_has_no_rights_that_it_does_not_need(compose: dict[str, Any], dockerfile: str) -> None:
    service = compose["services"]["neutroflag"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in service["security_opt"]
    assert re.search(r"^USER \d+:\d+$", dockerfile, re.MULTILINE)


def test_each_file_that_the_image_copies_is_there(dockerfile: str) -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in sources.split())


# units


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_systemd_takes_each_unit(file: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / file.name)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "neutroflag" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_service_runs_the_program_that_the_bundle_installs_and_is_hardened() -> None:
    unit = (DEPLOY / "neutroflag.service").read_text(encoding="utf-8")
    installer = (DEPLOY / "bundle" / "install.sh").read_text(encoding="utf-8")
    assert f"ExecStart={PROGRAM} serve\n" in unit
    assert "prefix=${1:-/opt/neutroflag}" in installer
    for line in (
        "NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=neutroflag", "Restart=on-failure",
        "TimeoutStopSec=45", "UMask=0077", "CapabilityBoundingSet=",
    ):  # fmt: skip
        assert f"\n{line}\n" in unit
    settings = load(DEPLOY / "neutroflag.system.toml", {})
    assert settings.store.url == "sqlite:////var/lib/neutroflag/neutroflag.db"


# bundle


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_build", DEPLOY / "bundle" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def staged(build: ModuleType, tmp_path: Path) -> Path:
    """A bundle laid out as ``make bundle`` does, with a stand-in for the wheels."""
    folder = tmp_path / "staged"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "some-1-py3-none-any.whl").write_bytes(b"wheel")
    (folder / "neutroflag-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    build.lay_out(folder, ROOT)
    return folder


def install(folder: Path, prefix: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "install.sh"), str(prefix)],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PIP_NO_INDEX": "1"} | environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_bundle_holds_the_program_its_wheels_the_pages_and_the_sums_of_all(
    build: ModuleType, staged: Path, tmp_path: Path
) -> None:
    archives = [tmp_path / name for name in ("one.tar.gz", "two.tar.gz")]
    for archive in archives:
        build.pack(staged, "neutroflag-0.1.0-bundle", archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        entries = {entry.name.removeprefix("neutroflag-0.1.0-bundle/"): entry for entry in tar}
        tar.extractall(tmp_path / "out", filter="data")
    assert entries["install.sh"].mode & 0o111
    out = tmp_path / "out" / "neutroflag-0.1.0-bundle"
    listed = dict(line.split("  ")[::-1] for line in (out / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == set(entries) - {"SHA256SUMS"}
    for name, total in listed.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == total
    for name in (
        "requirements.lock", "wheels/some-1-py3-none-any.whl", "docs/runbook.md", "docs/go-live.md", "docs/retention.md",
        "docs/supported-systems.md", "docs/README.md", "docs/LICENSE", "deploy/neutroflag.service",
        "deploy/two-hosts/neutroflag.toml", "deploy/two-hosts/neutroflag.service.d/two-hosts.conf",
    ):  # fmt: skip
        assert name in entries


def test_a_damaged_bundle_installs_nothing(staged: Path, tmp_path: Path) -> None:
    (staged / "wheels" / "some-1-py3-none-any.whl").write_bytes(b"whee")
    done = install(staged, tmp_path / "prefix")
    assert (done.returncode, "the bundle is damaged; nothing was installed" in done.stderr) == (1, True)
    assert not (tmp_path / "prefix").exists()


def test_a_bundle_for_another_python_says_so(build: ModuleType, staged: Path, tmp_path: Path) -> None:
    (staged / "PYTHON").write_text("3.99 linux-x86_64\n")
    (staged / "SHA256SUMS").write_text("".join(f"{total}  {name}\n" for name, total in build.sums(staged)))
    done = install(staged, tmp_path / "prefix")
    assert done.returncode == 1
    assert "this bundle is for Python 3.99" in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_a_wheel_that_is_not_in_the_locks_is_not_installed(staged: Path, tmp_path: Path) -> None:
    done = install(staged, tmp_path / "prefix")
    assert done.returncode != 0
    assert not (tmp_path / "prefix" / "bin" / "neutroflag").exists()


def test_the_installer_is_a_plain_shell_script_that_uses_no_index() -> None:
    installer = DEPLOY / "bundle" / "install.sh"
    assert os.access(installer, os.X_OK)
    subprocess.run(["sh", "-n", str(installer)], check=True, timeout=10)
    text = installer.read_text(encoding="utf-8")
    pips = [line for line in text.splitlines() if line.startswith("$pip install")]
    assert pips
    assert all("--no-index" in line for line in pips)
    assert "--require-hashes" in pips[0]


def test_the_requirement_files_agree_on_every_version() -> None:
    """pip installs the build's and the runtime's pins in one go and refuses two versions of one package."""
    pins: dict[str, dict[str, str]] = {}
    for lock in sorted(ROOT.glob("requirements*.lock")):
        for name, version in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE):
            pins.setdefault(name, {})[lock.name] = version
    assert {name: locks for name, locks in pins.items() if len(set(locks.values())) > 1} == {}
    assert len(pins) > 50
