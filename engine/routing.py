"""Who is told, and where: rules of destinations, the default owner, the rota and the second recipients. Pure, by table.

Rule of the file: what no rule takes goes to every destination that is open to all; nothing goes nowhere (promise 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from engine.rota import Rota
from rules.asking import DISPENSED
from rules.decisions import UNDECIDED
from rules.model import Alert, AlertFamily, AlertLevel
from rules.withdrawal import ANSWERED_WITHDRAWN

__all__ = ["LABORATORY", "PHARMACIST", "PRESCRIBER", "Facts", "Routing", "Rule", "copies_of", "facts_of"]

PRESCRIBER: Final = "prescriber"
"""Whoever must answer."""
PHARMACIST: Final = "pharmacist"
LABORATORY: Final = "laboratory"

_DERIVED: Final = "derived-across-threshold"
# Reasons of a REVIEW alert that the laboratory cannot clear up: what it sent is not at fault.
_NOT_THE_LABORATORYS: Final = frozenset(
    {
        DISPENSED,
        ANSWERED_WITHDRAWN,
        UNDECIDED,
        "internal-error",
        "patient-ambiguous",
        "body-unopenable",
        "body-missing",
        "body-unreadable",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a rule may ask of a notification; a fact may have several names."""

    sender: frozenset[str]
    ward: frozenset[str]
    prescriber: frozenset[str]
    level: frozenset[str]
    recipient: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A destination takes what agrees with each of ``where``; without any, everything. ``copies``: also what is meant for
    the second recipients, unless ``where`` says for whom."""

    destination: str
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    copies: bool = False

    def takes(self, facts: Facts) -> bool:
        if "recipient" not in self.where and not self.copies and PRESCRIBER not in facts.recipient:
            return False
        return all(not wanted.isdisjoint(getattr(facts, name)) for name, wanted in self.where.items())

    @property
    def is_open(self) -> bool:
        """Takes whatever it is that no other rule takes."""
        return not self.where.keys() - {"recipient"} and self.takes_primary

    @property
    def takes_primary(self) -> bool:
        wanted = self.where.get("recipient")
        return wanted is None or not wanted <= {PHARMACIST, LABORATORY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    rules: tuple[Rule, ...] = ()
    rota: Rota | None = None
    owner: str = ""
    """The default owner: of alerts whose patient has none on the register."""
    has_other_owners: bool = False
    """Some destination names its own default owner: nobody of the rota is put before that one."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Second recipients: the role or reference by kind (``pharmacist``, ``laboratory``)."""

    def destinations(self, alert: Alert, sender: str = "") -> tuple[str, ...]:
        """In the order of the settings. Who was told before is told again, whatever has changed (the same channels)."""
        facts = facts_of(alert, sender)
        takers = {rule.destination for rule in self.rules if rule.takes(facts)}
        if not takers and not alert.recipient:
            takers = {rule.destination for rule in self.rules if rule.takes_primary}
        takers.update(alert.told)
        return tuple(rule.destination for rule in self.rules if rule.destination in takers)

    def first_owner(self, named: str, at: datetime) -> str:
        """Whom to ask: the patient's own, else the default one; a role that is off duty gives way to one that is on."""
        owner = named or self.owner
        if self.rota is None or (not owner and self.has_other_owners):
            return owner
        return self.rota.first(owner, at)

    def next_owner(self, asked: tuple[str, ...], at: datetime) -> str:
        return self.rota.next(asked, at) if self.rota is not None else (asked[-1] if asked else self.owner)

    def reference(self, owner: str) -> str:
        return self.rota.reference(owner) if self.rota is not None else owner


def facts_of(alert: Alert, sender: str = "") -> Facts:
    """``sender``: of the message, MSH-3|MSH-4; either half alone names it too."""
    order = alert.result.order if alert.result is not None else alert.order
    sender = sender or alert.source.partition(" ")[0]
    asked = alert.asked[-1] if alert.asked else ""
    return Facts(
        sender=_named(sender, *sender.split("|")),
        ward=_named(order.ward),
        prescriber=_named(order.prescriber),
        level=_named(alert.pressing.value),
        recipient=_named(alert.recipient) if alert.recipient else _named(PRESCRIBER, asked, alert.subject.owner),
    )


def _named(*names: str) -> frozenset[str]:
    return frozenset(filter(None, names))


def copies_of(alert: Alert) -> tuple[str, ...]:
    """The second recipients that this alert has, by kind."""
    if alert.family is AlertFamily.REVIEW:
        if alert.reason == DISPENSED:
            return (PHARMACIST,)
        # Without a message behind it nobody at the laboratory could look anything up.
        return (LABORATORY,) if alert.source and alert.reason not in _NOT_THE_LABORATORYS else ()
    stops = alert.family is AlertFamily.STOP and alert.level.rank >= AlertLevel.RED.rank
    derived = alert.assessment is not None and _DERIVED in alert.assessment.remarks
    return (*((PHARMACIST,) if stops else ()), *((LABORATORY,) if derived else ()))
