"""What the operators' forms share: who acts, which numbers they name, and how a refusal is worded."""

from __future__ import annotations

from starlette.datastructures import FormData

from console.port import RefusedInput, Visitor

__all__ = ["acting", "number_of", "problem_of", "problem_word"]

_PROBLEMS = (
    *("body-gone", "by-missing", "by-too-long", "nothing-chosen", "refused"),
    *("changed-meanwhile", "several-messages", "reason-missing", "reason-too-long"),
)


def acting(who: Visitor, form: FormData) -> str:
    """The account, or without accounts the name in the form."""
    given = form.get("by", "")
    return who.name or (given.strip() if isinstance(given, str) else "")


def number_of(text: str) -> int | None:
    """A message's or delivery's number as it stands in an address; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def problem_of(refused: RefusedInput) -> str:
    return problem_word(f"{refused.field}-{refused.code}" if refused.field else refused.code)


def problem_word(code: str) -> str:
    """The word's key for a refusal, "" for none; what is not known by name is said in general."""
    return code if code in _PROBLEMS else "refused" if code else ""
