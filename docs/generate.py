"""Writes the pages that come from the protocols, the cases and the hazards: ``make pages``. A test keeps them current.

``pages()`` gives path -> text; run as a script it writes them.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from rules import MonitoringProtocol, packaged  # noqa: E402 - the path above
from rules.page import LANGUAGES, page, readings_in  # noqa: E402
from rules.trace import used_by  # noqa: E402

_MADE = "<!-- Written by docs/generate.py (make pages). Do not edit. -->\n\n"


def pages() -> dict[Path, str]:
    """Every generated page, by its path from the root."""
    hazards = _load("docs/safety/hazards.toml")["hazard"]
    sides = _load("tests/rules/sides.toml")
    found: dict[Path, str] = {}
    for protocol in packaged():
        for language in LANGUAGES:
            name = Path("docs/protocols") / f"{protocol.id}-{protocol.version}.{language}.md"
            found[name] = _MADE + page(protocol, language)
    found[Path("docs/safety/hazards.md")] = _MADE + "\n".join(_hazards(hazards)) + "\n"
    found[Path("docs/safety/traceability.md")] = _MADE + "\n".join(_traceability(sides, hazards)) + "\n"
    found[Path("docs/safety/readings.md")] = _MADE + "\n".join(_readings()) + "\n"
    return found


def _load(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(*head: str) -> list[str]:
    return ["", _row(*head), _row(*("---" for _ in head))]


def _hazards(hazards: list[dict[str, Any]]) -> Iterator[str]:
    yield "# Hazard log"
    yield ""
    yield (
        "Severity 1 negligible to 5 death; probability before controls 1 rare to 5 expected. The risk that remains is for "
        "the hospital and a notified body to accept, not for this table."
    )
    yield from _table("id", "hazard", "how", "harm", "sev.", "prob.", "controls", "rules", "shown by")
    for one in hazards:
        yield _row(
            one["id"],
            one["hazard"],
            one["sequence"],
            one["harm"],
            one["severity"],
            one["probability"],
            one["controls"],
            ", ".join(one["rules"]) or "-",
            "<br>".join(f"`{test}`" for test in one["tests"]),
        )


def _traceability(sides: dict[str, Any], hazards: list[dict[str, Any]]) -> Iterator[str]:
    yield "# Traceability"
    yield ""
    yield (
        "From the source's sentence to the rule, to the entry of the protocol file, to the cases on both sides of its "
        "boundary (ids of `tests/rules/cases-*.json`; or tests by name), to the hazards it controls."
    )
    for protocol in packaged():
        yield ""
        yield f"## {protocol.name}"
        yield from _table("sentence", "rule", "entries", "readings", "inside", "outside", "hazards")
        rules: dict[str, tuple[list[str], list[str], list[str]]] = {}
        for used in used_by(protocol):
            sentences, entries, readings = rules.setdefault(used.grounds.rule, ([], [], []))
            sentences.append(f"« {used.grounds.cite.quote} » ({used.grounds.cite.source}, {used.grounds.cite.locator})")
            entries.append(used.entry)
            readings += used.grounds.readings
        for rule, (sentences, entries, readings) in rules.items():
            inside, outside = _sides(sides[protocol.name][rule])
            yield _row(
                "<br>".join(dict.fromkeys(sentences)),
                rule,
                "<br>".join(dict.fromkeys(entries)),
                ", ".join(dict.fromkeys(readings)) or "-",
                inside,
                outside,
                _controlled(rule, hazards),
            )
        yield from _table("reading", "what it decides", "rules that name it", "inside", "outside", "hazards")
        for reading in protocol.readings:
            naming = [used.grounds.rule for used in used_by(protocol) if reading.id in used.grounds.readings]
            inside, outside = _sides(sides[protocol.name][reading.id])
            yield _row(
                reading.id,
                reading.question,
                ", ".join(dict.fromkeys(naming)) or "the evaluation",
                inside,
                outside,
                _controlled(reading.id, hazards),
            )


def _sides(entry: dict[str, Any]) -> tuple[str, str]:
    if "tests" in entry:
        return "<br>".join(f"`{test}`" for test in entry["tests"]), "same"
    return f"`{entry['inside']}`", f"`{entry['outside']}`"


def _controlled(name: str, hazards: list[dict[str, Any]]) -> str:
    return ", ".join(one["id"] for one in hazards if name in one["rules"]) or "-"


def _readings() -> Iterator[str]:
    live = [protocol for protocol in packaged() if protocol.selectable]
    yield "# Lectures à signer / Readings to sign"
    yield ""
    yield (
        "Chaque ligne est un choix de cet outil, là où la source laisse une question ouverte. Avant tout usage, un clinicien "
        "la compare au texte complet de la lettre aux professionnels du 8 septembre 2025 et au RCP modifié, puis signe."
    )
    yield ""
    yield (
        "Each line is a choice of this tool where the source leaves a question open. Before any use a clinician compares it "
        "with the full letter of 8 September 2025 and the amended product information, and signs. English: "
        "`neutroflag rules show ansm --language en`."
    )
    for protocol in live:
        yield ""
        yield f"## {protocol.name}"
        yield from _signing(protocol)


def _signing(protocol: MonitoringProtocol) -> Iterator[str]:
    yield from _table("", "question", "choix", "pourquoi", "nom, date, signature")
    for one in readings_in(protocol, "fr"):
        choice = one.choice if isinstance(one.choice, str) else ("oui" if one.choice else "non")
        where = f" (réglage `{one.key}`)" if one.key else ""
        yield _row(one.id, one.question, choice + where, one.why, "")


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)
