"""Our outgoing shapes for each destination, judged by the libraries before anything goes out (``config check``)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from emitters.check import judge_fhir, judge_v2
from emitters.fhir import Level, encode, transaction
from emitters.hl7v2 import alert_message
from engine.back import fhir_profile, fhir_server, v2_profile
from engine.config import Settings
from engine.destination_settings import FhirDestination, KafkaDestination
from engine.texts import wordings_of
from rules import alerts_for, assess, find_protocol
from rules.model import (
    AbsoluteNeutrophilCount,
    Alert,
    AlertKind,
    Assessment,
    LabResult,
    OrderReference,
    PatientIdentifier,
    Person,
    ResultStatus,
    Subject,
    TreatmentCourse,
)

__all__ = ["offers", "shapes"]


async def offers(settings: Settings) -> list[str]:
    """One line for each FHIR destination: the emission level that its server proposes, or why it could not be asked."""
    lines = []
    for number, item in enumerate(settings.destination):
        if not isinstance(item, FhirDestination):
            continue
        server = fhir_server(item, settings)
        try:
            found = await server.offer()
        finally:
            await server.close()
        place = f"destination[{number}] {item.name}"
        if not isinstance(found, tuple):
            lines.append(f"{place}: its emission level could not be asked for: {found.why}")
            continue
        level, own_ids = found
        said = (
            f"its CapabilityStatement proposes level {level}" if level else "its CapabilityStatement proposes no level"
        )
        if item.level is None:
            fixed = f'up to L2 is sent until level = "{level or "L2"}" is set'
        else:
            fixed = f"level {item.level} is set"
            if level is not None and level < item.level:
                fixed += ", more than it takes: alerts would be dead letters"
        lines.append(f"{place}: {said}{' with our own ids' if own_ids else ''}; {fixed}")
    return lines


def shapes(settings: Settings) -> list[str]:
    """One complaint a line; empty when every destination's shape is sound. Slow (the libraries are): seconds."""
    alert = _sample(settings)
    found: list[str] = []
    for number, item in enumerate(settings.destination):
        if isinstance(item, FhirDestination | KafkaDestination):
            profile = fhir_profile(item, settings)
            complaints = []
            fixed = item.level if isinstance(item, FhirDestination) else profile.level
            for level in (fixed,) if fixed is not None else (Level.L0, Level.L1, Level.L2):
                built = transaction(alert, patient_reference="Patient/example", settings=replace(profile, level=level))
                complaints += judge_fhir(encode(built))
        else:
            complaints = judge_v2(alert_message(alert, control_id="0" * 20, profile=v2_profile(item, settings)))
        found += [f"destination[{number}] {item.name}: {complaint}" for complaint in complaints]
    return found


def _sample(settings: Settings) -> Alert:
    """A stop alert about nobody."""
    now = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
    result = LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(840), reporting_unit=Decimal(10)),
        collected_at=now,
        code="26499-4",
        code_system="http://loinc.org",
        display="PNN",
        value_as_sent="0.84",
        unit_as_sent="G/L",
        sub_id="1",
        order=OrderReference(placer="P1^LIS", filler="F1^LAB"),
        key="self-check",
    )
    course = TreatmentCourse(start=date(2026, 1, 5))
    verdict = assess(find_protocol(settings.engine.protocol), course, [], result, now.date())
    if not isinstance(verdict, Assessment):
        raise TypeError("the sample count could not be judged")
    draft = alerts_for(
        verdict,
        register_id="self-check",
        language=settings.locale.language,
        result=result,
        wordings=wordings_of(settings),
    )
    if draft is None:
        raise TypeError("the sample count gives no alert")
    return Alert(
        id=draft.id,
        revision=1,
        kind=AlertKind.RAISED,
        family=draft.family,
        level=draft.level,
        title=draft.title,
        text=draft.text,
        subject=Subject(
            register_id="self-check",
            identifiers=(PatientIdentifier("0", "urn:oid:1.2.3.4.5", "PI"),),
            person=Person(family="EXAMPLE", given="Nobody", birth_date=date(1980, 1, 1), sex="F"),
        ),
        raised_at=now,
        updated_at=now,
        assessment=verdict,
        result=result,
        language=settings.locale.language,
    )
