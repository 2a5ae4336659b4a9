"""The headers that every HTTP response carries, whoever made it: pages, doors, health, errors."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guarded"]

_PAGES = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DATA = b"default-src 'none'; frame-ancestors 'none'"
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: browsers would then send "Origin: null" with our own forms, and those are refused.
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_YEAR = (b"strict-transport-security", b"max-age=31536000")


class Guarded:
    """ASGI middleware. What a response says itself (a static file that may be kept) stands."""

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        always = (*_ALWAYS, _YEAR) if tls else _ALWAYS
        self._app = app
        self._pages = (*always, (b"content-security-policy", _PAGES))
        self._data = (*always, (b"content-security-policy", _DATA))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = self._pages if scope["path"].startswith("/console") else self._data

        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [*message.get("headers", ()), *(one for one in wanted if one[0] not in given)]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            # A fault that was recorded and answered with 500 is raised all the same (starlette's ServerErrorMiddleware); the
            # web server would drop the connection after the answer, and with it the sender's next message.
            if not answered:
                raise
