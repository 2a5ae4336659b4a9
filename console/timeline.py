"""The ANC timeline as a drawing: where every band, count, mark and label stands. Pure: values in, positions out.

Rule of the file: nothing rests on colour. Each state of a count has a shape of its own (``Dot.shape``, ``hollow``,
``strike``), each band a pattern and a name, each line its words. Positions are in the drawing's own units, one digit
after the point; counts stay exact Decimals in cells per mm3 and are only ever turned into a height.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from rules.changes import stop_in_force
from rules.model import Comparator, Population, TreatmentCourse
from rules.protocol import MonitoringProtocol, RangeKind, band_of
from rules.record import population_on

__all__ = [
    "COMPACT",
    "PAPER",
    "WIDE",
    "Band",
    "Count",
    "Dot",
    "Limit",
    "Mark",
    "Piece",
    "Size",
    "Standing",
    "Tick",
    "Timeline",
    "draw",
]

_DAY = timedelta(days=1)
_LEAST_TOP = Decimal(4000)
_TOPS = tuple(Decimal(n) for n in (4000, 5000, 6000, 8000, 10000, 15000, 20000, 40000, 80000, 160000))


class Standing(enum.StrEnum):
    """What a version of a count is worth today."""

    CURRENT = "current"
    REPLACED = "replaced"
    """A later version stands in its place."""
    WITHDRAWN = "withdrawn"
    """Taken back by the laboratory, and nothing put in its place."""
    BESIDE = "beside"
    """Kept for the record; never was the current one (a doubtful restatement, an older version that came late)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One version of one count. ``at`` is local to the site, None when the laboratory gave no time."""

    id: int
    at: datetime | None
    per_mm3: Decimal | None
    standing: Standing
    comparator: Comparator | None = None
    derived: bool = False
    provisional: bool = False
    replaced_by: int | None = None
    """The version that stands in its place."""


@dataclass(frozen=True, slots=True)
class Size:
    """The paper: ``most_ticks`` along the bottom, ``room`` that a value's label needs to each side."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    most_ticks: int
    room: int


WIDE = Size(width=960, height=420, left=46, right=18, top=58, bottom=66, most_ticks=12, room=20)
PAPER = Size(width=700, height=340, left=42, right=14, top=58, bottom=62, most_ticks=8, room=19)
COMPACT = Size(width=360, height=380, left=36, right=10, top=58, bottom=66, most_ticks=4, room=17)


@dataclass(frozen=True, slots=True)
class Band:
    """``id`` and ``kind`` as the protocol has them; ``high`` None: no upper end."""

    id: str
    kind: RangeKind
    low: Decimal
    high: Decimal | None
    population: Population
    x: float
    y: float
    width: float
    height: float
    named: bool
    """Whether its name stands in it: once a band, and only where it fits."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The line between two bands, with its count."""

    per_mm3: Decimal
    x1: float
    x2: float
    y: float


@dataclass(frozen=True, slots=True)
class Dot:
    """One version, drawn. ``shape``: circle as reported, square derived, diamond provisional. ``strike``: no longer valid.
    ``arrow``: -1 "less than" points down, +1 "more than" up. ``to``: where its replacement stands."""

    id: int
    x: float
    y: float
    shape: str
    hollow: bool
    strike: bool
    kind: RangeKind
    per_mm3: Decimal
    comparator: Comparator | None
    on: date
    standing: Standing
    arrow: int
    labelled: bool
    to: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the treatment bar: ``treated`` or ``interrupted``; ``until`` None: still going on."""

    kind: str
    since: date
    until: date | None
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Mark:
    """An upright line: ``today``, ``due``, ``recheck``, ``start``, ``stop``, ``infection``. ``row``: which line from the
    top its label stands on; ``anchor``: which end of the label stands at the line."""

    kind: str
    on: date
    x: float
    row: int
    anchor: str


@dataclass(frozen=True, slots=True)
class Tick:
    """``unit`` says how to write it: ``day``, ``month`` or ``year``."""

    on: date
    unit: str
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    size: Size
    since: date
    until: date
    floor: float
    """The height of zero; the treatment bar lies below it."""
    bands: tuple[Band, ...]
    limits: tuple[Limit, ...]
    scale: tuple[tuple[Decimal, float], ...]
    """Counts along the left edge, with their height."""
    ticks: tuple[Tick, ...]
    line: tuple[tuple[float, float], ...]
    """Through the counts that stand, oldest first."""
    dots: tuple[Dot, ...]
    pieces: tuple[Piece, ...]
    marks: tuple[Mark, ...]
    earlier: int
    """Counts that lie before ``since`` and are not drawn."""


def draw(
    counts: Sequence[Count],
    course: TreatmentCourse,
    protocol: MonitoringProtocol,
    *,
    today: date,
    next_due: date | None = None,
    recheck_by: date | None = None,
    since: date | None = None,
    size: Size = WIDE,
) -> Timeline:
    """``since``: the first day to show; None: everything."""
    placed = sorted((c for c in counts if c.at is not None and c.per_mm3 is not None), key=lambda c: (_when(c), c.id))
    first, last = _span(placed, course, today, since, next_due, recheck_by)
    shown = [c for c in placed if _day(c) >= first]
    frame = _Frame(size, first, last, _top(shown))
    dots = _dots(shown, course, protocol, frame)
    standing = {c.id for c in shown if c.standing is Standing.CURRENT and not c.provisional}
    return Timeline(
        size=size,
        since=first,
        until=last,
        floor=frame.y(Decimal(0)),
        bands=tuple(_bands(course, protocol, frame)),
        limits=tuple(_limits(course, protocol, frame)),
        scale=tuple(_scale(course, protocol, frame)),
        ticks=tuple(_ticks(frame)),
        line=tuple((dot.x, dot.y) for dot in dots if dot.id in standing),
        dots=dots,
        pieces=tuple(_pieces(course, today, frame)),
        marks=_marks(course, today, next_due, recheck_by, frame),
        earlier=sum(1 for c in placed if _day(c) < first and c.standing is Standing.CURRENT),
    )


class _Frame:
    """From days and counts to positions. Heights go by the square root, so that the low bands have room and zero a place."""

    def __init__(self, size: Size, first: date, last: date, top: Decimal) -> None:
        self.size, self.first, self.last, self.top = size, first, last, top
        self.x1, self.x2 = size.left, size.width - size.right
        self.y1, self.y2 = size.top, size.height - size.bottom

    def x(self, moment: date | datetime) -> float:
        """A day stands at its noon, so that a count of the day and the day's line meet."""
        at = moment.replace(tzinfo=None) if isinstance(moment, datetime) else datetime.combine(moment, time(12))
        begin, end = datetime.combine(self.first, time()), datetime.combine(self.last + _DAY, time())
        return round(self.x1 + (self.x2 - self.x1) * ((at - begin) / (end - begin)), 1)

    def y(self, per_mm3: Decimal) -> float:
        part = (min(max(per_mm3, Decimal(0)), self.top) / self.top).sqrt()
        return round(float(self.y2 - (self.y2 - self.y1) * part), 1)

    def within(self, day: date) -> bool:
        return self.first <= day <= self.last


def _when(count: Count) -> datetime:
    assert count.at is not None  # noqa: S101 - only placed counts are drawn
    return count.at.replace(tzinfo=None)


def _day(count: Count) -> date:
    return _when(count).date()


def _span(
    placed: Sequence[Count],
    course: TreatmentCourse,
    today: date,
    since: date | None,
    *ahead: date | None,
) -> tuple[date, date]:
    """From the first thing known to the last one asked for, with a margin; never less than four weeks."""
    known = [_day(c) for c in placed] + [day for day in (course.start,) if day is not None] + [today]
    first = min(known) if since is None else since
    last = max([*known, *(day for day in ahead if day is not None)])
    first = min(first, last - 28 * _DAY)
    margin = timedelta(days=max(1, (last - first).days // 40))
    return first - margin, last + margin


def _top(shown: Sequence[Count]) -> Decimal:
    highest = max((c.per_mm3 for c in shown if c.per_mm3 is not None), default=_LEAST_TOP)
    return next((top for top in _TOPS if top >= highest * Decimal("1.05")), highest * 2)


def _stretches(course: TreatmentCourse, frame: _Frame) -> Iterator[tuple[Population, float, float]]:
    """Which thresholds were in force when: those of benign ethnic neutropenia from the day of its record on (A-13)."""
    ben = course.ben
    if ben is not None and frame.first < ben.on <= frame.last:
        cut = frame.x(datetime.combine(ben.on, time()))
        yield Population.GENERAL, frame.x1, cut
        yield Population.BENIGN_ETHNIC_NEUTROPENIA, cut, frame.x2
    else:
        yield population_on(course, frame.last), frame.x1, frame.x2


def _bands(course: TreatmentCourse, protocol: MonitoringProtocol, frame: _Frame) -> Iterator[Band]:
    for population, x1, x2 in _stretches(course, frame):
        for band in protocol.bands_of(population):
            if band.low >= frame.top:
                continue
            upper = frame.y(band.high) if band.high is not None else float(frame.y1)
            lower = frame.y(band.low)
            width, height = round(x2 - x1, 1), round(lower - upper, 1)
            named = height >= 14 and width >= 80
            yield Band(band.id, band.kind, band.low, band.high, population, x1, upper, width, height, named)


def _limits(course: TreatmentCourse, protocol: MonitoringProtocol, frame: _Frame) -> Iterator[Limit]:
    for population, x1, x2 in _stretches(course, frame):
        for band in protocol.bands_of(population):
            if 0 < band.low < frame.top:
                yield Limit(band.low, x1, x2, frame.y(band.low))


def _scale(course: TreatmentCourse, protocol: MonitoringProtocol, frame: _Frame) -> Iterator[tuple[Decimal, float]]:
    """Every threshold in sight and zero; round counts between them where there is room."""
    wanted = {Decimal(0), frame.top, *(limit.per_mm3 for limit in _limits(course, protocol, frame))}
    taken = [frame.y(value) for value in wanted]
    for value in (2000, 3000, 4000, 6000, 8000, 10000, 20000, 40000):
        height = frame.y(Decimal(value))
        if value < frame.top and all(abs(height - other) >= 22 for other in taken):
            wanted.add(Decimal(value))
            taken.append(height)
    return ((value, frame.y(value)) for value in sorted(wanted))


def _dots(
    shown: Sequence[Count], course: TreatmentCourse, protocol: MonitoringProtocol, frame: _Frame
) -> tuple[Dot, ...]:
    values = {c.id: c.per_mm3 for c in shown}
    places = {c.id: (frame.x(_when(c)), frame.y(c.per_mm3)) for c in shown if c.per_mm3 is not None}
    dots: list[Dot] = []
    for count in shown:
        if count.per_mm3 is None:
            continue
        if count.standing is Standing.REPLACED and values.get(count.replaced_by or 0) == count.per_mm3:
            continue  # the same value, restated: the table tells it, a line through it would mislead
        bands = protocol.bands_of(population_on(course, _day(count)))
        strike = count.standing in (Standing.REPLACED, Standing.WITHDRAWN)
        x, y = places[count.id]
        dots.append(
            Dot(
                id=count.id,
                x=x,
                y=y,
                shape="diamond" if count.provisional else "square" if count.derived else "circle",
                hollow=strike or count.provisional or count.standing is Standing.BESIDE,
                strike=strike,
                kind=band_of(bands, count.per_mm3, count.comparator == "<").kind,
                per_mm3=count.per_mm3,
                comparator=count.comparator,
                on=_day(count),
                standing=count.standing,
                arrow=_arrow(count.comparator),
                labelled=False,
                to=places.get(count.replaced_by) if count.replaced_by is not None else None,
            )
        )
    return _labelled(dots, frame.size.room)


def _arrow(comparator: Comparator | None) -> int:
    if comparator is None:
        return 0
    return -1 if comparator in ("<", "<=") else 1


def _labelled(dots: list[Dot], room: int) -> tuple[Dot, ...]:
    """Writes the values that matter most first, and no label over another one: the last that stands, stops, mild ones, what
    stands in a correction's place, and then what it replaced."""
    rank = {"stop": 1, "mild": 2, "normal": 5}
    last = max((place for place, dot in enumerate(dots) if not dot.hollow), default=len(dots) - 1)
    corrected = {dot.to for dot in dots if dot.strike}

    def urgency(place: int) -> tuple[int, int]:
        dot = dots[place]
        if place == last:
            return 0, -place
        if dot.strike:
            return 4, -place
        return (3 if rank[dot.kind] > 3 and (dot.x, dot.y) in corrected else rank[dot.kind]), -place

    written: list[Dot] = []
    chosen: set[int] = set()
    for place in sorted(range(len(dots)), key=urgency):
        dot = dots[place]
        if all(abs(dot.x - other.x) >= 2 * room or abs(dot.y - other.y) >= 26 for other in written):
            written.append(dot)
            chosen.add(place)
    return tuple(replace(dot, labelled=True) if place in chosen else dot for place, dot in enumerate(dots))


def _pieces(course: TreatmentCourse, today: date, frame: _Frame) -> Iterator[Piece]:
    """Treatment as the register has it, up to today; an interruption that nobody ended runs on."""
    if course.start is None or course.start > today:
        return
    found = stop_in_force(course)
    stop = found.on if found is not None else None
    end = min(stop, today) if stop is not None else today
    at = course.start
    for gap in sorted(course.interruptions, key=lambda one: one.last_dose):
        last_dose = gap.last_dose.date()
        restart = gap.restart.date() if gap.restart is not None else None
        if last_dose < at or last_dose > end:
            continue
        yield from _piece("treated", at, last_dose, frame, last_dose)
        yield from _piece("interrupted", last_dose, min(restart or end, end), frame, restart)
        at = min(restart, end) if restart is not None else end
    if at < end or (at == end and not course.interruptions):
        yield from _piece("treated", at, end, frame, stop)


def _piece(kind: str, since: date, until: date, frame: _Frame, ended: date | None) -> Iterator[Piece]:
    if until < frame.first or since > frame.last:
        return
    x1, x2 = frame.x(max(since, frame.first)), frame.x(min(until, frame.last))
    yield Piece(kind, since, ended, x1, max(round(x2 - x1, 1), 1.5))


def _marks(
    course: TreatmentCourse, today: date, next_due: date | None, recheck_by: date | None, frame: _Frame
) -> tuple[Mark, ...]:
    days = [
        ("start", course.start, 0),
        ("stop", course.stop.on if course.stop else None, 0),
        ("infection", course.infection_signs_on, 0),
        ("today", today, 0),
        ("recheck", recheck_by, 1),
        ("due", next_due, 2),
    ]
    middle = (frame.x1 + frame.x2) / 2
    marks = []
    for kind, on, row in days:
        if on is not None and frame.within(on):
            x = frame.x(on)
            marks.append(Mark(kind, on, x, row, "end" if x > middle else "start"))
    return tuple(marks)


def _ticks(frame: _Frame) -> Iterator[Tick]:
    """The finest calendar step that leaves no more ticks than the paper has room for."""
    for unit, days in _steps(frame):
        found = [day for day in days if frame.within(day)]
        if len(found) <= frame.size.most_ticks:
            return iter([Tick(day, unit, frame.x(day)) for day in found])
    return iter(())


def _steps(frame: _Frame) -> Iterator[tuple[str, list[date]]]:
    length = (frame.last - frame.first).days
    for days in (7, 14):
        if length <= days * (frame.size.most_ticks + 1):
            monday = frame.first + timedelta(days=-frame.first.weekday() % 7)
            yield "day", [monday + timedelta(days=step) for step in range(0, length + 1, days)]
    years = range(frame.first.year, frame.last.year + 1)
    for months in (1, 2, 3, 6):
        yield "month", [date(year, month, 1) for year in years for month in range(1, 13, months)]
    for every in (1, 2, 5, 10):
        yield "year", [date(year, 1, 1) for year in years if year % every == 0]
