"""``neutroflag assess`` and ``neutroflag rules``: plain functions over text streams, for the command line to call.

Exit codes: 0 ok, 1 failure, 2 usage.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any, TextIO

from rules.cases import CaseError, case_verdict, read_cases
from rules.explain import plain
from rules.packaged import check_together, find_protocol, packaged
from rules.page import LANGUAGES, page
from rules.protocol import MonitoringProtocol, ProtocolError, Range
from rules.protocol_file import parse

__all__ = ["assess_command", "rules_check", "rules_list", "rules_prove", "rules_show"]


def assess_command(path: Path, stdout: TextIO, stderr: TextIO) -> int:
    """One verdict a line for each case of ``path``; a case that cannot be read or judged is named on stderr (exit 1)."""
    try:
        cases = read_cases(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        stderr.write(f"{path}: {error}\n")
        return 2
    except CaseError as error:
        stderr.write(f"{path}: {error.reason}\n")
        return 2
    failed = False
    for case in cases:
        try:
            if isinstance(case, CaseError):
                raise case
            line = case_verdict(find_protocol(case.protocol), case)
        except CaseError as error:
            stderr.write(f"{error}\n")
            line = {"id": error.case, "error": f"{error.field}: {error.reason}", "code": "case-unreadable"}
        except ProtocolError as error:
            assert not isinstance(case, CaseError)  # noqa: S101 - raised above
            stderr.write(f"case {case.id}: protocol: {error}\n")
            line = {"id": case.id, "error": str(error), "code": "protocol-unknown"}
        failed = failed or "error" in line
        stdout.write(jsonlib.dumps(line, ensure_ascii=False) + "\n")
    return 1 if failed else 0


def rules_list(stdout: TextIO, stderr: TextIO, *, json: bool = False) -> int:
    """The packaged protocols, one a line."""
    try:
        known = packaged()
    except ProtocolError as error:
        stderr.write(f"{error}\n")
        return 1
    for found in known:
        if json:
            stdout.write(jsonlib.dumps(_summary(found), ensure_ascii=False) + "\n")
        else:
            stdout.write(
                f"{found.name}  {found.title}  from {found.effective_from}, reviewed {found.last_reviewed}"
                f"  ({', '.join(found.aliases)}){'' if found.selectable else '  reference only, for no live course'}\n"
            )
    return 0


def rules_show(name: str, stdout: TextIO, stderr: TextIO, *, json: bool = False, language: str = "en") -> int:
    """A protocol as a clinician would read it, in French or English."""
    if language not in LANGUAGES:
        stderr.write(f"language: none of {', '.join(LANGUAGES)}: {language!r}\n")
        return 2
    try:
        found = find_protocol(name)
    except ProtocolError as error:
        stderr.write(f"{error}\n")
        return 2
    stdout.write(jsonlib.dumps(_full(found), ensure_ascii=False) + "\n" if json else page(found, language))
    return 0


def rules_check(stdout: TextIO, stderr: TextIO, *, paths: tuple[Path, ...] = (), json: bool = False) -> int:
    """Load every packaged protocol, and those of ``paths`` beside them; 1 when one must not be used."""
    try:
        known = list(packaged())
        for path in paths:
            known.append(parse(path.read_text(encoding="utf-8")))
        checked = check_together(known)
    except ProtocolError as error:
        stderr.write(f"{error}\n")
        if json:
            stdout.write(jsonlib.dumps({"ok": False, "entry": error.entry, "reason": error.reason}) + "\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        stderr.write(f"{error}\n")
        return 2
    for found in checked:
        stdout.write(jsonlib.dumps({"ok": True, **_summary(found)}) + "\n" if json else f"ok  {found.name}\n")
    return 0


def rules_prove(stdout: TextIO, stderr: TextIO, *, paths: tuple[Path, ...] = (), json: bool = False) -> int:
    """Prove of every packaged protocol, and of those of ``paths``, what it declares; 1 when something does not hold."""
    try:
        from engine.prove import prove
    except ImportError:
        stderr.write("proving needs the extra [proof]: pip install 'neutroflag[proof]'\n")
        return 2
    try:
        known = [*packaged(), *(parse(path.read_text(encoding="utf-8")) for path in paths)]
    except ProtocolError as error:
        stderr.write(f"{error}\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        stderr.write(f"{error}\n")
        return 2
    failed = False
    for protocol in known:
        for proof in prove(protocol):
            failed = failed or not proof.holds
            if json:
                line = {"protocol": proof.protocol, "property": proof.name, "holds": proof.holds}
                stdout.write(jsonlib.dumps({**line, "counterexample": proof.counterexample or None}) + "\n")
            else:
                word = "proved" if proof.holds else "BROKEN"
                stdout.write(f"{word}  {proof.protocol}  {proof.name}  {proof.counterexample}".rstrip() + "\n")
    return 1 if failed else 0


def _summary(found: MonitoringProtocol) -> dict[str, Any]:
    return {
        "protocol": found.name,
        "title": found.title,
        "aliases": list(found.aliases),
        "selectable": found.selectable,
        "effective_from": found.effective_from.isoformat(),
        "effective_until": found.effective_until.isoformat() if found.effective_until else None,
        "last_reviewed": found.last_reviewed.isoformat(),
    }


def _full(found: MonitoringProtocol) -> dict[str, Any]:
    return {
        **_summary(found),
        "ranges": [
            {"id": r.id, "population": r.population.value, "band": _band(r), "action": r.action, "alert": r.alert.value}
            for r in found.ranges
        ],
        "initiation": [
            {"population": i.population.value, "at_least_per_mm3": plain(i.at_least)} for i in found.initiations
        ],
        "phases": [{"id": p.id, "since": str(p.since), "interval": str(p.interval)} for p in found.phases],
        "interruptions": [{"id": i.id, "rule": i.grounds.rule, "action": i.action} for i in found.interruptions],
        "readings": [{"id": r.id, "question": r.question, "choice": r.choice, "why": r.why} for r in found.readings],
        "not_encoded": [{"what": n.what, "why": n.why} for n in found.not_encoded],
        "sources": [
            {"key": s.key, "title": s.title, "publisher": s.publisher, "date": s.date.isoformat(), "url": s.url}
            for s in found.sources
        ],
    }


def _band(found: Range) -> str:
    low = f"{'>=' if found.low_closed else '>'} {plain(found.low)}"
    return low if found.high is None else f"{low} and {'<=' if found.high_closed else '<'} {plain(found.high)}"
