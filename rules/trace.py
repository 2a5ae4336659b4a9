"""What each rule of a protocol stands on and where it is used: read from the loaded protocol, for pages and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rules.protocol import Grounds, MonitoringProtocol

__all__ = ["Used", "grounds_of", "used_by"]


@dataclass(frozen=True, slots=True)
class Used:
    """One place of a protocol that stands on ``grounds``. ``entry`` as the file names it: ``range mild/general``."""

    entry: str
    grounds: Grounds


def used_by(protocol: MonitoringProtocol) -> Iterator[Used]:
    """Every entry of the file that has a sentence, in the file's order."""
    for band in protocol.ranges:
        yield Used(f"range {band.id}/{band.population}", band.grounds)
    for population, bands in protocol.leukocyte_bands:
        for band in bands:
            yield Used(f"leukocyte_range {band.id}/{population}", band.grounds)
    for start in protocol.initiations:
        yield Used(f"initiation {start.population}", start.grounds)
    for phase in protocol.phases:
        yield Used(f"phase {phase.id}", phase.grounds)
    yield Used("after_mild", protocol.after_mild.grounds)
    for rule in protocol.interruptions:
        yield Used(f"interruption {rule.id}", rule.grounds)
    yield Used("after_stop.stop", protocol.after_stop.stop)
    yield Used("after_stop.follow_up", protocol.after_stop.follow_up)
    yield Used("infection", protocol.infection.grounds)
    yield Used("overdue", protocol.overdue.grounds)
    if protocol.risk is not None:
        yield Used("risk", protocol.risk.grounds)


def grounds_of(protocol: MonitoringProtocol) -> tuple[Grounds, ...]:
    return tuple(used.grounds for used in used_by(protocol))
