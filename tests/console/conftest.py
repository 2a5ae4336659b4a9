"""What the console's tests share: a person's browser without a screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.plain import PLAIN


@pytest.fixture
async def browser(running: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Speaks English, follows no redirection by itself."""
    async with httpx2.AsyncClient(
        base_url=running.url, verify=PLAIN, trust_env=False, timeout=30, cookies={"neutroflag_language": "en"}
    ) as client:
        yield client
