"""Editing a copy of what could not be read, and taking a merge back, on the console's pages over real HTTP."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from console.edit_text import editable, edited

NEW, OLD = "777001^^^CHX&1.2.3&ISO^PI", "405660^^^CHX&1.2.3&ISO^PI"
A40 = (
    "MSH|^~\\&|DPI|CHX|NEUTROFLAG|CHX|20261122101605+0100||ADT^A40^ADT_A39|A40-1|P|2.5\rEVN|A40|20261122101605+0100\r"
    f"PID|1||{NEW}||SPECIMEN^DOMINIQUE^^^^^L||19790328|F\rMRG|{OLD}\r"
).encode()


async def submit(browser: httpx2.AsyncClient, page: str, path: str, **fields: str) -> httpx2.Response:
    """The form of a page, as a browser without JavaScript sends it."""
    token = re.search(r'name="csrf" value="([^"]+)"', (await browser.get(page)).text)
    assert token
    return await browser.post(path, data={"csrf": token[1], **fields})


def text_of(page: str) -> str:
    found = re.search(r"<textarea[^>]*>\n?(.*?)</textarea>", page, re.DOTALL)
    assert found, page
    return "\r\n".join(html.unescape(found[1]).splitlines())


async def test_a_copy_is_looked_at_and_judged_beside_its_original_in_the_name_of_a_person(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, rows_of: Any, prescriber: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="0.84", unit="", name="LÉVÊQUE^ZOÉ"))
    await running.settled()
    flags, edit = len(prescriber.flags()), "/console/messages/1/edit"
    assert f'href="{edit}"' in (await browser.get("/console/messages/1")).text
    text = text_of((await browser.get(edit)).text)
    assert "LÉVÊQUE" in text
    mended = text.replace("|0.84||", "|0.84|10*9/L|")
    assert mended != text
    seen = await submit(browser, edit, edit, text=mended, act="look")
    assert seen.status_code == 200
    told = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", seen.text)))
    assert "Today unassessable (unit-missing" in told
    assert "With this text judged Counts read count 840/mm3" in told
    assert "raised red: ANC-STOP" in told
    assert text_of(seen.text) == mended
    assert rows_of("SELECT count(*) FROM message") == [1]
    # Whoever acts has a name; and the text must be another one.
    for fields, words in (
        ({"text": mended, "by": " "}, "give your name"),
        ({"text": text, "by": "Op Erator"}, "the text is that of the message"),
        ({"text": " \r\n", "by": "Op Erator"}, "the text is empty"),
        ({"text": mended + "\r\n" + mended, "by": "Op Erator"}, "holds several messages"),
    ):
        refused = await submit(browser, edit, edit, act="replay", **fields)
        assert (refused.status_code, words in refused.text) == (422, True), words
    assert rows_of("SELECT count(*) FROM message") == [1]
    done = await submit(browser, edit, edit, text=mended, act="replay", by="Op Erator")
    assert done.headers["location"] == "/console/messages/2?done=edited"
    running.store.arrived.set()
    await running.settled()
    assert rows_of("SELECT disposition, replay_of FROM message ORDER BY id") == [("unassessable", None), ("judged", 1)]
    assert "The edited copy is stored" in (await browser.get("/console/messages/2?done=edited")).text
    [(actor, detail)] = rows_of("SELECT actor, detail FROM audit WHERE action = 'replay-message'")
    assert (actor, json.loads(detail)) == ("Op Erator", {"message": 1, "copy": 2, "edited": True})
    assert len(prescriber.flags()) == flags + 1
    assert await running.findings() == []
    assert "correcting it is the laboratory" in (await browser.get("/console/messages/2/edit")).text
    read = await submit(browser, edit, "/console/messages/2/edit", text=mended, act="replay", by="Op Erator")
    assert read.status_code == 422
    assert (await browser.get("/console/messages/99/edit")).status_code == 404
    answer = await browser.post(edit, data={"csrf": "x", "text": mended, "act": "replay", "by": "Op Erator"})
    assert answer.status_code == 403


async def test_what_a_form_would_change_is_not_offered_for_editing(running: Any, browser: httpx2.AsyncClient) -> None:
    await running.tell(b"no message \x01\x02 at all")
    page = (await browser.get("/console/messages/1/edit")).text
    assert "cannot be edited here" in page
    assert "<textarea" not in page


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.sampled_from(["hl7v2", "fhir"]))
def test_text_that_nobody_changed_gives_the_same_message(text: str, form: str) -> None:
    raw = ("MSH|^~\\&|A|B|||20261122||ORU^R01|1|P|2.5|||||FRA|UNICODE UTF-8\r" + text).encode()
    held = editable(raw, form)
    if held is None:
        return
    sent = held.text.replace("\n", "\r\n")  # as a browser sends it
    back = edited(sent, raw, form)
    assert back is not None
    assert re.split(rb"[\r\n]+", back.strip()) == re.split(rb"[\r\n]+", raw.strip()) or back.split() == raw.split()


async def test_merges_are_listed_and_the_last_one_is_undone_with_a_reason(
    running: Any, hl7: Any, browser: httpx2.AsyncClient, rows_of: Any
) -> None:
    assert "No merge." in (await browser.get("/console/merges")).text
    await running.tell(hl7.oru("M1", anc="0.70"), hl7.oru("M2", anc="2.50", patient=NEW, filler="B9"), A40)
    page = (await browser.get("/console/merges")).text
    assert "SPECIMEN" in page
    assert "405660" in page
    assert "came from the other record" in page
    [number] = rows_of("SELECT seq FROM audit WHERE action = 'patients-merged'")
    undo = f"/console/merges/{number}/undo"
    for fields, problem in (
        ({"reason": " ", "by": "Dr Hoda"}, "reason-missing"),
        ({"reason": "two people", "by": ""}, "by-missing"),
    ):
        refused = await submit(browser, "/console/merges", undo, **fields)
        assert refused.headers["location"] == f"/console/merges?problem={problem}"
    assert "give the reason" in (await browser.get("/console/merges?problem=reason-missing")).text
    done = await submit(browser, "/console/merges", undo, reason="two people <b>", by="Dr Hoda")
    assert done.headers["location"] == "/console/merges?done=undone"
    page = (await browser.get("/console/merges?done=undone")).text
    assert "The merge is undone." in page
    assert "Dr Hoda: two people &lt;b&gt;" in page
    assert "/undo" not in page
    assert rows_of("SELECT actor FROM audit WHERE action = 'patients-unmerged'") == ["Dr Hoda"]
    assert rows_of("SELECT count(*) FROM patient WHERE enrolled") == [1]
    assert rows_of(
        "SELECT i.value FROM alert a JOIN identifier i USING (patient_id) WHERE a.family = 'ANC-STOP' AND a.state = 'open'"
    ) == ["405660"]
    # Once; and only what is a merge.
    again = await browser.post(undo, data={"csrf": "x", "reason": "r", "by": "b"})
    assert again.status_code == 403
    again = await submit(browser, "/console/messages/1", undo, reason="r", by="b")
    assert again.headers["location"] == "/console/merges?problem=changed-meanwhile"
    nothing = await submit(browser, "/console/messages/1", "/console/merges/1/undo", reason="r", by="b")
    assert nothing.status_code == 404
    assert await running.findings() == []
