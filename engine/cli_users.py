"""``neutroflag users``: who may log in to the console. It works beside a running engine; every change is in the audit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from engine.cli import FAILURE, OK, USAGE
from engine.cli_state import _database, _guarded, _rows, _Stop

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["users_add_command", "users_change_command", "users_list_command"]

_SHORTEST, _LONGEST = 12, 1024


@_guarded
def users_add_command(
    config: Path | None, name: str, role: str, password_file: Path | None, who: str, *, stdout: TextIO, stderr: TextIO
) -> int:
    from store import accounts

    stored, role = _name(name), _role(role)
    with _database(config) as connection:
        if accounts.find(connection, stored) is not None:
            raise _Stop(FAILURE, f"{stored}: there is an account of this name")
    hashed = _hashed(password_file, stderr)
    with _database(config, write=True) as connection:
        try:
            accounts.add(connection, stored, password_hash=hashed, role=role, at_ms=_now_ms(), actor=who)
        except accounts.AccountExists:
            raise _Stop(FAILURE, f"{stored}: there is an account of this name") from None
    print(f"{stored}: {role}", file=stdout)
    return OK


@_guarded
def users_change_command(
    config: Path | None,
    verb: str,
    name: str,
    role: str,
    password_file: Path | None,
    who: str,
    *,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    """``verb``: role, disable, enable, password."""
    from store import accounts

    stored, now = _name(name), _now_ms()
    changes: dict[str, Callable[[], Callable[[Connection], Any]]] = {
        "role": lambda: _with(accounts.set_role, stored, _role(role), now, who),
        "disable": lambda: _with(accounts.set_disabled, stored, True, now, who),
        "enable": lambda: _with(accounts.set_disabled, stored, False, now, who),
        "password": lambda: _with(accounts.set_password, stored, _hashed(password_file, stderr), now, who),
    }
    change = changes[verb]()
    with _database(config, write=True) as connection:
        try:
            change(connection)
        except accounts.UnknownAccount:
            raise _Stop(FAILURE, f"{stored}: no such account") from None
        except accounts.PasswordElsewhere:
            raise _Stop(FAILURE, f"{stored}: logs in through an identity provider and has no password here") from None
    said = {"role": role, "disable": "disabled", "enable": "enabled", "password": "new password"}[verb]
    print(f"{stored}: {said}", file=stdout)
    return OK


@_guarded
def users_list_command(config: Path | None, json: bool, *, stdout: TextIO, stderr: TextIO) -> int:
    from store import accounts
    from store.values import from_ms

    with _database(config) as connection:
        rows = [
            {
                "name": item.name,
                "role": item.role,
                "state": "disabled" if item.disabled else "enabled",
                "log_in": "provider" if item.issuer else "password",
                "created_at": from_ms(item.created_at).isoformat(timespec="seconds"),
                "changed_at": from_ms(item.changed_at).isoformat(timespec="seconds"),
            }
            for item in accounts.listed(connection)
        ]
    _rows(rows, json, ("name", "role", "state", "log_in", "created_at", "changed_at"), stdout)
    return OK


def _with(change: Callable[..., None], name: str, value: Any, at_ms: int, actor: str) -> Callable[[Connection], None]:
    return lambda connection: change(connection, name, value, at_ms=at_ms, actor=actor)


def _name(text: str) -> str:
    from console.auth import name_of

    name = name_of(text)
    if not name or len(name) > 64 or not name.isprintable():
        raise _Stop(USAGE, "a name has 1 to 64 printable characters")
    return name


def _role(text: str) -> str:
    from console.port import Role

    known = [role.value for role in Role]
    if text not in known:
        raise _Stop(USAGE, f"--role: one of {', '.join(known)}")
    return text


def _hashed(password_file: Path | None, stderr: TextIO) -> str:
    from argon2 import PasswordHasher

    return PasswordHasher().hash(_password(password_file, stderr))


def _password(password_file: Path | None, stderr: TextIO) -> str:
    """From the file's first line, or asked for twice; never from the command line, which other users can read."""
    if password_file is not None:
        try:
            lines = password_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise _Stop(FAILURE, f"{password_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _Stop(FAILURE, f"{password_file}: not UTF-8") from None
        password = lines[0] if lines else ""
    else:
        if not sys.stdin.isatty():
            raise _Stop(USAGE, "no terminal to ask for the password on; use --password-file")
        from getpass import getpass

        password = getpass("Password: ", stream=stderr)
        if password != getpass("Again: ", stream=stderr):
            raise _Stop(USAGE, "the two are not the same")
    if not _SHORTEST <= len(password) <= _LONGEST:
        raise _Stop(USAGE, f"a password has {_SHORTEST} or more characters")
    return password


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
