"""The console's routes in one router under ``/console``, and what becomes of requests that end early."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from console import auth, clinic, merging, oidc, operators
from console.auth import visitor
from console.port import Console, Right, Visitor
from console.site import HERE, Site
from store.port import StoreUnavailable

__all__ = ["handlers", "router"]

_YEAR_S = 365 * 24 * 3600
_LANGUAGE_BYTES = 4096


def router(console: Console) -> APIRouter:
    site = Site(console)
    # First of all dependencies: what asks who the visitor is finds its site by it.
    needed = [Depends(auth.attached(site)), Depends(_standing(console))]
    routes = APIRouter(prefix="/console", include_in_schema=False, dependencies=needed)

    @routes.get("")
    def home(who: Annotated[Visitor, Depends(visitor)]) -> Response:
        page = "today" if who.may(Right.PATIENTS) else "messages"
        return RedirectResponse(f"/console/{page}", status_code=303)

    routes.include_router(auth.routes(site))
    if console.sign_on is not None:
        routes.include_router(oidc.routes(console.sign_on))
    routes.include_router(_common(site))
    routes.include_router(clinic.routes(site))
    routes.include_router(merging.routes(site))
    routes.include_router(operators.routes(site))
    routes.include_router(nowhere(site))
    return routes


def handlers() -> dict[type[Exception], Callable[[Request, Exception], Response]]:
    """Exception handlers for the application that includes the router."""
    return {auth.Answered: auth.answered, StoreUnavailable: _unavailable}


def _unavailable(request: Request, error: Exception) -> Response:
    gate = getattr(request.state, "gate", None)
    if gate is None:
        raise error
    page: HTMLResponse = gate.site.problem(request, None, 503)
    return page


def _standing(console: Console) -> Callable[[Request], Awaitable[None]]:
    async def ask(request: Request) -> None:
        """On the loop, where the engine's parts live; the page itself is made in a thread."""
        request.state.standing = await console.state()

    return ask


def _common(site: Site) -> APIRouter:
    routes = APIRouter()
    files = _static()

    @routes.get("/strip")
    def strip(request: Request, who: Annotated[Visitor, Depends(visitor)]) -> Response:
        return site.fragment(request, who, "strip.html", strip=site.strip(request))

    @routes.post("/language")
    async def language(request: Request) -> Response:
        """Needs no log-in and no token: it sets a cookie for the words, and nothing else."""
        form = parse_qs((await _beginning(request)).decode("ascii", errors="replace"))
        chosen = form.get("language", [""])[0]
        response = RedirectResponse(_back(form.get("back", [""])[0]), status_code=303)
        if chosen in ("fr", "en"):
            response.set_cookie(
                "neutroflag_language",
                chosen,
                path="/console",
                max_age=_YEAR_S,
                secure=site.console.secure,
                httponly=True,
                samesite="lax",
            )
        return response

    @routes.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        if name not in files:
            return site.problem(request, None, 404)
        body, media, tag = files[name]
        kept = {"ETag": tag, "Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=kept)
        return Response(body, media_type=media, headers=kept)

    return routes


def nowhere(site: Site) -> APIRouter:
    """Any other address; to be included last."""
    routes = APIRouter()

    @routes.get("/{rest:path}")
    def nothing(request: Request, rest: str, who: Annotated[Visitor, Depends(visitor)]) -> Response:
        return site.problem(request, who, 404)

    return routes


def _static() -> dict[str, tuple[bytes, str, str]]:
    """The few files that pages load: (bytes, media type, tag) by name."""
    found = {}
    for file in sorted((HERE / "static").iterdir()):
        body = file.read_bytes()
        media = mimetypes.guess_type(file.name)[0] or "text/plain"
        found[file.name] = (body, media, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found


def _back(address: str) -> str:
    """Only to a page of the console."""
    plain = address.isascii() and address.isprintable() and not {"\\", "#"} & set(address)
    path = address.partition("?")[0]
    return address if plain and path.startswith("/console") and "//" not in path and ".." not in path else "/console"


async def _beginning(request: Request) -> bytes:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > _LANGUAGE_BYTES:
            break
    return bytes(held[:_LANGUAGE_BYTES])
