"""What an HL7 v2 alert calls things, in the site's language; the alert's own title and text come with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rules.model import AlertFamily

__all__ = ["WORDS", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    service: str
    decision: str
    count: str
    text: str
    due: str
    rule: str
    withdrawn: str
    ended: str
    answered: str
    system: str
    note: str
    disclaimer: str
    decisions: dict[AlertFamily, str]


WORDS: Final = {
    "fr": Words(
        "Alerte PNN clozapine",
        "Conclusion de surveillance",
        "Polynucléaires neutrophiles [Nombre/Volume] Sang",
        "Texte de l'alerte",
        "Prochaine NFS",
        "Règle et version",
        "ALERTE ANNULÉE",
        "ALERTE CLOSE",
        "ALERTE RÉPONDUE",
        "Surveillance technique : liaison à vérifier",
        "Remarque",
        "Aide à la surveillance : la décision appartient au prescripteur.",
        {
            AlertFamily.STOP: "Seuil d'arrêt atteint",
            AlertFamily.MILD: "Neutropénie légère",
            AlertFamily.START: "Avant le début du traitement",
            AlertFamily.SCHEDULE: "Rythme de surveillance modifié",
            AlertFamily.OVERDUE: "NFS en retard",
            AlertFamily.REVIEW: "Résultat à relire par une personne",
        },
    ),
    "en": Words(
        "Clozapine ANC alert",
        "Monitoring conclusion",
        "Neutrophils [#/volume] in Blood",
        "Text of the alert",
        "Next blood count",
        "Rule and version",
        "ALERT WITHDRAWN",
        "ALERT CLOSED",
        "ALERT ANSWERED",
        "Technical watch: check a connection",
        "Note",
        "Monitoring aid: the decision is the prescriber's.",
        {
            AlertFamily.STOP: "Stop threshold reached",
            AlertFamily.MILD: "Mild neutropenia",
            AlertFamily.START: "Before the start of treatment",
            AlertFamily.SCHEDULE: "Monitoring schedule changed",
            AlertFamily.OVERDUE: "Blood count overdue",
            AlertFamily.REVIEW: "Result to be reviewed by a person",
        },
    ),
}
