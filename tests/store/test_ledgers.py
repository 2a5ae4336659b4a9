"""A ledger is kept in few lines and given back row by row."""

from hypothesis import given, settings
from hypothesis import strategies as st

from store.ledgers import packed, unpacked

ROWS = st.tuples(
    st.one_of(
        st.builds("OBX[{}]".format, st.integers(0, 30)),
        st.sampled_from(
            ["OBX[01]", "OBX[1]/entry[2]", "entry[3].resource", "NTE[1]", "", "OBX[1000000]", "OBX[999999]"]
        ),
    ),
    st.sampled_from(["not_relevant", "judged"]),
    st.sampled_from(["", "other-analyte", "é"]),
)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=12), st.integers(1, 40))
def test_every_row_comes_back_as_it_was(rows: list[tuple[str, str, str]], long: int) -> None:
    rows += [(f"OBX[{number}]", "not_relevant", "other-analyte") for number in range(1, long)]
    wanted = [{"where": where, "outcome": outcome, "reason": reason} for where, outcome, reason in rows]
    assert unpacked(packed(tuple(rows))) == wanted


def test_an_irrelevant_report_is_one_line() -> None:
    rows = tuple((f"OBX[{number}]", "not_relevant", "other-analyte") for number in range(1, 26))
    assert packed(rows) == b'[{"where":"OBX[1]","outcome":"not_relevant","reason":"other-analyte","to":25}]'


def test_nothing_entered_is_nothing() -> None:
    assert unpacked(None) == unpacked("") == []


def test_a_ledger_of_one_object_a_row_is_read() -> None:
    assert unpacked('[{"where":"OBX[1]","outcome":"judged","reason":""}]') == [
        {"where": "OBX[1]", "outcome": "judged", "reason": ""}
    ]
