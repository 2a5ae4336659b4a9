"""The console's words, French and English. A key that one language lacks, or that two files claim, is an error at import.

Each room of the console keeps its words in a file of its own; what every page says stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

from console.words_auth import AUTH
from console.words_clinic import CLINIC
from console.words_doubts import DOUBTS
from console.words_operators import OPERATORS

__all__ = ["words_for"]

_COMMON: dict[str, tuple[str, str]] = {
    "language.name": ("Français", "English"),
    "language.other": ("English", "Français"),
    "language.choose": ("Passer en anglais", "Switch to French"),
    "skip": ("Aller au contenu", "Skip to the content"),
    "brand": ("NeutroFlag, accueil", "NeutroFlag, home"),
    "nav": ("Pages", "Pages"),
    "nav.today": ("Aujourd’hui", "Today"),
    "nav.patients": ("Patients", "Patients"),
    "nav.messages": ("Messages", "Messages"),
    "nav.dead-letters": ("Non remis", "Undelivered"),
    "nav.connections": ("Connexions", "Connections"),
    "nav.compare": ("Comparaison", "Comparison"),
    "who.open": ("Sans compte", "No accounts"),
    "who.leave": ("Se déconnecter", "Log out"),
    "role.clinician": ("clinicien", "clinician"),
    "role.operator": ("exploitant", "operator"),
    "role.auditor": ("auditeur", "auditor"),
    "role.admin": ("administrateur", "administrator"),
    "strip": ("État du moteur", "State of the engine"),
    "strip.accepting": ("Reçoit et juge", "Accepts and judges"),
    "strip.not-judging": ("Reçoit, ne juge pas", "Accepts, does not judge"),
    "strip.failed": ("Une partie du moteur s’est arrêtée", "A part of the engine has ended"),
    "strip.pending": ("{n} en attente de lecture", "{n} waiting to be read"),
    "strip.delivering": ("Transmet", "Delivers"),
    "strip.observing": ("Observe, ne transmet rien", "Observes, delivers nothing"),
    "strip.no-destination": ("Aucune destination", "No destination"),
    "strip.down": ("{names} ne répond pas", "{names} does not answer"),
    "strip.nothing-waits": ("Rien n’attend", "Nothing waits"),
    "strip.oldest": ("Plus ancien non remis : {age}", "Oldest undelivered: {age}"),
    "strip.dead": ("{n} non remis", "{n} undelivered"),
    "strip.critical": ("{n} critique", "{n} critical"),
    "strip.criticals": ("{n} critiques", "{n} critical"),
    "strip.red": ("{n} rouge", "{n} red"),
    "strip.reds": ("{n} rouges", "{n} red"),
    "strip.as-of": ("à {time}", "at {time}"),
    "stale": (
        "Le moteur ne répond plus. Ce qui s’affiche date de l’heure indiquée et ne change plus.",
        "The engine no longer answers. What is shown is as old as the time beside it and does not change any more.",
    ),
    "foot": (
        "NeutroFlag {version}. Aide à la surveillance : le prescripteur décide. N’est pas un dispositif médical certifié.",
        "NeutroFlag {version}. An aid to monitoring: the prescriber decides. Not a certified medical device.",
    ),
    "foot.protocol": ("Protocole {protocol}", "Protocol {protocol}"),
    "level.critical": ("Critique", "Critical"),
    "level.red": ("Rouge", "Red"),
    "level.amber": ("Orange", "Amber"),
    "level.info": ("Information", "Information"),
    "level.none": ("Sans alerte", "No alert"),
    "level.withdrawn": ("Retirée", "Withdrawn"),
    "by": ("Votre nom", "Your name"),
    "by.hint": (
        "Inscrit au dossier avec cette action, faute de comptes.",
        "Kept with this action, as there are no accounts.",
    ),
    "page.newest": ("Les plus récents", "The newest"),
    "page.older": ("Plus anciens", "Older"),
    "page.further": ("Chercher plus loin", "Search further"),
    "filter.apply": ("Filtrer", "Filter"),
    "filter.clear": ("Tout voir", "Show all"),
    "any": ("tous", "any"),
    "print": ("Imprimer", "Print"),
    "unknown": ("inconnu", "unknown"),
    "error.404.title": ("Rien à cette adresse", "Nothing at this address"),
    "error.404.text": (
        "La page ou l’élément demandé n’existe pas, ou n’existe plus.",
        "The page or item you asked for does not exist, or no longer does.",
    ),
    "error.503.title": ("La base ne répond pas", "The database does not answer"),
    "error.503.text": (
        "Rien n’a été enregistré. Réessayez dans un instant.",
        "Nothing was recorded. Try again in a moment.",
    ),
    "error.home": ("Retour à l’accueil", "Back to the start"),
}


def words_for(language: str) -> Mapping[str, str]:
    """Every word by key; KeyError for an unknown key or language."""
    return _BY_LANGUAGE[language]


def _merged(*rooms: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    whole: dict[str, tuple[str, str]] = {}
    for room in rooms:
        twice = sorted(whole.keys() & room.keys())
        if twice:
            raise ValueError(f"words claimed twice: {', '.join(twice)}")
        whole |= room
    empty = sorted(key for key, pair in whole.items() if len(pair) != 2 or not all(pair))
    if empty:
        raise ValueError(f"words that lack a language: {', '.join(empty)}")
    return whole


_WORDS = _merged(_COMMON, AUTH, OPERATORS, CLINIC, DOUBTS)
_BY_LANGUAGE: dict[str, Mapping[str, str]] = {
    language: {key: words[place] for key, words in _WORDS.items()} for place, language in enumerate(("fr", "en"))
}
