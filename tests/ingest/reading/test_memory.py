"""What a stranger sends is not kept: long texts, each another one, in every place that reading remembers something of."""

from __future__ import annotations

import gc
import json
import tracemalloc

import pytest

from ingest.reading import read_message
from ingest.reading.shapes import forget

HEAD = "MSH|^~\\&|SIL|LABO|NF|CHX|20261122||ORU^R01|M1|P|2.5"
LONG = 20_000
ROUNDS = 40


def v2(**given: str) -> bytes:
    row = [
        "OBX",
        "1",
        "NM",
        given.get("code", "751-8^PNN^LN"),
        "",
        given.get("value", "1.85"),
        given.get("unit", "G/L"),
    ]
    row += [given.get("range", ""), "", "", "", "F", "", "", given.get("time", "")]
    head = f"{HEAD}||||||{given['charset']}" if "charset" in given else HEAD
    obr = [
        "OBR",
        "1",
        "",
        "F1",
        given.get("panel", "NFS"),
        "",
        "",
        "20261122080500",
        *[""] * 7,
        given.get("source", ""),
    ]
    lines = [head, f"PID|1||405660^^^{given.get('authority', 'CHX')}^PI", "|".join(obr), "|".join(row)]
    return "\r".join([*lines, f"NTE|1||{given['note']}"] if "note" in given else lines).encode()


def fhir(**given: str) -> bytes:
    coding = {"system": given.get("system", "http://loinc.org"), "code": "751-8", "display": given.get("display", "")}
    return json.dumps(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [coding]},
            "bodySite": {"text": given.get("site", "")},
            "subject": {"identifier": {"system": given.get("authority", "urn:oid:1.2.3"), "value": "405660"}},
            "effectiveDateTime": given.get("time", "2026-11-22"),
            "valueQuantity": {"value": 1.85, "unit": given.get("unit", "G/L")},
        }
    ).encode()


def rows_of_many_kinds(text: str) -> bytes:
    """A report of no interest under many long codes, sent often enough to be learnt."""
    return "\r".join(
        [HEAD, *(f"OBX|{n}|NM|{n}{text[:4_000]}^Natrium^L||140|mmol/L|||||F" for n in range(1, 11))]
    ).encode()


V2 = ["code", "value", "unit", "range", "time", "charset", "panel", "source", "authority", "note"]
FHIR = ["system", "display", "site", "authority", "time", "unit"]
PLACES = [*(f"v2 {place}" for place in V2), *(f"fhir {place}" for place in FHIR), "separators", "a report"]


def made(place: str, text: str) -> bytes:
    form, _, field = place.partition(" ")
    if form == "separators":
        return HEAD.replace("^~\\&", f"^~\\&#{text}").encode()
    if form == "a":
        return rows_of_many_kinds(text)
    return v2(**{field: text}) if form == "v2" else fhir(**{field: text})


@pytest.mark.parametrize("place", PLACES)
def test_long_texts_are_not_kept(place: str) -> None:
    form = "fhir" if place.startswith("fhir") else "hl7v2"
    forget()
    tracemalloc.start()
    try:
        for number in range(-2, ROUNDS):
            if number == 0:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            raw = made(place, f"{number}x" * (LONG // 4))
            for _ in range(5 if place == "a report" else 1):
                read_message(raw, format=form)  # type: ignore[arg-type]
            del raw
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Kept, they would be 40 times 20 kB and more.
    assert grown < 250_000, grown


def test_many_short_codes_of_many_feeds_are_kept_within_bounds() -> None:
    from ingest.reading import vocabulary

    for feed in range(40):
        head = HEAD.replace("^~\\&", f"^~\\&{chr(0x100 + feed)}")
        rows = [f"OBX|{n}|NM|{feed}-{n}-{'c' * 240}||140|mmol/L|||||F" for n in range(300)]
        read_message("\r".join([head, *rows]).encode(), format="hl7v2")
    kept = sum(len(text) for known in vocabulary._known.values() for text in known.recognised)
    assert kept <= vocabulary._MOST_HELD
