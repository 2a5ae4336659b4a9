"""The programs that read what is deployed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder with helm, promtool and haproxy."""
    done = subprocess.run(
        [str(ROOT / "deploy" / "dev" / "tools.sh")], capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])
