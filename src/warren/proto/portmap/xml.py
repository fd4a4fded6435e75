"""XML of a gateway, read as if it were an attack: no document type, no entities, bounded in size, depth and number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Never
from xml.parsers import expat

from warren.errors import MalformedPacket

BYTES_MAX: Final = 128 * 1024
"""Descriptions of real gateways have up to 40 KB."""
DEPTH_MAX: Final = 24
"""InternetGatewayDevice, WANDevice and WANConnectionDevice nest their services nine deep."""
ELEMENTS_MAX: Final = 4096
_PADDING: Final = b"\0 \r\n\t"  # behind the document, in answers of some gateways


class Element:
    """A tag without its namespace prefix, the text directly in it, and what it contains. Attributes are not kept."""

    __slots__ = ("_text", "children", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[Element] = []
        self._text: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._text).strip()

    def append_text(self, text: str) -> None:
        self._text.append(text)

    def all(self, name: str) -> Iterator[Element]:
        """Every element of that name inside this one, however deep, in the order of the document."""
        waiting = [*reversed(self.children)]
        while waiting:
            element = waiting.pop()
            if element.name == name:
                yield element
            waiting.extend(reversed(element.children))

    def first(self, name: str) -> Element | None:
        return next(self.all(name), None)

    def value(self, name: str) -> str:
        """The text of the child of that name; empty when there is none."""
        return next((child.text for child in self.children if child.name == name), "")


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, _attributes: object) -> None:
        self._count += 1
        if self._count > ELEMENTS_MAX or len(self._open) >= DEPTH_MAX:
            raise MalformedPacket("XML with too many elements, or nested too deep")
        element = Element(name.rpartition(":")[2])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        if self._open:
            self._open[-1].append_text(text)


def _refuse(*_: object) -> Never:
    raise MalformedPacket("XML with a document type or entities")


def parse_untrusted(data: bytes) -> Element:
    """The root element. Raises MalformedPacket."""
    if len(data) > BYTES_MAX:
        raise MalformedPacket(f"XML of {len(data)} bytes")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    # A document type is all that entities can come from; the others stand behind it.
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.UnparsedEntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    try:
        parser.Parse(data.rstrip(_PADDING), True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: an encoding that does not exist
        raise MalformedPacket(f"XML that does not parse: {error}") from None
    if builder.root is None:
        raise MalformedPacket("XML without an element")
    return builder.root
