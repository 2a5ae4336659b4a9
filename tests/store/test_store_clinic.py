"""What the day's list takes from the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rules.alerts import review_alert
from rules.model import Alert, AlertFamily, AlertKind, AlertLevel, Subject
from rules.silence import FEED_SILENT
from store import Store, clinic
from store.port import AlertRecord, Work

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def alert(reason: str, key: str) -> AlertRecord:
    draft = review_alert("unit-missing", "OBX[2]-6", register_id="", key=key, language="fr")
    return AlertRecord(
        alert=Alert(
            id=draft.id,
            revision=1,
            kind=AlertKind.RAISED,
            family=AlertFamily.REVIEW,
            level=AlertLevel.AMBER,
            title=draft.title,
            text=draft.text,
            subject=Subject(register_id=""),
            raised_at=NOON,
            updated_at=NOON,
            reason=reason,
        ),
        patient_id=None,
        result_key=key,
    )


async def test_a_quiet_connection_is_not_listed_among_unreadable_results(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'n.db'}")
    await store.open()
    try:
        await store.record(Work(alerts=[alert("unit-missing", "a"), alert(FEED_SILENT, "b")]))
        rows = await store.read(lambda connection: clinic.unreadable(connection, 10))
    finally:
        await store.close()
    assert [row.alert.reason for row in rows] == ["unit-missing"]
