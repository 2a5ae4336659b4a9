"""The console's routes in one router under ``/console``."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from console.port import Console
from console.site import HERE, Site

__all__ = ["router"]


def router(console: Console) -> APIRouter:
    site = Site(console)
    routes = APIRouter(prefix="/console", include_in_schema=False)
    _ = site
    routes.routes.append(Mount("/console/static", StaticFiles(directory=HERE / "static")))
    return routes
