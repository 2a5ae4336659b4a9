"""The words that take an alert back: as visible as the alert was, and never a reassurance beyond what the laboratory said."""

from __future__ import annotations

from rules.asking import bare_words
from rules.explain import plain
from rules.model import Alert, LabResult, ResultStatus
from rules.wording import WORDS

__all__ = ["ANSWERED_WITHDRAWN", "acted_on", "moved", "withdrawal"]

ANSWERED_WITHDRAWN = "answered-alert-withdrawn"
"""Reason of the REVIEW alert that ``acted_on`` words."""

_TITLE = {"fr": "ALERTE RETIRÉE : {title}", "en": "ALERT WITHDRAWN: {title}"}
_CORRECTED = {
    "fr": (
        "Le laboratoire a corrigé le résultat sur lequel reposait cette alerte. Valeur corrigée : {value}. "
        "Si une décision a déjà été prise sur la première valeur, la revoir avec le patient."
    ),
    "en": (
        "The laboratory has corrected the result on which this alert rested. Corrected value: {value}. "
        "If a decision was already taken on the first value, review it with the patient."
    ),
}
_TAKEN_BACK = {
    "fr": (
        "Le laboratoire a retiré le résultat sur lequel reposait cette alerte ({status}). Il n'y a plus de numération "
        "valable à sa place : le contrôle reste à faire. Si une décision a déjà été prise, la revoir avec le patient."
    ),
    "en": (
        "The laboratory has taken back the result on which this alert rested ({status}). No valid count stands in its "
        "place: the test is still to be done. If a decision was already taken, review it with the patient."
    ),
}
_MOVED = {
    "fr": (
        "Ce dossier a été réuni avec un autre, ou séparé de lui : ce qui reste à faire est dit sous l'autre identité. "
        "Rien de ce qui a été décidé n'est annulé par là."
    ),
    "en": (
        "This record was joined with another one, or separated from it: what remains to be done is told under the other "
        "identity. Nothing that was decided is undone by that."
    ),
}
_NEVER_ALONE = {
    "fr": "L'arrêt et la reprise de la clozapine restent la décision du prescripteur.",
    "en": "Stopping and resuming clozapine remain the prescriber's decision.",
}


_ACTED_TITLE = {
    "fr": "ALERTE RETIRÉE APRÈS RÉPONSE, décision à revoir : {title}",
    "en": "ALERT WITHDRAWN AFTER AN ANSWER, decision to be reviewed: {title}",
}
_ACTED = {
    "fr": (
        "Une personne avait répondu à cette alerte avant que le laboratoire ne revienne sur le résultat. Si elle a agi "
        "(arrêt, appel du patient, nouvelle numération), la décision est à revoir avec elle et avec le patient."
    ),
    "en": (
        "A person had answered this alert before the laboratory went back on the result. If that person has acted "
        "(stopped, called the patient, ordered a count), the decision is to be reviewed with them and with the patient."
    ),
}


def moved(before: Alert, *, language: str) -> tuple[str, str]:
    """Title and text of an alert that goes on under another patient's record."""
    return _TITLE[language].format(title=before.title), f"{_MOVED[language]}\n{_NEVER_ALONE[language]}"


_UNSURE_TITLE = {
    "fr": "ALERTE RETIRÉE, décision à revoir si elle a été prise : {title}",
    "en": "ALERT WITHDRAWN, decision to be reviewed if one was taken: {title}",
}
_UNSURE = {
    "fr": (
        "Le laboratoire est revenu sur le résultat sur lequel reposait cette alerte, à laquelle personne n'a répondu. Elle a "
        "pu être lue : vérifier que rien n'a été fait (arrêt, appel du patient), ou revoir la décision avec le patient."
    ),
    "en": (
        "The laboratory went back on the result on which this alert rested, and nobody had answered it. It may have been "
        "read: make sure that nothing was done (stop, call to the patient), or review the decision with the patient."
    ),
}


def acted_on(before: Alert, *, language: str, answered: bool = True) -> tuple[str, str]:
    """Title and text of the task that is left when an alert is taken back that somebody has, or may have, acted on."""
    bare, _ = bare_words(before.title, before.text)
    titles, texts = (_ACTED_TITLE, _ACTED) if answered else (_UNSURE_TITLE, _UNSURE)
    return titles[language].format(title=bare), f"{texts[language]}\n{_NEVER_ALONE[language]}"


def withdrawal(before: Alert, replaced_by: LabResult, *, language: str) -> tuple[str, str]:
    """Title and text for the withdrawal of ``before``, whose count is now ``replaced_by``."""
    if replaced_by.anc is None or replaced_by.status.withdrawn:
        status = "wrong patient or error" if replaced_by.status is ResultStatus.ENTERED_IN_ERROR else "cancelled"
        if language == "fr":
            status = "erreur ou autre patient" if replaced_by.status is ResultStatus.ENTERED_IN_ERROR else "annulé"
        said = _TAKEN_BACK[language].format(status=status)
    else:
        mark = WORDS[language].decimal_mark
        giga = plain(replaced_by.anc.per_mm3 / 1000).replace(".", mark)
        value = f"{replaced_by.anc.comparator or ''}{giga} G/L ({plain(replaced_by.anc.per_mm3)}/mm3)"
        said = _CORRECTED[language].format(value=value)
    return _TITLE[language].format(title=bare_words(before.title, before.text)[0]), f"{said}\n{_NEVER_ALONE[language]}"
