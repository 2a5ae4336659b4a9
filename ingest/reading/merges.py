"""ADT^A40: pairs of PID and MRG, which say that two records are one person (HL7 v2.5.1, 3.3.40)."""

from __future__ import annotations

from ingest.reading.outcome import Merge
from ingest.reading.patients import identifiers_of_field, patient_of
from ingest.reading.site import Site
from wire.er7 import Message, Segment

__all__ = ["merges_in"]


def merges_in(message: Message, site: Site | None = None) -> tuple[Merge, ...]:
    """Each MRG with the PID before it; one without a usable number on either side says nothing."""
    found: list[Merge] = []
    pid: Segment | None = None
    for segment in message.segments():
        if segment.name == "PID":
            pid = segment
        elif segment.name == "MRG" and pid is not None:
            survivor, doubts = patient_of(pid, production=True)
            prior = identifiers_of_field(segment, 1)
            if site is not None:
                survivor, prior = site.named(survivor), site.named(prior)
            if survivor and prior:
                found.append(Merge(survivor=survivor, prior=prior, where=segment.at(), doubts=doubts))
    return tuple(found)
