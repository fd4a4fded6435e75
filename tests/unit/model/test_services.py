"""What services and connectors may be, and how targets and places are written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.networks import MadeNetwork
from warren.errors import MalformedPacket
from warren.model.documents import NetworkSpec
from warren.model.envelope import seal
from warren.model.services import Connector, Service, mismatch, place_of
from warren.model.verified import verify

HOME = MadeNetwork()
SERVICE: dict[str, Any] = {"name": "web", "at": ["members"], "target": "localhost:80"}
CONNECTOR: dict[str, Any] = {"name": "shop", "at": ["tag:gw"], "service": "web"}


def carried(**change: Any) -> NetworkSpec:
    """A NetworkSpec with this in it, as a member reads it."""
    content = {**msgspec.msgpack.decode(HOME.spec().envelope.payload), **change}
    document = verify(seal("network", msgspec.msgpack.encode(content), HOME.authority), HOME.key).document
    assert isinstance(document, NetworkSpec)
    return document


@pytest.mark.parametrize(
    "change",
    [
        *({"at": at} for at in (["member:a", "tag:b", "10.0.0.0/8", "fd00::/64"], ["members"] * 64)),
        *({"target": target} for target in ("h:1", "db.lan:49151", "[2001:db8::7]:80", "a_b.c.:80")),
        {"target": "h:60000", "port": 49_151},
        {"target": "unix:/run/x.sock", "port": 80},
        {"protocol": "udp", "target": "h:53"},
        {"protocol": "udp", "helper": "tftp"},
        {"helper": "ftp"},
        {"connect_timeout_s": 60, "idle_s": 604_800, "health_s": 0, "proxy_protocol": True, "comment": "Grüße"},
    ],
    ids=str,
)
def test_what_a_service_may_be(change: dict[str, Any]) -> None:
    (service,) = carried(services=[{**SERVICE, **change}]).services
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(service)) == {**SERVICE, **change}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "Web"}, "matching regex"),
        ({"at": []}, "length >= 1"),
        ({"at": ["members"] * 65}, "length <= 64"),
        ({"at": ["web"]}, "'web' is no selector"),
        ({"at": ["service:web"]}, "'service:web' is no selector"),
        ({"target": "h"}, "'h' is no target"),
        ({"target": "8080"}, "'8080': say 127.0.0.1:8080 for the serving member itself"),
        ({"target": ":8080"}, "':8080': say 127.0.0.1:8080 for the serving member itself"),
        ({"target": "unix:/run/x.sock"}, "say a port, since unix:/run/x.sock has none"),
        ({"target": "unix:/x", "port": 80, "protocol": "udp"}, "a Unix socket takes plain TCP streams only"),
        ({"target": "unix:/x", "port": 80, "helper": "ftp"}, "a Unix socket takes plain TCP streams only"),
        ({"port": 0}, ">= 1"),
        ({"port": 49_152}, "choose a port below 49152"),
        ({"target": "h:65535"}, "choose a port below 49152"),
        ({"protocol": "sctp"}, "Invalid enum value"),
        ({"connect_timeout_s": 0}, ">= 1"),
        ({"connect_timeout_s": 61}, "<= 60"),
        ({"idle_s": 0}, ">= 1"),
        ({"idle_s": 604_801}, "<= 604800"),
        ({"health_s": -1}, ">= 0"),
        ({"health_s": 3601}, "<= 3600"),
        ({"helper": "ftp", "protocol": "udp"}, "FTP needs protocol tcp"),
        ({"helper": "ftp", "proxy_protocol": True}, "goes without PROXY protocol"),
        ({"helper": "tftp"}, "TFTP needs protocol udp"),
        ({"protocol": "udp", "proxy_protocol": True}, "the PROXY protocol needs protocol tcp"),
        ({"comment": "a\x1b[2J"}, "matching regex"),
    ],
    ids=str,
)
def test_what_a_service_may_not_be(change: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        carried(services=[{**SERVICE, **change}])


@pytest.mark.parametrize(
    "change",
    [
        {"listen": "[::1]:8080", "sources": ["192.0.2.0/24", "2001:db8::/32"], "rate": 0.5, "streams_max": 65_536},
        {"listen": "unix:/run/x", "accepts_proxy_protocol": True},
        {"kind": "tls", "domains": ["a.example"], "accepts_proxy_protocol": True},
        {"kind": "http"},
        {"kind": "http", "certificate": "none", "domains": ["a.example", "xn--mgba.b.example"]},
        {"domains": [f"d{number}.example" for number in range(64)], "kind": "tls"},
    ],
    ids=str,
)
def test_what_a_connector_may_be(change: dict[str, Any]) -> None:
    (connector,) = carried(connectors=[{**CONNECTOR, **change}]).connectors
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(connector)) == {**CONNECTOR, **change}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"service": "web_1"}, "matching regex"),
        ({"at": ["all"]}, "'all' is no selector"),
        ({"listen": ":80"}, "say 80 for this host alone"),
        ({"kind": "tls"}, "kind tls needs domains"),
        ({"domains": ["a.example"]}, "domains need kind tls or http"),
        ({"kind": "http", "listen": "unix:/x"}, "kind http listens on a port"),
        ({"kind": "tls", "domains": ["a.example"], "certificate": "none"}, "only kind http has a certificate"),
        ({"kind": "http", "accepts_proxy_protocol": True}, "kind http takes no PROXY protocol"),
        ({"kind": "http", "domains": ["A.example"]}, "matching regex"),
        ({"kind": "http", "domains": ["a.example", "a.example"]}, "the domain a.example is there twice"),
        ({"kind": "http", "domains": ["192.0.2.1"]}, "192.0.2.1 is no domain but an address"),
        ({"kind": "http", "domains": ["a.example"] * 65}, "length <= 64"),
        ({"sources": ["192.0.2.1/24"]}, "has host bits set"),
        ({"sources": ["10.0.0.0/8"] * 257}, "length <= 256"),
        ({"rate": 0}, "> 0"),
        ({"rate": float("nan")}, "Expected `float`"),
        ({"rate": float("inf")}, "<= 1000000"),
        ({"streams_max": 0}, ">= 1"),
        ({"streams_max": 65_537}, "<= 65536"),
    ],
    ids=str,
)
def test_what_a_connector_may_not_be(change: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        carried(connectors=[{**CONNECTOR, **change}])


def test_a_network_has_1024_services_and_connectors_of_different_names() -> None:
    services = [{**SERVICE, "name": f"s{number}"} for number in range(1024)]
    connectors = [{**CONNECTOR, "name": f"c{number}"} for number in range(1024)]
    spec = carried(services=services, connectors=connectors)
    assert (len(spec.services), len(spec.connectors)) == (1024, 1024)
    for change in (
        {"services": [*services, {**SERVICE, "name": "more"}]},
        {"connectors": [*connectors, {**CONNECTOR, "name": "more"}]},
        {"services": [SERVICE, SERVICE]},
        {"connectors": [CONNECTOR, CONNECTOR]},
    ):
        with pytest.raises(MalformedPacket):
            carried(**change)


def connector(**more: Any) -> Connector:
    return Connector(name="c", at=("members",), service="s", **more)


def service(**more: Any) -> Service:
    return Service(**{"name": "s", "at": ("members",), "target": "h:8080", **more})


TCP, UDP, FTP = service(), service(protocol="udp"), service(helper="ftp")


@pytest.mark.parametrize(
    ("one", "to", "why"),
    [
        (connector(), TCP, None),
        (connector(), UDP, None),
        (connector(), FTP, None),
        (connector(kind="http"), TCP, None),
        (connector(kind="http"), UDP, "take kind port"),
        (connector(kind="tls", domains=("a.b",)), UDP, "take kind port"),
        (connector(kind="tls", domains=("a.b",)), FTP, "the service speaks FTP"),
        (connector(accepts_proxy_protocol=True), TCP, None),
        (connector(accepts_proxy_protocol=True), UDP, "the PROXY protocol is for streams"),
        (connector(accepts_proxy_protocol=True), FTP, "past the load balancer"),
        (connector(listen="unix:/x"), TCP, None),
        (connector(listen="unix:/x"), UDP, "listen on a port"),
        (connector(listen="unix:/x"), FTP, "listen on a port"),
    ],
)
def test_a_connector_carries_what_its_service_speaks_or_not(one: Connector, to: Service, why: str | None) -> None:
    found = mismatch(one, to)
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


@pytest.mark.parametrize(
    ("one", "place"),
    [
        (connector(), "127.0.0.1:8080"),
        (connector(listen="*:1"), "*:1"),
        (connector(kind="tls", domains=("a.b",)), "*:443"),
        (connector(kind="http"), "*:443"),
        (connector(kind="http", certificate="internal"), "*:443"),
        (connector(kind="http", certificate="none"), "*:80"),
        (connector(kind="http", certificate="none", listen="*:8080"), "*:8080"),
    ],
)
def test_a_connector_listens_where_it_says_or_where_its_kind_does(one: Connector, place: str) -> None:
    assert str(place_of(one, TCP)) == place
