"""Renders pages: templates, words in the visitor's language, and what every page shows."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError

from console.formats import formats
from console.port import Console, Right, Visitor
from console.strip import Strip, strip_of
from console.words import words_for
from store import browse
from store.port import StoreUnavailable

__all__ = ["HEADERS", "HERE", "Site"]

HERE = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every page: nothing from elsewhere, no script or style in the page, not kept by the browser (patients' data)."""


@functools.cache
def _templates() -> Environment:
    """One for the process: each template is compiled once, beside the start, so that nobody waits for it."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    threading.Thread(target=_compile, args=(found,), name="templates", daemon=True).start()
    return found


def _compile(templates: Environment) -> None:
    for name in templates.list_templates(extensions=("html",)):
        templates.get_template(name)


class Site:
    """``page`` renders a whole page, ``fragment`` a part of one for htmx. Both escape everything."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._templates = _templates()

    def language(self, request: Request) -> str:
        """The visitor's choice by cookie, else the site's."""
        chosen = request.cookies.get("neutroflag_language", "")
        return chosen if chosen in ("fr", "en") else self.console.language

    def page(
        self, request: Request, visitor: Visitor | None, template: str, *, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """A page on ``base.html``. Without a visitor (the login) it shows no numbers and no navigation."""
        strip = self.strip(request) if visitor is not None else None
        return self._render(request, visitor, template, status, {"strip": strip, **context})

    def fragment(self, request: Request, visitor: Visitor, template: str, **context: Any) -> HTMLResponse:
        return self._render(request, visitor, template, 200, context)

    def problem(self, request: Request, visitor: Visitor | None, status: int) -> HTMLResponse:
        """A page for 404 or 503, in words."""
        return self._render(request, visitor, "problem.html", status, {"strip": None, "problem": status})

    def strip(self, request: Request) -> Strip:
        # The engine's standing was asked for on the loop, before this thread began (see console.app).
        ready, state = getattr(request.state, "standing", (False, {}))
        return strip_of(
            ready,
            state,
            self.read(browse.standing),
            mode=self.console.mode,
            destinations=len(self.console.destinations),
        )

    def read(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """``query(connection, ...)`` on a reading connection of its own, for handlers in threads (plain ``def``).

        Raises StoreUnavailable, which becomes a page that says so.
        """
        try:
            with self.console.reader.connect() as connection, connection.begin():
                return query(connection, *arguments, **named)
        except SQLAlchemyError as error:
            raise StoreUnavailable(type(error).__name__) from error

    async def aread(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The same for handlers on the loop: the look itself is taken in a thread."""
        return await run_in_threadpool(self.read, query, *arguments, **named)

    def _render(
        self, request: Request, visitor: Visitor | None, template: str, status: int, context: dict[str, Any]
    ) -> HTMLResponse:
        language, now = self.language(request), self.console.clock()
        words = words_for(language)
        text = self._templates.get_template(template).render(
            request=request,
            visitor=visitor,
            console=self.console,
            language=language,
            t=words,
            say=lambda key, **values: words[key].format(**values),
            now=now,
            Right=Right,
            path=request.url.path,
            **formats(language, self.console.zone, now),
            **context,
        )
        return HTMLResponse(text, status_code=status, headers=HEADERS)
