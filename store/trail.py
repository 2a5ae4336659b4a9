"""Who did what, as a chain: each row holds a hash of itself and of all before it, so that an edit or a gap is found.

Rule of the file: rows are only ever added. What retention or an erasure takes away leaves its place and its hash behind, so
that the chain still holds and the number of such places is known. Rows cut off the end leave no trace in the database:
for that ``head`` is noted elsewhere (the log has it), and ``verify`` is asked whether the chain still passes through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, literal_column, select, update

from store import inbox
from store.statement import Prepared, inserting
from store.tables import audit
from store.values import encode, new_id

__all__ = ["REMOVED", "Entry", "append", "head", "remove", "verify"]

REMOVED = "removed"
"""The action of a row whose content is gone."""
_START = bytes(32)
_PAGE = 5000
_LOCK = 7236857432

_last = Prepared(select(audit.c.seq, audit.c.link).order_by(audit.c.seq.desc()).limit(1))
_insert = inserting(audit)
_lock = Prepared(select(func.pg_advisory_xact_lock(literal_column(str(_LOCK)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act. ``detail`` is JSON."""

    at_ms: int
    actor: str
    action: str
    patient_id: str | None = None
    detail: str = "{}"


def append(connection: Connection, entries: Iterable[Entry]) -> None:
    """In the caller's transaction, which on SQLite holds the write lock; on a server the chain has a lock of its own."""
    wanted = list(entries)
    if not wanted:
        return
    if connection.dialect.name != "sqlite":
        _lock.ask(connection, [{}])
    found = _last.rows(connection, {})
    seq, link = (found[0][0], bytes(found[0][1])) if found else (0, _START)
    rows = []
    for entry in wanted:
        seq += 1
        content = _content(seq, entry.at_ms, entry.actor, entry.action, entry.patient_id, entry.detail)
        link = _linked(link, content)
        rows.append(
            {
                "id": new_id(),
                "seq": seq,
                "at": entry.at_ms,
                "actor": entry.actor,
                "action": entry.action,
                "patient_id": entry.patient_id,
                "detail": entry.detail,
                "content": content,
                "link": link,
            }
        )
    _insert.many(connection, rows)


def remove(connection: Connection, ids: Sequence[int]) -> None:
    """Takes the content of these rows; their places stay."""
    if not ids:
        return
    gone = update(audit).where(audit.c.id.in_(ids), audit.c.action != REMOVED)
    number = connection.execute(gone.values(actor="", action=REMOVED, patient_id=None, detail="{}")).rowcount
    inbox.count(connection, [("audit_removed", "", number)])


def head(connection: Connection) -> tuple[int, str]:
    """(number of entries ever made, hash of the chain in hex): to be noted where whoever edits the database cannot."""
    found = _last.rows(connection, {})
    return (found[0][0], bytes(found[0][1]).hex()) if found else (0, _START.hex())


def verify(connection: Connection, noted: tuple[int, str] | None = None) -> list[str]:
    """One sentence a fault, at most the first of each kind; ``noted``: a head of earlier."""
    found: list[str] = []
    seq, link, removed = 0, _START, 0
    passed = noted is None or (noted[0] == 0)
    while True:
        rows = connection.execute(select(audit).where(audit.c.seq > seq).order_by(audit.c.seq).limit(_PAGE)).all()
        if not rows:
            break
        for row in rows:
            fault = _fault(row, seq, link)
            if fault and not found:
                found.append(f"audit: {fault}")
            removed += row.action == REMOVED
            seq, link = row.seq, bytes(row.link)
            if noted is not None and seq == noted[0]:
                passed = link.hex() == noted[1].lower()
    kept = inbox.counted(connection).get(("audit_removed", ""), 0)
    if removed != kept:
        found.append(f"audit: {removed} entries are without content, {kept} were removed")
    if not passed and noted is not None:
        found.append(
            f"audit: entry {noted[0]} is not the one that was noted"
            if seq >= noted[0]
            else f"audit: ends at entry {seq}; entry {noted[0]} was noted"
        )
    return found


def _fault(row: Any, before: int, link: bytes) -> str:
    if row.seq != before + 1:
        return f"entry {before + 1} is missing"
    content = bytes(row.content)
    if _linked(link, content) != bytes(row.link):
        return f"entry {row.seq} does not follow from the one before it"
    if row.action == REMOVED:
        return "" if (row.actor, row.patient_id, row.detail) == ("", None, "{}") else f"entry {row.seq} was changed"
    if _content(row.seq, row.at, row.actor, row.action, row.patient_id, row.detail) != content:
        return f"entry {row.seq} was changed"
    return ""


def _content(seq: int, at_ms: int, actor: str, action: str, patient_id: str | None, detail: str) -> bytes:
    return hashlib.sha256(encode([seq, at_ms, actor, action, patient_id, detail]).encode()).digest()


def _linked(link: bytes, content: bytes) -> bytes:
    return hashlib.sha256(link + content).digest()
