"""The operators' page that judges an edited copy of a message which could not be read: look first, then do it, by name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection
from starlette.datastructures import FormData

from console import auth
from console.acting import acting, number_of, problem_of
from console.edit_text import editable, edited
from console.port import RefusedInput, Right, Visitor
from console.site import Site
from store.stages import message_stages

__all__ = ["FAILED", "routes"]

FAILED = ("set_aside", "unassessable")
"""What was read is corrected by the laboratory, not here."""

Doer = Annotated[Visitor, Depends(auth.requires(Right.REPLAY))]
Form = Annotated[FormData, Depends(auth.checked_form)]


def routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/messages/{number}/edit")
    def edit(request: Request, who: Doer, number: str) -> Response:
        found = site.read(_read, number)
        return _page(site, request, who, *found) if found is not None else site.problem(request, who, 404)

    @router.post("/messages/{number}/edit")
    async def judge(request: Request, who: Doer, form: Form, number: str) -> Response:
        """``act``: ``look`` says what would change; ``replay`` stores the copy, which is then judged."""
        found = await site.aread(_read, number)
        if found is None:
            return site.problem(request, who, 404)
        row, raw = found
        if not _may_be(row, raw):
            return await _again(site, request, who, row, raw, "", problem="refused")
        given = form.get("text", "")
        text = given if isinstance(given, str) else ""
        instead = edited(text, raw, row["format"])
        problem = "not-encodable" if instead is None else "empty" if not text.strip() else ""
        if instead is not None and instead.strip() == raw.replace(b"\r\n", b"\r").strip():
            problem = "unchanged"
        if problem or instead is None:
            return await _again(site, request, who, row, raw, text, problem=problem)
        if form.get("act") != "replay":
            seen = await site.aread(site.console.look_ahead, row["id"], instead)
            return await _again(site, request, who, row, raw, text, seen=seen)
        try:
            copied = await site.console.actions.replay_message(row["id"], by=acting(who, form), edited=instead)
        except LookupError:
            return site.problem(request, who, 404)
        except RefusedInput as refused:
            return await _again(site, request, who, row, raw, text, problem=problem_of(refused))
        return RedirectResponse(f"/console/messages/{copied}?done=edited", status_code=303)

    return router


def _read(connection: Connection, number: str) -> tuple[Any, bytes] | None:
    wanted = number_of(number)
    stages = message_stages(connection, wanted) if wanted is not None else None
    return None if stages is None else (stages.row, stages.row["raw"] or b"")


def _may_be(row: Any, raw: bytes) -> bool:
    return bool(raw) and row["disposition"] in FAILED


async def _again(site: Site, request: Request, who: Visitor, row: Any, raw: bytes, text: str, **more: Any) -> Response:
    return await run_in_threadpool(_page, site, request, who, row, raw, text=text, **more)


def _page(
    site: Site,
    request: Request,
    who: Visitor,
    row: Any,
    raw: bytes,
    *,
    text: str | None = None,
    seen: dict[str, Any] | None = None,
    problem: str = "",
) -> Response:
    held = editable(raw, row["format"]) if _may_be(row, raw) else None
    return site.page(
        request,
        who,
        "operators/edit.html",
        status=422 if problem else 200,
        row=row,
        held=held,
        text=(text if text is not None else held.text if held is not None else "").replace("\r\n", "\n"),
        failed=row["disposition"] in FAILED,
        seen=seen,
        problem=problem,
    )
