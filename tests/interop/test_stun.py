"""Our STUN server judged by coturn's tools, and our discovery against coturn's server, behind NATs of the kernel."""

from __future__ import annotations

import asyncio
import shutil
import sys
from ipaddress import ip_address

import pytest

from warren.doctor.sockets import discover_behaviour, discover_lifetime
from warren.lab import Host, Lab
from warren.lab.coturn import start_coturn
from warren.lab.nat import KINDS, NatKind
from warren.lab.program import Process
from warren.model.tunnel import TransportAddress
from warren.proto.stun.behaviour import Behaviour
from warren.proto.stun.lifetime import Lifetime

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not (shutil.which("turnserver") and shutil.which("turnutils_natdiscovery")), reason="not installed: coturn"
    ),
]
SERVER = ("203.0.113.1", "203.0.113.2")
WORDS = {
    "eim": "Endpoint Independent Mapping",
    "adm": "Address Dependent Mapping",
    "apdm": "Address and Port Dependent Mapping",
    "eif": "Endpoint Independent Filtering",
    "adf": "Address Dependent Filtering",
    "apdf": "Address and Port Dependent Filtering",
}
HAIRPIN = NatKind("eim", "adf", "sequential", hairpin=True)
SITES = {**KINDS, "hairpin": HAIRPIN}


class Sites:
    """A host for a server on two addresses, and one behind a NAT of each kind."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch = lab.bridge("internet")
        self.server = lab.host("server")
        lab.attach(self.server, self.switch, *(f"{address}/24" for address in SERVER))
        self.count = 0

    def behind(self, kind: NatKind) -> Host:
        self.count += 1
        host, router = self.lab.host(f"host{self.count}"), self.lab.router(f"router{self.count}")
        self.lab.link(host, router, "192.168.1.10/24", "192.168.1.1/24", interfaces=("eth0", "lan"))
        self.lab.attach(router, self.switch, f"203.0.113.{9 + self.count}/24", interface="wan")
        host.route("default", via="192.168.1.1")
        router.nat("wan", kind)
        return host

    def open(self) -> Host:
        host = self.lab.host("open")
        self.lab.attach(host, self.switch, "203.0.113.200/24")
        return host


@pytest.fixture
def sites(lab: Lab) -> Sites:
    return Sites(lab)


def our_server(host: Host, *options: str) -> Process:
    arguments = [*options, *SERVER, "--", "3478", "3479"]
    process = host.start([sys.executable, "-m", "tests.support.stun_server", *arguments], name="stun")
    host.wait_for(lambda: "ready" in process.output())
    return process


def judged(host: Host, *options: str) -> str:
    return host.run(["turnutils_natdiscovery", *options, SERVER[0]], timeout=100).stdout


def behaviour(*addresses: str) -> Behaviour:
    servers = [TransportAddress(ip_address(address), 3478) for address in addresses]
    found, refused = asyncio.run(discover_behaviour(servers, 40.0))
    assert found is not None
    assert refused is None
    return found


def lifetime(waits_s: tuple[float, ...]) -> Lifetime | None:
    return asyncio.run(discover_lifetime(TransportAddress(ip_address(SERVER[0]), 3478), waits_s))


def test_coturns_tool_judges_every_nat_right_by_our_server(sites: Sites) -> None:
    our_server(sites.server, "--any-size")
    hosts = {name: sites.behind(kind) for name, kind in SITES.items()}
    judgements = {name: host.begin(judged, host, "-m", "-f") for name, host in hosts.items()}
    for name, judgement in judgements.items():
        text = judgement.result(100)
        kind = SITES[name]
        # The tool sends test III where the answer of test II says: by RFC 5780 §7.4 that is the first address again,
        # with another port, so that it cannot tell these two apart. coturn's own server names the second address.
        mapping = "apdm" if kind.mapping == "adm" else kind.mapping
        assert f"NAT with {WORDS[mapping]}!" in text, (name, text)
        assert f"NAT with {WORDS[kind.filtering]}!" in text, (name, text)


def test_our_discovery_judges_every_nat_right_by_coturns_server(sites: Sites) -> None:
    start_coturn(sites.server, SERVER)
    hosts = {name: sites.behind(kind) for name, kind in SITES.items()}
    discoveries = {name: host.begin(behaviour, SERVER[0]) for name, host in hosts.items()}
    for name, discovery in discoveries.items():
        found = discovery.result(100)
        kind = SITES[name]
        assert (name, found.mapping, found.filtering) == (name, kind.mapping, kind.filtering)
        assert found.translated
        assert found.allocation == kind.allocation, name
        if kind.mapping == "eim":
            assert found.hairpin == kind.hairpin, name


def test_an_open_host_is_seen_as_open(sites: Sites) -> None:
    start_coturn(sites.server, SERVER)
    found = sites.open().call(behaviour, SERVER[0])
    assert (found.translated, found.mapping, found.filtering) == (False, "eim", "eif")
    assert found.discovery is not None


def test_coturns_client_gets_its_address_of_our_server(sites: Sites) -> None:
    our_server(sites.server, "--any-size")
    output = sites.open().run(["turnutils_stunclient", "-p", "3478", SERVER[0]], timeout=30).stdout
    assert "203.0.113.200" in output


def test_a_bare_request_to_our_strict_server_goes_unanswered(sites: Sites) -> None:
    our_server(sites.server)
    host = sites.open()
    done = host.run(["timeout", "3", "turnutils_stunclient", "-p", "3478", SERVER[0]], check=False, timeout=30)
    assert "203.0.113.200" not in done.stdout
    assert host.call(behaviour, *SERVER).mapping == "eim"


@pytest.mark.parametrize("server", ["coturn", "ours"])
def test_the_lifetime_of_mappings_is_measured(sites: Sites, server: str) -> None:
    if server == "coturn":
        start_coturn(sites.server, SERVER)
    else:
        our_server(sites.server)
    host = sites.behind(NatKind("eim", "apdf", "random", udp_lifetime_s=6))
    found = host.call(lifetime, (2.0, 4.0, 9.0), timeout=60)
    assert found == Lifetime(4.0, 9.0)
