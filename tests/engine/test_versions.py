"""One measurement told again and again: every version is on file, one of them stands, and a re-sent one is no new version."""

from __future__ import annotations

import json
from typing import Any


def versions(running: Any) -> Any:
    """``(version, cells per mm3, status, stands)`` of everything on file."""

    def look(connection: Any) -> list[tuple[int, str, str, bool]]:
        rows = connection.exec_driver_sql("SELECT version, body, current FROM result ORDER BY key, version").fetchall()
        found = []
        for version, text, current in rows:
            body = json.loads(text)
            found.append((version, body["anc"]["per_mm3"] if body["anc"] else "", body["status"], bool(current)))
        return found

    return running.store.read(look)


async def test_every_version_is_kept_and_the_last_word_stands(running: Any, hl7: Any, before: Any) -> None:
    told = [("P", "0.90", 9), ("F", "0.95", 8), ("F", "0.95", 7), ("C", "1.85", 6), ("P", "0.90", 9), ("W", "1.85", 5)]
    await running.tell(
        *(
            hl7.oru(
                f"M{n}", anc=anc, filler="B1", status=status, collected=before(hours=10), issued=before(hours=hours)
            )
            for n, (status, anc, hours) in enumerate(told)
        )
    )
    assert sorted(await versions(running)) == [
        (1, "900.00", "preliminary", False),
        (2, "950.00", "final", False),
        (3, "1850.00", "corrected", False),
        (3, "900.00", "preliminary", False),  # came late: beside the one that stood
        (4, "", "entered-in-error", True),
    ]
    assert await running.dispositions() == ["judged"] * len(told)
