"""What the doors offer, in OpenAPI's words: bodies and answers, for ``/openapi.json``.

The routes take a request as it comes, so that nothing of it is decoded before it is stored; FastAPI can infer none of this.
"""

from __future__ import annotations

from typing import Any, Final

from ingest.fhir_types import TAKEN

__all__ = ["CAPABILITY", "FHIR_ANSWERS", "FHIR_BODY", "HL7_ANSWERS", "HL7_BODY", "TYPES", "plain"]

_Answers = dict[int | str, dict[str, Any]]

TYPES: Final = sorted(TAKEN)


def _resource(*types: str) -> dict[str, Any]:
    name = {"type": "string", "enum": list(types)}
    return {"type": "object", "required": ["resourceType"], "properties": {"resourceType": name}}


_TAKEN: Final = _resource(*TYPES) | {
    "properties": {
        "resourceType": {"type": "string", "enum": TYPES},
        "id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
        "type": {"description": "Of a Bundle: transaction, batch, message, collection and others"},
        "status": {"type": "string"},
        "code": {"type": "object"},
        "subject": {"type": "object"},
        "valueQuantity": {"type": "object"},
        "entry": {"type": "array", "items": {"type": "object", "properties": {"resource": {"type": "object"}}}},
    }
}
_ER7: Final = {"type": "string", "description": "Segments that end in CR; the first is MSH"}


def plain(description: str) -> _Answers:
    """A 200 in words."""
    return {200: {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}}


def _body(**media: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": media}}


def _answers(told: dict[int, str], media: str, schema: dict[str, Any]) -> _Answers:
    return {status: {"description": words, "content": {media: {"schema": schema}}} for status, words in told.items()}


_EXAMPLE: Final = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "751-8"}]},
    "subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "405660"}},
    "effectiveDateTime": "2026-11-22T08:10:00+01:00",
    "valueQuantity": {"value": 2.4, "unit": "10*9/L", "system": "http://unitsofmeasure.org", "code": "10*9/L"},
}
_ER7_EXAMPLE: Final = (
    "MSH|^~\\&|SIL|LABO|NF|CHX|20261122081500||ORU^R01|M1|P|2.5\r"
    "PID|1||405660^^^CHX&1.2.3&ISO^PI\rOBR|1|||58410-2^NFS^LN|||202611220810\r"
    "OBX|1|NM|751-8^PNN^LN||2.40|10*9/L|||||F\r"
)
CAPABILITY: Final = _answers({200: "FHIR R4"}, "application/fhir+json", _resource("CapabilityStatement"))
FHIR_BODY: Final = _body(
    **{
        "application/fhir+json": {"schema": _TAKEN, "example": _EXAMPLE},
        "application/xml": {"schema": {"type": "string", "description": "A CDA R2 ClinicalDocument"}},
    }
)
FHIR_ANSWERS: Final = _answers(
    {
        200: "Stored: a response Bundle, or an OperationOutcome",
        201: "Stored",
        400: "Not readable; kept for a person",
        401: "A bearer token is needed",
        403: "The token's scopes do not suffice",
        404: "A resource type that is not taken",
        405: "An interaction that is not offered",
        413: "Too large",
        415: "A media type that is not taken",
        503: "Not stored; send again",
    },
    "application/fhir+json",
    _resource("OperationOutcome", "Bundle"),
)
HL7_BODY: Final = _body(
    **{media: {"schema": _ER7, "example": _ER7_EXAMPLE} for media in ("application/hl7-v2", "text/plain")}
)
HL7_ANSWERS: Final[_Answers] = {
    **_answers(
        {
            200: "Stored: the acknowledgement",
            400: "Not readable; kept for a person",
            413: "Too large",
            503: "Not stored; send again",
        },
        "application/hl7-v2",
        _ER7,
    ),
    204: {"description": "Stored; the message asks for no acknowledgement"},
    401: {"description": "A bearer token is needed", "content": {"text/plain": {"schema": {"type": "string"}}}},
    403: {
        "description": "The token's scopes do not suffice",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
}
