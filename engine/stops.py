"""What a stop alert rests on: of all counts on file the worst that calls for it, in whatever order they came.

A stop is told under the day of its first count. Later counts make it worse, corrections take counts away, and an earlier
one may come late. So after a correction, and after a count that is not the newest, the patient's stops are asked of every
count anew: what still calls for a stop is told, at the level that it calls for, and an alert whose counts are all gone ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from engine.notify import Notifier, doubted_key
from rules import alert_id
from rules.model import AlertFamily, AlertLevel, Assessment, LabResult, Unassessable
from rules.silence import ENDED, ended_elsewhere_words
from store.port import PatientRecord, ResultRecord, Work

__all__ = ["Ground", "Stops", "has_stops", "settle", "stops_of"]


class Ground(NamedTuple):
    verdict: Assessment
    behind: ResultRecord | None
    """The count; None: the verdict on today, which needs none."""

    @property
    def severity(self) -> tuple[int, bool, Decimal]:
        anc = self.behind.result.anc if self.behind is not None else None
        stops = self.verdict.action.startswith("STOP_IMMEDIATELY")
        return self.verdict.alert.rank, stops, -anc.per_mm3 if anc is not None else Decimal("-Infinity")


class Stops(NamedTuple):
    worst: dict[str, Ground]
    """By alert id, of all red and critical verdicts that call for it."""
    own: dict[str, tuple[str, AlertLevel]]
    """By measurement, the alert id under which its own verdict is told, and its level."""


def has_stops(record: PatientRecord) -> bool:
    return any(entry.alert.family is AlertFamily.STOP for entry in record.alerts.values())


def stops_of(
    record: PatientRecord,
    history: Sequence[ResultRecord],
    judged: Callable[[LabResult | None], Assessment | Unassessable],
) -> Stops:
    """``judged``: the verdict on a count, or on today without one."""
    worst: dict[str, Ground] = {}
    own: dict[str, tuple[str, AlertLevel]] = {}
    for item in (*history, None):
        verdict = judged(item.result if item is not None else None)
        if not isinstance(verdict, Assessment) or verdict.family is not AlertFamily.STOP:
            continue
        if verdict.alert.rank < AlertLevel.RED.rank:
            continue
        ground = Ground(verdict, item)
        number = alert_id(record.id, AlertFamily.STOP, verdict.episode_on or verdict.as_of or "")
        if item is not None:
            own[item.key] = number, verdict.alert
        if number not in worst or ground.severity > worst[number].severity:
            worst[number] = ground
    return Stops(worst, own)


def _acted_on(record: PatientRecord, count: ResultRecord) -> bool:
    """Where a stop is on record somebody has acted on the counts up to it: they are not told anew."""
    stop, drawn = record.course.stop, count.result.collected_at
    return stop is not None and drawn is not None and drawn.date() <= stop.on


def settle(
    notifier: Notifier, record: PatientRecord, stops: Stops, key: str, *, source: str, now: datetime, work: Work
) -> None:
    """Brings the stop alerts to what ``stops`` says. ``key``: the measurement whose version has just changed; only an alert
    that rested on it is lowered."""
    for number, (verdict, behind) in stops.worst.items():
        if behind is None:  # the clock tells what needs no count
            continue
        entry = record.alerts.get(number)
        if entry is None or entry.state == "withdrawn":
            tell = record.course.stop is None
        else:
            tell = verdict.alert.rank > entry.alert.level.rank and not _acted_on(record, behind)
        if tell:
            notifier.raise_for(record, verdict, behind.result, key=behind.key, source=source, now=now, work=work)
            continue
        if entry is None or entry.state == "withdrawn" or entry.result_key not in (key, doubted_key(key)):
            continue
        if stops.own.get(key) != (number, entry.alert.level):
            notifier.lowered(record, entry, verdict, behind, now=now, work=work)
    for number, entry in list(record.alerts.items()):
        if entry.alert.family is not AlertFamily.STOP or entry.state != "open" or number in stops.worst:
            continue
        there = record.alerts.get(stops.own.get(entry.result_key, ("",))[0])
        # Only what is asked there, no less gravely, is not asked here any more.
        if there is None or there.state != "open" or there.alert.level.rank < entry.alert.level.rank:
            continue
        # An earlier count of the same stop came late: the stop is told under its day, and is asked there.
        words = ended_elsewhere_words(entry.alert.title, notifier.words(entry.alert.language))
        notifier.withdrawn(record, entry, words, now=now, work=work, reason=ENDED)
