"""Message bodies sealed on disk: read alike by everybody, bound to their message, turned to a new key, wrong keys refused."""

from __future__ import annotations

import base64
import contextlib
import io
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.body_keys import db_rekey_command, ring_for
from engine.cli_state import messages_show_command
from engine.config import ConfigError, load
from engine.serve import refusals
from store import Store, StoreUnavailable, backup, database, seal, stages
from store.tables import body, body_key

PLAIN = b"MSH|^~\\&|SIL|LAB|N|C|20261122||ORU^R01|M1|P|2.5\rPID|1||405660\r"


def key(name: str) -> str:
    return f"{name} {base64.b64encode(secrets.token_bytes(32)).decode()}"


@pytest.fixture
def armed(each_database: str) -> Iterator[Callable[[str], str]]:
    """Gives the database this ring; its address."""

    def arm(lines: str) -> str:
        seal.use(each_database, seal.ring_of(lines) if lines else None)
        return each_database

    yield arm
    seal.use(each_database, None)


@contextlib.asynccontextmanager
async def opened(url: str) -> Any:
    store = Store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def rows(url: str) -> list[Any]:
    with contextlib.closing(database.writer(url).connect()) as connection:
        return [tuple(row) for row in connection.execute(body.select().order_by(body.c.message_id))]


async def test_what_is_stored_is_sealed_and_is_read_as_it_came(armed: Callable[[str], str], envelope: Any) -> None:
    url = armed(key("k1"))
    async with opened(url) as store:
        await store.accept(envelope("M1", raw=PLAIN))
        await store.accept(envelope("M2", raw=PLAIN))
        claims = await store.claim(10)
        assert [claim.raw for claim in claims] == [PLAIN, PLAIN]
        copied = await store.replay(1)
        assert [claim.raw for claim in await store.claim(10)] == [PLAIN]
        whole = await store.read(lambda connection: stages.message_stages(connection, copied))
        assert whole.row["raw"] == PLAIN
    stored = rows(url)
    assert [name for _, name, _ in stored] == ["k1"] * 3
    assert len({bytes(raw) for *_, raw in stored}) == 3
    assert not any(b"405660" in bytes(raw) or b"MSH" in bytes(raw) for *_, raw in stored)


async def test_a_body_that_was_moved_or_changed_is_no_body(armed: Callable[[str], str], envelope: Any) -> None:
    url = armed(key("k1"))
    async with opened(url) as store:
        for name in ("M1", "M2", "M3"):
            await store.accept(envelope(name, raw=PLAIN))

        def exchange(connection: Any) -> None:
            raw = connection.execute(body.select().order_by(body.c.message_id)).all()
            one, two = bytes(raw[0].raw), bytes(raw[1].raw)
            connection.execute(body.update().where(body.c.message_id == 1).values(raw=two))
            connection.execute(body.update().where(body.c.message_id == 2).values(raw=one[:-1] + bytes([one[-1] ^ 1])))

        await store.write(exchange)
        assert [claim.raw for claim in await store.claim(10)] == [b"", b"", PLAIN]
        assert await store.replay(1) is None


async def test_a_wrong_or_missing_key_stops_the_start_in_words(armed: Callable[[str], str], envelope: Any) -> None:
    first = key("k1")
    async with opened(armed(first)) as store:
        await store.accept(envelope("M1", raw=PLAIN))
    for lines, words in (
        ("", "sealed with the key k1; set store.key_file"),
        (key("k2"), "sealed with the key k1; set store.key_file"),
        (key("k1"), "the key k1 is not the one"),
    ):
        url = armed(lines)
        store = Store(url)
        with pytest.raises(StoreUnavailable, match=words):
            await store.open()
        await store.close()
    async with opened(armed(f"{first}\n{key('k2')}")) as store:
        assert [claim.raw for claim in await store.claim(10)] == [PLAIN]


async def test_keys_turn_in_small_batches_and_the_old_one_may_go(
    armed: Callable[[str], str], envelope: Any, tmp_path: Path
) -> None:
    old, new = key("k1"), key("k2")
    url = armed("")
    async with opened(url) as store:
        await store.accept(envelope("M0", raw=PLAIN))
    async with opened(armed(old)) as store:
        for number in range(7):
            await store.accept(envelope(f"M{number + 1}", raw=PLAIN + b"%d" % number))
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    ring.write_text(f"# ring\n{old}\n{new}\n", encoding="ascii")
    config.write_text(f'[store]\nurl = "{url}"\nkey_file = "{ring}"\n', encoding="utf-8")
    said = io.StringIO()
    assert db_rekey_command(config, 3, stdout=io.StringIO(), stderr=said) == 1
    assert "no engine has started with the key k2" in said.getvalue()
    async with opened(armed(f"{old}\n{new}")) as store:
        await store.accept(envelope("M9", raw=PLAIN))
        out = io.StringIO()
        assert db_rekey_command(config, 3, stdout=out, stderr=io.StringIO()) == 0
        assert out.getvalue() == "8 bodies sealed with k2\nk1: no body needs it any more\n"
        assert db_rekey_command(config, 3, stdout=out, stderr=io.StringIO()) == 0
    assert {name for _, name, _ in rows(url)} == {"k2"}
    async with opened(armed(new)) as store:
        assert [claim.raw for claim in await store.claim(20)] == [
            PLAIN,
            *(PLAIN + b"%d" % number for number in range(7)),
            PLAIN,
        ]


async def test_a_backup_keeps_what_is_sealed_sealed(envelope: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    seal.use(url, seal.ring_of(key("k1")))
    try:
        async with opened(url) as store:
            await store.accept(envelope("M1", raw=PLAIN))
            source = database.file_of(url)
            assert source is not None
            assert backup.copy(source, tmp_path / "copy.db") == []
        assert b"405660" not in (tmp_path / "copy.db").read_bytes()
    finally:
        seal.use(url, None)


async def test_a_command_gives_the_keys_and_the_tools_read_by_them(envelope: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    ring.write_text(key("k1"), encoding="ascii")
    command = [sys.executable, "-c", f"print(open({str(ring)!r}).read())"]
    config.write_text(f'[store]\nurl = "{url}"\nkey_command = {command!r}\n', encoding="utf-8")
    try:
        seal.use(url, ring_for(load(config, {})))
        async with opened(url) as store:
            await store.accept(envelope("M1", raw=PLAIN))
        seal.use(url, None)
        out = io.StringIO()
        assert messages_show_command(config, 1, False, stdout=out, stderr=io.StringIO()) == 0
        assert "405660" in out.getvalue()
    finally:
        seal.use(url, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no key"),
        ("k1", "line 1"),
        ("k1 c2hvcnQ=", "not 32 bytes"),
        ("k1 !!!!", "not 32 bytes"),
        (f"k1 {'A' * 43}=\nk1 {'B' * 42}A=", "a second time"),
        (f"k/1 {'A' * 43}=", "line 1"),
        (None, "No such file"),
    ],
)
def test_a_key_file_that_will_not_do_is_named_and_not_quoted(tmp_path: Path, content: str | None, words: str) -> None:
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    if content is not None:
        ring.write_text(content, encoding="ascii")
    config.write_text(f'[store]\nkey_file = "{ring}"\n', encoding="utf-8")
    problems = refusals(load(config, {}))[0]
    assert any("store.key_file" in problem and words in problem for problem in problems)
    assert not any(
        part in problem for problem in problems for line in (content or "").split("\n") for part in line.split()[1:]
    )


def test_two_places_for_keys_and_a_failing_command_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "neutroflag.toml"
    config.write_text('[store]\nkey_file = "a"\nkey_command = ["b"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="two places"):
        load(config, {})
    failing = [sys.executable, "-c", "print('secret'); raise SystemExit(3)"]
    config.write_text(f"[store]\nkey_command = {failing!r}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="ended with 3") as caught:
        ring_for(load(config, {}))
    assert "print" not in str(caught.value)


@given(raw=st.binary(max_size=200), number=st.integers(1, 2**62))
def test_every_body_comes_back_under_its_own_number_only(raw: bytes, number: int) -> None:
    ring = seal.ring_of(key("k1"))
    stored, name = ring.seal(raw, number)
    assert ring.open(stored, name, number) == raw
    assert ring.open(stored, name, number + 1) is None
    assert body_key.c.proof is not None
