"""What a person may change in a course, and every refusal by field and code."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import changes
from rules.changes import (
    AttestHistory,
    ConfirmBen,
    CourseChange,
    CourseError,
    Deceased,
    InfectionSigns,
    Interrupted,
    Limits,
    Lost,
    Overridden,
    Restarted,
    Resumed,
    Started,
    Stopped,
    Transferred,
    change,
    same_person,
)
from rules.faults import course_faults
from rules.model import (
    Attestation,
    CompleteStop,
    CourseState,
    Interruption,
    OverrideKind,
    PriorNeutropenia,
    StopReason,
    Transfer,
    TreatmentCourse,
)

TODAY = date(2026, 8, 3)
START = date(2026, 1, 5)
COURSE = TreatmentCourse(start=START)
BY = Attestation("Dr Hoda", TODAY)
TOMORROW = TODAY + timedelta(days=1)
LATER = TODAY + timedelta(days=90)
LONG = "x" * 201
ESSAY = "x" * 2001


def at(day: date, hour: int = 8) -> datetime:
    return datetime.combine(day, time(hour))


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def pause(last_dose: date, restart: date | None = None) -> Interruption:
    return Interruption(at(last_dose), at(restart) if restart else None)


PAUSED = replace(COURSE, interruptions=(pause(ago(10)),))
RESTARTED = replace(COURSE, interruptions=(pause(ago(30), ago(20)),))
STOPPED = replace(COURSE, stop=CompleteStop(ago(10), StopReason.OTHER))
BANNED = replace(COURSE, stop=CompleteStop(ago(10), StopReason.ANC_BELOW_1000))
LEGACY = replace(COURSE, stop=CompleteStop(ago(10), StopReason.LEGACY_RED))
GONE = replace(COURSE, state=CourseState.TRANSFERRED, state_on=ago(5), transfer=Transfer(ago(5), "CHU", accepted=True))
LOST = replace(COURSE, state=CourseState.LOST, state_on=ago(5))
DEAD = replace(COURSE, state=CourseState.DECEASED, state_on=ago(5))


def overridden(kind: str = "shorter-interval", **more: Any) -> Overridden:
    given: dict[str, Any] = {"reason": "asked for", "expires": LATER, "by": BY}
    if kind == "shorter-interval":
        given["days"] = 7
    if kind == "borderline-not-history":
        given["value_on"] = ago(3)
    return Overridden(kind, **given | more)


REFUSALS: list[tuple[TreatmentCourse, CourseChange, str, str]] = [
    (COURSE, Started(TOMORROW), "on", "future"),
    (STOPPED, Started(TODAY), "on", "already-stopped"),
    (replace(COURSE, stop=CompleteStop(START, StopReason.OTHER)), Started(TODAY), "on", "already-stopped"),
    (PAUSED, Started(ago(9)), "on", "after-interruption"),
    (COURSE, Started(START, at(START + timedelta(days=1))), "first_dose_at", "other-day"),
    (COURSE, Interrupted(at(TOMORROW)), "last_dose", "future"),
    (TreatmentCourse(), Interrupted(at(TODAY)), "last_dose", "not-started"),
    (COURSE, Interrupted(at(START - timedelta(days=1))), "last_dose", "before-start"),
    (PAUSED, Interrupted(at(TODAY)), "last_dose", "already-interrupted"),
    (STOPPED, Interrupted(at(TODAY)), "last_dose", "already-stopped"),
    (RESTARTED, Interrupted(at(ago(30))), "last_dose", "overlap"),
    (RESTARTED, Interrupted(at(ago(20), 7)), "last_dose", "overlap"),
    (RESTARTED, Interrupted(at(ago(50))), "last_dose", "overlap"),
    (PAUSED, Restarted(at(TOMORROW)), "at", "future"),
    (COURSE, Restarted(at(TODAY)), "at", "no-open-interruption"),
    (RESTARTED, Restarted(at(TODAY)), "at", "no-open-interruption"),
    (PAUSED, Restarted(at(ago(10), 7)), "at", "restart-before-stop"),
    (PAUSED, Restarted(at(ago(10))), "at", "restart-before-stop"),
    (STOPPED, Restarted(at(ago(10), 23)), "at", "restart-before-stop"),
    (
        replace(RESTARTED, interruptions=(pause(ago(40)), *RESTARTED.interruptions)),
        Restarted(at(ago(25))),
        "at",
        "overlap",
    ),
    (COURSE, Stopped(TOMORROW, StopReason.OTHER), "on", "future"),
    (TreatmentCourse(), Stopped(TODAY, StopReason.OTHER), "on", "not-started"),
    (COURSE, Stopped(START - timedelta(days=1), StopReason.OTHER), "on", "before-start"),
    (STOPPED, Stopped(TODAY, StopReason.OTHER), "on", "already-stopped"),
    (PAUSED, Stopped(ago(11), StopReason.OTHER), "on", "before-interruption"),
    (RESTARTED, Stopped(ago(21), StopReason.OTHER), "on", "before-restart"),
    (COURSE, InfectionSigns(TOMORROW), "on", "future"),
    (COURSE, InfectionSigns(None), "on", "no-signs"),
    (COURSE, ConfirmBen(Attestation("", TODAY), "Dr B"), "first", "missing"),
    (COURSE, ConfirmBen(Attestation(LONG, TODAY), "Dr B"), "first", "too-long"),
    (COURSE, ConfirmBen(BY, " . "), "second", "missing"),
    (COURSE, ConfirmBen(BY, LONG), "second", "too-long"),
    (COURSE, ConfirmBen(Attestation("Dr Zoé Lê", TODAY), " dr  ZOE LE"), "second", "same-person"),
    (COURSE, ConfirmBen(Attestation("Dr A", TOMORROW), "Dr B"), "on", "future"),
    (replace(COURSE, ben=BY), ConfirmBen(BY, "Dr B"), "", "already-confirmed"),
    (COURSE, AttestHistory(PriorNeutropenia.MILD, Attestation(" ", TODAY)), "by", "missing"),
    (
        replace(COURSE, prior_neutropenia=PriorNeutropenia.MILD),
        AttestHistory(PriorNeutropenia.NONE, BY),
        "history",
        "would-lower",
    ),
    (COURSE, AttestHistory(PriorNeutropenia.MILD, Attestation(LONG, TODAY)), "by", "too-long"),
    (COURSE, AttestHistory(PriorNeutropenia.MILD, Attestation("Dr A", TOMORROW)), "on", "future"),
    (
        replace(COURSE, prior_neutropenia=PriorNeutropenia.STOP_LEVEL),
        AttestHistory(PriorNeutropenia.MILD, BY),
        "history",
        "would-lower",
    ),
    (COURSE, overridden("longer-interval"), "kind", "unknown"),
    (COURSE, overridden("lift-a15"), "kind", "nothing-to-lift"),
    (STOPPED, overridden("lift-a15"), "kind", "nothing-to-lift"),
    (BANNED, overridden("lift-a15"), "kind", "never-r5"),
    (
        replace(LEGACY, prior_neutropenia=PriorNeutropenia.STOP_LEVEL),
        overridden("lift-a15"),
        "kind",
        "never-r5",
    ),
    (COURSE, overridden(by=Attestation("", TODAY)), "by", "missing"),
    (COURSE, overridden(by=Attestation(LONG, TODAY)), "by", "too-long"),
    (COURSE, overridden(by=Attestation("Dr A", TOMORROW)), "on", "future"),
    (COURSE, overridden(reason=" "), "reason", "missing"),
    (COURSE, overridden(reason=ESSAY), "reason", "too-long"),
    (COURSE, overridden(expires=None), "expires", "missing"),
    (COURSE, overridden(expires=TODAY), "expires", "past"),
    (COURSE, overridden(days=None), "days", "missing"),
    (COURSE, overridden(days=0), "days", "below-one"),
    (COURSE, overridden(days=29), "days", "longer-than-protocol"),
    (COURSE, overridden("borderline-not-history", value_on=None), "value_on", "missing"),
    (COURSE, overridden("borderline-not-history", value_on=TOMORROW), "value_on", "future"),
    (COURSE, overridden("borderline-not-history", value_on=ago(4)), "value_on", "not-borderline"),
    (COURSE, Transferred(TOMORROW, "CHU", accepted=True), "on", "future"),
    (COURSE, Transferred(START - timedelta(days=1), "CHU", accepted=True), "on", "before-start"),
    (COURSE, Transferred(TODAY, "", accepted=False), "to", "missing"),
    (COURSE, Transferred(TODAY, LONG, accepted=False), "to", "too-long"),
    (GONE, Transferred(TODAY, "CHU", accepted=True), "", "already-transferred"),
    (COURSE, Lost(TOMORROW), "on", "future"),
    (COURSE, Lost(START - timedelta(days=1)), "on", "before-start"),
    (replace(COURSE, start=TODAY), Lost(ago(1)), "on", "before-start"),
    (LOST, Lost(TODAY), "", "already-lost"),
    (COURSE, Deceased(TOMORROW), "on", "future"),
    (COURSE, Deceased(START - timedelta(days=1)), "on", "before-start"),
    (GONE, Resumed(TOMORROW), "on", "future"),
    (GONE, Resumed(ago(6)), "on", "before-leaving"),
    (COURSE, Resumed(TODAY), "", "not-away"),
    *[
        (DEAD, what, "", "deceased")
        for what in (
            Started(TODAY),
            Interrupted(at(TODAY)),
            Restarted(at(TODAY)),
            Stopped(TODAY, StopReason.OTHER),
            InfectionSigns(TODAY),
            ConfirmBen(BY, "Dr B"),
            AttestHistory(PriorNeutropenia.MILD, BY),
            overridden(),
            Transferred(TODAY, "CHU", accepted=True),
            Lost(TODAY),
            Deceased(TODAY),
        )
    ],
]
LIMITS = Limits(longest_days=28, borderline_on=frozenset({ago(3)}))


@pytest.mark.parametrize(("course", "what", "field", "code"), REFUSALS)
def test_what_contradicts_the_record_or_the_calendar_is_refused_by_field(
    course: TreatmentCourse, what: CourseChange, field: str, code: str
) -> None:
    with pytest.raises(CourseError) as refused:
        change(course, what, today=TODAY, limits=LIMITS)
    assert (refused.value.field, refused.value.code) == (field, code)


def test_every_refusal_in_the_table_of_the_module_has_a_case_here() -> None:
    listed = set()
    for line in (changes.__doc__ or "").splitlines():
        found = re.match(r"(\w+) +(\w+|\(whole\)) +([a-z0-9-].*)$", line)
        if found and found[1] in {kind.__name__ for kind in CourseChange.__args__}:
            field = "" if found[2] == "(whole)" else found[2]
            codes = re.sub(r"\([^)]*\)", "", found[3]).split(",")
            listed |= {(found[1], field, code.strip()) for code in codes}
    tried = {(type(what).__name__, field, code) for _, what, field, code in REFUSALS if code != "deceased"}
    assert tried == listed


def test_treatment_starts_with_its_first_dose_and_its_day_can_be_corrected() -> None:
    started = change(TreatmentCourse(), Started(START, at(START, 9)), today=TODAY)
    assert (started.start, started.first_dose_at) == (START, at(START, 9))
    assert change(started, Started(START + timedelta(days=1)), today=TODAY).start == START + timedelta(days=1)


def test_an_interruption_ends_with_its_restart() -> None:
    paused = change(COURSE, Interrupted(at(ago(10))), today=TODAY)
    assert paused.interruptions == (pause(ago(10)),)
    assert change(paused, Restarted(at(TODAY)), today=TODAY).interruptions == (pause(ago(10), TODAY),)


def test_the_first_day_of_what_holds_belongs_to_it() -> None:
    """A stop on the day of a restart, signs on the day of the first dose, a history attested again as it is known."""
    assert change(RESTARTED, Stopped(ago(20), StopReason.OTHER), today=TODAY).stop is not None
    assert change(COURSE, InfectionSigns(START), today=TODAY).infection_signs_on == START
    again = change(
        replace(COURSE, prior_neutropenia=PriorNeutropenia.MILD), AttestHistory(PriorNeutropenia.MILD, BY), today=TODAY
    )
    assert again.prior_attested == BY


def test_a_second_interruption_may_begin_with_the_restart_of_the_first_and_later() -> None:
    for last_dose in (at(ago(20)), at(ago(10))):
        twice = change(RESTARTED, Interrupted(last_dose), today=TODAY)
        assert twice.interruptions == (*RESTARTED.interruptions, Interruption(last_dose))


def test_a_stop_of_the_first_day_is_in_force() -> None:
    stop = CompleteStop(START, StopReason.OTHER)
    assert changes.stop_in_force(replace(COURSE, stop=stop)) == stop
    assert (
        changes.stop_in_force(replace(COURSE, stop=CompleteStop(START - timedelta(days=1), StopReason.OTHER))) is None
    )


def test_a_pause_may_become_a_stop_on_its_first_day() -> None:
    changed = change(PAUSED, Stopped(ago(10), StopReason.OTHER), today=TODAY)
    assert changed.stop == CompleteStop(ago(10), StopReason.OTHER)


def test_a_restart_ends_a_stop_for_another_reason_and_a_later_stop_can_be_recorded() -> None:
    again = change(STOPPED, Restarted(at(ago(2))), today=TODAY)
    assert again.interruptions == (Interruption(at(ago(10), 0), at(ago(2))),)
    assert again.reexposed_on is None
    assert change(again, Stopped(TODAY, StopReason.OTHER), today=TODAY).stop == CompleteStop(TODAY, StopReason.OTHER)


def test_a_restart_after_a_stop_pauses_from_the_last_dose_that_is_known() -> None:
    """Of the stop only its day is known; that the drug was taken again that morning shows a later last dose."""
    back = replace(
        COURSE, interruptions=(Interruption(at(ago(20)), at(ago(14), 9)),), stop=CompleteStop(ago(14), StopReason.OTHER)
    )
    changed = change(back, Restarted(at(ago(2))), today=TODAY)
    assert changed.interruptions[-1] == Interruption(at(ago(14), 9), at(ago(2)))


def test_a_restart_does_not_swallow_an_interruption_that_is_on_record() -> None:
    """As an import may leave it: an open interruption, and a closed one that began with it or later."""
    for began in (10, 6):
        twice = replace(COURSE, interruptions=(pause(ago(10)), pause(ago(began), ago(4))))
        with pytest.raises(CourseError) as refused:
            change(twice, Restarted(at(ago(2))), today=TODAY)
        assert refused.value.code == "overlap"
        until = change(twice, Restarted(at(ago(6))), today=TODAY) if began == 6 else None
        assert until is None or pause(ago(10), ago(6)) in until.interruptions


@pytest.mark.parametrize(
    "course",
    [
        replace(COURSE, transfer=Transfer(ago(5), "Dr B", accepted=False)),
        replace(
            COURSE, transfer=Transfer(ago(9), "Dr B", accepted=True), state=CourseState.TRANSFERRED, state_on=ago(5)
        ),
    ],
)
def test_who_comes_back_comes_after_having_left(course: TreatmentCourse) -> None:
    with pytest.raises(CourseError) as refused:
        change(course, Resumed(ago(6)), today=TODAY)
    assert refused.value.code == "before-leaving"
    assert change(course, Resumed(ago(5)), today=TODAY).state is CourseState.ACTIVE


@pytest.mark.parametrize("course", [BANNED, LEGACY])
def test_a_restart_after_a_stop_for_the_count_is_recorded_as_what_it_is(course: TreatmentCourse) -> None:
    assert change(course, Restarted(at(TODAY)), today=TODAY).reexposed_on == TODAY


def test_a_restart_with_a_stop_level_count_on_file_is_re_exposure_whatever_was_recorded() -> None:
    for course in (PAUSED, STOPPED):
        found = change(course, Restarted(at(TODAY)), today=TODAY, limits=Limits(below_stop_on_file=True))
        assert found.reexposed_on == TODAY


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (StopReason.OTHER, StopReason.ANC_BELOW_500, StopReason.ANC_BELOW_500),
        (StopReason.LEGACY_RED, StopReason.OTHER, StopReason.LEGACY_RED),
        (StopReason.LEGACY_RED, StopReason.ANC_BELOW_1000, StopReason.ANC_BELOW_1000),
        (StopReason.ANC_BELOW_1000, StopReason.LEGACY_RED, StopReason.ANC_BELOW_1000),
        (StopReason.ANC_BELOW_500, StopReason.ANC_BELOW_1000, StopReason.ANC_BELOW_500),
    ],
)
def test_a_stop_for_the_count_is_not_forgotten_for_a_later_stop(
    before: StopReason, now: StopReason, kept: StopReason
) -> None:
    course = change(replace(COURSE, stop=CompleteStop(ago(9), before)), Restarted(at(ago(5))), today=TODAY)
    assert change(course, Stopped(TODAY, now), today=TODAY).stop == CompleteStop(TODAY, kept)


def test_signs_of_infection_come_and_go() -> None:
    ill = change(COURSE, InfectionSigns(TODAY), today=TODAY)
    assert ill.infection_signs_on == TODAY
    assert change(ill, InfectionSigns(None), today=TODAY).infection_signs_on is None


def test_benign_ethnic_neutropenia_keeps_both_names() -> None:
    found = change(COURSE, ConfirmBen(Attestation(" Dr  A ", TODAY), "Dr B"), today=TODAY)
    assert (found.ben, found.ben_second_by) == (Attestation("Dr A", TODAY), "Dr B")


@pytest.mark.parametrize("history", [PriorNeutropenia.NONE, PriorNeutropenia.MILD, PriorNeutropenia.STOP_LEVEL])
def test_an_unknown_past_can_become_known(history: PriorNeutropenia) -> None:
    found = change(COURSE, AttestHistory(history, BY), today=TODAY)
    assert (found.prior_neutropenia, found.prior_attested) == (history, BY)


def test_an_override_keeps_who_why_and_until_when_and_replaces_its_forerunner() -> None:
    first = change(COURSE, overridden(days=28), today=TODAY, limits=LIMITS)
    assert first.overrides[0].by == "Dr Hoda"
    assert first.overrides[0].expires == LATER
    both = change(first, overridden("borderline-not-history"), today=TODAY, limits=LIMITS)
    last = change(both, overridden(days=1), today=TODAY, limits=LIMITS)
    assert [(one.kind, one.days) for one in last.overrides] == [
        (OverrideKind.BORDERLINE_NOT_HISTORY, None),
        (OverrideKind.SHORTER_INTERVAL, 1),
    ]
    assert change(LEGACY, overridden("lift-a15"), today=TODAY).overrides[0].kind is OverrideKind.LIFT_A15


def test_a_ban_is_not_lifted_over_a_count_below_todays_threshold() -> None:
    with pytest.raises(CourseError) as refused:
        change(LEGACY, overridden("lift-a15"), today=TODAY, limits=Limits(below_stop_on_file=True))
    assert refused.value.code == "never-r5"


def test_a_patient_stays_here_until_the_receiver_has_accepted() -> None:
    asked = change(COURSE, Transferred(TODAY, "CHU", accepted=False), today=TODAY)
    assert (asked.state, asked.transfer) == (CourseState.ACTIVE, Transfer(TODAY, "CHU", accepted=False))
    gone = change(asked, Transferred(TODAY, "CHU", accepted=True), today=TODAY)
    assert (gone.state, gone.state_on) == (CourseState.TRANSFERRED, TODAY)


@pytest.mark.parametrize("away", [GONE, LOST, DEAD, replace(COURSE, transfer=Transfer(ago(5), "CHU", accepted=False))])
def test_who_is_back_is_monitored_again(away: TreatmentCourse) -> None:
    back = change(away, Resumed(TODAY), today=TODAY)
    assert (back.state, back.transfer) == (CourseState.ACTIVE, None)


def test_a_planned_start_does_not_keep_a_death_off_the_record() -> None:
    planned = TreatmentCourse(start=TOMORROW)
    assert change(planned, Deceased(TODAY), today=TODAY).state is CourseState.DECEASED


@pytest.mark.parametrize(
    ("one", "other"), [("Dr Éva Lê", "DR  EVA LE"), ("Jean-Luc", "jean luc"), ("Straße", "STRASSE")]
)
def test_a_name_written_otherwise_is_the_same_person(one: str, other: str) -> None:
    assert same_person(one, other)


def test_other_names_are_other_people() -> None:
    assert not same_person("Dr Martin", "Dr Martine")


DAYS = st.dates(min_value=START - timedelta(days=3), max_value=TODAY + timedelta(days=3))
MOMENTS = st.datetimes(min_value=at(START), max_value=at(TODAY))
STEPS = st.one_of(
    st.builds(Interrupted, MOMENTS),
    st.builds(Restarted, MOMENTS),
    st.builds(Stopped, DAYS, st.sampled_from(StopReason)),
    st.builds(Transferred, DAYS, st.just("CHU"), st.booleans()),
    st.builds(Resumed, DAYS),
)


@given(st.lists(STEPS, max_size=12))
def test_no_row_of_changes_ever_leaves_a_course_that_contradicts_itself(steps: list[CourseChange]) -> None:
    course, banned = COURSE, False
    for step in steps:
        try:
            course = change(course, step, today=TODAY)
        except CourseError:
            continue
        assert list(course_faults(course, TODAY)) == []
        assert course.stop is None or START <= course.stop.on <= TODAY
        ends = [one.restart for one in course.interruptions]
        assert ends.count(None) <= 1
        for one, after in zip(course.interruptions, course.interruptions[1:], strict=False):
            assert one.restart is None or one.restart <= after.last_dose
        for one in course.interruptions:
            assert one.restart is None or one.last_dose < one.restart
        assert not banned or (course.stop is not None and course.stop.reason.haematological)
        banned = course.stop is not None and course.stop.reason.haematological
