"""A stored message that cannot be opened again is set aside and is somebody's task; it is never judged as an empty one."""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.back import Back
from engine.cli_db import db_verify_command
from engine.cli_state import messages_show_command
from engine.config import load
from engine.observe import Meters
from ingest import envelope
from store import Store, seal
from store.tables import body


def said(command: Callable[..., int], *arguments: Any) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    return command(*arguments, stdout=out, stderr=err), out.getvalue() + err.getvalue()


async def test_an_altered_body_and_one_of_a_strange_key_are_set_aside_and_asked_about(
    each_database: str, enrol_by_csv: Any, tmp_path: Path, hl7: Any, eventually: Any
) -> None:
    keys, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    keys.write_text(f"k1 {base64.b64encode(secrets.token_bytes(32)).decode()}\n", encoding="ascii")
    config.write_text(
        f'[store]\nurl = "{each_database}"\nkey_file = "{keys}"\n[watch]\nevery_s = 3600\n', encoding="utf-8"
    )
    await enrol_by_csv(tmp_path, each_database, "405660")
    settings = load(config, {})
    seal.use(each_database, seal.ring_of(keys.read_text()))
    store = Store(each_database)
    await store.open()
    back = Back(settings, store, Meters(), on_recorded=lambda ids: None)
    try:
        for name in ("M1", "M2", "M3"):
            raw = hl7.oru(name, anc="0.40", filler=name)
            await store.accept(envelope.hl7v2(raw, channel="mllp", peer="", now=datetime.now(UTC))[1])

        def alter(connection: Any) -> None:
            stored = bytes(connection.scalar(body.select().with_only_columns(body.c.raw).where(body.c.message_id == 1)))
            changed = stored[:-1] + bytes([stored[-1] ^ 1])
            connection.execute(body.update().where(body.c.message_id == 1).values(raw=changed))
            connection.execute(body.update().where(body.c.message_id == 2).values(key_id="stranger"))

        await store.write(alter)
        back.start()

        async def judged() -> bool:
            return (await store.snapshot()).pending == 0

        await eventually(judged, 60)

        def look(connection: Any) -> tuple[list[Any], list[Any]]:
            ends = connection.exec_driver_sql("SELECT disposition, reason FROM message ORDER BY id").fetchall()
            tasks = connection.exec_driver_sql(
                "SELECT body FROM alert WHERE family = 'ANC-REVIEW' AND state = 'open' AND patient_id IS NULL"
            ).fetchall()
            return [tuple(row) for row in ends], [json.loads(row[0]) for row in tasks]

        ends, tasks = await store.read(look)
        assert ends == [("set_aside", "body-unopenable"), ("set_aside", "body-unopenable"), ("judged", "")]
        assert [one["reason"] for one in tasks] == ["body-unopenable"] * 2
        # By what the sender's people know it by.
        assert sorted(one["source"] for one in tasks) == ["SIL|LABO M1", "SIL|LABO M2"]
    finally:
        await back.stop()
        await store.close()
    code, words = said(db_verify_command, config, "")
    assert code == 1
    assert "2 message bodies cannot be opened (key missing, or altered): 1, 2" in words
    code, words = said(messages_show_command, config, 1, False)
    assert (code, "(body-unopenable: what came cannot be read back" in words) == (0, True)
    seal.use(each_database, None)
