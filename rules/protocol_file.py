"""Reads a protocol's TOML; refuses whatever would leave a patient without an answer.

Refused, with the entry named: unknown keys, a missing or dangling citation, an unknown action, ranges with a gap or an
overlap, an interval without a unit, a reading that is named and absent or present and never named.
"""

from __future__ import annotations

import enum
import itertools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

from rules.actions import ACTIONS
from rules.model import AlertLevel, Citation, Population
from rules.protocol import (
    PROPERTIES,
    Aftermath,
    AfterMild,
    AfterStop,
    Baseline,
    Choice,
    Conventions,
    GapPolicy,
    Grounds,
    InfectionRule,
    Initiation,
    InterruptionRule,
    MonitoringProtocol,
    NotEncoded,
    OverdueRule,
    Phase,
    ProtocolError,
    Range,
    RangeKind,
    Reading,
    RiskRule,
    Source,
    UnknownPast,
)
from rules.span import Span, parse_span

__all__ = ["parse"]

_E = TypeVar("_E", bound=enum.StrEnum)
_T = TypeVar("_T")
_KINDS: dict[str, RangeKind] = {"stop": "stop", "mild": "mild", "normal": "normal"}
_MISSING = object()


class _Entry:
    """One TOML table that is read key by key; ``close`` refuses what nobody asked for."""

    def __init__(self, table: object, name: str) -> None:
        if not isinstance(table, dict):
            raise ProtocolError(name, "must be a table")
        self.table: dict[str, Any] = dict(table)
        self.name = name

    def fail(self, reason: str) -> ProtocolError:
        return ProtocolError(self.name, reason)

    def take(self, key: str, kind: type[_T], default: Any = _MISSING) -> _T:
        value = self.table.pop(key, default)
        if value is _MISSING:
            raise self.fail(f"{key} is missing")
        # A bool is an int and a datetime is a date to isinstance; neither is meant.
        wrong = type(value) is not kind if kind in (int, bool, date) else not isinstance(value, kind)
        if value is not default and wrong:
            raise self.fail(f"{key} must be {kind.__name__}, not {value!r}")
        return value  # type: ignore[no-any-return]

    def text(self, key: str) -> str:
        value = self.take(key, str)
        if not value.strip():
            raise self.fail(f"{key} is empty")
        return value

    def number(self, key: str) -> Decimal:
        value = self.table.pop(key, None)
        if type(value) is int:
            value = Decimal(value)
        if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
            raise self.fail(f"{key} must be a number of zero or more, not {value!r}")
        return value

    def one_of(self, key: str, kind: type[_E]) -> _E:
        value = self.text(key)
        try:
            return kind(value)
        except ValueError:
            raise self.fail(f"{key}: unknown {kind.__name__} {value!r}") from None

    def level(self, key: str) -> AlertLevel:
        return self.one_of(key, AlertLevel)

    def action(self, key: str = "action") -> str:
        value = self.text(key)
        if value not in ACTIONS:
            raise self.fail(f"{key}: unknown action {value!r}")
        return value

    def span(self, key: str, *units: str) -> Span:
        value = self.table.pop(key, None)
        try:
            span = Span(0, "day") if value == "0 days" else parse_span(str(value))
        except ValueError as error:
            raise self.fail(f"{key}: {error}") from None
        if units and span.unit not in units:
            raise self.fail(f"{key}: must be in {' or '.join(units)}s, not {value!r}")
        return span

    def days(self, key: str) -> Span:
        return self.span(key, "day", "week")

    def optional_span(self, key: str) -> Span | None:
        return self.span(key) if key in self.table else None

    def optional_days(self, key: str) -> Span | None:
        return self.days(key) if key in self.table else None

    def flag(self, key: str) -> bool:
        return self.take(key, bool, False)

    def child(self, key: str) -> _Entry:
        if key not in self.table:
            raise self.fail(f"{key} is missing")
        return _Entry(self.table.pop(key), f"{self.name}.{key}" if self.name != "protocol" else key)

    def children(self, key: str) -> list[_Entry]:
        rows = self.table.pop(key, None)
        if not isinstance(rows, list) or not rows:
            raise self.fail(f"{key}: at least one [[{key}]] is needed")
        entries = []
        for number, row in enumerate(rows, start=1):
            entry = _Entry(row, f"{key}[{number}]")
            label = entry.table.get("id")
            if isinstance(label, str):
                entry.name += f" {label}"
                if isinstance(entry.table.get("population"), str):
                    entry.name += f"/{entry.table['population']}"
            entries.append(entry)
        return entries

    def close(self) -> None:
        if self.table:
            raise self.fail(f"unknown key {sorted(self.table)[0]!r}")


class _File:
    """The whole file while it is read: the sources and readings that entries refer to."""

    def __init__(self, root: _Entry, choices: Mapping[str, Choice]) -> None:
        self.root = root
        self.sources = _sources(root)
        self.readings = _readings(root, choices)
        self.switches = {reading.key: reading.choice for reading in self.readings if reading.key}
        self.known = {reading.id for reading in self.readings}
        self.named: set[str] = set()
        # Readings of the evaluation as a whole, which no single rule of the file can name.
        self.conventions = _one(root.child("conventions"), self.conventions_of)

    def cite(self, entry: _Entry) -> Citation:
        if "cite" not in entry.table:
            raise entry.fail("cite is missing: no rule without its sentence")
        cite = _Entry(entry.table.pop("cite"), f"{entry.name}.cite")
        source = cite.text("source")
        if source not in {known.key for known in self.sources}:
            raise cite.fail(f"source {source!r} is not a [source] of this file")
        citation = Citation(source, cite.text("locator"), cite.text("quote"))
        cite.close()
        return citation

    def reading_ids(self, entry: _Entry, key: str = "readings") -> tuple[str, ...]:
        ids = entry.take(key, list, [])
        for name in ids:
            if name not in self.known:
                raise entry.fail(f"{key}: {name!r} is not a [[reading]] of this file")
        self.named.update(ids)
        return tuple(ids)

    def conventions_of(self, entry: _Entry) -> Conventions:
        return Conventions(*(self.reading_ids(entry, field.name) for field in fields(Conventions)))

    def grounds(self, entry: _Entry) -> Grounds:
        return Grounds(entry.text("rule"), self.cite(entry), self.reading_ids(entry))

    def applies(self, entry: _Entry) -> bool:
        """``when = { switch = choice }``: the entry stands only under that choice of a reading."""
        if "when" not in entry.table:
            return True
        when = entry.take("when", dict)
        for key, choice in when.items():
            if key not in self.switches:
                raise entry.fail(f"when: no [[reading]] has the key {key!r}")
            if self.switches[key] != choice:
                return False
        return True


def parse(text: str, choices: Mapping[str, Choice] | None = None) -> MonitoringProtocol:
    """Read one protocol; ``choices`` sets switchable readings by key (``{"mild_upper_bound_inclusive": False}``).

    Raises ProtocolError, naming entry and reason.
    """
    try:
        table = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ProtocolError("file", f"not TOML: {error}") from None
    root = _Entry(table, "protocol")
    file = _File(root, choices or {})
    ranges = tuple(itertools.chain.from_iterable(_ranges(file, entry) for entry in root.children("range")))
    leukocytes: tuple[Range, ...] = ()
    if "leukocyte_range" in root.table:
        rows = root.children("leukocyte_range")
        leukocytes = tuple(itertools.chain.from_iterable(_ranges(file, entry) for entry in rows))
    initiations = list(itertools.chain.from_iterable(_initiations(file, e) for e in root.children("initiation")))
    protocol = MonitoringProtocol(
        id=root.text("id"),
        version=root.text("version"),
        title=root.text("title"),
        selectable=not root.flag("reference_only"),
        aliases=tuple(str(alias) for alias in root.take("aliases", list, [])),
        effective_from=root.take("effective_from", date),
        effective_until=root.take("effective_until", date) if "effective_until" in root.table else None,
        last_reviewed=root.take("last_reviewed", date),
        sources=file.sources,
        ranges=ranges,
        initiations=_every_population(root, "initiation", initiations),
        baseline=_one(root.child("baseline"), lambda entry: _baseline(file, entry)),
        phases=_phases(file, root),
        after_mild=_one(root.child("after_mild"), lambda entry: _after_mild(file, entry)),
        interruptions=tuple(_interruption(file, entry) for entry in root.children("interruption")),
        gaps=_one(root.child("gaps"), lambda entry: _gaps(file, entry)),
        after_stop=_one(root.child("after_stop"), lambda entry: _after_stop(file, entry)),
        infection=_one(root.child("infection"), lambda entry: _infection(file, entry)),
        overdue=_one(root.child("overdue"), lambda entry: _overdue(file, entry)),
        risk=_one(root.child("risk"), lambda entry: _risk(file, entry)) if "risk" in root.table else None,
        unknown_past=_one(
            root.child("unknown_past"), lambda entry: UnknownPast(entry.days("interval"), file.reading_ids(entry))
        ),
        conventions=file.conventions,
        properties=_properties(root),
        readings=file.readings,
        not_encoded=tuple(_not_encoded(file, entry) for entry in root.children("not_encoded")),
        bands=tuple((population, _bands(population, ranges)) for population in Population),
        leukocyte_bands=tuple((p, _bands(p, leukocytes, "leukocyte_range")) for p in Population) if leukocytes else (),
        aftermath=any(band.after is not None for band in (*ranges, *leukocytes)),
    )
    root.close()
    if idle := sorted(file.known - file.named):
        raise ProtocolError(f"reading {idle[0]}", "named by no rule")
    return protocol


def _one(entry: _Entry, read: Callable[[_Entry], _T]) -> _T:
    value = read(entry)
    entry.close()
    return value


def _sources(root: _Entry) -> tuple[Source, ...]:
    table = root.child("source")
    return tuple(
        _one(
            _Entry(table.table[key], f"source.{key}"),
            lambda entry, key=key: Source(  # type: ignore[misc]
                key, entry.text("title"), entry.text("publisher"), entry.take("date", date), entry.text("url")
            ),
        )
        for key in table.table
    )


def _readings(root: _Entry, choices: Mapping[str, Choice]) -> tuple[Reading, ...]:
    found: list[Reading] = []
    for entry in root.children("reading"):
        key = entry.text("key") if "key" in entry.table else ""
        options = tuple(entry.take("options", list, []))
        choice = entry.table.pop("choice", None)
        if key in choices:
            choice = choices[key]
        if not isinstance(choice, bool | str) or choice == "":
            raise entry.fail(f"choice must be a word or true/false, not {choice!r}")
        if key and choice not in options:
            raise entry.fail(f"choice {choice!r} is none of the options {list(options)!r}")
        reading = Reading(entry.text("id"), entry.text("question"), choice, entry.text("why"), key, options)
        entry.close()
        if any(reading.id == other.id or (key and key == other.key) for other in found):
            raise entry.fail("a second reading of this id or key")
        found.append(reading)
    for name in choices:
        if not any(reading.key == name for reading in found):
            raise ProtocolError("reading", f"no switchable reading has the key {name!r}")
    return tuple(found)


def _properties(root: _Entry) -> tuple[str, ...]:
    names = root.take("properties", list)
    for name in names:
        if name not in PROPERTIES:
            raise root.fail(f"properties: {name!r} is none of {', '.join(PROPERTIES)}")
    return tuple(names)


def _populations(entry: _Entry) -> tuple[Population, ...]:
    """``population = "general"``, or ``"all"`` where the source makes no difference."""
    if entry.table.get("population") == "all":
        entry.text("population")
        return tuple(Population)
    return (entry.one_of("population", Population),)


def _ranges(file: _File, entry: _Entry) -> tuple[Range, ...]:
    populations = _populations(entry)
    found = _range(file, entry, populations[0])
    return tuple(replace(found, population=one) for one in populations) if found is not None else ()


def _range(file: _File, entry: _Entry, population: Population) -> Range | None:
    applies = file.applies(entry)
    low_closed = "at_least" in entry.table
    low = entry.number("at_least" if low_closed else "above")
    high_closed = "at_most" in entry.table
    high = entry.number("at_most" if high_closed else "below") if high_closed or "below" in entry.table else None
    kind = entry.text("kind")
    if kind not in _KINDS:
        raise entry.fail(f"kind: {kind!r} is none of {sorted(_KINDS)}")
    found = Range(
        id=entry.text("id"),
        population=population,
        low=low,
        low_closed=low_closed,
        high=high,
        high_closed=high_closed,
        kind=_KINDS[kind],
        action=entry.action(),
        alert=entry.level("alert"),
        grounds=file.grounds(entry),
        after=_one(entry.child("after"), _aftermath) if "after" in entry.table else None,
    )
    if found.after is not None and found.kind == "normal":
        raise entry.fail("after: nothing follows a normal count")
    entry.close()
    return found if applies else None


def _aftermath(entry: _Entry) -> Aftermath:
    return Aftermath(entry.days("interval"), entry.days("period"))


def _bands(population: Population, ranges: tuple[Range, ...], name: str = "range") -> tuple[Range, ...]:
    bands = sorted((r for r in ranges if r.population is population), key=lambda r: (r.low, not r.low_closed))
    if not bands or bands[0].low != 0 or not bands[0].low_closed:
        raise ProtocolError(f"{name} {population}", "no range begins at zero")
    order = ("stop", "mild", "normal")
    for lower, upper in itertools.pairwise(bands):
        where = f"{name} {lower.id}/{population} and {upper.id}/{population}"
        if (
            lower.high is None
            or lower.high > upper.low
            or (lower.high == upper.low and lower.high_closed and upper.low_closed)
        ):
            raise ProtocolError(where, f"overlap at {upper.low}")
        if lower.high < upper.low or not (lower.high_closed or upper.low_closed):
            raise ProtocolError(where, f"gap at {lower.high}")
        if order.index(lower.kind) > order.index(upper.kind) or lower.alert.rank < upper.alert.rank:
            raise ProtocolError(where, "a lower count must not be judged more mildly")
    if bands[-1].high is not None:
        raise ProtocolError(f"{name} {bands[-1].id}/{population}", f"gap above {bands[-1].high}")
    if {band.kind for band in bands} != set(order):
        raise ProtocolError(f"{name} {population}", "a stop, a mild and a normal range are needed")
    return tuple(bands)


def _every_population(root: _Entry, name: str, rules: list[Initiation]) -> tuple[Initiation, ...]:
    if sorted(rule.population for rule in rules) != sorted(Population):
        raise root.fail(f"{name}: exactly one for each population is needed")
    return tuple(rules)


def _initiations(file: _File, entry: _Entry) -> tuple[Initiation, ...]:
    populations = _populations(entry)
    found = _one(
        entry,
        lambda e: Initiation(
            populations[0],
            e.number("at_least"),
            e.number("leukocytes_at_least") if "leukocytes_at_least" in e.table else None,
            e.action(),
            e.action("refused_action"),
            e.level("refused_alert"),
            file.grounds(e),
        ),
    )
    return tuple(replace(found, population=one) for one in populations)


def _baseline(file: _File, e: _Entry) -> Baseline:
    return Baseline(e.days("valid_for"), e.action("obtain_action"), e.level("alert_when_planned"), file.reading_ids(e))


def _phases(file: _File, root: _Entry) -> tuple[Phase, ...]:
    phases = []
    for entry in root.children("phase"):
        phases.append(
            Phase(
                entry.text("id"),
                entry.span("since", "day", "week", "year"),
                entry.span("interval", "day", "week", "year"),
                entry.flag("without_neutropenia"),
                file.grounds(entry),
            )
        )
        entry.close()
    if phases[0].since.count != 0 or phases[0].without_neutropenia:
        raise ProtocolError(f"phase {phases[0].id}", "the first phase must hold for everyone from day 0")
    for earlier, later in itertools.pairwise(phases):
        if rough_days(later.since) <= rough_days(earlier.since):
            raise ProtocolError(f"phase {later.id}", f"must begin after {earlier.id}")
    return tuple(phases)


def rough_days(span: Span) -> int:
    """For comparing spans only: a year as 365 days."""
    return 365 * span.count if span.unit == "year" else span.days


def _after_mild(file: _File, e: _Entry) -> AfterMild:
    return AfterMild(
        throughout=e.take("throughout", bool),
        interval=e.days("interval"),
        action=e.action(),
        action_while_weekly=e.action("action_while_weekly"),
        recheck=e.optional_days("recheck"),
        fall_percent=e.number("fall_percent"),
        new_alert=e.level("new_alert"),
        stable_alert=e.level("stable_alert"),
        grounds=file.grounds(e),
    )


def _interruption(file: _File, e: _Entry) -> InterruptionRule:
    rule = InterruptionRule(
        id=e.text("id"),
        gap_at_least=e.span("gap_at_least", "hour", "day", "week"),
        gap_below=e.optional_days("gap_below"),
        treated_at_least=e.optional_span("treated_at_least"),
        treated_below=e.optional_span("treated_below"),
        without_neutropenia=e.flag("without_neutropenia"),
        action=e.action(),
        alert=e.level("alert"),
        interval=e.optional_days("interval"),
        window=e.optional_days("window"),
        window_until_treated=e.optional_days("window_until_treated"),
        new_patient=e.flag("new_patient"),
        initiation_threshold=e.flag("initiation_threshold"),
        retitrate=e.flag("retitrate"),
        grounds=file.grounds(e),
    )
    if (rule.window is None) != (rule.interval is None):
        raise e.fail("a window needs an interval, and an interval a window")
    e.close()
    return rule


def _gaps(file: _File, e: _Entry) -> GapPolicy:
    return GapPolicy(
        counted_from=e.days("counted_from"),
        summed_within=e.days("summed_within"),
        dose_question_over=e.span("dose_question_over", "hour", "day"),
        dose_question_alert=e.level("dose_question_alert"),
        complete_stop_after=e.days("complete_stop_after"),
        readings=file.reading_ids(e),
        sum_readings=file.reading_ids(e, "sum_readings"),
        open_readings=file.reading_ids(e, "open_readings"),
    )


def _after_stop(file: _File, e: _Entry) -> AfterStop:
    recovered = e.child("recovered_at")
    recovered_at = tuple((population, recovered.number(population.value)) for population in Population)
    recovered.close()
    return AfterStop(
        permanent=e.flag("permanent"),
        period=e.days("period"),
        interval=e.days("interval"),
        low_interval=e.days("low_interval"),
        recheck=e.optional_days("recheck"),
        recovered_at=recovered_at,
        action=e.action(),
        banned_action=e.action("banned_action"),
        complete_action=e.action("complete_action"),
        complete_banned_action=e.action("complete_banned_action"),
        reexposure_action=e.action("reexposure_action"),
        reexposure_alert=e.level("reexposure_alert"),
        alert=e.level("alert"),
        banned_alert=e.level("banned_alert"),
        mild_alert=e.level("mild_alert"),
        complete_alert=e.level("complete_alert"),
        stop=_one(e.child("stop"), file.grounds),
        follow_up=_one(e.child("follow_up"), file.grounds),
        recovery_readings=file.reading_ids(e, "recovery_readings"),
        other_readings=file.reading_ids(e, "other_readings"),
    )


def _infection(file: _File, e: _Entry) -> InfectionRule:
    return InfectionRule(
        e.action(),
        e.level("alert"),
        e.level("normal_alert"),
        e.level("mild_alert"),
        e.level("stop_alert"),
        file.grounds(e),
    )


def _overdue(file: _File, e: _Entry) -> OverdueRule:
    return OverdueRule(
        action=e.action(),
        await_action=e.action("await_action"),
        alert=e.level("alert"),
        late_alert=e.level("late_alert"),
        late_after_weekly=e.days("late_after_weekly"),
        late_after=e.days("late_after"),
        weekly_is=e.days("weekly_is"),
        grounds=file.grounds(e),
    )


def _risk(file: _File, e: _Entry) -> RiskRule:
    return RiskRule(e.span("elderly_from", "year"), e.level("alert"), file.grounds(e))


def _not_encoded(file: _File, e: _Entry) -> NotEncoded:
    return _one(e, lambda e: NotEncoded(e.text("what"), e.text("why"), file.cite(e) if "cite" in e.table else None))
