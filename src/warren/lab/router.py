"""A host that forwards between its interfaces, and may hide one side behind its own address."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from warren.lab import conntrack
from warren.lab.configure import checked_interface_name
from warren.lab.firewall import Firewall, Udp, firewall_ruleset
from warren.lab.host import Host
from warren.lab.nat import NatKind, nat_kind
from warren.lab.nat_rules import nat_ruleset

_TABLE = "lab_nat"


@dataclass(frozen=True, slots=True)
class Masquerade:
    """NAT at one interface. RFC 4787: mapping is endpoint-independent, or address and port-dependent if ``symmetric``.

    Filtering is address and port-dependent in both cases.
    """

    interface: str
    symmetric: bool = False
    udp_timeout_s: int | None = None
    """How long an idle UDP mapping lives; None: the kernel's default (30 s, 120 s once answered)."""


@dataclass(slots=True)
class Nat:
    """A NAT of a kind at one interface of a router."""

    interface: str
    kind: NatKind
    table: str
    generation: int = 0

    def ruleset(self) -> str:
        return nat_ruleset(self.table, self.interface, self.kind, generation=self.generation)


class Router(Host):
    """A host that forwards IPv4 and IPv6. Made by :meth:`Lab.router`."""

    def __init__(self, name: str, *, artifacts: Path, scratch: Path) -> None:
        super().__init__(name, artifacts=artifacts, scratch=scratch)
        self._masquerades: dict[str, Masquerade] = {}
        self.nats: dict[str, Nat] = {}
        """By interface."""
        self._firewall: tuple[str, Firewall] = ("", Firewall())

    def set_up(self) -> None:
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)

    def nat(self, interface: str, kind: NatKind | str) -> None:
        """Make ``interface`` the outside of a NAT of ``kind``, or of the one that has this name in ``nat.KINDS``.

        IPv4 packets from inside leave with the first address of the interface, whichever that is at the time. A second
        call for an interface replaces the first, and its mappings are gone. Raises UsageError for an unknown kind,
        OperationFailed when nft is missing or refuses.
        """
        checked_interface_name(interface)
        known = self.nats.get(interface)
        made = Nat(interface, nat_kind(kind), known.table if known else f"{_TABLE}_{len(self.nats)}")
        self.nft(made.ruleset())
        self.nats[interface] = made

    def masquerade(self, interface: str, *, symmetric: bool = False, udp_timeout_s: int | None = None) -> None:
        """Give IPv4 packets that leave by ``interface`` its address; a second call for an interface replaces the first.

        The plainest NAT there is, without a firewall; :meth:`nat` has the other kinds. See :class:`Masquerade`. Raises
        OperationFailed when nft is missing or refuses.
        """
        checked_interface_name(interface)
        self._masquerades[interface] = Masquerade(interface, symmetric, udp_timeout_s)
        self.nft(masquerade_ruleset(list(self._masquerades.values())))

    def firewall(self, outside: str, firewall: Firewall) -> None:
        """Forward between the interface ``outside`` and the others only what ``firewall`` lets through.

        A second call replaces the first, and ends :meth:`block_udp`.
        """
        checked_interface_name(outside)
        self.nft(firewall_ruleset(outside, firewall))
        self._firewall = (outside, firewall)

    def block_udp(self, how: Udp = "dropped") -> None:
        """Forward no UDP until :meth:`unblock_udp`, whatever the firewall says; flows of before end, too."""
        outside, firewall = self._firewall
        self.nft(firewall_ruleset(outside, replace(firewall, udp=how)))

    def unblock_udp(self) -> None:
        """Forward again what the firewall lets through."""
        self.nft(firewall_ruleset(*self._firewall))

    def change_address(self, interface: str, address: str) -> None:
        """Replace the IPv4 addresses of ``interface`` by one ("192.0.2.7/24"), and forget every flow."""
        checked_interface_name(interface)
        shown = json.loads(self.run(["ip", "-json", "-4", "address", "show", "dev", interface]).stdout)
        old = [f"{one['local']}/{one['prefixlen']}" for link in shown for one in link.get("addr_info", ())]
        # The old one first: a second address of its subnet would go with it.
        self.ip(*(f"address delete {one} dev {interface}" for one in old), f"address add {address} dev {interface}")
        self.restore_routes()
        self.forget_flows()

    def reboot(self, dark_s: float, *, interface: str = "", address: str | None = None) -> None:
        """Forward nothing for ``dark_s`` seconds, which the caller waits, and begin without any flow.

        With ``address`` the ``interface`` comes back with it in place of its IPv4 addresses.
        """
        self.sysctl("net.ipv4.ip_forward", 0)
        self.sysctl("net.ipv6.conf.all.forwarding", 0)
        time.sleep(dark_s)
        if address is not None:
            self.change_address(interface, address)
        self.forget_flows()
        self.set_up()

    def forget_flows(self) -> None:
        """Empty the connection tracking table, as a reboot does: every NAT mapping is gone."""
        if self.nats:
            self.nft("\n".join(nat.ruleset() for nat in self.nats.values()))
        conntrack.flush(self)

    def rebind(self, interface: str | None = None) -> None:
        """Forget every flow, and give other ports than before to the inner ones (of one NAT, or of all).

        A NAT that preserved ports gives out random ones from now on.
        """
        for nat in self.nats.values():
            nat.generation += interface in (None, nat.interface)
        self.forget_flows()

    def rebind_one(self, address: str, port: int, *, protocol: Literal["udp", "tcp"] = "udp") -> int:
        """Forget the flows of one inner port alone, and give it another outer one; returns how many flows there were.

        Behind a NAT that overloads ports it gets the same one again.
        """
        found = [flow for flow in conntrack.flows(self) if flow.is_of(protocol, address, port)]
        outer = {flow.answered[1] if str(flow.source[0]) == address else flow.target[1] for flow in found}
        for nat in self.nats.values():
            remotes = {f" . {flow.target[0]}" for flow in found} if nat.kind.mapping == "adm" else {""}
            elements = [f"out {{ {protocol} . {address} . {port}{remote} }}" for remote in sorted(remotes)]
            elements += [f"in {{ {protocol} . {number} }}" for number in sorted(outer)]
            for element in elements:  # one at a time: a NAT of this kind may not have it
                self.run(["nft", "delete", "element", "ip", nat.table, element], check=False)
        for flow in found:
            conntrack.forget(self, flow)
        return len(found)


def masquerade_ruleset(masquerades: list[Masquerade]) -> str:
    """The nftables document that replaces whatever NAT there is by ``masquerades``, in one transaction."""
    timeouts, assignments, translations = [], [], []
    for number, nat in enumerate(masquerades):
        translations.append(f'oifname "{nat.interface}" masquerade{" random" if nat.symmetric else ""}')
        if nat.udp_timeout_s is not None:
            policy = f"policy = {{ unreplied : {nat.udp_timeout_s}, replied : {nat.udp_timeout_s} }}"
            timeouts.append(f"ct timeout udp{number} {{ protocol udp; l3proto ip; {policy}; }}")
            assignments.append(f'oifname "{nat.interface}" meta l4proto udp ct timeout set "udp{number}"')
    return "\n".join(
        [
            f"add table ip {_TABLE}",
            f"delete table ip {_TABLE}",
            f"table ip {_TABLE} {{",
            *timeouts,
            "chain timeouts { type filter hook postrouting priority -200;",
            *assignments,
            "}",
            "chain translate { type nat hook postrouting priority srcnat;",
            *translations,
            "}",
            "}",
        ]
    )
