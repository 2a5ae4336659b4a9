"""The verbs a protocol may use, and the words for them. A protocol with another action is refused at load.

No number stands here: dates, counts and thresholds come from the assessment.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ACTIONS", "Wording", "gives_clozapine"]

_GIVING = frozenset(
    {
        "INITIATION_PERMITTED",
        "RESUME_PREVIOUS_SCHEDULE",
        "RESTART_AS_NEW_PATIENT",
        "WEEKLY_AND_RETITRATE",
        "CLOSER_MONITORING",
    }
)


def gives_clozapine(action: str) -> bool:
    """Whether clozapine is given, or may be begun, under the verb. Of a missing count nothing follows: not given."""
    return action in _GIVING or action.startswith("CONTINUE")


@dataclass(frozen=True, slots=True)
class Wording:
    """What to do, as a full sentence, and a title of a few words, in one language."""

    title: str
    do: str


ACTIONS: dict[str, dict[str, Wording]] = {
    "STOP_IMMEDIATELY_AND_DO_NOT_REEXPOSE": {
        "fr": Wording(
            "ARRÊT IMMÉDIAT de la clozapine, ne pas réexposer",
            "Arrêter immédiatement la clozapine et ne pas réexposer le patient. Demander un avis hématologique.",
        ),
        "en": Wording(
            "STOP clozapine at once, do not re-expose",
            "Stop clozapine immediately and do not re-expose the patient. Seek haematology advice.",
        ),
    },
    "CONTINUE": {
        "fr": Wording("Poursuivre", "Poursuivre le traitement et la surveillance prévue."),
        "en": Wording("Continue", "Continue the treatment and the scheduled monitoring."),
    },
    "CONTINUE_WEEKLY": {
        "fr": Wording("Surveillance hebdomadaire", "Poursuivre le traitement avec une surveillance hebdomadaire."),
        "en": Wording("Weekly monitoring", "Continue the treatment with weekly counts."),
    },
    "CONTINUE_TWICE_WEEKLY": {
        "fr": Wording("Deux contrôles par semaine", "Poursuivre le traitement avec deux contrôles par semaine."),
        "en": Wording("Counts twice a week", "Continue the treatment with counts twice a week."),
    },
    "CONTINUE_THREE_TIMES_WEEKLY": {
        "fr": Wording("Trois contrôles par semaine", "Poursuivre le traitement avec trois contrôles par semaine."),
        "en": Wording("Counts three times a week", "Continue the treatment with counts three times a week."),
    },
    "CONTINUE_MONTHLY_THROUGHOUT": {
        "fr": Wording(
            "Surveillance mensuelle pendant tout le traitement",
            "Poursuivre le traitement ; surveiller les PNN tous les mois pendant toute la durée du traitement.",
        ),
        "en": Wording(
            "Monthly monitoring throughout treatment",
            "Continue the treatment; count the neutrophils every month for as long as treatment lasts.",
        ),
    },
    "CONTINUE_WEEKLY_UNTIL_WEEK_18_THEN_MONTHLY_THROUGHOUT": {
        "fr": Wording(
            "Surveillance hebdomadaire jusqu'à la semaine 18, puis mensuelle",
            "Poursuivre le traitement ; PNN chaque semaine jusqu'à la semaine 18, "
            "puis tous les mois pendant toute la durée du traitement.",
        ),
        "en": Wording(
            "Weekly monitoring until week 18, then monthly",
            "Continue the treatment; weekly counts until week 18, then monthly for as long as treatment lasts.",
        ),
    },
    "CLOSER_MONITORING": {
        "fr": Wording(
            "Surveillance plus étroite après interruption",
            "Interruption du traitement : surveiller les PNN chaque semaine ; vérifier la posologie de reprise.",
        ),
        "en": Wording(
            "Closer monitoring after an interruption",
            "Treatment was interrupted: weekly neutrophil counts; check the dose at the restart.",
        ),
    },
    "WEEKLY_AND_RETITRATE": {
        "fr": Wording(
            "Surveillance hebdomadaire et nouvelle titration",
            "Interruption prolongée : surveiller les PNN chaque semaine et reprendre la titration.",
        ),
        "en": Wording(
            "Weekly monitoring and re-titration",
            "Long interruption: weekly neutrophil counts and a new titration.",
        ),
    },
    "RESTART_AS_NEW_PATIENT": {
        "fr": Wording(
            "Reprise comme un nouveau patient",
            "Interruption prolongée en début de traitement : reprendre comme chez un nouveau patient, "
            "avec nouvelle titration et PNN chaque semaine.",
        ),
        "en": Wording(
            "Restart as a new patient",
            "Long interruption early in treatment: restart as for a new patient, with a new titration and weekly counts.",
        ),
    },
    "RESUME_PREVIOUS_SCHEDULE": {
        "fr": Wording(
            "Reprise du calendrier antérieur",
            "Reprendre le calendrier de surveillance antérieur ; vérifier la posologie de reprise.",
        ),
        "en": Wording(
            "Previous schedule resumes",
            "Resume the previous monitoring schedule; check the dose at the restart.",
        ),
    },
    "INITIATION_PERMITTED": {
        "fr": Wording(
            "Critère de PNN rempli pour l'instauration",
            "Le critère de PNN pour l'instauration est rempli ; la décision d'instaurer revient au prescripteur.",
        ),
        "en": Wording(
            "ANC criterion for starting is met",
            "The ANC criterion for starting is met; whether to start is the prescriber's decision.",
        ),
    },
    "DO_NOT_INITIATE": {
        "fr": Wording("Ne pas instaurer la clozapine", "Ne pas instaurer ni reprendre la clozapine avec cette valeur."),
        "en": Wording("Do not start clozapine", "Do not start or restart clozapine on this count."),
    },
    "OBTAIN_ANC_BEFORE_START": {
        "fr": Wording(
            "PNN à obtenir avant l'instauration", "Obtenir une numération des PNN valide avant la première prise."
        ),
        "en": Wording("ANC needed before the start", "Obtain a valid neutrophil count before the first dose."),
    },
    "DO_NOT_REEXPOSE": {
        "fr": Wording(
            "NE PAS RÉEXPOSER à la clozapine",
            "Ne pas réexposer le patient à la clozapine, quelle que soit la valeur du jour.",
        ),
        "en": Wording(
            "DO NOT RE-EXPOSE to clozapine",
            "Do not re-expose the patient to clozapine, whatever the count of the day.",
        ),
    },
    "WEEKLY_POST_STOP": {
        "fr": Wording("Surveillance après arrêt", "Traitement arrêté : surveiller les PNN chaque semaine."),
        "en": Wording("Monitoring after the stop", "Treatment stopped: weekly neutrophil counts."),
    },
    "WEEKLY_POST_STOP_NO_REEXPOSURE": {
        "fr": Wording(
            "Surveillance après arrêt, ne pas réexposer",
            "Traitement arrêté pour neutropénie : surveiller les PNN chaque semaine et ne pas réexposer le patient.",
        ),
        "en": Wording(
            "Monitoring after the stop, do not re-expose",
            "Treatment stopped for neutropenia: weekly neutrophil counts, and do not re-expose the patient.",
        ),
    },
    "POST_STOP_COMPLETE": {
        "fr": Wording("Surveillance après arrêt terminée", "La surveillance après l'arrêt est terminée."),
        "en": Wording("Monitoring after the stop is complete", "Monitoring after the stop is complete."),
    },
    "POST_STOP_COMPLETE_NO_REEXPOSURE": {
        "fr": Wording(
            "Surveillance après arrêt terminée, ne pas réexposer",
            "La surveillance après l'arrêt est terminée ; ne jamais réexposer le patient à la clozapine.",
        ),
        "en": Wording(
            "Monitoring after the stop is complete, do not re-expose",
            "Monitoring after the stop is complete; never re-expose the patient to clozapine.",
        ),
    },
    "OBTAIN_ANC_IMMEDIATELY": {
        "fr": Wording(
            "PNN à mesurer immédiatement",
            "Signes d'infection : mesurer les PNN immédiatement, sans attendre le contrôle prévu.",
        ),
        "en": Wording(
            "ANC needed immediately",
            "Signs of infection: count the neutrophils immediately, do not wait for the scheduled test.",
        ),
    },
    "OBTAIN_ANC_OVERDUE": {
        "fr": Wording("PNN en retard", "Le contrôle des PNN est en retard : l'obtenir sans délai."),
        "en": Wording("ANC overdue", "The neutrophil count is overdue: obtain it without delay."),
    },
    "AWAIT_SCHEDULED_ANC": {
        "fr": Wording("Contrôle à venir", "Attendre le contrôle prévu."),
        "en": Wording("Test to come", "Await the scheduled count."),
    },
    "STOP_IMMEDIATELY_DAILY_COUNTS": {
        "fr": Wording(
            "ARRÊT IMMÉDIAT de la clozapine",
            "Arrêter immédiatement la clozapine ; contrôle quotidien. Demander un avis hématologique.",
        ),
        "en": Wording("STOP clozapine at once", "Stop clozapine immediately; daily counts. Seek haematology advice."),
    },
    "INTERRUPT_DAILY_HAEMATOLOGY_CONSULT": {
        "fr": Wording(
            "Interrompre la clozapine, avis hématologique",
            "Interrompre la clozapine ; contrôle quotidien et avis hématologique.",
        ),
        "en": Wording(
            "Interrupt clozapine, haematology consult", "Interrupt clozapine; daily counts and a haematology consult."
        ),
    },
    "INTERRUPT_NO_RECHALLENGE_UNLESS_BENEFIT": {
        "fr": Wording(
            "Interrompre la clozapine, ne pas reprendre sauf bénéfice",
            "Interrompre la clozapine ; ne pas reprendre sauf si le bénéfice l'emporte sur le risque.",
        ),
        "en": Wording(
            "Interrupt clozapine, no rechallenge unless benefit",
            "Interrupt clozapine; no rechallenge unless the benefit outweighs the risk.",
        ),
    },
}
