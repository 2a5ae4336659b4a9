"""What would have been sent: every notification that observe mode kept back, to be held against another system's list."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import Connection

from console import auth
from console.acting import number_of
from console.port import Right, Visitor
from console.site import HEADERS, Site
from rules.model import AlertLevel
from store import browse, observed
from store.observed import WouldHaveSent
from store.values import first_id, to_ms

__all__ = ["routes"]

_PAGE, _PIECE, _SEARCH_S = 50, 200, 0.06
_LEVELS = tuple(level.value for level in AlertLevel if level is not AlertLevel.NONE)

Seer = Annotated[Visitor, Depends(auth.requires(Right.MESSAGES))]


def routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/compare")
    def compare(request: Request, who: Seer, level: str = "", day: str = "", before: str = "") -> Response:
        level = level if level in _LEVELS else ""
        chosen = _day(day)
        start, end = _ids_of(chosen, site) if chosen else (0, 0)
        begin = number_of(before) or end
        rows, further = site.read(_kept_back, begin=begin, down_to=start, level=level)
        kept = {"level": level, "day": chosen.isoformat() if chosen else ""}
        return site.page(
            request,
            who,
            "operators/compare.html",
            rows=rows,
            further=further,
            names=site.read(browse.identifiers, [row.patient_id for row in rows if row.patient_id]),
            levels=_LEVELS,
            level=level,
            day_chosen=kept["day"],
            day_wrong=bool(day) and chosen is None,
            total=site.read(browse.observed_count),
            link=lambda **given: _address(kept | given),
            csv_link=_address(kept, "/console/compare.csv"),
        )

    @router.get("/compare.csv")
    def table(request: Request, who: Seer, level: str = "", day: str = "") -> Response:
        chosen = _day(day)
        start, end = _ids_of(chosen, site) if chosen else (0, 0)
        rows = _csv(site, start, end, level if level in _LEVELS else "")
        name = f"neutroflag-{chosen.isoformat() if chosen else 'all'}.csv"
        kept = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=kept)

    return router


def _kept_back(
    connection: Connection, *, begin: int, down_to: int, level: str
) -> tuple[list[WouldHaveSent], int | None]:
    """Newest first; where the next page begins. A rare level is looked for in pieces, for a bounded time."""
    found: list[WouldHaveSent] = []
    deadline = time.monotonic() + _SEARCH_S
    while True:
        piece = observed.would_have_sent(connection, begin, _PIECE, newest_first=True)
        within = [row for row in piece if row.id >= down_to]
        found += [row for row in within if level in ("", row.level)]
        if len(found) > _PAGE:
            return found[:_PAGE], found[_PAGE - 1].id
        if len(within) < _PIECE:
            return found, None
        begin = piece[-1].id
        if time.monotonic() >= deadline:
            return found, begin


def _csv(site: Site, start: int, end: int, level: str) -> Iterator[str]:
    yield "\ufeff" + _line(
        ["time", "patient", "level", "kind", "family", "title", "anc_per_mm3", "collected_at", "destinations", "alert"]
    )
    begin = end
    while True:
        piece: list[WouldHaveSent] = site.read(observed.would_have_sent, begin, _PIECE, newest_first=True)
        within = [row for row in piece if row.id >= start and level in ("", row.level)]
        names = site.read(browse.identifiers, [row.patient_id for row in within if row.patient_id])
        yield "".join(_line(_cells(row, names, site)) for row in within)
        if len(piece) < _PIECE or piece[-1].id < start:
            return
        begin = piece[-1].id


def _cells(row: WouldHaveSent, names: dict[str, list[str]], site: Site) -> list[str]:
    return [
        row.at.astimezone(site.console.zone).isoformat(timespec="seconds"),
        " ".join(names.get(row.patient_id or "", [])),
        row.level,
        row.kind,
        row.family,
        row.title,
        row.anc_per_mm3 or "",
        row.collected_at or "",
        " ".join(row.destinations),
        f"{row.alert_id}/{row.revision}",
    ]


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    # A spreadsheet runs what begins like a formula; an apostrophe makes it text.
    csv.writer(out, delimiter=";").writerow([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in cells])
    return out.getvalue()


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _ids_of(day: date, site: Site) -> tuple[int, int]:
    """The first number of that local day and of the next one."""
    at: Callable[[date], Any] = lambda one: datetime(one.year, one.month, one.day, tzinfo=site.console.zone)  # noqa: E731
    return first_id(to_ms(at(day))), first_id(to_ms(at(day + timedelta(days=1))))


def _address(given: dict[str, Any], path: str = "/console/compare") -> str:
    kept = urlencode({name: value for name, value in given.items() if value not in ("", None)})
    return f"{path}?{kept}" if kept else path
