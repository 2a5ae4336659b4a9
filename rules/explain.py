"""The arithmetic of a verdict in words, French and English: the count, its threshold, the day of treatment, the dates."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import assert_never

from rules.counts import Count
from rules.course import Chart, Place
from rules.model import Override, OverrideKind, Population
from rules.span import Span

__all__ = ["explain", "plain"]

_POPULATION = {
    Population.GENERAL: ("population générale", "general population"),
    Population.BENIGN_ETHNIC_NEUTROPENIA: (
        "neutropénie bénigne ethnique confirmée",
        "confirmed benign ethnic neutropenia",
    ),
}


def plain(value: Decimal) -> str:
    """Exact, no exponent, no trailing zeros: Decimal("1.50E+3") -> "1500"."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def explain(
    chart: Chart,
    count: Count | None,
    threshold: Decimal | None,
    next_due: date | None,
    recheck_by: date | None,
    interval: Span | None,
    late_days: int,
    overrides: tuple[Override, ...] = (),
) -> tuple[tuple[str, str], ...]:
    """(("fr", ...), ("en", ...)). Counts in cells per mm3, dates as ISO 8601."""
    fr: list[str] = []
    en: list[str] = []
    if count is not None:
        value = ("<" if count.just_below else "") + plain(count.per_mm3)
        if threshold is None:
            comparison = ""
        elif count.per_mm3 == threshold and not count.just_below:
            comparison = f" = {plain(threshold)}/mm3"
        else:
            sign = "<" if count.per_mm3 <= threshold else ">"
            comparison = f" {sign} {plain(threshold)}/mm3"
        names = _POPULATION[chart.population]
        fr.append(f"PNN {value}/mm3{comparison} ({names[0]})")
        en.append(f"ANC {value}/mm3{comparison} ({names[1]})")
    if chart.place is Place.UNDER:
        clock = chart.clock
        days, lost = clock.treated_days(chart.as_of), clock.lost_days
        fr.append(f"jour {days} de traitement" + (f", {lost} jours d'interruption déduits" if lost else ""))
        en.append(f"day {days} of treatment" + (f", {lost} days of interruption subtracted" if lost else ""))
    elif chart.place is Place.AFTER and chart.stop is not None:
        since = (chart.as_of - chart.stop.on).days
        fr.append(f"jour {since} après l'arrêt du {chart.stop.on}")
        en.append(f"day {since} after the stop of {chart.stop.on}")
    for override in overrides:
        said = _override(override)
        fr.append(said[0])
        en.append(said[1])
    if late_days:
        fr.append(f"retard de {late_days} jour{'s' if late_days > 1 else ''}")
        en.append(f"{late_days} day{'s' if late_days > 1 else ''} late")
    if next_due is not None:
        by = next_due.isoformat()
        how = f" ({chart.as_of.isoformat()} + {_days(interval)})" if interval is not None else ""
        fr.append(f"prochaine numération au plus tard le {by}{_french(how)}")
        en.append(f"next count by {by}{how}")
    if recheck_by is not None:
        by = recheck_by.isoformat()
        fr.append(f"contrôle conseillé au plus tard le {by}")
        en.append(f"recheck advised by {by}")
    return (("fr", " ; ".join(fr)), ("en", "; ".join(en)))


def _override(override: Override) -> tuple[str, str]:
    match override.kind:
        case OverrideKind.SHORTER_INTERVAL:
            fr, en = f"intervalle ramené à {override.days} jours", f"interval shortened to {override.days} days"
        case OverrideKind.BORDERLINE_NOT_HISTORY:
            day = override.value_on
            fr = f"la valeur limite du {day} ne compte pas comme antécédent"
            en = f"the borderline value of {day} does not count as history"
        case OverrideKind.LIFT_A15:
            fr = "l'interdiction qui suivait un arrêt selon les anciens seuils est levée"
            en = "the ban that followed a stop under the former thresholds is lifted"
        case _:
            assert_never(override.kind)
    return (
        f"dérogation de {override.by} du {override.on}, avant le {override.expires} : {fr}",
        f"override by {override.by} of {override.on}, until before {override.expires}: {en}",
    )


def _days(span: Span) -> str:
    return str(span) if span.unit == "year" else f"{span.days} days"


def _french(how: str) -> str:
    return how.replace("years", "ans").replace("year", "an").replace("days", "jours")
