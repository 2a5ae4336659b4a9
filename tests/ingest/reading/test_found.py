"""What the search for breaking bytes has found stays found; and the search itself still runs on what it begins with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("neutroflag_tests_fuzz", _TESTS / "fuzz.py")
assert _spec is not None
assert _spec.loader is not None
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

FOUND = sorted((_TESTS.parent / "fixtures" / "found").glob("*.bin"))


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_what_was_found_breaks_nothing_any_more(file: Path) -> None:
    # Several times: reading learns the shape of what comes again.
    for _ in range(5):
        fuzz.TARGETS[file.stem.partition("-")[0]][0](file.read_bytes())


@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_what_the_search_begins_with_keeps_its_promises(target: str) -> None:
    for raw in fuzz.seeds_of(target):
        fuzz.TARGETS[target][0](raw)


def test_the_search_finds_what_breaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(raw: bytes) -> None:
        assert b"\x1c" not in raw

    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    with pytest.raises(AssertionError):
        fuzz.tried(breaks, b"\x0bMSH|\x1c\r", "frames")
    (kept,) = (tmp_path / "found").iterdir()
    assert kept.read_bytes() == b"\x0bMSH|\x1c\r"
