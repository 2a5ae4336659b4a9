"""Export and erasure of one person, beside a running engine, on each database; and what is then left in its files."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli_db import db_verify_command
from engine.cli_person import db_scrub_command, patients_erase_command, patients_export_command
from engine.compose import Engine
from engine.config import load
from store import database

MRN, OLD, FAMILY, GIVEN, FILLER = "98765432101", "OLDNUMBER77", "ZZYGMUNTOWSKA", "QWERTINETTE", "FILL77881"
SECRETS = (MRN, OLD, FAMILY, GIVEN, FILLER)
WHO = f"{MRN}^^^CHX&1.2.3&ISO^PI"
NAME = f"{FAMILY}^{GIVEN}"


@pytest.fixture
def config(settings_file: Callable[..., Path], each_database: str) -> Path:
    file = settings_file()
    lines = [f'url = "{each_database}"' if line.startswith('url = "sqlite') else line for line in file.open()]
    file.write_text("\n".join(line.rstrip("\n") for line in lines), encoding="utf-8")
    return file


@pytest.fixture
async def met(
    config: Path,
    each_database: str,
    enrol_by_csv: Any,
    tmp_path: Path,
    prescriber: Any,
    hl7: Any,
    fhir: Any,
    before: Any,
    connect: Any,
    eventually: Any,
) -> AsyncIterator[Engine]:
    """An engine that has met a recognisable person in every kind of message, and a neighbour."""
    await enrol_by_csv(tmp_path, each_database, MRN, family=FAMILY, given=GIVEN)
    await enrol_by_csv(tmp_path, each_database, "405660")
    prescriber.add_patient(("urn:oid:1.2.3", MRN), id_="p2")
    engine = Engine(load(config, {}))
    await engine.start()
    assert engine.mllp is not None
    lab = await connect(engine.mllp.port)
    mine = {"patient": WHO, "name": NAME}
    a40 = (
        "MSH|^~\\&|DPI|CHX|N|CHX|20261122101605+0100||ADT^A40^ADT_A39|A40-1|P|2.5\rEVN|A40|20261122101605+0100\r"
        f"PID|1||{WHO}||{NAME}^^^^^L||19790328|F\rMRG|{OLD}^^^CHX&1.2.3&ISO^PI\r"
    ).encode()
    count = hl7.oru("M1", anc="0.40", filler=FILLER, **mine)
    (tmp_path / "first.hl7").write_bytes(count)
    shared = fhir.bundle(
        "collection",
        fhir.observation("1.9", identifier="r-1", patient=MRN),
        fhir.observation("1.8", identifier="r-2", patient="405660"),
    )
    for raw in (
        count,
        count,
        hl7.oru("M2", anc="0.41", filler=FILLER, status="C", collected=before(hours=1), **mine),
        hl7.oru(
            "M3", anc="2.0", filler="B7", patient=f"{OLD}^^^CHX&1.2.3&ISO^PI", name=NAME, collected=before(hours=3)
        ),
        a40,
        hl7.oru("M4", code="2823-3^Potassium^LN", anc="4.1", unit="mmol/L", filler="K1", **mine),
        hl7.oru("M5", anc="0.9", unit="", filler="U1", **mine),
        f"no message at all, of {FAMILY} {MRN}".encode(),
        f"nor this: {GIVEN} {FAMILY}, born 1979-03-28".encode(),
        json.dumps(shared).encode(),
        hl7.oru(f"{MRN}-7", anc="0.44", filler="F7", collected=before(hours=2), **mine),
        hl7.oru("N1", anc="0.45", filler="N1"),
        # Somebody of the same name, born on another day.
        hl7.oru("N2", anc="2.45", filler="N2", patient="777^^^CHX&1.2.3&ISO^PI", name=NAME).replace(
            b"19790328", b"19600101"
        ),
    ):
        if raw.startswith(b"{"):
            from ingest.fhir_http import stored_as

            assert engine.store is not None
            await engine.store.accept(stored_as(raw, channel="fhir", peer=""))
        else:
            await lab.ask(raw)
    await lab.close()

    async def quiet() -> bool:
        assert engine.store is not None
        state = await engine.store.snapshot()
        return state.pending == 0 and not [row for row in state.outbox if row[1] == "waiting"]

    await eventually(quiet, 60)
    yield engine
    await engine.stop()


def said(command: Callable[..., int], *arguments: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = command(*arguments, stdout=out, stderr=err)
    return code, out.getvalue(), err.getvalue()


def ask(url: str, sql: str) -> list[Any]:
    engine = database.reader(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(sql).fetchall()]
    engine.dispose()
    return found


@pytest.fixture
def files(each_database: str, request: Any) -> Callable[[], Iterator[Path]]:
    """The database's own files, as they are on the disk now."""

    def sqlite() -> Iterator[Path]:
        file = database.file_of(each_database)
        assert file is not None
        yield from file.parent.glob(f"{file.name}*")

    def postgresql() -> Iterator[Path]:
        server = request.getfixturevalue("postgresql")
        name = each_database.rpartition("/")[2]
        server.run("CHECKPOINT")
        [number] = [oid for oid, found in server.run("SELECT oid, datname FROM pg_database") if found == name]
        yield from (server.postgresql.folder / "data" / "base" / str(number)).iterdir()

    return sqlite if each_database.startswith("sqlite") else postgresql


def holding(files: Callable[[], Iterator[Path]]) -> set[str]:
    """Of the person's words, those that the database's files hold."""
    return {word for file in files() if file.is_file() for word in SECRETS if word.encode() in file.read_bytes()}


async def test_everything_held_about_one_person_is_given_out_and_nothing_of_others(
    met: Engine, config: Path, each_database: str, tmp_path: Path
) -> None:
    to = tmp_path / "person.json"
    code, _, err = await asyncio.to_thread(said, patients_export_command, config, MRN, to, "Dr Hoda")
    assert (code, err) == (0, "")
    assert to.stat().st_mode & 0o777 == 0o600
    whole = json.loads(to.read_text(encoding="utf-8"))
    assert {one["value"] for one in whole["identifiers"]} == {MRN, OLD}
    assert whole["patient"][0]["person"]["family"] == FAMILY
    values = sorted(float(one["body"]["anc"]["per_mm3"]) for one in whole["counts"])
    assert values == [400.0, 410.0, 440.0, 1900.0, 2000.0, 2000.0]
    assert {bool(one["current"]) for one in whole["counts"]} == {True, False}
    assert "ANC-STOP" in {one["family"] for one in whole["alerts"]}
    assert {"made", "stored"} <= {one["state"] for one in whole["steps"]}
    assert {one["destination"] for one in whole["deliveries"]} == {"ehr", "ehr-v2"}
    assert {"patients-merged"} <= {one["action"] for one in whole["audit"]}
    by_id = {one["control_id"]: one for one in whole["messages"] if one["control_id"]}
    assert {"M1", "M2", "M3", "A40-1", "M4", "M5", f"{MRN}-7"} <= by_id.keys()
    assert {"N1", "N2"}.isdisjoint(by_id)
    assert FILLER in by_id["M1"]["raw"]
    assert by_id["M4"]["disposition"] == "not_relevant"
    # Read as nobody's, or as two people's: what else stands in them is not this person's to have.
    withheld = [one for one in whole["messages"] if one["raw"] is None]
    assert len(withheld) == 3
    assert all(one["raw_is"].startswith("withheld") for one in withheld)
    assert "405660" not in to.read_text(encoding="utf-8")
    kinds = [entry["resource"]["resourceType"] for entry in whole["fhir"]["entry"]]
    assert kinds == ["Patient", "MedicationStatement", *["Observation"] * 6]
    from fhir.resources.R4B.bundle import Bundle

    Bundle.model_validate(whole["fhir"])
    assert ask(each_database, "SELECT actor FROM audit WHERE action = 'patient-exported'") == [("Dr Hoda",)]
    assert said(patients_export_command, config, MRN, to, "")[0] == 1
    assert said(patients_export_command, config, "nobody", None, "")[2] == "no such patient on file\n"


async def test_an_erasure_wants_a_name_a_reason_and_nothing_open(met: Engine, config: Path, each_database: str) -> None:
    def erase(by: str = "Dr Hoda", reason: str = "objection of 12 May", force: bool = False, yes: bool = True) -> Any:
        return said(patients_erase_command, config, MRN, by, reason, force, yes)

    assert erase(by=" ")[0] == erase(reason="")[0] == 2
    code, out, err = erase(reason=f"mrs {FAMILY.lower()} wrote")
    assert (code, out) == (2, "")
    assert "names the patient" in err
    assert FAMILY.lower() not in err
    code, out, err = erase()
    assert (code, out) == (1, "")
    assert "alerts are open: nobody has answered them" in err
    assert "clozapine is being taken" in err
    code, out, err = await asyncio.to_thread(erase, force=True, yes=False)
    assert code == 0
    assert out.startswith("would erase 2 records, the bytes of 10 messages")
    assert "ehr: alert " in out
    assert FAMILY not in out
    assert MRN not in out.replace(f"{MRN}-7", "")
    assert (MRN,) in ask(each_database, "SELECT value FROM identifier")


async def test_an_erased_person_is_in_no_file_of_the_database_and_the_account_still_holds(
    met: Engine,
    config: Path,
    each_database: str,
    files: Any,
    hl7: Any,
    connect: Any,
    eventually: Any,
    tmp_path: Path,
) -> None:
    neighbour = (
        "SELECT count(*) FROM result r JOIN identifier i USING (patient_id) WHERE i.value = '405660' AND current"
    )
    counts, messages = ask(each_database, neighbour), ask(each_database, "SELECT count(*) FROM message")
    ends = "SELECT disposition, count(*) FROM message GROUP BY disposition ORDER BY 1"
    dispositions = ask(each_database, ends)
    [(entries, link)] = ask(each_database, "SELECT seq, link FROM audit ORDER BY seq DESC LIMIT 1")
    assert set(SECRETS) - {FILLER, OLD} <= holding(files)
    code, out, err = await asyncio.to_thread(
        said, patients_erase_command, config, MRN, "Dr Hoda", "objection of 12 May", True, True
    )
    assert code == 0, err
    assert "erased: 6 versions of counts" in out
    assert "the bytes of 10 messages; 3 of these speak of others too, whose own counts stay (1 patients on file)" in out
    assert "stays here: that each message came" in out
    assert "ehr-v2: alert " in out
    assert "backups of the database" in out
    # While the engine runs; only somebody of the same name, who is another person, still has it.
    assert holding(files) <= {FAMILY, GIVEN}
    assert ask(each_database, "SELECT message_id FROM body ORDER BY message_id") == [(12,), (13,)]
    assert met.store is not None
    await met.store.write(lambda connection: connection.exec_driver_sql("DELETE FROM body WHERE message_id = 13"))
    await met.store.write(
        lambda connection: connection.exec_driver_sql("UPDATE message SET kept = false WHERE id = 13")
    )
    assert (await asyncio.to_thread(said, db_scrub_command, config, True))[0] == 0
    assert holding(files) == set()
    code, out, err = await asyncio.to_thread(said, db_verify_command, config, f"{entries}:{bytes(link).hex()}")
    assert code == 0, out
    assert ask(each_database, "SELECT count(*) FROM message") == messages
    assert ask(each_database, ends) == dispositions
    assert ask(each_database, neighbour) == counts
    [(actor, detail)] = ask(each_database, "SELECT actor, detail FROM audit WHERE action = 'patient-erased'")
    assert (actor, json.loads(detail)["reason"]) == ("Dr Hoda", "objection of 12 May")
    assert said(patients_export_command, config, MRN, None, "")[0] == 1
    # The engine goes on: the neighbour is judged, and the person is somebody not on the register.
    assert met.mllp is not None
    lab = await connect(met.mllp.port)
    assert (await lab.ask((tmp_path / "first.hl7").read_bytes())).code == "AA"
    assert (await lab.ask(hl7.oru("N9", anc="0.30", filler="N9"))).code == "AA"
    await lab.close()

    async def judged() -> bool:
        assert met.store is not None
        return (await met.store.snapshot()).pending == 0

    await eventually(judged, 60)
    # Known again by its name and hash, so that a laboratory that sends it once more does not bring it back.
    assert ask(each_database, "SELECT control_id, disposition FROM message WHERE id > 13 ORDER BY id") == [
        ("M1", "duplicate"),
        ("N9", "judged"),
    ]
