"""The audit's chain: whatever is changed, taken out or cut off is found."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from emitters.audit_event import AuditEntry, audit_event
from emitters.check import judge_fhir
from store import Store, database, trail

_ENTRIES = [
    trail.Entry(at_ms=1_800_000_000_000 + number, actor=f"Dr {number}", action="answer", patient_id=f"p{number % 2}")
    for number in range(6)
]


@pytest.fixture
async def filled(store: Store) -> Store:
    await store.write(lambda connection: trail.append(connection, _ENTRIES[:4]))
    await store.write(lambda connection: trail.append(connection, _ENTRIES[4:]))
    return store


def _edit(url: str, sql: str) -> None:
    engine = database.writer(url)
    with engine.begin() as connection:
        connection.execute(text(sql))
    engine.dispose()


async def test_a_chain_that_nobody_touched_is_whole(filled: Store) -> None:
    assert await filled.read(trail.verify) == []
    entries, link = await filled.read(trail.head)
    assert entries == 6
    assert await filled.read(lambda connection: trail.verify(connection, (entries, link))) == []


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE audit SET actor = 'Dr X' WHERE seq = 3", "audit: entry 3 was changed"),
        ("UPDATE audit SET at = at + 1 WHERE seq = 1", "audit: entry 1 was changed"),
        ("UPDATE audit SET patient_id = NULL WHERE seq = 2", "audit: entry 2 was changed"),
        ("UPDATE audit SET detail = '[]' WHERE seq = 6", "audit: entry 6 was changed"),
        ("DELETE FROM audit WHERE seq = 4", "audit: entry 4 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "audit: entry 1 is missing"),
        ("UPDATE audit SET content = link WHERE seq = 5", "audit: entry 5 does not follow from the one before it"),
        ("UPDATE audit SET seq = 9 WHERE seq = 6", "audit: entry 6 is missing"),
        (
            "UPDATE audit SET actor = '', action = 'removed', patient_id = NULL, detail = '{}' WHERE seq = 2",
            "audit: 1 entries are without content, 0 were removed",
        ),
    ],
)
async def test_an_edit_is_found(filled: Store, url: str, sql: str, words: str) -> None:
    _edit(url, sql)
    assert await filled.read(trail.verify) == [words]


async def test_a_cut_end_is_found_by_a_head_that_was_noted(filled: Store, url: str) -> None:
    noted = await filled.read(trail.head)
    _edit(url, "DELETE FROM audit WHERE seq > 4")
    assert await filled.read(trail.verify) == []
    found = await filled.read(lambda connection: trail.verify(connection, noted))
    assert found == ["audit: ends at entry 4; entry 6 was noted"]
    await filled.write(lambda connection: trail.append(connection, _ENTRIES[:3]))
    found = await filled.read(lambda connection: trail.verify(connection, noted))
    assert found == ["audit: entry 6 is not the one that was noted"]


async def test_what_was_removed_by_its_age_leaves_its_place(filled: Store, rows_of: Any) -> None:
    (number,) = rows_of("SELECT id FROM audit WHERE seq = 3")
    await filled.write(lambda connection: trail.remove(connection, [number]))
    await filled.write(lambda connection: trail.remove(connection, [number]))
    assert await filled.read(trail.verify) == []
    assert rows_of("SELECT actor, action, patient_id, detail FROM audit WHERE seq = 3") == [("", "removed", None, "{}")]


async def test_the_command_says_what_is_wrong_and_prints_the_head(
    filled: Store, url: str, tmp_path: Path, neutroflag: Any
) -> None:
    await filled.close()
    config = tmp_path / "n.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')

    run = functools.partial(neutroflag, config=config)
    whole = run("db", "verify")
    assert whole.returncode == 0
    head = whole.stdout.split()[-1]
    assert run("db", "verify", "--audit-head", head).returncode == 0
    assert run("db", "verify", "--audit-head", "6:xyz").returncode == 2
    exported = [msgspec.json.decode(line) for line in run("audit", "export").stdout.splitlines()]
    assert [one["id"] for one in exported] == [f"audit-{number}" for number in range(1, 7)]
    assert run("audit", "list", "--json", "--patient", "p1").stdout.count("\n") == 3
    _edit(url, "DELETE FROM audit WHERE seq > 4")
    cut = run("db", "verify", "--audit-head", head)
    assert (cut.returncode, cut.stdout.strip()) == (1, "audit: ends at entry 4; entry 6 was noted")


@pytest.mark.parametrize(("action", "patient"), [("answer", "p1"), ("login", None), ("account-role", None)])
def test_an_exported_event_is_sound_fhir(action: str, patient: str | None) -> None:
    entry = AuditEntry(
        seq=7, at_ms=1_800_000_000_000, actor="Dr A", action=action, patient_id=patient, detail="{}", link="00"
    )
    event = audit_event(entry, engine_id="neutroflag")
    assert (
        judge_fhir(
            msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": event}]})
        )
        == []
    )
