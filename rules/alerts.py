"""The words of an alert: complete in themselves, in French or English, without colour or context.

Never here: the mandatory mention of the prescription (clinical.md 3, F2), which only a prescriber may write.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from rules.actions import Wording
from rules.explain import plain
from rules.model import AlertFamily, AlertLevel, Assessment, LabResult
from rules.named_ids import namer
from rules.texts import SHIPPED, Wordings
from rules.words import Words

__all__ = ["NAMESPACE", "AlertDraft", "alert_id", "alerts_for", "review_alert", "review_words", "wording_of"]

NAMESPACE = uuid.UUID("5f0a3c1e-6d0b-5f7e-9a3b-0c9d6c1f2a75")
"""Of every alert id; changing it would make every open alert a new one."""

_PER_GIGA = Decimal(1000)
_named = namer(NAMESPACE)


@dataclass(frozen=True, slots=True)
class AlertDraft:
    """What to tell, before it is known to whom and for which time. ``level`` is never none."""

    id: str
    family: AlertFamily
    level: AlertLevel
    title: str
    text: str


def alert_id(register_id: str, family: AlertFamily, episode: date | str) -> str:
    """uuid5 of the register id, the family and the episode: one alert for all counts of an episode."""
    key = episode if isinstance(episode, str) else episode.isoformat()
    return _named(f"{register_id}|{family.value}|{key}")


def alerts_for(
    assessment: Assessment,
    *,
    register_id: str,
    language: str,
    result: LabResult | None = None,
    instead_of: LabResult | None = None,
    wordings: Wordings = SHIPPED,
) -> AlertDraft | None:
    """The alert of an assessment; None for level none.

    ``language``: ``fr`` or ``en`` (KeyError for another). ``result``: the count that was judged, for its value in words;
    ``instead_of``: what the laboratory had reported of it before. ``wordings``: the site's texts.
    """
    words = wordings.words[language]
    if assessment.alert is AlertLevel.NONE or assessment.family is None:
        return None
    wording = wording_of(assessment, language, wordings)
    value = _value(words, result)
    lines = [
        f"{words.levels[assessment.alert.value]}. {wording.do}",
        _finding(words, assessment, result, value),
        _first_reported(words, assessment, result, instead_of),
        _dates(words, assessment),
        *(words.remarks[remark] for remark in assessment.remarks if remark in words.remarks),
        *_duties(words, assessment),
        f"{words.arithmetic} {dict(assessment.explanation)[language]}." if assessment.explanation else "",
        _source(words, assessment),
    ]
    return AlertDraft(
        id=alert_id(register_id, assessment.family, assessment.episode_on or assessment.as_of or ""),
        family=assessment.family,
        level=assessment.alert,
        title=f"{wording.title} - {words.anc} {value}" if value else wording.title,
        text="\n".join(line for line in lines if line),
    )


def wording_of(assessment: Assessment, language: str, wordings: Wordings = SHIPPED) -> Wording:
    """What to do. "Monitoring after the stop" would reassure where nobody has recorded that the drug was stopped (B-17)."""
    if assessment.family is AlertFamily.STOP and "stop-not-recorded" in assessment.remarks:
        words = wordings.words[language]
        return Wording(words.stop_unrecorded_title, words.stop_unrecorded)
    return wordings.actions[assessment.action][language]


def review_alert(
    reason: str, where: str, *, register_id: str, key: str, language: str, wordings: Wordings = SHIPPED
) -> AlertDraft:
    """Something that a person must look at: mostly a count that could not be read, and counts as not done.

    ``reason`` is the coded reason (``unit-missing``), ``where`` its place in the message; ``key`` names the alert.
    """
    words = wordings.words[language]
    return AlertDraft(
        id=alert_id(register_id, AlertFamily.REVIEW, key),
        family=AlertFamily.REVIEW,
        level=AlertLevel.AMBER,
        title=words.review_titles.get(reason, words.review_title),
        text=review_words(reason, where, words),
    )


def review_words(reason: str, where: str, words: Words) -> str:
    """What a person is to look at, and why; of most codes a count that could not be read."""
    text = words.reviews.get(reason, words.review)
    return text.format(reason=words.reasons.get(reason, reason), place=f" ({where})" if where else "")


def _value(words: Words, result: LabResult | None) -> str:
    """``0,8 G/L (800/mm3)``; the sign of a censored value is kept."""
    if result is None or result.anc is None:
        return ""
    sign = result.anc.comparator or ""
    per_mm3 = result.anc.per_mm3
    return f"{sign}{_giga(words, per_mm3)} G/L ({sign}{plain(per_mm3)}/mm3)"


def _giga(words: Words, per_mm3: Decimal) -> str:
    return plain(per_mm3 / _PER_GIGA).replace(".", words.decimal_mark)


def _finding(words: Words, assessment: Assessment, result: LabResult | None, value: str) -> str:
    if not value or result is None or result.anc is None:
        return ""
    on = words.date(assessment.as_of) if assessment.as_of is not None else ""
    threshold = assessment.threshold_per_mm3
    if threshold is None:
        return words.finding.format(value=value, on=on)
    limit = f"{_giga(words, threshold)} G/L ({plain(threshold)}/mm3)"
    worst = result.anc.per_mm3 if result.anc.lower_bound is None else min(result.anc.per_mm3, result.anc.lower_bound)
    if worst == threshold and result.anc.comparator != "<":
        return words.finding_at.format(value=value, on=on, limit=limit)
    return (words.finding_below if worst <= threshold else words.finding_above).format(value=value, on=on, limit=limit)


def _first_reported(words: Words, assessment: Assessment, result: LabResult | None, before: LabResult | None) -> str:
    """A higher count that was reported first has reassured: it is taken back in so many words (standards.md 5.3)."""
    if result is None or result.anc is None or before is None or before.anc is None or before.status.withdrawn:
        return ""
    if assessment.alert.rank < AlertLevel.AMBER.rank or before.anc.per_mm3 <= result.anc.per_mm3:
        return ""
    return words.first_reported.format(value=_value(words, before))


def _dates(words: Words, assessment: Assessment) -> str:
    parts = []
    if assessment.recommended_recheck_by is not None:
        parts.append(words.recheck.format(day=words.date(assessment.recommended_recheck_by)))
    if assessment.next_due is not None:
        parts.append(words.due.format(day=words.date(assessment.next_due)))
    if assessment.weekly_until is not None:
        parts.append(words.weekly.format(day=words.date(assessment.weekly_until)))
    return " ".join(parts)


def _duties(words: Words, assessment: Assessment) -> list[str]:
    duties: list[str] = []
    stop = assessment.family is AlertFamily.STOP
    if stop or assessment.family is AlertFamily.MILD:
        duties.append(words.infection)
    if stop and assessment.category != "contraindicated":
        duties.append(words.reporting)  # F7
    if assessment.family is AlertFamily.SCHEDULE:
        duties.append(words.maxima)  # A-24, B-29
    return duties


def _source(words: Words, assessment: Assessment) -> str:
    quotes = [f"{c.source.upper()}, {c.locator} : « {c.quote} »" for c in assessment.citations[:1]]
    readings = words.readings.format(ids=", ".join(assessment.readings)) if assessment.readings else ""
    return " ".join([*quotes, f"[{assessment.protocol}]", readings]).strip()
