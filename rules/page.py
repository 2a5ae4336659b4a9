"""A protocol as a clinician would read it, in French or English; Markdown that reads well on a terminal too.

All numbers, sentences and readings come from the loaded protocol; only the words between them stand here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

from rules.actions import ACTIONS
from rules.explain import plain
from rules.model import AlertLevel, Population
from rules.protocol import Grounds, InterruptionRule, MonitoringProtocol, Phase, Range, Reading
from rules.span import Span
from rules.trace import used_by
from rules.wording import WORDS

__all__ = ["LANGUAGES", "page", "readings_in"]

LANGUAGES = ("fr", "en")

_WORDS = {
    "en": {
        "in force": "In force from {since}; reviewed {reviewed}. Known as {names}.",
        "reference": "**A reference for comparison only: no course of treatment may be judged by it.**",
        "general": "General population",
        "benign_ethnic_neutropenia": "Confirmed benign ethnic neutropenia",
        "counts": "Neutrophils under treatment, per mm3",
        "leukocytes": "Leukocytes under treatment, per mm3 (the worse of the two counts)",
        "start": "Before the first dose: ANC >= {at} permits the start",
        "start leukocytes": " with leukocytes >= {at}",
        "below": "below: {do}",
        "aftermath": " Once normal again, at most {interval} apart for {period}.",
        "baseline": "The count before the first dose holds for {span}.",
        "schedule": "Schedule by treated time (longest interval)",
        "from": "from {since}: at most {interval} apart{only}",
        "only": ", if never neutropenic under treatment",
        "mild": "after a mild count: at most {interval} apart{throughout}{recheck}",
        "throughout": " for the rest of the treatment",
        "recheck": "; a new or falling one is repeated within {span}",
        "unknown": "earlier neutropenia unknown: at most {interval} apart",
        "interruptions": "Interruptions for another reason (the first line that fits)",
        "gap": "{gap}{treated}: {do}{window}",
        "at least": "{span} or more",
        "between": "{span} or more, less than {below}",
        "treated at least": ", after {span} of treatment",
        "treated below": ", before {span} of treatment",
        "window": " At most {interval} apart for {window}.",
        "until treated": " At most {interval} apart for {window} and to {until} of treatment.",
        "stop": "After a complete stop",
        "follow-up": "at most {interval} apart for {period}; below the stop threshold at most {low}{recheck}",
        "soon": ", and again after {span}",
        "recovered": "after a stop for the count it ends with {general} or more (benign ethnic neutropenia: {ben})",
        "permanent": "a stop for the count is for ever: never re-exposed",
        "other": "Infection, lateness, risk",
        "infection": "signs of infection: {do}",
        "overdue": "a late count: {alert}; after {weekly} in a weekly phase, else after {late}: {worse}",
        "risk": "from {age} of age, or with valproate: {alert}, no other date",
        "sentences": "What the source says",
        "readings": "Our readings, where the source leaves a question open (each to be signed by a clinician)",
        "switch": " Can be switched: `{key}`.",
        "not judged": "Not judged",
        "sources": "Sources",
        "yes": "yes",
        "no": "no",
    },
    "fr": {
        "in force": "En vigueur depuis le {since} ; relu le {reviewed}. Aussi nommé {names}.",
        "reference": "**Référence pour comparaison seulement : aucun traitement ne peut être jugé par ce protocole.**",
        "general": "Population générale",
        "benign_ethnic_neutropenia": "Neutropénie bénigne ethnique confirmée",
        "counts": "PNN sous traitement, par mm3",
        "leukocytes": "Leucocytes sous traitement, par mm3 (la plus sévère des deux numérations)",
        "start": "Avant la première prise : PNN >= {at} permet l'instauration",
        "start leukocytes": " avec leucocytes >= {at}",
        "aftermath": " Après retour à la normale, au plus {interval} entre deux numérations pendant {period}.",
        "below": "en dessous : {do}",
        "baseline": "La numération d'avant la première prise vaut {span}.",
        "schedule": "Calendrier par temps traité (intervalle le plus long)",
        "from": "à partir de {since} : au plus {interval} entre deux numérations{only}",
        "only": ", sans neutropénie sous traitement",
        "mild": "après une valeur légère : au plus {interval} entre deux numérations{throughout}{recheck}",
        "throughout": " pour le reste du traitement",
        "recheck": " ; nouvelle ou en baisse, à refaire sous {span}",
        "unknown": "antécédent de neutropénie inconnu : au plus {interval} entre deux numérations",
        "interruptions": "Interruptions pour une autre raison (la première ligne qui convient)",
        "gap": "{gap}{treated} : {do}{window}",
        "at least": "{span} ou plus",
        "between": "{span} ou plus, moins de {below}",
        "treated at least": ", après {span} de traitement",
        "treated below": ", avant {span} de traitement",
        "window": " Au plus {interval} entre deux numérations pendant {window}.",
        "until treated": " Au plus {interval} entre deux numérations pendant {window} et jusqu'à {until} de traitement.",
        "stop": "Après un arrêt complet",
        "follow-up": "au plus {interval} d'intervalle pendant {period} ; sous le seuil d'arrêt au plus {low}{recheck}",
        "soon": ", et de nouveau après {span}",
        "recovered": "après un arrêt pour neutropénie, jusqu'à {general} ou plus (neutropénie bénigne ethnique : {ben})",
        "permanent": "un arrêt pour neutropénie est définitif : ne jamais réexposer",
        "other": "Infection, retard, risque",
        "infection": "signes d'infection : {do}",
        "overdue": "numération en retard : {alert} ; après {weekly} en phase hebdomadaire, sinon après {late} : {worse}",
        "risk": "à partir de {age}, ou avec valproate : {alert}, sans autre date",
        "sentences": "Ce que dit la source",
        "readings": "Nos lectures, là où la source laisse une question ouverte (chacune à signer par un clinicien)",
        "switch": " Peut être changé : `{key}`.",
        "not judged": "Non jugé",
        "sources": "Sources",
        "yes": "oui",
        "no": "non",
    },
}
_UNITS = {
    "hour": ("heure", "heures"),
    "day": ("jour", "jours"),
    "week": ("semaine", "semaines"),
    "year": ("an", "ans"),
}
_CATEGORIES = {
    "fr": {"severe": "sévère", "moderate": "modérée", "mild": "légère", "normal": "normale"}
    | {"red": "rouge", "amber": "orange", "green": "vert", "ben_neutropenia": "neutropénie (bénigne ethnique)"},
    "en": {"ben_neutropenia": "neutropenia (benign ethnic)"},
}
_NONE = {"en": "no alert", "fr": "pas d'alerte"}


@dataclass(frozen=True, slots=True)
class _Writer:
    protocol: MonitoringProtocol
    language: str

    def say(self, key: str, /, **parts: object) -> str:
        return _WORDS[self.language][key].format(**parts)

    def span(self, span: Span) -> str:
        if self.language == "en":
            return str(span)
        return f"{span.count} {_UNITS[span.unit][span.count > 1]}"

    def do(self, action: str) -> str:
        return ACTIONS[action][self.language].do

    def alert(self, level: AlertLevel) -> str:
        return WORDS[self.language].levels.get(level.value, _NONE[self.language]).lower()

    # Sections ----------------------------------------------------------------------------------------------------

    def bands(self) -> list[str]:
        lines: list[str] = []
        for key, table in (("counts", self.protocol.bands), ("leukocytes", self.protocol.leukocyte_bands)):
            if table:
                lines += ["", f"## {self.say(key)}"]
            for population, bands in table:
                lines += ["", f"{self.say(population.value)}", ""]
                lines += [self.band(band) for band in bands]
                if key == "counts":
                    lines.append(self.start(population))
        return [*lines, "", self.say("baseline", span=self.span(self.protocol.baseline.valid_for))]

    def band(self, band: Range) -> str:
        after = ""
        if band.after is not None:
            parts = {"interval": self.span(band.after.interval), "period": self.span(band.after.period)}
            after = self.say("aftermath", **parts)
        does = f"{self.do(band.action)}{after} [{band.grounds.rule}]"
        return f"- {_limits(band)}: **{band.id}** ({self.alert(band.alert)}). {does}"

    def start(self, population: Population) -> str:
        rule = self.protocol.initiation_of(population)
        least = rule.leukocytes_at_least
        leukocytes = self.say("start leukocytes", at=plain(least)) if least is not None else ""
        permits = self.say("start", at=plain(rule.at_least)) + leukocytes
        return f"- {permits}; {self.say('below', do=self.do(rule.refused_action))} [{rule.grounds.rule}]"

    def schedule(self) -> list[str]:
        mild = self.protocol.after_mild
        after = self.say(
            "mild",
            interval=self.span(mild.interval),
            throughout=self.say("throughout") if mild.throughout else "",
            recheck=self.say("recheck", span=self.span(mild.recheck)) if mild.recheck is not None else "",
        )
        return [
            *("", f"## {self.say('schedule')}", ""),
            *(self.phase(phase) for phase in self.protocol.phases),
            f"- {after} [{mild.grounds.rule}]",
            f"- {self.say('unknown', interval=self.span(self.protocol.unknown_past.interval))}",
        ]

    def phase(self, phase: Phase) -> str:
        only = self.say("only") if phase.without_neutropenia else ""
        said = self.say("from", since=self.span(phase.since), interval=self.span(phase.interval), only=only)
        return f"- {said} [{phase.grounds.rule}]"

    def interruptions(self) -> list[str]:
        rules = (self.interruption(rule) for rule in self.protocol.interruptions)
        return ["", f"## {self.say('interruptions')}", "", *rules]

    def interruption(self, rule: InterruptionRule) -> str:
        least = self.span(rule.gap_at_least)
        gap = self.say("at least", span=least)
        if rule.gap_below is not None:
            gap = self.say("between", span=least, below=self.span(rule.gap_below))
        treated = ""
        if rule.treated_at_least is not None:
            treated = self.say("treated at least", span=self.span(rule.treated_at_least))
        if rule.treated_below is not None:
            treated += self.say("treated below", span=self.span(rule.treated_below))
        treated += self.say("only") if rule.without_neutropenia else ""
        window = ""
        if rule.window is not None and rule.interval is not None:
            parts = {"interval": self.span(rule.interval), "window": self.span(rule.window)}
            until = rule.window_until_treated
            window = (
                self.say("until treated", **parts, until=self.span(until)) if until else self.say("window", **parts)
            )
        said = self.say("gap", gap=gap, treated=treated, do=self.do(rule.action), window=window)
        return f"- {said} [{rule.grounds.rule}]"

    def after_stop(self) -> list[str]:
        rule = self.protocol.after_stop
        recheck = self.say("soon", span=self.span(rule.recheck)) if rule.recheck is not None else ""
        parts = {
            "interval": self.span(rule.interval),
            "period": self.span(rule.period),
            "low": self.span(rule.low_interval),
        }
        ends = {
            "general": plain(rule.recovery(Population.GENERAL)),
            "ben": plain(rule.recovery(Population.BENIGN_ETHNIC_NEUTROPENIA)),
        }
        return [
            *("", f"## {self.say('stop')}", ""),
            f"- {self.say('follow-up', **parts, recheck=recheck)} [{rule.follow_up.rule}]",
            f"- {self.say('recovered', **ends)}",
            *([f"- {self.say('permanent')} [{rule.stop.rule}]"] if rule.permanent else []),
        ]

    def others(self) -> list[str]:
        late, signs, risk = self.protocol.overdue, self.protocol.infection, self.protocol.risk
        said = self.say(
            "overdue",
            alert=self.alert(late.alert),
            weekly=self.span(late.late_after_weekly),
            late=self.span(late.late_after),
            worse=self.alert(late.late_alert),
        )
        lines = [
            *("", f"## {self.say('other')}", ""),
            f"- {self.say('infection', do=self.do(signs.action))} [{signs.grounds.rule}]",
            f"- {said} [{late.grounds.rule}]",
        ]
        if risk is not None:
            old = self.say("risk", age=self.span(risk.elderly_from), alert=self.alert(risk.alert))
            lines.append(f"- {old} [{risk.grounds.rule}]")
        return lines

    def sentences(self) -> list[str]:
        lines = ["", f"## {self.say('sentences')}", ""]
        said: dict[str, list[Grounds]] = {}
        for used in used_by(self.protocol):
            said.setdefault(f"{used.grounds.cite.source}|{used.grounds.cite.quote}", []).append(used.grounds)
        for grounds in said.values():
            cite = grounds[0].cite
            names = ", ".join(dict.fromkeys(one.rule for one in grounds))
            lines.append(f"- {names}: « {cite.quote} » ({cite.source}, {cite.locator})")
        return lines

    def readings(self) -> list[str]:
        lines = ["", f"## {self.say('readings')}", ""]
        for one in readings_in(self.protocol, self.language):
            choice = one.choice if isinstance(one.choice, str) else self.say("yes" if one.choice else "no")
            switch = self.say("switch", key=one.key) if one.key else ""
            lines.append(f"- **{one.id}** {one.question} **{_first_up(choice)}.** {one.why}{switch}")
        return lines

    def rest(self) -> list[str]:
        lines = ["", f"## {self.say('not judged')}", ""]
        lines += [f"- {item.what}: {item.why}" for item in self.protocol.not_encoded]
        lines += ["", f"## {self.say('sources')}", ""]
        return lines + [f"- {s.key}: {s.publisher}, {s.title}, {s.date}. {s.url}" for s in self.protocol.sources]


def page(protocol: MonitoringProtocol, language: str) -> str:
    """The whole protocol as Markdown. ``language``: ``fr`` or ``en`` (KeyError for another)."""
    writer = _Writer(protocol, language)
    names = ", ".join((protocol.name, *protocol.aliases))
    head = [
        f"# {protocol.title}",
        "",
        writer.say("in force", since=protocol.effective_from, reviewed=protocol.last_reviewed, names=names),
    ]
    if not protocol.selectable:
        head += ["", writer.say("reference")]
    body = [*writer.bands(), *writer.schedule(), *writer.interruptions(), *writer.after_stop(), *writer.others()]
    return "\n".join([*head, *body, *writer.sentences(), *writer.readings(), *writer.rest()]) + "\n"


def readings_in(protocol: MonitoringProtocol, language: str) -> tuple[Reading, ...]:
    """The readings with their words in ``language``; in the file's English where nobody has translated them."""
    if language == "en":
        return protocol.readings
    words = _translated(protocol.name, language)
    found = []
    for one in protocol.readings:
        if one.id in words:
            said = words[one.id]
            # A switch keeps its choice: only its words are of a language.
            choice = said["choice"] if isinstance(one.choice, str) else one.choice
            one = replace(one, question=said["question"], choice=choice, why=said["why"])
        found.append(one)
    return tuple(found)


@lru_cache(maxsize=16)
def _translated(name: str, language: str) -> dict[str, dict[str, str]]:
    file = resources.files("rules").joinpath("protocols", language, f"{re.sub('@', '-', name)}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _limits(band: Range) -> str:
    low = f"{'>=' if band.low_closed else '>'} {plain(band.low)}"
    return low if band.high is None else f"{low}, {'<=' if band.high_closed else '<'} {plain(band.high)}"


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
