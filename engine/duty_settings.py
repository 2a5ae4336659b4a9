"""Who is asked, and who next, as settings: roles, shifts, cover, and the recipients beside the prescriber."""

from __future__ import annotations

import re
import typing
from datetime import date
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from emitters.counts import is_reference
from engine.section import Section

__all__ = ["RotaSection", "RoutingSection", "minutes_of"]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]


class RotaRole(Section):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[^/|]+$")
    fhir: str = ""
    """The reference that owns its Tasks (``PractitionerRole/...``); without one the name is said."""

    @field_validator("fhir")
    @classmethod
    def _reference(cls, value: str) -> str:
        if value and not is_reference(value):
            raise ValueError("not a FHIR reference such as PractitionerRole/17")
        return value


class RotaShift(Section):
    role: str
    days: tuple[Day, ...] = Field(default=typing.get_args(Day), min_length=1)
    """Days on which it begins; a holiday is ``holiday`` and no other day."""
    hours: str = "00:00-24:00"
    """Of the wall clock; ``18:30-08:00`` ends on the next day."""

    @field_validator("hours")
    @classmethod
    def _span(cls, value: str) -> str:
        minutes_of(value)
        return value


class RotaCover(Section):
    """``by`` stands in for ``role``, from ``first`` to ``last``."""

    role: str
    by: str
    first: date
    last: date

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.last < self.first:
            raise ValueError("last lies before first: it covers nothing")
        return self


class RotaSection(Section):
    """Who is asked, and who next. Shifts in the order in which they are asked; without any there is no rota."""

    calendar: Literal["", "FR"] = ""
    """The public holidays of France."""
    holidays: tuple[date, ...] = ()
    role: tuple[RotaRole, ...] = ()
    shift: tuple[RotaShift, ...] = ()
    cover: tuple[RotaCover, ...] = ()


class RoutingSection(Section):
    owner: str = ""
    """Who is asked where the register names nobody: a role of the rota or a FHIR reference."""
    pharmacist: str = ""
    """Second recipient of a stop and of a dispensing after one: a role or reference; "" = none."""
    laboratory: str = ""
    """Recipient of the call-back for a count that could not be read, or was computed and lies near a threshold."""


def minutes_of(hours: str) -> tuple[int, int]:
    """``18:30-08:00`` -> ``(1110, 480)``. Raises ValueError."""
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-(?:(24):(00)|([01]\d|2[0-3]):([0-5]\d))", hours)
    if found is None:
        raise ValueError(f"hours are written 08:00-18:30, not {hours!r}")
    parts = [int(part) for part in found.groups() if part is not None]
    return parts[0] * 60 + parts[1], parts[2] * 60 + parts[3]
