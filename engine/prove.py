"""Proves of a protocol, for every count and every state at once, what its file declares (``properties``).

The numbers of the protocol become formulas over real counts and whole days; z3 looks for a state that breaks a property.
Nothing of the evaluator is used: tests compare the two on boundary and sampled states. Needs the extra ``[proof]``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import z3  # type: ignore[import-untyped]

from rules.actions import gives_clozapine
from rules.model import AlertLevel, Population
from rules.protocol import SEVERITY, Initiation, MonitoringProtocol, Range
from rules.span import Span

__all__ = ["Encoding", "Proof", "prove"]

_NONE = -1


@dataclass(frozen=True, slots=True)
class Proof:
    """One property of one protocol. ``counterexample`` "" : it holds for every state."""

    protocol: str
    name: str
    counterexample: str

    @property
    def holds(self) -> bool:
        return not self.counterexample


@dataclass(frozen=True, slots=True)
class State:
    """What a count is judged in, all of it free: a solver chooses the worst."""

    treated_days: Any
    history: Any
    unknown_past: Any
    window: Any
    """Index of the interruption rule whose window is open; -1: none."""
    first_since_restart: Any
    phase_changes: Any
    infection: Any
    risk: Any
    previous_mild: Any
    """The count before, when it was mild; -1: it was not."""
    settled: Any
    over: Any
    """The weeks after a complete stop are over."""
    aftermath: Any
    """Closer counts are asked for still, after counts of a low band that were followed by normal ones."""
    year_days: Any
    """A year in days, 365 or 366."""


def state(name: str = "") -> State:
    whole, real, yes = z3.Int, z3.Real, z3.Bool
    return State(
        whole(f"treated days{name}"),
        yes(f"history{name}"),
        yes(f"unknown past{name}"),
        whole(f"window{name}"),
        yes(f"first since restart{name}"),
        yes(f"phase changes{name}"),
        yes(f"infection{name}"),
        yes(f"risk{name}"),
        real(f"previous mild{name}"),
        yes(f"settled{name}"),
        yes(f"period over{name}"),
        yes(f"aftermath{name}"),
        whole(f"year in days{name}"),
    )


class Encoding:
    """One protocol as formulas. A count is a pair of reals: neutrophils and leukocytes, in cells per mm3."""

    def __init__(self, protocol: MonitoringProtocol) -> None:
        self.protocol = protocol

    # Bands -------------------------------------------------------------------------------------------------------

    def holds(self, band: Range, value: Any) -> Any:
        low = value >= _real(band.low) if band.low_closed else value > _real(band.low)
        if band.high is None:
            return low
        return z3.And(low, value <= _real(band.high) if band.high_closed else value < _real(band.high))

    def _by_band(self, population: Population, anc: Any, leukocytes: Any, of: dict[Range, int]) -> Any:
        """``of`` the band that holds the count; the worse of two where leukocytes count too; -1 outside every band."""
        found = self._pick(self.protocol.bands_of(population), anc, of)
        other = self.protocol.leukocyte_bands_of(population)
        return _max(found, self._pick(other, leukocytes, of)) if other else found

    def _pick(self, bands: tuple[Range, ...], value: Any, of: dict[Range, int]) -> Any:
        found: Any = z3.IntVal(_NONE)
        for band in bands:
            found = z3.If(self.holds(band, value), of[band], found)
        return found

    def _all_bands(self, population: Population) -> tuple[Range, ...]:
        return (*self.protocol.bands_of(population), *self.protocol.leukocyte_bands_of(population))

    def kind(self, population: Population, anc: Any, leukocytes: Any) -> Any:
        """0 normal, 1 mild, 2 stop."""
        of = {band: SEVERITY[band.kind] for band in self._all_bands(population)}
        return self._by_band(population, anc, leukocytes, of)

    def band_alert(self, population: Population, anc: Any, leukocytes: Any) -> Any:
        of = {band: band.alert.rank for band in self._all_bands(population)}
        return self._by_band(population, anc, leukocytes, of)

    # Under treatment ---------------------------------------------------------------------------------------------

    def interval(self, kind: Any, s: State) -> Any:
        """Days to the next count after a count of ``kind``; 0 where the protocol gives none."""
        protocol = self.protocol
        throughout = protocol.after_mild.throughout
        history = z3.Or(s.history, kind == SEVERITY["mild"]) if throughout else z3.BoolVal(False)
        closed = z3.Or(history, s.unknown_past)
        found: Any = z3.IntVal(0)
        for phase in protocol.phases:
            open_now = s.treated_days >= self._days(phase.since, s)
            if phase.without_neutropenia:
                open_now = z3.And(open_now, z3.Not(closed))
            found = z3.If(open_now, self._days(phase.interval, s), found)
        monthly = z3.Or(history, kind == SEVERITY["mild"])
        found = z3.If(monthly, _shorter(found, self._days(protocol.after_mild.interval, s)), found)
        unknown = z3.And(s.unknown_past, z3.Not(monthly))
        found = z3.If(unknown, _shorter(found, self._days(protocol.unknown_past.interval, s)), found)
        for number, rule in enumerate(protocol.interruptions):
            if rule.interval is not None:
                found = z3.If(s.window == number, _shorter(found, self._days(rule.interval, s)), found)
        # Of several aftermaths the longest interval, so that nothing is proved of a shorter one.
        bands = (band for name in Population for band in self._all_bands(name))
        spans = [self._days(band.after.interval, s) for band in bands if band.after is not None]
        if spans:
            lately = z3.And(s.aftermath, kind == SEVERITY["normal"])
            found = z3.If(lately, _shorter(found, functools.reduce(_max, spans)), found)
        return z3.If(kind == SEVERITY["stop"], self._days(protocol.after_stop.low_interval, s), found)

    def unsettled(self, anc: Any, s: State) -> Any:
        """A mild count that opens an episode, or has fallen too far in one."""
        keeps = 100 - self.protocol.after_mild.fall_percent
        fell = anc * 100 < s.previous_mild * _real(keeps)
        return z3.If(s.previous_mild < 0, True, z3.If(anc >= s.previous_mild, False, z3.Or(fell, z3.Not(s.settled))))

    def alert(self, population: Population, anc: Any, leukocytes: Any, s: State) -> Any:
        """Rank of the alert on a count under treatment."""
        protocol, signs = self.protocol, self.protocol.infection
        kind = self.kind(population, anc, leukocytes)
        mild = z3.If(
            z3.Or(self.unsettled(anc, s), s.window >= 0),
            protocol.after_mild.new_alert.rank,
            protocol.after_mild.stable_alert.rank,
        )
        normal: Any = z3.If(
            z3.And(s.window < 0, s.phase_changes, z3.Not(s.first_since_restart)),
            AlertLevel.INFO.rank,
            AlertLevel.NONE.rank,
        )
        for number, rule in enumerate(protocol.interruptions):
            normal = z3.If(z3.And(s.window == number, s.first_since_restart), rule.alert.rank, normal)
        risk = protocol.risk.alert.rank if protocol.risk is not None else AlertLevel.NONE.rank
        noted = z3.If(s.risk, risk, AlertLevel.NONE.rank)
        calm = _max(z3.If(kind == SEVERITY["mild"], mild, normal), noted)
        ill = z3.If(kind == SEVERITY["mild"], signs.mild_alert.rank, signs.normal_alert.rank)
        calm = z3.If(s.infection, _max(calm, ill), calm)
        stop = self.band_alert(population, anc, leukocytes)
        stop = z3.If(s.infection, _max(stop, signs.stop_alert.rank), stop)
        return z3.If(kind == SEVERITY["stop"], stop, calm)

    # After a stop ------------------------------------------------------------------------------------------------

    def ended(self, population: Population, anc: Any, s: State) -> Any:
        """Follow-up after a stop for the count is over."""
        return z3.And(s.over, anc >= _real(self.protocol.after_stop.recovery(population)))

    def alert_after_stop(self, population: Population, anc: Any, leukocytes: Any, s: State) -> Any:
        rule, signs = self.protocol.after_stop, self.protocol.infection
        kind = self.kind(population, anc, leukocytes)
        low = kind == SEVERITY["stop"]
        level = z3.If(low, self.band_alert(population, anc, leukocytes), rule.banned_alert.rank)
        mild = kind == SEVERITY["mild"]
        ill = z3.If(low, signs.stop_alert.rank, z3.If(mild, signs.mild_alert.rank, signs.normal_alert.rank))
        return z3.If(z3.And(s.infection, z3.Not(self.ended(population, anc, s))), _max(level, ill), level)

    # Before the first dose ---------------------------------------------------------------------------------------

    def may_start(self, rule: Initiation, anc: Any, leukocytes: Any) -> Any:
        least = rule.leukocytes_at_least
        enough = anc >= _real(rule.at_least)
        return enough if least is None else z3.And(enough, leukocytes >= _real(least))

    def sound(self, s: State) -> Any:
        """What any state obeys."""
        return z3.And(
            s.treated_days >= 0,
            s.window >= _NONE,
            s.window < len(self.protocol.interruptions),
            z3.Or(s.year_days == 365, s.year_days == 366),
            s.previous_mild >= _NONE,
        )

    def _days(self, span: Span, s: State) -> Any:
        return span.count * s.year_days if span.unit == "year" else z3.IntVal(span.days)


def prove(protocol: MonitoringProtocol) -> Iterator[Proof]:
    """One Proof for every property that ``protocol`` declares, in its order."""
    encoding = Encoding(protocol)
    for name in protocol.properties:
        yield Proof(protocol.name, name, _PROPERTIES[name](encoding))


def _every_count(e: Encoding) -> str:
    value = z3.Real("count")
    for population in Population:
        for bands in (e.protocol.bands_of(population), e.protocol.leukocyte_bands_of(population)):
            if bands:
                once = z3.PbEq([(e.holds(band, value), 1) for band in bands], 1)
                if broken := _search(value >= 0, z3.Not(once), of=population):
                    return broken
    return ""


def _never_milder(e: Encoding) -> str:
    """In one state: not a milder kind, not a lower alert, not a later next count; before, under and after treatment."""
    s, low, high, leukocytes = state(), z3.Real("lower count"), z3.Real("higher count"), z3.Real("leukocytes")
    for population in Population:
        assume = z3.And(e.sound(s), low >= 0, low < high, leukocytes >= 0)
        below, above = (e.kind(population, one, leukocytes) for one in (low, high))
        rule = e.protocol.initiation_of(population)
        milder = z3.Or(
            below < above,
            e.alert(population, low, leukocytes, s) < e.alert(population, high, leukocytes, s),
            e.interval(below, s) > e.interval(above, s),
            e.alert_after_stop(population, low, leukocytes, s) < e.alert_after_stop(population, high, leukocytes, s),
            z3.And(e.ended(population, low, s), z3.Not(e.ended(population, high, s))),
            z3.And(e.may_start(rule, low, leukocytes), z3.Not(e.may_start(rule, high, leukocytes))),
        )
        if broken := _search(assume, milder, of=population):
            return broken
    return ""


def _never_undone(e: Encoding) -> str:
    """By induction over the counts that follow: a stop-level count stops, and no later one gives clozapine again."""
    rule = e.protocol.after_stop
    giving = [
        name
        for name in (rule.banned_action, rule.complete_banned_action, rule.reexposure_action)
        if gives_clozapine(name)
    ]
    if giving:
        return f"after a stop for the count the action may be {giving[0]}"
    anc, leukocytes = z3.Real("count"), z3.Real("leukocytes")
    banned, later = z3.Bool("banned before"), z3.Real("later count")
    for population in Population:
        for band in e._all_bands(population):
            if band.kind == "stop" and gives_clozapine(band.action):
                return f"{population}: the stop band {band.id} says {band.action}"
        stops = e.kind(population, anc, leukocytes) == SEVERITY["stop"]
        after = z3.Or(banned, z3.And(z3.BoolVal(rule.permanent), stops))
        then = z3.Or(
            after, z3.And(z3.BoolVal(rule.permanent), e.kind(population, later, leukocytes) == SEVERITY["stop"])
        )
        assume = z3.And(anc >= 0, later >= 0, leukocytes >= 0)
        # The first step bans; every later step keeps the ban.
        if broken := _search(assume, z3.Or(z3.And(stops, z3.Not(after)), z3.And(after, z3.Not(then))), of=population):
            return broken
    return ""


def _next_due(e: Encoding) -> str:
    s, anc, leukocytes = state(), z3.Real("count"), z3.Real("leukocytes")
    for population in Population:
        kind = e.kind(population, anc, leukocytes)
        assume = z3.And(e.sound(s), anc >= 0, leukocytes >= 0)
        if broken := _search(assume, z3.Or(kind < 0, e.interval(kind, s) <= 0), of=population):
            return broken
    return ""


def _ben_never_stricter(e: Encoding) -> str:
    general, ben = Population.GENERAL, Population.BENIGN_ETHNIC_NEUTROPENIA
    s, anc, leukocytes = state(), z3.Real("count"), z3.Real("leukocytes")
    one, other = (e.kind(population, anc, leukocytes) for population in (ben, general))
    # A count that is mild for one and normal for the other opens no episode for the other: judged without one.
    fresh = z3.And(e.sound(s), anc >= 0, leukocytes >= 0, s.previous_mild == _NONE)
    stricter = z3.Or(
        one > other,
        e.alert(ben, anc, leukocytes, s) > e.alert(general, anc, leukocytes, s),
        e.interval(one, s) < e.interval(other, s),
        z3.And(e.ended(general, anc, s), z3.Not(e.ended(ben, anc, s))),
        z3.And(
            e.may_start(e.protocol.initiation_of(general), anc, leukocytes),
            z3.Not(e.may_start(e.protocol.initiation_of(ben), anc, leukocytes)),
        ),
    )
    return _search(fresh, stricter, of=ben)


_PROPERTIES = {
    "every-count-one-category": _every_count,
    "lower-count-never-milder": _never_milder,
    "stop-never-undone": _never_undone,
    "next-due-under-treatment": _next_due,
    "ben-never-stricter": _ben_never_stricter,
}


def _search(assume: Any, broken: Any, *, of: Population) -> str:
    """The state in which ``broken`` comes true, in words; "" when there is none."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(assume, broken)
    answer = solver.check()
    if answer == z3.unsat:
        return ""
    if answer != z3.sat:
        return f"{of}: not decided ({solver.reason_unknown()})"
    model = solver.model()
    facts = sorted((str(name), str(model[name])) for name in model.decls())
    return f"{of}: " + ", ".join(f"{name} = {value}" for name, value in facts)


def _real(value: Decimal | int) -> Any:
    return z3.RealVal(str(value))


def _max(one: Any, other: Any) -> Any:
    return z3.If(one >= other, one, other) if not isinstance(other, int) else z3.If(one >= other, one, z3.IntVal(other))


def _shorter(one: Any, other: Any) -> Any:
    """The shorter of two intervals, 0 being none."""
    return z3.If(z3.Or(one == 0, other < one), other, one)
