"""Why a count is provisional, in words; the codes are those of docs/reading.md."""

from __future__ import annotations

__all__ = ["DOUBTS"]

_CODES: dict[str, tuple[str, str]] = {
    "analyser-suspect": ("l’automate signale la valeur comme suspecte", "the analyser calls the value suspect"),
    "code-conflict": ("deux codes se contredisent", "two codes disagree"),
    "code-name-conflict": ("le code et le libellé se contredisent", "code and name disagree"),
    "code-system-conflict": ("code annoncé LOINC qui n’en est pas un", "a code declared as LOINC that is none"),
    "code-unit-conflict": ("le code et l’unité se contredisent", "code and unit disagree"),
    "code-unknown": ("code inconnu", "unknown code"),
    "collection-time-missing": ("date de prélèvement absente", "no time of collection"),
    "collection-time-unreadable": ("date de prélèvement illisible", "unreadable time of collection"),
    "counts-differ": ("deux valeurs pour la même mesure", "two values of one measurement"),
    "derived-disagrees": ("diffère du calcul par les leucocytes", "differs from what the leukocytes give"),
    "exceeds-leukocytes": ("plus de neutrophiles que de leucocytes", "more neutrophils than leukocytes"),
    "identity-conflict": ("deux identités dans le message", "two identities in the message"),
    "identity-doubtful": ("identité douteuse", "doubtful identity"),
    "leukocytes-differ": ("plusieurs leucocytes, le plus bas retenu", "several leukocyte counts, the lowest taken"),
    "modifier-extension": ("extension modificatrice non comprise", "a modifier that is not understood"),
    "patient-missing": ("patient absent du message", "no patient in the message"),
    "reported-count-unreadable": (
        "valeur rendue illisible, valeur calculée",
        "reported count unreadable, derived one shown",
    ),
    "reported-count-withdrawn": (
        "valeur rendue retirée, valeur calculée",
        "reported count withdrawn, derived one shown",
    ),
    "row-without-code": ("une valeur sans code à côté", "a number without a code beside it"),
    "sender-unproven": (
        "nom de patient d’un autre expéditeur non authentifié",
        "a patient's name given by another sender that proved nothing",
    ),
    "specimen-aggregates": ("agrégats dans le prélèvement", "cells stuck together"),
    "specimen-ambiguous": ("nature du prélèvement incertaine", "which specimen is unclear"),
    "status-conflict": ("statuts contradictoires", "contradictory statuses"),
    "status-missing": ("statut absent", "no status"),
    "status-preliminary": ("résultat non définitif", "not yet final"),
    "status-unknown": ("statut inconnu", "unknown status"),
    "strict-violation": ("message non conforme à la norme", "the message breaks the standard"),
    "test-identity": ("identité de test", "a test identity"),
    "test-message": ("message de test", "a test message"),
    "time-ambiguous": ("heure ambiguë (changement d’heure)", "ambiguous hour (clock change)"),
    "time-in-the-future": ("prélèvement daté dans le futur", "collected in the future"),
    "time-missing": ("date de prélèvement absente", "no time of collection"),
    "unit-suspect": ("unité probablement fausse", "the unit is probably wrong"),
    "value-absent": ("valeur à côté d’un motif d’absence", "a value beside a reason for its absence"),
}

DOUBTS = {f"doubt.{code}": words for code, words in _CODES.items()}
