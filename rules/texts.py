"""A site's own sentences in place of the shipped ones: read from TOML, refused where a placeholder would be lost.

    [fr]
    infection = "Fièvre : PNN le jour même, appeler le 15 si le patient va mal."
    [fr.actions.DO_NOT_INITIATE]
    do = "Ne pas instaurer ; appeler le pharmacien."

Keys are those of ``rules.words`` and the verbs of ``rules.actions``; ``listed`` gives them all. What is not named stays as
it was shipped. A date cannot drop out of a sentence, and a sentence cannot be emptied.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rules.actions import ACTIONS, Wording
from rules.wording import WORDS, Words

__all__ = ["SHIPPED", "TextsError", "Wordings", "listed", "parse"]

_FIXED = frozenset({"decimal_mark", "date_format", "moment_format", "anc", "v2_count"})
"""Not sentences: how numbers and days are written is the language's, not the site's, and a code has its own name."""


class TextsError(Exception):
    """A file of texts cannot be used; each of ``problems`` names its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Wordings:
    """The sentences by language, and the verbs' by action and language."""

    words: Mapping[str, Words]
    actions: Mapping[str, Mapping[str, Wording]]


SHIPPED = Wordings(WORDS, ACTIONS)


def parse(text: str) -> Wordings:
    """The shipped wordings with the site's in their places. Raises TextsError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TextsError([str(error)]) from error
    words = dict(WORDS)
    actions = {name: dict(by_language) for name, by_language in ACTIONS.items()}
    problems: list[str] = []
    for language, table in document.items():
        if language not in WORDS or not isinstance(table, dict):
            problems.append(f"{language}: not a language of the alerts{_nearest(language, WORDS)}")
            continue
        own = dict(table)
        for name, wording in _tables(own.pop("actions", {}), f"{language}.actions", ACTIONS, problems):
            place = f"{language}.actions.{name}"
            changed = _changed(dataclasses.asdict(ACTIONS[name][language]), wording, place, problems)
            actions[name][language] = Wording(**changed)
        shipped = {name: value for name, value in dataclasses.asdict(WORDS[language]).items() if name not in _FIXED}
        words[language] = dataclasses.replace(WORDS[language], **_changed(shipped, own, language, problems))
    if problems:
        raise TextsError(problems)
    return Wordings(words, actions)


def listed(wordings: Wordings, languages: Iterable[str]) -> str:
    """Every text that a site may replace, as the file that says them: ``parse`` of it gives the same wordings."""
    lines: list[str] = []
    for language in languages:
        texts = {
            name: text for name, text in dataclasses.asdict(wordings.words[language]).items() if name not in _FIXED
        }
        lines += _section(language, {name: text for name, text in texts.items() if isinstance(text, str)})
        for name, table in texts.items():
            if isinstance(table, dict):
                lines += _section(f"{language}.{name}", table)
        for action, by_language in wordings.actions.items():
            lines += _section(f"{language}.actions.{action}", dataclasses.asdict(by_language[language]))
    return "\n".join(lines)


def _section(name: str, texts: Mapping[str, str]) -> list[str]:
    # What JSON writes as a string TOML reads as one.
    return [f"[{name}]", *(f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in texts.items()), ""]


def _changed(shipped: dict[str, Any], own: Mapping[str, Any], place: str, problems: list[str]) -> dict[str, Any]:
    """``shipped`` with the entries of ``own``, each held against the one whose place it takes."""
    changed = dict(shipped)
    for name, value in own.items():
        here = f"{place}.{name}"
        if name not in shipped:
            problems.append(f"{here}: no such text{_nearest(name, shipped)}")
        elif isinstance(shipped[name], dict):
            if isinstance(value, dict):
                changed[name] = _changed(shipped[name], value, here, problems)
            else:
                problems.append(f"{here}: a table of texts is wanted")
        elif not isinstance(value, str) or not value.strip():
            problems.append(f"{here}: a text is wanted that says something")
        else:
            problems += (f"{here}: {problem}" for problem in _placeholders(shipped[name], value))
            if "title" in here and "\n" in value:
                problems.append(f"{here}: a title is one line")
            changed[name] = value
    return changed


def _placeholders(shipped: str, own: str) -> Iterator[str]:
    try:
        wanted, found = _names(shipped), _names(own)
    except ValueError as error:
        yield f"cannot be filled in ({error})"
        return
    for name in sorted(wanted - found):
        yield f"{{{name}}} is missing: the alert would not say it"
    for name in sorted(found - wanted):
        yield f"{{{name}}} is not known here"


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def _tables(
    value: Any, place: str, known: Iterable[str], problems: list[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, dict):
        problems.append(f"{place}: a table is wanted")
        return
    for name, table in value.items():
        if name not in known:
            problems.append(f"{place}.{name}: no such action{_nearest(name, known)}")
        elif not isinstance(table, dict):
            problems.append(f"{place}.{name}: a table with title and do is wanted")
        else:
            yield name, table


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
