"""MLLP framing (Release 1): bytes in, events out, no I/O.

Rule of the file: whatever the chunking, the same bytes give the same events, in O(n) and in bounded memory.

>>> deframer = Deframer()
>>> deframer.feed(b"junk" + frame(b"MSH|...")) + deframer.feed(frame(b"MSH|two"))
[Noise(count=4), Frame(payload=b'MSH|...'), Frame(payload=b'MSH|two')]
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMIT", "Deframer", "Event", "Frame", "Noise", "Oversize", "Restarted", "frame"]

VT = b"\x0b"
FS = b"\x1c"
CR = b"\x0d"
DEFAULT_LIMIT = 32 * 1024 * 1024
"""Bytes of one payload; a base64 CDA with an embedded PDF must fit."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole payload, without its framing bytes."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Noise:
    """``count`` bytes that stood outside any frame (line ends between frames are not counted)."""

    count: int


@dataclass(frozen=True, slots=True)
class Oversize:
    """A payload grew beyond ``limit`` and was dropped; reading resumes at the next VT."""

    limit: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """A second VT in mid-frame: the partial of ``dropped`` bytes is lost, a new frame began."""

    dropped: int


Event = Frame | Noise | Oversize | Restarted


def frame(payload: bytes) -> bytes:
    """``payload`` as one MLLP block: VT payload FS CR."""
    return b"".join((VT, payload, FS, CR))


class Deframer:
    """The receiving half of one connection. Keeps at most one partial frame of ``limit`` bytes.

    FS ends a frame whether or not CR follows. A CR or LF between frames is framing, anything else there is ``Noise``,
    reported when the next VT puts an end to it (or by ``close``).
    """

    __slots__ = ("_inside", "_limit", "_noise", "_partial", "_skipping")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._inside = False
        self._skipping = False
        self._noise = 0

    @property
    def pending(self) -> int:
        """Bytes held of a frame that has begun and not ended."""
        return len(self._partial)

    def head(self, most: int = 4096) -> bytes:
        """The first bytes of a frame that has begun and not ended."""
        return bytes(self._partial[:most])

    @property
    def in_frame(self) -> bool:
        return self._inside

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order."""
        events: list[Event] = []
        at, end = 0, len(data)
        while at < end:
            at = self._in_frame(data, at, events) if self._inside else self._between(data, at, events)
        return events

    def close(self) -> list[Event]:
        """The peer hung up: what was noise or unfinished is reported, and the deframer is as new."""
        events: list[Event] = []
        if self._inside:
            events.append(Restarted(len(self._partial)))
        self._report_noise(events)
        self._inside = self._skipping = False
        self._partial = bytearray()
        return events

    def _between(self, data: bytes, at: int, events: list[Event]) -> int:
        start = data.find(VT, at)
        junk = data[at:] if start < 0 else data[at:start]
        if not self._skipping:
            self._noise += len(junk) - junk.count(b"\r") - junk.count(b"\n")
        if start < 0:
            return len(data)
        self._report_noise(events)
        self._inside, self._skipping = True, False
        return start + 1

    def _in_frame(self, data: bytes, at: int, events: list[Event]) -> int:
        stop = data.find(FS, at)
        restart = data.find(VT, at, stop if stop >= 0 else len(data))
        upto = min((p for p in (stop, restart) if p >= 0), default=len(data))
        if len(self._partial) + upto - at > self._limit:
            events.append(Oversize(self._limit))
            self._partial = bytearray()
            # Resynchronise at the next VT: the rest of this frame is known to be lost, so it is not noise.
            self._inside, self._skipping = False, True
            return min(upto, at + self._limit + 1)
        if restart >= 0:
            events.append(Restarted(len(self._partial) + restart - at))
            self._partial = bytearray()
            return restart + 1
        if stop < 0:
            self._partial += data[at:]
            return len(data)
        payload = bytes(self._partial) + data[at:stop] if self._partial else bytes(data[at:stop])
        events.append(Frame(payload))
        self._partial = bytearray()
        self._inside = False
        return stop + 1

    def _report_noise(self, events: list[Event]) -> None:
        if self._noise:
            events.append(Noise(self._noise))
            self._noise = 0
