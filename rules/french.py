"""What is said to a prescriber, in French. No clinical number stands here."""

from __future__ import annotations

from typing import Final

from rules.words import Words

__all__ = ["FRENCH"]

FRENCH: Final = Words(
    decimal_mark=",",
    moment_format="%d/%m/%Y à %H:%M",
    date_format="%d/%m/%Y",
    anc="PNN",
    levels={"info": "Information", "amber": "Attention", "red": "Alerte", "critical": "Alerte critique"},
    finding="PNN {value} le {on}.",
    finding_below="PNN {value} le {on}, sous le seuil de {limit}.",
    finding_at="PNN {value} le {on}, exactement au seuil de {limit}.",
    finding_above="PNN {value} le {on}, au-dessus du seuil de {limit}.",
    first_reported="Le laboratoire avait d'abord rendu cette numération à {value}. Ce premier résultat ne vaut plus : il ne "
    "doit pas rassurer.",
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
    reasons={
        "decision-not-stated": "arrêt clos sans décision précisée",
        "answered-alert-withdrawn": "alerte retirée : décision à revoir",
        "dispensed-after-stop": "clozapine dispensée après un arrêt",
        "unit-missing": "unité absente",
        "sender-unproven": "traitement annoncé sous le nom local d’un autre expéditeur non authentifié",
        "report-withdrawn": "compte rendu d’hémogramme retiré, sans ses résultats",
        "notification-empty": "notification sans le résultat qu’elle annonce : le demander à l’expéditeur",
        "code-missing": "valeur sans code dans un hémogramme",
        "segment-joined": "message abîmé : une ligne de résultat dans une autre, le redemander au laboratoire",
        "death-reported": "décès annoncé par un autre système : à confirmer",
        "body-unopenable": "message reçu, illisible dans la base (clé ou contenu altéré) : le redemander au laboratoire",
        "body-unreadable": "message reçu, fichier de la base endommagé à cet endroit : le redemander au "
        "laboratoire, restaurer la base",
        "body-missing": "message reçu, contenu perdu dans la base : le redemander au laboratoire",
        "unit-unknown": "unité inconnue",
        "value-ambiguous": "valeur ambiguë",
        "value-missing": "valeur absente",
        "value-not-a-number": "la valeur n’est pas un nombre",
        "value-out-of-bounds": "valeur impossible",
        "value-negative": "valeur négative",
        "specimen-clotted": "prélèvement coagulé",
        "specimen-rejected": "prélèvement refusé",
        "patient-missing": "patient absent du message",
        "identity-doubtful": "identité douteuse",
        "document-not-read": "document que le moteur ne lit pas",
        "withdrawal-in-doubt": "retrait douteux d’un résultat établi",
        "merge-doubtful": "fusion de patients douteuse",
        "merge-two-courses": "fusion de deux patients traités : à vérifier",
        "percent-without-leukocytes": "pourcentage sans leucocytes",
        "code-conflict": "codes contradictoires",
        "collection-time-unreadable": "date de prélèvement illisible",
    },
    review_titles={
        "death-reported": "Décès annoncé, à confirmer par une personne",
        "withdrawal-in-doubt": "Retrait douteux d'une numération, à vérifier par une personne",
        "merge-doubtful": "Réunion de dossiers douteuse, à vérifier par une personne",
        "merge-two-courses": "Deux dossiers traités réunis, à comparer par une personne",
        "sender-unproven": "Traitement annoncé par un émetteur non authentifié, à vérifier",
        "internal-error": "Traitement d'un message en échec, à vérifier par une personne",
    },
    reviews={
        "death-reported": "Un autre système annonce le décès de ce patient{place}. Rien n'est arrêté pour autant : la "
        "surveillance et ses rappels continuent jusqu'à ce qu'une personne l'enregistre. Confirmer, ou faire "
        "corriger l'identité par l'émetteur.",
        "withdrawal-in-doubt": "Un message retire une numération des neutrophiles et reste douteux{place}. La numération est "
        "gardée, avec ce qu'elle impose. Vérifier auprès du laboratoire ce qui vaut.",
        "merge-doubtful": "Un message demande de réunir ce dossier avec un autre, et l'identité est douteuse{place}. Rien "
        "n'a été réuni : des numérations de ce patient peuvent se trouver sous un autre numéro. Vérifier "
        "l'identité.",
        "merge-two-courses": "Ce dossier a été réuni avec un autre où un traitement est aussi enregistré{place}. Le "
        "traitement de celui-ci est gardé. Comparer les débuts, interruptions et arrêts, et corriger le dossier.",
        "sender-unproven": "Un traitement est annoncé sous le nom local d'un autre émetteur, sans preuve de qui "
        "l'envoie{place}. Il n'a pas été enregistré. Vérifier, et l'enregistrer s'il s'agit bien de ce patient.",
        "internal-error": "Un message ou ce dossier n'a pas pu être traité, par une erreur de NeutroFlag{place}. Une "
        "numération peut manquer : la demander au laboratoire, et prévenir l'exploitant.",
    },
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
        "override-borderline-not-history": "Un clinicien a décidé qu'une valeur exactement au seuil ne compte pas "
        "comme antécédent de neutropénie.",
        "override-lift-a15": "Un clinicien a levé l'interdiction qui suivait un arrêt selon les anciens seuils.",
        "transferred": "Suivi transféré à un autre service : lui transmettre ce résultat.",
    },
    again_title="SANS RÉPONSE depuis le {since} : {title}",
    again="Cette alerte attend une réponse depuis le {since}. Le délai prévu ({hours} h) est passé.",
    back_title="À REPRENDRE depuis le {since} : {title}",
    back="Cette alerte attend une réponse depuis le {since}. La personne sollicitée l'a rendue : ce n'est pas son patient.",
    asked_now="Destinataire actuel : {owner}.",
    answered_title="RÉPONDU : {title}",
    answered="Réponse donnée le {at} par {by} : {decision}. Aucune autre réponse n'est attendue à cette alerte.",
    undecided_title="DÉCISION NON PRÉCISÉE : {title}",
    undecided="L'alerte d'arrêt a été close par {by} sans dire ce qui a été décidé. Le dire : clozapine arrêtée, "
    "patient joint, numération prescrite, ou, avec un motif, traitement poursuivi ou résultat contesté.",
    copy_titles={
        "pharmacist": "POUR LE PHARMACIEN : {title}",
        "laboratory": "POUR LE LABORATOIRE, à rappeler : {title}",
    },
    copies={
        "pharmacist": "Copie de l'alerte adressée au prescripteur. Ne pas dispenser de clozapine à ce patient sans "
        "l'avoir joint.",
        "laboratory": "Une numération des neutrophiles n'a pas pu être jugée telle qu'elle a été transmise, ou elle a "
        "été calculée et se trouve près d'un seuil. Rappeler le prescripteur avec la valeur absolue et son unité, "
        "et la renvoyer.",
    },
    copy_withdrawn="Copie de l'annonce faite au prescripteur : l'alerte transmise en copie est retirée.",
    dispensed_title="CLOZAPINE DISPENSÉE APRÈS L'ARRÊT",
    dispensed="Une dispensation de clozapine du {on} a été reçue alors qu'un arrêt du {stop} figure au dossier. Joindre "
    "le patient et le pharmacien, vérifier que la clozapine n'est pas prise, ou corriger le dossier.",
    never_again="L'arrêt a été fait pour le taux de neutrophiles : la clozapine ne doit pas être réintroduite.",
    withdrawn_title="ALERTE RETIRÉE : {title}",
    corrected="Le laboratoire a corrigé le résultat sur lequel reposait cette alerte. Valeur corrigée : {value}. "
    "Si une décision a déjà été prise sur la première valeur, la revoir avec le patient.",
    taken_back="Le laboratoire a retiré le résultat sur lequel reposait cette alerte ({status}). Il n'y a plus de "
    "numération valable à sa place : le contrôle reste à faire. Si une décision a déjà été prise, la revoir avec le patient.",
    lowered_title="CORRIGÉ, l'alerte demeure : {title}",
    lowered="Le laboratoire est revenu sur un résultat de cette alerte, annoncée jusqu'ici comme « {level} » ({title}). Ce "
    "qui suit vaut toujours ; si une décision a déjà été prise sur la première valeur, la revoir avec le patient.",
    in_error="erreur ou autre patient",
    cancelled="annulé",
    moved="Ce dossier a été réuni avec un autre, ou séparé de lui : ce qui reste à faire est dit sous l'autre "
    "identité. Rien de ce qui a été décidé n'est annulé par là.",
    never_alone="L'arrêt et la reprise de la clozapine restent la décision du prescripteur.",
    acted_title="ALERTE RETIRÉE APRÈS RÉPONSE, décision à revoir : {title}",
    acted="Une personne avait répondu à cette alerte avant que le laboratoire ne revienne sur le résultat. Si elle a "
    "agi (arrêt, appel du patient, nouvelle numération), la décision est à revoir avec elle et avec le patient.",
    unsure_title="ALERTE RETIRÉE, décision à revoir si elle a été prise : {title}",
    unsure="Le laboratoire est revenu sur le résultat sur lequel reposait cette alerte, à laquelle personne n'a répondu. "
    "Elle a pu être lue : vérifier que rien n'a été fait (arrêt, appel du patient), ou revoir la décision avec le patient.",
    ended_title="CLOS : {title}",
    arrived="La numération qui manquait est arrivée : ce rappel est clos. Son résultat est jugé à part.",
    not_expected="Le dossier a changé : la numération n'est plus attendue comme annoncé. Ce rappel est clos.",
    elsewhere="La question est posée de nouveau par une autre alerte de ce patient : celle-ci est close.",
    system_titles={
        "feed-silent": "Plus de messages de {name}",
        "destination-down": "La destination {name} ne reçoit plus les alertes",
    },
    system={
        "feed-silent": "Surveillance technique, aucun patient en particulier. Aucun message de {name} depuis le {since}, "
        "plus longtemps que d'habitude. Des résultats peuvent manquer sans que rien d'autre ne le montre : vérifier la "
        "liaison avec le laboratoire.",
        "destination-down": "Surveillance technique, aucun patient en particulier. Des alertes attendent d'être reçues "
        "par {name} depuis le {since}. Elles ne sont pas perdues ; tant que dure la panne, les consulter dans NeutroFlag.",
    },
    system_ended={
        "feed-silent": "Des messages de {name} arrivent de nouveau.",
        "destination-down": "La destination {name} reçoit de nouveau les alertes.",
    },
    decisions={
        "stopped": "Clozapine arrêtée",
        "patient-reached": "Patient joint",
        "count-ordered": "Numération prescrite",
        "continued": "Traitement poursuivi",
        "disputed": "Résultat contesté",
        "not-my-patient": "Pas mon patient : l’alerte reste ouverte",
        "noted": "Pris connaissance",
    },
    count_to_order="NFS avec PNN",
    computed="Calculé à partir des leucocytes et de la fraction de neutrophiles",
    computed_worst="Calculé à partir des leucocytes et de la fraction de neutrophiles ; au plus bas {value}",
    v2_count="Polynucléaires neutrophiles [Nombre/Volume] Sang",
    v2={
        "service": "Alerte PNN clozapine",
        "decision": "Conclusion de surveillance",
        "text": "Texte de l'alerte",
        "reason": "Motif",
        "due": "Prochaine NFS",
        "rule": "Règle et version",
        "withdrawn": "ALERTE ANNULÉE",
        "ended": "ALERTE CLOSE",
        "answered": "ALERTE RÉPONDUE",
        "note": "Remarque",
        "disclaimer": "Aide à la surveillance : la décision appartient au prescripteur.",
    },
    v2_conclusions={
        "ANC-STOP": "Seuil d'arrêt atteint",
        "ANC-MILD": "Neutropénie légère",
        "ANC-START": "Avant le début du traitement",
        "ANC-SCHEDULE": "Rythme de surveillance modifié",
        "ANC-OVERDUE": "NFS en retard",
        "ANC-REVIEW": "Résultat à relire par une personne",
        "system": "Surveillance technique : liaison à vérifier",
    },
)
