"""Renders pages: templates, words in the visitor's language, and what every page shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Connection

from console.port import Console, Visitor
from console.words import words_for

__all__ = ["HERE", "Site"]

HERE = Path(__file__).parent


class Site:
    """``page`` renders a whole page, ``fragment`` a part of one for htmx. Both escape everything."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def language(self, request: Request) -> str:
        """The visitor's choice by cookie, else the site's."""
        chosen = request.cookies.get("neutroflag_language", "")
        return chosen if chosen in ("fr", "en") else self.console.language

    def page(
        self, request: Request, visitor: Visitor | None, template: str, *, status: int = 200, **context: Any
    ) -> HTMLResponse:
        language = self.language(request)
        text = self._templates.get_template(template).render(
            request=request,
            visitor=visitor,
            console=self.console,
            language=language,
            t=words_for(language),
            now=self.console.clock(),
            **context,
        )
        return HTMLResponse(text, status_code=status)

    def read(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """``query(connection, ...)`` on a reading connection of its own. For handlers in threads (plain ``def``)."""
        with self.console.reader.connect() as connection, connection.begin():
            return _called(query, connection, arguments, named)


def _called(query: Callable[..., Any], connection: Connection, arguments: Any, named: Any) -> Any:
    return query(connection, *arguments, **named)
