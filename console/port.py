"""What the pages need of the engine, and who may do what on them.

Pages read the database on a connection of their own, in a thread, so that no page holds up the doors. They change nothing
themselves: every change is an ``Actions`` call, which the engine validates, records with its author and judges anew.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from rules.changes import CourseChange
from rules.decisions import Decision, decisions_for, needs_reason
from rules.texts import SHIPPED, Wordings

__all__ = [
    "Actions",
    "Console",
    "Decision",
    "Person",
    "RefusedInput",
    "Right",
    "Role",
    "SignOn",
    "SignOnRefused",
    "SignOnUnavailable",
    "Visitor",
    "decisions_for",
    "needs_reason",
]


class Role(enum.StrEnum):
    CLINICIAN = "clinician"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Right(enum.StrEnum):
    PATIENTS = "patients"
    """See patients, their counts and alerts."""
    ANSWER = "answer"
    """Answer alerts and change a course of treatment."""
    MESSAGES = "messages"
    """See messages, dead letters, destinations and feeds."""
    REPLAY = "replay"
    """Judge a message again, send a dead letter again."""


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.CLINICIAN: frozenset({Right.PATIENTS, Right.ANSWER}),
    Role.OPERATOR: frozenset({Right.MESSAGES, Right.REPLAY}),
    Role.AUDITOR: frozenset({Right.PATIENTS, Right.MESSAGES}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at the page. ``is_open``: there are no accounts yet and the face is on loopback; then ``name`` is "" and
    every form asks who acts."""

    name: str
    role: Role
    csrf: str
    is_open: bool = False

    def may(self, right: Right) -> bool:
        return right in RIGHTS[self.role]


class RefusedInput(Exception):
    """A form cannot be taken. ``field`` is the form field's name ("" for the whole), ``code`` names the words."""

    def __init__(self, field: str, code: str) -> None:
        super().__init__(f"{field}: {code}")
        self.field = field
        self.code = code


class Actions(typing.Protocol):
    """Each raises RefusedInput for what it cannot take, StoreUnavailable when nothing was written, LookupError for an
    unknown id. ``by`` is the person's name; it is never empty."""

    async def answer(
        self, alert_id: str, *, decision: Decision, reason: str, by: str, revision: int | None = None
    ) -> None:
        """``revision``: of the alert as the person saw it; an answer to an older one than stands is refused. None: the one
        that stands now."""
        ...

    async def change_course(self, patient_id: str, change: CourseChange, *, by: str) -> None: ...

    async def replay_message(self, message_id: int, *, by: str, edited: bytes | None = None) -> int:
        """The number of the copy that is judged; ``edited``: with these bytes in place of the original's."""
        ...

    async def undo_merge(self, number: int, *, reason: str, by: str) -> None:
        """``number``: of the audit entry of a merge that stands, the last one of its patient."""
        ...

    async def replay_dead(self, ids: Sequence[int], *, by: str) -> int:
        """How many wait again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who an identity provider says somebody is: ``issuer`` and ``subject`` together are one person for good, ``name`` is
    what it calls them now, ``role`` what they may do here; None: nothing."""

    issuer: str
    subject: str
    name: str
    role: Role | None


class SignOnRefused(Exception):
    """What the provider answered does not show who somebody is; the words name what was wrong and quote nothing."""


class SignOnUnavailable(Exception):
    """The provider cannot be asked now."""


class SignOn(typing.Protocol):
    """Log-in through an identity provider. ``issuer``: as in ``Person``; ``label``: what it is called, "" = no name."""

    issuer: str
    label: str
    local_accounts: bool

    async def begin(self, *, state: str, nonce: str, challenge: str) -> str:
        """The address to which the browser is sent; ``challenge``: S256 of the verifier. Raises SignOnUnavailable."""
        ...

    async def finish(self, *, code: str, verifier: str, nonce: str, issuer: str | None) -> Person:
        """``issuer``: as the answer names it, if it does. Raises SignOnRefused and SignOnUnavailable."""
        ...

    async def leaving(self) -> str:
        """Where its own session is ended; "" where it says no place. Raises SignOnUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """All that the pages stand on. ``state`` is what ``/readyz`` tells; ``loopback``: the HTTP face is on loopback."""

    reader: Engine
    actions: Actions
    state: Callable[[], Awaitable[tuple[bool, dict[str, typing.Any]]]]
    language: typing.Literal["fr", "en"]
    zone: ZoneInfo
    mode: str
    protocol: str
    destinations: tuple[str, ...]
    loopback: bool
    secure: bool
    """Cookies over TLS only."""
    version: str
    clock: Callable[[], datetime]
    look_ahead: Callable[[Connection, int, bytes], dict[str, typing.Any]]
    """What judging these bytes in place of a message's would change: ``before``, ``after``, ``counts``, ``alerts``."""
    write: Callable[..., Awaitable[typing.Any]]
    """Runs ``operation(connection)`` in the store's next transaction: for accounts and sessions only."""
    sign_on: SignOn | None = None
    """With one the console is never open, with or without accounts."""
    wordings: Wordings = SHIPPED
    """What prescribers are told, in the site's words."""
    noticed: Callable[[str], None] = lambda _event: None
    """Counts what was refused at the log-in, by a fixed word."""
