"""Stored history under another protocol: the short way agrees with judging every count; the command tells who and when."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli_shadow import rules_shadow
from rules import assess, find_protocol, packaged
from rules.actions import ACTIONS, gives_clozapine
from rules.model import (
    AbsoluteNeutrophilCount,
    Assessment,
    Attestation,
    Interruption,
    LabResult,
    PriorNeutropenia,
    ResultStatus,
    TreatmentCourse,
    Trust,
)
from rules.protocol import MonitoringProtocol
from rules.shadow import Shadow, compare
from store import database
from store.tables import metadata, patient, result
from store.values import encode, to_ms

ANSM, EU = find_protocol("ansm"), find_protocol("EU-SMPC-PRE2025")
START = date(2021, 3, 1)
CLEAN = TreatmentCourse(start=START, prior_neutropenia=PriorNeutropenia.NONE)


def count(day: int, per_mm3: int, *, trust: Trust = Trust.ESTABLISHED, wbc: int | None = 6000) -> LabResult:
    on = datetime.combine(START + timedelta(days=day), time(8), tzinfo=UTC)
    return LabResult(
        status=ResultStatus.FINAL,
        anc=AbsoluteNeutrophilCount(per_mm3=Decimal(per_mm3)),
        collected_at=on,
        trust=trust,
        key=f"{day}",
        wbc_per_mm3=None if wbc is None else Decimal(wbc),
    )


def whole(old: MonitoringProtocol, new: MonitoringProtocol, course: TreatmentCourse, rows: list[LabResult]) -> Shadow:
    """Every count judged in full, nothing left out."""
    intervals, first_on, counts = 0, None, 0
    for number, row in enumerate(rows):
        if row.trust is Trust.PROVISIONAL or row.collected_at is None or row.anc is None:
            continue
        counts += 1
        on = row.collected_at.date()
        before_start = course.start is not None and on <= course.start
        if before_start and row.wbc_per_mm3 is None:
            continue
        one, other = (assess(protocol, course, rows[:number], row, on) for protocol in (old, new))
        assert isinstance(one, Assessment)
        assert isinstance(other, Assessment)
        if gives_clozapine(one.action) is not gives_clozapine(other.action):
            return replace(
                compare(old, new, course, rows), counts=counts, intervals=intervals, first_interval_on=first_on
            )
        if one.next_due != other.next_due:
            intervals += 1
            first_on = first_on or on
        if one.no_reexposure and other.no_reexposure:
            break
    return Shadow(counts, intervals, first_on, None)


VALUES = st.sampled_from([800, 1200, 1500, 1600, 1999, 2000]) | st.integers(2001, 9000)


@given(
    st.lists(st.tuples(st.integers(-5, 1500), VALUES, st.sampled_from([2900, 6000, None])), max_size=12),
    st.sampled_from([PriorNeutropenia.NONE, PriorNeutropenia.MILD, PriorNeutropenia.UNKNOWN]),
    st.booleans(),
    st.none() | st.tuples(st.integers(1, 1000), st.integers(1, 60)),
    st.permutations([ANSM, EU, find_protocol("FDA-2015-LABEL")]),
)
@settings(max_examples=400, deadline=None)
def test_the_short_way_agrees_with_judging_every_count(
    rows: list[tuple[int, int, int | None]],
    prior: PriorNeutropenia,
    ben: bool,
    gap: tuple[int, int] | None,
    protocols: list[MonitoringProtocol],
) -> None:
    course = replace(CLEAN, prior_neutropenia=prior, ben=Attestation("Dr A", START) if ben else None)
    if gap is not None:
        last = datetime.combine(START, time()) + timedelta(days=gap[0])
        course = replace(course, interruptions=(Interruption(last, last + timedelta(days=gap[1])),))
    days = {day: count(day, value, wbc=wbc) for day, value, wbc in rows}
    history = [days[day] for day in sorted(days)]
    old, new = protocols[:2]
    # Leukocytes before the first dose are asked of both or of neither way.
    if EU not in (old, new):
        history = [replace(one, wbc_per_mm3=Decimal(6000)) for one in history]
    assert compare(old, new, course, history) == whole(old, new, course, history)


def test_a_count_of_1400_ended_treatment_before_and_is_only_mild_now() -> None:
    found = compare(EU, ANSM, CLEAN, [count(70, 3000), count(77, 1400), count(84, 3000)])
    assert found.treatment is not None
    assert (found.treatment.on, found.treatment.stops) == (START + timedelta(days=77), "old")
    assert found.treatment.new.action.startswith("CONTINUE_WEEKLY_UNTIL")


def test_the_same_protocol_twice_differs_nowhere() -> None:
    for protocol in packaged():
        found = compare(protocol, protocol, CLEAN, [count(day, 900 + day) for day in range(0, 1200, 40)])
        assert (found.treatment, found.intervals) == (None, 0)


def test_after_a_year_the_counts_are_further_apart() -> None:
    found = compare(EU, ANSM, CLEAN, [count(300, 3000), count(364, 3000), count(448, 3000)])
    assert (found.treatment, found.intervals, found.first_interval_on) == (None, 2, START + timedelta(days=364))


def test_a_doubtful_count_is_not_compared() -> None:
    assert compare(EU, ANSM, CLEAN, [count(77, 1400, trust=Trust.PROVISIONAL)]) == Shadow(0, 0, None, None)


def test_every_verb_says_whether_clozapine_is_given() -> None:
    giving = {name for name in ACTIONS if gives_clozapine(name)}
    assert not giving & {name for name in ACTIONS if "STOP" in name or "INTERRUPT" in name or "REEXPOSE" in name}
    assert {"CONTINUE", "INITIATION_PERMITTED", "CLOSER_MONITORING"} <= giving
    assert not gives_clozapine("DO_NOT_INITIATE")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Settings of a database with three patients: one differs, one only by intervals, one not at all."""
    url = f"sqlite:///{tmp_path / 'shadow.db'}"
    engine = database.writer(url)
    histories = {"p1": [count(77, 1400)], "p2": [count(400, 3000)], "p3": [count(77, 3000)]}
    with engine.connect() as connection, connection.begin():
        metadata.create_all(connection)
        for name, rows in histories.items():
            empty = {column.name: None if column.nullable else "" for column in patient.columns}
            fixed = {"id": name, "enrolled": True, "rev": 1, "course": encode(CLEAN), "created_at": 0, "updated_at": 0}
            connection.execute(patient.insert(), [{**empty, **fixed}])
            for row in rows:
                number = int(name[1:])
                assert row.collected_at is not None
                fields = {"id": number, "patient_id": name, "message_id": number, "key": row.key, "version": 1}
                more = {"current": True, "collected_at": to_ms(row.collected_at), "body": encode(row)}
                connection.execute(result.insert(), [{**fields, **more}])
    engine.dispose()
    config = tmp_path / "neutroflag.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    return config


def test_the_command_lists_who_and_when_as_json(stored: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_shadow(stored, "EU-SMPC-PRE2025", "ansm", out, err, json=True) == 0
    line, last = (json.loads(text) for text in out.getvalue().splitlines())
    assert (line["patient"], line["on"], line["no_clozapine_under"]) == ("p1", "2021-05-17", "old")
    assert (line["anc_per_mm3"], line["old"]) == ("1400", "STOP_IMMEDIATELY_DAILY_COUNTS")
    assert last["sum"]["patients"] == 3
    assert last["sum"]["no_clozapine_under_old"] == 1
    assert last["sum"]["other_intervals_only"] == 1


def test_the_command_prints_a_table_and_its_sum(stored: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_shadow(stored, "EU-SMPC-PRE2025", "ansm", out, err, all_=True) == 0
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["patient", "on", "anc_per_mm3", "stops", "old", "new"]
    assert [line.split()[0] for line in lines[1:3]] == ["p1", "p2"]
    assert "1 stop or are not begun under the old protocol only" in out.getvalue()


def test_the_command_takes_a_protocol_that_is_not_packaged_yet(stored: Path, tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "rules" / "protocols" / "ansm-2025-09.toml"
    path = tmp_path / "next.toml"
    path.write_text(source.read_text(encoding="utf-8").replace('version = "2025-09"', 'version = "2027-01"'))
    out, err = io.StringIO(), io.StringIO()
    assert rules_shadow(stored, "ansm", str(path), out, err, json=True) == 0
    assert json.loads(out.getvalue().splitlines()[-1])["new"] == "ansm@2027-01"


def test_the_command_refuses_an_unknown_protocol_and_a_missing_database(stored: Path, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert rules_shadow(stored, "ansm", "nonesuch", out, err) == 2
    assert "unknown; known are" in err.getvalue()
    empty = tmp_path / "empty.toml"
    empty.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "none.db"}"\n')
    assert rules_shadow(empty, "ansm", "ansm", out, err) == 3
