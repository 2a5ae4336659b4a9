"""Writes docs/reading.md from the tables that reading uses: ``python -m ingest.reading.page > docs/reading.md``."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator

from ingest.reading import cdaparts, codes, fhirparts, units, v2fields
from ingest.reading.codes import Claim, Coding
from ingest.reading.recognition import recognise
from ingest.reading.site import SETTLED

__all__ = ["page"]

_DOUBTS = {
    "analyser-suspect": "`A` beside a direction in OBX-8 (`L~A`), or both interpretation codes in FHIR and CDA",
    "code-conflict": "two codes of one observation disagree: a count and a percentage",
    "code-name-conflict": "the code and the name speak of different cells, or of a count and a percentage",
    "code-system-conflict": "a code declared as LOINC that has not its shape",
    "code-unit-conflict": "a percentage code with a unit of counts, or the reverse",
    "code-unknown": "a LOINC code that no table here knows, under a name of neutrophils; a local one that resembles theirs",
    "collection-time-missing": "OBX-14, OBR-7, SPM-17, effective[x] and effectiveTime are all empty",
    "collection-time-unreadable": "a time that is none, or not stated to the day",
    "counts-differ": "one measurement told twice in one message, with two values and one status",
    "derived-disagrees": "the reported count and leukocytes times percentage differ by more than rounding",
    "exceeds-leukocytes": "more neutrophils than leukocytes",
    "identity-conflict": "the document and the message carry two numbers of one authority",
    "identity-doubtful": "PID-32 or FHIR says DOUT, DOUA, DPOT, COLP, COLV, USUR or FICT; or the OID of an INS is all",
    "leukocytes-differ": "several leukocyte counts of one specimen; the lowest is taken",
    "modifier-extension": "a FHIR modifierExtension that is not understood",
    "patient-missing": "no usable identifier",
    "reported-count-unreadable": "a count stands there and could not be read; another row of it or a derived one is",
    "reported-count-withdrawn": "the reported count was taken back; the derived one is shown",
    "specimen-aggregates": "a note says that the cells stuck together",
    "specimen-ambiguous": "two kinds of specimen are named",
    "row-without-code": "a number without any code stands among the rows of the order",
    "status-conflict": "OBR-25, ORC-1, the battery or the report say another thing than the observation",
    "status-missing": "no status",
    "status-preliminary": "preliminary, unverified, partial or pending",
    "status-unknown": "a status that no table knows",
    "strict-violation": "the sender is held to the standard, and its libraries refuse the message",
    "test-identity": "a test or demonstration INS in a production message",
    "test-message": "MSH-11, H.12 or the FHIR tag says test or training",
    "time-ambiguous": "an hour that the clocks repeat or skip",
    "unit-suspect": "a fraction of a cell per mm3: the unit is probably another",
    "value-absent": "a value beside the reason for there being none",
}
_PROBLEMS = {
    "code-missing": "a number without a code in a blood count of which no neutrophils were read",
    "document-not-read": "a laboratory report only as a PDF or another document",
    "document-undecodable": "an enclosed laboratory report whose encoding is broken",
    "dtd-refused": "XML with a document type declaration; never expanded",
    "duplicate-key": "a JSON object names one member twice",
    "magnitude-impossible": "more than 100 000 neutrophils or 1 000 000 leukocytes per mm3, or a percentage over 100",
    "narrative-only": "a blood count (CDA, OBX of text, note, FHIR conclusion) whose count stands in words alone",
    "notification-empty": "a Subscription's event without the Observation or report that it is about",
    "percent-without-leukocytes": "a percentage, and no leukocyte count of the same specimen",
    "report-withdrawn": "a FHIR report of a blood count is taken back without its results",
    "segment-joined": "a count inside another segment, or in none: a line end was lost on the way, or one too many came",
    "specimen-clotted": "SPM-24, a FHIR condition, a note or the value itself says so",
    "specimen-conflict": "a code for blood on another specimen",
    "specimen-haemolysed": "SPM-24 or a FHIR condition says so",
    "specimen-rejected": "SPM-21, or a Specimen that is unsatisfactory",
    "structure": "a resource of the wrong shape that speaks of neutrophils",
    "unit-conflict": "two units are named and differ",
    "unit-missing": "no unit, no number",
    "unit-range-conflict": "the reference range belongs to no human blood in this unit",
    "unit-unknown": "a unit that is not in the table below",
    "value-absent": "dataAbsentReason or a null flavour in place of a value",
    "value-ambiguous": "`1,250` or `1.250 /mm3`: decimals or thousands? (a site profile settles it)",
    "value-coded": "a coded value in place of a number",
    "value-comparator": "a comparator that is unknown or given twice, or two bounds that give no count",
    "value-missing": "nothing in place of a value",
    "value-negative": "a negative count",
    "value-not-a-number": "text in place of a number, or beside it",
    "value-not-resent": "OBX-11 U or V without a value: the engine confirms the value that stands",
    "value-out-of-bounds": "more digits or a larger exponent than a laboratory writes",
    "value-range": "a range or a ratio",
    "value-repeated": "several values that differ",
    "value-truncated": "the truncation mark of MSH-2 at the end of OBX-5",
    "value-two-numbers": "two numbers in one value: never the first of them",
    "value-type": "a value type that holds no count",
}
_ASIDE = {
    "batch-count": "not set aside: BTS-1 or FTS-1 disagree with what was found, told beside the last message",
    "file-truncated": "an HPRIM file without its L line",
    "message-type-missing": "MSH-9 is empty",
    "msh-missing": "no readable MSH",
    "not-a-message": "none of the formats",
    "not-fhir": "JSON that is no FHIR resource",
    "not-json": "broken JSON",
    "separators": "MSH-1 and MSH-2 are not distinct",
    "too-large": "beyond 64 MB, 20 000 entries or four bundles deep",
    "xml-malformed": "XML that is not well-formed",
    "xml-not-read": "FHIR XML, HL7 v2 XML and other XML that is no ClinicalDocument",
}
_NAMES = (
    "Neutrophils", "Neutrophils, Abs", "Absolute Neutrophil Count", "Neutro Auto", "Seg Neutrophils",
    "Polynucléaires neutrophiles", "POLY NEUTROPHILES", "PNN", "Neutrophile Granulozyten", "Neutrofile granulocytter",
    "Nøytrofile", "Neutrofiler", "Neutrofielen", "Neutrofili", "Neutrófilos", "Neutrofiilit", "Neutrofily",
    "Nötrofil", "Granulocyty obojętnochłonne", "Нейтрофилы", "Ουδετερόφιλα", "中性粒细胞", "好中球",
    "Neutrophils %", "Neutrophils/100 leukocytes", "Granulocytes", "Neutrophils CSF", "Neutrophilic comment",
    "ANCA (anti-neutrophil cytoplasmic antibody)", "Neutrophil/Lymphocyte ratio", "PNN (résultat antérieur)",
    "Immature granulocytes", "Leucocytes", "White cell count", "Leukozyten", "Globules blancs",
)  # fmt: skip


def page() -> str:
    """The page, in Markdown."""
    parts = [*_head(), *_measured(), *_names(), *_units(), *_statuses(), *_outcomes(), *_site()]
    return "\n".join(parts) + "\n"


def _head() -> Iterator[str]:
    yield "# What is read, and what becomes of it"
    yield ""
    yield "<!-- Written by `python -m ingest.reading.page`; a test holds it to the code. Do not edit. -->"
    yield ""
    yield "Formats: HL7 v2 (2.1 to 2.8, single, batches, files), FHIR JSON (STU3 to R5 where unambiguous), CDA R2 laboratory"
    yield "reports (posted, filed, in an OBX, in a FHIR attachment), HPRIM Santé 2.x. Every OBX or Observation ends in one"
    yield "outcome: `result`, `provisional`, `not_relevant` or `unassessable`, with its reason, in the ledger of its message."


def _measured() -> Iterator[str]:
    yield "\n## Codes\n\nLOINC and NPU, in either triplet and under any system name.\n\n| measures | codes |\n|---|---|"
    by_claim: dict[Claim, list[str]] = defaultdict(list)
    for code, claim in codes.CODES.items():
        by_claim[claim].append(code)
    for claim, found in by_claim.items():
        yield f"| {_words(claim)} | {', '.join(found)} |"
    yield "\nLocal codes, where no name contradicts them:\n\n| measures | codes |\n|---|---|"
    by_local: dict[Claim, list[str]] = defaultdict(list)
    for code, claim in codes.LOCAL.items():
        by_local[claim].append(f"`{code}`")
    for claim, found in by_local.items():
        yield f"| {_words(claim)} | {', '.join(found)} |"


def _words(claim: Claim) -> str:
    analyte = {"wbc": "leukocytes", "other": "none of ours"}.get(claim.analyte, claim.analyte)
    return f"{analyte}, {claim.dimension}" if claim.dimension and claim.analyte != "other" else analyte


def _names() -> Iterator[str]:
    yield "\n## Names\n\nNames are matched by pattern, without accents and case. Examples, as the code answers them:\n"
    yield "| name | read as |\n|---|---|"
    for name in _NAMES:
        found = recognise((Coding("", name, ""),))
        read = _words(found.claim) if found.claim else f"not relevant: {found.reason}"
        yield f"| {name} | {read}{' of another specimen: not relevant' if found.fluid else ''} |"


def _units() -> Iterator[str]:
    yield "\n## Units\n\nA closed table; what is not in it is a question for a person. Case does not matter but for `G/L`:"
    yield "`g/L` is grams. `10e9/L` is 10^9, never computed. A caret that was not escaped is joined again.\n"
    yield "| per mm3 | spellings |\n|---|---|"
    by_unit: dict[units.Unit, list[str]] = defaultdict(list)
    for spelling, unit in {**units.EXACT, **units.BRACED, **units.spellings()}.items():
        by_unit[unit].append(f"`{spelling}`")
    for unit, found in sorted(by_unit.items(), key=lambda item: (item[0].kind, -item[0].factor)):
        meaning = f"x {unit.factor:f}" if unit.kind == "count" else unit.kind
        shown = sorted(found, key=len)[:40]
        more = f" and {len(found) - len(shown)} more of the same parts" if len(found) > len(shown) else ""
        yield f"| {meaning} | {' '.join(shown)}{more} |"


def _statuses() -> Iterator[str]:
    yield "\n## Statuses\n\n`I`, `N` and `O` without a value are not relevant; an explicit null in OBX-5 withdraws."
    yield "Without a status: preliminary.\n"
    for title, table in (
        ("OBX-11", v2fields.STATUS),
        ("FHIR Observation.status", fhirparts.STATUS),
        ("CDA statusCode", cdaparts.STATUS),
    ):
        yield f"| {title} | becomes |\n|---|---|"
        for given, status in table.items():
            yield f"| {given} | {status.value} |"
        yield ""


def _outcomes() -> Iterator[str]:
    for title, words, table in (
        ("Doubts", "A count with a doubt is provisional: it may alarm, and reassures nobody.", _DOUBTS),
        ("Unassessable", "A neutrophil measurement that is recognisably there and could not be read.", _PROBLEMS),
        ("Set aside", "What is not readable as a message.", _ASIDE),
    ):
        yield f"\n## {title}\n\n{words}\n\n| code | when |\n|---|---|"
        for code, when in table.items():
            yield f"| `{code}` | {when} |"
    yield "\nNot relevant: granulocytes, body fluids, quality control (MSH-11 Q), prior results (ORC-1 PR, `REFR`, by name),"
    yield "bands alone, antibodies and remarks, orders, queries, and ADT but for A40. An A31 moves no count: of somebody"
    yield "known it updates names, birth date, sex and identifiers; a death is asked of a person, and silences nothing."


def _site() -> Iterator[str]:
    yield "\n## A sender's profile"
    yield """
`neutroflag site suggest FILES` drafts one from samples, each guess behind a `#`; `neutroflag read --site FILE` tries it;
`[sites] files = [...]` in the settings gives it to the engine, for the sender that it names.

```toml
sender = "SIL|LABO"               # MSH-3|MSH-4; FHIR: MessageHeader.source; HPRIM: H.5
confirmed_by = "Dr A. Hoda"       # needed as soon as a reading changes
confirmed_on = 2026-11-22
zone = "Europe/Paris"             # for times without an offset
charset = "8859/15"               # where MSH-18 is empty
decimal = ","                     # how 1,250 is meant
default_status = "final"          # for observations without a status
strict = false                    # true: hl7apy and fhir.resources must agree, or the counts are provisional
[codes]                           # neutrophils|segs|bands|leukocytes|ignore, then count|percent|fraction
"770-8" = "neutrophils count"
"PNNX" = { measures = "neutrophils", dimension = "count", unit = "10*9/L" }   # unit: where none is sent
[units]
"g/L" = "10*9/L"
[authorities]
"CHX" = "urn:oid:1.2.250.1.999.3" # "" stands for an identifier without an authority
[trust]"""
    yield f"settled = {sorted(SETTLED)}".replace("'", '"')
    yield "```"


if __name__ == "__main__":
    sys.stdout.write(page())
