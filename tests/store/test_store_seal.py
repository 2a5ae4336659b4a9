"""Message bodies sealed on disk: read alike by everybody, bound to their message, turned to a new key, wrong keys refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from engine.body_keys import db_rekey_command, ring_for
from engine.cli_state import messages_show_command
from engine.config import ConfigError, load
from engine.serve import refusals
from store import Store, StoreUnavailable, backup, database, keyholders, seal, stages
from store.check import findings
from store.tables import body, body_key, lease

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
        claims = await store.claim(10)
        assert [claim.raw for claim in claims] == [b"", b"", PLAIN]
        assert [claim.unopened for claim in claims] == ["body-unopenable", "body-unopenable", ""]
        assert await store.replay(1) is None
        assert await store.read(lambda connection: list(seal.unopened(connection))) == [1, 2]


async def test_bytes_that_are_gone_are_not_taken_for_an_empty_message(
    armed: Callable[[str], str], envelope: Any
) -> None:
    async with opened(armed("")) as store:
        await store.accept(envelope("M1", raw=b""))
        await store.accept(envelope("M2", raw=PLAIN))
        await store.write(lambda connection: connection.execute(body.delete().where(body.c.message_id == 2)))
        assert [claim.unopened for claim in await store.claim(10)] == ["", "body-missing"]
        assert "1 messages have lost their bytes" in await store.read(findings)


async def test_an_engine_leaves_to_the_other_what_only_that_one_can_open(postgresql_url: str, envelope: Any) -> None:
    old, new = key("k1"), key("k2")
    config_ring = seal.ring_of(old)
    try:
        seal.use(postgresql_url, config_ring)
        async with opened(postgresql_url) as first:
            await first.accept(envelope("M1", raw=PLAIN))
            seal.use(postgresql_url, seal.ring_of(f"{old}\n{new}"))
            async with opened(postgresql_url) as second:
                await second.accept(envelope("M2", raw=PLAIN))
                seal.use(postgresql_url, config_ring)
                assert [claim.message_id for claim in await first.claim(10)] == [1]
                seal.use(postgresql_url, seal.ring_of(f"{old}\n{new}"))
                assert [claim.message_id for claim in await second.claim(10)] == [2]
    finally:
        seal.use(postgresql_url, None)


def announced(url: str, name: str, owner: str) -> None:
    """Another machine's engine seals with the key ``name``."""
    with contextlib.closing(database.writer(url).connect()) as connection, connection.begin():
        expires = int(time.time() * 1000) + 600_000
        connection.execute(insert(lease).values(name=f"seals:{name}:{owner}", owner=owner, expires_at=expires))


async def test_no_key_is_turned_or_given_up_while_another_engine_seals_with_the_old_one(
    postgresql_url: str, envelope: Any, tmp_path: Path
) -> None:
    old, new = key("k1"), key("k2")
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    ring.write_text(f"{old}\n{new}\n", encoding="ascii")
    config.write_text(f'[store]\nurl = "{postgresql_url}"\nkey_file = "{ring}"\n', encoding="utf-8")

    def rekey() -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = db_rekey_command(config, 3, stdout=out, stderr=err)
        return code, out.getvalue(), err.getvalue()

    try:
        seal.use(postgresql_url, seal.ring_of(old))
        async with opened(postgresql_url) as store:
            await store.accept(envelope("M1", raw=PLAIN))
        seal.use(postgresql_url, seal.ring_of(f"{old}\n{new}"))
        async with opened(postgresql_url) as store:
            announced(postgresql_url, "k1", "ward2:4711:abcd")
            code, out, err = await asyncio.to_thread(rekey)
            assert (code, out) == (1, "")
            assert "ward2:4711 (k1" in err
            assert {name for _, name, _ in rows(postgresql_url)} == {"k1"}
            # It was restarted: its word for the old key is taken back.
            await store.write(lambda connection: connection.execute(delete(lease).where(lease.c.owner.like("ward2%"))))
            assert await asyncio.to_thread(rekey) == (0, "1 bodies sealed with k2\nk1: no body needs it any more\n", "")
            # A process that was silent for so long that its key was given up says it anew with what it seals next.
            seal.use(postgresql_url, seal.ring_of(old))
            keyholders._said.clear()
            await store.accept(envelope("M2", raw=PLAIN))
        with contextlib.closing(database.writer(postgresql_url).connect()) as connection:
            assert seal.known(connection, "k1")
    finally:
        seal.use(postgresql_url, None)


async def test_turning_keys_beside_several_writers_loses_no_body(
    postgresql_url: str, envelope: Any, tmp_path: Path
) -> None:
    old, new = key("k1"), key("k2")
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    ring.write_text(f"{old}\n{new}\n", encoding="ascii")
    config.write_text(f'[store]\nurl = "{postgresql_url}"\nkey_file = "{ring}"\n', encoding="utf-8")
    try:
        seal.use(postgresql_url, seal.ring_of(old))
        async with opened(postgresql_url) as store:
            for number in range(40):
                await store.accept(envelope(f"A{number}", raw=PLAIN))
        seal.use(postgresql_url, seal.ring_of(f"{old}\n{new}"))
        async with opened(postgresql_url) as one, opened(postgresql_url) as two:

            def rekey() -> int:
                return db_rekey_command(config, 3, stdout=io.StringIO(), stderr=io.StringIO())

            async def feed(store: Any, name: str) -> None:
                for number in range(40):
                    await store.accept(envelope(f"{name}{number}", raw=PLAIN))

            codes = await asyncio.gather(
                asyncio.to_thread(rekey), asyncio.to_thread(rekey), feed(one, "B"), feed(two, "C")
            )
            assert codes[:2] == [0, 0]
            assert await one.read(lambda connection: list(seal.unopened(connection))) == []
            claims = [*await one.claim(100), *await two.claim(100)]
            assert len(claims) == 120
            assert {claim.raw for claim in claims} == {PLAIN}
        assert {name for _, name, _ in rows(postgresql_url)} == {"k2"}
    finally:
        seal.use(postgresql_url, None)


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


async def test_large_bodies_are_turned_a_few_at_a_time(armed: Callable[[str], str], envelope: Any) -> None:
    old, new, mebi = key("k1"), key("k2"), 1024 * 1024
    sizes = [3 * mebi, mebi // 2, 2 * mebi, 6 * mebi, 1, 1]
    async with opened(armed(old)) as store:
        for number, size in enumerate(sizes):
            await store.accept(envelope(f"M{number}", raw=b"x" * size))
    async with opened(armed(f"{old}\n{new}")) as store:
        after: int | None = 0
        went = []
        while after is not None:
            after, done, broken = await store.write(functools.partial(seal.rekey, after=after, limit=10))
            went.append((after, done, broken))
        assert went == [(2, 2, []), (3, 1, []), (4, 1, []), (None, 2, [])]
        assert [len(claim.raw) for claim in await store.claim(10)] == sizes


async def test_keys_are_turned_beside_a_sender_that_never_pauses(
    armed: Callable[[str], str], envelope: Any, tmp_path: Path
) -> None:
    old, new = key("k1"), key("k2")
    url = armed(old)
    async with opened(url) as store:
        for number in range(20):
            await store.accept(envelope(f"A{number}", raw=PLAIN))
    ring, config = tmp_path / "keys", tmp_path / "neutroflag.toml"
    ring.write_text(f"{old}\n{new}\n", encoding="ascii")
    config.write_text(f'[store]\nurl = "{url}"\nkey_file = "{ring}"\n', encoding="utf-8")
    async with opened(armed(f"{old}\n{new}")) as store:
        said = io.StringIO()
        turning = asyncio.create_task(asyncio.to_thread(db_rekey_command, config, 1, stdout=io.StringIO(), stderr=said))
        number = 0
        while not turning.done():
            await asyncio.gather(*(store.accept(envelope(f"B{number + n}", raw=PLAIN * 20)) for n in range(8)))
            number += 8
        assert (await turning, said.getvalue()) == (0, "")
    assert {name for _, name, _ in rows(url)} == {"k2"}


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
