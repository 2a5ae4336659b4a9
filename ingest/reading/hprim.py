"""Reads HPRIM Santé 2.x (H, P, OBR, OBX, C, A, L: ASTM's lines) by turning it into the segments that the HL7 v2 reader walks.

Rule of the file: the delimiters are those of H.2, in the order of HPRIM (component, repetition, escape, subcomponent);
positions of OBR and OBX are HL7's. A status that is not there stays missing: preliminary, unless a site profile says better.
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from msgspec import structs

from ingest.reading.hl7v2 import read_parsed
from ingest.reading.outcome import Problem, Reading
from ingest.reading.site import Site
from wire.er7 import Header, Message, Separators, decode

__all__ = ["head_of_hprim", "is_whole", "looks_like_hprim", "message_of", "read_hprim"]

_HEAD = re.compile(rb"H([^A-Za-z0-9\s])([^A-Za-z0-9\s]{2,5})\1")
# Bytes that are French letters in code page 850 and odd punctuation in 1252, and the other way round.
_DOS = frozenset(b"\x82\x83\x85\x87\x88\x8a\x93\x97")
_WINDOWS = frozenset(b"\xe0\xe2\xe7\xe8\xe9\xea\xee\xf4\xfb\xb0\xb5")


def looks_like_hprim(raw: bytes) -> bool:
    return _HEAD.match(raw.lstrip(b"\xef\xbb\xbf\x0b\x02\r\n\t ")) is not None


def read_hprim(raw: bytes, *, zone: ZoneInfo | None = None, site: Site | None = None) -> Reading:
    """One file. Never raises for any bytes; a file without its L line is half of one and set aside."""
    lines = _lines(raw, site)
    if not lines:
        return _set_aside("not-a-message", "H[1]", "H[1]: no HPRIM header")
    message = _message(lines)
    mark, name = lines[0][1], message.header.control_id
    if not message.separators.distinct:
        return _set_aside("separators", "H[1]-2", "H[1]-2: the separators are not distinct", name)
    if not any(line[:2] == f"L{mark}" or line.strip() == "L" for line in lines):
        return _set_aside("file-truncated", "L", "L: the closing line is missing: half a file", name)
    return structs.replace(read_parsed(message, zone, site), format="hprim")


def message_of(raw: bytes) -> Message | None:
    """The file as the HL7 v2 message that it stands for, whole or not; None without a header."""
    lines = _lines(raw, None)
    return _message(lines) if lines else None


def _lines(raw: bytes, site: Site | None) -> list[str]:
    """Empty where the first is no header."""
    text = _decoded(raw, site).lstrip("\ufeff\x0b\x02\r\n\t ")
    lines = _joined([line for line in re.split(r"[\r\n]+", text.rstrip("\x1a\x1c\x03 \r\n")) if line.strip()])
    return lines if lines and _HEAD.match(lines[0].encode(errors="replace")) else []


def _message(lines: list[str]) -> Message:
    mark = lines[0][1]
    head = [*lines[0].split(mark), *[""] * 14]
    marks = _separators(mark, head[1])
    header = _header(head, marks)
    segments = [segment for line in lines[1:] if (segment := _segment(line, marks, header))]
    return Message(header, marks, "\r".join([f"MSH{mark}{head[1]}", *segments]), "utf-8")


def head_of_hprim(raw: bytes) -> tuple[str, str]:
    """``(sender, name of the file)`` as the reading will have them; empty where there is no header."""
    text = _decoded(raw[:4096], None).lstrip("\ufeff\x0b\x02\r\n\t ")
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if not _HEAD.match(line.encode(errors="replace")):
        return "", ""
    head = [*line.split(line[1]), *[""] * 14]
    header = _header(head, _separators(line[1], head[1]))
    return f"{header.sending_application}|{header.sending_facility}", header.control_id


def is_whole(head: bytes, tail: bytes) -> bool:
    """Has a file, of which these are the edges, its last line? An HPRIM file ends in L, an HL7 batch in FTS or BTS."""
    lines = re.split(rb"[\r\n]+", tail.rstrip(b"\x1a\x1c\x03 \r\n"))
    if looks_like_hprim(head):
        return lines[-1][:1] == b"L" and not lines[-1][1:2].isalnum()
    start = head.lstrip(b"\xef\xbb\xbf\x0b \r\n")[:3]
    if start in (b"FHS", b"BHS"):
        return lines[-1][:3] == (b"FTS" if start == b"FHS" else b"BTS")
    return bool(head)


def _set_aside(code: str, where: str, text: str, control_id: str = "") -> Reading:
    problem = Problem(code, where, text)
    return Reading(format="hprim", disposition="set_aside", control_id=control_id, problems=(problem,))


def _decoded(raw: bytes, site: Site | None) -> str:
    """The profile's set, else UTF-8 strictly, else the code page whose letters are there; nothing declares it."""
    if site is not None and site.charset:
        return decode(raw, site.charset)[0]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        found = set(raw)
        dos = bool(found & _DOS) and not found & _WINDOWS
        return raw.decode("cp850") if dos else raw.decode("cp1252", "replace")


def _joined(lines: list[str]) -> list[str]:
    """``A`` lines go on where the line before them was cut."""
    out: list[str] = []
    for line in lines:
        if out and len(line) > 1 and line[0] == "A" and line[1] == out[0][1:2]:
            out[-1] += line[2:]
        else:
            out.append(line)
    return out


def _separators(mark: str, given: str) -> Separators:
    component, repetition, escape, subcomponent = (
        given[n] if n < len(given) else default for n, default in enumerate("~^\\&")
    )
    return Separators(mark, component, repetition, escape, subcomponent, "")


def _header(head: list[str], marks: Separators) -> Header:
    """H as the MSH that it stands for: H.3 file, H.5 sender, H.7 kind, H.10 recipient, H.12 P/T/D, H.13 version."""
    sender = [*head[4].split(marks.component), ""]
    recipient = [*head[9].split(marks.component), ""]
    return Header(
        sending_application=sender[0].strip(),
        sending_facility=sender[1].strip(),
        receiving_application=recipient[0].strip(),
        receiving_facility=recipient[1].strip(),
        timestamp=head[13].strip(),
        message_code=head[6].split(marks.component)[0].strip().upper() or "ORU",
        trigger="",
        structure="",
        control_id=head[2].strip(),
        processing_id=head[11].strip().upper(),
        version=head[12].split(marks.component)[0].strip(),
        accept_ack="",
        application_ack="",
        charset="",
        field_separator=marks.field,
        encoding_characters="".join(marks[1:5]),
        codec="utf-8",
    )


def _segment(line: str, marks: Separators, header: Header) -> str:
    """The HL7 segment of one line; "" for what has none (L, AP, AC, REG, FAC ...)."""
    fields = [*line.split(marks.field), *[""] * 9]
    match fields[0]:
        case "P":
            return marks.field.join(_patient(fields, marks, header))
        case "C":
            return marks.field.join(["NTE", fields[1], "", fields[3] or fields[2]])
        case "OBR" | "OBX":
            return line
        case _:
            return ""


def _patient(fields: list[str], marks: Separators, header: Header) -> list[str]:
    """P.2 to P.4 are numbers without an authority: that of the sender, until a site profile names another."""
    authority = header.sending_application or header.sending_facility
    numbers = [fields[n].split(marks.component)[0].strip() for n in (2, 3, 4)]
    filler = marks.component * 3
    given = [f"{number}{filler}{authority}" for number in dict.fromkeys(numbers) if number]
    pid = ["PID", fields[1], "", marks.repetition.join(given), "", fields[5], fields[6], fields[7], fields[8]]
    return pid
