"""Several counts of one day: the lowest decides, and the alert shows the one that decided (A-23)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

_NOON = datetime.now(ZoneInfo("Europe/Paris")).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


@pytest.mark.parametrize(("first", "second"), [("0.90", "2.70"), ("2.70", "0.90"), ("1.40", "2.70")])
async def test_an_alert_is_titled_with_the_count_it_stands_on(running: Any, hl7: Any, first: str, second: str) -> None:
    await running.tell(
        hl7.oru("M1", anc=first, filler="A1", collected=_NOON),
        hl7.oru("M2", anc=second, filler="A2", collected=_NOON + timedelta(hours=2)),
    )
    await running.settled()
    lowest, other = (f"{count.replace('.', ',').rstrip('0')} G/L" for count in sorted((first, second)))
    flags = [flag for flag in running.prescriber.flags() if flag["status"] == "active"]
    assert flags
    for flag in flags:
        assert lowest in flag["code"]["text"]
        assert other not in flag["code"]["text"]
