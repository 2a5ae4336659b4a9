"""The sentences that are said to a prescriber, named; ``rules.french`` and ``rules.english`` say them.

What a sentence must name stands in it in braces (``{day}``). A site may put its own in their places (``rules.texts``).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, datetime

__all__ = ["Words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    decimal_mark: str
    moment_format: str
    date_format: str
    anc: str
    levels: dict[str, str]
    finding: str
    finding_below: str
    finding_at: str
    finding_above: str
    first_reported: str
    recheck: str
    due: str
    weekly: str
    infection: str
    reporting: str
    maxima: str
    arithmetic: str
    readings: str
    stop_unrecorded_title: str
    stop_unrecorded: str
    review_title: str
    review: str
    reasons: dict[str, str]
    review_titles: dict[str, str]
    reviews: dict[str, str]
    remarks: dict[str, str]
    again_title: str
    again: str
    back_title: str
    back: str
    asked_now: str
    answered_title: str
    answered: str
    undecided_title: str
    undecided: str
    copy_titles: dict[str, str]
    copies: dict[str, str]
    copy_withdrawn: str
    dispensed_title: str
    dispensed: str
    never_again: str
    withdrawn_title: str
    corrected: str
    taken_back: str
    lowered_title: str
    lowered: str
    in_error: str
    cancelled: str
    moved: str
    never_alone: str
    acted_title: str
    acted: str
    unsure_title: str
    unsure: str
    ended_title: str
    arrived: str
    not_expected: str
    elsewhere: str
    system_titles: dict[str, str]
    system: dict[str, str]
    system_ended: dict[str, str]
    decisions: dict[str, str]
    count_to_order: str
    computed: str
    computed_worst: str
    v2_count: str
    v2: dict[str, str]
    v2_conclusions: dict[str, str]

    def date(self, day: date) -> str:
        return _date(day, self.date_format)

    def moment(self, at: datetime) -> str:
        """A local time as a sentence names it."""
        return at.strftime(self.moment_format)


@functools.lru_cache(maxsize=4096)
def _date(day: date, date_format: str) -> str:
    return day.strftime(date_format)
