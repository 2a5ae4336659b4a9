"""Whose fault an error of the database is, and the words for it: nothing of what was being written stands in them."""

from __future__ import annotations

from typing import Any

__all__ = ["again", "is_damaged", "is_held", "is_lost", "why"]

# By SQLSTATE (PostgreSQL, appendix A); the first two characters are its class.
_WORDS = {
    "28P01": "the database refuses the password",
    "28000": "the database refuses the user",
    "3D000": "there is no such database",
    "25006": "the database is read-only",
    "53100": "the database's disk is full",
    "53300": "the database has too many connections",
    "57P01": "the database shuts down",
    "57P02": "the database has crashed",
    "57P03": "the database starts or stops",
    "42P01": "a table is missing",
    "42501": "the database's user may not do this",
    "55P03": "the database is held by somebody else",
    "57014": "the database took too long",
}
# SQLite's primary result codes (sqlite.org/rescode.html); what is not here is of what was to be written, or our own.
_BUSY, _CORRUPT, _NOT_A_DATABASE = 5, 11, 26
_DAMAGED = "the database file is damaged: `neutroflag db verify` says where, the runbook how to restore it"
_SQLITE = {
    _BUSY: "the database is held by somebody else",
    8: "the database is read-only",
    10: "the disk of the database cannot be read or written",
    _CORRUPT: _DAMAGED,
    13: "the database's disk is full",
    14: "the database cannot be opened",
    _NOT_A_DATABASE: _DAMAGED,
}
# A refused connection has no SQLSTATE: libpq gives the server's words (English under lc_messages of ours) and its own.
_SAID = (
    ("password authentication failed", "the database refuses the password"),
    ("no password supplied", "the database wants a password"),
    ("does not exist", "there is no such database or user"),
    ("starting up", "the database starts or stops"),
    ("shutting down", "the database starts or stops"),
    ("too many", "the database has too many connections"),
    ("certificate", "the database's certificate is not trusted"),
    ("SSL", "the database refuses the encryption"),
    ("timeout", "the database does not answer"),
    ("Connection refused", "the database cannot be reached"),
    ("could not translate", "the database's host is unknown"),
    ("resolve", "the database's host is unknown"),
)


def again(error: BaseException) -> bool:
    """Two transactions stood in each other's way and the server ended this one: done anew, it goes through."""
    return getattr(_driver(error), "sqlstate", None) in ("40001", "40P01")


def is_damaged(error: BaseException) -> bool:
    """A page of the SQLite file is not what was written there; what stands on others can still be read."""
    return (getattr(_driver(error), "sqlite_errorcode", 0) & 0xFF) in (_CORRUPT, _NOT_A_DATABASE)


def is_held(error: BaseException) -> bool:
    """Somebody else has a lock on the SQLite file: nothing was begun, and asking again may help."""
    return (getattr(_driver(error), "sqlite_errorcode", 0) & 0xFF) == _BUSY


def is_lost(error: BaseException) -> bool:
    """The connection is gone; whether what it carried was done is another question."""
    found = _driver(error)
    state: str = getattr(found, "sqlstate", None) or ""
    return _named(found, "OperationalError", "InterfaceError") and (not state or state[:2] in ("08", "57"))


def why(error: BaseException) -> str | None:
    """Words for a failure of the database; None for one of what was to be written, or of our own."""
    if isinstance(error, TimeoutError):
        return "the database does not answer"
    found = _driver(error)
    if (code := getattr(found, "sqlite_errorcode", None)) is not None:
        return _SQLITE.get(code & 0xFF)
    state: str | None = getattr(found, "sqlstate", None)
    if state in _WORDS:
        return _WORDS[state]
    if not _named(found, "Error") or _named(found, "DataError", "IntegrityError"):
        return None
    if state is None:
        if not _named(found, "OperationalError", "InterfaceError"):
            return None  # the driver itself would not have it
        said = str(found)
        return next((words for sign, words in _SAID if sign in said), f"the database is gone ({type(found).__name__})")
    return f"{type(found).__name__} ({state})"


def _driver(error: BaseException) -> Any:
    """SQLAlchemy wraps the driver's errors where it executes; what runs on the driver's cursor raises them bare."""
    return getattr(error, "orig", None) or error


def _named(error: Any, *names: str) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("psycopg") for kind in type(error).__mro__)
