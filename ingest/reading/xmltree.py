"""XML from strangers into an element tree: no DTD, no entity, bounded in size and depth; refused, never expanded."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET
from xml.parsers import expat

__all__ = ["NotXml", "local_name", "tree_of"]

MAX_DEPTH = 200
MAX_ELEMENTS = 400_000


@dataclass(frozen=True, slots=True)
class NotXml:
    """Why there is no tree: ``dtd-refused``, ``too-large`` or ``xml-malformed``."""

    code: str
    text: str


class _Refused(Exception):
    """Raised inside one parse to leave it."""


def tree_of(raw: bytes) -> ET.Element | NotXml:
    """The root of ``raw``; names of another namespace than HL7's keep it as ``{uri}name``, HL7's are bare."""
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = elements = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise _Refused("too-large", "nested too deep, or too many elements")
        builder.start(_named(name), {_named(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_named(name))

    def doctype(*_: object) -> None:
        raise _Refused("dtd-refused", "a document type declaration is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = doctype
    parser.ExternalEntityRefHandler = doctype  # type: ignore[assignment]
    try:
        parser.Parse(raw, True)
        return builder.close()
    except _Refused as refused:
        return NotXml(*refused.args)
    except (expat.ExpatError, ValueError, LookupError, AssertionError, RecursionError):
        # LookupError: an encoding that Python does not know; AssertionError: TreeBuilder on an empty document.
        return NotXml("xml-malformed", "not well-formed XML")


_HL7 = "urn:hl7-org:v3}"
_XSI = "http://www.w3.org/2001/XMLSchema-instance}"


def _named(name: str) -> str:
    if name.startswith(_HL7):
        return name[len(_HL7) :]
    if name.startswith(_XSI):
        return f"xsi:{name[len(_XSI) :]}"
    return "{" + name if "}" in name else name


def local_name(element: ET.Element) -> str:
    """``ClinicalDocument`` for any namespace."""
    return element.tag.rsplit("}", 1)[-1]
