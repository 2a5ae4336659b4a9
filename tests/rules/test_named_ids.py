"""Ids from names are those of the standard library, for ever."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from rules.named_ids import namer


@given(st.uuids(), st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_is_the_uuid5_of_its_name(namespace: uuid.UUID, name: str) -> None:
    assert namer(namespace)(name) == str(uuid.uuid5(namespace, name))
