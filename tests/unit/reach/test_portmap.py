from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import pytest

from tests.support.gateway_server import Serve, loopback_gateway, serving
from tests.support.gateways import OUTSIDE, FakeGateway
from tests.support.hostile_xml import LAUGHS, REMOTE_DTD
from warren.model.tunnel import TransportAddress
from warren.reach.portmap import PortMapping, discover

KINDS = {"pcp": {"pcp": True}, "nat-pmp": {"nat_pmp": True}, "upnp": {"upnp": 2}}
AT_ONCE = {"pcp": True, "refuses": 2}
"""The direct protocols end at once, so that UPnP has its turn without waiting for silence."""


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


@pytest.mark.parametrize("kind", KINDS)
def test_a_way_in_is_got_told_and_given_back(kind: str) -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), **KINDS[kind])  # type: ignore[arg-type]
        changed = asyncio.Event()
        async with serving(fake):
            mapping = PortMapping(port=lambda: 51820, gateways=lambda: [fake.gateway], changed=changed.set)
            async with mapping:
                await changed.wait()
                assert [(str(one.address), one.protocol) for one in mapping.mapped] == [("45.80.1.2:51820", kind)]
                assert set(fake.entries) == {51820}
                changed.clear()
                assert mapping.confirm(TransportAddress(OUTSIDE, 51820))
                assert changed.is_set()
                assert mapping.mapped[0].verified
                changed.clear()
                mapping.observed(TransportAddress(OUTSIDE, 51820), fake.gateway.source)
                assert not changed.is_set(), "nothing new"
            assert fake.entries == {}
            assert mapping.mapped == ()
            await mapping.close()

    run(main)


def test_switched_off_nobody_hears_anything() -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), pcp=True, nat_pmp=True, upnp=2)
        async with serving(fake) as heard:
            asked = []

            def gateways() -> list[object]:
                asked.append(1)
                return [fake.gateway]

            off = PortMapping(port=lambda: 51820, gateways=gateways, enabled=lambda: False)  # type: ignore[arg-type]
            async with off:
                off.refresh()
                await off.settled()
                async with PortMapping(port=lambda: 51820, gateways=lambda: [fake.gateway]) as on:
                    await on.settled()
                assert off.mapped == ()
            before = [*heard]
            assert before
            assert asked == []
            heard.clear()
            async with PortMapping(port=lambda: 51820, gateways=lambda: [fake.gateway], enabled=lambda: False):
                pass
            assert heard == []

    run(main)


def test_the_switch_gives_back_what_is_held_and_then_there_is_silence() -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), pcp=True)
        enabled = True
        changed = asyncio.Event()
        async with serving(fake) as heard:
            mapping = PortMapping(
                port=lambda: 51820, gateways=lambda: [fake.gateway], changed=changed.set, enabled=lambda: enabled
            )
            async with mapping:
                await changed.wait()
                enabled = False
                changed.clear()
                mapping.refresh()
                await changed.wait()
                assert mapping.mapped == ()
                while fake.entries:
                    await asyncio.sleep(0.001)
                heard.clear()
                mapping.refresh()
            assert heard == []

    run(main)


def test_another_port_is_mapped_when_it_changes() -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), pcp=True)
        port = 0
        async with serving(fake), PortMapping(port=lambda: port, gateways=lambda: [fake.gateway]) as mapping:
            await mapping.settled()
            for port in (40_000, 50_000):
                mapping.refresh()
                while [one.address.port for one in mapping.mapped] != [port]:
                    await asyncio.sleep(0.001)
            assert set(fake.entries) == {50_000}

    run(main)


def test_what_gateways_speak_is_found_without_mapping_anything() -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), pcp=True, nat_pmp=True, upnp=1)
        async with serving(fake):
            found = await discover([fake.gateway])
        assert [one.protocol for one in found] == ["pcp", "nat-pmp", "upnp"]
        assert fake.entries == {}
        assert not [one for one in fake.asked if "Mapping" in one or one.endswith(" 1")]

    run(main)


def test_without_gateways_nothing_is_found_at_once() -> None:
    assert asyncio.run(discover([])) == ()


def _answering(head: bytes, body: bytes = b"") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body)
        writer.close()

    return serve


HOSTILE = {
    "billion laughs": _answering(b"HTTP/1.1 200 OK", LAUGHS),
    "a remote document type": _answering(b"HTTP/1.1 200 OK", REMOTE_DTD),
    "a huge document": _answering(b"HTTP/1.1 200 OK", b"<root>" + b"<x/>" * 100_000 + b"</root>"),
    "a deep document": _answering(b"HTTP/1.1 200 OK", b"<x>" * 10_000),
    "a redirect": _answering(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data"),
    "a wrong length": _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000", b"<root/>"),
    "nothing": _answering(b""),
    "a service elsewhere": _answering(
        b"HTTP/1.1 200 OK",
        b"<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
        b"<controlURL>http://169.254.169.254/</controlURL></service></root>",
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_gateway_maps_nothing_and_harms_nobody(how: str) -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), upnp=2, **AT_ONCE)  # type: ignore[arg-type]
        mapping = PortMapping(port=lambda: 51820, gateways=lambda: [fake.gateway])
        async with serving(fake, HOSTILE[how]), mapping:
            await mapping.settled()
            assert mapping.mapped == ()
            assert [one.protocol for one in mapping.found] == ["pcp"]

    run(main)


def test_a_gateway_that_lies_about_its_address_is_not_believed() -> None:
    async def main() -> None:
        fake = FakeGateway(loopback_gateway(), nat_pmp=True, external=ip_address("169.254.169.254"))
        async with serving(fake), PortMapping(port=lambda: 51820, gateways=lambda: [fake.gateway]) as mapping:
            await mapping.settled()
            assert mapping.mapped == ()
            assert [(one.protocol, one.why) for one in mapping.problems] == [
                ("nat-pmp", "gives nonsense: the external address is 169.254.169.254")
            ]

    run(main)
