"""Destinations that answer badly, again and again: each ends in a named state with the answer's words kept and nothing of the
patient in them, and once they answer well nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from engine.prescriber import AckFault, HttpFault, Prescriber
from store import outbox

NAME = "SPECIMEN"
OUTCOME = json.dumps(
    {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid", "diagnostics": NAME}]}
).encode()
SOON = {"retry-after": "1"}
MANY = 300

# What the server does, what is kept of it, and whether it is for a person.
HTTP: list[tuple[HttpFault, str, str]] = [
    *((HttpFault(status=status, body=OUTCOME), f"HTTP {status} (invalid)", "dead") for status in (400, 404, 422)),
    (HttpFault(status=412, body=OUTCOME), "HTTP 412 (invalid): one of our identifiers", "dead"),
    *(
        (HttpFault(status=status, body=OUTCOME, headers=SOON), f"HTTP {status} (invalid)", "waiting")
        for status in (401, 403, 429)
    ),
    *((HttpFault(status=status, body=OUTCOME), f"HTTP {status} (invalid)", "waiting") for status in (409, 500, 503)),
    (HttpFault(status=200, body=b"<html>" + NAME.encode()), "2xx with a body that is not", "waiting"),
    (HttpFault(status=200, body=b""), "2xx with a body that is not", "waiting"),
    # Done, and the answer lost: what comes next is the same once more.
    (HttpFault(status=200, cut=True, applied=True), "broken answer", "waiting"),
    (HttpFault(status=503, applied=True), "HTTP 503", "waiting"),
]
MLLP: list[tuple[AckFault, str, str]] = [
    (AckFault(code="AR"), "MSA-1 AR", "dead"),
    (AckFault(code="CR"), "MSA-1 CR", "dead"),
    (AckFault(code="AE"), "MSA-1 AE", "waiting"),
    (AckFault(control_id="of-another-message"), "no acknowledgement in time: ambiguous", "waiting"),
    (AckFault(silent=True), "no acknowledgement in time: ambiguous", "waiting"),
    (AckFault(delay_s=0.6), "no acknowledgement in time: ambiguous", "waiting"),
    (AckFault(hang_up=True), "the connection ended without an answer: ambiguous", "waiting"),
    (AckFault(raw=b"\x0bgarbage\x1c\r"), "no acknowledgement in time: ambiguous", "waiting"),
    (AckFault(raw=b"\x0bMSH|^~\\&|half"), "no acknowledgement in time: ambiguous", "waiting"),
]


def _settings(name: str, system: Prescriber) -> str:
    kind = "fhir" if name.startswith("http") else "mllp"
    place = (
        f'url = "{system.url}"' if kind == "fhir" else f'host = "127.0.0.1"\nport = {system.mllp_port}\ntimeout_s = 0.3'
    )
    again = "retry_first_s = 0.05\nretry_longest_s = 0.2"
    return f'[[destination]]\nname = "{name}"\nkind = "{kind}"\n{place}\n{again}\n'


async def test_each_bad_answer_ends_in_a_named_state_and_nothing_is_lost_or_doubled(
    run_engine: Any, hl7: Any, eventually: Any
) -> None:
    cases = {f"http-{number}": case for number, case in enumerate(HTTP)}
    cases |= {f"mllp-{number}": case for number, case in enumerate(MLLP)}  # type: ignore[misc]
    async with contextlib.AsyncExitStack() as stack:
        systems = {name: await stack.enter_async_context(Prescriber()) for name in cases}
        for name, system in systems.items():
            system.add_patient(("urn:oid:1.2.3", "405660"), id_="p1")
            faults: Any = system.http_faults if name.startswith("http") else system.ack_faults
            faults.extend([cases[name][0]] * MANY)
        running = await run_engine(extra="".join(_settings(*item) for item in systems.items()))
        stack.push_async_callback(running.engine.stop)
        await running.enrol()
        await running.tell(hl7.oru("M1", anc="0.84"))

        async def ended() -> dict[str, Any] | None:
            """Each in the state that its answer calls for, with that answer's words, wherever it is tried again meanwhile."""
            rows = {row["destination"]: row for row in await running.deliveries() if row["destination"] in cases}
            for name, (_, words, state) in cases.items():
                row = rows.get(name)
                if row is None or row["state"] != state or not (row["words"] or "").startswith(words):
                    return None
            return rows

        rows = await eventually(ended)
        for row in rows.values():
            assert NAME not in row["words"]
            assert "405660" not in row["words"]
        for system in systems.values():
            system.http_faults.clear()
            system.ack_faults.clear()
        dead = [row["id"] for row in rows.values() if row["state"] == "dead"]
        assert await running.store._writing.run(lambda connection: outbox.replay(connection, dead, 0)) == dead
        await running.settled()
        assert {row["state"] for row in await running.deliveries()} == {"delivered"}
        for name, system in systems.items():
            if name.startswith("http"):
                assert (len(system.flags()), len(system.tasks()), system.fhir.doubled()) == (1, 1, 0), cases[name]
            else:
                assert len(system.messages()) == 1, cases[name]
        assert await running.findings() == []
