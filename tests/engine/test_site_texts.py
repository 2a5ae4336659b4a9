"""A site's own texts in a whole story: every sentence that reaches a prescriber is the site's, whoever is asked and whatever
becomes of the alert."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from rules.texts import SHIPPED, listed, parse

from .test_loop import ROTA, alert_of, state_is, task_of

MARK = "¤"


def _marked(table: dict[str, Any]) -> dict[str, Any]:
    return {name: _marked(one) if isinstance(one, dict) else f"{one}{MARK}" for name, one in table.items()}


def _flat(table: dict[str, Any], place: str) -> list[str]:
    lines = [f"[{place}]", *(f"{name} = '''{one}'''" for name, one in table.items() if isinstance(one, str))]
    for name, one in table.items():
        lines += _flat(one, f"{place}.{name}") if isinstance(one, dict) else []
    return lines


def marked_texts(language: str) -> str:
    return "\n".join(_flat(_marked(tomllib.loads(listed(SHIPPED, [language]))[language]), language))


async def test_every_sentence_that_goes_out_is_the_sites(
    run_engine: Any,
    enrol_by_csv: Any,
    tmp_path: Path,
    url: str,
    hl7: Any,
    prescriber: Any,
    eventually: Any,
    before: Any,
) -> None:
    texts = tmp_path / "texts.toml"
    texts.write_text(marked_texts("fr"), encoding="utf-8")
    assert parse(texts.read_text(encoding="utf-8")) != SHIPPED
    await enrol_by_csv(tmp_path, url, "405660")
    running = await run_engine(extra=f'tell_answers = true\n{ROTA}\n[locale]\ntexts = "{texts}"\n')

    async def told(control_id: str, **counted: Any) -> None:
        await running.tell(hl7.oru(control_id, **counted))
        await running.settled()

    await told("M1", anc="0.40", filler="B1", collected=before(hours=9))
    prescriber.answer(task_of(prescriber)["id"], "rejected", "Dr Hoda", reason="not my patient")
    await eventually(lambda: len(prescriber.tasks()) == 3)
    prescriber.answer(task_of(prescriber, ":ack:2")["id"], "completed", "Dr Diallo")
    await state_is(running, "open", eventually, "ANC-REVIEW")
    await told("M2", anc="0.20", filler="B2", collected=before(hours=5))
    assert (await alert_of(running, "ANC-REVIEW"))["state"] == "withdrawn"
    await told("M3", anc="2.10", filler="B2", status="C", collected=before(hours=5))
    await told("M4", anc="2.40", filler="B1", status="C", collected=before(hours=9))
    assert (await alert_of(running))["state"] == "withdrawn"
    await running.settled()

    titles = [one["code"]["text"] for one in prescriber.flags()]
    descriptions = [one["description"] for one in prescriber.tasks()]
    rows = [row.split("|") for raw in prescriber.messages().values() for row in raw.decode().split("\r")]
    shown = [row[5] for row in rows if row[0] == "OBX" and "ANC-TEXT" in row[3]]
    lines = [line for text in descriptions for line in text.split("\n")]
    # The source's own sentence, with the protocol and readings, is nobody's to reword.
    own = [line for line in lines if not line.startswith("ANSM, ")]
    assert [line for line in (*titles, *own) if MARK not in line] == []
    assert len(prescriber.tasks()) >= 5
    said = "\n".join((*lines, *shown))
    words = parse(texts.read_text(encoding="utf-8")).words["fr"]
    heads = (words.back, words.answered, words.undecided, words.corrected, words.unsure, words.copies["pharmacist"])
    for head in (*heads, words.elsewhere, words.never_alone):
        assert max(head.split("{")[0].split(". ")[0].split(" "), key=len) in said, head
    labels = {row[3].split("^")[1] for row in rows if row[0] == "OBX" and "99NEUTROFLAG" in row[3]}
    assert labels
    assert all(label.endswith(MARK) for label in labels)
    notes = {row[3] for row in rows if row[0] == "NTE"}
    assert notes == {words.v2["disclaimer"]}
