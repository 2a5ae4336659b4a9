"""Who is on duty when: every hour of every kind of day, across the change of the clocks, and whom to ask next."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from engine.cli_state import config_check_command
from engine.config import ConfigError, load
from engine.duty import faults, rota_of
from engine.rota import DAYS, HOLIDAY, Cover, Role, Rota, Shift, french_holidays

PARIS = ZoneInfo("Europe/Paris")
WEEK, WEEKEND = frozenset(DAYS[:5]), frozenset((*DAYS[5:], HOLIDAY))
ALWAYS = frozenset((*DAYS, HOLIDAY))
HOUSE = Rota(
    zone=PARIS,
    roles=(Role("psychiatrist", "PractitionerRole/psy"), Role("on-call"), Role("head", "PractitionerRole/head")),
    shifts=(
        Shift("psychiatrist", WEEK, 8 * 60, 18 * 60 + 30),
        Shift("on-call", WEEK, 18 * 60 + 30, 8 * 60),
        Shift("on-call", WEEKEND),
        Shift("head", ALWAYS),
    ),
    covers=(Cover("psychiatrist", "deputy", date(2026, 12, 21), date(2026, 12, 31)),),
    calendar="FR",
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=PARIS)


@pytest.mark.parametrize(
    ("moment", "duty"),
    [
        ("2026-11-26T10:00", ("psychiatrist", "head")),
        ("2026-11-26T18:29", ("psychiatrist", "head")),
        ("2026-11-26T18:30", ("on-call", "head")),
        ("2026-11-27T07:59", ("on-call", "head")),
        ("2026-11-28T03:00", ("on-call", "head")),  # Saturday: Friday's night goes on, then the weekend's own
        ("2026-11-30T07:00", ("head",)),  # Monday before eight: Sunday's shift is over at midnight
        ("2026-12-25T10:00", ("on-call", "head")),  # a Friday, and a holiday
        ("2027-05-06T10:00", ("on-call", "head")),  # Ascension
        ("2026-12-22T10:00", ("deputy", "head")),
    ],
)
def test_each_hour_has_its_roles(moment: str, duty: tuple[str, ...]) -> None:
    assert HOUSE.on_duty(at(moment)) == duty


def test_the_hours_without_anybody_are_named() -> None:
    alone = Rota(zone=PARIS, roles=(), shifts=HOUSE.shifts[:3], calendar="FR")
    assert alone.gaps() == [
        "Monday 00:00-08:00",
        "Tuesday after a holiday 00:00-08:00",
        "Wednesday after a holiday 00:00-08:00",
        "Thursday after a holiday 00:00-08:00",
        "Friday after a holiday 00:00-08:00",
    ]
    assert HOUSE.gaps() == []


@st.composite
def rotas(draw: st.DrawFn) -> Rota:
    minute = st.integers(0, 47).map(lambda half: half * 30)
    shift = st.builds(
        Shift,
        st.sampled_from(["a", "b", "c"]),
        st.frozensets(st.sampled_from((*DAYS, HOLIDAY)), min_size=1),
        minute,
        st.one_of(minute, st.just(1440)),
    )
    zone = draw(st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC"]))
    holidays = draw(st.frozensets(st.dates(date(2026, 3, 1), date(2026, 11, 30)), max_size=40))
    shifts = draw(st.lists(shift, min_size=1, max_size=12))
    return Rota(zone=ZoneInfo(zone), roles=(), shifts=tuple(shifts), holidays=holidays)


@tried(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rotas(), st.datetimes(datetime(2026, 3, 20), datetime(2026, 11, 10)))  # noqa: DTZ001  # made aware below
def test_a_rota_without_gaps_has_somebody_at_every_instant_and_one_with_gaps_names_them(
    rota: Rota, moment: datetime
) -> None:
    instant = moment.replace(tzinfo=UTC)
    duty = rota.on_duty(instant)
    if not rota.gaps():
        assert duty
    if not duty:
        wall = instant.astimezone(rota.zone)
        name = "a holiday" if wall.date() in rota.holidays else wall.strftime("%A")
        clock = wall.strftime("%H:%M")
        spans = [gap.rpartition(" ")[2].split("-") for gap in rota.gaps() if gap.startswith(name)]
        assert any(start <= clock < end for start, end in spans)


@given(st.integers(0, 24 * 60 * 2), st.sampled_from([date(2026, 3, 28), date(2026, 10, 24)]))
def test_the_night_in_which_the_clocks_change_is_covered_to_its_last_minute(minutes: int, day: date) -> None:
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minutes)
    assert HOUSE.on_duty(instant)[-1] == "head"
    wall = instant.astimezone(PARIS)
    if wall.date() == day + timedelta(days=1):  # Sunday, all 23 or 25 hours of it
        assert HOUSE.on_duty(instant) == ("on-call", "head")


def test_the_next_owner_is_on_duty_and_was_asked_longest_ago() -> None:
    asked = ["psychiatrist"]
    noon = at("2026-11-26T12:00")
    for _ in range(4):
        asked.append(HOUSE.next(asked, noon))
    assert asked == ["psychiatrist", "head", "psychiatrist", "head", "psychiatrist"]
    assert HOUSE.next(["psychiatrist"], at("2026-11-26T22:00")) == "on-call"
    assert HOUSE.next(["head"], at("2026-11-30T07:00")) == "head"  # nobody else is there


def test_an_owner_who_is_off_duty_gives_way_at_once_and_a_stranger_to_the_rota_does_not() -> None:
    night = at("2026-11-26T22:00")
    assert HOUSE.first("psychiatrist", night) == "on-call"
    assert HOUSE.first("PractitionerRole/psy", night) == "on-call"
    assert HOUSE.first("PractitionerRole/psy", at("2026-11-26T12:00")) == "psychiatrist"
    assert HOUSE.first("Practitioner/dr-hoda", night) == "Practitioner/dr-hoda"
    assert HOUSE.first("", night) == "on-call"


@pytest.mark.parametrize(
    ("year", "easter_monday", "ascension", "whit_monday"),
    [
        (2024, (4, 1), (5, 9), (5, 20)),
        (2025, (4, 21), (5, 29), (6, 9)),
        (2026, (4, 6), (5, 14), (5, 25)),
        (2038, (4, 26), (6, 3), (6, 14)),  # the latest Easter there is
        (2285, (3, 23), (4, 30), (5, 11)),  # the earliest
    ],
)
def test_the_moving_holidays_of_france(
    year: int, easter_monday: tuple[int, int], ascension: tuple[int, int], whit_monday: tuple[int, int]
) -> None:
    moving = {date(year, *day) for day in (easter_monday, ascension, whit_monday)}
    assert moving <= french_holidays(year)
    assert len(french_holidays(year)) == 11 - (ascension == (5, 8))


# From the settings

SOUND = """
[[rota.role]]
name = "psychiatrist"
fhir = "PractitionerRole/psy"
[[rota.role]]
name = "on-call"
[[rota.shift]]
role = "psychiatrist"
days = ["mon", "tue", "wed", "thu", "fri"]
hours = "08:00-18:30"
[[rota.shift]]
role = "on-call"
"""


def _load(path: Path, text: str) -> list[str]:
    file = path / "neutroflag.toml"
    file.write_text(text, encoding="utf-8")
    return faults(load(file, {}))


def test_a_sound_rota_is_read(tmp_path: Path) -> None:
    file = tmp_path / "neutroflag.toml"
    file.write_text(SOUND, encoding="utf-8")
    settings = load(file, {})
    assert faults(settings) == []
    rota = rota_of(settings)
    assert rota is not None
    assert rota.on_duty(at("2026-11-26T10:00")) == ("psychiatrist", "on-call")


@pytest.mark.parametrize("text", ["[rota]\n", '[rota]\ncalendar = "FR"\n', '[[rota.role]]\nname = "on-call"\n'])
def test_an_empty_rota_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="rota: empty"):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('hours = "08:00-18:30"\n[[rota.shift]]\nrole = "on-call"\n', "rota: nobody is on duty on Saturday 00:00-24:00"),
        ('role = "on-call"\n[[rota.cover]]\nrole = "on-call"\nby = "nobody"\nfirst = 2026-01-01\nlast = 2026-01-02',
         "rota.cover[0].by: no role 'nobody'; known: psychiatrist, on-call"),
        ('[[rota.role]]\nname = "on-call"\n[[rota.role]]\nname = "idle"', "rota.role[2].name: 'idle' is never on duty"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rota_is_said_by_its_place(tmp_path: Path, change: str, said: str) -> None:
    text = SOUND
    if change.startswith("hours"):
        text = SOUND[: SOUND.rindex("[[rota.shift]]")].replace('name = "on-call"', 'name = "other"')
        text = text.replace('[[rota.role]]\nname = "other"\n', "")
    elif change.startswith("role"):
        text = SOUND + change.removeprefix('role = "on-call"\n')
    else:
        text = SOUND.replace('[[rota.role]]\nname = "on-call"', change)
    assert said in _load(tmp_path, text)


@pytest.mark.parametrize("hours", ["8:00-18:00", "08:00-25:00", "08:00", "24:00-08:00", "08:00-24:30", ""])
def test_hours_that_are_none_are_refused(tmp_path: Path, hours: str) -> None:
    with pytest.raises(ConfigError, match=r"rota\.shift\.0\.hours"):
        _load(tmp_path, SOUND.replace("08:00-18:30", hours))


def test_config_check_names_the_hours_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    file = tmp_path / "neutroflag.toml"
    file.write_text(SOUND[: SOUND.rindex("[[rota.shift]]")].replace('[[rota.role]]\nname = "on-call"\n', ""), "utf-8")
    assert config_check_command(file, stdout=sys.stdout, stderr=sys.stderr) == 2
    assert "rota: nobody is on duty on Sunday 00:00-24:00" in capsys.readouterr().err
