"""The fixed sentences of an alert, by language. No clinical number stands here."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, datetime

__all__ = ["WORDS", "Words", "moment_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    decimal_mark: str
    date_format: str
    anc: str
    levels: dict[str, str]
    finding: str
    finding_below: str
    finding_at: str
    finding_above: str
    recheck: str
    due: str
    weekly: str
    infection: str
    reporting: str
    maxima: str
    arithmetic: str
    readings: str
    stop_unrecorded_title: str
    stop_unrecorded: str
    review_title: str
    review: str
    remarks: dict[str, str]

    def date(self, day: date) -> str:
        return _date(day, self.date_format)


@functools.lru_cache(maxsize=4096)
def _date(day: date, date_format: str) -> str:
    return day.strftime(date_format)


def moment_words(at: datetime, language: str) -> str:
    """A local time as a sentence names it."""
    return at.strftime("%d/%m/%Y à %H:%M" if language == "fr" else "%Y-%m-%d at %H:%M")


WORDS: dict[str, Words] = {
    "fr": Words(
        decimal_mark=",",
        date_format="%d/%m/%Y",
        anc="PNN",
        levels={"info": "Information", "amber": "Attention", "red": "Alerte", "critical": "Alerte critique"},
        finding="PNN {value} le {on}.",
        finding_below="PNN {value} le {on}, sous le seuil de {limit}.",
        finding_at="PNN {value} le {on}, exactement au seuil de {limit}.",
        finding_above="PNN {value} le {on}, au-dessus du seuil de {limit}.",
        recheck="Contrôle des PNN conseillé au plus tard le {day}.",
        due="Prochaine numération des PNN au plus tard le {day}.",
        weekly="Surveillance hebdomadaire jusqu'au {day} (non inclus).",
        infection="Rechercher des signes d'infection. Fièvre, angine ou autre signe d'infection : "
        "PNN immédiatement ; fièvre avec neutropénie : urgence.",
        reporting="Déclarer immédiatement cet effet indésirable au centre régional de pharmacovigilance "
        "(signalement.social-sante.gouv.fr).",
        maxima="Les intervalles sont des maxima permis ; le prescripteur peut choisir une surveillance plus rapprochée.",
        arithmetic="Calcul :",
        readings="Lectures propres à cet outil : {ids}.",
        stop_unrecorded_title="ARRÊT DE LA CLOZAPINE NON ENREGISTRÉ, vérifier l'arrêt, ne pas réexposer",
        stop_unrecorded="Une valeur impose l'arrêt et aucun arrêt n'est enregistré : si la clozapine est encore prise, "
        "l'arrêter immédiatement. Ne pas réexposer le patient ; surveiller les PNN chaque semaine et enregistrer l'arrêt.",
        review_title="Numération des PNN illisible, à vérifier par une personne",
        review="Une numération des neutrophiles a été reçue et n'a pas pu être lue : {reason}{place}. "
        "Pour la surveillance, ce contrôle compte comme non fait. Vérifier le résultat auprès du laboratoire.",
        remarks={
            "precision": "Précision : la valeur est à une unité de mesure près d'un seuil.",
            "censored": "Valeur rendue avec un signe (< ou >) : demander la valeur exacte au laboratoire.",
            "derived": "Valeur calculée à partir des leucocytes : la borne basse est comparée aux seuils ; "
            "demander la valeur absolue au laboratoire.",
            "derived-across-threshold": "La valeur calculée et sa borne basse sont de part et d'autre d'un seuil : "
            "le niveau le plus sévère est retenu.",
            "provisional": "Résultat provisoire ou douteux : il peut alerter, jamais rassurer ; à confirmer.",
            "no-reexposure": "Ce patient ne doit jamais être réexposé à la clozapine.",
            "ban-unconfirmed": "L'interdiction définitive demande une valeur absolue finale ou une décision nominative.",
            "several-counts": "Plusieurs numérations ce jour : la plus basse est retenue.",
            "dose-question": "Interruption de plus de 48 heures : vérifier la posologie de reprise.",
            "infection-signs": "Signes d'infection au dossier : cette numération y répond, le patient est à examiner.",
            "retitrate": "Nouvelle titration nécessaire.",
            "earlier-low-count": "Une valeur basse avant traitement figure au dossier : à examiner.",
            "stop-not-recorded": "Une valeur imposant l'arrêt figure au dossier, sans arrêt enregistré : l'arrêt vaut.",
            "restart-not-recorded": "Interruption sans reprise enregistrée.",
            "baseline-too-old": "La numération est trop ancienne pour la date de début prévue.",
            "elderly": "Patient âgé : une surveillance supplémentaire peut être envisagée.",
            "valproate": "Valproate associé : une surveillance supplémentaire peut être envisagée.",
            "leukocytes-missing": "Leucocytes non rendus avec cette numération : jugée sur les seuls PNN.",
            "override-shorter-interval": "Un clinicien a fixé un intervalle plus court.",
            "override-borderline-not-history": "Un clinicien a décidé qu'une valeur exactement au seuil ne compte pas comme "
            "antécédent de neutropénie.",
            "override-lift-a15": "Un clinicien a levé l'interdiction qui suivait un arrêt selon les anciens seuils.",
            "transferred": "Suivi transféré à un autre service : lui transmettre ce résultat.",
        },
    ),
    "en": Words(
        decimal_mark=".",
        date_format="%Y-%m-%d",
        anc="ANC",
        levels={"info": "Information", "amber": "Warning", "red": "Alert", "critical": "Critical alert"},
        finding="ANC {value} on {on}.",
        finding_below="ANC {value} on {on}, below the threshold of {limit}.",
        finding_at="ANC {value} on {on}, exactly at the threshold of {limit}.",
        finding_above="ANC {value} on {on}, above the threshold of {limit}.",
        recheck="A repeat count is advised by {day}.",
        due="Next neutrophil count by {day}.",
        weekly="Weekly counts until {day} (not included).",
        infection="Look for signs of infection. Fever, sore throat or another sign of infection: "
        "count the neutrophils immediately; fever with neutropenia is an emergency.",
        reporting="Report this adverse reaction immediately to the regional pharmacovigilance centre "
        "(signalement.social-sante.gouv.fr).",
        maxima="Intervals are the longest permitted; the prescriber may choose closer monitoring.",
        arithmetic="Arithmetic:",
        readings="Readings of this tool: {ids}.",
        stop_unrecorded_title="CLOZAPINE STOP NOT RECORDED, make sure it is stopped, do not re-expose",
        stop_unrecorded="A count requires the stop and none is recorded: if clozapine is still taken, stop it immediately. "
        "Do not re-expose the patient; weekly neutrophil counts, and record the stop.",
        review_title="Neutrophil count unreadable, a person must check",
        review="A neutrophil count was received and could not be read: {reason}{place}. "
        "For the monitoring this test counts as not done. Check the result with the laboratory.",
        remarks={
            "precision": "Precision: the value is within one reporting step of a threshold.",
            "censored": "Value reported with a sign (< or >): ask the laboratory for the exact value.",
            "derived": "Value computed from leukocytes: its lower bound is compared with the thresholds; "
            "ask the laboratory for the absolute count.",
            "derived-across-threshold": "The computed value and its lower bound lie on either side of a threshold: "
            "the more severe level is taken.",
            "provisional": "Provisional or doubtful result: it may alarm, never reassure; to be confirmed.",
            "no-reexposure": "This patient must never be re-exposed to clozapine.",
            "ban-unconfirmed": "The permanent ban needs a final absolute count or a decision by a named person.",
            "several-counts": "Several counts on this day: the lowest is taken.",
            "dose-question": "Interruption of more than 48 hours: check the dose at the restart.",
            "infection-signs": "Signs of infection are on record: this count answers to them, the patient is to be examined.",
            "retitrate": "A new titration is needed.",
            "earlier-low-count": "A low count from before treatment is on file: to be reviewed.",
            "stop-not-recorded": "A count that requires a stop is on file without a recorded stop: the stop stands.",
            "restart-not-recorded": "Interruption without a recorded restart.",
            "baseline-too-old": "The count is too old for the planned start.",
            "elderly": "Elderly patient: extra monitoring may be considered.",
            "valproate": "With valproate: extra monitoring may be considered.",
            "leukocytes-missing": "Leukocytes were not reported with this count: judged on the neutrophils alone.",
            "override-shorter-interval": "A clinician has set a shorter interval.",
            "override-borderline-not-history": "A clinician has decided that a value exactly at the threshold does not count "
            "as a history of neutropenia.",
            "override-lift-a15": "A clinician has lifted the ban that followed a stop under the former thresholds.",
            "transferred": "Monitoring was transferred to another service: pass this result on.",
        },
    ),
}
