"""Each NAT kind does what its name says, in the judgement of coturn's ``turnutils_natdiscovery`` (RFC 5780)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping

import pytest

from warren.lab import Bridge, Host, Lab, Router
from warren.lab.coturn import start_coturn
from warren.lab.nat import KINDS, NatKind

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not (shutil.which("turnserver") and shutil.which("turnutils_natdiscovery")), reason="not installed: coturn"
    ),
]
SERVER = ("203.0.113.1", "203.0.113.2")
INSIDE = "192.168.1.1"

WORDS = {
    "eim": "Endpoint Independent Mapping",
    "adm": "Address Dependent Mapping",
    "apdm": "Address and Port Dependent Mapping",
    "eif": "Endpoint Independent Filtering",
    "adf": "Address Dependent Filtering",
    "apdf": "Address and Port Dependent Filtering",
}
OTHERS = {
    "hairpin": NatKind("eim", "apdf", hairpin=True),
    "hairpin-full-cone": NatKind("eim", "eif", hairpin=True),
    "hairpin-symmetric": NatKind("apdm", "apdf", "random", hairpin=True),
    "hairpin-sequential": NatKind("eim", "adf", "sequential", hairpin=True),
    "open-symmetric": NatKind("apdm", "eif", "random"),
    "address-sequential": NatKind("adm", "apdf", "sequential"),
}


class Internet:
    """A server with the judge on two addresses, and sites with a host behind a NAT."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch: Bridge = lab.bridge("internet")
        self.server = lab.host("server")
        lab.attach(self.server, self.switch, *(f"{address}/24" for address in SERVER))
        start_coturn(self.server, SERVER)
        self.sites = 0

    def site(self, kind: NatKind | str) -> tuple[Host, Router]:
        self.sites += 1
        host, router = self.lab.host(f"host{self.sites}"), self.lab.router(f"router{self.sites}")
        self.lab.link(host, router, "192.168.1.10/24", f"{INSIDE}/24", interfaces=("eth0", "lan"))
        self.lab.attach(router, self.switch, f"203.0.113.{9 + self.sites}/24", interface="wan")
        host.route("default", via=INSIDE)
        router.nat("wan", kind)
        return host, router


@pytest.fixture
def internet(lab: Lab) -> Internet:
    return Internet(lab)


def judged(host: Host, *options: str) -> str:
    return host.run(["turnutils_natdiscovery", *options, SERVER[0]], timeout=60).stdout


def seen_ports(judgement: str) -> list[int]:
    return [int(port) for port in re.findall(r"UDP reflexive addr: [\d.]+:(\d+)", judgement)]


def judge(internet: Internet, kinds: Mapping[str, NatKind]) -> dict[str, tuple[str, str, bool]]:
    """Mapping, filtering and hairpin of each kind as judged; all at the same time, since silence takes seconds."""
    hosts = {name: internet.site(kind)[0] for name, kind in kinds.items()}
    behaviours = {name: host.begin(judged, host, "-m", "-f") for name, host in hosts.items()}
    hairpins = {name: host.begin(judged, host, "-H") for name, host in hosts.items()}
    results = {}
    for name in kinds:
        mapping, filtering = re.findall(r"NAT with (.*)!", behaviours[name].result(60))
        results[name] = (mapping, filtering, "successful hairpinning" in hairpins[name].result(60))
    return results


@pytest.mark.parametrize("kinds", [KINDS, OTHERS], ids=["named", "others"])
def test_every_kind_is_judged_to_be_what_it_claims(internet: Internet, kinds: Mapping[str, NatKind]) -> None:
    claims = {name: (WORDS[kind.mapping], WORDS[kind.filtering], kind.hairpin) for name, kind in kinds.items()}
    assert judge(internet, kinds) == claims
