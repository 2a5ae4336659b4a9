"""An alert that nobody answered in time, or that was handed back: it becomes more urgent and the next owner is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from engine.notify import Notifier
from rules.asking import handed_back_words, unanswered_words
from rules.model import AlertKind, AlertLevel
from store.port import AlertRecord, Step, Work

__all__ = ["AGAIN", "Escalation"]

_HOUR = timedelta(hours=1)
AGAIN: Mapping[AlertLevel, timedelta] = {
    AlertLevel.CRITICAL: _HOUR,
    AlertLevel.RED: 4 * _HOUR,
    AlertLevel.AMBER: 24 * _HOUR,
}
"""How long each later owner has, by the alert's level."""
_HIGHER = {
    AlertLevel.NONE: AlertLevel.NONE,
    AlertLevel.INFO: AlertLevel.AMBER,
    AlertLevel.AMBER: AlertLevel.RED,
    AlertLevel.RED: AlertLevel.CRITICAL,
    AlertLevel.CRITICAL: AlertLevel.CRITICAL,
}
# Who was asked is remembered as far back as any rota is long.
_REMEMBERED = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    notifier: Notifier
    zone: ZoneInfo
    again: Mapping[AlertLevel, timedelta] = dataclasses.field(default_factory=lambda: AGAIN)

    def unanswered(self, entry: AlertRecord, work: Work, now: datetime, *, but: str = "") -> AlertRecord:
        """The alert one step on; adds its notifications to ``work``. Urgency rises one level, and no further however long
        it takes: the level itself is what the rules say."""
        before = entry.alert
        allowed = (self.again if before.escalation else self.notifier.patience).get(before.level, _HOUR)
        hours = f"{allowed / _HOUR:g}"
        return self._passed(entry, work, now, _HIGHER[before.level], hours=hours, but=but)

    def handed_back(self, entry: AlertRecord, work: Work, now: datetime, *, by: str) -> AlertRecord:
        """To the next owner at once, as urgent as it was."""
        return self._passed(entry, work, now, entry.alert.urgency, by=by)

    def _passed(
        self,
        entry: AlertRecord,
        work: Work,
        now: datetime,
        urgency: AlertLevel,
        *,
        hours: str = "",
        by: str = "",
        but: str = "",
    ) -> AlertRecord:
        before, routing = entry.alert, self.notifier.routing
        owner = routing.next_owner(before.asked, now) if routing is not None else "".join(before.asked[-1:])
        words = self.notifier.words(before.language)
        since = before.raised_at.astimezone(self.zone)
        if by:
            title, text = handed_back_words(before, words, since=since, owner=owner)
        else:
            title, text = unanswered_words(before, words, since=since, hours=hours, owner=owner)
        alert = dataclasses.replace(
            before,
            revision=before.revision + 1,
            kind=AlertKind.UPDATED,
            title=title,
            text=text,
            bare=before.bare_words,
            updated_at=now,
            answer_by=now + self.again.get(before.level, _HOUR),
            escalation=before.escalation + 1,
            urgency=urgency,
            asked=(*before.asked, owner)[-_REMEMBERED:] if owner else before.asked,
        )
        if owner:
            alert = self.notifier.put_to(alert, owner)
        passed = dataclasses.replace(entry, alert=alert)
        work.steps.append(
            Step(
                alert_id=alert.id,
                revision=alert.revision,
                patient_id=entry.patient_id,
                at=now,
                state="escalated",
                who=owner,
                evidence=f"handed back by {by}" if by else f"no answer in {hours} h",
            )
        )
        self.notifier.send(passed, work, but=but)
        return passed
