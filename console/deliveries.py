"""The operators' pages about what goes out: undelivered notifications, and the state of every connection."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from console import auth
from console.acting import acting, number_of, problem_of, problem_word
from console.port import RefusedInput, Right, Visitor
from console.site import Site
from store import browse, feeds, findings
from store.values import decode_alert, from_ms

__all__ = ["routes"]

_PAGE = 50

Seer = Annotated[Visitor, Depends(auth.requires(Right.MESSAGES))]
Doer = Annotated[Visitor, Depends(auth.requires(Right.REPLAY))]
Form = Annotated[FormData, Depends(auth.checked_form)]


def routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/dead-letters")
    def dead_letters(
        request: Request,
        who: Seer,
        destination: str = "",
        code: str = "",
        before: str = "",
        again: str = "",
        asked: str = "",
        problem: str = "",
    ) -> Response:
        """All groups; with ``destination``, the letters of one group."""
        rows, further = [], None
        if destination:
            rows, further = site.read(browse.dead, destination, code, before=number_of(before), limit=_PAGE)
        return site.page(
            request,
            who,
            "operators/dead_letters.html",
            groups=site.read(browse.dead_groups),
            failed=site.read(browse.failed),
            chosen=(destination, code) if destination else None,
            letters=[(row, decode_alert(row["body"])) for row in rows],
            further=further,
            again=number_of(again),
            asked=number_of(asked),
            problem=problem_word(problem),
            can_replay=who.may(Right.REPLAY),
            link=lambda **given: f"/console/dead-letters?{urlencode(given)}",
        )

    @router.post("/dead-letters/replay")
    async def replay(request: Request, who: Doer, form: Form) -> Response:
        """``id`` (several), or ``destination`` and ``code`` of a whole group."""
        chosen = [number for text in form.getlist("id") if isinstance(text, str) and (number := number_of(text))]
        destination, code = _text(form, "destination"), _text(form, "code")
        if not chosen and destination and form.get("whole"):
            chosen = await site.aread(browse.dead_ids, destination, code)
        if not chosen:
            return _back(problem="nothing-chosen")
        try:
            again = await site.console.actions.replay_dead(chosen, by=acting(who, form))
        except RefusedInput as refused:
            return _back(problem=problem_of(refused))
        return _back(again=again, asked=len(chosen))

    @router.get("/connections")
    def connections(request: Request, who: Seer) -> Response:
        _, state = request.state.standing
        return site.page(
            request,
            who,
            "operators/connections.html",
            outgoing=site.read(browse.outgoing, site.console.destinations),
            answers=state.get("destinations", {}),
            feeds=_senders(site.read(feeds.feeds), site.read(browse.last_heard)),
            findings={item["subject"]: item for item in site.read(findings.open_findings, "destination")},
            silent={item["subject"]: item for item in site.read(findings.open_findings, "feed")},
        )

    return router


def _senders(known: list[dict[str, Any]], heard: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """The feeds as the clock knows them, brought up to this moment; those it has not looked at yet among them."""
    rows = {(row["channel"], row["sender"]): row for row in known}
    for key, at in heard.items():
        new = {"channel": key[0], "sender": key[1], "messages": None, "expected": None, "fixed": False, "silent": False}
        row = rows.setdefault(key, new)
        row["last_at"] = max(row.get("last_at", from_ms(at)), from_ms(at))
    return [rows[key] for key in sorted(rows)]


def _back(**given: object) -> Response:
    return RedirectResponse(f"/console/dead-letters?{urlencode(given)}", status_code=303)


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""
