"""A second, slow reading of clinical.md sections 1.1-1.6 and 5, written from the text and not from the code.

``judge(case)`` takes a case as its JSON object and gives the fields that an answer is compared by. It shares nothing
with ``rules``: plain dictionaries, every fact found again from the whole history for every question.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

FIELDS = ("category", "action", "next_due", "recommended_recheck_by", "weekly_until", "alert", "rule")
LEVELS = ("none", "info", "amber", "red", "critical")
WEEK, MONTH = timedelta(days=7), timedelta(days=28)
HAEMATOLOGICAL = ("ANC<1000", "ANC<500", "LEGACY_RED")  # B-16


def day(text: str) -> date:
    return datetime.fromisoformat(text).date()


def years_due(since: date, years: int) -> date:
    """B-4: the last day in time."""
    try:
        return since.replace(year=since.year + years)
    except ValueError:
        return date(since.year + years, 2, 28)


def years_full(since: date, years: int) -> date:
    """B-4: the first day of the next year of treatment."""
    try:
        return since.replace(year=since.year + years)
    except ValueError:
        return date(since.year + years, 3, 1)


class Patient:
    def __init__(self, case: dict[str, Any]) -> None:
        self.ben = bool(case.get("ben_confirmed"))
        self.today = day(case["observation"]["date"])
        self.start = day(case["treatment_start"]) if case.get("treatment_start") else None
        self.stop_on = day(case["treatment_stop"]) if case.get("treatment_stop") else None
        self.stop_for = case.get("stop_reason")
        flags = " ".join(case.get("clinical_flags") or ())
        # R7 is answered by a count of the day (N-6).
        today_counted = any(
            row["anc_per_mm3"] is not None and day(row["date"]) == self.today for row in case["history"]
        )
        silent = case["observation"]["anc_per_mm3"] is None
        self.infection = "infection" in flags and not (silent and today_counted)
        self.risk = "elderly" in flags or "valproate" in flags
        # the lowest of a day. Counts of a later day do not exist yet.
        self.by_day: dict[date, Decimal] = {}
        for row in [*(case.get("history") or ()), case["observation"]]:
            if row["anc_per_mm3"] is None or day(row["date"]) > self.today:
                continue
            value = Decimal(str(row["anc_per_mm3"]))
            on = day(row["date"])
            self.by_day[on] = min(value, self.by_day.get(on, value))
        self.value = None
        if case["observation"]["anc_per_mm3"] is not None:
            self.value = self.by_day.pop(self.today)
        self.gaps: list[tuple[datetime, datetime]] = []
        self.open_since: date | None = None
        for gap in sorted(case.get("interruptions") or (), key=lambda g: str(g["last_dose"])):
            last = datetime.fromisoformat(gap["last_dose"])
            if self.start is None or last.date() < self.start or last.date() > self.today:
                continue
            again = datetime.fromisoformat(gap["restart"]) if gap.get("restart") else None
            if again is None or again.date() > self.today:
                if (self.today - last.date()).days >= 3:
                    self.open_since = last.date()
                continue
            if again > last:
                self.gaps.append((last, again))
                self.open_since = None

    # 1.2 --------------------------------------------------------------------------------------------------------

    def is_stop(self, value: Decimal) -> bool:
        return value < (500 if self.ben else 1000)

    def is_mild(self, value: Decimal) -> bool:
        return 500 <= value <= 1000 if self.ben else 1000 <= value <= 1500

    def low(self, value: Decimal) -> bool:
        return self.is_stop(value) or self.is_mild(value)

    def may_start(self, value: Decimal) -> bool:
        return value >= (1000 if self.ben else 1500)

    def name(self, value: Decimal) -> str:
        if value < 500:
            return "severe"
        if self.is_stop(value):
            return "moderate"
        return "mild" if self.is_mild(value) else "normal"

    # Facts of the past ------------------------------------------------------------------------------------------

    def treated_values(self, before: date) -> list[tuple[date, Decimal]]:
        """A-14, B-18: after the day of the first dose, in order; those of a course that ended earlier too."""
        assert self.start is not None
        rows = sorted((on, value) for on, value in self.by_day.items() if on < before)
        ended = self.stop_on if self.stop_on is not None and self.stop_on < self.start else None
        return [(on, v) for on, v in rows if on > self.start or (ended is not None and on <= ended)]

    def first_stop_value(self) -> date | None:
        assert self.start is not None
        after = self.today + timedelta(days=1)
        return next((on for on, v in self.treated_values(after) if on > self.start and self.is_stop(v)), None)

    def neutropenic_by(self, last: date) -> bool:
        return any(self.low(v) for on, v in self.treated_values(last + timedelta(days=1)))

    # 1.4 --------------------------------------------------------------------------------------------------------

    def replay_gaps(self, until: date) -> dict[str, Any]:
        """Clock, windows and rules as they stand on ``until``."""
        assert self.start is not None
        state: dict[str, Any] = {"zero": self.start, "lost": 0, "windows": [], "rules": []}
        for number, (last, again) in enumerate(self.gaps):
            if again.date() > until:
                break
            length = again - last
            three = timedelta(days=3)
            whole = length
            if length < three:  # B-22
                for earlier_last, earlier_again in self.gaps[:number]:
                    within = earlier_again.date() > again.date() - MONTH
                    if earlier_again - earlier_last < three and within:
                        whole += earlier_again - earlier_last
            rule = None
            if whole >= three:
                rule = self.gap_rule(whole, last.date(), state)
            if length >= three:
                state["lost"] += length.days + (1 if length.seconds else 0)
            if rule in ("new", "retitrate"):
                state["zero"], state["lost"] = again.date(), 0
            window = None
            if rule == "closer":
                window = again.date() + 6 * WEEK
            elif rule == "early":
                window = max(again.date() + 6 * WEEK, state["zero"] + 18 * WEEK + timedelta(days=state["lost"]))
            elif rule in ("new", "retitrate"):
                window = again.date() + 18 * WEEK
            if rule is not None:
                state["rules"].append((rule, again.date(), window))
        return state

    def gap_rule(self, length: timedelta, last: date, state: dict[str, Any]) -> str:
        if last >= self.two_years(state) and not self.neutropenic_by(last):
            return "stable"
        long = length >= MONTH
        if (last - state["zero"]).days - state["lost"] < 126:
            return "new" if long else "early"
        return "retitrate" if long else "closer"

    def two_years(self, state: dict[str, Any]) -> date:
        """A-3, B-4, B-5."""
        lost = timedelta(days=state["lost"])
        return max(years_full(state["zero"], 2) + lost, years_full(state["zero"] + lost, 2))

    # 1.3 --------------------------------------------------------------------------------------------------------

    def phase(self, on: date, *, history: bool) -> int:
        state = self.replay_gaps(on)
        treated = (on - state["zero"]).days - state["lost"]
        if treated < 126:
            return 0
        if treated < 364 or history:
            return 1
        return 3 if on >= self.two_years(state) else 2

    def next_after(self, on: date, value: Decimal) -> tuple[date, date | None, bool]:
        """Next due, recheck, and whether the count is of a weekly phase."""
        history = self.is_mild(value) or any(self.low(v) for _, v in self.treated_values(on))
        phase = self.phase(on, history=history)
        options = [(on + WEEK, on + MONTH, on + 3 * MONTH, years_due(on, 1))[phase]]
        if history:
            options.append(on + MONTH)
        if self.window_on(on) is not None:
            options.append(on + WEEK)
        recheck = on + timedelta(days=3) if self.is_mild(value) and self.unsettled(on, value) else None
        return min(options), recheck, min(options) == on + WEEK

    def window_on(self, on: date) -> tuple[str, date, date] | None:
        """B-3: the rule of the last restart whose window is open, its day, and the latest end."""
        rules = [r for r in self.replay_gaps(on)["rules"] if r[2] is not None and r[1] <= on < r[2]]
        return (rules[-1][0], rules[-1][1], max(r[2] for r in rules)) if rules else None

    def unsettled(self, on: date, value: Decimal) -> bool:
        """B-10, told forwards: the row of mild values that ends today."""
        row: list[Decimal] = []
        for _, earlier in self.treated_values(on):
            row = [*row, earlier] if self.is_mild(earlier) else []
        watched = True
        previous: Decimal | None = None
        for one in [*row, value]:
            if previous is not None:
                if one >= previous:
                    watched = False
                elif one < previous * Decimal("0.8"):
                    watched = True
            previous = one
        return watched


def highest(*levels: str) -> str:
    return max(levels, key=LEVELS.index)


def answer(category: str, action: str, alert: str, rule: str, **dates: date | None) -> dict[str, Any]:
    found: dict[str, Any] = {"category": category, "action": action, "alert": alert, "rule": rule}
    for name in ("next_due", "recommended_recheck_by", "weekly_until"):
        when = dates.get(name)
        found[name] = when.isoformat() if when is not None else None
    return found


def judge(case: dict[str, Any]) -> dict[str, Any]:
    """1.6: before the first dose, after a complete stop, under treatment."""
    p = Patient(case)
    stopped = complete_stop(p)
    if p.start is None or p.today < p.start or (p.today == p.start and stopped is None):
        return before(p)
    if stopped is not None:
        return after_stop(p, *stopped)
    return under(p)


def complete_stop(p: Patient) -> tuple[date, bool, bool] | None:
    """(day, haematological, recorded). B-17: a stop-level value is a stop by itself; B-23: so is a gap left open."""
    if p.start is None:
        return None
    low = p.first_stop_value()
    if p.stop_on is not None and p.start <= p.stop_on <= p.today:
        for_blood = p.stop_for in HAEMATOLOGICAL
        restarted = any(again.date() > p.stop_on for _, again in p.gaps)
        if for_blood or not restarted:
            if low is not None and not for_blood:
                return max(p.stop_on, low), True, True
            return p.stop_on, for_blood, True
    if low is not None:
        return low, True, False
    if p.open_since is None or banned_on_file(p):  # N-11: a pause takes nothing from R5
        return None
    return p.open_since, False, False


def banned_on_file(p: Patient) -> bool:
    """R5 from before this treatment."""
    if p.stop_on is None or p.stop_on > p.today or not (p.start is None or p.stop_on < p.start):
        return False
    # a stop-level value of a course that ended for another reason bans as well.
    return p.stop_for in HAEMATOLOGICAL or any(on <= p.stop_on and p.is_stop(v) for on, v in p.by_day.items())


def before(p: Patient) -> dict[str, Any]:
    if banned_on_file(p):
        return answer("contraindicated", "DO_NOT_REEXPOSE", "critical", "R5")
    if p.value is None:
        if p.infection and p.start == p.today:  # R7: at any time
            return answer("no_result", "OBTAIN_ANC_IMMEDIATELY", "red", "R7", next_due=p.today)
        last = max(p.by_day, default=None)
        valid = p.start is not None and last is not None and (p.start - last).days <= 10 and p.may_start(p.by_day[last])
        if valid and p.start is not None and not p.infection:
            return answer("no_result", "AWAIT_SCHEDULED_ANC", "none", "R3", next_due=p.start + WEEK)
        level = "none" if p.start is None else "amber"
        return answer("no_result", "OBTAIN_ANC_BEFORE_START", level, "R2", next_due=p.start)
    if not p.may_start(p.value):
        return answer("below_initiation_threshold", "DO_NOT_INITIATE", "red", "R2")
    if p.start is not None and (p.start - p.today).days > 10:  # B-18
        return answer("eligible", "OBTAIN_ANC_BEFORE_START", "amber", "R2", next_due=p.start)
    due = p.start + WEEK if p.start is not None else None  # B-19
    return answer("eligible", "INITIATION_PERMITTED", "amber" if p.infection else "none", "R2", next_due=due)


def after_stop(p: Patient, on: date, haematological: bool, recorded: bool) -> dict[str, Any]:
    """R6, A-10, A-11, B-14, B-15."""
    over = p.today >= on + MONTH
    rule = "R5" if haematological else "R6"
    if p.value is None:
        return after_stop_silent(p, on, haematological, recorded, over)
    value, low = p.value, p.is_stop(p.value)
    tomorrow = p.today + timedelta(days=1) if low else None
    own = "critical" if value < 500 else "red" if low else ""
    if low and recorded and on == p.today:
        return stop_now(p, value)
    signs = {"": "none"}
    if p.infection:
        signs = {"": "critical" if low else "red" if p.is_mild(value) else "amber"}
    if haematological:
        if over and recorded and p.may_start(value):  # B-17: without a recorded stop the drug may run on
            return answer("post_stop", "POST_STOP_COMPLETE_NO_REEXPOSURE", "amber", rule)
        return answer(
            "post_stop",
            "WEEKLY_POST_STOP_NO_REEXPOSURE",
            highest(own or "amber", signs[""]),
            rule,
            next_due=p.today + WEEK,
            recommended_recheck_by=tomorrow,
        )
    if low:
        return answer(
            "post_stop",
            "DO_NOT_REEXPOSE",
            highest(own, signs[""]),
            "R5",
            next_due=p.today + WEEK,
            recommended_recheck_by=tomorrow,
        )
    if over:
        return answer("post_stop", "POST_STOP_COMPLETE", "none", rule)
    return answer(
        "post_stop",
        "WEEKLY_POST_STOP",
        highest("amber" if p.is_mild(value) else "info", signs[""]),
        rule,
        next_due=p.today + WEEK,
        weekly_until=on + MONTH,
    )


def after_stop_silent(p: Patient, on: date, haematological: bool, recorded: bool, over: bool) -> dict[str, Any]:
    known = [d for d in p.by_day if d <= p.today]
    last = max(known, default=None)
    last_low = last is not None and p.is_stop(p.by_day[last])
    since_stop = last is not None and last >= on
    recovered = last is not None and since_stop and p.may_start(p.by_day[last])
    done = over and (not haematological or (recorded and recovered))
    if done:
        action = "POST_STOP_COMPLETE_NO_REEXPOSURE" if haematological else "POST_STOP_COMPLETE"
        return answer("no_result", action, "none", "R6")
    if p.infection:
        return answer("no_result", "OBTAIN_ANC_IMMEDIATELY", "red", "R7", next_due=p.today)
    since = max(last, on) if last is not None else on
    asked = last_low or (haematological and not since_stop)
    recheck = since + timedelta(days=1) if asked else None
    return silent(p, since + WEEK, recheck, weekly=True, rule="R6")


def silent(p: Patient, due: date, recheck: date | None, *, weekly: bool, rule: str) -> dict[str, Any]:
    """B-11, B-12."""
    since = due if recheck is None else min(due, recheck)
    late = (p.today - since).days
    dates = {"next_due": due, "recommended_recheck_by": recheck}
    if late <= 0:
        return answer("no_result", "AWAIT_SCHEDULED_ANC", "none", rule, **dates)
    patience = 3 if weekly or (recheck is not None and recheck <= due) else 7
    return answer("no_result", "OBTAIN_ANC_OVERDUE", "red" if late > patience else "amber", rule, **dates)


def stop_now(p: Patient, value: Decimal) -> dict[str, Any]:
    level = "critical" if value < 500 or p.infection or banned_on_file(p) else "red"  # N-11
    return answer(
        p.name(value),
        "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE",
        level,
        "R5",
        next_due=p.today + WEEK,
        recommended_recheck_by=p.today + timedelta(days=1),
    )


ACTIONS = {
    "early": ("CONTINUE_WEEKLY", "R3a"),
    "new": ("RESTART_AS_NEW_PATIENT", "R3a"),
    "closer": ("CLOSER_MONITORING", "R8b"),
    "retitrate": ("WEEKLY_AND_RETITRATE", "R8c"),
}


def under(p: Patient) -> dict[str, Any]:
    assert p.start is not None
    if p.value is None:
        return under_silent(p)
    value = p.value
    if p.is_stop(value):
        return stop_now(p, value)
    if banned_on_file(p):
        return answer("contraindicated", "DO_NOT_REEXPOSE", "critical", "R5", next_due=p.today + WEEK)
    rules = p.replay_gaps(p.today)["rules"]
    if rules and rules[-1][0] == "new" and rules[-1][1] == p.today and not p.may_start(value):  # B-21
        return answer("below_initiation_threshold", "DO_NOT_INITIATE", "red", "R2")
    mild = p.is_mild(value)
    earlier = p.treated_values(p.today)
    history = mild or any(p.low(v) for _, v in earlier)
    due, recheck, _ = p.next_after(p.today, value)
    window = p.window_on(p.today)
    since_restart = bool(rules) and not any(on >= rules[-1][1] for on, _ in earlier)
    resumed = bool(rules) and rules[-1][0] == "stable" and since_restart
    phase = p.phase(p.today, history=history)
    level = "none"
    if mild:
        level = "amber" if window is not None or recheck is not None else "info"
    elif since_restart and (window is not None or resumed):
        level = "info" if resumed else "amber"
    if not mild and window is None and changed_phase(p, phase, history=history):
        level = highest(level, "info")
    last_gap = p.gaps[-1] if p.gaps else None
    over_two_days = last_gap is not None and last_gap[1] - last_gap[0] > timedelta(hours=48)  # B-6
    if over_two_days and last_gap is not None and not any(on >= last_gap[1].date() for on, _ in earlier):
        level = highest(level, "info")
    if p.risk:  # R9, A-18
        level = highest(level, "info")
    if p.infection:  # B-13
        level = highest(level, "red" if mild else "amber")
    phase_rule = ("R3a", "R3b", "R3c", "R3d")[phase]
    until = None
    if window is not None:
        action, rule = ACTIONS[window[0]]
        until = window[2]
    elif resumed and not mild:
        action, rule = "RESUME_PREVIOUS_SCHEDULE", "R8a"
    elif history and due == p.today + WEEK:
        action, rule = "CONTINUE_WEEKLY_UNTIL_WEEK_18_THEN_MONTHLY_THROUGHOUT", "R4"
    elif history:
        action, rule = "CONTINUE_MONTHLY_THROUGHOUT", "R4"
    else:
        action, rule = "CONTINUE", phase_rule
    if mild:
        rule = "R4"
    return answer(p.name(value), action, level, rule, next_due=due, recommended_recheck_by=recheck, weekly_until=until)


def changed_phase(p: Patient, phase: int, *, history: bool) -> bool:
    """B-1; without an earlier count, within an interval of the phase before."""
    if phase == 0:
        return False
    known = [on for on in p.by_day if on < p.today]
    if known:
        before_on = max(known)
    else:
        interval = (WEEK, MONTH, 3 * MONTH)[phase - 1]
        before_on = max(p.today - interval, p.replay_gaps(p.today)["zero"])
    assert p.start is not None
    return before_on < p.start or p.phase(before_on, history=history) < phase


def under_silent(p: Patient) -> dict[str, Any]:
    assert p.start is not None
    if banned_on_file(p):
        return answer("contraindicated", "DO_NOT_REEXPOSE", "critical", "R5", next_due=p.today + WEEK)
    if p.infection:
        return answer("no_result", "OBTAIN_ANC_IMMEDIATELY", "red", "R7", next_due=p.today)
    counts = p.treated_values(p.today + timedelta(days=1))
    recheck: date | None
    if counts:
        due, recheck, weekly = p.next_after(*counts[-1])
    else:
        due, recheck, weekly = p.start + WEEK, None, True
    rules = [(last.date(), r) for (last, again), r in _gaps_with_rules(p)]
    if rules:
        last_dose, (name, again, _) = rules[-1]
        latest = counts[-1][0] if counts else None
        if latest is None or latest <= last_dose:
            recheck = again if recheck is None else min(recheck, again)
        asked = again + WEEK
        if latest is not None and latest > last_dose:  # a count of the gap: one interval, and not before the restart
            asked = max(again, latest + WEEK)
        if (latest is None or latest < again) and name != "stable" and asked <= due:
            due, weekly = asked, True
    return silent(p, due, recheck, weekly=weekly, rule="R3")


def _gaps_with_rules(p: Patient) -> list[tuple[tuple[datetime, datetime], tuple[str, date, date | None]]]:
    rules = p.replay_gaps(p.today)["rules"]
    return [(gap, rule) for gap in p.gaps for rule in rules if rule[1] == gap[1].date()]
