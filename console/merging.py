"""The page of merged records (ADT^A40): what became of whom, and the last one taken back, by a named person, for a reason."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from console import auth
from console.acting import acting, number_of, problem_of, problem_word
from console.clinic_view import name_of
from console.port import RefusedInput, Right, Visitor
from console.site import Site
from store.merges import merges

__all__ = ["routes"]

Seer = Annotated[Visitor, Depends(auth.requires(Right.PATIENTS))]
Doer = Annotated[Visitor, Depends(auth.requires(Right.ANSWER))]
Form = Annotated[FormData, Depends(auth.checked_form)]


def routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/merges")
    def listed(request: Request, who: Seer, done: str = "", problem: str = "") -> Response:
        return site.page(
            request,
            who,
            "clinic/merges.html",
            merges=site.read(merges),
            name_of=name_of,
            done=done == "undone",
            problem=problem_word(problem),
            can_undo=who.may(Right.ANSWER),
        )

    @router.post("/merges/{number}/undo")
    async def undo(request: Request, who: Doer, form: Form, number: str) -> Response:
        """``number``: of the merge's audit entry."""
        wanted, given = number_of(number), form.get("reason", "")
        if wanted is None:
            return site.problem(request, who, 404)
        try:
            await site.console.actions.undo_merge(
                wanted, reason=given if isinstance(given, str) else "", by=acting(who, form)
            )
        except LookupError:
            return site.problem(request, who, 404)
        except RefusedInput as refused:
            return _back(problem=problem_of(refused))
        return _back(done="undone")

    return router


def _back(**given: str) -> Response:
    return RedirectResponse(f"/console/merges?{urlencode(given)}", status_code=303)
