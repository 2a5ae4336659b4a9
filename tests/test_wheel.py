"""The wheel holds all that the program needs: installed alone elsewhere, it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    built, target = folder / "dist", folder / "site"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = built.glob("neutroflag-*.whl")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return target


def run(installed: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -P: the folder that the program runs in is not searched for modules; the editable install comes after PYTHONPATH.
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=where,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_package_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    packages = ["wire", "rules", "store", "store.migrations", "ingest", "ingest.reading", "emitters", "engine"]
    code = f"import importlib\nfor name in {packages}: print(importlib.import_module(name).__file__)"
    done = run(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith(str(installed))] == []


def test_the_installed_program_says_its_version(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "engine.cli", "version")
    assert (done.returncode, done.stdout.strip()) == (0, "0.1.0")


def test_the_protocols_are_inside(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "engine.cli", "rules", "check")
    assert done.returncode == 0, done.stderr


def test_the_installed_program_reads_a_message(installed: Path, tmp_path: Path) -> None:
    message = ROOT / "fixtures" / "hl7v2" / "plain.hl7"
    done = run(installed, tmp_path, "-m", "engine.cli", "read", str(message))
    assert done.returncode == 0, done.stderr
    assert '"anc_per_mm3":"1250"' in done.stdout


def test_the_migrations_are_inside(installed: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "new.db"}"\n', encoding="utf-8")
    done = run(installed, tmp_path, "-m", "engine.cli", "db", "upgrade", "--config", str(settings))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("schema none -> ")


def test_the_demos_cast_is_inside(installed: Path) -> None:
    assert sorted(file.name for file in (installed / "engine" / "demo_cast").iterdir()) != []


def test_neither_tests_nor_fixtures_are_inside(installed: Path) -> None:
    assert not (installed / "tests").exists()
    assert not (installed / "fixtures").exists()
