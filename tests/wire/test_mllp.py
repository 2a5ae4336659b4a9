"""The deframer: every case whole, byte by byte and with a tail, and any chunking gives the same events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.mllp import Deframer, Event, Frame, Noise, Oversize, Restarted, frame

CASES = {
    "one frame": (b"\x0bMSH|a\x1c\r", [Frame(b"MSH|a")]),
    "two frames in one write": (frame(b"a") + frame(b"b"), [Frame(b"a"), Frame(b"b")]),
    "junk before VT": (b"junk" + frame(b"a"), [Noise(4), Frame(b"a")]),
    "line ends between frames are no noise": (b"\r\n" + frame(b"a") + b"\n" + frame(b"b"), [Frame(b"a"), Frame(b"b")]),
    "FS without CR and then the next": (b"\x0ba\x1c\x0bb\x1c\r", [Frame(b"a"), Frame(b"b")]),
    "a second VT drops the partial": (b"\x0bpart\x0bwhole\x1c\r", [Restarted(4), Frame(b"whole")]),
    "too large, then resynchronised": (frame(b"x" * 11) + frame(b"ok"), [Oversize(10), Frame(b"ok")]),
    "an empty frame": (frame(b""), [Frame(b"")]),
    "CR and LF inside stay": (frame(b"a\rb\n"), [Frame(b"a\rb\n")]),
}


def fed(chunks: list[bytes], limit: int = 10) -> list[Event]:
    deframer = Deframer(limit)
    return [event for chunk in chunks for event in deframer.feed(chunk)]


@pytest.mark.parametrize("name", CASES)
def test_a_stream_gives_its_events_whole_byte_by_byte_and_with_a_tail(name: str) -> None:
    data, expected = CASES[name]
    assert fed([data]) == expected
    assert fed([data[i : i + 1] for i in range(len(data))]) == expected
    tailed = Deframer(10)
    assert tailed.feed(data + b"\x0btail") == expected
    assert tailed.in_frame
    assert tailed.feed(b"\x1c\r") == [Frame(b"tail")]


@given(
    st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"a", b"bcd", b"MSH|", b"\x1c\r"]), max_size=40),
    st.data(),
)
def test_any_chunking_gives_the_same_events(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(chunks) == fed([stream])


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\x0b", b"").replace(b"\x1c", b"")), max_size=6))
def test_what_was_framed_comes_back(payloads: list[bytes]) -> None:
    assert fed([b"".join(map(frame, payloads))]) == [Frame(p) for p in payloads]


def test_a_frame_that_never_ends_is_refused_and_memory_stays_bounded() -> None:
    deframer = Deframer(1000)
    events = deframer.feed(b"\x0b") + [e for _ in range(100) for e in deframer.feed(b"x" * 100)]
    assert events == [Oversize(1000)]
    assert deframer.pending <= 1000


def test_a_twenty_megabyte_frame_passes_in_small_chunks() -> None:
    payload = b"x" * 20_000_000
    data = frame(payload)
    deframer = Deframer()
    events = [e for i in range(0, len(data), 4096) for e in deframer.feed(data[i : i + 4096])]
    assert events == [Frame(payload)]


def test_a_frame_may_come_byte_by_byte() -> None:
    payload = b"x" * 300_000
    deframer = Deframer()
    assert [e for byte in frame(payload) for e in deframer.feed(bytes([byte]))] == [Frame(payload)]


def test_closing_reports_what_was_unfinished() -> None:
    deframer = Deframer()
    assert deframer.feed(b"\x0bpart") == []
    assert deframer.close() == [Restarted(4)]
    assert deframer.feed(b"zz") == []
    assert deframer.close() == [Noise(2)]
