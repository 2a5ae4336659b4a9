"""The operators' pages about messages: the list, one message through its stages, and judging it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from console import auth, compare, deliveries, editing
from console.acting import acting, number_of, problem_of, problem_word
from console.port import RefusedInput, Right, Visitor
from console.raw_text import readable
from console.site import Site
from rules.explain import plain
from rules.model import Alert
from store import browse
from store.browse import Wanted
from store.stages import Sent, message_stages

__all__ = ["routes"]

_PAGE = 50
_DISPOSITIONS = ("pending", "judged", "unenrolled", "not_relevant", "unassessable", "set_aside", "duplicate")

Seer = Annotated[Visitor, Depends(auth.requires(Right.MESSAGES))]
Doer = Annotated[Visitor, Depends(auth.requires(Right.REPLAY))]
Form = Annotated[FormData, Depends(auth.checked_form)]


def routes(site: Site) -> APIRouter:
    """To be included in the console's router."""
    router = APIRouter()
    router.include_router(_messages(site))
    router.include_router(editing.routes(site))
    router.include_router(deliveries.routes(site))
    router.include_router(compare.routes(site))
    return router


def _messages(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/messages")
    def messages(
        request: Request,
        who: Seer,
        disposition: str = "",
        reason: str = "",
        sender: str = "",
        control_id: str = "",
        patient: str = "",
        before: str = "",
    ) -> Response:
        given = {
            "disposition": disposition,
            "reason": reason,
            "sender": sender.strip(),
            "control_id": control_id.strip(),
            "patient": patient.strip(),
        }
        start = number_of(before)
        page = site.read(browse.messages, Wanted(**given), before=start, limit=_PAGE)
        return site.page(
            request,
            who,
            "operators/messages.html",
            wanted=given,
            filtered=any(given[name] for name in ("sender", "control_id", "patient", "reason")),
            page=page,
            is_first=start is None,
            counts=site.read(browse.dispositions),
            dispositions=_DISPOSITIONS,
            link=lambda **changed: _address(given | changed),
        )

    @router.get("/messages/{number}")
    def message(request: Request, who: Seer, number: str, done: str = "", problem: str = "") -> Response:
        return _one(site, request, who, number, done=done, problem=problem)

    @router.post("/messages/{number}/replay")
    async def replay(request: Request, who: Doer, form: Form, number: str) -> Response:
        if (wanted := number_of(number)) is None:
            return site.problem(request, who, 404)
        try:
            copied = await site.console.actions.replay_message(wanted, by=acting(who, form))
        except LookupError:
            return site.problem(request, who, 404)
        except RefusedInput as refused:
            return RedirectResponse(f"/console/messages/{wanted}?problem={problem_of(refused)}", status_code=303)
        return RedirectResponse(f"/console/messages/{copied}?done=replay", status_code=303)

    return router


def _one(site: Site, request: Request, who: Visitor, number: str, *, done: str, problem: str) -> Response:
    wanted = number_of(number)
    stages = site.read(message_stages, wanted) if wanted is not None else None
    if stages is None:
        return site.problem(request, who, 404)
    raw = stages.row["raw"]
    return site.page(
        request,
        who,
        "operators/message.html",
        stages=stages,
        notifications=_notifications(stages.sent),
        row=stages.row,
        raw=readable(raw, stages.row["format"]) if raw is not None else None,
        done=done if done in ("replay", "edited") else "",
        problem=problem_word(problem),
        plain=plain,
        can_replay=who.may(Right.REPLAY) and raw is not None,
        can_edit=who.may(Right.REPLAY) and raw is not None and stages.row["disposition"] in editing.FAILED,
    )


def _notifications(sent: Sequence[Sent]) -> list[tuple[Alert, list[Sent]]]:
    """Each notification once, with its destinations."""
    groups: dict[tuple[str, int], list[Sent]] = {}
    for item in sent:
        groups.setdefault((item.alert.id, item.alert.revision), []).append(item)
    return [(rows[0].alert, rows) for rows in groups.values()]


def _address(given: dict[str, Any]) -> str:
    kept = urlencode({name: value for name, value in given.items() if value not in ("", None)})
    return f"/console/messages?{kept}" if kept else "/console/messages"
