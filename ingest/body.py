"""A request's body, never larger than allowed."""

from __future__ import annotations

from starlette.requests import Request

__all__ = ["limited"]


async def limited(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is larger; no more than ``limit`` is ever held.

    As much again is read and let go, so that the refusal reaches a sender that first writes all.
    """
    held, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            held += chunk
            continue
        held.clear()
        if size > 2 * limit:
            break
    return bytes(held) if size <= limit else None
