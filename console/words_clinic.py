"""The words of the clinicians' pages: key -> (French, English)."""

from __future__ import annotations

__all__ = ["CLINIC"]

CLINIC: dict[str, tuple[str, str]] = {}
