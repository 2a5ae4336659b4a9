"""schemathesis knows neither ER7 nor our XML: both go out as the text that was made up."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/hl7-v2", "application/xml")
def as_text(_context: Any, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else str(value)).encode("utf-8", "surrogatepass")
