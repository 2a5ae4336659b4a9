"""Who is at the console: log-in, sessions, rights, and that a form was sent by our own page.

Rule of the file: what is not plainly allowed is refused. Without any account the console is open on loopback only, and only
under a loopback name, so that neither a proxy nor a page that re-binds its name in the DNS opens it to others.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import time
import unicodedata
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection
from starlette.datastructures import FormData

from console.port import Right, Role, Visitor
from console.site import Site
from console.throttle import Throttle
from store import accounts
from store.values import to_ms

__all__ = [
    "COOKIE",
    "Answered",
    "Gate",
    "answered",
    "attached",
    "checked_form",
    "gate_of",
    "gave_session",
    "local",
    "login_answer",
    "name_of",
    "opened_session",
    "requires",
    "routes",
    "visitor",
]

COOKIE = "neutroflag_session"
IDLE_MS = 30 * 60 * 1000
ABSOLUTE_MS = 12 * 3600 * 1000
# A session's last use is written this often, not with every page.
_SEEN_EVERY_MS = 60 * 1000
_FORM_BYTES, _FORM_FIELDS, _PASSWORD_LENGTH = 64 * 1024, 200, 1024
_HOME, _LOGIN = "/console", "/console/login"


class Answered(HTTPException):
    """The request ends here, with ``response``. An application without the handler still gives its status and headers."""

    def __init__(self, response: Response) -> None:
        kept = {name: value for name, value in response.headers.items() if name in ("location", "hx-redirect")}
        super().__init__(response.status_code, headers=kept)
        self.response = response


def answered(_request: Request, error: Exception) -> Response:
    """The exception handler for ``Answered``."""
    if not isinstance(error, Answered):
        raise error
    return error.response


class Gate:
    """What logging in needs besides the database: the hasher, the throttles, and this process's token for open forms."""

    def __init__(self, site: Site, hasher: PasswordHasher) -> None:
        self.site = site
        self.open_csrf = secrets.token_urlsafe(32)
        """Of forms that no session stands behind. Other sites cannot read it off our pages."""
        self.by_name = Throttle(limit=10)
        self.by_peer = Throttle(limit=50)
        self._hasher = hasher
        self._nobody = ""
        # Each takes 64 MiB and a core for a moment; the doors of this process need theirs.
        self._turns = asyncio.Semaphore(2)

    async def verifies(self, account: accounts.Account | None, password: str) -> bool:
        """Takes the same time for an unknown account, a disabled one and a wrong password."""
        async with self._turns:
            # Whoever asks first waits for it, whether the name is known or not.
            self._nobody = self._nobody or await run_in_threadpool(self._hasher.hash, secrets.token_urlsafe(16))
            # An account that a provider vouches for has none here, and takes as long.
            held = (account.password_hash if account is not None else "") or self._nobody
            matches = await run_in_threadpool(self._matches, held, password)
        return matches and account is not None and not account.disabled and not account.issuer

    def now_ms(self) -> int:
        return to_ms(self.site.console.clock())

    @property
    def takes_passwords(self) -> bool:
        sign_on = self.site.console.sign_on
        return sign_on is None or sign_on.local_accounts

    def vouches(self, found: accounts.Session) -> bool:
        """Whether accounts of this origin may be logged in now: settings may have changed since the log-in."""
        sign_on = self.site.console.sign_on
        return self.takes_passwords if not found.issuer else sign_on is not None and sign_on.issuer == found.issuer

    def _matches(self, held: str, password: str) -> bool:
        try:
            return self._hasher.verify(held, password)
        except (Argon2Error, InvalidHashError):
            return False


def attached(site: Site, hasher: PasswordHasher | None = None) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """The dependency of the whole router that lets the others find their site; it must stand first."""
    gate = Gate(site, hasher or PasswordHasher())

    async def attach(request: Request) -> None:
        request.state.gate = gate

    return attach


def name_of(text: str) -> str:
    """An account's name as it is stored."""
    return unicodedata.normalize("NFC", text).strip()


async def visitor(request: Request) -> Visitor:
    """Who looks. Raises Answered: a redirection to the log-in, or the page that says why nobody may."""
    gate = gate_of(request)
    console = gate.site.console
    token = request.cookies.get(COOKIE, "")
    now = to_ms(console.clock())
    any_account, found = await run_in_threadpool(gate.site.read, _look, token, now)
    if not any_account and console.sign_on is None:
        if not console.loopback or not _is_local_name(request.headers.get("host", "")):
            raise Answered(_notice(request, 503, "no-accounts"))
        return Visitor(name="", role=Role.ADMIN, csrf=gate.open_csrf, is_open=True)
    if found is None or not gate.vouches(found):
        raise Answered(_to_login(request))
    if now - found.seen_at >= _SEEN_EVERY_MS and not _polls(request):
        token_hash = _hash(token)
        await console.write(lambda connection: accounts.seen(connection, token_hash, at_ms=now))
    return Visitor(name=found.account, role=Role(found.role), csrf=found.csrf)


def requires(right: Right) -> Callable[[Request, Visitor], Coroutine[Any, Any, Visitor]]:
    """The visitor if the role has this right. Raises Answered with a page and 403 if not."""

    async def permitted(request: Request, who: Annotated[Visitor, Depends(visitor)]) -> Visitor:
        if not who.may(right):
            raise Answered(_notice(request, 403, "no-right"))
        return who

    return permitted


async def checked_form(request: Request, who: Annotated[Visitor, Depends(visitor)]) -> FormData:
    """The form's fields, of a form that this visitor's own page sent. Raises Answered (403, 413, 415)."""
    return await _form(request, who.csrf)


def routes(site: Site) -> APIRouter:
    """Log-in and log-out, to be included in the console's router."""
    router = APIRouter()

    @router.get("/login")
    async def login_page(request: Request, next: str = "", left: str = "") -> Response:
        gate = gate_of(request)
        if site.console.sign_on is None and not await run_in_threadpool(gate.site.read, accounts.any_account):
            # Says that the first account is missing, or leads on where none is needed.
            await visitor(request)
            return _to(_HOME)
        return login_answer(request, next, left=bool(left))

    @router.post("/login")
    async def login(request: Request) -> Response:
        gate = gate_of(request)
        if not gate.takes_passwords:
            return login_answer(request, "", status=403, problem="no-passwords")
        try:
            form = await _form(request, gate.open_csrf)
        except Answered as refused:
            if refused.status_code == 403:
                return login_answer(request, "", status=403, problem="stale")
            raise
        return await _log_in(request, gate, form)

    @router.post("/logout")
    async def logout(request: Request, _form: Annotated[FormData, Depends(checked_form)]) -> Response:
        console = site.console
        token_hash, now = _hash(request.cookies.get(COOKIE, "")), to_ms(console.clock())
        await console.write(lambda connection: accounts.end_session(connection, token_hash, at_ms=now))
        response = _to(f"{_LOGIN}?left=1" if console.sign_on is not None else _LOGIN)
        response.delete_cookie(COOKIE, path=_HOME, secure=console.secure, httponly=True, samesite="strict")
        return response

    return router


async def _log_in(request: Request, gate: Gate, form: FormData) -> Response:
    console = gate.site.console
    name, password, target = name_of(_text(form, "name")), _text(form, "password"), _text(form, "next")
    peer = request.client.host if request.client else ""
    if wait_s := max(gate.by_name.wait_s(name, time.monotonic()), gate.by_peer.wait_s(peer, time.monotonic())):
        console.noticed("login_throttled")
        answer = login_answer(request, target, status=429, problem="throttled")
        answer.headers["Retry-After"] = str(wait_s)
        return answer
    # Counted before the hash is, so that tries sent all at once are counted too.
    gate.by_name.failed(name, time.monotonic())
    gate.by_peer.failed(peer, time.monotonic())
    held = await run_in_threadpool(gate.site.read, accounts.find, name)
    good = len(password) <= _PASSWORD_LENGTH and await gate.verifies(held, password)
    token = await opened_session(request, gate, lambda _: name) if good else ""
    if not token:
        console.noticed("login_refused")
        return login_answer(request, target, status=401, problem="refused")
    gate.by_name.succeeded(name)
    gate.by_peer.forgive(peer)
    response = _to(local(target))
    gave_session(response, gate, token)
    return response


async def opened_session(request: Request, gate: Gate, account: Callable[[Connection], str]) -> str:
    """The token of a new session, in one transaction with ``account``, which gives the account's name.

    "" where that account is gone or disabled.
    """
    token, csrf, now = secrets.token_bytes(32).hex(), secrets.token_urlsafe(32), gate.now_ms()
    earlier = request.cookies.get(COOKIE, "")

    def opened(connection: Connection) -> bool:
        # A token that the browser brought is never taken over: whoever planted it would be logged in with it.
        accounts.end_session(connection, _hash(earlier), at_ms=now)
        return accounts.add_session(
            connection,
            account(connection),
            token_hash=_hash(token),
            csrf=csrf,
            at_ms=now,
            expires_ms=now + ABSOLUTE_MS,
            idle_ms=IDLE_MS,
        )

    return token if await gate.site.console.write(opened) else ""


def gave_session(response: Response, gate: Gate, token: str) -> None:
    secure = gate.site.console.secure
    response.set_cookie(COOKIE, token, path=_HOME, secure=secure, httponly=True, samesite="strict")


def _look(connection: Connection, token: str, now_ms: int) -> tuple[bool, accounts.Session | None]:
    found = accounts.find_session(connection, _hash(token), at_ms=now_ms, idle_ms=IDLE_MS) if token else None
    return found is not None or accounts.any_account(connection), found


async def _form(request: Request, csrf: str) -> FormData:
    if not _same_origin(request):
        raise Answered(_notice(request, 403, "other-origin"))
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Answered(_notice(request, 415, "unreadable-form"))
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > _FORM_BYTES:
            raise Answered(_notice(request, 413, "unreadable-form"))
    try:
        fields = parse_qsl(held.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise Answered(_notice(request, 400, "unreadable-form")) from None
    form = FormData([*fields])
    if not secrets.compare_digest(_text(form, "csrf").encode(), csrf.encode()):
        raise Answered(_notice(request, 403, "stale-form"))
    return form


def _same_origin(request: Request) -> bool:
    """By what the browser says of itself; a browser that says nothing still needs the token."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or (origin != "null" and urlsplit(origin).netloc == request.headers.get("host", ""))


def local(target: str) -> str:
    """Only a path of the console, so that a link to our log-in never leads elsewhere."""
    path = target.partition("?")[0]
    inside = path == _HOME or path.startswith(f"{_HOME}/")
    plain = target.isascii() and target.isprintable() and not {"\\", "#"} & set(target) and "//" not in path
    return target if inside and plain and ".." not in path and path != _LOGIN else _HOME


def _to_login(request: Request) -> Response:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if "hx-request" in request.headers:
        # A part of a page cannot be replaced by the log-in: htmx is told to leave the page (HX-Redirect).
        shown = urlsplit(request.headers.get("hx-current-url", ""))
        wanted = shown.path + (f"?{shown.query}" if shown.query else "")
        return Response(status_code=401, headers={"HX-Redirect": f"{_LOGIN}?next={quote(local(wanted), safe='')}"})
    return _to(f"{_LOGIN}?next={quote(local(wanted), safe='')}" if request.method == "GET" else _LOGIN)


def login_answer(
    request: Request, target: str, *, status: int = 200, problem: str = "", left: bool = False
) -> HTMLResponse:
    gate = gate_of(request)
    return gate.site.page(
        request,
        None,
        "login.html",
        status=status,
        next=local(target),
        csrf=gate.open_csrf,
        problem=problem,
        left=left,
        passwords=gate.takes_passwords,
        sign_on=gate.site.console.sign_on,
    )


def _notice(request: Request, status: int, code: str) -> HTMLResponse:
    return gate_of(request).site.page(request, None, "notice.html", status=status, code=code)


def _to(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def gate_of(request: Request) -> Gate:
    gate: Gate = request.state.gate
    return gate


def _polls(request: Request) -> bool:
    """What the page fetches by itself is not a person at work."""
    return request.method == "GET" and "hx-request" in request.headers


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""
