"""What is said to a prescriber, in English. No clinical number stands here."""

from __future__ import annotations

from typing import Final

from rules.words import Words

__all__ = ["ENGLISH"]

ENGLISH: Final = Words(
    decimal_mark=".",
    moment_format="%Y-%m-%d at %H:%M",
    date_format="%Y-%m-%d",
    anc="ANC",
    levels={"info": "Information", "amber": "Warning", "red": "Alert", "critical": "Critical alert"},
    finding="ANC {value} on {on}.",
    finding_below="ANC {value} on {on}, below the threshold of {limit}.",
    finding_at="ANC {value} on {on}, exactly at the threshold of {limit}.",
    finding_above="ANC {value} on {on}, above the threshold of {limit}.",
    first_reported="The laboratory had first reported this count as {value}. That first result holds no longer: it must not "
    "reassure.",
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
    reasons={
        "decision-not-stated": "stop closed without a stated decision",
        "answered-alert-withdrawn": "alert withdrawn: decision to review",
        "dispensed-after-stop": "clozapine dispensed after a stop",
        "unit-missing": "no unit",
        "sender-unproven": "treatment told under the local name of another sender that proved nothing",
        "report-withdrawn": "blood count report taken back, without its results",
        "notification-empty": "notification without the result that it announces: ask its sender for it",
        "code-missing": "number without a code in a blood count",
        "segment-joined": "damaged message: one line of results inside another, ask the laboratory for it again",
        "death-reported": "death told by another system: to be confirmed",
        "body-unopenable": "message received, unreadable in the database (key or content altered): ask the "
        "laboratory for it again",
        "body-unreadable": "message received, the database file is damaged there: ask the laboratory for it "
        "again, restore the database",
        "body-missing": "message received, content lost in the database: ask the laboratory for it again",
        "unit-unknown": "unknown unit",
        "value-ambiguous": "ambiguous value",
        "value-missing": "no value",
        "value-not-a-number": "the value is not a number",
        "value-out-of-bounds": "impossible value",
        "value-negative": "negative value",
        "specimen-clotted": "clotted specimen",
        "specimen-rejected": "specimen rejected",
        "patient-missing": "no patient in the message",
        "identity-doubtful": "doubtful identity",
        "document-not-read": "document that the engine does not read",
        "withdrawal-in-doubt": "doubtful withdrawal of an established result",
        "merge-doubtful": "doubtful merge of patients",
        "merge-two-courses": "two treated patients were merged: to be checked",
        "percent-without-leukocytes": "percentage without leukocytes",
        "code-conflict": "contradictory codes",
        "collection-time-unreadable": "unreadable time of collection",
    },
    review_titles={
        "death-reported": "Death told, a person must confirm",
        "withdrawal-in-doubt": "Doubtful withdrawal of a count, a person must check",
        "merge-doubtful": "Doubtful merge of records, a person must check",
        "merge-two-courses": "Two treated records were joined, a person must compare",
        "sender-unproven": "Treatment told by a sender that proved nothing, to be checked",
        "internal-error": "A message failed, a person must check",
    },
    reviews={
        "death-reported": "Another system tells the death of this patient{place}. Nothing is stopped for that: the "
        "monitoring and its reminders go on until a person records it. Confirm it, or have the sender correct the "
        "identity.",
        "withdrawal-in-doubt": "A message takes a neutrophil count back, and is in doubt{place}. The count is kept, with all "
        "that it requires. Check with the laboratory which one holds.",
        "merge-doubtful": "A message asks to join this record with another one, and the identity is in doubt{place}. "
        "Nothing was joined: counts of this patient may stand under another number. Check the identity.",
        "merge-two-courses": "This record was joined with another one that holds a treatment too{place}. The treatment of "
        "this one is kept. Compare starts, interruptions and stops, and correct the record.",
        "sender-unproven": "A treatment is told under the local name of another sender, without proof of who sends "
        "it{place}. It was not recorded. Check it, and record it if it is this patient's.",
        "internal-error": "A message or this record could not be dealt with, by an error of NeutroFlag{place}. A count "
        "may be missing: ask the laboratory for it, and tell the operator.",
    },
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
        "override-borderline-not-history": "A clinician has decided that a value exactly at the threshold does not "
        "count as a history of neutropenia.",
        "override-lift-a15": "A clinician has lifted the ban that followed a stop under the former thresholds.",
        "transferred": "Monitoring was transferred to another service: pass this result on.",
    },
    again_title="UNANSWERED since {since}: {title}",
    again="This alert has been waiting for an answer since {since}. The time allowed ({hours} h) has passed.",
    back_title="HANDED BACK, since {since}: {title}",
    back="This alert has been waiting for an answer since {since}. Whoever was asked has handed it back: not their patient.",
    asked_now="Asked now: {owner}.",
    answered_title="ANSWERED: {title}",
    answered="Answered on {at} by {by}: {decision}. No other answer to this alert is awaited.",
    undecided_title="DECISION NOT STATED: {title}",
    undecided="The stop alert was closed by {by} without saying what was decided. Say what was decided: clozapine "
    "stopped, patient reached, count ordered, or, with a reason, treatment continued or result disputed.",
    copy_titles={
        "pharmacist": "FOR THE PHARMACIST: {title}",
        "laboratory": "FOR THE LABORATORY, call back: {title}",
    },
    copies={
        "pharmacist": "Copy of the alert sent to the prescriber. Dispense no clozapine to this patient without having "
        "reached them.",
        "laboratory": "A neutrophil count could not be judged as it was sent, or it was computed and lies near a "
        "threshold. Call the prescriber back with the absolute value and its unit, and send the result again.",
    },
    copy_withdrawn="Copy of what the prescriber is told: the alert that was copied here is taken back.",
    dispensed_title="CLOZAPINE DISPENSED AFTER THE STOP",
    dispensed="A dispensing of clozapine on {on} was received although a stop on {stop} is on record. Reach the patient "
    "and the pharmacist, make sure that no clozapine is taken, or correct the record.",
    never_again="The stop was for the neutrophil count: clozapine must not be given again.",
    withdrawn_title="ALERT WITHDRAWN: {title}",
    corrected="The laboratory has corrected the result on which this alert rested. Corrected value: {value}. "
    "If a decision was already taken on the first value, review it with the patient.",
    taken_back="The laboratory has taken back the result on which this alert rested ({status}). No valid count stands in "
    "its place: the test is still to be done. If a decision was already taken, review it with the patient.",
    lowered_title="CORRECTED, the alert stands: {title}",
    lowered="The laboratory went back on a result of this alert, which was told as '{level}' until then ({title}). What "
    "follows still holds; if a decision was already taken on the first value, review it with the patient.",
    in_error="wrong patient or error",
    cancelled="cancelled",
    moved="This record was joined with another one, or separated from it: what remains to be done is told under the "
    "other identity. Nothing that was decided is undone by that.",
    never_alone="Stopping and resuming clozapine remain the prescriber's decision.",
    acted_title="ALERT WITHDRAWN AFTER AN ANSWER, decision to be reviewed: {title}",
    acted="A person had answered this alert before the laboratory went back on the result. If that person has acted "
    "(stopped, called the patient, ordered a count), the decision is to be reviewed with them and with the patient.",
    unsure_title="ALERT WITHDRAWN, decision to be reviewed if one was taken: {title}",
    unsure="The laboratory went back on the result on which this alert rested, and nobody had answered it. It may have "
    "been read: make sure that nothing was done (stop, call to the patient), or review the decision with the patient.",
    ended_title="CLOSED: {title}",
    arrived="The count that was missing has arrived: this reminder is closed. Its result is judged by itself.",
    not_expected="The record has changed: the count is no longer expected as announced. This reminder is closed.",
    elsewhere="The question is asked anew by another alert of this patient: this one is closed.",
    system_titles={
        "feed-silent": "No more messages from {name}",
        "destination-down": "The destination {name} takes no alerts",
    },
    system={
        "feed-silent": "Technical watch, no patient in particular. No message from {name} since {since}, longer than is "
        "usual. Results may be missing with nothing else to show it: check the connection with the laboratory.",
        "destination-down": "Technical watch, no patient in particular. Alerts for {name} have been waiting to be taken "
        "since {since}. They are not lost; while this lasts, read them in NeutroFlag.",
    },
    system_ended={
        "feed-silent": "Messages from {name} arrive again.",
        "destination-down": "The destination {name} takes alerts again.",
    },
    decisions={
        "stopped": "Clozapine stopped",
        "patient-reached": "Patient reached",
        "count-ordered": "Count ordered",
        "continued": "Treatment continued",
        "disputed": "Result disputed",
        "not-my-patient": "Not my patient: the alert stays open",
        "noted": "Noted",
    },
    count_to_order="Blood count with neutrophils",
    computed="Computed from leukocytes and the neutrophil fraction",
    computed_worst="Computed from leukocytes and the neutrophil fraction; at worst {value}",
    v2_count="Neutrophils [#/volume] in Blood",
    v2={
        "service": "Clozapine ANC alert",
        "decision": "Monitoring conclusion",
        "text": "Text of the alert",
        "reason": "Reason",
        "due": "Next blood count",
        "rule": "Rule and version",
        "withdrawn": "ALERT WITHDRAWN",
        "ended": "ALERT CLOSED",
        "answered": "ALERT ANSWERED",
        "note": "Note",
        "disclaimer": "Monitoring aid: the decision is the prescriber's.",
    },
    v2_conclusions={
        "ANC-STOP": "Stop threshold reached",
        "ANC-MILD": "Mild neutropenia",
        "ANC-START": "Before the start of treatment",
        "ANC-SCHEDULE": "Monitoring schedule changed",
        "ANC-OVERDUE": "Blood count overdue",
        "ANC-REVIEW": "Result to be reviewed by a person",
        "system": "Technical watch: check a connection",
    },
)
