"""Networks on lab hosts for tests: an underlay of both families, a coordinator on it, and hosts to join."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Network
from pathlib import Path

from warren.lab import Bridge, Host, Lab, Process
from warren.lab.nat64 import start_nat64
from warren.lab.network import Network

NAT64 = IPv6Network("2001:db8:64::/96")
_SERVER4, _SERVER6 = "198.51.100.1", "2001:db8:1::1"
_ROUTER4, _ROUTER6 = "198.51.100.254", "2001:db8:1::ff"


class Underlay:
    """One open network: a switch, the server of the coordinator, and hosts with the families that a test wants."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch: Bridge = lab.bridge("internet")
        self.server = lab.host("server")
        lab.attach(self.server, self.switch, f"{_SERVER4}/24", f"{_SERVER6}/64")
        self._next = 10

    def host(self, name: str, families: str = "46") -> Host:
        """A host with IPv4 (``4``), IPv6 (``6``) or both. One without IPv4 uses the NAT64, if there is one."""
        made = self.lab.host(name)
        number, self._next = self._next, self._next + 1
        addresses = {"4": f"198.51.100.{number}/24", "6": f"2001:db8:1::{number}/64"}
        self.lab.attach(made, self.switch, *(addresses[family] for family in families))
        if "4" not in families:
            made.route(str(NAT64), via=_ROUTER6)
            made.run(["sh", "-c", f"echo nameserver {_ROUTER6} > /etc/resolv.conf"])
        return made

    def nat64(self) -> None:
        """The way from hosts with IPv6 only to those with IPv4 only."""
        router = self.lab.router("router")
        self.lab.attach(router, self.switch, f"{_ROUTER4}/24", f"{_ROUTER6}/64")
        start_nat64(router, NAT64, interface="eth0")

    def network(self, name: str = "home", *, prefix4: str | None = "10.77.0.0/16") -> Network:
        return Network(self.server, name, url=f"https://{_SERVER4}:8443", prefix4=prefix4)

    def started(self, *names: str) -> tuple[Network, list[Host]]:
        """A network, and a member of it on a new host of each of ``names``."""
        network = self.network()
        network.start()
        hosts = [self.host(name) for name in names]
        ticket = network.ticket("--uses", str(len(hosts)))
        for host in hosts:
            network.join(host, ticket=ticket, wait=False)
        for host in hosts:
            network.wait_up(host)
        return network, hosts

    @property
    def second_url(self) -> list[str]:
        """The option that adds the coordinator's IPv6 address."""
        return ["--url", f"https://[{_SERVER6}]:8443"]


def pinged(host: Host, targets: Sequence[str], *, wait_s: int = 10) -> list[str]:
    """Those of ``targets`` that did not answer ``host`` within ``wait_s`` seconds; all are asked at once."""
    script = "\n".join(
        f"(ping -n -c {wait_s} -i 1 -w {wait_s} {target} | grep -q 'bytes from' || echo {target}) &"
        for target in targets
    )
    done = host.run(["sh", "-c", f"{script}\nwait"], timeout=wait_s + 20)
    unanswered = set(done.stdout.split())
    return [target for target in targets if target in unanswered]


def wait_pinged(host: Host, target: str, timeout: float = 60.0) -> None:
    host.wait_for(["ping", "-n", "-c1", "-W1", target], timeout)


def data_plane_pids(host: Host) -> list[int]:
    """The data planes on a host; they are processes of their own."""
    found = host.run(["pgrep", "-f", "warren.engine.userspace"], check=False).stdout.split()
    here = host.netns_path.stat().st_ino
    return [int(pid) for pid in found if _namespace(int(pid)) == here]


def _namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def output_of(process: Process | None) -> str:
    assert process is not None
    return process.output()
