"""``neutroflag users``: accounts made and changed from the command line, and what the audit keeps of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher

from engine.cli import FAILURE, NOT_READY, OK, USAGE
from engine.cli_state import db_upgrade_command
from engine.cli_users import users_add_command, users_change_command, users_list_command

PASSWORD = "correct horse battery staple"  # noqa: S105


def run(command: Callable[..., int], *arguments: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return command(*arguments, stdout=out, stderr=err), out.getvalue(), err.getvalue()


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "neutroflag.toml"
    file.write_text(f'[store]\nurl = "{url}"\n', encoding="utf-8")
    assert run(db_upgrade_command, file)[0] == OK
    return file


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return file


def test_an_account_is_added_listed_and_audited_without_its_password(
    config: Path, secret: Path, rows_of: Callable[[str], list[Any]]
) -> None:
    assert run(users_add_command, config, " Dr Hoda ", "clinician", secret, "root")[:2] == (OK, "Dr Hoda: clinician\n")
    code, out, _ = run(users_list_command, config, True)
    assert code == OK
    assert {k: json.loads(out)[k] for k in ("name", "role", "state")} == {
        "name": "Dr Hoda",
        "role": "clinician",
        "state": "enabled",
    }
    [(actor, action, detail)] = rows_of("SELECT actor, action, detail FROM audit")
    assert (actor, action) == ("root", "account-added")
    assert json.loads(detail) == {"account": "Dr Hoda", "role": "clinician"}
    [hashed] = rows_of("SELECT password_hash FROM account")
    assert PasswordHasher().verify(hashed, PASSWORD)
    assert hashed.startswith("$argon2id$")


def test_each_change_holds_and_is_audited(config: Path, secret: Path, rows_of: Callable[[str], list[Any]]) -> None:
    run(users_add_command, config, "Dr Hoda", "clinician", secret, "root")
    for verb, role, file in (("role", "auditor", None), ("disable", "", None), ("enable", "", None)):
        assert run(users_change_command, config, verb, "Dr Hoda", role, file, "root")[0] == OK
    [before] = rows_of("SELECT password_hash FROM account")
    assert run(users_change_command, config, "password", "Dr Hoda", "", secret, "root")[0] == OK
    assert rows_of("SELECT role, disabled FROM account") == [("auditor", 0)]
    assert rows_of("SELECT password_hash FROM account") != [before]
    assert rows_of("SELECT action FROM audit ORDER BY id") == [
        "account-added",
        "account-role",
        "account-disabled",
        "account-enabled",
        "account-password",
    ]


def test_what_cannot_be_done_is_said_and_nothing_is_written(
    config: Path, secret: Path, tmp_path: Path, rows_of: Callable[[str], list[Any]]
) -> None:
    run(users_add_command, config, "Dr Hoda", "clinician", secret, "root")
    weak = tmp_path / "weak"
    weak.write_text("hunter2\n", encoding="utf-8")
    for code, arguments in [
        (FAILURE, ("Dr Hoda", "admin", secret)),
        (USAGE, ("Dr Vidal", "boss", secret)),
        (USAGE, ("Dr Vidal", "admin", weak)),
        (USAGE, ("", "admin", secret)),
        (USAGE, ("Dr\x00Vidal", "admin", secret)),
        (FAILURE, ("Dr Vidal", "admin", tmp_path / "absent")),
    ]:
        found, _, words = run(users_add_command, config, *arguments, "root")
        assert (found, bool(words)) == (code, True), arguments
        assert "hunter2" not in words
    assert run(users_change_command, config, "role", "Dr Nobody", "admin", None, "root")[0] == FAILURE
    assert rows_of("SELECT name, role FROM account") == [("Dr Hoda", "clinician")]
    assert rows_of("SELECT count(*) FROM audit") == [1]


def test_without_a_database_nothing_is_made(tmp_path: Path, secret: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/absent.db"\n', encoding="utf-8")
    assert run(users_add_command, file, "Dr Hoda", "admin", secret, "root")[0] == NOT_READY
    assert not (tmp_path / "absent.db").exists()


async def test_an_account_made_beside_a_running_engine_closes_its_console_and_opens_it_to_its_holder(
    run_engine: Callable[..., Awaitable[Any]], settings_file: Callable[..., Path], secret: Path
) -> None:
    running = await run_engine()
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False, timeout=20, follow_redirects=True) as client:
        assert (await client.get("/console/today")).status_code == 200
        added = await asyncio.to_thread(run, users_add_command, settings_file(), "Dr Hoda", "clinician", secret, "root")
        assert added[0] == OK
        page = await client.get("/console/today")
        assert page.url.path == "/console/login"
        csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert csrf
        form = {"csrf": csrf[1], "next": "/console/today", "name": "Dr Hoda", "password": PASSWORD}
        opened = await client.post("/console/login", data=form)
        assert (opened.status_code, opened.url.path) == (200, "/console/today")
        assert "Dr Hoda" in opened.text
        assert (await client.get("/console/messages")).status_code == 403
