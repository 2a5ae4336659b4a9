"""What makes a course of treatment contradict itself, by place and reason. A contradiction is never judged.

A start after the day of judgement is a planned one and sound, unless something of the treatment is already on file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import date, datetime, time

from rules.model import TreatmentCourse
from rules.span import Span, due_after

__all__ = ["course_faults"]

# Nobody plans a first dose further ahead: a later one is a slip of the pen.
_PLANNED_WITHIN = Span(90, "day")


def course_faults(course: TreatmentCourse, as_of: date) -> Iterator[tuple[str, str]]:
    """(``interruptions[2].restart``, why): every contradiction of ``course``, places counted from 1 as written."""
    start = course.start
    if start is not None and start > due_after(as_of, _PLANNED_WITHIN):
        yield "treatment_start", f"{start} is in the future, more than {_PLANNED_WITHIN} after {as_of}"
    for number, gap in enumerate(course.interruptions, start=1):
        place = f"interruptions[{number}]"
        if start is not None and gap.last_dose.date() < start:
            yield f"{place}.last_dose", f"{gap.last_dose.date()} is before the start of {start}"
        if gap.restart is not None and _earlier(gap.restart, gap.last_dose):
            yield f"{place}.restart", f"{gap.restart.date()} is before the last dose of {gap.last_dose.date()}"
    ordered = sorted(enumerate(course.interruptions, start=1), key=lambda item: item[1].last_dose)
    for (before, earlier), (after, later) in itertools.pairwise(ordered):
        if earlier.restart is None or _earlier(later.last_dose, earlier.restart):
            yield f"interruptions[{after}].last_dose", f"overlaps interruptions[{before}]"


def _earlier(one: datetime, other: datetime) -> bool:
    """A date alone is some time of that day."""
    dates_alone = time() in (one.time(), other.time())
    return one.date() < other.date() if dates_alone else one < other
