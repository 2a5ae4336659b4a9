"""The console's accounts and sessions: who may log in, and who is.

Functions over a connection: changes run in the caller's transaction and leave a row in ``audit``. A password is known here
only by its argon2 hash, a session only by the SHA-256 of its cookie.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select, update

from store import trail
from store.tables import account, session
from store.values import encode

__all__ = [
    "Account",
    "AccountExists",
    "PasswordElsewhere",
    "Session",
    "UnknownAccount",
    "add",
    "add_session",
    "any_account",
    "end_session",
    "find",
    "find_session",
    "listed",
    "seen",
    "set_disabled",
    "set_password",
    "set_role",
    "vouched",
]


class AccountExists(Exception):
    """There is an account of this name."""


class UnknownAccount(LookupError):
    """There is no account of this name."""


class PasswordElsewhere(Exception):
    """An identity provider vouches for this account, and its password is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Times in milliseconds since 1970, UTC. ``issuer`` and ``subject``: the provider's, else ""."""

    name: str
    role: str
    disabled: bool
    password_hash: str
    created_at: int
    changed_at: int
    issuer: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A live session with the role that its account has now."""

    account: str
    role: str
    csrf: str
    seen_at: int
    issuer: str


def any_account(connection: Connection) -> bool:
    """Disabled ones count: who disables the last account does not open the console to everybody."""
    return connection.execute(select(account.c.name).limit(1)).first() is not None


def find(connection: Connection, name: str) -> Account | None:
    row = connection.execute(select(account).where(account.c.name == name)).mappings().first()
    return Account(**row) if row is not None else None


def listed(connection: Connection) -> list[Account]:
    """By name."""
    return [Account(**row) for row in connection.execute(select(account).order_by(account.c.name)).mappings()]


def add(connection: Connection, name: str, *, password_hash: str, role: str, at_ms: int, actor: str) -> None:
    """Raises AccountExists."""
    if find(connection, name) is not None:
        raise AccountExists(name)
    connection.execute(
        insert(account).values(
            name=name, password_hash=password_hash, role=role, disabled=False, created_at=at_ms, changed_at=at_ms
        )
    )
    _record(connection, at_ms, actor, "account-added", name, role=role)


def vouched(connection: Connection, issuer: str, subject: str, *, name: str, role: str, at_ms: int) -> str:
    """The name of this person's account, made at the first log-in, with the role that the provider gives now.

    It keeps its first name: the audit knows it by that one. Raises AccountExists where another account has the name already.
    """
    known = connection.execute(
        select(account.c.name, account.c.role).where(account.c.issuer == issuer, account.c.subject == subject)
    ).first()
    if known is not None:
        if known.role != role:
            set_role(connection, known.name, role, at_ms=at_ms, actor=issuer)
        return str(known.name)
    add(connection, name, password_hash="", role=role, at_ms=at_ms, actor=issuer)  # no password opens it
    connection.execute(update(account).where(account.c.name == name).values(issuer=issuer, subject=subject))
    return name


def set_role(connection: Connection, name: str, role: str, *, at_ms: int, actor: str) -> None:
    """Holds from the next page on, in open sessions too. Raises UnknownAccount."""
    _change(connection, name, {"role": role, "changed_at": at_ms})
    _record(connection, at_ms, actor, "account-role", name, role=role)


def set_disabled(connection: Connection, name: str, disabled: bool, *, at_ms: int, actor: str) -> None:
    """Ends the sessions of an account that is disabled. Raises UnknownAccount."""
    _change(connection, name, {"disabled": disabled, "changed_at": at_ms})
    if disabled:
        connection.execute(delete(session).where(session.c.account == name))
    _record(connection, at_ms, actor, "account-disabled" if disabled else "account-enabled", name)


def set_password(connection: Connection, name: str, password_hash: str, *, at_ms: int, actor: str) -> None:
    """Ends the account's sessions: whoever had the old password is out. Raises UnknownAccount and PasswordElsewhere."""
    held = find(connection, name)
    if held is not None and held.issuer:
        raise PasswordElsewhere(name)
    _change(connection, name, {"password_hash": password_hash, "changed_at": at_ms})
    connection.execute(delete(session).where(session.c.account == name))
    _record(connection, at_ms, actor, "account-password", name)


def add_session(
    connection: Connection, name: str, *, token_hash: bytes, csrf: str, at_ms: int, expires_ms: int, idle_ms: int
) -> bool:
    """Opens a session and forgets those that are over; False, and nothing, for an account meanwhile gone or disabled."""
    held = find(connection, name)
    if held is None or held.disabled:
        return False
    over = or_(session.c.expires_at <= at_ms, session.c.seen_at <= at_ms - idle_ms)
    connection.execute(delete(session).where(over))
    connection.execute(
        insert(session).values(
            token_hash=token_hash, account=name, csrf=csrf, created_at=at_ms, seen_at=at_ms, expires_at=expires_ms
        )
    )
    _record(connection, at_ms, name, "login", name)
    return True


def find_session(connection: Connection, token_hash: bytes, *, at_ms: int, idle_ms: int) -> Session | None:
    """The session if it is neither over nor idle for too long, and its account is not disabled."""
    row = connection.execute(
        select(session.c.account, account.c.role, session.c.csrf, session.c.seen_at, account.c.issuer)
        .join(account, account.c.name == session.c.account)
        .where(
            session.c.token_hash == token_hash,
            session.c.expires_at > at_ms,
            session.c.seen_at > at_ms - idle_ms,
            account.c.disabled.is_(False),
        )
    ).first()
    return Session(**row._mapping) if row is not None else None


def seen(connection: Connection, token_hash: bytes, *, at_ms: int) -> None:
    connection.execute(update(session).where(session.c.token_hash == token_hash).values(seen_at=at_ms))


def end_session(connection: Connection, token_hash: bytes, *, at_ms: int) -> None:
    """Does nothing for a session that is not there."""
    name = connection.scalar(select(session.c.account).where(session.c.token_hash == token_hash))
    if name is not None:
        connection.execute(delete(session).where(session.c.token_hash == token_hash))
        _record(connection, at_ms, name, "logout", name)


def _change(connection: Connection, name: str, values: dict[str, object]) -> None:
    if connection.execute(update(account).where(account.c.name == name).values(values)).rowcount == 0:
        raise UnknownAccount(name)


def _record(connection: Connection, at_ms: int, actor: str, action: str, name: str, **detail: str) -> None:
    trail.append(
        connection,
        [trail.Entry(at_ms=at_ms, actor=actor, action=action, detail=encode({"account": name, **detail}))],
    )
