"""``neutroflag rules shadow OLD NEW``: stored history under another protocol; who would have been treated differently, when.

Nothing is written. Patients are read in blocks of the register's order, each core takes the next block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from sqlalchemy import Engine, select

from rules import MonitoringProtocol, find_protocol, parse_protocol
from rules.model import LabResult
from rules.shadow import Shadow, compare
from store import database
from store.tables import patient, result
from store.values import decode_course, decode_result

__all__ = ["PatientShadow", "named_or_file", "shadows"]

_BLOCK = 500


@dataclass(frozen=True, slots=True)
class PatientShadow:
    """``patient``: the register id."""

    patient: str
    shadow: Shadow


def named_or_file(name: str) -> MonitoringProtocol:
    """A packaged protocol, or one in a file that is not packaged yet. Raises ProtocolError, OSError."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return parse_protocol(path.read_text(encoding="utf-8"))
    return find_protocol(name)


def shadows(url: str, old: str, new: str, *, workers: int | None = None) -> Iterator[tuple[int, list[PatientShadow]]]:
    """(patients in all, one block of them), in the register's order. ``old``, ``new``: names or files.

    ``workers`` 1: in this process.
    """
    with database.reader(url).connect() as connection:
        ids = list(connection.scalars(select(patient.c.id).where(patient.c.enrolled).order_by(patient.c.id)))
    blocks = [(url, old, new, ids[at], ids[min(at + _BLOCK, len(ids)) - 1]) for at in range(0, len(ids), _BLOCK)]
    workers = min(workers or os.cpu_count() or 1, len(blocks))
    if workers <= 1:
        for block in blocks:
            yield len(ids), _block(block)
        return
    # A fork would share the reader's connection.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_block, blocks):
            yield len(ids), found


@lru_cache(maxsize=4)
def _protocol(name: str) -> MonitoringProtocol:
    return named_or_file(name)


@lru_cache(maxsize=1)
def _reader(url: str) -> Engine:
    return database.reader(url)


def _block(wanted: tuple[str, str, str, str, str]) -> list[PatientShadow]:
    url, old, new, first, last = wanted
    before, after = _protocol(old), _protocol(new)
    found = []
    with _reader(url).connect() as connection:
        courses = connection.execute(
            select(patient.c.id, patient.c.course).where(patient.c.enrolled, patient.c.id.between(first, last))
        ).all()
        histories: dict[str, list[LabResult]] = {}
        rows = connection.execute(
            select(result.c.patient_id, result.c.body)
            .where(result.c.patient_id.between(first, last), result.c.current, result.c.collected_at.is_not(None))
            .order_by(result.c.patient_id)
        )
        for patient_id, body in rows:
            histories.setdefault(patient_id, []).append(decode_result(body))
    for patient_id, course in sorted(courses):
        history = [one for one in histories.get(patient_id, ()) if one.anc is not None and not one.status.withdrawn]
        history.sort(key=_collected)
        found.append(PatientShadow(patient_id, compare(before, after, decode_course(course), history)))
    return found


def _collected(one: LabResult) -> tuple[float, int]:
    return (one.collected_at.timestamp() if one.collected_at is not None else 0.0, one.id or 0)
