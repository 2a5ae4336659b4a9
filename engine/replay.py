"""Makes stored verdicts again: each from the course as it was judged, the counts as they were known, and its own protocol.

A batch files several results before its verdicts are written, so what was known lies between the result and the verdict:
a verdict is the same when one of these moments gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, tzinfo
from typing import Any, Literal

from sqlalchemy import Connection, select

from rules import ProtocolError, assess, find_protocol
from rules.model import Assessment, LabResult, TreatmentCourse
from store.tables import assessment, patient, result
from store.values import decode_assessment, decode_course, decode_result, from_ms

__all__ = ["Replayed", "replayed"]

# More results than one batch files for one patient.
_MOMENTS = 200


@dataclass(frozen=True, slots=True)
class Replayed:
    """``unknown``: the course was not kept, or the protocol is not packaged any more."""

    assessment_id: int
    patient_id: str
    outcome: Literal["same", "differs", "unknown"]
    words: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    id: int
    key: str
    number: int
    result: LabResult


def replayed(connection: Connection, zone: tzinfo) -> Iterator[Replayed]:
    """Every stored verdict, by patient. ``zone``: the site's, for the day on which a present state was looked at."""
    for patient_id in connection.scalars(select(patient.c.id).order_by(patient.c.id)).all():
        rows = connection.execute(
            select(assessment).where(assessment.c.patient_id == patient_id).order_by(assessment.c.id)
        ).mappings()
        verdicts = rows.all()
        if verdicts:
            versions = _versions(connection, patient_id)
            for row in verdicts:
                yield _again(row, versions, zone)


def _versions(connection: Connection, patient_id: str) -> list[_Version]:
    rows = connection.execute(
        select(result.c.id, result.c.key, result.c.version, result.c.body)
        .where(result.c.patient_id == patient_id)
        .order_by(result.c.id)
    )
    return [_Version(row.id, row.key, row.version, decode_result(row.body)) for row in rows]


def _again(row: Any, versions: Sequence[_Version], zone: tzinfo) -> Replayed:
    number, patient_id, stored = row["id"], row["patient_id"], decode_assessment(row["body"])
    if row["course"] is None:
        return Replayed(number, patient_id, "unknown", "the course was not kept")
    if stored.as_of is None:
        return Replayed(number, patient_id, "unknown", "the day was not kept")
    try:
        protocol = find_protocol(stored.protocol)
    except ProtocolError as error:
        return Replayed(number, patient_id, "unknown", str(error))
    course = decode_course(row["course"])
    looked_on = from_ms(row["made_at"]).astimezone(zone).date()
    known = [one for one in versions if one.id <= number]
    item = next((one for one in known if one.id == row["result_id"]), None)
    first = item.id if item is not None else 0
    moments = [one.id for one in known if one.id >= first][-_MOMENTS:] or [number]
    for moment in reversed(moments):
        history = _current([one for one in known if one.id <= moment])
        for found in _verdicts(protocol, course, history, item, stored.as_of, looked_on, zone):
            if found == stored:
                return Replayed(number, patient_id, "same")
    return Replayed(number, patient_id, "differs", f"{stored.action} of {stored.as_of} is not what comes out today")


def _verdicts(
    protocol: Any,
    course: TreatmentCourse,
    history: list[_Version],
    item: _Version | None,
    as_of: date,
    looked_on: date,
    zone: tzinfo,
) -> Iterator[Assessment]:
    """What the engine may have filed at this moment: the verdict itself, or the present state with the day's dates."""
    counts = [one.result for one in history if one.result.anc is not None and not one.result.status.withdrawn]
    if item is None:
        found = assess(protocol, course, counts, None, as_of)
        if isinstance(found, Assessment):
            yield found
        return
    judged = item.result
    if all(one.id != item.id for one in history):
        judged = replace(judged, key=f"{judged.key}|doubted")  # as engine.present does with a doubtful restatement
    if judged.collected_at is None:
        judged = replace(judged, collected_at=datetime.combine(as_of, time(), tzinfo=zone), time_known=False)
    others = [one for one in counts if one.id != judged.id and one.collected_at is not None]
    found = assess(protocol, course, others, judged, as_of)
    if not isinstance(found, Assessment):
        return
    yield found
    today = assess(protocol, course, [one for one in counts if one.collected_at is not None], None, looked_on)
    if isinstance(today, Assessment):
        yield replace(found, next_due=today.next_due, recommended_recheck_by=today.recommended_recheck_by)


def _current(versions: Sequence[_Version]) -> list[_Version]:
    """Of each measurement the version that stood: the highest number, and of equals the first to be filed."""
    standing: dict[str, _Version] = {}
    for one in versions:
        if one.number > 0 and (one.key not in standing or one.number > standing[one.key].number):
            for former in one.result.also:
                standing.pop(former, None)
            standing[one.key] = one
    return list(standing.values())
