"""What every section of the settings is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = ["Section", "together"]


class Section(BaseModel):
    # By alias: ``for`` is a word of Python's, and what one process writes another must read.
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


def together(certificate: Path | None, key: Path | None) -> None:
    """Raises ValueError where one is given without the other."""
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key go together")
