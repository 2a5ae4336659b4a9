"""Our outgoing shapes, judged by libraries that are not ours: at ``config check``, at start-up and in tests.

Both judges answer with a list of complaints, empty when there is none. They are slow, and imported only here.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from emitters.fhir_answers import read_json

__all__ = ["judge_fhir", "judge_v2"]

# Tables that sites and nations extend (INS, IPP, LOINC, our own codes ...): a value outside is expected there.
_USER_TABLES: Final = re.compile(
    r"Value .* not in table HL7(0004|0076|0203|0211|0301|0363|0396|0399|0354|0361|0362|0300|0001|0200|0449)\b"
    # hl7apy's table of value types for 2.6 still has the CE that 2.6 withdrew, and not the CWE that took its place.
    r"|Value CWE not in table HL70125\b"
)


def judge_fhir(bundle: bytes) -> list[str]:
    """Every resource of the transaction against the R4B models of ``fhir.resources``; they do not check bindings."""
    import importlib

    from pydantic import ValidationError

    document = read_json(bundle)
    if document is None:
        return ["not a JSON object"]
    complaints = []
    resources = [("Bundle", document)]
    for number, entry in enumerate(document.get("entry", ())):
        resources.append((f"Bundle.entry[{number}]", entry.get("resource", {})))
    for place, resource in resources:
        kind = resource.get("resourceType", "")
        if re.fullmatch(r"[A-Z][A-Za-z]{1,40}", kind) is None:
            complaints.append(f"{place}: no resourceType")
            continue
        try:
            model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
        except (ImportError, AttributeError):
            complaints.append(f"{place}: {kind} is not an R4B resource")
            continue
        try:
            model.model_validate(resource)
        except ValidationError as error:
            complaints += [f"{place} {kind}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return complaints


def judge_v2(message: bytes) -> list[str]:
    """The message by hl7apy at STRICT level; only values outside of user-defined tables are let pass."""
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message
    from hl7apy.validation import Validator

    from wire.er7 import decode, peek

    header = peek(message)
    if header is None:
        return ["no readable MSH"]
    text, _ = decode(message, header.charset)
    try:
        parsed = parse_message(text.removesuffix("\r"), validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    except HL7apyException as error:
        return [f"hl7apy could not read it: {type(error).__name__}: {error}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.txt"
        try:
            Validator.validate(parsed, report_file=str(report))
        except HL7apyException as error:
            return [str(error)]
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return [line for line in lines if line.strip() and not _USER_TABLES.search(line)]
