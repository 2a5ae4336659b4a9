"""Rota and routing from the settings, and what is wrong with them: each complaint names its place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from emitters.fhir_terms import Level
from engine.config import Settings, WatchSection
from engine.destination_settings import FhirDestination, MllpDestination
from engine.duty_settings import minutes_of
from engine.escalation import Escalation
from engine.notify import Notifier
from engine.present import Present
from engine.rota import Cover, Role, Rota, Shift
from engine.routing import LABORATORY, PHARMACIST, PRESCRIBER, Routing, Rule
from engine.texts import wordings_of
from rules.model import AlertLevel

__all__ = ["again_of", "escalation_of", "faults", "patience_of", "present_of", "remarks", "rota_of", "routing_of"]

_KEYS = ("sender", "ward", "prescriber", "level", "recipient")
# What each second recipient can be told of at all (engine/routing.py, copies_of).
_LEVELS_OF = {
    PHARMACIST: {"critical", "red"},
    LABORATORY: {"critical", "red", "amber", "info"},
}
_MUST_ARRIVE = ("critical", "red", "amber")


def rota_of(settings: Settings) -> Rota | None:
    given = settings.rota
    if not given.shift:
        return None
    return Rota(
        zone=settings.zone,
        roles=tuple(Role(role.name, role.fhir) for role in given.role),
        shifts=tuple(Shift(one.role, frozenset(one.days), *minutes_of(one.hours)) for one in given.shift),
        covers=tuple(Cover(one.role, one.by, one.first, one.last) for one in given.cover),
        holidays=frozenset(given.holidays),
        calendar=given.calendar,
    )


def routing_of(settings: Settings) -> Routing:
    rules = []
    for item in settings.destination:
        where = {key: frozenset(value) for key in _KEYS if (value := getattr(item.for_, key)) is not None}
        # Without Tasks (L0, L1) a copy could not be told from the alert itself.
        has_tasks = isinstance(item, FhirDestination) and item.level not in (Level.L0, Level.L1)
        rules.append(Rule(item.name, where, copies=has_tasks))
    second = {PHARMACIST: settings.routing.pharmacist, LABORATORY: settings.routing.laboratory}
    return Routing(
        rules=tuple(rules),
        rota=rota_of(settings),
        owner=settings.routing.owner,
        has_other_owners=any(getattr(item, "owner", "") for item in settings.destination),
        roles={kind: role for kind, role in second.items() if role},
    )


def patience_of(watch: WatchSection) -> dict[AlertLevel, timedelta]:
    return _hours(critical=watch.critical_h, red=watch.red_h, amber=watch.amber_h)


def again_of(watch: WatchSection) -> dict[AlertLevel, timedelta]:
    return _hours(critical=watch.critical_again_h, red=watch.red_again_h, amber=watch.amber_again_h)


def escalation_of(settings: Settings) -> Escalation:
    """With the notifier that the whole engine uses."""
    notifier = Notifier(
        language=settings.locale.language,
        wordings=wordings_of(settings),
        destinations=tuple(item.name for item in settings.destination),
        observe=settings.engine.mode == "observe",
        routing=routing_of(settings),
        patience=patience_of(settings.watch),
        told_of_answers=_told_of_answers(settings),
        zone=settings.zone,
    )
    return Escalation(notifier=notifier, zone=settings.zone, again=again_of(settings.watch))


def _told_of_answers(settings: Settings) -> dict[str, bool]:
    """Where a Task or a request of ours may stand open; a v2 system only where its profile wants it. A topic is nobody's
    inbox, and a text in a record (L0) stays what it was."""
    found: dict[str, bool] = {}
    for item in settings.destination:
        if isinstance(item, FhirDestination) and item.level is not Level.L0:
            found[item.name] = item.level in (Level.L1, Level.L3)
        elif isinstance(item, MllpDestination) and item.tell_answers:
            found[item.name] = True
    return found


def _hours(**given: float) -> dict[AlertLevel, timedelta]:
    return {AlertLevel(level): timedelta(hours=hours) for level, hours in given.items()}


def faults(settings: Settings) -> list[str]:
    """What makes the settings unusable: an unknown role, an hour without anybody, a rule that nothing can agree with."""
    return [*_roles(settings), *_hours_without(settings), *_rules(settings)]


def remarks(settings: Settings) -> list[str]:
    """What works, and somebody should know of."""
    found = []
    if not settings.rota.shift:
        found.append("no rota: an alert that nobody answers is asked of the same owner again")
    if settings.destination and not settings.routing.pharmacist:
        found.append("routing.pharmacist: nobody besides the prescriber is told of a stop")
    return found


def _roles(settings: Settings) -> Iterator[str]:
    rota = settings.rota
    names = [role.name for role in rota.role]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"rota.role[{number}].name: {name!r} is there twice"
        elif name not in {one.role for one in rota.shift} | {one.by for one in rota.cover} and name not in (
            settings.routing.pharmacist,
            settings.routing.laboratory,
        ):
            yield f"rota.role[{number}].name: {name!r} is never on duty"
    named = [
        *((f"rota.shift[{number}].role", one.role) for number, one in enumerate(rota.shift)),
        *((f"rota.cover[{number}].role", one.role) for number, one in enumerate(rota.cover)),
        *((f"rota.cover[{number}].by", one.by) for number, one in enumerate(rota.cover)),
    ]
    owners = [
        (f"routing.{key}", getattr(settings.routing, key))
        for key in ("owner", "pharmacist", "laboratory")
        if rota.shift
    ]
    owners += [
        (f"destination[{number}].owner", getattr(item, "owner", ""))
        for number, item in enumerate(settings.destination)
        if rota.shift
    ]
    # A reference names somebody whom the rota need not know.
    named += [(place, owner) for place, owner in owners if owner and "/" not in owner]
    for place, name in named:
        if name not in names:
            yield f"{place}: no role {name!r}; known: {', '.join(names) or 'none'}"


def _hours_without(settings: Settings) -> Iterator[str]:
    rota = rota_of(settings)
    for gap in rota.gaps() if rota is not None else ():
        yield f"rota: nobody is on duty on {gap}"


def _rules(settings: Settings) -> Iterator[str]:
    roles = {role.name for role in settings.rota.role}
    routing = routing_of(settings)
    second = {PHARMACIST: settings.routing.pharmacist, LABORATORY: settings.routing.laboratory}
    for number, item in enumerate(settings.destination):
        place = f"destination[{number}].for"
        wanted = item.for_.recipient
        for name in wanted or ():
            if name not in (PRESCRIBER, PHARMACIST, LABORATORY) and name not in roles:
                known = ", ".join((PRESCRIBER, PHARMACIST, LABORATORY, *sorted(roles)))
                yield f"{place}.recipient: no role {name!r}; known: {known}"
            elif name in second and not second[name]:
                yield f"{place}.recipient: nothing goes to the {name} while routing.{name} names nobody"
        if wanted and set(wanted) <= set(second) and item.for_.level is not None:
            possible = set().union(*(_LEVELS_OF[name] for name in wanted))
            if possible.isdisjoint(item.for_.level):
                yield f"{place}.level: can never match: {', '.join(wanted)} is told of {', '.join(sorted(possible))} only"
        if item.for_.sender is not None:
            for sender in item.for_.sender:
                if sender.count("|") > 1:
                    yield f"{place}.sender: {sender!r} can never match: write MSH-3|MSH-4, or one of the two"
    if settings.destination:
        anywhere = [
            rule for rule in routing.rules if not rule.where.keys() - {"level", "recipient"} and rule.takes_primary
        ]
        for level in _MUST_ARRIVE:
            if not any(level in rule.where.get("level", {level}) for rule in anywhere):
                yield (
                    f"destination: an alert of level {level} that no rule of a sender, ward or prescriber names goes "
                    "nowhere in particular; give one destination no `for`"
                )


def present_of(settings: Settings) -> Present:
    notifier = escalation_of(settings).notifier
    return Present(
        default_protocol=settings.engine.protocol,
        notifier=notifier,
        zone=settings.zone,
        history_after=timedelta(hours=settings.engine.history_after_hours),
        settle=timedelta(seconds=settings.engine.history_settle_s),
    )
