"""SMART on FHIR system scopes (App Launch 2.2, and 1.0's read and write): what a token's bearer may send.

Rule of the file: what is not understood grants nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scopes", "scopes_of"]

# system/Observation.cud, system/*.write. With a search behind it (``?category=...``) a scope holds for some resources of
# its type only; which, we could not tell without reading them, so that it grants nothing here.
_SCOPE = re.compile(r"system/(\*|[A-Z][A-Za-z]+)\.(c?r?u?d?s?|read|write|\*)")
_WORDS = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, slots=True)
class Scopes:
    """``granted``: pairs of a resource type, or ``*``, and one letter of ``cruds``."""

    granted: frozenset[tuple[str, str]]

    def lacking(self, needs: Iterable[tuple[str, str]]) -> list[str]:
        """The scopes that would have been needed as well, as a challenge names them.

        >>> scopes_of("system/Observation.write system/Patient.rs").lacking([("Observation", "c"), ("Patient", "c")])
        ['system/Patient.c']
        """
        return sorted(
            {
                f"system/{kind}.{letter}"
                for kind, letter in needs
                if (kind, letter) not in self.granted and ("*", letter) not in self.granted
            }
        )

    @property
    def writes(self) -> bool:
        return any(letter in "cu" for _, letter in self.granted)


def scopes_of(text: str) -> Scopes:
    found = (_SCOPE.fullmatch(part) for part in text.split())
    return Scopes(
        frozenset((match[1], letter) for match in found if match for letter in _WORDS.get(match[2], match[2]))
    )
