"""ADT^A31 to a running engine: who is known is followed, nobody new is made, a death alone silences nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

from rules.model import PatientIdentifier
from store.port import PatientRecord

IPP = "405660^^^CHX&1.2.3&ISO^PI"
INS = "279035121518989^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.8&ISO^INS"


def a31(pid3: str, *, control_id: str, pid29: str = "", pid30: str = "", pid32: str = "VALI") -> bytes:
    pid = f"PID|1||{pid3}||DUPONT&DU&PONT^DOMINIQUE^^^^^D~SPECIMEN^DOMINIQUE MARIE^^^^^L||19790329|F"
    head = f"MSH|^~\\&|DPI|CHX|NEUTROFLAG|CHX|20261122101605+0100||ADT^A31^ADT_A05|{control_id}|P|2.5"
    return f"{head}\rEVN|A31\r{pid}{'|' * 21}{pid29}|{pid30}||{pid32}\rPV1|1|N\r".encode()


async def record_of(running: Any, value: str, authority: str = "urn:oid:1.2.3") -> PatientRecord | None:
    found = await running.store.patients([PatientIdentifier(value, authority)])
    return found[0] if found else None


async def test_an_update_is_followed_and_a_later_count_under_the_new_number_is_the_patients(
    running: Any, hl7: Any
) -> None:
    await running.tell(hl7.oru("M1", anc="2.50"))
    await running.tell(a31(f"{IPP}~{INS}", control_id="A31-1"), a31("999^^^CHX&1.2.3&ISO^PI", control_id="A31-2"))
    record = await record_of(running, "405660")
    assert record is not None
    assert (record.person.family, record.person.given) == ("SPECIMEN", "DOMINIQUE MARIE")
    assert record.person.birth_date == record.course.birth_date == date(1979, 3, 29)
    assert await record_of(running, "999") is None
    await running.tell(hl7.oru("M2", anc="0.70", patient=INS, filler="B2"))
    record = await record_of(running, "405660")
    assert record is not None
    assert "ANC-STOP" in {entry.alert.family.value for entry in record.alerts.values()}


async def test_a_doubtful_identity_changes_nothing_and_a_death_is_asked_once(running: Any, hl7: Any) -> None:
    await running.tell(hl7.oru("M1", anc="2.50"))
    before = await record_of(running, "405660")
    assert before is not None
    await running.tell(a31(f"{IPP}~{INS}", control_id="A31-1", pid30="Y", pid32="DOUT"))
    assert await record_of(running, "405660") == before
    for number, dead in enumerate(({"pid30": "Y"}, {"pid29": "20261120"}), 2):
        await running.tell(a31(IPP, control_id=f"A31-{number}", **dead))
    record = await record_of(running, "405660")
    assert record is not None
    assert [entry.alert.reason for entry in record.alerts.values()] == ["death-reported"]
    assert record.course.state is before.course.state
