"""A repeated member of a JSON object is seen, whichever of the two ways looks for it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.reading.fhirindex import has_duplicate_keys

NAMES = st.sampled_from(["a", "b", "code", "é", 'x"y', "\\"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4))


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in pairs) + "}"


TEXTS = st.recursive(
    LEAVES.map(lambda leaf: json.dumps(leaf, ensure_ascii=False)),
    lambda inner: st.one_of(
        st.lists(st.tuples(NAMES, inner), max_size=3).map(_object),
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
    ),
    max_leaves=8,
)


def by_the_book(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal found
        found = found or len(dict(pairs)) != len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_a_repeated_member_is_seen(text: str) -> None:
    assert has_duplicate_keys(text.encode()) == by_the_book(text)


def test_what_is_no_json_is_as_bad_as_a_repeated_member() -> None:
    assert all(has_duplicate_keys(raw) for raw in (b"", b"{", b'{"a":1e}', b'{"a":"\xff"}'))


def test_a_number_beyond_any_bound_is_no_repeated_member() -> None:
    assert not has_duplicate_keys(b'{"a": 1e99999999, "b": "c"}')
