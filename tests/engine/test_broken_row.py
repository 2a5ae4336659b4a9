"""A row that cannot be read is one patient's trouble, never everybody's."""

from __future__ import annotations

from typing import Any


async def test_an_unreadable_patient_is_a_task_for_a_person_and_the_others_are_judged(
    running: Any, hl7: Any, before: Any, enrol_by_csv: Any, tmp_path: Any, url: str, eventually: Any
) -> None:
    def spoil(connection: Any) -> None:
        connection.exec_driver_sql("UPDATE patient SET course = '{half', settle_at = 0")

    def look(connection: Any) -> list[tuple[str, str]]:
        sql = "SELECT family, state FROM alert WHERE patient_id IS NULL"
        return [tuple(row) for row in connection.exec_driver_sql(sql).fetchall()]

    await running.store.write(spoil)

    async def told() -> Any:
        return await running.store.read(look)

    await eventually(told)
    assert await told() == [("ANC-REVIEW", "open")]
    await enrol_by_csv(tmp_path, url, "777")
    await running.tell(hl7.oru("M9", anc="0.40", patient="777^^^CHX&1.2.3&ISO^PI", collected=before(hours=1)))

    def stops(connection: Any) -> list[Any]:
        return list(connection.exec_driver_sql("SELECT level FROM alert WHERE family = 'ANC-STOP'").fetchall())

    assert [tuple(row) for row in await running.store.read(stops)] == [("critical",)]
