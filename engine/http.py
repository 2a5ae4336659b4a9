"""The HTTP face: the doors' routes, health and metrics, in one application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from engine.observe import Meters
from ingest.access import CHALLENGE
from ingest.offered import plain

__all__ = ["application"]

State = dict[str, Any]


def application(
    routers: list[APIRouter],
    *,
    readiness: Callable[[], Awaitable[tuple[bool, State]]],
    metrics: Callable[[], Awaitable[bytes]],
    meters: Meters,
    may_measure: Callable[[Request], bool] = lambda _: True,
    handlers: Mapping[type[Exception], Callable[[Request, Exception], Response]] | None = None,
) -> FastAPI:
    """``may_measure``: who may read the numbers behind ``/readyz``, and ``/metrics``."""
    # The interactive documentation would load its scripts from a CDN: off.
    app = FastAPI(title="NeutroFlag", version=version("neutroflag"), docs_url=None, redoc_url=None)
    for router in routers:
        app.include_router(router)
    for kind, handler in (handlers or {}).items():
        app.add_exception_handler(kind, handler)

    @app.get("/livez", responses=plain("Running"))
    async def livez() -> Response:
        """The process runs and its loop turns."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", responses={503: {"description": "Does not accept, or does not judge"}})
    async def readyz(request: Request) -> JSONResponse:
        """200 when messages are accepted and judged; 503 with the reason when not. Destinations are told, not required."""
        ready, state = await readiness()
        told = state if may_measure(request) else {"judging": bool(state.get("judging"))}
        return JSONResponse(told, status_code=200 if ready else 503)

    @app.get("/metrics", responses=plain("Prometheus exposition") | {401: plain("A bearer token is needed")[200]})
    async def exposition(request: Request) -> Response:
        if not may_measure(request):
            return Response("A bearer token is needed\n", status_code=401, headers=CHALLENGE, media_type="text/plain")
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: Exception) -> Response:
        """Nobody reads this answer; what had come of the body was nothing yet."""
        meters.noticed("http", "left_before_the_end")
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def fault(_request: Request, error: Exception) -> Response:
        meters.fault(error, path="http")
        return JSONResponse({"error": "internal"}, status_code=500)

    return app
