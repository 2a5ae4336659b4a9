"""The words around an alert that say who is asked, why again, and what the second recipients are to do.

Never here: what the alert itself says; its words stand below these, unchanged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rules.alerts import AlertDraft, alert_id
from rules.decisions import DECISION_WORDS, Decision
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel
from rules.wording import WORDS, moment_words

__all__ = [
    "DISPENSED",
    "answered_words",
    "bare_words",
    "copy_words",
    "dispensed_alert",
    "handed_back_words",
    "unanswered_words",
    "undecided_words",
]

DISPENSED: Final = "dispensed-after-stop"
"""Reason of the REVIEW alert on clozapine that was dispensed although a stop is on record."""

_UNANSWERED_TITLE = {"fr": "SANS RÉPONSE depuis le {since} : {title}", "en": "UNANSWERED since {since}: {title}"}
_UNANSWERED = {
    "fr": "Cette alerte attend une réponse depuis le {since}. Le délai prévu ({hours} h) est passé.",
    "en": "This alert has been waiting for an answer since {since}. The time allowed ({hours} h) has passed.",
}
_BACK_TITLE = {"fr": "À REPRENDRE depuis le {since} : {title}", "en": "HANDED BACK, since {since}: {title}"}
_BACK = {
    "fr": "Cette alerte attend une réponse depuis le {since}. La personne sollicitée l'a rendue : ce n'est pas son patient.",
    "en": "This alert has been waiting for an answer since {since}. Whoever was asked has handed it back: not their patient.",
}
_ANSWERED_TITLE = {"fr": "RÉPONDU : {title}", "en": "ANSWERED: {title}"}
_ANSWERED = {
    "fr": "Réponse donnée le {at} par {by} : {decision}. Aucune autre réponse n'est attendue à cette alerte.",
    "en": "Answered on {at} by {by}: {decision}. No other answer to this alert is awaited.",
}
_UNDECIDED_TITLE = {"fr": "DÉCISION NON PRÉCISÉE : {title}", "en": "DECISION NOT STATED: {title}"}
_UNDECIDED = {
    "fr": "L'alerte d'arrêt a été close par {by} sans dire ce qui a été décidé. Le dire : clozapine arrêtée, patient "
    "joint, numération prescrite, ou, avec un motif, traitement poursuivi ou résultat contesté.",
    "en": "The stop alert was closed by {by} without saying what was decided. Say what was decided: clozapine stopped, "
    "patient reached, count ordered, or, with a reason, treatment continued or result disputed.",
}
_ASKED = {"fr": " Destinataire actuel : {owner}.", "en": " Asked now: {owner}."}
_HEADS = tuple(
    words[language].partition("{since}")[0] for words in (_UNANSWERED_TITLE, _BACK_TITLE) for language in words
)

_COPY_TITLE = {
    "pharmacist": {"fr": "POUR LE PHARMACIEN : {title}", "en": "FOR THE PHARMACIST: {title}"},
    "laboratory": {"fr": "POUR LE LABORATOIRE, à rappeler : {title}", "en": "FOR THE LABORATORY, call back: {title}"},
}
_COPY = {
    "pharmacist": {
        "fr": "Copie de l'alerte adressée au prescripteur. Ne pas dispenser de clozapine à ce patient sans l'avoir joint.",
        "en": "Copy of the alert sent to the prescriber. Dispense no clozapine to this patient without having reached them.",
    },
    "laboratory": {
        "fr": "Une numération des neutrophiles n'a pas pu être jugée telle qu'elle a été transmise, ou elle a été calculée "
        "et se trouve près d'un seuil. Rappeler le prescripteur avec la valeur absolue et son unité, et la renvoyer.",
        "en": "A neutrophil count could not be judged as it was sent, or it was computed and lies near a threshold. Call "
        "the prescriber back with the absolute value and its unit, and send the result again.",
    },
}
_COPY_WITHDRAWN = {
    "fr": "Copie de l'annonce faite au prescripteur : l'alerte transmise en copie est retirée.",
    "en": "Copy of what the prescriber is told: the alert that was copied here is taken back.",
}
_DISPENSED_TITLE = {
    "fr": "CLOZAPINE DISPENSÉE APRÈS L'ARRÊT",
    "en": "CLOZAPINE DISPENSED AFTER THE STOP",
}
_DISPENSED_TEXT = {
    "fr": "Une dispensation de clozapine du {on} a été reçue alors qu'un arrêt du {stop} figure au dossier. Joindre le "
    "patient et le pharmacien, vérifier que la clozapine n'est pas prise, ou corriger le dossier.",
    "en": "A dispensing of clozapine on {on} was received although a stop on {stop} is on record. Reach the patient and the "
    "pharmacist, make sure that no clozapine is taken, or correct the record.",
}
_NEVER_AGAIN = {
    "fr": "L'arrêt a été fait pour le taux de neutrophiles : la clozapine ne doit pas être réintroduite.",
    "en": "The stop was for the neutrophil count: clozapine must not be given again.",
}


def unanswered_words(
    title: str, text: str, *, since: datetime, hours: str, owner: str, language: str
) -> tuple[str, str]:
    """Title and text of an alert that nobody answered in time. ``since``: local time; ``hours``: the time allowed;
    ``owner``: who is asked now, "" where nobody is named."""
    return _said(_UNANSWERED_TITLE, _UNANSWERED, title, text, since, owner, language, hours=hours)


def handed_back_words(title: str, text: str, *, since: datetime, owner: str, language: str) -> tuple[str, str]:
    """The same for one that a person said is not theirs."""
    return _said(_BACK_TITLE, _BACK, title, text, since, owner, language)


def _said(
    titles: dict[str, str],
    texts: dict[str, str],
    title: str,
    text: str,
    since: datetime,
    owner: str,
    language: str,
    **more: str,
) -> tuple[str, str]:
    title, text = bare_words(title, text)
    moment = moment_words(since, language)
    first = texts[language].format(since=moment, **more)
    # A reference is a machine's name: it helps no reader.
    asked = _ASKED[language].format(owner=owner) if owner and "/" not in owner else ""
    return titles[language].format(since=moment, title=title), f"{first}{asked}\n{text}"


def answered_words(
    title: str, text: str, *, at: datetime, by: str, decision: Decision, language: str
) -> tuple[str, str]:
    """Title and text for those who have an alert before them that somebody has answered. ``at``: local time."""
    title, text = bare_words(title, text)
    said = DECISION_WORDS[decision][language != "fr"]
    first = _ANSWERED[language].format(at=moment_words(at, language), by=by, decision=said)
    return _ANSWERED_TITLE[language].format(title=title), f"{first}\n{text}"


def undecided_words(title: str, text: str, *, by: str, language: str) -> tuple[str, str]:
    """Title and text of the question that is left when a stop was closed without a decision."""
    title, text = bare_words(title, text)
    return _UNDECIDED_TITLE[language].format(title=title), f"{_UNDECIDED[language].format(by=by)}\n{text}"


def bare_words(title: str, text: str) -> tuple[str, str]:
    """The words without what was put before them the last time.

    >>> bare_words("UNANSWERED since 2026-09-07 at 10:00: STOP", "This alert has ...\\nStop.")
    ('STOP', 'Stop.')
    """
    if not title.startswith(_HEADS):
        return title, text
    _, found, rest = title.partition(" : " if " : " in title else ": ")
    return (rest, text.partition("\n")[2]) if found else (title, text)


def copy_words(alert: Alert, recipient: str) -> tuple[str, str]:
    """Title and text of the copy for a second recipient."""
    title = _COPY_TITLE[recipient][alert.language].format(title=alert.title)
    words = _COPY_WITHDRAWN if alert.kind is AlertKind.WITHDRAWN else _COPY[recipient]
    return title, f"{words[alert.language]}\n{alert.text}"


def dispensed_alert(register_id: str, *, on: str, stop: str, key: str, for_ever: bool, language: str) -> AlertDraft:
    """Clozapine handed over after the stop. ``key`` names the dispensing: told again, it is the same alert."""
    more = f" {_NEVER_AGAIN[language]}" if for_ever else ""
    text = _DISPENSED_TEXT[language].format(on=on, stop=stop)
    return AlertDraft(
        id=alert_id(register_id, AlertFamily.REVIEW, f"{DISPENSED}|{key}"),
        family=AlertFamily.REVIEW,
        level=AlertLevel.CRITICAL if for_ever else AlertLevel.RED,
        title=_DISPENSED_TITLE[language],
        text=f"{text}{more}\n{WORDS[language].infection}",
    )
