"""Log-in through an identity provider: out to it, back from it, and out of it again.

Rule of the file: what comes back counts only in the browser that was sent out. What it was sent out with stands in a cookie
of its own, so that any engine on the same database can take the answer.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from typing import Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection

from console.auth import Gate, gate_of, gave_session, local, login_answer, name_of, opened_session
from console.port import Person, SignOn, SignOnRefused, SignOnUnavailable
from store import accounts

__all__ = ["PENDING", "routes"]

PENDING: Final = "neutroflag_sign_on"
_PLACE, _PENDING_S, _LONGEST = "/console/oidc", 600, 2048


def routes(sign_on: SignOn) -> APIRouter:
    """To be included in the console's router."""
    router = APIRouter()

    # A link and no form: browsers hold a form's redirections to form-action, and the provider is not 'self'.
    @router.get("/oidc/start")
    async def start(request: Request, next: str = "") -> Response:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        try:
            address = await sign_on.begin(state=state, nonce=nonce, challenge=challenge)
        except SignOnUnavailable:
            return _refused(request, "", 503, "provider-away")
        response = RedirectResponse(address, status_code=303)
        response.set_cookie(
            PENDING,
            ".".join((state, nonce, verifier, quote(local(next), safe=""))),
            max_age=_PENDING_S,
            path=_PLACE,
            secure=gate_of(request).site.console.secure,
            httponly=True,
            # Strict would be left out when the provider sends the browser back.
            samesite="lax",
        )
        return response

    @router.get("/oidc/callback")
    async def callback(
        request: Request, code: str = "", state: str = "", iss: str | None = None, error: str = ""
    ) -> Response:
        answer = await _answer(request, sign_on, code, state, iss, error)
        answer.delete_cookie(
            PENDING, path=_PLACE, secure=gate_of(request).site.console.secure, httponly=True, samesite="lax"
        )
        return answer

    @router.get("/oidc/leave")
    async def leave(request: Request) -> Response:
        """Out of the provider's own session, which other programs share; ours has ended before."""
        try:
            address = await sign_on.leaving()
        except SignOnUnavailable:
            return _refused(request, "", 503, "provider-away")
        return RedirectResponse(address or "/console/login", status_code=303)

    return router


async def _answer(request: Request, sign_on: SignOn, code: str, state: str, iss: str | None, error: str) -> Response:
    gate = gate_of(request)
    peer, now = (request.client.host if request.client else ""), time.monotonic()
    if wait_s := gate.by_peer.wait_s(peer, now):
        answer = _refused(request, "", 429, "throttled")
        answer.headers["Retry-After"] = str(wait_s)
        return answer
    # Counted before the provider is asked: whoever makes up answers has us ask no more often than that.
    gate.by_peer.failed(peer, now)
    sent = request.cookies.get(PENDING, "").split(".", 3)
    if len(sent) != 4 or not secrets.compare_digest(sent[0].encode(), state.encode()):
        return _refused(request, "", 400, "sign-on-stale")
    _, nonce, verifier, target = sent
    wanted = unquote(target)
    if error or not code or len(code) > _LONGEST:
        return _refused(request, wanted, 401, "sign-on-refused")
    try:
        person = await sign_on.finish(code=code, verifier=verifier, nonce=nonce, issuer=iss)
    except SignOnUnavailable:
        return _refused(request, wanted, 503, "provider-away")
    except SignOnRefused:
        return _refused(request, wanted, 401, "sign-on-refused")
    return await _admitted(request, gate, person, wanted, peer)


async def _admitted(request: Request, gate: Gate, person: Person, target: str, peer: str) -> Response:
    name = name_of(person.name)
    if not name or len(name) > 64 or not name.isprintable():
        return _refused(request, target, 401, "sign-on-refused")
    if person.role is None:
        return _refused(request, target, 403, "no-role")
    role, at_ms = person.role.value, gate.now_ms()

    def account(connection: Connection) -> str:
        return accounts.vouched(connection, person.issuer, person.subject, name=name, role=role, at_ms=at_ms)

    try:
        token = await opened_session(request, gate, account)
    except accounts.AccountExists:
        # Never taken over: it may be somebody else's.
        return _refused(request, target, 403, "name-taken")
    if not token:
        return _refused(request, target, 401, "sign-on-refused")
    gate.by_peer.forgive(peer)
    # A page and no redirection: the session's cookie is strict, and a browser that came from elsewhere would not send it.
    page = gate.site.page(request, None, "entered.html", next=local(target))
    gave_session(page, gate, token)
    return page


def _refused(request: Request, target: str, status: int, problem: str) -> Response:
    gate_of(request).site.console.noticed(problem.replace("-", "_"))
    return login_answer(request, target, status=status, problem=problem)
