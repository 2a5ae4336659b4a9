"""The words of the operators' pages: key -> (French, English)."""

from __future__ import annotations

__all__ = ["OPERATORS"]

OPERATORS: dict[str, tuple[str, str]] = {}
