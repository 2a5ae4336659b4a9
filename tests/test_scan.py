"""The SBOM is held against the lock: what `make scan` writes must be what is installed, each with its hash."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("neutroflag_scan", ROOT / "deploy" / "scan" / "scan.py")
assert _spec is not None
assert _spec.loader is not None
scan = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scan)

LOCK = """aiohttp==3.11.0 \\
    --hash=sha256:00
psycopg[binary]==3.2.1 ; python_version >= "3.11" \\
    --hash=sha256:01
    # via neutroflag
"""


def part(name: str, version: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "hashes": [{"alg": "SHA-256", "content": "00"}]} | more


def test_a_bill_of_what_is_locked_differs_in_nothing() -> None:
    assert scan.differences({"components": [part("aiohttp", "3.11.0"), part("Psycopg", "3.2.1")]}, LOCK) == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([part("aiohttp", "3.11.0")], ["psycopg 3.2.1: locked and not told"]),
        (
            [part("aiohttp", "3.11.1"), part("psycopg", "3.2.1")],
            ["aiohttp 3.11.0: locked and not told", "aiohttp 3.11.1: told and not locked"],
        ),
        ([part("aiohttp", "3.11.0", hashes=[]), part("psycopg", "3.2.1")], ["aiohttp: without a hash"]),
    ],
)
def test_a_bill_of_something_else_is_found(parts: list[dict[str, Any]], words: list[str]) -> None:
    assert scan.differences({"components": parts}, LOCK) == words


def test_every_locked_package_is_seen_in_our_own_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    hashed = sum(1 for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#")))
    assert len(scan._LOCKED.findall(lock)) == hashed > 40
