from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile_xml import EXTERNAL, LAUGHS, PARAMETER, QUADRATIC, REMOTE_DTD
from warren.errors import MalformedPacket
from warren.proto.portmap import xml


@pytest.mark.parametrize("data", [LAUGHS, EXTERNAL, REMOTE_DTD, PARAMETER, QUADRATIC], ids=lambda data: str(data[:40]))
def test_document_types_are_refused_before_anything_is_expanded(data: bytes) -> None:
    with pytest.raises(MalformedPacket, match="document type"):
        xml.parse_untrusted(data)


def test_elements_are_found_whatever_their_prefix() -> None:
    root = xml.parse_untrusted(b"<a:x xmlns:a='u'><y> 1 </y><b:z xmlns:b='v'><y>2</y></b:z><y>3</y></a:x>\0\r\n")
    assert (root.name, root.value("y"), root.value("z")) == ("x", "1", "")
    assert [element.text for element in root.all("y")] == ["1", "2", "3"]
    assert root.first("nothing") is None


def test_the_five_entities_that_every_document_has_are_read() -> None:
    assert xml.parse_untrusted(b"<x>&lt;&amp;&#65;</x>").text == "<&A"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"   ",
        b"no xml",
        b"<x>",
        b"<x></y>",
        b"<x/><y/>",
        b"<x>&unknown;</x>",
        b"<?xml version='1.0' encoding='no-such-encoding'?><x/>",
        b"<?xml version='1.0' encoding='utf-7'?><x/>",
        b"<?xml version='1.0' encoding='idna'?><x/>",
        b"<x>\xff\xfe</x>",
        b"<x>" + b"a" * xml.BYTES_MAX + b"</x>",
        b"<x>" * (xml.DEPTH_MAX + 1) + b"</x>" * (xml.DEPTH_MAX + 1),
        b"<x>" + b"<y/>" * xml.ELEMENTS_MAX + b"</x>",
    ],
    ids=lambda data: str(data[:40]),
)
def test_what_is_no_small_document_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        xml.parse_untrusted(data)


def test_the_limits_themselves_are_still_good() -> None:
    assert xml.parse_untrusted(b"<x>" * xml.DEPTH_MAX + b"</x>" * xml.DEPTH_MAX).name == "x"
    root = xml.parse_untrusted(b"<x>" + b"<y/>" * (xml.ELEMENTS_MAX - 1) + b"</x>")
    assert len(list(root.all("y"))) == xml.ELEMENTS_MAX - 1


_PIECES = st.sampled_from(
    [
        b"<a>",
        b"</a>",
        b"<b x='1'/>",
        b"text",
        b"&amp;",
        b"<!DOCTYPE a>",
        b"<![CDATA[x]]>",
        b"<?pi?>",
        b"<!--c-->",
        b"\xff",
    ]
)


@given(st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=30).map(b"".join)))
def test_anything_parses_or_is_malformed(data: bytes) -> None:
    try:
        xml.parse_untrusted(data)
    except MalformedPacket:
        return


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20))
def test_any_name_of_an_encoding_parses_or_is_malformed(name: str) -> None:
    try:
        xml.parse_untrusted(f"<?xml version='1.0' encoding='{name}'?><x/>".encode())
    except MalformedPacket:
        return
