"""HL7 v2 text (ER7), read lazily: header peek on bytes, message splitting, fields by position, escapes, character sets.

Rule of the file: nothing is decoded, split or unescaped before somebody asks for it, and no byte is ever dropped in decoding.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from wire.memo import memo

__all__ = ["Header", "Message", "Segment", "Separators", "Split", "content_hash", "parse", "peek", "split_messages"]

NULL = '""'
_LEADING = b"\xef\xbb\xbf\x0b\x1c\r\n\t \x00"
TRAILING = b"\x0b\x1c\r\n\t \x00"
_HEADER_LIMIT = 64 * 1024
# A header whose parts are remembered: longer than any of a real feed.
_SHORT = 1024
_NO_FIELDS = [""] * 19
LF = 0x0A
"""A number: "in" finds it in a third of the time of a line feed as bytes."""

# Table 0211 and what senders write instead. ASCII is read as UTF-8: the same for what is really ASCII, and an honest
# failure (then cp1252) for what is not. UTF-16 and UTF-32 are absent: a message whose MSH was read as bytes is neither.
_CODECS = {
    "": "utf-8",
    "ASCII": "utf-8",
    "USASCII": "utf-8",
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "CP1252": "cp1252",
    "WINDOWS1252": "cp1252",
    "ANSI": "cp1252",
    "CP850": "cp850",
    "IBM850": "cp850",
    "CP437": "cp437",
    "LATIN1": "iso8859-1",
    "LATIN9": "iso8859-15",
    "ISOIR87": "iso2022_jp",
    "ISOIR14": "iso2022_jp",
    "ISOIR159": "iso2022_jp",
    "GB180302000": "gb18030",
    "KSX1001": "euc_kr",
    "BIG5": "big5",
} | {
    f"{prefix}8859{part}": f"iso8859-{part}"
    for prefix in ("", "ISO", "ISOIEC")
    for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)
}


class Header(NamedTuple):
    """MSH, as read from the bytes. A tuple rather than a dataclass: it is built for every message at the door."""

    sending_application: str
    sending_facility: str
    receiving_application: str
    receiving_facility: str
    timestamp: str
    message_code: str
    trigger: str
    structure: str
    control_id: str
    processing_id: str
    version: str
    accept_ack: str
    application_ack: str
    charset: str
    field_separator: str
    encoding_characters: str
    codec: str
    """The Python codec that decoded the header; the answer is encoded with it."""

    @property
    def separators(self) -> Separators:
        return separators(self.field_separator, self.encoding_characters)


class Separators(NamedTuple):
    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    truncation: str

    @property
    def distinct(self) -> bool:
        """False: nobody can say where a field or a component ends."""
        return len(set(self[:5])) == 5


def separators(field: str, encoding_characters: str) -> Separators:
    """MSH-1 and MSH-2; what MSH-2 leaves out has its customary value."""
    return _separators(encoding_characters, field)


@memo(256)
def _separators(encoding_characters: str, field: str) -> Separators:
    given = encoding_characters
    if len(given) == 3 and given[2] == "&":
        # ``^~&``: the backslash was lost on the way; an ampersand is nobody's escape.
        given = f"{given[:2]}\\&"
    component, repetition, escape, subcomponent = (
        given[i] if i < len(given) else default for i, default in enumerate("^~\\&")
    )
    return Separators(field, component, repetition, escape, subcomponent, given[4:5])


def peek(raw: bytes) -> Header | None:
    """The header of the message that ``raw`` begins with, or None when it does not begin with a usable MSH."""
    start = 0
    if raw[:3] != b"MSH":
        start = _skip(raw)
        if raw[start : start + 3] != b"MSH":
            return None
    end = raw.find(b"\r", start, start + _HEADER_LIMIT)
    line = raw[start : end if end >= 0 else start + _HEADER_LIMIT]
    if LF in line:
        line = line[: line.index(LF)]
    mark = line[3:4]
    if mark != b"|" and (not mark or mark.isalnum() or mark in b' "\x00\x1c' or mark[0] > 126):
        return None
    codec = "utf-8"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        codec = "iso8859-1"
        text = line.decode(codec)
    sep = text[3]
    fields = text.rstrip("\x1c").split(sep, 18)
    if len(fields) < 19:
        fields += _NO_FIELDS[len(fields) :]
    _, given, app, site, to, there, sent, _, kind, control, mode, version, _, _, accept, answer, _, charset, _ = fields
    said = _said if len(text) < _SHORT else _said.__wrapped__
    code, trigger, structure, mode, version, accept, answer = said(given[:1], kind, mode, version, accept, answer)
    return Header._make(
        (
            app, site, to, there, sent, code, trigger, structure, control, mode, version, accept, answer,
            charset, sep, given, codec,
        )
    )  # fmt: skip


@lru_cache(256)
def _said(component: str, kind: str, mode: str, version: str, accept: str, answer: str) -> tuple[str, ...]:
    """MSH-9.1 to 9.3, MSH-11.1, MSH-12.1, MSH-15 and MSH-16, which are the same in every message of a feed."""
    component = component or "^"
    code, trigger, structure = [part.strip() for part in (*kind.split(component, 3), "", "")[:3]]
    first = mode.split(component, 1)[0].strip().upper()
    return code, trigger, structure, first, version.split(component, 1)[0].strip(), accept.strip(), answer.strip()


def _skip(raw: bytes) -> int:
    """Where the text begins after a BOM, MLLP bytes and white space."""
    window = raw[:1024]
    return len(window) - len(window.lstrip(_LEADING))


@memo(256)
def codec_of(charset: str) -> str | None:
    """The Python codec of MSH-18, repetitions and all; None when no repetition names one that is known."""
    for name in charset.replace("\\", "").split("~"):
        key = re.sub(r"[^A-Z0-9]", "", name.upper())
        if key in _CODECS and (key or not charset):
            return _CODECS[key]
    return None


@memo(256)
def codecs_of(charset: str) -> tuple[str, ...]:
    """In the order in which ``decode`` tries them; ISO 8859-1 comes after the last of them."""
    declared = codec_of(charset)
    return tuple(dict.fromkeys((declared, "utf-8", "cp1252") if declared else ("utf-8", "cp1252")))


def decode(raw: bytes, charset: str = "") -> tuple[str, str]:
    """``(text, codec)``: the declared set strictly, else UTF-8 strictly, else cp1252 with undefined bytes as Latin-1.

    The last resort is lossless: every byte becomes one character.
    """
    for codec in codecs_of(charset):
        try:
            return raw.decode(codec), codec
        except (UnicodeDecodeError, UnicodeError):
            continue
    return raw.decode("iso8859-1"), "iso8859-1"


class Split(NamedTuple):
    """What a file or frame holds: ``pieces`` in order, and what its batch trailers say of their number."""

    pieces: list[bytes]
    mismatches: list[str]
    """``BTS-1: 3 messages announced, 2 found``, one sentence a trailer that disagrees."""


_SEGMENT_END = re.compile(rb"[\r\n]+")
_BATCH = (b"FHS", b"BHS", b"BTS", b"FTS")
_STARTS = re.compile(rb"(?:^|[\r\n\x0b\x1c])(?:\xef\xbb\xbf)?(?=MSH[^A-Za-z0-9\s])")


def split_messages(raw: bytes) -> list[bytes]:
    """The messages of ``raw``: each MSH begins one, batch segments fall away, other text before is a piece of its own."""
    return split(raw).pieces


def split(raw: bytes) -> Split:
    """As ``split_messages``, with the counts of BTS-1 and FTS-1 held against what was found."""
    if raw[:3] == b"MSH" and raw.find(b"MSH", 3) < 0 and raw.find(b"TS", -256) < 0:
        # What nearly every frame is: one message, and no trailer (BTS, FTS) at its end. Searching for words costs a
        # hundredth of the expression below.
        return Split([raw.strip(TRAILING)], [])
    begins = [m.end() for m in _STARTS.finditer(raw)]
    if len(begins) == 1 and not raw[: begins[0]].strip(_LEADING) and b"BTS" not in raw and b"FTS" not in raw:
        return Split([raw[begins[0] :].strip(TRAILING)], [])
    pieces: list[bytes] = []
    trailers: list[tuple[str, int | None, int]] = []
    in_batch = batches = 0
    marks = [0, *begins, len(raw)]
    for number, (start, end) in enumerate(pairwise(marks)):
        kept: list[bytes] = []
        if number:
            in_batch += 1
        for line in _SEGMENT_END.split(raw[start:end].strip(_LEADING if not number else TRAILING)):
            bare = line.strip(b"\x0b\x1c")
            name = bare[:3]
            if name not in _BATCH or bare[3:4].isalnum():
                kept.append(bare)
                continue
            if name == b"BHS":
                in_batch = 0
                batches += 1
            elif name == b"BTS":
                trailers.append(("BTS-1", _announced(bare), in_batch))
                in_batch = 0
            elif name == b"FTS":
                trailers.append(("FTS-1", _announced(bare), batches))
        piece = b"\r".join(kept).strip(TRAILING)
        if piece:
            pieces.append(piece)
    unit = {"BTS-1": "messages", "FTS-1": "batches"}
    return Split(
        pieces,
        [
            f"{at}: {said} {unit[at]} announced, {found} found"
            for at, said, found in trailers
            if said not in (None, found)
        ],
    )


def _announced(line: bytes) -> int | None:
    digits = line[4:].split(line[3:4] or b"|", 1)[0].strip()
    return int(digits) if digits.isdigit() and len(digits) < 10 else None


def content_hash(raw: bytes) -> bytes:
    """BLAKE2b of the segments without MSH-7 and MSH-10: equal for a message that was only sent again."""
    start = _skip(raw)
    body = raw[start:].strip(TRAILING)
    if b"\n" in body:
        body = _SEGMENT_END.sub(b"\r", body)
    digest = hashlib.blake2b(digest_size=32)
    head, _, rest = body.partition(b"\r")
    if head[:3] != b"MSH" or len(head) == 3:
        digest.update(body)
        return digest.digest()
    fields = head.split(head[3:4])
    for at in (6, 9):
        if at < len(fields):
            fields[at] = b""
    digest.update(head[3:4].join(fields) + b"\r")
    digest.update(rest)
    return digest.digest()


_ESCAPE_TEXT = {".br": "\n", ".sp": "\n", ".ce": "\n", ".in": "", ".ti": "", ".fi": "", ".nf": "", "H": "", "N": ""}
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z")


def unescape(text: str, marks: Separators, codec: str = "utf-8") -> str:
    r"""One pass over the escapes; an unknown or unfinished one is kept literally (``\Zxx\``, a lone backslash)."""
    escape = marks.escape
    if escape not in text:
        return text
    out: list[str] = []
    parts = text.split(escape)
    at = 0
    last = len(parts) - 1
    while at < last:
        out.append(parts[at])
        found = _escaped(parts[at + 1], marks, codec) if at + 1 < last else None
        if found is None:
            out.append(escape)
            at += 1
        else:
            out.append(found)
            at += 2
    if at == last:
        out.append(parts[last])
    return "".join(out)


def _escaped(word: str, marks: Separators, codec: str) -> str | None:
    match word:
        case "F":
            return marks.field
        case "S":
            return marks.component
        case "T":
            return marks.subcomponent
        case "R":
            return marks.repetition
        case "E":
            return marks.escape
        case "P" if marks.truncation:
            return marks.truncation
    if word[:1] == "X" and _HEX.match(word, 1):
        try:
            return bytes.fromhex(word[1:]).decode(codec)
        except UnicodeDecodeError:
            return None
    if word[:3] in _ESCAPE_TEXT and (len(word) == 3 or word[3:].strip("+- ").isdigit()):
        return _ESCAPE_TEXT[word[:3]]
    return _ESCAPE_TEXT.get(word)


@dataclass(slots=True)
class Segment:
    """One segment: ``number`` is its place among those of its name, from 1. Positions are HL7's: ``field(3)`` is OBX-3."""

    line: str
    number: int
    separators: Separators
    codec: str = "utf-8"
    _fields: list[str] | None = None

    @property
    def name(self) -> str:
        return self.line[:3]

    @property
    def fields(self) -> list[str]:
        if self._fields is None:
            fields = self.line.split(self.separators.field)
            if fields[0] == "MSH":
                fields.insert(1, self.separators.field)
            self._fields = fields
        return self._fields

    def field(self, position: int) -> str:
        """The raw field, escapes and repetitions included; "" when the segment is shorter."""
        fields = self._fields or self.fields
        return fields[position].strip() if position < len(fields) else ""

    def is_null(self, position: int) -> bool:
        """The explicit null ``""``: delete what is stored; an empty field says nothing."""
        return self.field(position) == NULL

    def repetitions(self, position: int) -> list[str]:
        text = self.field(position)
        return text.split(self.separators.repetition) if text else []

    def components(self, position: int, repetition: int = 0) -> list[str]:
        """The components of one repetition, unescaped; sub-components are left joined."""
        text = self.field(position)
        if not text:
            return []
        if self.separators.repetition not in text:
            return [] if repetition else self.split_components(text)
        repeats = text.split(self.separators.repetition)
        return self.split_components(repeats[repetition]) if repetition < len(repeats) else []

    def split_components(self, text: str) -> list[str]:
        parts = text.split(self.separators.component)
        return [self.text(p) for p in parts] if self.separators.escape in text else [p.strip() for p in parts]

    def split_subcomponents(self, text: str) -> list[str]:
        return [self.text(p) for p in text.split(self.separators.subcomponent)]

    def component(self, position: int, component: int = 1) -> str:
        """One component (from 1) of the first repetition, unescaped; the null reads as ""."""
        parts = self.components(position)
        value = parts[component - 1] if component <= len(parts) else ""
        return "" if value == NULL else value

    def text(self, raw: str) -> str:
        return unescape(raw, self.separators, self.codec).strip()

    def at(self, position: int | None = None, component: int | None = None) -> str:
        """A printable address: ``OBX[2]``, ``OBX[2]-5``, ``OBX[2]-5.1``."""
        address = f"{self.name}[{self.number}]"
        if position is not None:
            address += f"-{position}"
        return address if component is None else f"{address}.{component}"


@dataclass(slots=True)
class Message:
    """One message: its header, and its text with CR between segments. Lines and segments are made when asked for."""

    header: Header
    separators: Separators
    text: str
    codec: str
    _lines: list[str] | None = None

    @property
    def lines(self) -> list[str]:
        """The segments as text, empty lines left out."""
        if self._lines is None:
            lines = _flush(self.text).split("\r")
            self._lines = [line for line in lines if line] if "" in lines else lines
        return self._lines

    @property
    def blocks(self) -> list[str]:
        """What stands before the first OBX, then each OBX with the lines behind it, less the name ``OBX`` itself.

        Most of a message are OBX: cut here, they are found without a look at every line.
        """
        blocks = self.text.split("\rOBX")
        # Few blocks have several lines, and only those can hold an indented one: cheaper than a search of the whole text.
        if any("\r " in block for block in [b for b in blocks if "\r" in b]):
            return _flush(self.text).split("\rOBX")
        return blocks

    def segments(self, name: str | None = None) -> Iterator[Segment]:
        counts: dict[str, int] = {}
        for line in self.lines:
            key = line[:3]
            number = counts[key] = counts.get(key, 0) + 1
            if name is None or name == key:
                yield Segment(line, number, self.separators, self.codec)

    def segment(self, name: str) -> Segment | None:
        return next(self.segments(name), None)


def parse(raw: bytes, charset: str = "", *, header: Header | None = None) -> Message | None:
    """The message that ``raw`` begins with, or None when there is no usable MSH. ``charset``: where MSH-18 is empty;
    ``header``: what ``peek`` has read of it."""
    header = header or peek(raw)
    if header is None:
        return None
    marks = header.separators
    body = raw.strip(TRAILING) if raw[:3] == b"MSH" else raw[_skip(raw) :].strip(TRAILING)
    text, codec = decode(body, header.charset.replace(marks.repetition, "~") or charset)
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    return Message(header, marks, text, codec)


def _flush(text: str) -> str:
    """``text`` with its segments at the left margin: some senders indent them."""
    return "\r".join(line.lstrip() for line in text.split("\r")) if "\r " in text else text
