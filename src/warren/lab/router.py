"""A host that forwards between its interfaces, and may hide one side behind its own address."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from warren.errors import OperationFailed
from warren.lab.configure import checked_interface_name
from warren.lab.host import Host

_TABLE = "lab_nat"

# linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12  # linux/netlink.h
_DELETE_CONNTRACK = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLMSG = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NFGENMSG = struct.Struct("!BBH")  # family, version, resource
_ERROR = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Masquerade:
    """NAT at one interface. RFC 4787: mapping is endpoint-independent, or address and port-dependent if ``symmetric``.

    Filtering is address and port-dependent in both cases.
    """

    interface: str
    symmetric: bool = False
    udp_timeout_s: int | None = None
    """How long an idle UDP mapping lives; None: the kernel's default (30 s, 120 s once answered)."""


class Router(Host):
    """A host that forwards IPv4 and IPv6. Made by :meth:`Lab.router`."""

    def __init__(self, name: str, *, artifacts: Path, scratch: Path) -> None:
        super().__init__(name, artifacts=artifacts, scratch=scratch)
        self._masquerades: dict[str, Masquerade] = {}

    def set_up(self) -> None:
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)

    def masquerade(self, interface: str, *, symmetric: bool = False, udp_timeout_s: int | None = None) -> None:
        """Give IPv4 packets that leave by ``interface`` its address; a second call for an interface replaces the first.

        See :class:`Masquerade`. Raises OperationFailed when nft is missing or refuses.
        """
        checked_interface_name(interface)
        self._masquerades[interface] = Masquerade(interface, symmetric, udp_timeout_s)
        self.nft(masquerade_ruleset(list(self._masquerades.values())))

    def forget_flows(self) -> None:
        """Empty the connection tracking table, as a reboot does: every NAT mapping is gone."""
        payload = _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)
        length = _NLMSG.size + len(payload)
        with self.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            flags = _NLM_F_REQUEST | _NLM_F_ACK
            netlink.send(_NLMSG.pack(length, _DELETE_CONNTRACK, flags, 1, 0) + payload)
            (error,) = _ERROR.unpack_from(netlink.recv(4096), _NLMSG.size)
        if error:
            raise OperationFailed(f"host {self.name}: cannot forget its flows: {os.strerror(-error)}")


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
