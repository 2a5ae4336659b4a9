"""A request's body, never larger than allowed."""

from __future__ import annotations

from fastapi import Request

__all__ = ["limited"]


async def limited(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is larger; no more than ``limit`` is ever held."""
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > limit:
            return None
    return bytes(held)
