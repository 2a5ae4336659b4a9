"""From what the store holds of one patient to what the page shows. Pure: facts in, rows and a drawing out.

Rule of the file: it decides nothing clinical. Which version stands, what a verdict says and when the next count is due
come from the record; here they are only put beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from console.timeline import COMPACT, PAPER, WIDE, Count, Standing, Timeline, draw
from rules import MonitoringProtocol, ProtocolError, find_protocol
from rules.actions import ACTIONS
from rules.alerts import review_words, wording_of
from rules.asking import DISPENSED
from rules.course import Chart, Place, open_chart
from rules.decisions import UNDECIDED
from rules.explain import plain
from rules.model import Alert, AlertKind, Assessment, LabResult, ResultStatus, Trust
from rules.schedule import due_of
from rules.silence import SYSTEM_REASONS
from rules.span import anniversary
from rules.texts import Wordings
from rules.withdrawal import ANSWERED_WITHDRAWN
from rules.wording import WORDS
from store.clinic import PatientFile, Version

__all__ = [
    "SPANS",
    "PatientView",
    "PhaseRow",
    "Row",
    "Told",
    "changed",
    "giga",
    "name_of",
    "patient_view",
    "told",
    "told_of",
]

SPANS = {"6m": timedelta(days=183), "1y": timedelta(days=365), "all": None}
"""How far back the drawing goes."""

_GIGA = Decimal(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One version in the table. ``verdict``: the newest (category, level) that was given on it."""

    version: Version
    standing: Standing
    replaced_by: Version | None
    at: datetime | None
    provisional: bool
    verdict: tuple[str, str] | None

    @property
    def result(self) -> LabResult:
        return self.version.result


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """A stretch of the schedule. ``since`` is the first day of it; ``open``: the patient may come to it."""

    id: str
    since: date
    interval: str
    is_open: bool
    is_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientView:
    file: PatientFile
    protocol: MonitoringProtocol | None
    """None: the course names a protocol that this version does not have."""
    chart: Chart | None
    place: str
    """before, under or after."""
    treated_weeks: int | None
    late_days: int
    late_level: str
    """What a count that did not come weighs today (B-11)."""
    rows: tuple[Row, ...]
    """Of the period that is drawn."""
    earlier: int
    """Rows from before it."""
    drawings: tuple[tuple[str, Timeline], ...]
    """(``wide``, ``compact`` or ``paper``, drawing): the same counts for a desk, a phone, a sheet."""
    span: str
    phases: tuple[PhaseRow, ...]

    @property
    def present(self) -> Assessment | None:
        return self.file.listed.present


_WORDED = frozenset({DISPENSED, ANSWERED_WITHDRAWN, UNDECIDED, *SYSTEM_REASONS})
"""Reasons whose alerts have words of their own, with names and days in them."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an alert or a verdict asks for, in one language."""

    title: str
    do: str


def giga(per_mm3: Decimal | None, language: str) -> str:
    """``Decimal("840")`` -> ``0,84`` in French; exact."""
    return plain(per_mm3 / _GIGA).replace(".", WORDS[language].decimal_mark) if per_mm3 is not None else ""


def name_of(family: str, given: str) -> str:
    return " ".join(part for part in (family, given) if part)


def told_of(verdict: Assessment, language: str, wordings: Wordings) -> Told:
    wording = wording_of(verdict, language, wordings)
    return Told(wording.title, wording.do)


def told(alert: Alert, language: str, wordings: Wordings) -> Told:
    """In the visitor's language where the alert stands on a verdict or a coded reason; else, and once it is taken back, as it
    was written."""
    if alert.kind is not AlertKind.WITHDRAWN:
        if alert.assessment is not None and alert.assessment.action in ACTIONS:
            return told_of(alert.assessment, language, wordings)
        words = wordings.words[language]
        if alert.reason and alert.reason not in _WORDED:
            title = words.review_titles.get(alert.reason, words.review_title)
            return Told(title, review_words(alert.reason, alert.where, words))
    return Told(alert.title, alert.text.partition("\n")[0])


def patient_view(
    file: PatientFile, *, today: date, zone: ZoneInfo, protocol: str, span: str = "", on_paper: bool = False
) -> PatientView:
    """``protocol``: for a course that names none. ``span``: a key of SPANS; another, and the fitting one is taken."""
    sizes = (("paper", PAPER),) if on_paper else (("wide", WIDE), ("compact", COMPACT))
    listed = file.listed
    found = _protocol(listed.course.protocol or protocol)
    rows = _rows(file, zone)
    history = [row.result for row in rows if row.standing is Standing.CURRENT and row.result.anc is not None]
    chart = open_chart(found, listed.course, history, today) if found is not None else None
    oldest = min((row.at.date() for row in rows if row.at is not None), default=today)
    span = span if span in SPANS else ("1y" if (today - oldest).days > 420 else "all")
    back = SPANS[span]
    since = today - back if back is not None else None
    # What was replaced stays with its replacement.
    shown = [row for row in rows if since is None or row.at is None or _placed_at(row, row.at).date() >= since]
    counts = [_count(row) for row in rows]
    drawings = tuple(
        (
            name,
            draw(
                counts,
                listed.course,
                found,
                today=today,
                next_due=listed.next_due,
                recheck_by=listed.recheck_by,
                since=since,
                size=size,
            ),
        )
        for name, size in sizes
        if found is not None
    )
    counted_from = listed.counted_from
    return PatientView(
        file=file,
        protocol=found,
        chart=chart,
        place=chart.place.name.lower() if chart is not None else "",
        treated_weeks=chart.clock.treated_days(today) // 7 if chart and chart.place is Place.UNDER else None,
        late_level=due_of(chart).level.value if chart is not None else "amber",
        late_days=max((today - counted_from).days, 0) if counted_from is not None else 0,
        rows=tuple(shown),
        earlier=len(rows) - len(shown),
        drawings=drawings,
        span=span,
        phases=tuple(_phases(chart)) if chart is not None else (),
    )


def changed(detail: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(part, before, after) of what a change of the register moved; "" for nothing."""
    before, after = detail.get("before"), detail.get("after")
    old = before if isinstance(before, dict) else {}
    new = after if isinstance(after, dict) else {}
    found = [(part, _plain(old.get(part)), _plain(new.get(part))) for part in (*new, *(set(old) - set(new)))]
    return [(part, was, now) for part, was, now in found if was != now]


def _plain(value: object) -> str:
    """A value of the register's JSON in one line."""
    if isinstance(value, dict):
        return ", ".join(filter(None, (_plain(part) for part in value.values())))
    if isinstance(value, list):
        return "; ".join(filter(None, (_plain(part) for part in value)))
    return "" if value is None or value is False else "1" if value is True else str(value).replace("T00:00:00", "")


def _protocol(name: str) -> MonitoringProtocol | None:
    try:
        return find_protocol(name)
    except ProtocolError:
        return None


def _rows(file: PatientFile, zone: ZoneInfo) -> tuple[Row, ...]:
    """By day of collection, newest first; versions of one count together, the latest first."""
    rows = [_row(version, file, zone) for version in file.versions]
    epoch = datetime.min.replace(tzinfo=zone)
    return tuple(sorted(rows, key=lambda row: (_placed_at(row, epoch), row.version.id), reverse=True))


def _placed_at(row: Row, epoch: datetime) -> datetime:
    """What was replaced stands with its replacement, even where the laboratory moved its time."""
    at = row.replaced_by.result.collected_at if row.replaced_by is not None else row.at
    return at if at is not None else epoch


def _row(version: Version, file: PatientFile, zone: ZoneInfo) -> Row:
    result = version.result
    successor = None if version.current else _successor(version, file.versions)
    if version.current:
        standing = Standing.WITHDRAWN if result.status.withdrawn else Standing.CURRENT
    elif successor is None:
        standing = Standing.BESIDE
    else:
        standing = Standing.WITHDRAWN if successor.result.status.withdrawn else Standing.REPLACED
    return Row(
        version=version,
        standing=standing,
        replaced_by=successor,
        at=_local(result.collected_at, zone),
        provisional=result.trust is Trust.PROVISIONAL or result.status is ResultStatus.PRELIMINARY,
        verdict=file.verdict_of.get(version.id),
    )


def _local(at: datetime | None, zone: ZoneInfo) -> datetime | None:
    if at is None:
        return None
    return at.astimezone(zone) if at.tzinfo is not None else at.replace(tzinfo=zone)


def _successor(version: Version, versions: Sequence[Version]) -> Version | None:
    """The next version of the same measurement: under its key, or, where another channel goes on with it under a key of
    its own, the one that counts on from it at the same time of collection."""
    same_key = [v for v in versions if v.key == version.key and v.version > version.version]
    if same_key:
        return min(same_key, key=lambda v: (v.version, -v.current, v.id))
    return next(
        (
            v
            for v in versions
            if v.key != version.key
            and v.version == version.version + 1
            and v.result.collected_at == version.result.collected_at
            and version.result.collected_at is not None
        ),
        None,
    )


def _count(row: Row) -> Count:
    anc = row.result.anc
    return Count(
        id=row.version.id,
        at=row.at,
        per_mm3=anc.per_mm3 if anc is not None else None,
        standing=row.standing,
        comparator=anc.comparator if anc is not None else None,
        derived=anc.derived if anc is not None else False,
        provisional=row.provisional,
        replaced_by=row.replaced_by.id if row.replaced_by is not None else None,
    )


def _phases(chart: Chart) -> list[PhaseRow]:
    """The protocol's phases as this patient's dates, gaps subtracted; those for a clean history may be closed."""
    if chart.place is not Place.UNDER:
        return []
    clock = chart.clock
    closed = chart.has_neutropenia or chart.past_unknown
    starts = [anniversary(clock.start, phase.since, clock.lost_days) for phase in chart.protocol.phases]
    rows = []
    now = 0
    for number, (phase, since) in enumerate(zip(chart.protocol.phases, starts, strict=True)):
        is_open = not (phase.without_neutropenia and closed)
        rows.append((phase, since, is_open))
        if is_open and since <= chart.as_of:
            now = number
    return [
        PhaseRow(id=phase.id, since=since, interval=str(phase.interval), is_open=is_open, is_now=number == now)
        for number, (phase, since, is_open) in enumerate(rows)
    ]
