from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gateways import description, soap_answer, soap_fault
from warren.errors import MalformedPacket
from warren.proto.portmap import igd
from warren.proto.portmap.http import Response
from warren.proto.portmap.igd import Fault, Service
from warren.proto.portmap.ssdp import Location

BASE = Location(ip_address("192.168.1.1"), 5000, "/dir/root.xml")
SERVICE = Service(igd.CONNECTION_TYPES[0], Location(BASE.host, 5000, "/ctl"))


def document(*services: tuple[str, str], base: str = "") -> bytes:
    parts = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>" for kind, url in services
    )
    stated = f"<URLBase>{base}</URLBase>" if base else ""
    return f"<root>{stated}<device><serviceList>{parts}</serviceList></device></root>".encode()


def test_the_services_of_a_description_are_found() -> None:
    found = igd.unpack_description_untrusted(description(2).encode(), BASE)
    assert [(one.version, str(one.control.path)) for one in found.connections] == [(2, "/ctl/ip")]
    assert found.firewall is not None
    assert found.model == "Fritz 7"
    assert igd.unpack_description_untrusted(description(1).encode(), BASE).firewall is None


def test_the_best_service_comes_first_and_there_are_not_too_many() -> None:
    two, one, ppp = igd.CONNECTION_TYPES
    found = igd.unpack_description_untrusted(
        document((ppp, "/p"), *[(one, f"/{n}") for n in range(9)], (two, "/t")), BASE
    )
    assert [service.control.path for service in found.connections] == ["/t", "/0", "/1", "/2", "/3", "/p"]


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("/ctl", "", "/ctl"),
        ("ctl", "", "/dir/ctl"),
        ("http://192.168.1.1:5000/ctl", "", "/ctl"),
        ("ctl", "http://192.168.1.1:80/", "/ctl"),
    ],
)
def test_the_control_url_may_be_relative(url: str, base: str, path: str) -> None:
    found = igd.unpack_description_untrusted(document((igd.CONNECTION_TYPES[1], url), base=base), BASE)
    assert found.connections[0].control.path == path


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://169.254.169.254/latest", ""),
        ("http://192.168.1.66/ctl", ""),
        ("/ctl", "http://192.168.1.66/"),
        ("/ctl", "nonsense"),
        ("/c t l", ""),
        ("/ctl&#13;&#10;Evil: yes", ""),
        ("", ""),
        ("https://192.168.1.1/ctl", ""),
    ],
)
def test_a_service_elsewhere_is_refused(url: str, base: str) -> None:
    data = document((igd.CONNECTION_TYPES[1], url), base=base)
    if url:
        with pytest.raises(MalformedPacket):
            igd.unpack_description_untrusted(data, BASE)
    else:
        assert igd.unpack_description_untrusted(data, BASE).connections[0].control.path == "/dir/"


def test_a_device_that_maps_no_ports_is_refused() -> None:
    with pytest.raises(MalformedPacket, match="without a service"):
        igd.unpack_description_untrusted(document(("urn:schemas-upnp-org:service:ContentDirectory:1", "/x")), BASE)


def test_what_a_gateway_says_of_itself_is_made_fit_to_be_shown() -> None:
    assert igd.printable("a\x1b[31m\r\nb\u202e" + "x" * 500) == ("a [31m b " + "x" * 500)[:64]


def test_an_action_is_an_envelope_with_escaped_values() -> None:
    packed = igd.pack_action(SERVICE, "Act", (("A", "<&>"), ("B", "")))
    assert b"<A>&lt;&amp;&gt;</A><B></B>" in packed
    assert b'SOAPAction: "urn:schemas-upnp-org:service:WANIPConnection:2#Act"' in packed


def test_answers_and_faults_are_told_apart() -> None:
    good = Response(200, {}, soap_answer("Act", {"A": "1"}).encode())
    assert igd.unpack_action_untrusted(good, "Act") == {"A": "1"}
    fault = igd.unpack_action_untrusted(Response(500, {}, soap_fault(718).encode()), "Act")
    assert fault == Fault(718)
    assert isinstance(fault, Fault)
    assert fault.why == "has given the port to another host"
    assert Fault(9999).why == "refuses with UPnP error 9999"


@pytest.mark.parametrize(
    "response",
    [
        Response(302, {"location": "http://169.254.169.254/"}),
        Response(404, {}, b""),
        Response(200, {}, b""),
        Response(200, {}, soap_answer("Other", {}).encode()),
        Response(500, {}, soap_answer("Act", {"A": "1"}).encode()),
        Response(500, {}, b"<x><errorCode>minus one</errorCode></x>"),
        Response(500, {}, b"<x><errorCode>123456</errorCode></x>"),
        Response(500, {}, b"<x/>"),
    ],
)
def test_an_answer_to_something_else_is_malformed(response: Response) -> None:
    with pytest.raises(MalformedPacket):
        igd.unpack_action_untrusted(response, "Act")


def test_values_are_bounded() -> None:
    answer = igd.unpack_action_untrusted(Response(200, {}, soap_answer("Act", {"A": "x" * 9000}).encode()), "Act")
    assert isinstance(answer, dict)
    assert len(answer["A"]) == igd.VALUE_MAX


_WORDS = (
    "<service> </service> <serviceType> </serviceType> <controlURL> </controlURL> <ActResponse> </ActResponse> "
    "<errorCode> </errorCode> /ctl http://192.168.1.1/ 718 &#13;"
)
_XML = st.sampled_from([*_WORDS.split(), *igd.CONNECTION_TYPES])


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(_XML, max_size=25).map(lambda parts: f"<r>{''.join(parts)}</r>".encode())
    )
)
def test_anything_parses_or_is_malformed(data: bytes) -> None:
    for attempt in (
        lambda: igd.unpack_description_untrusted(data, BASE),
        lambda: igd.unpack_action_untrusted(Response(200, {}, data), "Act"),
        lambda: igd.unpack_action_untrusted(Response(500, {}, data), "Act"),
    ):
        try:
            attempt()
        except MalformedPacket:
            continue
